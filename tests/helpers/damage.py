"""Tiny videos in several containers, and seeded ways to damage them: bits, time stamps, ends cut off, splices."""

import random
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

RATE, FRAMES, SAMPLES = 25, 50, 44_100
"""Frames a second, frames, and samples of audio a second of a video."""
FORMS = {
    "a.mp4": ("libx264", "aac"),
    "b.mkv": ("libx264", "aac"),
    "c.avi": ("mpeg4", "libmp3lame"),
    "d.ts": ("mpeg2video", "mp2"),
    "e.webm": ("libvpx", "libopus"),
    "f.mkv": ("mpeg4", "flac"),
}
"""Codecs of frames and of audio by the name of a video, which says the container."""
Shift = Callable[[int], float]
"""Seconds by which the stamps of a packet are moved, by its number."""


def write_videos(folder: Path) -> list[Path]:
    """Writes two seconds of grey frames and a hum in every container."""
    return [write_test_video(folder / name, *codecs) for name, codecs in FORMS.items()]


def write_test_video(
    path: Path, video: str | None, audio: str | None, seconds: float = 2.0, rate: int = SAMPLES
) -> Path:
    rate = 48_000 if audio == "libopus" else rate
    format_ = {".ts": "mpegts", ".mkv": "matroska"}.get(path.suffix)
    with av.open(str(path), "w", format=format_) as out:
        video_stream = out.add_stream(video, rate=Fraction(RATE)) if video is not None else None
        audio_stream = out.add_stream(audio, rate=rate, layout="mono") if audio is not None else None
        if isinstance(video_stream, av.VideoStream):
            video_stream.width = video_stream.height = 64
            video_stream.pix_fmt = "yuv420p"
            for packet in _video_packets(video_stream, round(seconds * RATE)):
                out.mux(packet)
        if isinstance(audio_stream, av.AudioStream):
            out.mux(_audio_packets(audio_stream, hum(seconds, rate), rate))
    return path


def _video_packets(video_stream: av.VideoStream, count: int) -> Iterator[av.Packet]:
    for i in range(count):
        frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), 60 + i % 100, np.uint8), format="rgb24")
        frame.pts, frame.time_base = i, Fraction(1, RATE)
        yield from video_stream.encode(frame)
    yield from video_stream.encode(None)


def hum(seconds: float, rate: int = SAMPLES) -> np.ndarray:
    """A tone whose loudness changes, with noise, int16."""
    t = np.arange(int(seconds * rate)) / rate
    tone = np.sin(2 * np.pi * 150 * t) * (0.6 + 0.4 * np.sin(2 * np.pi * 3 * t))
    noise = 0.2 * np.random.default_rng(0).normal(size=len(t))
    return np.asarray((8000 * (tone + noise)).clip(-32768, 32767), np.int16)


def _audio_packets(audio_stream: av.AudioStream, samples: np.ndarray, rate: int) -> list[av.Packet]:
    context = audio_stream.codec_context
    size = context.frame_size or 1024
    resampler = av.AudioResampler(format=context.format.name, layout="mono", rate=rate, frame_size=size)
    whole = av.AudioFrame.from_ndarray(samples[None], format="s16", layout="mono")
    whole.sample_rate, whole.pts, whole.time_base = rate, 0, Fraction(1, rate)
    pieces = resampler.resample(whole) + resampler.resample(None)
    return [packet for piece in [*pieces, None] for packet in audio_stream.encode(piece)]


def remux(
    source: Path,
    target: Path,
    video: Shift | None = None,
    audio: Shift | None = None,
    replace: Callable[[str, int], bytes | None] = lambda kind, number: None,
) -> Path:
    """Copies a video packet by packet, with stamps moved, and bytes of packets (by kind and number) replaced."""
    shifts = {"video": video, "audio": audio}
    format_ = {".ts": "mpegts", ".mkv": "matroska"}.get(target.suffix)
    with av.open(str(source)) as old, av.open(str(target), "w", format=format_) as new:
        streams = {stream.index: new.add_stream_from_template(stream) for stream in old.streams}
        count = {"video": -1, "audio": -1}
        for packet in old.demux():
            if not packet.size or packet.pts is None:
                continue
            kind = packet.stream.type
            count[kind] += 1
            shift = shifts[kind]
            ticks = int((shift(count[kind]) if shift else 0.0) / packet.time_base)
            copy = av.Packet(replace(kind, count[kind]) or bytes(packet))
            # Matroska does not say when the first frames are decoded
            decoded = packet.dts if packet.dts is not None else packet.pts - round(0.1 / packet.time_base)
            copy.pts, copy.dts, copy.duration = packet.pts + ticks, decoded + ticks, packet.duration
            copy.time_base, copy.is_keyframe = packet.time_base, packet.is_keyframe
            copy.stream = streams[packet.stream.index]
            new.mux(copy)
    return target


def damage(sources: Sequence[Path], folder: Path, seed: int) -> Path:
    """A damaged copy of one of the videos, the same for a seed every time."""
    rng = random.Random(seed)
    source = sources[seed % len(sources)]
    way = (_flip, _restamp, _truncate, _splice)[seed // len(sources) % 4]
    target = folder / f"{seed:04d}{source.suffix}"
    way(rng, source, target, sources)
    return target


def _flip(rng: random.Random, source: Path, target: Path, sources: Sequence[Path]) -> None:
    data = bytearray(source.read_bytes())
    reach = rng.choice((len(data), min(2048, len(data))))  # most is in headers
    first = rng.choice((0, len(data) - reach))
    for _ in range(rng.choice((1, 4, 32, 200))):
        position = first + rng.randrange(reach)
        data[position] ^= 1 << rng.randrange(8)
    target.write_bytes(data)


def _restamp(rng: random.Random, source: Path, target: Path, sources: Sequence[Path]) -> None:
    sizes = (-30.0, -2.0, -0.3, 0.3, 2.0, 30.0, 600.0, 20 * 3600.0)

    def moved(packets: int) -> Shift:
        size, first = rng.choice(sizes), rng.randrange(packets)
        only = rng.choice((True, False))
        drift = rng.choice((0.0, 0.0, -0.5, 0.5)) / RATE
        return lambda number: (size if number == first or (not only and number > first) else 0.0) + drift * number

    which = rng.choice(("video", "audio", "both"))
    video = moved(FRAMES) if which != "audio" else None
    audio = moved(2 * FRAMES) if which != "video" else None
    try:
        remux(source, target, video, audio)
    except (av.FFmpegError, ValueError, OverflowError):  # the container has no place for such stamps
        target.write_bytes(source.read_bytes()[: rng.randrange(source.stat().st_size)])


def _truncate(rng: random.Random, source: Path, target: Path, sources: Sequence[Path]) -> None:
    data = source.read_bytes()
    end = rng.randrange(len(data))
    target.write_bytes(rng.choice((data[:end], data[:end] + bytes(len(data) - end), data[end:])))


def _splice(rng: random.Random, source: Path, target: Path, sources: Sequence[Path]) -> None:
    data, other = source.read_bytes(), rng.choice(sources).read_bytes()
    first, last = sorted(rng.randrange(len(data)) for _ in range(2))
    target.write_bytes(
        rng.choice(
            (
                data + data,
                data + other,
                data[:first] + data[last:],
                data[:first] + other[first:last] + data[last:],
                data[:last] + data[first:],
            )
        )
    )
