"""Front ends of encoders that bring their own spectrogram: samples of sound to mel rows.

Shapes: n samples, t rows of 10 ms, m mel bands, f bins of the Fourier transform.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from math import log
from typing import ClassVar

import torch
from torch import Tensor, nn

from abaw_expr.data.media.decode import SAMPLE_RATE

ROW = 160
"""Samples from one row to the next: 10 ms."""
_WINDOW = 400
"""Samples of a row: 25 ms, under a periodic Hann window."""


class VGGishFrontEnd(nn.Module):
    """Log-mel as VGGish was trained on (Hershey et al., ICASSP 2017): samples [..., n] to [..., t, 64].

    Magnitudes of a transform of 512; 64 bands from 125 to 7,500 Hz, triangles that are linear in HTK mel; the natural
    logarithm of x + 0.01. A row begins at its time: t = 1 + (n - 400) // 160.
    """

    settings: ClassVar[Mapping[str, object]] = {
        **{"rate": SAMPLE_RATE, "window": _WINDOW, "hop": ROW, "fft": 512, "bands": 64, "lowest": 125.0},
        **{"highest": 7500.0, "mel": "HTK, linear in mel", "values": "ln(magnitude + 0.01)"},
    }
    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        _keep(
            self, torch.hann_window(_WINDOW, dtype=torch.float64, device="cpu"), htk_triangles(64, 257, 125.0, 7500.0)
        )

    def forward(self, samples: Tensor) -> Tensor:
        with _exact(samples):
            magnitude = _spectrum(samples, self.window, 512).abs()
            return torch.log(magnitude @ self.mel.to(samples.dtype) + 0.01)


class SpeakerFrontEnd(nn.Module):
    """Mel power as the GE2E speaker encoder was trained on: samples [..., n] to [..., t, 40].

    A transform of 400 samples, 40 bands up to 8 kHz on Slaney's scale, each triangle divided by its width. Row j is
    centred on sample 160 j, with zeros beyond the ends: t = 1 + n // 160.
    """

    settings: ClassVar[Mapping[str, object]] = {
        **{"rate": SAMPLE_RATE, "window": _WINDOW, "hop": ROW, "fft": _WINDOW, "bands": 40, "lowest": 0.0},
        **{"highest": 8000.0, "mel": "Slaney", "values": "power"},
    }
    window: Tensor
    mel: Tensor

    def __init__(self) -> None:
        super().__init__()
        from torchaudio.functional import melscale_fbanks  # a second to import

        with torch.device("cpu"):  # it looks at its values, which the meta device has not
            mel = melscale_fbanks(_WINDOW // 2 + 1, 0.0, 8000.0, 40, SAMPLE_RATE, "slaney", "slaney")
        _keep(self, torch.hann_window(_WINDOW, device="cpu"), mel)

    def forward(self, samples: Tensor) -> Tensor:
        with _exact(samples):  # autocast makes padding bfloat16
            padded = nn.functional.pad(samples, (_WINDOW // 2, _WINDOW // 2))
            return _spectrum(padded, self.window, _WINDOW).abs().square() @ self.mel.to(samples.dtype)


def _keep(module: nn.Module, window: Tensor, mel: Tensor) -> None:
    """Gives a front end its window and its mel matrix, which no file of weights has."""
    for name, tensor in (("window", window), ("mel", mel)):
        module.register_buffer(name, tensor.to(torch.get_default_device()), persistent=False)


def _spectrum(samples: Tensor, window: Tensor, fft: int) -> Tensor:
    """The Fourier transform of each row, complex [..., t, f]."""
    frames = samples.unfold(-1, _WINDOW, ROW) * window.to(samples.dtype)
    if not frames.numel():  # which some transforms refuse
        return torch.zeros(*frames.shape[:-1], fft // 2 + 1, dtype=frames.dtype.to_complex(), device=frames.device)
    return torch.fft.rfft(frames, fft)


def _exact(x: Tensor) -> AbstractContextManager[object]:
    """No autocast; the meta device, where networks are described, knows none."""
    return nullcontext() if x.is_meta else torch.autocast(x.device.type, enabled=False)


def htk_triangles(bands: int, bins: int, lowest: float, highest: float) -> Tensor:
    """Triangles that are linear in mel, 1127 ln(1 + f / 700), float64 [f, m]; the bin of 0 Hz has none."""
    frequencies = torch.linspace(0, SAMPLE_RATE / 2, bins, dtype=torch.float64, device="cpu")
    first, last = (1127.0 * log(1.0 + end / 700.0) for end in (lowest, highest))
    edges = torch.linspace(first, last, bands + 2, dtype=torch.float64, device="cpu")
    mel, low, middle, high = 1127.0 * torch.log(1.0 + frequencies / 700.0)[:, None], edges[:-2], edges[1:-1], edges[2:]
    rising, falling = (mel - low) / (middle - low), (high - mel) / (high - middle)
    triangles = torch.minimum(rising, falling).clamp(min=0)
    triangles[0] = 0
    return triangles
