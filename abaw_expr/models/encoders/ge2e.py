"""GE2E, a network that was trained to tell speakers apart (Wan et al., ICASSP 2018).

Shapes: B samples, G chunks of n samples of sound, T rows of 40 mel bands.
"""

import torch
from torch import Tensor, nn

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.front_ends import ROW, SpeakerFrontEnd

_ROWS = 160
"""Rows of a window: 1.6 s around the frame, as in training."""
_LEAST_POWER, _MOST_GAIN = 1e-3, 1e3
"""Power of a window below which it is raised: -30 dB of full scale; the largest factor."""
WINDOW = AudioWindow(steps=_ROWS, stride=1, context=2, hop=ROW)


class GE2E(Encoder):
    """Three LSTM layers of 256 units, a linear layer, ReLU, length 1: sound [B, 1, 1, n] to a map [B, 256, 1, 1].

    1,423,616 parameters. A window below -30 dB of full scale is raised to it, as its package does with whole
    utterances, by 30 dB at most (D), so that silence stays silent.
    """

    modality = "waveform"
    width = 256
    input_shape = (1, 1, WINDOW.steps * ROW)
    window = WINDOW
    keys = ("ge2e",)
    front_end = SpeakerFrontEnd.settings
    package_file = "package:resemblyzer/pretrained.pt"

    def __init__(self) -> None:
        super().__init__()
        self.mel = SpeakerFrontEnd()
        self.lstm = nn.LSTM(40, self.width, 3, batch_first=True)
        self.linear = nn.Linear(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        samples = x[:, 0, 0]
        gain = _gain(samples.square().mean(1))
        return self.embed(self.mel(samples)[:, :_ROWS] * gain[:, None, None])[..., None, None]

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings [B, 256], of length 1 and not negative, of mel rows [B, T, 40]."""
        if not len(x):
            return self.linear(x.new_zeros(0, self.width))
        last = self.lstm(x)[1][0][-1]
        return nn.functional.normalize(self.linear(last).relu(), dim=1)

    def features(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Features [B, 1, 256] of windows in chunks, or of single windows, as `MCNN.features`."""
        if windows is None:
            return super().features(x)
        rows = self.mel(x[:, 0, 0])  # [G, T, 40]
        chunk, step = windows.unbind(1)
        places = step[:, None] + torch.arange(_ROWS, device=step.device)
        squares = x[:, 0, 0].double().square().cumsum(1)
        squares = nn.functional.pad(squares, (1, 0))  # [G, n + 1], sums up to each sample
        begin = step * ROW
        power = (squares[chunk, begin + _ROWS * ROW] - squares[chunk, begin]) / (_ROWS * ROW)
        gain = _gain(power).to(rows.dtype)
        return self.embed(rows[chunk[:, None], places] * gain[:, None, None])[:, None]

    def maps(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """The features as maps of one position, [B, 1, 256, 1, 1]."""
        return self.features(x, windows)[..., None, None]


def _gain(power: Tensor) -> Tensor:
    """The factor of a window's power, [B], that raises it to the least level."""
    return (_LEAST_POWER / power.clamp(min=_LEAST_POWER / _MOST_GAIN)).clamp(min=1)
