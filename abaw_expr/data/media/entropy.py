"""The entropy of a video's crops: the bits that a grey level of the picture has.

Shapes: T frames of a video, e steps of 0.4 s.
"""

import numpy as np

ENTROPY_STEP = 0.4
"""Seconds from one step to the next: to decode every crop would take as long as the rest of `prepare`."""
_LEVELS = 32
"""Grey levels that are told apart: the noise of cameras and codecs moves pixels to neighbours of 256."""


class Entropies:
    """Measures the entropy of the first readable crop in each step."""

    def __init__(self, time: np.ndarray) -> None:
        """`time` [T], seconds of the frames."""
        self._step = np.floor(time / ENTROPY_STEP).astype(np.int64)
        self.bits = np.full(int(self._step[-1]) + 1, np.nan, np.float32)
        """float32 [e], NaN where a step has no readable crop."""

    def add(self, frame: int, jpeg: bytes) -> None:
        """Measures the crop of a frame, counted from 1, unless its step is known."""
        step = self._step[frame - 1]
        if np.isnan(self.bits[step]):
            self.bits[step] = entropy_of(jpeg)


def entropy_of(jpeg: bytes) -> float:
    """The entropy of the grey levels of a picture, in bits from 0 to 5; NaN where it cannot be decoded."""
    import torch  # it takes two seconds to import
    from torchvision.io import ImageReadMode, decode_jpeg

    try:
        grey = decode_jpeg(torch.frombuffer(bytearray(jpeg), dtype=torch.uint8), ImageReadMode.GRAY).numpy()
    except RuntimeError:
        return float("nan")
    fractions = np.bincount(grey.ravel() // (256 // _LEVELS), minlength=_LEVELS) / grey.size
    return float(-np.sum(fractions * np.log2(np.where(fractions > 0, fractions, 1.0))))
