"""Reads what a recording is made from, a video file, an audio file or images: its frame times, its audio, its faces.

Audio alone and images alone have no frame rate; they get a nominal one, so that they have frames in time too. Frames of
audio alone have no crop.

Shapes: T frames.
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

from abaw_expr.data.discovery import innermost, is_leftover
from abaw_expr.data.media import decode
from abaw_expr.data.media.containers import open_media, starts_decodable, video_stream
from abaw_expr.data.media.images import IMAGE_SUFFIXES, ImageError, as_crop, is_image
from abaw_expr.data.media.timestamps import Clock
from abaw_expr.errors import is_machine_error
from abaw_expr.files import open_file
from abaw_expr.tasks.names import crop_name

AUDIO_SUFFIXES = (".wav", ".flac", ".mp3", ".ogg", ".m4a", ".opus", ".aac", ".aiff", ".aif", ".wma")
NOMINAL_RATE = 25
"""Frames a second of audio alone and of images alone."""
MediaType = Literal["video", "audio", "images"]


@dataclass(frozen=True)
class MediaSource:
    """Times and audio of what a recording is made from."""

    kind: MediaType
    times: np.ndarray
    """When each frame is shown, float64 [T], in seconds from the first, ascending."""
    clock: Clock | None
    """For a video, the clock of its frames."""
    audio: decode.Audio | None
    """On the clock of the frames."""


def media_type(path: Path) -> MediaType:
    """The type of a source: an image file or a folder is images, a file with audio and no video stream is audio.

    The content of a file decides; its suffix only where the file cannot be read.
    """
    if path.is_dir() or is_image(path):
        return "images"
    try:
        with open_media(path) as container:
            return "audio" if video_stream(container) is None and container.streams.audio else "video"
    except av.FFmpegError:
        suffix = path.suffix.lower()
        return "images" if suffix in IMAGE_SUFFIXES else "audio" if suffix in AUDIO_SUFFIXES else "video"


def decodable_streams(path: Path) -> set[Literal["video", "audio"]]:
    """Which streams of a file can be decoded at their beginning; none where it cannot be read."""
    found = set[Literal["video", "audio"]]()
    try:
        with open_media(path) as container:
            video, audio = video_stream(container), next(iter(container.streams.audio), None)
            if video is not None and starts_decodable(container, video):
                found.add("video")
            if audio is not None and starts_decodable(container, audio):
                found.add("audio")
    except av.FFmpegError:
        pass
    return found


def read_source(path: Path) -> MediaSource:
    """Reads the frame times and the audio. Raises av.FFmpegError for a file that is not readable."""
    kind = media_type(path)
    if kind == "images":
        return MediaSource(kind, np.arange(len(list_images(path))) / NOMINAL_RATE, None, None)
    clock = decode.read_clock(path)
    audio = decode.read_audio(path, clock)
    if len(clock.times) or audio is None:
        return MediaSource(kind, clock.times, clock, audio)
    frames = math.ceil(len(audio.samples) / decode.SAMPLE_RATE * NOMINAL_RATE)
    return MediaSource("audio", np.arange(frames) / NOMINAL_RATE, None, audio)


def list_images(path: Path) -> list[Path]:
    """The images of a folder in the order of the numbers in their names (2 before 10); of a file, that file."""
    if not path.is_dir():
        return [path]
    path = innermost(path)
    found = [file for file in path.iterdir() if file.suffix.lower() in IMAGE_SUFFIXES and not is_leftover(file.name)]
    return sorted(found, key=lambda file: [int(x) if x.isdecimal() else x for x in re.split(r"(\d+)", file.name)])


def read_faces(path: Path, frames: list[int], unreadable: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yields (a crop's name, JPEG) of every image, resized to a crop.

    Their frames are appended to `frames`; the names of files that are no images, with the reason, to `unreadable`.
    """
    for frame, file in enumerate(list_images(path), start=1):
        try:
            face = as_crop(file)
        except ImageError as error:
            unreadable.append(f"{file.name} ({error})" if str(error) else file.name)
            continue
        frames.append(frame)
        yield crop_name(frame), face


def has_face(path: Path, read: MediaSource) -> bool:
    """Whether one of a folder's images, or the one of a file, can serve as a crop; True for video and audio."""
    return read.kind != "images" or any(True for _ in read_faces(path, [], []))


def fingerprint_media(path: Path) -> list[object]:
    """Values that change when a source changes, whether or not it can be read."""
    return [[file.name, *_ends(file)] for file in list_images(path)]


def _ends(path: Path, count: int = 2**16) -> tuple[int, str]:
    """Size of a file, and a hash of its first and last bytes.

    A download that reserves its space has its full size before its content.
    """
    try:
        with os.fdopen(open_file(path), "rb") as file:
            size = os.fstat(file.fileno()).st_size
            first = file.read(count)
            file.seek(max(size - count, 0))
            return size, hashlib.sha256(first + file.read()).hexdigest()
    except OSError as error:
        if is_machine_error(error):
            raise
        return -1, str(error.strerror)
