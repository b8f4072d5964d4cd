"""The dual-direction attention mixed feature network.

Shapes: B batch, C channels, H x W positions, m channels inside an attention.
"""

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.image_front_end import IMAGENET_MEAN, IMAGENET_STD, ImageFrontEnd
from abaw_expr.models.encoders.weights import fit, key_map

WIDTH = 512
"""Features of an image."""
MAP_SIDE = 7
"""Positions of the last map, along both sides; the kernels of the heads are as long."""
HEADS = 2
"""Dual-direction heads."""
REDUCTION, LEAST_WIDTH = 32, 8
"""An attention of C channels is C / `REDUCTION` wide inside, at least `LEAST_WIDTH`."""
_FEATURES = 9
"""Parts of the official backbone that are the features; those behind them belong to face recognition."""
LEAST_DIFFERENCE = 1e-6
"""Floor of the differences that `attention_diversity` divides by (D; the public code adds 2e-16)."""


class CoordinateGates(nn.Module):
    """Coordinate attention (Hou et al., CVPR 2021): gates in (0, 1) of a map [B, C, H, W], of the same shape.

    A gate is the product of one along H and one along W. Both come from the map pooled along the other direction.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        width = max(LEAST_WIDTH, channels // REDUCTION)
        self.squeeze = _layers(conv=nn.Conv2d(channels, width, 1), bn=nn.BatchNorm2d(width), act=nn.Hardswish())
        self.along_h, self.along_w = nn.Conv2d(width, channels, 1), nn.Conv2d(width, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        rows, columns = self.pooled(x)  # [B, C, H, 1], [B, C, 1, W]
        both = self.squeeze(torch.cat([rows, columns.transpose(2, 3)], dim=2))  # [B, m, H + W, 1]
        of_h, of_w = both.split([rows.shape[2], columns.shape[3]], dim=2)
        return self.along_h(of_h).sigmoid() * self.along_w(of_w).transpose(2, 3).sigmoid()

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map pooled along W, [B, C, H, 1], and along H, [B, C, 1, W]: here its means."""
        return x.mean(3, keepdim=True), x.mean(2, keepdim=True)


class DualDirectionHead(CoordinateGates):
    """Coordinate attention whose pooling is learned: gates [B, C, 7, 7] of a map [B, C, 7, 7]."""

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.rows = _convolution(channels, channels, (1, MAP_SIDE), groups=channels)
        self.columns = _convolution(channels, channels, (MAP_SIDE, 1), groups=channels)

    def pooled(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The map pooled along W, [B, C, 7, 1], and along H, [B, C, 1, 7]: here by depthwise convolutions and BN."""
        return self.rows(x), self.columns(x)


class DualDirectionHeads(nn.ModuleList):
    """Several heads over a map, [B, C, 7, 7] to the same shape: the map times the largest of their gates."""

    def __init__(self, channels: int) -> None:
        super().__init__(DualDirectionHead(channels) for _ in range(HEADS))
        self._gates: list[Tensor] = []

    def forward(self, x: Tensor) -> Tensor:
        gates = [head(x) for head in self]  # [B, C, 7, 7] each
        self._gates = gates if self.training and len(x) else []
        return x * torch.stack(gates).amax(0)

    def diversity(self) -> Tensor | None:
        """The attention diversity of the last forward pass, [], once; None where it was no training of any sample."""
        gates, self._gates = self._gates, []
        return attention_diversity(gates) if gates else None

    def __getstate__(self) -> dict[str, Any]:
        """What is copied or pickled: gates belong to a forward pass, and torch does not copy what has a gradient."""
        state: dict[str, Any] = super().__getstate__()
        return state | {"_gates": []}


class MixedDepthwise(nn.ModuleList):
    """Depthwise convolutions of several kernels side by side, [B, C, H, W] to [B, C, H/stride, W/stride].

    Each kernel, k x k, has channels of its own, `channels[k]` of them. Neither BN nor activation follow.
    """

    def __init__(self, channels: Mapping[int, int], stride: int) -> None:
        super().__init__(
            nn.Conv2d(count, count, kernel, stride, kernel // 2, groups=count, bias=False)
            for kernel, count in channels.items()
        )
        self._sizes = [*channels.values()]

    def forward(self, x: Tensor) -> Tensor:
        parts = zip(self, x.split(self._sizes, dim=1), strict=True)
        return torch.cat([conv(part) for conv, part in parts], dim=1)


class Bottleneck(nn.Module):
    """Inverted bottleneck, [B, inputs, H, W] to [B, outputs, H/stride, W/stride].

    1x1 to the sum of `channels`, BN, PReLU; mixed depthwise kernels; coordinate attention; 1x1, BN; and the input is
    added where the stride is 1.
    """

    def __init__(self, inputs: int, outputs: int, channels: Mapping[int, int], stride: int = 1) -> None:
        super().__init__()
        hidden = sum(channels.values())
        self.expand = _activated(inputs, hidden, 1)
        self.mixed = MixedDepthwise(channels, stride)
        self.gates = CoordinateGates(hidden)
        self.project = _convolution(hidden, outputs, 1)
        self._has_shortcut = stride == 1

    def forward(self, x: Tensor) -> Tensor:
        y = self.mixed(self.expand(x))
        y = self.project(y * self.gates(y))
        return x + y if self._has_shortcut else y


class DDAMFN(Encoder):
    """Dual-direction attention mixed feature network, images [B, 3, 112, 112] to a feature map [B, 512, 7, 7].

    S (public code of DDAMFN; used by arXiv 2503.12260): all layers and widths, ImageNet statistics, and the features,
    which a depthwise 7x7 convolution and BN give of the last map. D: the map that comes out is the last one, moved so
    that the features are its mean; so a join of maps sees positions, and trains every layer.

    An official checkpoint can be its weights, or the official backbone that was trained on faces. Layers of it that are
    never computed are left out, and so is its classifier: AffectNet's classes are others than those of our tasks, and
    in another order.
    """

    modality = "visual"
    width = WIDTH
    input_shape = (3, CROP_SIDE, CROP_SIDE)
    keys = ("ddamfn",)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(_activated(3, 64, 3, stride=2), _activated(64, 64, 3, groups=64))
        self.stage1 = _stage(64, 64, {3: 64, 5: 32, 7: 32}, {3: 96, 5: 32}, 9)
        self.stage2 = _stage(64, 128, {3: 128, 5: 64, 7: 64}, {3: 192, 5: 64}, 16)
        self.stage3 = _stage(128, 256, {3: 256, 5: 256, 7: 256, 9: 256}, {3: 172, 5: 170, 7: 170}, 6)
        self.stage3.append(_activated(256, WIDTH, 1))
        self.heads = DualDirectionHeads(WIDTH)
        self.pool = _convolution(WIDTH, WIDTH, MAP_SIDE, groups=WIDTH)
        self.images = ImageFrontEnd(CROP_SIDE, IMAGENET_MEAN, IMAGENET_STD)
        self.front_end = self.images.settings

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.images(x))

    def load(self, found: Mapping[str, Tensor], path: Path, what: str = "") -> None:
        """As every encoder, or the backbone alone: its heads are then drawn from the seed, and must be trained.

        An official backbone has other names for the parts of the network's features, in the same order.
        """
        parts = list(dict.fromkeys(key.partition(".")[0] for key in found))
        known = {"features", *(name for name, _ in self.named_children())}
        if known & {*parts}:
            super().load(found, path, what)
            return
        backbone = nn.ModuleDict({name: self.get_submodule(name) for name in ("stem", "stage1", "stage2", "stage3")})
        named = {key: key.partition(".") for key in found}
        renamed = {f"features.{parts.index(first)}.{rest}": found[key] for key, (first, _, rest) in named.items()}
        whole = {key: tensor for key, tensor in renamed.items() if int(key.split(".")[1]) < _FEATURES}
        fit(backbone, whole, path, [*map(key_map, self.keys)], what)
        self.untrained = "the heads"

    def embed(self, x: Tensor) -> Tensor:
        """The feature map [B, 512, 7, 7], whose mean is the features, of images with ImageNet's statistics."""
        x = self.stage1(self.stem(x))  # [B, 64, 28, 28]
        x = self.heads(self.stage3(self.stage2(x)))  # [B, 512, 7, 7]
        return x - x.mean((2, 3), keepdim=True) + self.pool(x)

    def penalty(self) -> Tensor | None:
        """Attention diversity of the two heads."""
        return self.heads.diversity()

    def stages(self) -> list[nn.Module]:
        return [self.stem, self.stage1, self.stage2, self.stage3, nn.ModuleList([self.heads, self.pool])]


def attention_diversity(heads: Sequence[Tensor]) -> Tensor:
    """The loss that drives heads apart, []: 1 / (mean over pairs of their mean squared difference), 0 of one head.

    `heads` are [B, C, H, W] each. S: pairs / sum of the differences; public code weighs it by 0.1. It is computed in
    float32 or better, and the sum has a floor, at which the loss is constant.
    """
    wide = [head.to(torch.promote_types(head.dtype, torch.float32)) for head in heads]
    differences = [mse_loss(first, second) for first, second in combinations(wide, 2)]
    total = sum(differences, start=wide[0].new_zeros(()))
    return len(differences) / total.clamp(min=LEAST_DIFFERENCE)


def _stage(inputs: int, outputs: int, first: Mapping[int, int], then: Mapping[int, int], count: int) -> nn.Sequential:
    """A bottleneck that halves the resolution, and `count` ones that keep it."""
    same = nn.Sequential(*(Bottleneck(outputs, outputs, then) for _ in range(count)))
    return nn.Sequential(Bottleneck(inputs, outputs, first, stride=2), same)


def _convolution(
    inputs: int, outputs: int, kernel: int | tuple[int, int], *, stride: int = 1, padding: int = 0, groups: int = 1
) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding, groups=groups, bias=False)
    return _layers(conv=conv, bn=nn.BatchNorm2d(outputs))


def _activated(inputs: int, outputs: int, kernel: int, *, stride: int = 1, groups: int = 1) -> nn.Sequential:
    layers = _convolution(inputs, outputs, kernel, stride=stride, padding=kernel // 2, groups=groups)
    layers.add_module("prelu", nn.PReLU(outputs))  # torch's initial slope, 0.25
    return layers


def _layers(**layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(OrderedDict(layers))
