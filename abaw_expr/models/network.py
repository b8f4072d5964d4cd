"""Branches and the network of one or two of them.

Shapes: B samples, V views of a sample (pictures at equal intervals; sound has one), C x H x W one view, K classes.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from abaw_expr.models.encoders import mcnn, rhcnn
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.settings import ModelSettings


@dataclass(frozen=True)
class Encoder:
    """What a branch needs to know of its encoder, which turns [B, *input_shape] into feature maps."""

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
    """One modality: its encoder, the mean over its feature map, then dropout and a linear layer."""

    def __init__(self, encoder: nn.Module, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_classes))

    def forward(self, x: Tensor, windows: Tensor | None = None) -> BranchOutput:
        """`x` is [B, C, H, W], one view a sample, or [B, V, C, H, W].

        With `windows`, int64 [B, 2], `x` holds chunks of sound instead, and sample i is the window of chunk
        `windows[i, 0]` that begins at its step `windows[i, 1]`.
        """
        if windows is not None:
            features = window_means(self.encoder(x), windows).unsqueeze(1)
        else:
            x = x if x.ndim == 5 else x.unsqueeze(1)
            features = self.encoder(x.flatten(0, 1)).mean(dim=(2, 3)).unflatten(0, x.shape[:2])
        logits = self.head(features.flatten(0, 1)).unflatten(0, features.shape[:2])  # [B, V, K]
        at_least_float32 = torch.promote_types(logits.dtype, torch.float32)  # under autocast the head gives bfloat16
        log_p = logits.log_softmax(-1, dtype=at_least_float32)
        return BranchOutput(features, log_p.logsumexp(1) - math.log(features.shape[1]))


def window_means(maps: Tensor, windows: Tensor) -> Tensor:
    """Mean of the feature map over each window, [B, width], from the maps of chunks [G, width, T / stride, F].

    `windows` is as in `Branch`. A window that begins between two rows of the map has a share of the first and of the
    last: running sums, interpolated between rows, give all means of overlapping windows for the cost of one pass.
    """
    stride = AUDIO_WINDOW.stride
    rows = AUDIO_WINDOW.steps // stride
    at_least_float32 = torch.promote_types(maps.dtype, torch.float32)  # running sums need the digits
    sums = maps.mean(3, dtype=at_least_float32).cumsum(2)
    sums = nn.functional.pad(sums, (1, 0)).movedim(2, 1)  # [G, T / stride + 1, width]
    chunk, step = windows.unbind(1)
    first, share = step // stride, (step % stride / stride).to(sums.dtype)[:, None]
    after = (first + 1).clamp(max=sums.shape[1] - 1 - rows)  # beyond the last row its share is 0
    begin = torch.lerp(sums[chunk, first], sums[chunk, after], share)
    end = torch.lerp(sums[chunk, first + rows], sums[chunk, after + rows], share)
    return (end - begin) / rows


class Network(nn.Module):
    """Branches side by side, each on the samples that have its modality; they meet in the fusion of their outputs."""

    def __init__(self, branches: Mapping[str, Branch], n_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.n_classes = n_classes

    def forward(
        self, inputs: Mapping[str, Tensor], rows: Mapping[str, Tensor], windows: Mapping[str, Tensor], samples: int
    ) -> dict[str, Tensor]:
        """Log probabilities [B, K] of every branch, B = `samples`.

        `rows[name]`, int64, says which samples have the modality; `inputs[name]` holds these alone, or the chunks that
        their `windows[name]` lie in. The other samples get the uniform distribution, and neither gradients nor BN
        statistics see them.
        """
        return {
            name: self._branch(branch, inputs[name], rows[name], windows.get(name), samples)
            for name, branch in self.branches.items()
        }

    def compile_encoders(self) -> None:
        """Has torch compile the encoders when they first run; the heads are too small to gain by it.

        Anew for every number of samples that turns up, as far as torch's limit goes: its code for any number fails on
        these networks.
        """
        for branch in self.branches.values():
            assert isinstance(branch, Branch)
            branch.encoder.compile(dynamic=False)

    def _branch(self, branch: nn.Module, x: Tensor, rows: Tensor, windows: Tensor | None, samples: int) -> Tensor:
        uniform = torch.full((samples, self.n_classes), -math.log(self.n_classes), device=x.device)
        if not len(rows) and not distributed.is_initialized():
            # Nothing to run, and no other process to wait for this one in BN. The parameters stay in the graph: a
            # gradient of 0, where none would stop backward().
            return uniform + 0 * torch.stack([parameter.sum() for parameter in branch.parameters()]).sum()
        log_p = branch(x, windows).log_p
        return uniform.to(log_p.dtype).index_copy(0, rows, log_p)


def build_network(settings: ModelSettings, n_classes: int) -> Network:
    """The network that the settings describe, freshly initialised from torch's global seed."""
    network = Network({name: build_branch(name, settings, n_classes) for name in settings.branches}, n_classes)
    network.apply(_initialise)
    # Convolutions follow the layout of their weights; channels last is the faster one for them on CPU and GPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Puts every BN into the convolution before it, in place: faster, for prediction only."""
    network.eval()
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for place, (layer, norm) in enumerate(pairwise(list(sequence))):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    sequence[place], sequence[place + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network


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
