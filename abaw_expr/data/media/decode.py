"""What is read out of a video file: when each picture is shown, and the sound, both on the file's own clock.

Time 0 is the moment of the first picture. Frame rates and time stamps are the file's, never assumed; what contradicts
them is told.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from abaw_expr.data.media.audio_track import Piece, lay
from abaw_expr.data.media.containers import Packets, can_decode, open_media, picture_stream, reason
from abaw_expr.data.media.stamps import Clock, clock_of, stamps_of

SAMPLE_RATE = 16_000
"""Samples a second of the mono sound that is analysed."""
MARGIN = 10.0
"""Seconds after the last picture until which sound is kept: what is heard later is not asked for."""
GAP_MARGIN = 2.5
"""Seconds after the last picture until which a gap of the sound may last: real sound ends up to 2.1 s after it."""
_ROUNDED = 0.005
"""Seconds by which stamps of lost sound may be rounded: packets are of one length as a rule."""
_SWALLOWED = 1.0
"""Seconds by which lost sound may be longer than its packets say."""
_RATES = range(2_000, 800_000)
"""Samples a second that sound may have; a damaged header says others, and would make hours of seconds."""


@dataclass(frozen=True)
class Sound:
    """Mono sound of a recording at 16 kHz."""

    samples: np.ndarray
    """float32 [N]; sample i is heard at i / 16000 seconds."""
    problem: str | None
    """What could not be decoded, with how much of the sound that is, or None."""
    streams: int = 1
    """How many streams of sound the file has; the first is this one."""
    stamps: str | None = None
    """How time stamps contradict the samples, or None."""
    cut: bool = False
    """Whether there is more of it, long after the last picture."""


def read_clock(path: Path) -> Clock:
    """When the pictures of a video are shown; reads packets without decoding pictures.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    with open_media(path) as container:
        stream = picture_stream(container)
        if stream is None:
            return Clock.none()
        assert stream.time_base is not None
        packets = Packets(container, stream)
        stamps, base = stamps_of(packets), stream.time_base
    clock = clock_of(stamps, base)
    if clock.problem:  # a picture may be shown for as long as there is something to hear
        as_said = clock_of(stamps, base, still=float("inf"))
        clock = as_said if as_said.end > clock.end and as_said.end <= _heard(path) + MARGIN else clock
    return replace(clock, cut=packets.cut)


def _heard(path: Path) -> float:
    """Seconds of sound by the packets of a file."""
    with open_media(path) as container:
        if not container.streams.audio:
            return 0.0
        return sum(_seconds(packet) for packet in Packets(container, container.streams.audio[0]))


def read_times(path: Path) -> np.ndarray:
    """When each picture of a video is shown, float64 [frames], in seconds from the first picture, ascending.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    return read_clock(path).times


def read_sound(path: Path, clock: Clock | None = None) -> Sound | None:
    """The first sound stream of a video on the clock of its pictures, read if not given; None where there is no sound.

    Sound before the first picture is dropped, a late start and gaps are filled with silence, as is what cannot be
    decoded. Where stamps contradict the samples, these go on end to end. Raises av.FFmpegError for a file that is not
    readable.
    """
    clock = read_clock(path) if clock is None else clock
    with open_media(path) as container:
        if not container.streams.audio:
            return None
        streams = len(container.streams.audio)
        if not can_decode(container.streams.audio[0]):
            return Sound(np.zeros(0, np.float32), "there is no decoder for it", streams)
        decoded = _Decoded(container, container.streams.audio[0])
        limit = clock.end + MARGIN if len(clock.times) else None
        try:
            pieces, cut = _pieces(_mono(decoded), clock.zero, limit)
        except av.FFmpegError as error:  # not of a packet, which is lost alone
            return Sound(np.zeros(0, np.float32), reason(error), streams)
    problem = decoded.problem
    if not decoded.good:
        return Sound(np.zeros(0, np.float32), problem, streams) if problem else None
    samples, stamps = lay(pieces, clock, clock.end + GAP_MARGIN if limit is not None else None, SAMPLE_RATE)
    return Sound(samples if limit is None else samples[: round(limit * SAMPLE_RATE)], problem, streams, stamps, cut)


class _StrangeError(Exception):
    """A frame of sound that only damage can say."""


class _Decoded:
    """The frames of a stream of sound; what cannot be decoded is silent for as long as it would have been heard."""

    def __init__(self, container: InputContainer, stream: av.AudioStream) -> None:
        self._packets, self._stream = Packets(container, stream), stream
        self.good = self.lost = 0.0
        """Seconds."""
        self._longest = 0.0
        """Seconds of the longest frame: of some codecs a packet's length is in its bytes, which damage changes."""
        self._reason: str | None = None

    @property
    def problem(self) -> str | None:
        cut = f"it ends in damage ({self._packets.cut})" if self._packets.cut else None
        if not self._reason:
            return cut
        lost = f"{self.lost:.2f} of {self.lost + self.good:.2f} s cannot be decoded ({self._reason})"
        return f"{lost}; {cut}" if cut else lost

    def __iter__(self) -> Iterator[av.AudioFrame]:
        like: av.AudioFrame | None = None
        lost = list[av.Packet]()
        for packet in self._packets:
            frames = self._decode(packet)
            if frames is None:
                lost.append(packet)
            elif frames:
                yield from self._silences(lost, frames[0], like or frames[0])
                lost, like = [], frames[-1]
                yield from frames
        self.lost += self._seconds(lost)  # at the end that is no sound
        with suppress(av.FFmpegError):
            yield from self._usable(self._stream.decode(None))

    def _decode(self, packet: av.Packet) -> list[av.AudioFrame] | None:
        """The frames of a packet, if any are ready; None where it is lost."""
        try:
            return self._usable(self._stream.decode(packet))
        except (av.FFmpegError, _StrangeError) as error:
            self._reason = self._reason or reason(error)
            return None

    def _usable(self, frames: list[av.AudioFrame]) -> list[av.AudioFrame]:
        for frame in frames:
            if frame.sample_rate not in _RATES:
                raise _StrangeError(f"{frame.sample_rate} samples a second")
            seconds = frame.samples / frame.sample_rate
            self.good, self._longest = self.good + seconds, max(self._longest, seconds)
        return frames

    def _silences(self, lost: list[av.Packet], then: av.AudioFrame, like: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Silence in the place of lost packets, to the stamp of what comes then if that is likely.

        Damage may have swallowed the packets that followed.
        """
        if not lost:
            return
        usual = like.samples / like.sample_rate
        seconds, start, end = self._seconds(lost, usual), _stamp(lost[0]), _stamp(then)
        if start is not None and end is not None and seconds < end - start < seconds + _SWALLOWED:
            seconds = end - start
        self.lost += seconds
        if abs(seconds - round(seconds / usual) * usual) < _ROUNDED:
            seconds = round(seconds / usual) * usual
        frame = _silence(like, seconds)
        frame.pts, frame.time_base = lost[0].pts, lost[0].time_base
        yield frame

    def _seconds(self, packets: list[av.Packet], default: float = 0.0) -> float:
        """How long lost packets would have been heard."""
        return sum(min(_seconds(packet, default), self._longest or 1.0) for packet in packets)


def _stamp(timed: av.Packet | av.AudioFrame) -> float | None:
    return None if timed.pts is None or timed.time_base is None else float(timed.pts * timed.time_base)


def _seconds(packet: av.Packet, default: float = 0.0) -> float:
    """How long a packet is heard, as far as it says so, and a second at most."""
    return min(float(packet.duration * packet.time_base), 1.0) if packet.duration else default


def _silence(like: av.AudioFrame, seconds: float) -> av.AudioFrame:
    """A silent frame of the form of another."""
    count = max(1, round(seconds * like.sample_rate))
    array = like.to_ndarray()
    shape = (len(array), count if like.format.is_planar else count * like.layout.nb_channels)
    middle = 128 if array.dtype == np.uint8 else 0
    silent = np.full(shape, middle, array.dtype)
    frame = av.AudioFrame.from_ndarray(silent, format=like.format.name, layout=like.layout.name)
    frame.sample_rate = like.sample_rate
    return frame


def _mono(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """The same sound as 16 kHz mono; a stream may change its channels or its rate on the way."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        for frame in alike:
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


def _pieces(frames: Iterable[av.AudioFrame], zero: float, limit: float | None) -> tuple[list[Piece], bool]:
    """Sound in pieces, until there is as much as can be heard to `limit`, and whether there is more."""
    pieces = list[Piece]()
    left = float("inf")
    for frame in frames:
        stamp = _stamp(frame)
        if not pieces and limit is not None:
            left = (limit + max(0.0, zero - (zero if stamp is None else stamp))) * SAMPLE_RATE
        samples = frame.to_ndarray().reshape(-1).astype(np.float32, copy=False)
        pieces.append(Piece(stamp, samples))
        left -= len(samples)
        if left < 0:
            return pieces, True
    return pieces, False
