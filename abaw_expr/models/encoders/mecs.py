"""Median-enhanced channel and spatial attention. Shapes: B batch, C channels, H x W positions."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import gelu

from abaw_expr.models.encoders.attention import REDUCTION, Attention, check_channels

WINDOW = 5
"""Side of the depthwise window before the strips."""
STRIPS = (7, 11, 21)
"""Lengths of the depthwise strips, of each one along W and one along H."""
Order = Literal["parallel", "sequential"]


class MECS(Attention):
    """Median-enhanced channel and spatial attention, [B, C, H, W] to the same shape (arXiv 2503.11935, version 1).

    Channel gates out of the average, the maximum and the median over positions, then a spatial gate out of depthwise
    windows and strips; 1.5 C^2 + 112.25 C parameters, of which one 1x1 convolution is used three times. The gates of a
    channel are added, 0 to 3; the spatial one is not bounded; there is no shortcut. As in public code, `order` of the
    strips is parallel: all six see the window's output. The paper's words can be read as sequential: the strip along H
    sees what the one along W gives.

    Raises SettingsError where `channels` cannot be split in 4.
    """

    def __init__(self, channels: int, order: Order = "parallel") -> None:
        super().__init__()
        check_channels(channels)
        self.point = nn.Conv2d(channels, channels, 1)
        self.channel = nn.Sequential(
            nn.Conv2d(channels, channels // REDUCTION, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(channels // REDUCTION, channels, 1),
        )
        self.window = _depthwise(channels, WINDOW, WINDOW)
        self.along_w = nn.ModuleList(_depthwise(channels, 1, length) for length in STRIPS)
        self.along_h = nn.ModuleList(_depthwise(channels, length, 1) for length in STRIPS)
        self._sequential = order == "sequential"

    def forward(self, x: Tensor) -> Tensor:
        y = gelu(self.point(x))
        y = y * self._channel_gate(y)
        return self.point(y * self.point(self._around(y)))

    def _channel_gate(self, y: Tensor) -> Tensor:
        """[B, C, 1, 1]; of an even number of positions the median is the lower of the middle two."""
        flat = y.flatten(2)
        pools = flat.mean(2), flat.amax(2), flat.median(2).values
        gates = [self.channel(pool[..., None, None]).sigmoid() for pool in pools]
        return torch.stack(gates).sum(0)

    def _around(self, y: Tensor) -> Tensor:
        """What is around each position, [B, C, H, W]."""
        window = self.window(y)
        found = []
        for along_w, along_h in zip(self.along_w, self.along_h, strict=True):
            first = along_w(window)
            found += [along_h(first)] if self._sequential else [first, along_h(window)]
        return torch.stack(found).sum(0)


def _depthwise(channels: int, height: int, width: int) -> nn.Conv2d:
    return nn.Conv2d(channels, channels, (height, width), padding=(height // 2, width // 2), groups=channels)
