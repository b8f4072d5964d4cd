"""Augmentation of training samples. Frequency masks are the paper's (S); the rest are our defaults (D).

No function here draws random numbers: each sample brings its own, a row of `NOISE` uniform ones, so that its
augmentation does not depend on the process, the batch or the device.

Shapes: b samples, f frames of a sample, h x w pixels, g chunks of audio, t steps, m mel bands.
"""

from collections.abc import Sequence
from enum import IntEnum, auto

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.errors import SettingsError
from abaw_expr.settings import AugmentSettings


class Noise(IntEnum):
    """What each of a sample's uniform numbers decides."""

    FLIP = 0
    AREA = auto()
    ASPECT = auto()
    TOP = auto()
    LEFT = auto()
    BRIGHTNESS = auto()
    CONTRAST = auto()
    BAND_WIDTH = auto()
    BAND = auto()
    STRETCH_WIDTH = auto()
    STRETCH = auto()


NOISE = len(Noise)
_ASPECT = 1.1
"""Largest ratio of a random crop's longer side to its shorter one (D)."""


def check_masks(settings: AugmentSettings, steps: int) -> None:
    """Raises SettingsError for masks that may hide all of the audio: as many mel bands, or `steps`, as there are."""
    for flag, value, count in (
        ("frequency-mask", settings.frequency_mask, MEL_BANDS),
        ("time-mask", settings.time_mask, steps),
    ):
        if value >= count:
            expected = f"a whole number from 0 to {count - 1}"
            raise SettingsError(f"augment.{flag} cannot be used", found=value, expected=expected)


class Augment:
    """Augments samples as the settings say, by the samples' own random numbers."""

    def __init__(self, settings: AugmentSettings) -> None:
        self._settings = settings

    def crop(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Crops a random part of a sample's frames, resizes it to their size, and flips half of the samples.

        `frames` is uint8 [f, 3, h, w], `noise` [NOISE]. All frames of a sample are changed alike.
        """
        u = noise.tolist()
        if self._settings.crop < 1:
            frames = self._random_crop(frames, u)
        return frames.flip(-1) if self._settings.flip and u[Noise.FLIP] < 0.5 else frames

    def _random_crop(self, frames: Tensor, u: Sequence[float]) -> Tensor:
        h, w = frames.shape[-2:]
        area = self._settings.crop + u[Noise.AREA] * (1 - self._settings.crop)
        aspect = _ASPECT ** (2 * u[Noise.ASPECT] - 1)
        height, width = min(round(h * (area / aspect) ** 0.5), h), min(round(w * (area * aspect) ** 0.5), w)
        top, left = round(u[Noise.TOP] * (h - height)), round(u[Noise.LEFT] * (w - width))
        cropped = frames[..., top : top + height, left : left + width]
        cropped = cropped.contiguous(memory_format=torch.channels_last)  # else interpolate repacks it twice
        return interpolate(cropped, (h, w), mode="bilinear", antialias=True)

    def jitter_(self, frames: Tensor, noise: Tensor) -> Tensor:
        """Brightness and contrast jitter, one per sample, of frames in [-1, 1], float [b, f, 3, h, w].

        `noise` is [b, NOISE]. It works in place, since a copy costs more.
        """
        if not self._settings.jitter:
            return frames
        noise = noise[..., None, None, None, None]  # [b, NOISE, 1, 1, 1, 1]
        brightness, contrast = (
            1 + self._settings.jitter * (2 * noise[:, kind] - 1) for kind in (Noise.BRIGHTNESS, Noise.CONTRAST)
        )
        mean = frames.mean(dim=(2, 3, 4), keepdim=True)
        # Black is -1: brightness scales the distance from it, contrast the distance from the frame's mean.
        scale, shift = brightness * contrast, brightness * (1 - contrast) * mean + brightness - 1
        return frames.mul_(scale).add_(shift).clamp_(-1, 1)

    def mask(self, audio: Tensor, noise: Tensor) -> Tensor:
        """Masks a band of frequencies and a stretch of time of audio [g, 1, t, m] with 0, the recording's mean.

        `noise` is [g, NOISE], a row a chunk.
        """
        bands = _stretch(
            audio.shape[3], self._settings.frequency_mask, noise[:, Noise.BAND_WIDTH], noise[:, Noise.BAND]
        )
        steps = _stretch(
            audio.shape[2], self._settings.time_mask, noise[:, Noise.STRETCH_WIDTH], noise[:, Noise.STRETCH]
        )
        return audio.masked_fill(bands[:, None, None, :] | steps[:, None, :, None], 0.0)


def _stretch(size: int, widest: int, width: Tensor, start: Tensor) -> Tensor:
    """A mask, bool [g, size], with a stretch of 0 to `widest` positions in each row; `width` and `start` are [g]."""
    widths = (width * (widest + 1)).floor()[:, None]
    first = (start[:, None] * (size - widths + 1)).floor()
    positions = torch.arange(size, device=width.device)
    return (positions >= first) & (positions < first + widths)
