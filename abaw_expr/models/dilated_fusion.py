"""Multi-scale dilated fusion of feature maps. Shapes: B batch, I channels that come in, C channels, H x W positions."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from abaw_expr.models.batch_norm import FrameNorm


class DilatedFusion(nn.Module):
    """Multi-scale dilated fusion, [B, I, H, W] to [B, C, H, W] (arXiv 2503.11935, version 1).

    Side by side a 1x1, three dilated 3x3 and the mean over positions, each with BN and ReLU; their concatenation c is
    gated by one number a picture and by one number a position, of which the larger counts: max(a, b) c^2, since public
    code multiplies the gated maps with c again (`squared=False`: max(a, b) c). Then a 1x1 with BN and ReLU. With three
    dilations it has 29 I C + 5 C^2 + 28 C parameters.

    Dilations should fit the map: a 3x3 with the dilation 6 reaches 13 positions, so 1, 2 and 3 are for 7 x 7.
    """

    def __init__(self, inputs: int, channels: int, dilations: Sequence[int] = (1, 2, 3), squared: bool = True) -> None:
        super().__init__()
        self.local = nn.ModuleList(
            [
                _conv(inputs, channels, 1),
                *(_conv(inputs, channels, 3, dilation) for dilation in dilations),
            ]
        )
        self.whole = nn.Sequential(nn.Linear(inputs, channels), FrameNorm(channels), nn.ReLU(inplace=True))
        joined = channels * (len(self.local) + 1)
        self.picture_gate = nn.Linear(joined, 1, bias=False)
        # As torch draws it, it would be the smaller gate of every picture, and never learn: it begins as a mean (D).
        nn.init.constant_(self.picture_gate.weight, 1 / joined)
        self.position_gate = nn.Conv2d(joined, 1, 1, bias=False)
        self.out = _conv(joined, channels, 1)
        self._squared = squared

    def forward(self, x: Tensor) -> Tensor:
        whole = self.whole(x.mean((2, 3)))[..., None, None].expand(-1, -1, *x.shape[2:])
        c = torch.cat([*(conv(x) for conv in self.local), whole], dim=1)
        picture = self.picture_gate(c.mean((2, 3))).relu()[..., None, None]  # [B, 1, 1, 1]
        gated = c * torch.maximum(picture, self.position_gate(c).sigmoid())
        return self.out(gated * c if self._squared else gated)


def _conv(inputs: int, channels: int, side: int, dilation: int = 1) -> Conv2dNormActivation:
    return Conv2dNormActivation(inputs, channels, side, dilation=dilation, bias=True)
