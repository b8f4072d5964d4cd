"""What a recording is made from, a video file, a sound file or pictures: its clock, its sound, its faces.

Sound alone and pictures alone have no frame rate of their own; they get a nominal one, so that they too are frames in
time. Frames of sound alone have no crop.
"""

import hashlib
import io
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from abaw_expr.data import media
from abaw_expr.errors import of_machine
from abaw_expr.tasks import CROP_SIDE, crop_name

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a")
PICTURE_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
NOMINAL_RATE = 25
"""Frames a second of what has no clock of its own."""


def kind_of(path: Path) -> Literal["video", "sound", "pictures"]:
    """What lies there: pictures are one picture file, or a folder."""
    suffix = path.suffix.lower()
    if path.is_dir() or suffix in PICTURE_SUFFIXES:
        return "pictures"
    return "sound" if suffix in SOUND_SUFFIXES else "video"


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names (2 before 10); of a file, that file."""
    if not path.is_dir():
        return [path]
    found = [file for file in path.iterdir() if file.suffix.lower() in PICTURE_SUFFIXES and file.name[0] != "."]
    return sorted(found, key=lambda file: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", file.name)])


def read_times(path: Path) -> np.ndarray:
    """When each frame is shown, float64 [frames], in seconds from the first, ascending.

    Raises av.FFmpegError for a file that is not readable.
    """
    kind = kind_of(path)
    if kind == "video":
        return media.read_times(path)
    frames = len(list_pictures(path)) if kind == "pictures" else math.ceil(_seconds(path) * NOMINAL_RATE)
    return np.arange(frames) / NOMINAL_RATE


def read_sound(path: Path) -> media.Sound | None:
    """The sound on that clock, as of a video; pictures have none."""
    return None if kind_of(path) == "pictures" else media.read_sound(path)


def read_faces(path: Path, frames: list[int], spoilt: list[str]) -> Iterator[tuple[str, bytes]]:
    """(a crop's name, JPEG) of every picture, made a crop's size.

    Their frames go to `frames`, the names of those that are no pictures to `spoilt`.
    """
    for frame, file in enumerate(list_pictures(path), start=1):
        jpeg = io.BytesIO()
        try:
            with Image.open(file) as picture:
                # Pillow would clip, not scale, grey of 16 bits
                shown = (
                    Image.fromarray((np.asarray(picture) >> 8).astype(np.uint8)) if picture.mode == "I;16" else picture
                )
                face = shown.convert("RGB").resize((CROP_SIDE, CROP_SIDE), Image.Resampling.BICUBIC)
            face.save(jpeg, "JPEG", quality=95)
        except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError, ValueError) as error:
            if of_machine(error):
                raise
            spoilt.append(file.name)
            continue
        frames.append(frame)
        yield crop_name(frame), jpeg.getvalue()


def fingerprint(path: Path) -> list[object]:
    """What changes where a source does, be it that it cannot be read."""
    files = list_pictures(path) if kind_of(path) == "pictures" else [path]
    return [[file.name, *_ends(file)] for file in files]


def _seconds(path: Path) -> float:
    """Length of a sound file, out of its packets: headers of recorders that were cut off lie."""
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.audio:
            return 0.0
        stream = container.streams.audio[0]
        ends = [packet.pts + (packet.duration or 0) for packet in container.demux(stream) if packet.pts is not None]
        assert stream.time_base is not None
        return float(max(ends, default=0) * stream.time_base)


def _ends(path: Path, count: int = 2**16) -> tuple[int, str]:
    """Size of a file, and a hash of its first and last bytes.

    A download that reserves its space has its size before its bytes.
    """
    try:
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(count)
            file.seek(max(size - count, 0))
            return size, hashlib.sha256(first + file.read()).hexdigest()
    except OSError as error:
        if of_machine(error):
            raise
        return -1, str(error.strerror)
