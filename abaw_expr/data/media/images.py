"""Reads image files of any format, upright and as RGB. All images are read here.

Shapes: h x w pixels.
"""

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

from abaw_expr.errors import is_machine_error
from abaw_expr.files import open_file

CROP_SIDE = 112
"""Pixels of a crop's side, as the organisers release crops; the input size of the visual branch."""
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp", ".jp2", ".ppm", ".pgm", ".avif")
"""Suffixes by which images are found in folders."""
_FORMATS = ("JPEG", "PNG", "BMP", "DIB", "TIFF", "WEBP", "JPEG2000", "PPM", "GIF", "AVIF")
"""Formats whose content is accepted as an image, unless it is animated."""
_PAGED = ("MPO", "TIFF")
"""Formats with several pages that are no video."""
_FACE_SIDES = range(1, 2**14)
"""Pixels of a face's sides; damaged headers give more."""
JPEG_QUALITY = 95
"""JPEG quality of crops that are written here."""


class ImageError(Exception):
    """A file is no image that can be read; `str()` of it gives the reason, nothing where the file is no image at
    all."""


def is_image(path: Path) -> bool:
    """Whether a file holds one image, or pages of which the first counts; an animated image is a video."""
    try:
        with _opened(path) as image:
            return not getattr(image, "is_animated", False) or image.format in _PAGED
    except (ImageError, OSError) as error:
        if is_machine_error(error):
            raise
        return False


def read_image(source: Path | bytes, sides: range | None = None) -> Image.Image:
    """Reads an image, RGB: rotated as its file says, reduced to 8 bits, black where it is transparent.

    `sides` are the pixels that its sides may have; others are not decoded.

    Raises ImageError for what cannot be read as an image, OSError for an error of the machine.
    """
    with _opened(source) as image:
        if sides is not None and not (image.width in sides and image.height in sides):
            raise ImageError(f"{image.width} x {image.height} pixels")
        upright = ImageOps.exif_transpose(image)
        if upright.mode in ("F", "I") or upright.mode.startswith("I;"):
            return Image.fromarray(_eight_bits(np.asarray(upright))).convert("RGB")
        if upright.has_transparency_data:
            with_alpha = upright.convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", with_alpha.size, (0, 0, 0, 255)), with_alpha).convert("RGB")
        return upright.convert("RGB")


def is_rotated(source: Path | bytes) -> bool:
    """Whether an image's metadata rotate or mirror it. Raises as `read_image`."""
    with _opened(source) as image:
        return image.getexif().get(Base.Orientation, 1) not in (0, 1)


def as_crop(source: Path | bytes) -> bytes:
    """An image as a crop: JPEG, of a crop's size. Raises as `read_image`."""
    image = read_image(source, _FACE_SIDES)
    if image.size != (CROP_SIDE, CROP_SIDE):
        image = image.resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC)
    jpeg = io.BytesIO()
    image.save(jpeg, "JPEG", quality=JPEG_QUALITY)
    return jpeg.getvalue()


def comment_of(source: Path | bytes) -> str:
    """The comment in an image's metadata; empty where it has none. Raises as `read_image`."""
    with _opened(source) as image:
        found = image.info.get("comment", b"")
    return found.decode(errors="replace") if isinstance(found, bytes) else str(found)


@contextmanager
def _opened(source: Path | bytes) -> Iterator[Image.Image]:
    try:
        with warnings.catch_warnings(), _bytes_of(source) as file:
            warnings.simplefilter("ignore")
            with Image.open(file, formats=_known_formats()) as image:
                yield image
    except UnidentifiedImageError as error:
        raise ImageError from error
    except (Image.DecompressionBombError, SyntaxError, ValueError, EOFError, IndexError, TypeError) as error:
        raise ImageError(str(error)) from error
    except OSError as error:
        if is_machine_error(error):
            raise
        raise ImageError(error.strerror or str(error)) from error


def _bytes_of(source: Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else os.fdopen(open_file(source), "rb")


@cache
def _known_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Grey values [h, w] of 16 or 32 bits, integer or float, as uint8 [h, w].

    The range is the smallest of 1, 255, 65,535 and 2^31 - 1 that holds the values: 16 bits always have 65,535, and 1 is
    for floats only. Raises ImageError where none does.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite(low + high) or low < 0:
        raise ImageError(f"grey values from {low:g} to {high:g}, where 0 is black")
    if values.dtype.itemsize == 2:
        full = 65_535
    else:
        ranges = (1, 255, 65_535) if values.dtype.kind == "f" else (255, 65_535, 2**31 - 1)
        full = next((full for full in ranges if high <= full), 0)
    if not full:
        raise ImageError(f"grey values up to {high:g}")
    return np.asarray(np.rint(values.astype(np.float64) * (255 / full)), np.uint8)
