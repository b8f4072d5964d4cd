"""VGGish, an audio network that was trained on sounds of videos, and its shape without these weights.

Shapes: B samples, G chunks of n samples of sound, T x F time by mel row.
"""

import torch
from torch import Tensor, nn

from abaw_expr.data.batches.audio_chunks import AudioWindow
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.front_ends import ROW, VGGishFrontEnd

_ROWS = 96
"""Log-mel rows of a window: 0.96 s, which begin at the frame's time (S, arXiv 2503.10523 and its code)."""
WINDOW = AudioWindow(steps=_ROWS + 2, stride=1, context=0, hop=ROW, before=0)


class VGGish(Encoder):
    """VGGish (Hershey et al., ICASSP 2017), 72,141,184 parameters: sound [B, 1, 1, n] to a map [B, 128, 1, 1].

    `last_relu` as one public version has it; the original has none, and the default neither. Principal components and
    8-bit quantisation, which some tools add, are no part of it.
    """

    modality = "waveform"
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
        return self.embed(self.mel(x[:, 0, 0])[:, None, :_ROWS])[..., None, None]

    def embed(self, x: Tensor) -> Tensor:
        """Embeddings [B, 128] of log-mel windows [B, 1, 96, 64]."""
        x = self.layers(x)  # [B, 512, 6, 4]
        x = self.head(x.movedim(1, -1).flatten(1))  # time, mel, channel
        return x

    def features(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """Features [B, 1, 128] of windows in chunks, or of single windows, as `MCNN.features`."""
        if windows is None:
            return super().features(x)
        rows = self.mel(x[:, 0, 0])  # [G, T, 64]
        chunk, step = windows.unbind(1)
        places = step[:, None] + torch.arange(_ROWS, device=step.device)
        return self.embed(rows[chunk[:, None], places][:, None])[:, None]

    def maps(self, x: Tensor, windows: Tensor | None = None) -> Tensor:
        """The features as maps of one position, [B, 1, 128, 1, 1]."""
        return self.features(x, windows)[..., None, None]

    def stages(self) -> list[nn.Module]:
        return [self.layers, self.head]
