"""VGGish, an audio network that was trained on sounds of videos, and its shape without these weights.

Shapes: B samples, G chunks of n samples of sound, T x F time by mel row.
"""

from torch import Tensor, nn

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.models.encoders.front_ends import ROW, VGGishFrontEnd
from abaw_expr.models.encoders.sound import SoundEncoder, rows_from

_ROWS = 96
"""Log-mel rows of a window: 0.96 s, which begin at the frame's time (S, arXiv 2503.10523 and its code)."""
WINDOW = AudioWindow(steps=_ROWS + 2, stride=1, context=0, hop=ROW, before=0)


class VGGish(SoundEncoder):
    """VGGish (Hershey et al., ICASSP 2017), 72,141,184 parameters: sound [B, 1, 1, n] to a map [B, 128, 1, 1].

    `last_relu` as one public version has it; the original has none, and the default neither. Principal components and
    8-bit quantisation, which some tools add, are no part of it.
    """

    width = 128
    input_shape = (1, 1, WINDOW.steps * ROW)
    window = WINDOW
    keys = ("vggish",)
    front_end = VGGishFrontEnd.settings

    def __init__(self, last_relu: bool = False) -> None:
        super().__init__()
        self.mel = VGGishFrontEnd()
        layers, inputs = list[nn.Module](), 1
        for widths in ((64,), (128,), (256, 256), (512, 512)):
            for outputs in widths:
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                inputs = outputs
            layers.append(nn.MaxPool2d(2))
        self.layers = nn.Sequential(*layers)
        last = [nn.ReLU()] if last_relu else []
        self.head = nn.Sequential(
            nn.Linear(512 * 6 * 4, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 128), *last
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.embed(self.mel(self.samples(x))[:, None, :_ROWS])[..., None, None]

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings [B, 128] of log-mel windows [B, 1, 96, 64]."""
        x = self.layers(x)  # [B, 512, 6, 4]
        found: Tensor = self.head(x.movedim(1, -1).flatten(1))  # time, mel, channel
        return found

    def of_windows(self, samples: Tensor, chunk: Tensor, step: Tensor) -> Tensor:
        return self.embed(rows_from(self.mel(samples), chunk, step, _ROWS)[:, None])

    def stages(self) -> list[nn.Module]:
        return [self.layers, self.head]
