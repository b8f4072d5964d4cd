"""Times of frames and audio on a video's own clock, whatever its rate and container; the log-mel of the audio."""

import math
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import torch
from torchaudio.transforms import MelSpectrogram

from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio, read_times
from abaw_expr.data.media.logmel import HOP, MEL_BANDS, STEP, log_mel, step_at
from abaw_expr.data.store.store import open_store
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.tasks.task import EXPR
from tests.helpers.damage import remux, write_test_video
from tests.helpers.tiny import add_validation, annotate, run, video_file

RATES = tuple(map(Fraction, ("15/2", "309/20", "24000/1001", "30000/1001", "30")))
SECONDS = 45
"""Long enough for 30 instead of 29.97 frames a second to be wrong by more than half a frame at the end."""
CLOCK = Fraction(1, SAMPLE_RATE)


def flash_frame(rate: Fraction) -> int:
    """The frame that flashes, where the audio clicks, shortly before the end."""
    return round((SECONDS - 2) * rate)


@pytest.fixture(scope="module")
def claps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A release with a video of each rate: one white frame, and a click at the same moment."""
    root = tmp_path_factory.mktemp("claps")
    add_validation(root)
    for rate in RATES:
        count, flash_at = round(SECONDS * rate), flash_frame(rate)
        black, white = np.zeros((32, 32, 3), np.uint8), np.full((32, 32, 3), 255, np.uint8)
        audio = np.zeros(SECONDS * SAMPLE_RATE, np.int16)
        start = round(flash_at / rate * SAMPLE_RATE)
        audio[start : start + 80] = 30_000
        name = f"{float(rate):.3f}"
        write_video(root / f"batch1/{name}.mp4", rate, (white if i == flash_at else black for i in range(count)), audio)
        annotate(root, name, [0] * count)
    return root


def flash(path: Path) -> int:
    """The brightest frame, in the order they are shown."""
    with av.open(str(path)) as container:
        return int(np.argmax([frame.to_ndarray(format="gray").mean() for frame in container.decode(video=0)]))


@pytest.mark.parametrize("rate", RATES)
def test_times_are_those_of_the_rate(claps: Path, rate: Fraction) -> None:
    times = read_times(claps / f"batch1/{float(rate):.3f}.mp4")
    assert times == pytest.approx(np.arange(round(SECONDS * rate)) / float(rate), abs=1e-9)


@pytest.mark.slow
@pytest.mark.parametrize("rate", RATES)
def test_flash_and_click_agree_within_half_a_frame(claps: Path, rate: Fraction) -> None:
    path = claps / f"batch1/{float(rate):.3f}.mp4"
    seen = read_times(path)[flash(path)]
    audio = read_audio(path)
    assert audio is not None
    click = np.abs(audio.samples).argmax() / SAMPLE_RATE
    assert seen == pytest.approx(flash_frame(rate) / rate, abs=1e-6)
    assert click == pytest.approx(seen, abs=0.5 / float(rate))


@pytest.mark.slow
def test_flash_and_click_agree_in_the_store(claps: Path, tmp_path: Path) -> None:
    run(claps, tmp_path)
    stored = {video.name: video for video in open_store(tmp_path, EXPR).videos}
    for rate in RATES:
        video = stored[f"{float(rate):.3f}"]
        seen = video.frames.time[flash(claps / f"batch1/{video.name}.mp4")]
        assert video.audio is not None
        click = int(video.audio.astype(np.float32).mean(axis=1).argmax()) * STEP
        assert click == pytest.approx(seen, abs=0.5 / float(rate))


def write_frames(path: Path, stamps: Sequence[int], base: Fraction = Fraction(1, 1000)) -> Path:
    """A video without audio whose frames are shown at these ticks of the clock."""
    with av.open(str(path), "w") as out:
        stream = out.add_stream("libx264", rate=Fraction(25), options={"preset": "veryfast", "bf": "2"})
        stream.width = stream.height = 64
        stream.time_base = stream.codec_context.time_base = base
        for stamp in stamps:
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), stamp % 200, np.uint8), format="rgb24")
            frame.pts, frame.time_base = stamp, base
            out.mux(stream.encode(frame))
        out.mux(stream.encode())
    return path


def test_variable_frame_rate_keeps_its_times(tmp_path: Path) -> None:
    """B-frames are stored out of order; their times must not be."""
    stamps = [0, 40, 55, 130, 131, 300, 333, 366, 1000, 1040, 1500, 2750]
    path = write_frames(tmp_path / "a.mp4", stamps)
    with av.open(str(path)) as container:
        stored = [packet.pts for packet in container.demux(video=0) if packet.size]
    assert stored != sorted(stored, key=lambda stamp: stamp or 0)
    assert read_times(path) == pytest.approx(np.array(stamps) / 1000, abs=1e-6)


def test_times_count_from_the_first_frame(tmp_path: Path) -> None:
    path = write_frames(tmp_path / "a.mp4", [700, 740, 800])
    assert read_times(path) == pytest.approx([0, 0.04, 0.1], abs=1e-6)


def write_shifted(path: Path, video_start: float, audio_start: float) -> Path:
    """Two seconds of frames and of audio that begin at these seconds; the audio clicks 1 s after its beginning."""
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=Fraction(25), options={"preset": "ultrafast"})
        stream = out.add_stream("aac", rate=SAMPLE_RATE, layout="mono")
        video.width = video.height = 64
        for i in range(50):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i + round(25 * video_start), Fraction(1, 25)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        samples = np.zeros((1, 2 * SAMPLE_RATE), np.int16)
        samples[0, SAMPLE_RATE : SAMPLE_RATE + 80] = 30_000
        audio = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        audio.sample_rate, audio.pts, audio.time_base = SAMPLE_RATE, round(SAMPLE_RATE * audio_start), CLOCK
        out.mux(stream.encode(audio))
        out.mux(stream.encode())
    return path


@pytest.mark.parametrize(("video_start", "audio_start"), [(0, 0), (0, 0.6), (0.6, 0), (0.4, 1)])
def test_audio_is_on_the_clock_of_the_frames(tmp_path: Path, video_start: float, audio_start: float) -> None:
    path = write_shifted(tmp_path / "a.mp4", video_start, audio_start)
    audio = read_audio(path)
    assert audio is not None
    late = audio_start - video_start
    assert np.abs(audio.samples).argmax() / SAMPLE_RATE == pytest.approx(1 + late, abs=0.01)
    assert len(audio.samples) / SAMPLE_RATE == pytest.approx(2 + late, abs=0.07)  # AAC comes in blocks of 0.064 s
    if late > 0:
        assert not audio.samples[: int(late * SAMPLE_RATE) - 1100].any()


def test_audio_that_ends_early_or_is_absent(tmp_path: Path) -> None:
    early = read_audio(video_file(tmp_path, "early", frames=40, audio=0.5))
    assert early is not None
    assert len(early.samples) / SAMPLE_RATE == pytest.approx(2, abs=0.07)
    assert early.problem is None
    assert read_audio(video_file(tmp_path, "none", audio=0)) is None


def mp3(layout: str, rate: int, tone: float) -> Iterator[tuple[bytes, float]]:
    """Frames of one second of a tone, each with its length in seconds."""
    encoder = av.CodecContext.create("libmp3lame", "w")
    assert isinstance(encoder, av.AudioCodecContext)
    encoder.sample_rate, encoder.layout, encoder.format = rate, layout, "s16p"
    wave = (9000 * np.sin(2 * np.pi * tone * np.arange(rate) / rate)).astype(np.int16)
    channels = encoder.layout.nb_channels
    audio = av.AudioFrame.from_ndarray(np.repeat(wave[None], channels, axis=0), format="s16p", layout=layout)
    audio.sample_rate, audio.pts, audio.time_base = rate, 0, Fraction(1, rate)
    for packet in [*encoder.encode(audio), *encoder.encode()]:
        yield bytes(packet), (1152 if rate > 24_000 else 576) / rate


def write_mp3_video(path: Path, tones: Sequence[tuple[str, int, float]], title: str = "", pause: float = 0) -> Path:
    """Frames as MPEG-4, 10 a second, and MP3: (layout, samples a second, tone in Hz) of each second, and pauses."""
    with av.open(str(path), "w") as out:
        out.metadata["title"] = title
        video = out.add_stream("mpeg4", rate=Fraction(10))
        stream = out.add_stream("libmp3lame", rate=tones[0][1], layout=tones[0][0])
        video.width = video.height = 64
        for i in range(10 * len(tones)):
            frame = av.VideoFrame.from_ndarray(np.full((64, 64, 3), i, np.uint8), format="rgb24")
            frame.pts, frame.time_base = i, Fraction(1, 10)
            out.mux(video.encode(frame))
        out.mux(video.encode())
        at = 0.0
        for audio in tones:
            for data, seconds in mp3(*audio):
                packet = av.Packet(data)
                packet.stream, packet.time_base = stream, CLOCK
                packet.pts = packet.dts = round(at * SAMPLE_RATE)
                out.mux(packet)
                at += seconds
            at += pause
    return path


def pitch(samples: np.ndarray) -> float:
    """The strongest frequency, Hz."""
    return float(np.abs(np.fft.rfft(samples)).argmax() * SAMPLE_RATE / len(samples))


def test_avi_reads(tmp_path: Path) -> None:
    path = write_mp3_video(tmp_path / "a.avi", [("stereo", 44_100, 440), ("stereo", 44_100, 440)])
    assert read_times(path) == pytest.approx(np.arange(20) / 10, abs=1e-6)
    audio = read_audio(path)
    assert audio is not None
    assert len(audio.samples) / SAMPLE_RATE == pytest.approx(2, abs=0.15)  # the encoder pads each second
    assert pitch(audio.samples) == pytest.approx(440, abs=2)


@pytest.mark.parametrize("second", [("mono", SAMPLE_RATE, 1000), ("stereo", SAMPLE_RATE, 1000), ("mono", 22_050, 1000)])
@pytest.mark.parametrize("first", [("mono", SAMPLE_RATE, 500), ("stereo", SAMPLE_RATE, 500)])
def test_audio_may_change_its_form_on_the_way(
    tmp_path: Path, first: tuple[str, int, float], second: tuple[str, int, float]
) -> None:
    audio = read_audio(write_mp3_video(tmp_path / "a.mp4", [first, second]))
    assert audio is not None
    assert audio.problem is None
    quarter = SAMPLE_RATE // 4
    assert pitch(audio.samples[quarter : 3 * quarter]) == pytest.approx(500, abs=5)
    assert pitch(audio.samples[6 * quarter : 7 * quarter]) == pytest.approx(1000, abs=5)


def test_gap_in_the_audio_is_silence(tmp_path: Path) -> None:
    """Nothing is stored for the pause; what comes after it must not move up."""
    tones = [("mono", SAMPLE_RATE, 500.0), ("mono", SAMPLE_RATE, 1000.0)]
    whole = read_audio(write_mp3_video(tmp_path / "whole.mp4", tones))
    paused = read_audio(write_mp3_video(tmp_path / "paused.mp4", tones, pause=0.75))
    assert whole is not None
    assert paused is not None
    assert len(paused.samples) - len(whole.samples) == pytest.approx(0.75 * SAMPLE_RATE, abs=2)
    assert not paused.samples[int(1.2 * SAMPLE_RATE) : int(1.8 * SAMPLE_RATE)].any()
    end = SAMPLE_RATE // 2
    assert np.abs(paused.samples[-end:] - whole.samples[-end:]).max() < 0.01


def test_title_that_is_not_utf_8_does_not_matter(tmp_path: Path) -> None:
    path = write_mp3_video(tmp_path / "a.avi", [("mono", SAMPLE_RATE, 440)], title="Cafe in Koeln")
    path.write_bytes(path.read_bytes().replace(b"Cafe in Koeln", b"Caf\xe9 in K\xf6ln!"))
    assert len(read_times(path)) == 10
    assert read_audio(path) is not None


def test_audio_ends_with_its_damage_and_is_reported(tmp_path: Path) -> None:
    path = video_file(tmp_path, "a", frames=40)
    with av.open(str(path)) as container:
        packets = [(packet.pos, packet.size) for packet in container.demux(audio=0) if packet.size]
    good = len(packets) // 2
    data = bytearray(path.read_bytes())
    for position, size in packets[good:]:
        assert position is not None
        data[position : position + size] = b"\xff" * size
    whole = read_audio(path)
    path.write_bytes(data)
    audio = read_audio(path)
    assert whole is not None
    assert audio is not None
    assert audio.problem is not None
    lost = float(audio.problem.partition(" of ")[0])
    assert lost == pytest.approx((len(packets) - good) * 1024 / SAMPLE_RATE, abs=0.064)
    assert len(audio.samples) == pytest.approx(good * 1024, abs=2048)  # the decoder is a block behind
    kept = min(len(audio.samples), (good - 2) * 1024)
    assert np.array_equal(audio.samples[:kept], whole.samples[:kept])


def test_a_lost_packet_that_says_it_is_long_is_as_long_as_the_others(tmp_path: Path) -> None:
    whole = write_test_video(tmp_path / "a.ogg", None, "libopus")
    with av.open(str(whole)) as container:
        packets = [(packet.size, packet.duration) for packet in container.demux(audio=0) if packet.size]
    middle = len(packets) // 2
    # the first byte says 2.5 s in 63 frames of 40 ms, which do not fit (RFC 6716, 3.1)
    bad = b"\x13\x3f" + bytes(packets[middle][0] - 2)
    lost = remux(whole, tmp_path / "b.ogg", replace=lambda kind, number: bad if number == middle else None)
    tones = [read_audio(path) for path in (whole, lost)]
    assert tones[0] is not None
    assert tones[1] is not None
    assert tones[1].problem is not None
    assert tones[1].problem.startswith("0.02 of 2.0")
    assert len(tones[1].samples) == len(tones[0].samples)
    later = slice(SAMPLE_RATE * 3 // 2, SAMPLE_RATE * 19 // 10)
    assert np.abs(tones[1].samples[later] - tones[0].samples[later]).max() < 0.05


@pytest.mark.parametrize("fraction", [0, 0.01, 0.5])
def test_truncated_mp4_is_an_error(tmp_path: Path, fraction: float) -> None:
    path = video_file(tmp_path, "a")
    data = path.read_bytes()
    path.write_bytes(data[: math.ceil(len(data) * fraction)])
    with pytest.raises(av.FFmpegError):
        read_times(path)


def noise(samples: int) -> np.ndarray:
    return np.random.default_rng(0).standard_normal(samples).astype(np.float32) * 0.1


@pytest.mark.parametrize("samples", [1, 255, 256, 257, 16_000, 1_100_000])
def test_log_mel_is_the_formula(samples: int) -> None:
    """1,100,000 samples are transformed in two pieces: the seam must not show."""
    wave = noise(samples)
    # The textbook transform, zeros beyond the ends: 1024-point Hann window, hop 256, 64 bands from 60 to 7600 Hz
    transform = MelSpectrogram(
        16_000, n_fft=1024, hop_length=256, f_min=60, f_max=7600, n_mels=64, center=True, pad_mode="constant"
    )
    expected = torch.log(transform(torch.from_numpy(wave)) + 1e-6).T.numpy()
    found = log_mel(wave)
    assert found.dtype == np.float16
    assert found.shape == expected.shape == (1 + samples // HOP, MEL_BANDS)
    assert np.abs(found - expected).max() <= 2**-8  # half a float16 step between 8 and 16, and the rounding of sums


def test_log_mel_of_silence_is_its_floor() -> None:
    assert log_mel(np.zeros(1000, np.float32)) == pytest.approx(math.log(1e-6), abs=2**-8)


@pytest.mark.parametrize("hertz", [200.0, 1000.0, 5000.0])
def test_tone_is_loudest_in_its_band(hertz: float) -> None:
    wave = np.sin(2 * np.pi * hertz * np.arange(8_000) / SAMPLE_RATE).astype(np.float32)
    mel = 2595 * np.log10(1 + np.array([60.0, 7600.0, hertz]) / 700)
    band = (mel[2] - mel[0]) / (mel[1] - mel[0]) * (MEL_BANDS + 1) - 1  # band b is centred on edge b + 1 of 66
    loudest = log_mel(wave)[5:-5].argmax(axis=1)
    assert np.abs(loudest - band).max() <= 1


def test_step_is_the_nearest_in_time() -> None:
    assert [step_at(time) for time in (0, 0.0079, 0.0081, 1, 60)] == [0, 0, 1, 62, 3750]
