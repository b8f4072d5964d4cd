"""Predictions for any video file: a table, a plot and the annotated video, for everyone in it."""

import json
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import SAMPLE_RATE, read_audio, read_times
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.data.synthetic.speech import synthesise_speech
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.run import RunFolder
from tests.helpers.clips import draw_frames, encode, lay_on_side, person, straight
from tests.training.test_predict import PRIOR, SETTINGS, make_run

pytestmark = pytest.mark.slow  # real video files through the real detector


COUNT = 30
RATE = Fraction(25, 2)
ANNE, BEN = 14, 18
Infer = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("answer") / "run")


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run with the visual branch only."""
    return make_run(tmp_path_factory.mktemp("answer") / "deaf", SETTINGS.only(("visual",)))


def voice() -> np.ndarray:
    seconds = float(COUNT / RATE)
    return synthesise_speech([0, 4], [seconds / 2, seconds / 2], np.random.default_rng(0)).audio


def video_file(path: Path, seeds: tuple[int, ...], audio: np.ndarray | None) -> Path:
    """Nobody, one or two people side by side, who move a little."""
    ways = [straight((10 + 190 * i, 40), (5 + 190 * i, 60), COUNT) for i in range(2)]
    people = [(person(seed, COUNT), way) for seed, way in zip(seeds, ways, strict=False)]
    nobody = ([None] * COUNT, ways[0])
    write_video(path, RATE, draw_frames(people or [nobody]), audio)
    return path


def infer(video: Path, run: RunFolder, out: Path, *more: object) -> int:
    return main(["infer", *map(str, (video, "--run", run.root, "--out", out, "--accelerator", "cpu", *more))])


def table(out: Path, name: str) -> pd.DataFrame:
    """A person's table, whose rows are checked."""
    rows = pd.read_csv(out / f"{name}.csv")
    p = rows[list(EXPR.columns)].to_numpy()
    assert rows["frame"].tolist() == list(range(1, len(rows) + 1))
    assert p.sum(axis=1) == pytest.approx(1, abs=1e-4)
    assert rows["class"].tolist() == [EXPR.columns[i] for i in p.argmax(axis=1)]
    with Image.open(out / f"{name}.png") as frame:
        assert frame.width > 1000
        assert frame.convert("L").getextrema() == (0, 255)
    return rows


def test_one_person_who_speaks(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = video_file(tmp_path / "anne.mp4", (ANNE,), voice())
    assert infer(video, run, tmp_path / "out") == 0
    rows = table(tmp_path / "out", "anne")
    assert rows["time"].to_numpy() == pytest.approx(np.arange(COUNT) / float(RATE), abs=1e-4)
    assert rows["face"].all()
    assert f"{float(COUNT / RATE):.1f} s of video in " in capsys.readouterr().out
    assert rows[list(EXPR.columns)].nunique().min() > 1


def test_the_decision_is_applied(run: RunFolder, tmp_path: Path) -> None:
    """Equal weights give the mean of both branches."""
    video, out = video_file(tmp_path / "anne.mp4", (ANNE,), voice()), tmp_path / "out"
    predicted = {}
    for branches in (("audio",), ("visual",), ("audio", "visual")):
        path = tmp_path / "decision.json"
        Decision({name: Vote(tuple(PRIOR)) for name in branches}).save(path)
        assert infer(video, run, out, "--decision", path) == 0
        predicted[branches] = table(out, "anne")[list(EXPR.columns)].to_numpy()
    assert infer(video, run, out) == 0
    middle = (predicted["audio",] + predicted["visual",]) / 2
    assert predicted["audio", "visual"] == pytest.approx(middle, abs=2e-5)
    assert table(out, "anne")[list(EXPR.columns)].to_numpy() == pytest.approx(middle, abs=2e-5)
    assert np.abs(predicted["audio",] - predicted["visual",]).max() > 0.01


def test_two_people_get_predictions_each(run: RunFolder, tmp_path: Path) -> None:
    video, out = video_file(tmp_path / "two.mp4", (ANNE, BEN), voice()), tmp_path / "out"
    assert infer(video, run, out) == 0
    left, right = table(out, "two_left"), table(out, "two_right")
    assert len(left) == len(right) == COUNT
    assert not left["Neutral"].equals(right["Neutral"])
    assert not (out / "two.csv").exists()


def test_without_a_face_the_audio_is_used_and_without_audio_the_face(run: RunFolder, tmp_path: Path) -> None:
    unseen = video_file(tmp_path / "unseen.mp4", (), voice())
    assert infer(unseen, run, tmp_path / "out", "--annotate") == 0
    assert not table(tmp_path / "out", "unseen")["face"].any()
    silent = video_file(tmp_path / "silent.mp4", (ANNE,), None)
    assert infer(silent, run, tmp_path / "out", "--annotate") == 0
    assert table(tmp_path / "out", "silent")["face"].all()
    assert read_audio(tmp_path / "out" / "silent.annotated.mp4") is None


@pytest.mark.parametrize(("people", "audio", "run_name"), [((), False, "run"), ((), True, "deaf")])
def test_nothing_to_predict_from_is_refused(
    people: tuple[int, ...],
    audio: bool,
    run_name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = video_file(tmp_path / "empty.mp4", people, voice() if audio else None)
    assert infer(video, request.getfixturevalue(run_name), tmp_path / "out") == 2
    error_text = " ".join(capsys.readouterr().err.split())
    lacking = "no audio and no face" if run_name == "run" else "no face"
    assert f"empty.mp4: has {lacking} to predict from." in error_text
    assert not list((tmp_path / "out").glob("*.csv"))


def test_no_video_and_no_run_are_refused(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letter = tmp_path / "letter.mp4"
    letter.write_text("Dear Sir or Madam")
    assert infer(letter, run, tmp_path / "out") == 2
    assert "letter.mp4: cannot be read as a video (Invalid data" in " ".join(capsys.readouterr().err.split())
    assert infer(tmp_path / "nowhere.mp4", run, tmp_path / "out") == 2
    assert "nowhere.mp4: cannot be read as a video (no such file)" in " ".join(capsys.readouterr().err.split())
    video = video_file(tmp_path / "anne.mp4", (ANNE,), None)
    assert infer(video, RunFolder(tmp_path / "norun"), tmp_path / "out") == 2
    assert infer(video, run, tmp_path / "out", "--stride", "-1") == 2


def test_the_annotated_video_keeps_times_audio_and_turn(run: RunFolder, tmp_path: Path) -> None:
    """A phone's file: on its side, HEVC, no two frames equally long."""
    steps = np.random.default_rng(0).integers(4, 14, COUNT)
    times = [Fraction(int(t), 100) for t in np.cumsum(steps) - steps[0]]
    shown = list(draw_frames([(person(ANNE, COUNT), straight((20, 60), (60, 150), COUNT))], size=(200, 320)))
    video = encode(tmp_path / "phone.mp4", [np.rot90(p).copy() for p in shown], "libx265", times)
    lay_on_side(video)
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    rows = table(tmp_path / "out", "phone")
    assert rows["time"].to_numpy() == pytest.approx([float(t) for t in times], abs=1e-3)
    annotated = tmp_path / "out" / "phone.annotated.mp4"
    assert read_times(annotated) == pytest.approx([float(t) for t in times], abs=1e-3)
    with av.open(str(annotated)) as container:
        video_stream = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert video_stream[0].shape == (320, 200, 3)
    changed = np.abs(video_stream[0].astype(int) - shown[0]).max(axis=2) > 60
    assert changed[40:180].sum() > 300  # the box and its words
    assert not changed[200:].any()


def test_infer_reports_what_prepare_would(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = np.concatenate([voice(), np.zeros(5 * SAMPLE_RATE, np.int16)])
    video = video_file(tmp_path / "long.mp4", (ANNE,), long)
    (tmp_path / "clips.csv").write_text("path,label,subject,split\nlong.mp4,happy,a,train\n")
    out = tmp_path / "out"
    assert infer(video, run, out) == 0
    reported = capsys.readouterr().out
    crops = str(out / "cropped_aligned_found")
    words = ["prepare", "--kind", "clips", "--release", str(tmp_path / "clips.csv"), "--store", str(tmp_path / "store")]
    assert main([*words, "--crops", crops, "--workers", "1"]) == 0
    (problem,) = json.loads((tmp_path / "store/report.json").read_bytes())["problems"]
    assert problem["kind"] == "long audio"
    for part in (f"1 {problem['kind']}: long", f"{problem['detail']}. {problem['remedy']}"):
        assert part in reported


def test_a_video_that_changes_its_size_is_annotated_whole(run: RunFolder, tmp_path: Path) -> None:
    """The second half is twice as large; every frame is shown as large as the first."""
    shown = list(draw_frames([(person(ANNE, COUNT), straight((20, 40), (60, 60), COUNT))]))
    parts = []
    for number, scale in enumerate((1, 2)):
        half = shown[number * COUNT // 2 : (number + 1) * COUNT // 2]
        size = (shown[0].shape[1] * scale, shown[0].shape[0] * scale)
        larger = [np.asarray(Image.fromarray(frame).resize(size, Image.Resampling.BICUBIC)) for frame in half]
        times = [(number * COUNT // 2 + i) / RATE for i in range(len(half))]
        parts.append(encode(tmp_path / f"{number}.ts", larger, "libx264", times).read_bytes())
    video = tmp_path / "grows.ts"
    video.write_bytes(b"".join(parts))
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    with av.open(str(tmp_path / "out/grows.annotated.mp4")) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert {frame.shape for frame in found} == {(200, 320, 3)}
    assert len(found) == COUNT
    for place in (2, COUNT - 4):
        below = np.abs(found[place][180:].astype(int) - shown[place][180:])  # the wall, where nothing is marked
        assert below.mean() < 12


def test_the_audio_of_the_annotated_video_is_the_videos(run: RunFolder, tmp_path: Path) -> None:
    audio = np.zeros(int(COUNT / RATE * SAMPLE_RATE), np.int16)
    click = round(1.3 * SAMPLE_RATE)
    audio[click : click + 160] = 30_000
    video = video_file(tmp_path / "click.mp4", (ANNE,), audio)
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    written = read_audio(tmp_path / "out" / "click.annotated.mp4")
    assert written is not None
    assert np.abs(written.samples).argmax() / SAMPLE_RATE == pytest.approx(1.3, abs=0.03)
    assert len(written.samples) / SAMPLE_RATE == pytest.approx(COUNT / RATE, abs=0.2)
