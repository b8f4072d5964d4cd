"""Branches and the network of one or two of them.

Shapes: B samples, V views of a sample (pictures at equal intervals; sound has one), C x H x W one view, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn

from abaw_expr.models import mcnn, rhcnn
from abaw_expr.settings import ModelSettings


@dataclass(frozen=True)
class Encoder:
    """What a branch needs to know of its encoder, which turns [B, *input_shape] into features [B, width]."""

    build: Callable[[ModelSettings], nn.Module]
    width: int
    input_shape: tuple[int, int, int]


ENCODERS = {
    "audio": Encoder(lambda s: mcnn.MCNN(s.attention, s.attention_groups), mcnn.WIDTH, mcnn.INPUT_SHAPE),
    "visual": Encoder(
        lambda s: rhcnn.RHCNN(s.attention, s.attention_groups, s.mixing_groups), rhcnn.WIDTH, rhcnn.INPUT_SHAPE
    ),
}
"""The encoder of each branch: another network is one more entry here."""


class BranchOutput(NamedTuple):
    """What a branch makes of its samples."""

    features: Tensor
    """[B, V, width]"""
    log_p: Tensor
    """Log probabilities [B, K]: softmax averaged over the views."""


class Branch(nn.Module):
    """One modality: its encoder, then dropout and a linear layer."""

    def __init__(self, encoder: nn.Module, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_classes))

    def forward(self, x: Tensor) -> BranchOutput:
        """`x` is [B, C, H, W], one view a sample, or [B, V, C, H, W]."""
        x = x if x.ndim == 5 else x.unsqueeze(1)
        features = self.encoder(x.flatten(0, 1))  # [B V, width]
        logits = self.head(features).unflatten(0, x.shape[:2])  # [B, V, K]
        at_least_float32 = torch.promote_types(logits.dtype, torch.float32)  # under autocast the head gives bfloat16
        log_p = logits.log_softmax(-1, dtype=at_least_float32)
        return BranchOutput(features.unflatten(0, x.shape[:2]), log_p.logsumexp(1) - math.log(x.shape[1]))


class Network(nn.Module):
    """Branches side by side, each on the samples that have its modality; they meet in the fusion of their outputs."""

    def __init__(self, branches: Mapping[str, Branch], n_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.n_classes = n_classes

    def forward(self, inputs: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Log probabilities [B, K] of every branch.

        `present[name]` is a boolean [B]: which samples have the modality. The others get the uniform distribution, and
        neither gradients nor BN statistics see them.
        """
        return {name: self._run(branch, inputs[name], present[name]) for name, branch in self.branches.items()}

    def _run(self, branch: nn.Module, x: Tensor, present: Tensor) -> Tensor:
        if present.all():  # spares a copy of the batch
            return branch(x).log_p
        uniform = x.new_full((len(x), self.n_classes), -math.log(self.n_classes))
        if not present.any():
            # Nothing to run. The parameters stay in the graph: a gradient of 0, where none would stop backward().
            return uniform + 0 * torch.stack([parameter.sum() for parameter in branch.parameters()]).sum()
        log_p = branch(x[present]).log_p
        return uniform.to(log_p.dtype).index_put((present,), log_p)


def build_network(settings: ModelSettings, n_classes: int) -> Network:
    """The network that the settings describe, freshly initialised from torch's global seed."""
    network = Network({name: build_branch(name, settings, n_classes) for name in settings.branches}, n_classes)
    network.apply(_initialise)
    # Convolutions follow the layout of their weights; channels last is the faster one for them on CPU and GPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def build_branch(name: str, settings: ModelSettings, n_classes: int) -> Branch:
    """The branch of that name in `ENCODERS`, as the settings describe it."""
    encoder = ENCODERS[name]
    return Branch(encoder.build(settings), encoder.width, n_classes, settings.dropout)


def _initialise(module: nn.Module) -> None:
    """He's initialisation for convolutions (D); BN and linear layers keep torch's."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
