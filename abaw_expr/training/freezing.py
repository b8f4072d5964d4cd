"""Encoders that keep the weights they were loaded with, and whose parts are released epoch by epoch."""

from collections.abc import Sequence

from torch import nn

from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.network import Network
from abaw_expr.settings import Settings
from abaw_expr.training.initial_weights import branches_with_initial_weights
from abaw_expr.training.run import RunFolder


def check_frozen(run: RunFolder, settings: Settings) -> None:
    """Raises SettingsError where an encoder that was drawn from the seed would be frozen."""
    begun = branches_with_initial_weights(run)
    for name, branch in settings.branches.items():
        for one, stream in branch.streams_of(name).items():
            if stream.freeze and not stream.weights and name not in begun:
                found, expected = f"branches.{name}.{one} without weights", "weights of a file or a run"
                remedy = "Name a file as its weights, give --initial-weights, or set freeze: false."
                raise SettingsError(
                    "a frozen encoder has random weights", found=found, expected=expected, remedy=remedy
                )


def set_trained(network: Network, settings: Settings, epoch: int) -> bool:
    """Freezes the encoders as an epoch has them, counted from 1; whether others are trained than before.

    What is frozen has no gradient and is in evaluation: its BN statistics do not move, and it has no dropout. All else
    is left in the mode that it is in.
    """
    before = [parameter.requires_grad for parameter in network.parameters()]
    for branch, stream, encoder in network.encoders_of_streams():
        chosen = settings.branches[branch].streams_of(branch)[stream]
        if chosen.freeze:
            encoder.requires_grad_(False).eval()
            for part in released(encoder, chosen.release, epoch):
                part.requires_grad_(True).train()
    return before != [parameter.requires_grad for parameter in network.parameters()]


def released(encoder: Encoder, release: Sequence[int], epoch: int) -> list[nn.Module]:
    """The parts of a frozen encoder that train in an epoch: one for each epoch of `release` that has come, the last
    part first, and the whole encoder from the last of these epochs on."""
    passed = sum(start <= epoch for start in release)
    if release and passed == len(release):
        return [encoder]
    return encoder.stages()[-passed:] if passed else []
