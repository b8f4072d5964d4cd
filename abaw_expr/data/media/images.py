"""Picture files, of whatever form, as they are to be seen: the one way in which they are read."""

import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.ExifTags import Base

from abaw_expr.errors import of_machine
from abaw_expr.files import open_file

CROP_SIDE = 112
"""Pixels of a crop's side, as the organisers hand them out; the picture branch's input."""
SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm", ".avif")
"""Endings of pictures, by which they are found in folders."""
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF", "AVIF")
"""What is told by its content to be a picture, where it is one and not a film."""
_PAGED = ("MPO", "TIFF")
"""Those whose pictures are no film."""
SIDES = range(1, 2**14)
"""Pixels of the sides of a face; a damaged header claims more."""
QUALITY = 95
"""JPEG quality of crops that are made here."""


class PictureError(Exception):
    """A file is no picture that can be shown; `str()` of it says why, nothing where it is no picture at all."""


def is_still(path: Path) -> bool:
    """Whether a file holds one picture, or pages of which the first counts; a moving one is a video."""
    try:
        with _opened(path) as picture:
            return not getattr(picture, "is_animated", False) or picture.format in _PAGED
    except (PictureError, OSError) as error:
        if of_machine(error):
            raise
        return False


def read_still(source: Path | bytes, sides: range | None = None) -> Image.Image:
    """A picture as it is to be seen, RGB: turned as its file says, of any depth, black where it is transparent.

    `sides` are the pixels that its sides may have; others are not decoded.

    Raises PictureError for what cannot be shown, OSError for what the machine refuses.
    """
    with _opened(source) as picture:
        if sides is not None and not (picture.width in sides and picture.height in sides):
            raise PictureError(f"{picture.width} x {picture.height} pixels")
        shown = ImageOps.exif_transpose(picture)
        if shown.mode in ("F", "I") or shown.mode.startswith("I;"):
            return Image.fromarray(_eight_bits(np.asarray(shown))).convert("RGB")
        if shown.has_transparency_data:
            clear = shown.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", clear.size, (0, 0, 0, 255)), clear).convert("RGB")
        return shown.convert("RGB")


def is_turned(source: Path | bytes) -> bool:
    """Whether a picture is to be turned or mirrored when it is shown. Raises as `read_still`."""
    with _opened(source) as picture:
        return picture.getexif().get(Base.Orientation, 1) not in (0, 1)


def as_crop(source: Path | bytes) -> bytes:
    """A picture as a crop: JPEG, of a crop's size. Raises as `read_still`."""
    face = read_still(source, SIDES)
    if face.size != (CROP_SIDE, CROP_SIDE):
        face = face.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    face.save(jpeg, "JPEG", quality=QUALITY)
    return jpeg.getvalue()


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings(), _bytes_of(source) as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_known_formats()) as picture:
                yield picture
    except UnidentifiedImageError as error:
        raise PictureError from error
    except (Image.DecompressionBombError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise PictureError(str(error)) from error
    except OSError as error:
        if of_machine(error):
            raise
        raise PictureError(error.strerror or str(error)) from error


def _bytes_of(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else os.fdopen(open_file(source), "rb")


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey of 16 or 32 bits, whole or not, as uint8, by the range that its values show: to 1, 255, 65,535 or 2^31 - 1.

    16 bits are known to go to 65,535, and fractions to 1 where none is above.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high) or low < 0:
        raise PictureError(f"grey values from {low:g} to {high:g}, where 0 is black")
    if values.dtype.itemsize == 2:
        full = 65_535
    else:
        ranges = (1, 255, 65_535) if values.dtype.kind == "f" else (255, 65_535, 2**31 - 1)
        full = next((full for full in ranges if high <= full), 0)
    if not full:
        raise PictureError(f"grey values up to {high:g}")
    return np.asarray(np.rint(values.astype(np.float64) * (255 / full)), np.uint8)
