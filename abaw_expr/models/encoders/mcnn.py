"""The audio branch's encoder. Shapes: B batch, T x F time by mel row."""

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.models.encoders.gcsa import GCSA

AUDIO_WINDOW = AudioWindow(steps=184, stride=8, context=72)
"""3 s of 16 ms steps less the width of one analysis window (models' default); the resolution is halved three times."""
INPUT_SHAPE = (1, AUDIO_WINDOW.steps, MEL_BANDS)
"""One channel, 184 steps of 16 ms, 64 mel rows (D)."""
WIDTH = 128
"""Features of a sample (D)."""


class ConvBlock(nn.Sequential):
    """Convolution without bias, BN, ReLU, then half the resolution: [B, inputs, T, F] to [B, outputs, T/2, F/2]."""

    def __init__(self, inputs: int, outputs: int, kernel: tuple[int, int]) -> None:
        super().__init__(Conv2dNormActivation(inputs, outputs, kernel), nn.AvgPool2d(2))


class MCNN(nn.Module):
    """Multi-branch convolutional network, log-mel audio [B, 1, T, 64] to a feature map [B, 128, T/8, 8].

    T is 184 for one window; a longer stretch gives the maps of all windows in it at once.

    S (arXiv 2503.11935, section 3.2): a temporal, a spatial and a local branch, each of two convolution blocks.
    D: kernels (time x frequency), widths and average pooling, after Light-SERNet (Aftab et al., ICASSP 2022).
    """

    def __init__(self, attention: bool = True, attention_groups: int = 1) -> None:
        super().__init__()
        self.temporal = nn.Sequential(ConvBlock(1, 32, (11, 1)), ConvBlock(32, 64, (7, 1)))
        self.spatial = nn.Sequential(ConvBlock(1, 32, (1, 9)), ConvBlock(32, 64, (1, 5)))
        self.local = nn.Sequential(ConvBlock(1, 32, (3, 3)), ConvBlock(32, 64, (5, 5)))
        self.join = ConvBlock(3 * 64, WIDTH, (1, 1))
        self.attention = GCSA(WIDTH, attention_groups) if attention else None

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.temporal(x), self.spatial(x), self.local(x)]  # 3 x [B, 64, 46, 16]
        x = self.join(torch.cat(branches, dim=1))  # [B, 128, 23, 8]
        return x if self.attention is None else self.attention(x)
