"""Videos damaged at random: nothing ends a command, memory stays small, and clocks and numbers agree.

`python -m tests.benchmarks.damaged_videos` does it with 500, both commands, and weighs them.
"""

import resource
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest

from abaw_expr.data.media.decode import MARGIN, SAMPLE_RATE, read_audio, read_clock
from abaw_expr.data.release.reader import Annotation, Recording, Video
from abaw_expr.data.store.recording import prepare_recording
from abaw_expr.data.store.store import read_recording
from abaw_expr.faces.frames import read_frames
from abaw_expr.tasks.task import EXPR
from tests.helpers.damage import FORMS, damage, remux, write_test_video, write_videos

VIDEOS = 48
FIRST = 10_000
"""Seed of the first."""
MOST = 4 * 2**30
"""Bytes of address space in which they are all prepared: the libraries' own and little more."""


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    return write_videos(tmp_path_factory.mktemp("films"))


@pytest.mark.slow
def test_none_ends_preparing_and_memory_stays_small(videos: list[Path], tmp_path: Path) -> None:
    rows = [f"{damage(videos, tmp_path, FIRST + i)},happy,{i},train\n" for i in range(VIDEOS)]
    (tmp_path / "clips.csv").write_text("path,label,subject,split\n" + "".join(rows))
    words = ["--kind", "clips", "--release", str(tmp_path / "clips.csv"), "--store", str(tmp_path / "store")]
    done = subprocess.run(
        [sys.executable, "-m", "abaw_expr", "prepare", *words, "--workers", "1", "--skip-broken"],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (MOST, MOST)),
    )
    assert done.returncode == 0, done.stderr
    left = len(list((tmp_path / "store/recordings").iterdir()))
    assert left == VIDEOS


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(FIRST, FIRST + VIDEOS // 2))
def test_frames_are_numbered_as_they_are_timed(videos: list[Path], tmp_path: Path, seed: int) -> None:
    path = damage(videos, tmp_path, seed)
    folder = tmp_path / "recording"
    prepare_recording(Recording("a", path, (Video("a", {EXPR: Annotation("train")}, ()),)), folder)
    entry = read_recording(folder)
    if not entry["videos"]:
        assert entry["problems"]
        return
    clock = read_clock(path)
    if not len(clock.times):
        return
    assert clock.times[0] == 0
    assert (np.diff(clock.times) >= 0).all()
    numbers = [number for number, _ in read_frames(path)]
    assert numbers == sorted(set(numbers))
    assert len(numbers) <= len(clock.times) + 2  # a packet may hold two frames after damage
    audio = read_audio(path, clock)
    assert audio is None or len(audio.samples) <= (clock.end + MARGIN) * SAMPLE_RATE + 1


@pytest.mark.parametrize("name", FORMS)
def test_a_whole_video_is_whole(videos: list[Path], name: str) -> None:
    (path,) = (path for path in videos if path.name == name)
    clock = read_clock(path)
    assert np.allclose(np.diff(clock.times), 0.04, atol=0.001) or path.suffix == ".avi"
    assert (clock.problem, clock.cut, len(clock.times)) == (None, None, 50)
    assert [number for number, _ in read_frames(path)] == list(range(1, 51))
    audio = read_audio(path, clock)
    assert audio is not None
    assert (audio.problem, audio.stamp_problem, audio.cut) == (None, None, False)
    assert len(audio.samples) / SAMPLE_RATE == pytest.approx(2, abs=0.06)


@pytest.mark.parametrize(("seconds", "end"), [(100.0, 91.96), (2.0, 1.96)])
def test_a_frame_may_be_shown_while_there_is_something_to_hear(tmp_path: Path, seconds: float, end: float) -> None:
    """Halfway the video stands still for 90 s, or its clock jumps."""
    path = write_test_video(tmp_path / "a.mkv", "mpeg4", None)
    moved = remux(path, tmp_path / "moved.mkv", video=lambda number: 90.0 if number >= 25 else 0.0)
    voice = write_test_video(tmp_path / "b.mkv", None, "flac", seconds, 8_000)
    both = tmp_path / "both.mkv"
    with av.open(str(moved)) as first, av.open(str(voice)) as second, av.open(str(both), "w") as out:
        sources = [(one, out.add_stream_from_template(one.streams[0])) for one in (first, second)]
        for source, stream in sources:
            for packet in source.demux():
                if packet.size:
                    packet.stream = stream
                    out.mux(packet)
    clock = read_clock(both)
    assert clock.end == pytest.approx(end, abs=0.01)
    assert (clock.problem is None) == (end > 2)


def test_hours_of_audio_are_not_read_for_a_few_frames(tmp_path: Path) -> None:
    path = write_test_video(tmp_path / "a.mkv", "mpeg4", "flac", 0.4)
    long = write_test_video(tmp_path / "long.wav", None, "pcm_s16le", 120.0, 8_000)
    audio = read_audio(long, read_clock(path))
    assert audio is not None
    assert audio.cut
    assert len(audio.samples) == pytest.approx((0.36 + MARGIN) * SAMPLE_RATE, abs=1)
