"""The audio branch's encoder.

Shapes: B samples, G chunks of audio, T x F time by mel row.
"""

from types import MappingProxyType

import torch
from torch import Tensor, nn
from torchvision.ops import Conv2dNormActivation

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.models.encoders.encoder import Encoder, he_initialise

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


class MCNN(Encoder):
    """Multi-branch convolutional network, log-mel audio [B, 1, T, 64] to a feature map [B, 128, T/8, 8].

    T is 184 for one window; a longer stretch gives the maps of all windows in it at once.

    S (arXiv 2503.11935, section 3.2): a temporal, a spatial and a local branch, each of two convolution blocks.
    D: kernels (time x frequency), widths and average pooling, after Light-SERNet (Aftab et al., ICASSP 2022).
    """

    modality = "audio"
    width = WIDTH
    input_shape = INPUT_SHAPE
    window = AUDIO_WINDOW
    places = MappingProxyType({"last": WIDTH})

    def __init__(self) -> None:
        super().__init__()
        self.temporal = nn.Sequential(ConvBlock(1, 32, (11, 1)), ConvBlock(32, 64, (7, 1)))
        self.spatial = nn.Sequential(ConvBlock(1, 32, (1, 9)), ConvBlock(32, 64, (1, 5)))
        self.local = nn.Sequential(ConvBlock(1, 32, (3, 3)), ConvBlock(32, 64, (5, 5)))
        self.join = ConvBlock(3 * 64, WIDTH, (1, 1))

    def forward(self, x: Tensor) -> Tensor:
        branches = [self.temporal(x), self.spatial(x), self.local(x)]  # 3 x [B, 64, 46, 16]
        x = self.join(torch.cat(branches, dim=1))  # [B, 128, 23, 8]
        return self.attended(x, "last")

    def features(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Features [B, 1, 128] of windows, or of single stretches [B, 1, 1, T, 64] as they are.

        With `windows`, int64 [B, 2], `x` [G, 1, T, 64] holds chunks: sample i is the window of chunk `windows[i, 0]`
        that begins at its step `windows[i, 1]`.
        """
        if windows is None:
            return super().features(x)
        return window_means(self(x), windows, AUDIO_WINDOW).unsqueeze(1)

    def maps(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Feature maps [B, 1, 128, 23, 8] of windows, which are given as to `features`."""
        if windows is None:
            return super().maps(x)
        return window_maps(self(x), windows, AUDIO_WINDOW).unsqueeze(1)

    def initialise(self) -> None:
        he_initialise(self)


def window_means(maps: Tensor, windows: Tensor, window: AudioWindow) -> Tensor:
    """Mean of the feature map over each window, [B, width], from the maps of chunks [G, width, T / stride, F].

    `windows` [B, 2] is as in `MCNN.features`. A window that begins between two rows of the map contains fractions of
    its first and last row. The means are differences of running sums, interpolated between rows, so that overlapping
    windows cost one pass.
    """
    stride = window.stride
    rows = window.steps // stride
    at_least_float32 = torch.promote_types(maps.dtype, torch.float32)  # running sums need the precision
    sums = maps.mean(3, dtype=at_least_float32).cumsum(2)
    sums = nn.functional.pad(sums, (1, 0)).movedim(2, 1)  # [G, T / stride + 1, width]
    chunk, step = windows.unbind(1)
    first, fraction = step // stride, (step % stride / stride).to(sums.dtype)[:, None]
    after = (first + 1).clamp(max=sums.shape[1] - 1 - rows)  # beyond the last row its fraction is 0
    begin = torch.lerp(sums[chunk, first], sums[chunk, after], fraction)
    end = torch.lerp(sums[chunk, first + rows], sums[chunk, after + rows], fraction)
    return (end - begin) / rows


def window_maps(maps: Tensor, windows: Tensor, window: AudioWindow) -> Tensor:
    """The feature map of each window, [B, width, steps / stride, F], whose mean is that of `window_means`.

    A window that begins between two rows of the map has rows between its rows.
    """
    rows = maps.movedim(2, 1)  # [G, T / stride, width, F]
    chunk, step = windows.unbind(1)
    first = step[:, None] // window.stride + torch.arange(window.steps // window.stride, device=step.device)
    fraction = (step % window.stride / window.stride).to(maps.dtype)[:, None, None, None]
    after = (first + 1).clamp(max=rows.shape[1] - 1)  # beyond the last row its fraction is 0
    return torch.lerp(rows[chunk[:, None], first], rows[chunk[:, None], after], fraction).movedim(1, 2)
