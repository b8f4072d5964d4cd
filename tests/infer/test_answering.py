"""Any video file to an answer: a table, a picture and the annotated video, for everyone who is in it."""

import json
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import SAMPLE_RATE, read_sound, read_times
from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.data.synthetic.speech import speak
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.settings import ModelSettings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.run import RunFolder
from tests.helpers.clips import encode, lay_on_side, person, pictures, straight
from tests.training.test_predict import PRIOR, SETTINGS, make_run

PICTURES = 30
RATE = Fraction(25, 2)
ANNE, BEN = 14, 18
Infer = Callable[..., int]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("answer") / "run")


@pytest.fixture(scope="module")
def deaf(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that knows pictures only."""
    settings = replace(SETTINGS, model=ModelSettings(branches=("visual",)))
    return make_run(tmp_path_factory.mktemp("answer") / "deaf", settings)


def voice() -> np.ndarray:
    seconds = float(PICTURES / RATE)
    return speak([0, 4], [seconds / 2, seconds / 2], np.random.default_rng(0))


def film(path: Path, seeds: tuple[int, ...], sound: np.ndarray | None) -> Path:
    """Nobody, one or two people side by side, who move a little."""
    ways = [straight((10 + 190 * i, 40), (5 + 190 * i, 60), PICTURES) for i in range(2)]
    people = [(person(seed, PICTURES), way) for seed, way in zip(seeds, ways, strict=False)]
    nobody = ([None] * PICTURES, ways[0])
    write_video(path, RATE, pictures(people or [nobody]), sound)
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
    with Image.open(out / f"{name}.png") as picture:
        assert picture.width > 1000
        assert picture.convert("L").getextrema() == (0, 255)
    return rows


def test_one_person_who_speaks(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    video = film(tmp_path / "anne.mp4", (ANNE,), voice())
    assert infer(video, run, tmp_path / "out") == 0
    rows = table(tmp_path / "out", "anne")
    assert rows["time"].to_numpy() == pytest.approx(np.arange(PICTURES) / float(RATE), abs=1e-4)
    assert rows["face"].all()
    assert f"{float(PICTURES / RATE):.1f} s of video in " in capsys.readouterr().out
    assert rows[list(EXPR.columns)].nunique().min() > 1


def test_the_decision_is_applied(run: RunFolder, tmp_path: Path) -> None:
    """Equal votes lie in the middle of what either branch says alone."""
    video, out = film(tmp_path / "anne.mp4", (ANNE,), voice()), tmp_path / "out"
    said = {}
    for branches in (("audio",), ("visual",), ("audio", "visual")):
        path = tmp_path / "decision.json"
        Decision({name: Vote(tuple(PRIOR)) for name in branches}).save(path)
        assert infer(video, run, out, "--decision", path) == 0
        said[branches] = table(out, "anne")[list(EXPR.columns)].to_numpy()
    assert infer(video, run, out) == 0
    middle = (said["audio",] + said["visual",]) / 2
    assert said["audio", "visual"] == pytest.approx(middle, abs=2e-5)
    assert table(out, "anne")[list(EXPR.columns)].to_numpy() == pytest.approx(middle, abs=2e-5)
    assert np.abs(said["audio",] - said["visual",]).max() > 0.01


def test_two_people_get_an_answer_each(run: RunFolder, tmp_path: Path) -> None:
    video, out = film(tmp_path / "two.mp4", (ANNE, BEN), voice()), tmp_path / "out"
    assert infer(video, run, out) == 0
    left, right = table(out, "two_left"), table(out, "two_right")
    assert len(left) == len(right) == PICTURES
    assert not left["Neutral"].equals(right["Neutral"])
    assert not (out / "two.csv").exists()


def test_without_a_face_the_sound_decides_and_without_sound_the_face(run: RunFolder, tmp_path: Path) -> None:
    unseen = film(tmp_path / "unseen.mp4", (), voice())
    assert infer(unseen, run, tmp_path / "out", "--annotate") == 0
    assert not table(tmp_path / "out", "unseen")["face"].any()
    silent = film(tmp_path / "silent.mp4", (ANNE,), None)
    assert infer(silent, run, tmp_path / "out", "--annotate") == 0
    assert table(tmp_path / "out", "silent")["face"].all()
    assert read_sound(tmp_path / "out" / "silent.annotated.mp4") is None


@pytest.mark.parametrize(("people", "sound", "run_name"), [((), False, "run"), ((), True, "deaf")])
def test_nothing_to_judge_by_is_refused(
    people: tuple[int, ...],
    sound: bool,
    run_name: str,
    request: pytest.FixtureRequest,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    video = film(tmp_path / "empty.mp4", people, voice() if sound else None)
    assert infer(video, request.getfixturevalue(run_name), tmp_path / "out") == 2
    said = " ".join(capsys.readouterr().err.split())
    lacking = "no sound and no face" if run_name == "run" else "no face"
    assert f"empty.mp4: has {lacking} that could be judged." in said
    assert not list((tmp_path / "out").glob("*.csv"))


def test_no_video_and_no_run_are_refused(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letter = tmp_path / "letter.mp4"
    letter.write_text("Dear Sir or Madam")
    assert infer(letter, run, tmp_path / "out") == 2
    assert "letter.mp4: cannot be read as a video (Invalid data" in " ".join(capsys.readouterr().err.split())
    assert infer(tmp_path / "nowhere.mp4", run, tmp_path / "out") == 2
    assert "nowhere.mp4: cannot be read as a video (no such file)" in " ".join(capsys.readouterr().err.split())
    video = film(tmp_path / "anne.mp4", (ANNE,), None)
    assert infer(video, RunFolder(tmp_path / "norun"), tmp_path / "out") == 2
    assert infer(video, run, tmp_path / "out", "--interval", "-1") == 2


def test_the_annotated_video_keeps_times_sound_and_turn(run: RunFolder, tmp_path: Path) -> None:
    """Of a phone: laid on its side, HEVC, no two pictures equally long."""
    steps = np.random.default_rng(0).integers(4, 14, PICTURES)
    times = [Fraction(int(t), 100) for t in np.cumsum(steps) - steps[0]]
    shown = list(pictures([(person(ANNE, PICTURES), straight((20, 60), (60, 150), PICTURES))], size=(200, 320)))
    video = encode(tmp_path / "phone.mp4", [np.rot90(p).copy() for p in shown], "libx265", times)
    lay_on_side(video)
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    rows = table(tmp_path / "out", "phone")
    assert rows["time"].to_numpy() == pytest.approx([float(t) for t in times], abs=1e-3)
    annotated = tmp_path / "out" / "phone.annotated.mp4"
    assert read_times(annotated) == pytest.approx([float(t) for t in times], abs=1e-3)
    with av.open(str(annotated)) as container:
        film_ = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert film_[0].shape == (320, 200, 3)
    changed = np.abs(film_[0].astype(int) - shown[0]).max(axis=2) > 60
    assert changed[40:180].sum() > 300  # the box and its words
    assert not changed[200:].any()


def test_infer_tells_what_prepare_would(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    long = np.concatenate([voice(), np.zeros(5 * SAMPLE_RATE, np.int16)])
    video = film(tmp_path / "long.mp4", (ANNE,), long)
    (tmp_path / "clips.csv").write_text("path,label,subject,split\nlong.mp4,happy,a,train\n")
    out = tmp_path / "out"
    assert infer(video, run, out) == 0
    told = capsys.readouterr().out
    crops = str(out / "cropped_aligned_found")
    words = ["prepare", "--kind", "clips", "--release", str(tmp_path / "clips.csv"), "--store", str(tmp_path / "store")]
    assert main([*words, "--crops", crops, "--workers", "1"]) == 0
    (problem,) = json.loads((tmp_path / "store/report.json").read_bytes())["problems"]
    assert problem["kind"] == "long sound"
    for part in (f"1 {problem['kind']}: long", f"{problem['detail']}. {problem['remedy']}"):
        assert part in told


def test_a_video_that_changes_its_size_is_annotated_whole(run: RunFolder, tmp_path: Path) -> None:
    """The second half is twice as large; every picture is shown as large as the first."""
    shown = list(pictures([(person(ANNE, PICTURES), straight((20, 40), (60, 60), PICTURES))]))
    parts = []
    for number, scale in enumerate((1, 2)):
        half = shown[number * PICTURES // 2 : (number + 1) * PICTURES // 2]
        size = (shown[0].shape[1] * scale, shown[0].shape[0] * scale)
        larger = [np.asarray(Image.fromarray(picture).resize(size, Image.Resampling.BICUBIC)) for picture in half]
        times = [(number * PICTURES // 2 + i) / RATE for i in range(len(half))]
        parts.append(encode(tmp_path / f"{number}.ts", larger, "libx264", times).read_bytes())
    video = tmp_path / "grows.ts"
    video.write_bytes(b"".join(parts))
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    with av.open(str(tmp_path / "out/grows.annotated.mp4")) as container:
        found = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    assert {picture.shape for picture in found} == {(200, 320, 3)}
    assert len(found) == PICTURES
    for place in (2, PICTURES - 4):
        below = np.abs(found[place][180:].astype(int) - shown[place][180:])  # the wall, where nothing is marked
        assert below.mean() < 12


def test_the_sound_of_the_annotated_video_is_the_videos(run: RunFolder, tmp_path: Path) -> None:
    sound = np.zeros(int(PICTURES / RATE * SAMPLE_RATE), np.int16)
    click = round(1.3 * SAMPLE_RATE)
    sound[click : click + 160] = 30_000
    video = film(tmp_path / "click.mp4", (ANNE,), sound)
    assert infer(video, run, tmp_path / "out", "--annotate") == 0
    heard = read_sound(tmp_path / "out" / "click.annotated.mp4")
    assert heard is not None
    assert np.abs(heard.samples).argmax() / SAMPLE_RATE == pytest.approx(1.3, abs=0.03)
    assert len(heard.samples) / SAMPLE_RATE == pytest.approx(PICTURES / RATE, abs=0.2)
