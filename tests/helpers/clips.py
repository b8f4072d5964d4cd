"""Clips of drawn faces on a wall, in the containers, codecs and turns that cameras write."""

import struct
from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from PIL import Image

from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.data.synthetic.drawing import draw_video

SIZE = (320, 200)
"""Width and height of a clip's frames."""
SIDE = 110
"""Pixels of the side of a face's square."""
Faces = Sequence[np.ndarray | None]
"""One person's frames, [side, side, 3] uint8; None where they are away."""
Way = Callable[[int], tuple[float, float]]
"""Where the upper left corner of a person's square is, by frame from 0."""


def person(seed: int, count: int, away: Iterable[int] = ()) -> Faces:
    """A drawn person who looks neutral, then happy."""
    segment = (np.arange(count) >= count // 2).astype(int)
    drawn = list(draw_video([0, 4], segment, 12.5, np.random.default_rng(seed)).frames)
    return [None if i in set(away) else face for i, face in enumerate(drawn)]


def straight(start: tuple[float, float], end: tuple[float, float], count: int) -> Way:
    """From one place to another at one speed."""
    return lambda i: tuple((np.array(start) + (np.array(end) - start) * i / max(count - 1, 1)).tolist())


def draw_frames(
    people: Sequence[tuple[Faces, Way]], size: tuple[int, int] = SIZE, side: int = SIDE
) -> Iterator[np.ndarray]:
    """Everyone in front of a wall, the first furthest off; [height, width, 3]."""
    stones = np.random.default_rng(0).integers(60, 140, (9, 16, 3), dtype=np.uint8)
    wall = Image.fromarray(stones).resize(size, Image.Resampling.BICUBIC)
    for i in range(len(people[0][0])):
        frame = wall.copy()
        for faces, way in people:
            if (face := faces[i]) is not None:
                x, y = way(i)
                frame.paste(Image.fromarray(face).resize((side, side), Image.Resampling.BICUBIC), (round(x), round(y)))
        yield np.asarray(frame)


def write_people(path: Path, count: int, people: int = 2) -> Path:
    """A video of one or two people, who stand beside each other, of so many frames."""
    ways = [straight((10, 30), (40, 60), count), straight((210, 60), (185, 40), count)]
    shown = [(person(seed, count), way) for seed, way in zip((14, 18), ways, strict=True)][:people]
    write_video(path, Fraction(25), draw_frames(shown), None)
    return path


def encode(path: Path, shown: Iterable[np.ndarray], codec: str, times: Sequence[Fraction]) -> Path:
    """Writes a video without audio whose frames are shown at the given seconds."""
    clock = Fraction(1, 9000)
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    with av.open(str(path), "w") as out:
        stream = out.add_stream(codec, options=quiet)
        assert isinstance(stream, av.VideoStream)
        stream.codec_context.time_base = clock
        for number, (pixels, time) in enumerate(zip(shown, times, strict=True)):
            if number == 0:
                stream.height, stream.width = pixels.shape[:2]
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts, frame.time_base = round(time / clock), clock
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def lay_on_side(path: Path) -> None:
    """Tells players to turn an MP4 a quarter clockwise, as a phone that is held upright does (ISO 14496-12, 8.3.2)."""
    data = bytearray(path.read_bytes())
    header = data.index(b"tkhd") + 4
    matrix = header + 4 + (32 if data[header] else 20) + 16  # after times and numbers, of 64 or 32 bits, and layers
    one = 1 << 16
    data[matrix : matrix + 36] = struct.pack(">9i", 0, one, 0, -one, 0, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
