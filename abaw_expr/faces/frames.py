"""The pictures of a video, upright and numbered as the organisers number frames: from 1, as they are shown."""

from collections import defaultdict, deque
from collections.abc import Iterable, Iterator
from pathlib import Path

import av
import numpy as np
from av.sidedata.sidedata import SideData
from numpy.typing import NDArray

from abaw_expr.data.media.containers import Packets, can_decode, open_media, picture_stream
from abaw_expr.data.media.decode import read_clock
from abaw_expr.data.media.images import PictureError, is_still, read_still

MOST_PIXELS = 4096 * 2304
"""Of a picture, unless its file's header says more from the start: what damage makes larger is not decoded."""


def read_pictures(path: Path) -> Iterator[tuple[int, av.VideoFrame]]:
    """(number, picture) of every picture that can be decoded.

    A number is the picture's place among `media.read_times` of the file, whatever its rate: a damaged picture keeps
    its number from the next. Raises av.FFmpegError for a file that is not a readable video.
    """
    if is_still(path):
        yield 1, _of_still(path)
        return
    clock = read_clock(path)
    with open_media(path) as container:
        # AVI knows the order of decoding only: the pictures are counted
        numbers = _Numbers([] if container.format.name == "avi" else clock.places.tolist())
        stream = picture_stream(container)
        if stream is None or not can_decode(stream):
            return
        stream.thread_type = "AUTO"
        most = max(MOST_PIXELS, stream.width * stream.height)
        stream.codec_context.options = {"max_pixels": str(most)}
        for packet in Packets(container, stream):
            numbers.sent(packet)
            for frame in _decoded(stream, packet):
                yield numbers.of(frame), frame
        for frame in _decoded(stream, None):
            yield numbers.of(frame), frame


def count_pictures(path: Path) -> int:
    """How many pictures a video's header promises, without reading them: for a progress bar. 0 where it is unknown."""
    try:
        with open_media(path) as container:
            stream = picture_stream(container)
            if stream is None or stream.frames or not (container.duration and stream.average_rate):
                return stream.frames if stream else 0
            return round(container.duration / av.time_base * stream.average_rate)
    except (av.FFmpegError, OSError):
        return 0


def upright(frame: av.VideoFrame, scale: float = 1.0) -> NDArray[np.uint8]:
    """A picture as it is to be seen, [height, width, 3] RGB: turned and mirrored as its file says.

    Phones lay pictures on the side, and front cameras mirror them. `scale` below 1 makes it smaller.
    """
    width, height = (max(1, round(side * scale)) for side in (frame.width, frame.height))
    pixels = frame.to_ndarray(format="rgb24", width=width, height=height)
    quarters, mirrored = orientation(frame)
    turned = np.rot90(pixels, quarters)
    return np.ascontiguousarray(turned[:, ::-1] if mirrored else turned)


def upright_size(frame: av.VideoFrame) -> tuple[int, int]:
    """Width and height of a picture as it is to be seen."""
    return (frame.height, frame.width) if orientation(frame)[0] % 2 else (frame.width, frame.height)


def orientation(frame: av.VideoFrame) -> tuple[int, bool]:
    """Quarter turns against the clock that make a picture upright, and whether it is mirrored left to right then.

    They are said by its display matrix (ISO 14496-12, 6.2.2), nine numbers, by which a pixel (x, y) is
    shown at (a x + c y, b x + d y); other turns than quarters go to the nearest.
    """
    said = frame.side_data.get("DISPLAYMATRIX")
    if not isinstance(said, SideData):
        return 0, False
    a, b, _, c, d = np.frombuffer(bytes(said), np.int32)[:5].astype(np.int64).tolist()
    mirrored = a * d - b * c < 0
    along = -a if mirrored else a  # where the first axis goes: a mirror after the turn brings it to the other side
    return round(-np.degrees(np.arctan2(b, along)) / 90) % 4, mirrored


class _Numbers:
    """The number of each picture that comes out of a decoder, by the packets that went in."""

    def __init__(self, places: Iterable[int]) -> None:
        self._places = iter(places)
        self._sent: dict[int, deque[int]] = defaultdict(deque)
        self._last = 0

    def sent(self, packet: av.Packet) -> None:
        if not packet.is_discard:
            place = next(self._places, None)
            if place is not None and packet.pts is not None:
                self._sent[packet.pts].append(place)

    def of(self, frame: av.VideoFrame) -> int:
        """That of the packet with its time stamp that went in longest ago; the next where none has it."""
        waiting = self._sent.get(frame.pts) if frame.pts is not None else None
        place = waiting.popleft() if waiting else 0
        self._last = max(self._last, place) + 1
        return self._last


def _decoded(stream: av.VideoStream, packet: av.Packet | None) -> list[av.VideoFrame]:
    try:
        return stream.decode(packet)
    except av.FFmpegError:
        return []


def _of_still(path: Path) -> av.VideoFrame:
    try:
        return av.VideoFrame.from_image(read_still(path))
    except PictureError as error:
        raise av.InvalidDataError(0, str(error)) from error
