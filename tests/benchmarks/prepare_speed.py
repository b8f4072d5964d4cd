"""How fast a release becomes a store, how fast crops are read back, and how both grow with the number of crops.

    python -m tests.benchmarks.prepare_speed [--most 1000000]

About 15 minutes on 2 cores and 7 GB of disk, gone afterwards. One process and one thread each, files from the page
cache, a crop of about 5 KB. Both sides take turns. Seconds are the processor's, in the kernel too, so that figures are
those of a core whatever else the machine does; waiting for a disk is not in them. Exit status 1 when short.

- packing: all of `prepare_recording` but film and sound, 20,000 files, against Pillow, which opens each file to see
  what it is, and the `tarfile` module. Required: 15,000 crops a second.
- reading: `StoredVideo.jpeg` in random order over 20 videos and 100,000 crops, against a file a picture by
  `Path.read_bytes`, by `open` and `read`, and by bare system calls. Required: 5 times the first two.
- sound: an MP4 with 5 minutes of AAC (44.1 kHz, stereo) to log-mel, against the same decoding and torchaudio's
  `MelSpectrogram` and `AmplitudeToDB` for each window of 3 s, none of which overlap. Required: 150 times real time.
- growth: `prepare` of 10,000 crops and more, 250 s of sound every 2,500, in processes of their own. Here crops are
  names of a few files (hard links). Required: ten times the crops take at most 1.2 times the seconds a crop, and at
  most 1.1 times the memory.
"""

import io
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
import tyro
from PIL import Image
from torchaudio.transforms import AmplitudeToDB, MelSpectrogram

from abaw_expr.commands import console
from abaw_expr.data.media.audio_check import check_audio
from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio
from abaw_expr.data.media.logmel import log_mel
from abaw_expr.data.media.voice import voice_probabilities
from abaw_expr.data.release.reader import Annotation, Recording, Video
from abaw_expr.data.store.recording import prepare_recording
from abaw_expr.data.store.store import RECORDINGS, StoredVideo, read_recording
from abaw_expr.files import file_digest
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from tests.benchmarks.common import Race, judge, print_facts, race
from tests.helpers.defects import CROPS, write_grey_video, write_whole

LEAST_PACKED, LEAST_READ, LEAST_HEARD = 15_000, 5.0, 150.0
MOST_SLOWER, MOST_MEMORY = 1.2, 1.1
VIDEOS, FRAMES = 20, 5_000
PACKED = 4
"""Of the videos, how many take part in the race of packing; all in that of reading."""
SECONDS = 300
WINDOW = 3 * SAMPLE_RATE
TURNS = 3
GROWTH_FRAMES = 2_500


def photograph() -> bytes:
    """A crop with as many bytes as one of a real face has."""
    coarse = np.random.default_rng(0).integers(0, 255, (14, 14, 3), np.uint8)
    file = io.BytesIO()
    Image.fromarray(coarse).resize((112, 112), Image.Resampling.BICUBIC).save(file, "JPEG", quality=90)
    return file.getvalue()


def pack_ours(folder: Path, short_video: Path, out: Path) -> None:
    """All that preparing a recording is, but for film and sound, which it has next to none of."""
    video = Video(folder.name, {EXPR: Annotation("train", np.zeros(FRAMES, np.int8))}, (folder,))
    prepare_recording(Recording(folder.name, short_video, (video,)), out / folder.name)


def pack_theirs(folder: Path, out: Path) -> None:
    """The same by the libraries that come to mind."""
    path = out / "theirs.tar"
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as tar:
        for name in sorted(os.listdir(folder)):
            data = (folder / name).read_bytes()
            with Image.open(io.BytesIO(data)) as picture:
                assert picture.size == (112, 112)
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            tar.addfile(entry, io.BytesIO(data))
    file_digest(path)
    path.unlink()


def race_packing(folders: Sequence[Path], short_video: Path, out: Path) -> Race:
    """Both pack every folder of crops into a tar and digest it."""

    def theirs() -> None:
        for folder in folders:
            pack_theirs(folder, out)

    def ours() -> None:
        for folder in folders:
            shutil.rmtree(out / folder.name, ignore_errors=True)
            pack_ours(folder, short_video, out)
            assert read_recording(out / folder.name)["videos"][folder.name]["crops"] == FRAMES

    return race(theirs, ours, TURNS, time.process_time)


def races_reading(crops: Path, store: Path) -> dict[str, Race]:
    """The same crops in the same random order: files, each way to read them, against the store."""
    names = sorted(os.listdir(crops))
    videos = [StoredVideo(name, "test", store / name, None, None) for name in names]
    draws = [divmod(place, FRAMES) for place in np.random.default_rng(0).permutation(len(names) * FRAMES).tolist()]
    paths = [f"{crops}/{names[video]}/{crop_name(row + 1)}" for video, row in draws]
    whole_paths = [Path(path) for path in paths]

    def by_path() -> None:
        for path in whole_paths:
            path.read_bytes()

    def by_open() -> None:
        for path in paths:
            with open(path, "rb") as file:
                file.read()

    def by_calls() -> None:
        for path in paths:
            descriptor = os.open(path, os.O_RDONLY)
            os.read(descriptor, 2**16)
            os.close(descriptor)

    def ours() -> None:
        for video, row in draws:
            videos[video].jpeg(row)

    (video, row), path = draws[0], whole_paths[0]
    assert videos[video].jpeg(row) == path.read_bytes()
    ways = {"Path.read_bytes": by_path, "open and read": by_open, "system calls": by_calls}
    return {name: race(way, ours, TURNS, time.process_time) for name, way in ways.items()}


def write_stereo(path: Path) -> None:
    """A film with the sound that films have."""
    rate = 44_100
    with av.open(str(path), "w") as out:
        video = out.add_stream("libx264", rate=Fraction(30), options={"preset": "ultrafast"})
        voice = out.add_stream("aac", rate=rate, layout="stereo")
        video.width = video.height = 64
        for number in range(30 * SECONDS):
            picture = av.VideoFrame.from_ndarray(np.full((64, 64, 3), number % 250, np.uint8), format="rgb24")
            picture.pts, picture.time_base = number, Fraction(1, 30)
            out.mux(video.encode(picture))
        out.mux(video.encode())
        samples = np.random.default_rng(0).integers(-9_000, 9_000, (1, 2 * rate * SECONDS)).astype(np.int16)
        audio = av.AudioFrame.from_ndarray(samples, format="s16", layout="stereo")
        audio.sample_rate, audio.pts, audio.time_base = rate, 0, Fraction(1, rate)
        out.mux(voice.encode(audio))
        out.mux(voice.encode())


def race_sound(path: Path) -> Race:
    """From the file to decibels a window, and to the whole log-mel with the level and the voice."""
    mel, decibels = MelSpectrogram(SAMPLE_RATE, n_fft=1024, hop_length=256, n_mels=64), AmplitudeToDB()

    def samples() -> np.ndarray:
        audio = read_audio(path)
        assert audio is not None
        return audio.samples

    def windows() -> None:
        heard = torch.from_numpy(samples())
        for start in range(0, len(heard) - WINDOW + 1, WINDOW):
            decibels(mel(heard[start : start + WINDOW]))

    def ours() -> None:
        heard = samples()
        check_audio(heard, voice_probabilities(heard))
        log_mel(heard)

    return race(windows, ours, TURNS, time.process_time)


def measure_growth(root: Path, counts: list[int]) -> list[tuple[int, float, float]]:
    """(crops, processor seconds, megabytes at the peak) of whole `prepare` commands with one process."""
    rows = []
    data = photograph()
    for count in counts:
        release, store = root / "release", root / "store"
        write_whole(release, [f"{i:04d}-10-64x64" for i in range(count // GROWTH_FRAMES)], GROWTH_FRAMES, data)
        command = [sys.executable, "-m", "abaw_expr", "prepare", "--release", str(release), "--store", str(store)]
        process = subprocess.Popen([*command, "--workers", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        rows.append((count, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024 / 1e6))
        assert status == 0
        for folder in (release, store):
            shutil.rmtree(folder)
    return rows


def benchmark(most: int = 1_000_000) -> int:
    """Runs all four, prints the tables and the verdict, and returns the exit status.

    Args:
        most: Crops of the largest release, at least 1,000,000; a tenth and a hundredth of it are the others.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as made:
        root = Path(made)
        names = [f"{number:02d}-10-64x64" for number in range(VIDEOS)]
        write_whole(root / "files", names, FRAMES, photograph(), most_links=1)
        crops, store, short_video = root / "files" / CROPS, root / RECORDINGS, root / "short.mp4"
        write_grey_video(short_video, 5, None)
        store.mkdir()
        folders = sorted(crops.iterdir())
        packing = race_packing(folders[:PACKED], short_video, store)
        for folder in folders[PACKED:]:
            pack_ours(folder, short_video, store)
        reading = races_reading(crops, store)
        shutil.rmtree(root / "files")
        shutil.rmtree(store)
        write_stereo(root / "stereo.mp4")
        audio = race_sound(root / "stereo.mp4")
        growth = measure_growth(root, [most // 100, most // 10, most])
    print_facts()
    return report(packing, reading, audio, growth)


def report(packing: Race, reading: dict[str, Race], audio: Race, growth: list[tuple[int, float, float]]) -> int:
    """Prints the tables and the verdict."""
    rows: list[tuple[str, Callable[[float], float], Race]] = [
        ("packing, crops a second", lambda seconds: PACKED * FRAMES / seconds, packing),
        *(
            (f"reading against {way}, crops a second", lambda s: VIDEOS * FRAMES / s, raced)
            for way, raced in reading.items()
        ),
        ("sound, times real time", lambda seconds: SECONDS / seconds, audio),
    ]
    speeds = [
        (name, round(speed(raced.baseline)), round(speed(raced.ours)), raced.ratio) for name, speed, raced in rows
    ]
    console.table("One process, one thread", ("", "baseline", "ours", "ratio"), speeds)
    console.table(
        "Growth", ("crops", "processor seconds", "MB at the peak"), [(c, round(s, 1), round(m)) for c, s, m in growth]
    )
    (few, first, least), (some, second, _), (many, third, peak) = growth
    slower = (third - second) / (many - some) / ((second - first) / (some - few))
    packed, heard = PACKED * FRAMES / packing.ours, SECONDS / audio.ours
    return judge(
        (packed >= LEAST_PACKED, f"{packed:,.0f} crops packed a second, required {LEAST_PACKED:,}"),
        *(
            (raced.ratio >= LEAST_READ, f"crops read at {raced.ratio:.1f} times {way}, required {LEAST_READ:g}")
            for way, raced in reading.items()
            if way != "system calls"
        ),
        (heard >= LEAST_HEARD, f"sound at {heard:.0f} times real time, required {LEAST_HEARD:g}"),
        (slower <= MOST_SLOWER, f"{slower:.2f} times the seconds a crop at {many:,}, at most {MOST_SLOWER:g}"),
        (peak / least <= MOST_MEMORY, f"{peak / least:.2f} times the memory at {many:,}, at most {MOST_MEMORY:g}"),
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
