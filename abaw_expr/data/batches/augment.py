"""Random changes of training samples. Masks of frequency are the paper's (S); the rest are our defaults (D).

Nothing here draws: a sample brings its own random numbers, a row of `NOISE` uniform ones, so that the same sample
changes alike in whichever process, batch or device it turns up. Shapes: b samples, f pictures a sample, h x w pixels,
g chunks of sound, t steps, m mel bands.
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
"""Most that a crop is wider than high, or higher than wide (D)."""


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
    """Changes samples as the settings say, by the samples' own random numbers."""

    def __init__(self, settings: AugmentSettings) -> None:
        self._settings = settings

    def crop(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """A random part of a sample's pictures, uint8 [f, 3, h, w], at their size, mirrored in half of the samples.

        All pictures of a sample change alike.
        """
        u = noise.tolist()
        if self._settings.crop < 1:
            pictures = self._part(pictures, u)
        return pictures.flip(-1) if self._settings.flip and u[Noise.FLIP] < 0.5 else pictures

    def _part(self, pictures: Tensor, u: Sequence[float]) -> Tensor:
        h, w = pictures.shape[-2:]
        area = self._settings.crop + u[Noise.AREA] * (1 - self._settings.crop)
        aspect = _ASPECT ** (2 * u[Noise.ASPECT] - 1)
        height, width = min(round(h * (area / aspect) ** 0.5), h), min(round(w * (area * aspect) ** 0.5), w)
        top, left = round(u[Noise.TOP] * (h - height)), round(u[Noise.LEFT] * (w - width))
        part = pictures[..., top : top + height, left : left + width]
        part = part.contiguous(memory_format=torch.channels_last)  # else it is repacked, pixel by pixel, and back
        return interpolate(part, (h, w), mode="bilinear", antialias=True)

    def relight_(self, pictures: Tensor, noise: Tensor) -> Tensor:
        """Pictures in [-1, 1], float [b, f, 3, h, w], each sample's in another light; in place, a copy costs more."""
        if not self._settings.light:
            return pictures
        noise = noise[..., None, None, None, None]  # [b, NOISE, 1, 1, 1, 1]
        brightness, contrast = (
            1 + self._settings.light * (2 * noise[:, kind] - 1) for kind in (Noise.BRIGHTNESS, Noise.CONTRAST)
        )
        mean = pictures.mean(dim=(2, 3, 4), keepdim=True)
        # Black is -1: brightness scales the distance from it, contrast the distance from the picture's mean.
        scale, shift = brightness * contrast, brightness * (1 - contrast) * mean + brightness - 1
        return pictures.mul_(scale).add_(shift).clamp_(-1, 1)

    def mask(self, sound: Tensor, noise: Tensor) -> Tensor:
        """Sound [g, 1, t, m] with a band of frequencies and a stretch of time at 0, the recording's mean.

        `noise` is [g, NOISE], a row a chunk.
        """
        bands = _stretch(
            sound.shape[3], self._settings.frequency_mask, noise[:, Noise.BAND_WIDTH], noise[:, Noise.BAND]
        )
        steps = _stretch(
            sound.shape[2], self._settings.time_mask, noise[:, Noise.STRETCH_WIDTH], noise[:, Noise.STRETCH]
        )
        return sound.masked_fill(bands[:, None, None, :] | steps[:, None, :, None], 0.0)


def _stretch(size: int, widest: int, width: Tensor, place: Tensor) -> Tensor:
    """bool [g, size]: a stretch of 0 to `widest` places somewhere in each row."""
    widths = (width * (widest + 1)).floor()[:, None]
    first = (place[:, None] * (size - widths + 1)).floor()
    places = torch.arange(size, device=width.device)
    return (places >= first) & (places < first + widths)
