"""Reads a video file's frame times and audio, both on the clock of its frames.

Time 0 is the first frame. Frame rates and time stamps come from the file and are never assumed; contradictions are
reported.

Shapes: n samples of audio, T frames.
"""

from collections.abc import Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import groupby
from pathlib import Path

import av
import numpy as np
from av.container import InputContainer

from abaw_expr.data.media.audio_track import Piece, assemble_track
from abaw_expr.data.media.containers import Packets, can_decode, error_text, open_media, video_stream
from abaw_expr.data.media.timestamps import Clock, clock_of, time_stamps_of

SAMPLE_RATE = 16_000
"""Samples a second of the mono audio that is analysed."""
MARGIN = 10.0
"""Seconds of audio that are kept after the last frame; later audio is not used."""
_GAP_MARGIN = 2.5
"""Seconds after the last frame at which a gap in the audio may end: real audio ends up to 2.1 s after it."""
_ROUNDED = 0.005
"""Seconds by which the stamps of lost audio may be rounded: packets usually have one length."""
_SWALLOWED = 1.0
"""Seconds by which lost audio may be longer than its packets say."""
_RATES = range(2_000, 800_000)
"""Sample rates of audio; damaged headers give others, which would make hours of seconds."""


@dataclass(frozen=True)
class Audio:
    """Mono audio of a recording at 16 kHz."""

    samples: np.ndarray
    """float32 [n]; sample i is at i / 16000 seconds."""
    problem: str | None
    """What could not be decoded, and how much of the audio that is, or None."""
    streams: int = 1
    """The number of audio streams in the file; this is the first."""
    stamp_problem: str | None = None
    """How time stamps contradict the sample counts, or None."""
    cut: bool = False
    """Whether the audio continues long after the last frame."""


def read_clock(path: Path) -> Clock:
    """When the frames of a video are shown; reads packets and decodes no frame.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    with open_media(path) as container:
        stream = video_stream(container)
        if stream is None:
            return Clock.none()
        assert stream.time_base is not None
        packets = Packets(container, stream)
        stamps, base = time_stamps_of(packets), stream.time_base
    clock = clock_of(stamps, base)
    if clock.problem:  # a frame may be shown as long as there is audio
        unbounded = clock_of(stamps, base, most_still=float("inf"))
        clock = unbounded if unbounded.end > clock.end and unbounded.end <= _audio_seconds(path) + MARGIN else clock
    return replace(clock, cut=packets.cut)


def _audio_seconds(path: Path) -> float:
    """Seconds of audio by the packets of a file."""
    with open_media(path) as container:
        if not container.streams.audio:
            return 0.0
        return sum(_seconds(packet) for packet in Packets(container, container.streams.audio[0]))


def read_times(path: Path) -> np.ndarray:
    """When each frame of a video is shown, float64 [T], in seconds from the first frame, ascending.

    Raises av.FFmpegError for a file that is not a readable video.
    """
    return read_clock(path).times


def read_audio(path: Path, clock: Clock | None = None) -> Audio | None:
    """The first audio stream of a video on the clock of its frames, which is read if not given; None without audio.

    Audio before the first frame is dropped. A late start, gaps and audio that cannot be decoded become silence. Where
    stamps contradict the sample counts, samples are placed end to end. Raises av.FFmpegError for a file that is not
    readable.
    """
    clock = read_clock(path) if clock is None else clock
    with open_media(path) as container:
        if not container.streams.audio:
            return None
        streams = len(container.streams.audio)
        if not can_decode(container.streams.audio[0]):
            return Audio(np.zeros(0, np.float32), "there is no decoder for it", streams)
        decoded = _Decoded(container, container.streams.audio[0])
        limit = clock.end + MARGIN if len(clock.times) else None
        try:
            pieces, cut = _pieces(_mono(decoded), clock.zero, limit)
        except av.FFmpegError as error:  # not of one packet, which alone would be lost
            return Audio(np.zeros(0, np.float32), error_text(error), streams)
    problem = decoded.problem
    if not decoded.good:
        return Audio(np.zeros(0, np.float32), problem, streams) if problem else None
    gap_limit = clock.end + _GAP_MARGIN if limit is not None else None
    samples, stamp_problem = assemble_track(pieces, clock, gap_limit, SAMPLE_RATE)
    samples = samples if limit is None else samples[: round(limit * SAMPLE_RATE)]
    return Audio(samples, problem, streams, stamp_problem, cut)


class _DamagedFrameError(Exception):
    """An audio frame with values that only damage explains."""


class _Decoded:
    """The frames of an audio stream; what cannot be decoded becomes silence of the same length."""

    def __init__(self, container: InputContainer, stream: av.AudioStream) -> None:
        self._packets, self._stream = Packets(container, stream), stream
        self.good = self.lost = 0.0
        """Seconds."""
        self._longest = 0.0
        """Seconds of the longest frame: some codecs write a packet's length into its data, which damage changes."""
        self._error: str | None = None

    @property
    def problem(self) -> str | None:
        cut = f"its end is damaged ({self._packets.cut})" if self._packets.cut else None
        if not self._error:
            return cut
        lost = f"{self.lost:.2f} of {self.lost + self.good:.2f} s cannot be decoded ({self._error})"
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
        self.lost += self._seconds(lost)  # at the end it adds no audio
        with suppress(av.FFmpegError):
            yield from self._usable(self._stream.decode(None))

    def _decode(self, packet: av.Packet) -> list[av.AudioFrame] | None:
        """The frames of a packet, if any are ready; None where the packet is lost."""
        try:
            return self._usable(self._stream.decode(packet))
        except (av.FFmpegError, _DamagedFrameError) as error:
            self._error = self._error or error_text(error)
            return None

    def _usable(self, frames: list[av.AudioFrame]) -> list[av.AudioFrame]:
        for frame in frames:
            if frame.sample_rate not in _RATES:
                raise _DamagedFrameError(f"{frame.sample_rate} samples a second")
            seconds = frame.samples / frame.sample_rate
            self.good, self._longest = self.good + seconds, max(self._longest, seconds)
        return frames

    def _silences(self, lost: list[av.Packet], then: av.AudioFrame, like: av.AudioFrame) -> Iterator[av.AudioFrame]:
        """Silence for lost packets, up to the stamp of the next frame if that is plausible.

        Damage may have removed the packets after them.
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
        """The length of lost packets, in seconds."""
        return sum(min(_seconds(packet, default), self._longest or 1.0) for packet in packets)


def _stamp(timed: av.Packet | av.AudioFrame) -> float | None:
    pts, base = timed.pts, timed.time_base
    return None if pts is None or base is None else pts * base.numerator / base.denominator


def _seconds(packet: av.Packet, default: float = 0.0) -> float:
    """The length of a packet in seconds as it states it, at most one second."""
    return min(float(packet.duration * packet.time_base), 1.0) if packet.duration else default


def _silence(like: av.AudioFrame, seconds: float) -> av.AudioFrame:
    """A silent frame in the format of another."""
    count = max(1, round(seconds * like.sample_rate))
    array = like.to_ndarray()
    shape = (len(array), count if like.format.is_planar else count * like.layout.nb_channels)
    middle = 128 if array.dtype == np.uint8 else 0
    silent = np.full(shape, middle, array.dtype)
    frame = av.AudioFrame.from_ndarray(silent, format=like.format.name, layout=like.layout.name)
    frame.sample_rate = like.sample_rate
    return frame


def _mono(frames: Iterable[av.AudioFrame]) -> Iterator[av.AudioFrame]:
    """Audio as 16 kHz mono; a stream may change its channels or its rate."""
    for _, alike in groupby(frames, lambda frame: (frame.format.name, frame.layout.name, frame.sample_rate)):
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=SAMPLE_RATE)
        for frame in alike:
            yield from resampler.resample(frame)
        yield from resampler.resample(None)


def _pieces(frames: Iterable[av.AudioFrame], zero: float, limit: float | None) -> tuple[list[Piece], bool]:
    """Audio in pieces, until it reaches `limit` seconds, and whether there is more."""
    pieces = list[Piece]()
    left = float("inf")
    for frame in frames:
        stamp = _stamp(frame)
        if not pieces and limit is not None:
            left = (limit + max(0.0, zero - (zero if stamp is None else stamp))) * SAMPLE_RATE
        samples = np.frombuffer(memoryview(frame.planes[0]), np.float32, frame.samples).copy()
        pieces.append(Piece(stamp, samples))
        left -= len(samples)
        if left < 0:
            return pieces, True
    return pieces, False
