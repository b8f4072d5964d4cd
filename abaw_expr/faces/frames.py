"""Decodes the frames of a video, upright, numbered as the organisers number them: from 1, in display order.

Shapes: h x w pixels.
"""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from abaw_expr.data.media.containers import Packets, can_decode, open_media, video_stream
from abaw_expr.data.media.decode import read_clock
from abaw_expr.data.media.images import ImageError, is_image, read_image

_MOST_PIXELS = 4096 * 2304
"""Pixels of a frame, unless its file's header says more from the start: larger ones, from damage, are not decoded."""


def read_frames(path: Path) -> Iterator[tuple[int, av.VideoFrame]]:
    """Yields (number, frame) of every frame that can be decoded.

    A number is the frame's position among the file's `read_times`, from 1: a frame that cannot be decoded leaves its
    number out. Raises av.FFmpegError for a file that is not a readable video.
    """
    if is_image(path):
        yield 1, _frame_of_image(path)
        return
    clock = read_clock(path)
    with open_media(path) as container:
        # AVI has the decoding order only: frames are counted
        numbers = _Numbers([] if container.format.name == "avi" else clock.positions.tolist())
        stream = video_stream(container)
        if stream is None or not can_decode(stream):
            return
        stream.thread_type = "AUTO"
        most = max(_MOST_PIXELS, stream.width * stream.height)
        stream.codec_context.options = {"max_pixels": str(most)}
        for packet in Packets(container, stream):
            numbers.sent(packet)
            for frame in _decoded(stream, packet):
                yield numbers.of(frame), frame
        for frame in _decoded(stream, None):
            yield numbers.of(frame), frame


def count_frames(path: Path) -> int:
    """The number of frames in a video's header, for a progress bar; 0 if unknown."""
    try:
        with open_media(path) as container:
            stream = video_stream(container)
            if stream is None or stream.frames or not (container.duration and stream.average_rate):
                return stream.frames if stream else 0
            return round(container.duration / av.time_base * stream.average_rate)
    except (av.FFmpegError, OSError):
        return 0


def upright(frame: av.VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A frame as it is displayed, uint8 [h, w, 3] RGB: rotated and mirrored as its file says.

    Phones store frames on their side, and front cameras mirror them. `scale` below 1 reduces it.
    """
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    quarters, mirrored = _orientation(frame)
    turned = np.rot90(pixels, quarters)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a frame as it is displayed."""
    return (frame.height, frame.width) if _orientation(frame)[0] % 2 else (frame.width, frame.height)


def _orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Counterclockwise quarter turns that make a frame upright, and whether it is then mirrored left to right.

    They come from its display matrix (ISO 14496-12, 6.2.2), nine numbers, by which a pixel (x, y) is displayed at (a x
    + c y, b x + d y); other rotations are rounded to quarters.
    """
    matrix_data = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(matrix_data, SideData):
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(matrix_data), np.int32)[:5].astype(np.int64).tolist()
    mirrored = a * d - b * c < 0
    along = -a if mirrored else a  # the direction of the first axis, which mirroring after the rotation reverses
    return round(-np.degrees(np.arctan2(b, along)) / 90) % 4, mirrored


class _Numbers:
    """Numbers of the frames that come out of a decoder, by the packets that went in."""

    def __init__(self, positions: Iterable[int]) -> None:
        self._positions = iter(positions)
        self._sent: dict[int, deque[int]] = defaultdict(deque)
        self._last = 0

    def sent(self, packet: av.Packet) -> None:
        if not packet.is_discard:
            position = next(self._positions, None)
            if position is not None and packet.pts is not None:
                self._sent[packet.pts].append(position)

    def of(self, frame: av.VideoFrame) -> int:
        """The number of the oldest packet with the frame's time stamp; the next number where there is none."""
        waiting = self._sent.get(frame.pts) if frame.pts is not None else None
        position = waiting.popleft() if waiting else 0
        self._last = max(self._last, position) + 1
        return self._last


def _decoded(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        return []


def _frame_of_image(path: Path) -> av.VideoFrame:
    try:
        return av.VideoFrame.from_image(read_image(path))
    except ImageError as error:
        raise av.InvalidDataError(0, str(error)) from error
