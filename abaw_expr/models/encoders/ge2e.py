"""GE2E, a network that was trained to tell speakers apart (Wan et al., ICASSP 2018).

Shapes: B samples, G chunks of n samples of sound, T rows of 40 mel bands.
"""

from torch import Tensor, nn

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.models.encoders.front_ends import ROW, SpeakerFrontEnd
from abaw_expr.models.encoders.lstm import PortableLSTM
from abaw_expr.models.encoders.sound import SoundEncoder, rows_from

_ROWS = 160
"""Rows of a window: 1.6 s around the frame, as in training."""
_LEAST_POWER, _MOST_GAIN = 1e-3, 1e3
"""Power of a window below which it is raised: -30 dB of full scale; the largest factor."""
WINDOW = AudioWindow(steps=_ROWS, stride=1, context=2, hop=ROW)


class GE2E(SoundEncoder):
    """Three LSTM layers of 256 units, a linear layer, ReLU, length 1: sound [B, 1, 1, n] to a map [B, 256, 1, 1].

    1,423,616 parameters. A window below -30 dB of full scale is raised to it, as its package does with whole
    utterances, by 30 dB at most (D), so that silence stays silent.
    """

    width = 256
    input_shape = (1, 1, WINDOW.steps * ROW)
    window = WINDOW
    keys = ("ge2e",)
    front_end = SpeakerFrontEnd.settings

    def __init__(self) -> None:
        super().__init__()
        self.mel = SpeakerFrontEnd()
        self.lstm = PortableLSTM(40, self.width, 3, batch_first=True)
        self.linear = nn.Linear(self.width, self.width)

    def forward(self, x: Tensor) -> Tensor:
        samples = self.samples(x)
        gain = _gain(samples.square().mean(1))
        return self.embed(self.mel(samples)[:, :_ROWS] * gain[:, None, None])[..., None, None]

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings [B, 256], of length 1 and not negative, of mel rows [B, T, 40]."""
        if not len(x):
            return self.linear(x.new_zeros(0, self.width))
        last = self.lstm(x)[1][0][-1]
        return nn.functional.normalize(self.linear(last).relu(), dim=1)

    def of_windows(self, samples: Tensor, chunk: Tensor, step: Tensor) -> Tensor:
        sums = nn.functional.pad(samples.double().square().cumsum(1), (1, 0))  # [G, n + 1], up to each sample
        begin, length = step * ROW, _ROWS * ROW
        gain = _gain((sums[chunk, begin + length] - sums[chunk, begin]) / length).to(samples.dtype)
        return self.embed(rows_from(self.mel(samples), chunk, step, _ROWS) * gain[:, None, None])


def _gain(power: Tensor) -> Tensor:
    """The factor of a window's power, [B], that raises it to the least level."""
    return (_LEAST_POWER / power.clamp(min=_LEAST_POWER / _MOST_GAIN)).clamp(min=1)
