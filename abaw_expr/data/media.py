"""What is read out of a video file: when each picture is shown, and the sound, both on the file's own clock.

Time 0 is the moment of the first picture. Frame rates and time stamps are the file's, never assumed.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import av
import numpy as np

SAMPLE_RATE = 16_000
"""Samples a second of the mono sound that is analysed."""
_GAP = SAMPLE_RATE // 20
"""A jump of sound time stamps beyond this many samples is a gap, not jitter, and is kept."""


@dataclass(frozen=True)
class Sound:
    """Mono sound of a recording at 16 kHz."""

    samples: np.ndarray
    """float32 [N]; sample i is heard at i / 16000 seconds."""
    problem: str | None
    """Why decoding ended early, or None."""
    streams: int = 1
    """How many streams of sound the file has; the first is this one."""


def read_times(path: Path) -> np.ndarray:
    """When each picture of a video is shown, float64 [frames], in seconds from the first picture, ascending.

    Reads packets without decoding pictures. Raises av.FFmpegError for a file that is not a readable video.
    """
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.video:
            return np.zeros(0)
        stream = container.streams.video[0]
        stamps = [
            packet.pts if packet.pts is not None else packet.dts
            for packet in container.demux(stream)
            if packet.size and not packet.is_discard
        ]
        known = sorted(stamp for stamp in stamps if stamp is not None)
        assert stream.time_base is not None
        return (np.array(known, dtype=np.float64) - (known[0] if known else 0)) * float(stream.time_base)


def read_sound(path: Path) -> Sound | None:
    """The first sound stream of a video on the clock of its pictures; None where there is no sound.

    Sound before the first picture is dropped, a late start and gaps are filled with silence. Damage in mid-stream
    ends the sound there and is told in `problem`.
    """
    with av.open(str(path), metadata_errors="replace") as container:
        if not container.streams.audio:
            return None
        track = _Track()
        problem = None
        try:
            zero = _first_picture(container)
            for piece in _mono(container.decode(container.streams.audio[0])):
                track.add(piece, zero)
        except av.FFmpegError as error:
            problem = f"{error.strerror} after {track.length / SAMPLE_RATE:.1f} s"
        streams = len(container.streams.audio)
        return Sound(track.samples(), problem, streams) if track.length or problem else None


class _Track:
    """Pieces of sound laid end to end, with silence where time stamps leave a gap."""

    def __init__(self) -> None:
        self._pieces: list[np.ndarray] = []
        self.length = 0

    def add(self, piece: av.AudioFrame, zero: float) -> None:
        samples = piece.to_ndarray().reshape(-1)
        if piece.pts is not None and piece.time_base is not None:
            gap = round((float(piece.pts * piece.time_base) - zero) * SAMPLE_RATE) - self.length
            if gap > _GAP or (gap > 0 and not self.length):
                self._append(np.zeros(gap, np.float32))
            elif gap < -_GAP or (gap < 0 and not self.length):
                samples = samples[-gap:]
        self._append(samples)

    def samples(self) -> np.ndarray:
        return np.concatenate([np.zeros(0, np.float32), *self._pieces])

    def _append(self, samples: np.ndarray) -> None:
        self._pieces.append(samples)
        self.length += len(samples)


def _mono(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The same sound as 16 kHz mono; a stream may change its channels or its rate on the way."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        for frame in alike:
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


def _first_picture(container: av.container.InputContainer) -> float:
    """Seconds of the first picture on the container's clock."""
    if not container.streams.video:
        return 0.0
    stream = container.streams.video[0]
    start = stream.start_time
    return float(start * stream.time_base) if start is not None and stream.time_base else 0.0
