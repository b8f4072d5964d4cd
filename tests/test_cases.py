"""Faults of real files, each as small as it goes: what every case must give.

The cases are written here, and where a folder of them lies beside the checkout they are made by its scripts too.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio, read_times
from abaw_expr.data.synthetic import drawing
from abaw_expr.faces.folders import CROPS
from abaw_expr.faces.frames import read_frames, upright
from abaw_expr.outputs.table import branch_columns
from abaw_expr.tasks.task import EXPR
from tests.helpers.cases import CASES, FRAMES
from tests.helpers.paths import ROOT
from tests.helpers.tiny import ANNOTATIONS
from tests.training.test_predict import make_run

SHARED = ROOT.parent / "shared/cases/files"
VAL = f"{ANNOTATIONS}/Validation_Set"
Make = Callable[[str], Path]


@pytest.fixture(params=["ours", pytest.param("shared", marks=pytest.mark.skipif(not SHARED.is_dir(), reason="none"))])
def make(request: pytest.FixtureRequest, tmp_path: Path) -> Make:
    """Makes the files of a case in a new folder, the working one from then on."""

    def made(case: str) -> Path:
        folder = tmp_path / case
        if request.param == "ours":
            folder.mkdir()
            CASES[case](folder)
        else:
            # It was written for an earlier layout of this project.
            before, now = "abaw_expr.data.drawing import film", f"{drawing.__name__} import draw_video"
            script = (SHARED / "film.py").read_text().replace(before, now)
            script = script.replace("np.random.default_rng(1)):", "np.random.default_rng(1)).frames:")
            (tmp_path / "film.py").write_text(script)
            shutil.copytree(SHARED / case, folder)
            environment = os.environ | {"PYTHONPATH": str(ROOT)}
            subprocess.run([sys.executable, "make.py"], cwd=folder, env=environment, check=True, capture_output=True)
        return folder

    return made


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("cases") / "run").root


def abaw(*words: object) -> int:
    return main([str(word) for word in words])


def infer(video_file: Path, run: Path, *more: str) -> int:
    return abaw("infer", video_file, "--run", run, "--out", video_file.parent / "out", "--accelerator", "cpu", *more)


def prepared(folder: Path, *words: str) -> tuple[dict[str, dict[str, float]], dict[str, list[str]]]:
    """Prepares the clips or the release of a folder: its recordings, and the problems told, by video."""
    clips = ["--kind", "clips", "--release", folder / "clips.csv"]
    source = clips if (folder / "clips.csv").exists() else ["--release", folder / "release"]
    assert abaw("prepare", *source, "--store", folder / "store", "--workers", 1, *words) == 0
    report = json.loads((folder / "store/report.json").read_bytes())
    reported: dict[str, list[str]] = {}
    for problem in (one for one in report["problems"] if one["kind"] != "little voice"):  # the cases' audio is noise
        reported.setdefault(problem["video"], []).append(f"{problem['kind']}: {problem['detail']}")
    return report["recordings"], reported


def seconds(recordings: dict[str, dict[str, float]]) -> dict[str, float]:
    return {name: recording["sound_seconds"] for name, recording in recordings.items()}


def samples(video_file: Path) -> np.ndarray:
    audio = read_audio(video_file)
    assert audio is not None
    return audio.samples


def said(capsys: pytest.CaptureFixture[str]) -> str:
    read = capsys.readouterr()
    return " ".join((read.out + read.err).split())


def test_every_case_is_here() -> None:
    theirs = {path.name for path in SHARED.glob("*/")} if SHARED.is_dir() else set(CASES)
    assert theirs <= set(CASES)


@pytest.mark.slow
def test_one_bad_audio_packet(make: Make, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The bad packet alone is silence, and the rest keeps its time."""
    folder = make("01-one-bad-sound-packet")
    recordings, reported = prepared(folder)
    assert seconds(recordings) == pytest.approx(dict.fromkeys(("whole", "first", "middle"), 10.0), abs=0.05)
    for name in ("first", "middle"):
        (damaged,) = (line for line in reported[name] if line.startswith("damaged audio"))
        assert float(damaged.removeprefix("damaged audio: ").partition(" of ")[0]) <= 0.06
    assert not any("damaged" in line for line in reported["whole"])
    whole, middle = samples(folder / "whole.avi"), samples(folder / "middle.avi")
    packet = slice(round(2.62 * SAMPLE_RATE), round(2.63 * SAMPLE_RATE))
    assert np.abs(middle[packet]).max() < 0.05 < np.abs(whole[packet]).max()
    later = slice(3 * SAMPLE_RATE, 9 * SAMPLE_RATE)
    assert np.corrcoef(whole[later], middle[later])[0, 1] > 0.999
    capsys.readouterr()
    assert infer(folder / "middle.avi", run) == 0
    assert "damaged audio: middle 0.0" in said(capsys)


@pytest.mark.slow
def test_audio_stamps_slower_than_samples(make: Make) -> None:
    folder = make("02-sound-stamps-slower-than-samples")
    recordings, reported = prepared(folder)
    assert seconds(recordings) == pytest.approx({"whole": 10.03, "blocks": 10.03}, abs=0.02)
    assert np.array_equal(samples(folder / "blocks.avi"), samples(folder / "whole.avi"))
    assert any(line.startswith("audio time stamps") for line in reported["blocks"])
    assert not any("clock" in line for line in reported["whole"])


@pytest.mark.slow
def test_joined_transport_streams(make: Make, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    joined = make("03-joined-transport-streams") / "joined.ts"
    assert read_times(joined) == pytest.approx(np.arange(100) / 25, abs=1e-6)
    assert [number for number, _ in read_frames(joined)] == list(range(1, 101))
    assert len(samples(joined)) / SAMPLE_RATE == pytest.approx(4.0, abs=0.05)
    assert infer(joined, run, "--annotate") == 0
    assert "jumping time stamps: joined" in said(capsys)
    table = pd.read_csv(joined.parent / "out/joined.csv")
    assert (len(table), table["time"].iloc[-1]) == (100, 3.96)
    assert read_times(joined.parent / "out/joined.annotated.mp4") == pytest.approx(np.arange(100) / 25, abs=1e-3)


@pytest.mark.slow
def test_mirrored_display_matrix(make: Make) -> None:
    folder = make("05-mirrored-display-matrix")
    plain, mirrored, flipped = (
        upright(next(iter(read_frames(folder / f"{name}.mp4")))[1]).astype(float)
        for name in ("plain", "mirrored", "flipped")
    )
    # the flipped video was encoded anew, and lost other details
    assert 4 * np.abs(mirrored - plain[:, ::-1]).mean() < np.abs(mirrored - plain[::-1, ::-1]).mean()
    assert 4 * np.abs(flipped - plain).mean() < np.abs(flipped - plain[::-1]).mean()


@pytest.mark.slow
@pytest.mark.parametrize("case", ["06-macosx-folder", "07-crops-folder-inside-itself"])
def test_folders_of_other_systems(make: Make, case: str) -> None:
    folder = make(case)
    _, reported = prepared(folder)
    assert reported == {}
    videos = json.loads((folder / "store/manifest.json").read_bytes())["videos"]
    assert {name: video["crops"] for name, video in videos.items()} == {"1-30-64x64": FRAMES, "9-30-64x64": FRAMES}


@pytest.mark.slow
def test_crops_end_early(make: Make) -> None:
    _, reported = prepared(make("08-crops-end-early"))
    assert "crops of part of the video: crops end at frame 14 of 100" in reported["1-30-64x64"]
    assert not any("crops" in line for line in reported.get("9-30-64x64", []))


@pytest.mark.slow
def test_two_videos_of_one_name(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("09-two-films-of-one-name")
    root, table = folder / "release", folder / "m.parquet"
    truth = ("--annotations", root / VAL, "--videos", root)
    assert abaw("import", folder / "val.csv", "--name", "m", *truth, "--out", table) == 0
    taken = "old/9-30-64x64.mp4 has the name of batch1/9-30-64x64.mp4, which is used"
    assert taken in said(capsys)
    assert pd.read_parquet(table)["time"].max() == pytest.approx(1.96)
    _, reported = prepared(folder)
    assert reported == {"9-30-64x64": [f"two video files: {taken}"]}
    (folder / "list.txt").write_text("9-30-64x64\n")
    rows = "".join(f"9-30-64x64/{i:05d}.jpg,0\n" for i in range(1, FRAMES + 1))
    header = "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"
    (folder / "predictions.txt").write_text(f"{header}\n{rows}")
    capsys.readouterr()
    assert abaw("check", folder / "predictions.txt", "--videos", folder / "list.txt", "--media", root) == 0
    assert taken in said(capsys)


@pytest.mark.slow
def test_audio_without_frames(make: Make, run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("11-sound-without-pictures")
    recordings, reported = prepared(folder)
    assert seconds(recordings) == pytest.approx(dict.fromkeys("abcdefg", 2.0), abs=0.05)
    alone = ["video without frames: it holds no frame, so it gets 25 frames a second"]
    assert reported == dict.fromkeys(("a", "b", "f"), alone)
    assert infer(folder / "a.mp4", run) == 0
    assert len(pd.read_csv(folder / "out/a.csv")) == pytest.approx(50, abs=2)
    capsys.readouterr()
    assert infer(folder / "g.m4a", run, "--annotate") == 2
    assert "g.m4a: holds audio and no frames. Leave out --annotate." in said(capsys)
    assert not (folder / "out/g.csv").exists()


@pytest.mark.slow
def test_stray_time_stamp(make: Make) -> None:
    recordings, reported = prepared(make("12-stray-time-stamp"))
    assert seconds(recordings) == pytest.approx({"stray": 2.02}, abs=0.03)
    assert recordings["stray"]["picture_seconds"] == pytest.approx(1.96)
    (jump,) = (line for line in reported["stray"] if line.startswith("audio time stamps"))
    assert "+72000.0 s" in jump


def test_frames_as_they_are_held(make: Make) -> None:
    folder = make("13-pictures-as-they-are-held")
    _, reported = prepared(folder, "--images-are-faces")
    assert reported == {}
    for name in ("upright", "exif", "float", "wide"):
        with tarfile.open(folder / f"store/recordings/{name}/{name}.tar") as tar:
            crop = tar.extractfile(tar.getmembers()[0])
            assert crop is not None
            with Image.open(crop) as picture:
                grey = np.asarray(picture.convert("L")).astype(float)
        assert grey[:50, 30:].mean() == pytest.approx(220, abs=3)
        assert grey[60:, 30:].mean() == pytest.approx(0, abs=3)


@pytest.mark.slow
def test_dollars_in_the_name(make: Make, run: Path) -> None:
    folder = make("17-dollars-in-the-name")
    assert infer(folder / "a$b{c_$.mp4", run) == 0
    assert len(pd.read_csv(folder / "out/a$b{c_$.csv")) == FRAMES
    with Image.open(folder / "out/a$b{c_$.png") as picture:
        assert picture.width > 1000


@pytest.mark.slow
def test_crops_that_are_none(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("20-crops-that-are-none")
    _, reported = prepared(folder)
    assert reported["1-30-64x64"][0].startswith("crops in another format: 50 are not an upright JPEG: 00001.png")
    assert reported["9-30-64x64"] == ["no crops: its folder of crops holds no usable image"]
    capsys.readouterr()
    assert abaw("faces", "--release", folder / "release", "--workers", 1) == 0
    out = said(capsys)
    assert "9-30-64x64" in out
    assert "1-30-64x64" not in out


def test_faces_of_left_and_right_cameras(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    """Refused by name before the work, or kept apart."""
    folder = make("04-faces-of-left-and-right-cameras")
    video_files = [folder / "S01_left.mp4", folder / "S01.mp4"]
    found = folder / "found"
    if abaw("faces", "--videos", *video_files, "--out", found, "--workers", 1) == 2:
        assert "S01_left" in said(capsys)
        assert not list(found.rglob("*.jpg"))
    else:
        crops = {path.name: len(list(path.iterdir())) for path in (found / CROPS).iterdir()}
        assert len(crops) == 2
        assert min(crops.values()) == 30


def test_video_names_read_as_numbers(make: Make, capsys: pytest.CaptureFixture[str]) -> None:
    folder = make("15-video-names-read-as-numbers")

    def imported(table: str, annotations: str, *more: str) -> int:
        words = ("--annotations", folder / annotations, "--rate", 30, "--out", folder / f"{table}.parquet")
        return abaw("import", folder / f"{table}.csv", "--name", "m", *words, *more)

    assert imported("m", "ann") == 0
    rows = pd.read_parquet(folder / "m.parquet")
    assert rows["video"].value_counts().to_dict() == {"171": 20, "0012": 20}
    assert rows[branch_columns("m", EXPR)].notna().all(axis=None)
    assert imported("na", "na") == 0
    assert set(pd.read_parquet(folder / "na.parquet")["video"]) == {"NA"}
    capsys.readouterr()
    if imported("png", "ann", "--incomplete") == 0:  # as frames of 171; the other video is not in it
        rows = pd.read_parquet(folder / "png.parquet").set_index("video")
        assert rows.loc["171", branch_columns("m", EXPR)].notna().all(axis=None)
    else:
        assert "171/00001.png" in said(capsys)
