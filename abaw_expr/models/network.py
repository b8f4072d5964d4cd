"""Branches and the network of one or two of them.

Shapes: B samples, V views of a sample (images evenly spaced in time; audio has one), C x H x W one view, K classes.
"""

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, distributed, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.settings import ModelSettings


class BranchOutput(NamedTuple):
    """The output of a branch for its samples."""

    features: Tensor
    """[B, V, width]"""
    log_p: Tensor
    """[B, K], log probabilities: the softmax averaged over the views."""


class Branch(nn.Module):
    """The network of one modality: encoder, mean over its feature map, dropout and linear layer."""

    def __init__(self, encoder: nn.Module, width: int, n_classes: int, dropout: float) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = nn.Sequential(nn.Dropout(dropout), nn.Linear(width, n_classes))

    def forward(self, x: Tensor, windows: Tensor | None = None) -> BranchOutput:
        """`x` is [B, C, H, W], one view per sample, or [B, V, C, H, W].

        With `windows`, int64 [B, 2], `x` [G, C, H, W] holds G chunks of audio instead, and sample i is the window of
        chunk `windows[i, 0]` that begins at its step `windows[i, 1]`.
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

    `windows` [B, 2] is as in `Branch`. A window that begins between two rows of the map contains fractions of its first
    and last row. The means are differences of running sums, interpolated between rows, so that overlapping windows cost
    one pass.
    """
    stride = AUDIO_WINDOW.stride
    rows = AUDIO_WINDOW.steps // stride
    at_least_float32 = torch.promote_types(maps.dtype, torch.float32)  # running sums need the precision
    sums = maps.mean(3, dtype=at_least_float32).cumsum(2)
    sums = nn.functional.pad(sums, (1, 0)).movedim(2, 1)  # [G, T / stride + 1, width]
    chunk, step = windows.unbind(1)
    first, fraction = step // stride, (step % stride / stride).to(sums.dtype)[:, None]
    after = (first + 1).clamp(max=sums.shape[1] - 1 - rows)  # beyond the last row its fraction is 0
    begin = torch.lerp(sums[chunk, first], sums[chunk, after], fraction)
    end = torch.lerp(sums[chunk, first + rows], sums[chunk, after + rows], fraction)
    return (end - begin) / rows


class Network(nn.Module):
    """Branches in parallel, each on the samples that have its modality; their outputs are fused outside."""

    def __init__(self, branches: Mapping[str, Branch], n_classes: int) -> None:
        super().__init__()
        self.branches = nn.ModuleDict(branches)
        self.n_classes = n_classes

    def forward(
        self, inputs: Mapping[str, Tensor], rows: Mapping[str, Tensor], windows: Mapping[str, Tensor], samples: int
    ) -> dict[str, Tensor]:
        """Log probabilities [B, K] of every branch, B = `samples`.

        `rows[name]`, int64 [b], are the indices of the samples that have the modality; `inputs[name]` has only these,
        [b, V, C, H, W], or the chunks that contain their `windows[name]`, [b, 2]. The other samples get the uniform
        distribution, and do not affect gradients and BN statistics.
        """
        return {
            name: self._branch(branch, inputs[name], rows[name], windows.get(name), samples)
            for name, branch in self.branches.items()
        }

    def compile_encoders(self) -> None:
        """Compiles the encoders at their first call; the heads are too small to gain from it.

        They are compiled for each number of samples, up to torch's limit, as its code for dynamic shapes fails on these
        networks.
        """
        for branch in self.branches.values():
            assert isinstance(branch, Branch)
            branch.encoder.compile(dynamic=False)

    def _branch(self, branch: nn.Module, x: Tensor, rows: Tensor, windows: Tensor | None, samples: int) -> Tensor:
        uniform = torch.full((samples, self.n_classes), -math.log(self.n_classes), device=x.device)
        if not len(rows) and not distributed.is_initialized():
            # Nothing to compute, and no other process waits in BN. The parameters stay in the graph with a gradient of
            # 0, as backward() fails without any.
            return uniform + 0 * torch.stack([parameter.sum() for parameter in branch.parameters()]).sum()
        log_p = branch(x, windows).log_p
        return uniform.to(log_p.dtype).index_copy(0, rows, log_p)


def build_network(settings: ModelSettings, n_classes: int) -> Network:
    """The network that the settings describe, initialised from torch's global seed."""
    network = Network({name: build_branch(name, settings, n_classes) for name in settings.branches}, n_classes)
    network.apply(_initialise)
    # Convolutions use the memory format of their weights; channels last is faster on CPU and GPU.
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def fold_batch_norm(network: nn.Module) -> nn.Module:
    """Merges every BN into the convolution before it, in place: faster, for prediction only."""
    network.eval()
    for sequence in network.modules():
        if isinstance(sequence, nn.Sequential):
            for i, (layer, norm) in enumerate(pairwise(list(sequence))):
                if isinstance(layer, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    sequence[i], sequence[i + 1] = fuse_conv_bn_eval(layer, norm), nn.Identity()
    return network


def build_branch(name: str, settings: ModelSettings, n_classes: int) -> Branch:
    """The branch with the encoder of that name in `ENCODERS`, as the settings describe it."""
    encoder = ENCODERS[name]
    return Branch(encoder.build(settings), encoder.width, n_classes, settings.dropout)


def _initialise(module: nn.Module) -> None:
    """He initialisation for convolutions (D); BN and linear layers keep torch's default."""
    if isinstance(module, nn.Conv2d):
        nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
        if module.bias is not None:
            nn.init.zeros_(module.bias)
