"""What a recording is made from, a video file, a sound file or pictures: its clock, its sound, its faces.

Sound alone and pictures alone have no frame rate of their own; they get a nominal one, so that they too are frames in
time. Frames of sound alone have no crop.
"""

import hashlib
import math
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import av
import numpy as np

from abaw_expr.data.media import decode
from abaw_expr.data.media.containers import begins, open_media, picture_stream
from abaw_expr.data.media.images import SUFFIXES, PictureError, as_crop, is_still
from abaw_expr.data.media.stamps import Clock
from abaw_expr.data.walk import innermost, is_leftover
from abaw_expr.errors import of_machine
from abaw_expr.files import open_file
from abaw_expr.tasks.names import crop_name

SOUND_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aac", ".aiff", ".aif", ".wma")
NOMINAL_RATE = 25
"""Frames a second of what has no clock of its own."""
MediaType = Literal["video", "sound", "pictures"]


@dataclass(frozen=True)
class Source:
    """What a recording is made from, read but for its pictures."""

    kind: MediaType
    times: np.ndarray
    """When each frame is shown, float64 [frames], in seconds from the first, ascending."""
    clock: Clock | None
    """Of a video, the clock of its pictures."""
    sound: decode.Sound | None
    """On the clock of the frames."""


def media_type(path: Path) -> MediaType:
    """What lies there: pictures are one picture file, or a folder; sound is what holds no moving pictures.

    That goes by what is in a file, and by its ending only where it cannot be read.
    """
    if path.is_dir() or is_still(path):
        return "pictures"
    try:
        with open_media(path) as container:
            return "sound" if picture_stream(container) is None and container.streams.audio else "video"
    except av.FFmpegError:
        suffix = path.suffix.lower()
        return "pictures" if suffix in SUFFIXES else "sound" if suffix in SOUND_SUFFIXES else "video"


def held_in(path: Path) -> set[Literal["pictures", "sound"]]:
    """What can be decoded of the beginning of a file; nothing where it cannot be read."""
    held = set[Literal["pictures", "sound"]]()
    try:
        with open_media(path) as container:
            film, voice = picture_stream(container), next(iter(container.streams.audio), None)
            if film is not None and begins(container, film):
                held.add("pictures")
            if voice is not None and begins(container, voice):
                held.add("sound")
    except av.FFmpegError:
        pass
    return held


def read_source(path: Path) -> Source:
    """Reads the clock and the sound. Raises av.FFmpegError for a file that is not readable."""
    kind = media_type(path)
    if kind == "pictures":
        return Source(kind, np.arange(len(list_pictures(path))) / NOMINAL_RATE, None, None)
    clock = decode.read_clock(path)
    sound = decode.read_sound(path, clock)
    if len(clock.times) or sound is None:
        return Source(kind, clock.times, clock, sound)
    frames = math.ceil(len(sound.samples) / decode.SAMPLE_RATE * NOMINAL_RATE)
    return Source("sound", np.arange(frames) / NOMINAL_RATE, None, sound)


def list_pictures(path: Path) -> list[Path]:
    """The pictures of a folder in the order of the numbers in their names (2 before 10); of a file, that file."""
    if not path.is_dir():
        return [path]
    path = innermost(path)
    found = [file for file in path.iterdir() if file.suffix.lower() in SUFFIXES and not is_leftover(file.name)]
    return sorted(found, key=lambda file: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", file.name)])


def read_faces(path: Path, frames: list[int], spoilt: list[str]) -> Iterator[tuple[str, bytes]]:
    """(a crop's name, JPEG) of every picture, made a crop's size.

    Their frames go to `frames`, those that are no pictures to `spoilt`, with the reason if there is one.
    """
    for frame, file in enumerate(list_pictures(path), start=1):
        try:
            face = as_crop(file)
        except PictureError as error:
            spoilt.append(f"{file.name} ({error})" if str(error) else file.name)
            continue
        frames.append(frame)
        yield crop_name(frame), face


def fingerprint(path: Path) -> list[object]:
    """What changes where a source does, be it that it cannot be read."""
    return [[file.name, *_ends(file)] for file in list_pictures(path)]


def _ends(path: Path, count: int = 2**16) -> tuple[int, str]:
    """Size of a file, and a hash of its first and last bytes.

    A download that reserves its space has its size before its bytes.
    """
    try:
        with os.fdopen(open_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(count)
            file.seek(max(size - count, 0))
            return size, hashlib.sha256(first + file.read()).hexdigest()
    except OSError as error:
        if of_machine(error):
            raise
        return -1, str(error.strerror)
