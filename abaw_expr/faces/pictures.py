"""The pictures of a video, upright and numbered as the organisers number frames: from 1, as they are shown."""

from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray


def read_pictures(path: Path) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, picture) of every picture that can be decoded.

    A number is the picture's place among `media.read_times` of the file, whatever its rate: a damaged picture keeps
    its number from the next. Raises av.FFmpegError for a file that is not a readable video.
    """
    stamps = _stamps(path)
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video:
            return
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        number = 0
        for packet in container.demux(stream):
            try:
                frames = packet.decode()
            except av.InvalidDataError:
                continue
            for frame in frames:
                assert isinstance(frame, av.VideoFrame)
                place = int(np.searchsorted(stamps, frame.pts)) if stamps is not None and frame.pts is not None else 0
                number = max(number, place) + 1
                yield number, frame


def count_pictures(path: Path) -> int:
    """How many pictures a video's header promises, without reading them: for a progress bar. 0 where it is unknown."""
    try:
        with av.open(str(path), metadata_errors="replace") as container:
            stream = container.streams.video[0] if container.streams.video else None
            if stream is None or stream.frames or not (container.duration and stream.average_rate):
                return stream.frames if stream else 0
            return round(container.duration / av.time_base * stream.average_rate)
    except (av.FFmpegError, OSError):
        return 0


def upright(frame: av.VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A picture as it is to be seen, [height, width, 3] RGB, turned as its file says (phones lay pictures on the side).

    `scale` below 1 makes it smaller.
    """
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    return np.ascontiguousarray(np.rot90(pixels, _quarters(frame)))


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a picture as it is to be seen."""
    return (frame.height, frame.width) if _quarters(frame) % 2 else (frame.width, frame.height)


def _quarters(frame: av.VideoFrame) -> int:
    """Quarter turns against the clock that make a picture upright."""
    return round(frame.rotation / 90)


def _stamps(path: Path) -> NDArray[np.int64] | None:
    """When each picture is to be shown, ascending, on the stream's clock; None where the file does not say."""
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video or container.format.name == "avi":  # AVI knows the order of decoding only
            return None
        packets = [p for p in container.demux(container.streams.video[0]) if p.size and not p.is_discard]
        stamps = [packet.pts for packet in packets if packet.pts is not None]
        return np.sort(np.array(stamps, np.int64)) if len(stamps) == len(packets) else None
