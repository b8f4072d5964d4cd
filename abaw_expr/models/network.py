"""The network of a run: branches by name.

Shapes: B samples.
"""

from collections.abc import Iterator, Mapping
from itertools import chain, pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.errors import SettingsError
from abaw_expr.models.branch import Branch, Inputs
from abaw_expr.models.column_networks import ColumnNetworks, build_branch, networks_of
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.links import Link, Votes, link_of
from abaw_expr.settings import Settings


class Network(nn.Module):
    """Branches in parallel, each on the samples that have its modalities; their votes are fused outside."""

    def __init__(self, branches: Mapping[str, Branch | ColumnNetworks], link: Link) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.link = link

    def forward(
        self,
        inputs: Mapping[str, Tensor],
        rows: Mapping[str, Tensor],
        windows: Mapping[str, Tensor],
        valid: Tensor,
        activity: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Votes]:
        """The votes of every branch, as `Batch` has the inputs; `valid`, bool [B], is false beyond a video's end.

        `activity[modality]`, float32 [k], is asked for by branches that weigh their streams by key frames.

        `rows[modality]`, int64 [k], are the indices of the samples that have the modality, `inputs[modality]` has only
        these. The other samples do not affect gradients and BN statistics.
        """
        batch = Inputs(inputs, rows, windows, valid, activity or {})
        return {name: branch(batch) for name, branch in self.branches.items()}

    def own_networks(self) -> dict[str, dict[str, Branch]]:
        """The networks of every branch by the column that they vote on; the one that votes on all is called ``."""
        return networks_of(dict(self.branches.items()))

    def own_branches(self) -> dict[str, Branch]:
        """The branches by name; of one with a network for each column the first network, as which all are built."""
        return {name: next(iter(networks.values())) for name, networks in self.own_networks().items()}

    def encoders(self) -> Iterator[Encoder]:
        """The encoders of all branches, in their order."""
        yield from (encoder for *_, encoder in self.encoders_of_streams())

    def encoders_of_streams(self) -> Iterator[tuple[str, str, Encoder]]:
        """The same with the names of their branches and streams, which the networks of a branch have in common."""
        for name, networks in self.own_networks().items():
            for branch in networks.values():
                for stream, one in zip(branch.streams, branch.own_streams(), strict=True):
                    yield name, stream, one.encoder

    def modalities(self) -> dict[str, list[str]]:
        """The names of the modalities that each branch reads."""
        return {name: branch.modalities for name, branch in self.own_branches().items()}

    @property
    def reads(self) -> list[str]:
        """The names of the modalities that any branch reads, in the order of the branches."""
        return list(dict.fromkeys(chain.from_iterable(self.modalities().values())))

    @property
    def key_frames(self) -> bool:
        """Whether any branch weighs its streams by key frames."""
        return any(branch.key_frames for branch in self.own_branches().values())

    @property
    def windows(self) -> dict[str, AudioWindow]:
        """The window of audio that it reads for a frame, by the modalities that have one."""
        return {encoder.modality: encoder.window for encoder in self.encoders() if encoder.window is not None}

    def penalty(self) -> Tensor | None:
        """The sum of the losses of the encoders' own of the last forward pass, []; None where none has any."""
        own = [penalty for encoder in self.encoders() if (penalty := encoder.penalty()) is not None]
        return torch.stack(own).sum() if own else None

    def compile_encoders(self) -> None:
        """Compiles the encoders at their first call; the heads are too small to gain from it.

        They are compiled for each number of samples, up to torch's limit, as its code for dynamic shapes fails on these
        networks.
        """
        for encoder in self.encoders():
            encoder.compile(dynamic=False)


def build_network(settings: Settings) -> Network:
    """The network that the settings describe, initialised from torch's global seed, without files of weights.

    Raises SettingsError for unknown encoders, temporal models and joins, for reserved names of branches, and where two
    encoders of audio read windows of different lengths.
    """
    link = link_of(settings.task_of)
    try:
        branches = {name: build_branch(name, one, settings, link) for name, one in settings.branches.items()}
        network = Network(branches, link)
    except KeyError as error:  # of torch, for a name that its dictionary of modules has as an attribute
        raise SettingsError(
            "a branch or stream has a reserved name", found=error.args[0], remedy="Name it otherwise."
        ) from error
    for encoder in network.encoders():
        encoder.initialise()
    for modality, window in network.windows.items():
        others = {one.window for one in network.encoders() if one.modality == modality} - {window, None}
        if others:
            found = ", ".join(f"{one.steps * one.hop} samples" for one in (window, *others) if one is not None)
            remedy = "Embed one of them first (`embed`), and train on its embeddings."
            raise SettingsError("the encoders of audio read different windows", found=found, remedy=remedy)
    # Convolutions use the memory format of their weights; channels last is faster on CPU and GPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def outline(settings: Settings) -> Network:
    """The network without its weights, on the meta device: what it reads and how large it is. Raises as
    `build_network`."""
    with torch.device("meta"):
        return build_network(settings)


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Merges every BN into the convolution before it, in place: faster, for prediction only."""
    network.eval()
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for i, (layer, norm) in enumerate(pairwise(list(sequence))):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    sequence[i], sequence[i + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network
