"""Another model's values, units and compound expressions through the front door: imported, tuned, scored, compared."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from abaw_expr.commands.main import main
from abaw_expr.data.release.frame_times import times_of
from abaw_expr.data.release.reader import read_annotation_folder
from abaw_expr.errors import ReleaseError
from abaw_expr.outputs.decision import Decision, equal_weights
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.tasks.metric_values import mean_ccc, moments
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, VA, Task
from tests.data.media.test_decode import write_frames
from tests.helpers.challenges import COMPOUND, make_table, make_video, write_annotations
from tests.test_challenges import names

VIDEOS = {"1-30-1280x720": 60, "v2_left": 50, "v2_right": 40, "v3": 45}


@pytest.fixture(params=[VA, AU, COMPOUND], ids=names)
def task(request: pytest.FixtureRequest) -> Task:
    return request.param


@pytest.fixture
def table(task: Task) -> Outputs:
    return made(task)


def made(task: Task) -> Outputs:
    return make_table(task, [make_video(task, name, length) for name, length in VIDEOS.items()])


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert call(*arguments) == 2
    return capsys.readouterr().err


def source(folder: Path, table: Outputs, branch: str = "visual") -> Path:
    """A branch as another program's CSV, without the rows of which it says nothing."""
    rows = pd.DataFrame(table.branch(branch), columns=list(table.task.columns))
    rows = rows.assign(video=table.table["video"], frame=table.table["frame"]).dropna()
    rows.to_csv(folder / "clip.csv", index=False)
    return folder / "clip.csv"


def annotations(folder: Path, table: Outputs) -> Path:
    return write_annotations(folder / "annotations", table.task, {v.name: v.label for v in table.videos()})


def template(folder: Path, table: Outputs) -> Path:
    rows = [f"{frame_name(v.name, frame)}," for v in reversed(table.videos()) for frame in v.frame.tolist()]
    (folder / "template.txt").write_text("\n".join([table.task.submission_header, *rows]) + "\n")
    return folder / "template.txt"


# Import


def test_the_frames_are_those_of_the_annotations(tmp_path: Path, table: Outputs) -> None:
    """The table that comes out is the one that the CSV and the annotations were made from."""
    command = ["import", source(tmp_path, table), "--name", "clip", "--out", tmp_path / "clip.parquet", "--rate", 20]
    assert call(*command, "--annotations", annotations(tmp_path, table)) == 0
    read = read_outputs(tmp_path / "clip.parquet", None)
    assert (read.task, read.split) == (table.task, "val")
    assert read.branch("clip") == pytest.approx(table.branch("visual"), nan_ok=True, abs=1e-6)
    assert read.label() == pytest.approx(table.label())
    for video in read.videos():
        assert video.time == pytest.approx((video.frame - 1) / 20)
        assert not video.crop.any()
    assert read.branches["clip"].prior == metric_of(table.task).unknown_prior


def test_the_frames_are_those_of_the_template(tmp_path: Path, table: Outputs) -> None:
    command = ["import", source(tmp_path, table), "--name", "clip", "--out", tmp_path / "clip.parquet", "--rate", 20]
    assert call(*command, "--template", template(tmp_path, table)) == 0
    read = read_outputs(tmp_path / "clip.parquet", None)
    assert (read.task, read.split) == (table.task, "test")
    assert read.branch("clip") == pytest.approx(table.branch("visual"), nan_ok=True, abs=1e-6)
    assert (read.label() == [field.ignore_value for field in table.task.fields]).all()


def test_a_branch_votes_beside_another_table(tmp_path: Path, table: Outputs) -> None:
    write_outputs(tmp_path / "val.parquet", table)
    prior = {"va": ["0.2", "-0.1"], "au": ["0.25"] * 12, "compound": ["0.5", "0.25", "0.25"]}[table.task.name]
    command = ["import", source(tmp_path, table), "--like", tmp_path / "val.parquet", "--name", "clip"]
    assert call(*command, "--prior", *prior, "--out", tmp_path / "clip.parquet") == 0
    read = read_outputs(tmp_path / "clip.parquet", None)
    assert np.array_equal(read.label(), table.label())
    assert read.table["time"].tolist() == table.table["time"].tolist()
    assert read.branches["clip"].prior == tuple(map(float, prior))


def test_times_are_those_of_the_video_files(tmp_path: Path) -> None:
    stamps = {"deep/batch1/1-30-1280x720.mp4": [0, 40, 120, 130], "deep/v2.mkv": [500, 600, 700], "deep/v3.mp4": [0]}
    for name, times in stamps.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_frames(tmp_path / name, times)
    frames = {
        "1-30-1280x720": np.arange(1, 7),
        "v2_left": np.array([1, 3]),
        "v2_right": np.array([2, 5]),
        "v3": np.array([1, 2]),
    }
    found = times_of(frames, tmp_path)
    assert found["1-30-1280x720"] == pytest.approx([0, 0.04, 0.12, 0.13, 0.13 + 0.13 / 3, 0.13 + 0.26 / 3])
    assert found["v2_left"] == pytest.approx([0, 0.2])
    assert found["v2_right"] == pytest.approx([0.1, 0.4])
    assert found["v3"] == pytest.approx([0, 0])
    with pytest.raises(ReleaseError, match="lacks video files; found '1 missing: v4'"):
        times_of(frames | {"v4": np.array([1])}, tmp_path)
    (tmp_path / "deep/v3.mp4").write_bytes(b"no video")
    with pytest.raises(ReleaseError, match=r"v3\.mp4: is not a readable video"):
        times_of(frames, tmp_path)


def test_logits_of_units_become_probabilities(tmp_path: Path) -> None:
    table = made(AU)
    command = ["import", source(tmp_path, table), "--name", "clip", "--out", tmp_path / "clip.parquet", "--rate", 20]
    assert call(*command, "--annotations", annotations(tmp_path, table), "--logits") == 0
    expected = 1 / (1 + np.exp(-table.branch("visual").astype(np.float64)))
    assert read_outputs(tmp_path / "clip.parquet", None).branch("clip") == pytest.approx(
        expected, nan_ok=True, rel=1e-6
    )


def test_values_in_a_folder_of_arrays(tmp_path: Path) -> None:
    table = made(VA)
    for video in table.videos():
        said = ~np.isnan(video.p["visual"][:, 0])
        values = video.p["visual"][said][:, ::-1]
        (tmp_path / "clip").mkdir(exist_ok=True)
        path = tmp_path / "clip" / f"{video.name}.npz"
        np.savez(path, values=values, frame=video.frame[said], classes=["arousal", "valence"])
    command = ["import", tmp_path / "clip", "--name", "clip", "--out", tmp_path / "clip.parquet", "--rate", 20]
    assert call(*command, "--annotations", annotations(tmp_path, table)) == 0
    read = read_outputs(tmp_path / "clip.parquet", None)
    assert np.array_equal(read.branch("clip"), table.branch("visual"), equal_nan=True)


@pytest.mark.parametrize(
    ("task", "change", "flags", "message"),
    [
        (VA, lambda t: t.assign(arousal=t["arousal"] * 3), [], "row has values out of range; .*expected from -1 to 1"),
        (VA, lambda t: t.rename(columns={"valence": "v"}), [], "has no columns with the names.*expected valence,"),
        (VA, lambda t: t, ["--logits"], "valence,arousal cannot be given as logits"),
        (VA, lambda t: t, ["--prior", "2", "0"], "--prior cannot be used; .*2 numbers from -1 to 1"),
        (VA, lambda t: t, ["--task", "au"], "is of another task; found 'va'; expected au"),
        (VA, lambda t: t, ["--rate", "0"], "--rate cannot be used; found 0.0"),
        (AU, lambda t: t.assign(AU26=-1), [], "csv:2: video .*: the row has probabilities out of.*--logits"),
        (AU, lambda t: t.drop(columns="AU7"), [], "has no columns with the names of the units"),
        (COMPOUND, lambda t: t.assign(Sadly_Angry=2), [], "the row does not sum to 1"),
    ],
)  # fmt: skip
def test_numbers_that_cannot_be_used_are_refused_by_their_row(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    task: Task,
    change: Callable[[pd.DataFrame], pd.DataFrame],
    flags: list[str],
    message: str,
) -> None:
    table = made(task)
    path = source(tmp_path, table)
    change(pd.read_csv(path)).to_csv(path, index=False)
    command = ["import", path, "--name", "clip", "--annotations", annotations(tmp_path, table)]
    text = fails(capsys, *command, "--rate", 20, *flags, "--out", tmp_path / "clip.parquet")
    assert re.search(message, text), text
    assert not (tmp_path / "clip.parquet").exists()


def test_import_needs_to_know_the_frames_and_their_times(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = made(VA)
    command = ["import", source(tmp_path, table), "--name", "clip", "--out", tmp_path / "clip.parquet"]
    assert "needs one of --like, --annotations and --template" in fails(capsys, *command)
    both = ["--annotations", annotations(tmp_path, table), "--template", template(tmp_path, table)]
    assert "needs one of --like, --annotations and --template" in fails(capsys, *command, *both)
    assert "frames a second, or --videos" in fails(capsys, *command, *both[:2])
    (tmp_path / "multi.txt").write_text("image,valence,arousal,expression,aus\nv3/00001.jpg,\n")
    several = [*command, "--template", tmp_path / "multi.txt", "--rate", 20]
    assert "has no such single task: give --task; expected one of va, expr, au" in fails(capsys, *several)
    assert call(*several, "--task", "va") == 0
    assert read_outputs(tmp_path / "clip.parquet", None).task == VA


# Score, tune, compare


@pytest.fixture
def outputs(tmp_path: Path, table: Outputs) -> Path:
    write_outputs(tmp_path / "val.parquet", table)
    return tmp_path / "val.parquet"


def figure(task: Task, truth: np.ndarray, predicted: np.ndarray) -> float:
    """The organisers' figure, as scikit-learn has it; CCC is tested on its own."""
    if task == VA:
        return float(mean_ccc(moments(truth, predicted, VA)))
    if task == AU:
        kept = truth != -1
        return float(np.mean([f1_score(truth[k, i], predicted[k, i]) for i in range(12) for k in [kept[:, i]]]))
    return f1_score(truth[truth >= 0], predicted[truth >= 0], average="macro")


def test_score_without_a_decision_gives_all_the_same_vote(
    tmp_path: Path, table: Outputs, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric, videos = metric_of(table.task), table.videos()
    assert call("score", "--outputs", outputs, "--out", tmp_path / "s.json") == 0
    shown = capsys.readouterr()
    assert "No --decision: all branches have the same vote" in shown.err
    predicted = []
    for video in videos:
        votes = np.stack([video.p["audio"], video.p["visual"]])
        known = ~np.isnan(votes[:, :, 0]).all(axis=0)
        mean = np.nanmean(votes[:, known], axis=0)
        filled = [np.interp(video.time, video.time[known], column) for column in mean.T]
        predicted.append(metric.decide(np.stack(filled, axis=1)))
    truth, labels = np.concatenate([v.label for v in videos]), np.concatenate(predicted)
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["all annotated frames"][metric.key] == pytest.approx(figure(table.task, truth, labels), abs=1e-6)
    assert f"{found['all annotated frames'][metric.key]:.4f}" in shown.out
    crop = np.concatenate([video.crop for video in videos])
    with_crop = found["frames with a crop"][metric.key]
    assert with_crop == pytest.approx(figure(table.task, truth[crop], labels[crop]), abs=1e-6)
    assert max(map(len, shown.out.splitlines())) <= 120
    for name in [*VIDEOS, *([] if table.task == COMPOUND else table.task.columns)]:
        assert name in shown.out


@pytest.mark.slow
def test_a_tuned_decision_scores_what_tune_says_and_is_compared(
    tmp_path: Path, table: Outputs, outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    metric, path = metric_of(table.task), tmp_path / "d.json"
    assert call("tune", "--outputs", outputs, "--out", path, "--plots", tmp_path / "pictures") == 0
    drawn = {picture.stem for picture in (tmp_path / "pictures").glob("*.png")}
    assert drawn == {"weights", "smoothing", "optimism"} | ({"confusion"} if table.task == COMPOUND else set())
    shown = capsys.readouterr().out
    decision = Decision.load(path, table.task)
    assert decision.scores is not None
    assert f"{decision.scores[metric.key]:.4f}" in shown
    assert ("prior correction" in shown) == (table.task == COMPOUND)
    assert ("A unit is active from" in shown) == (table.task == AU)
    assert call("score", "--outputs", outputs, "--decision", path, "--out", tmp_path / "s.json") == 0
    found = json.loads((tmp_path / "s.json").read_text())
    assert found["all annotated frames"][metric.key] == pytest.approx(decision.scores[metric.key])
    capsys.readouterr()
    Decision({"audio": decision.branches["audio"]}, task=table.task).save(tmp_path / "audio.json")
    pair = ["--outputs", outputs, "--decision", path, "--other-outputs", outputs]
    assert call("compare", *pair, "--other-decision", tmp_path / "audio.json") == 0
    shown = capsys.readouterr().out
    assert f"{decision.scores[metric.key]:.4f}" in shown
    assert f"{metric.title} on 3 recordings" in shown


def test_a_submission_scores_as_its_outputs(tmp_path: Path, table: Outputs, outputs: Path) -> None:
    """Written by `submit`, read back and held against the annotations: four decimals of a value are lost at most."""
    metric, out = metric_of(table.task), tmp_path / "predictions.txt"
    assert call("submit", "--outputs", outputs, "--template", template(tmp_path, table), "--out", out) == 0
    command = ["score", "--predictions", out, "--annotations", annotations(tmp_path, table)]
    assert call(*command, "--out", tmp_path / "file.json") == 0
    assert call("score", "--outputs", outputs, "--out", tmp_path / "table.json") == 0
    one, other = (
        json.loads((tmp_path / name).read_text())["all annotated frames"] for name in ("file.json", "table.json")
    )
    assert one[metric.key] == pytest.approx(other[metric.key], abs=1e-4 if table.task == VA else 1e-12)
    assert one["frames"] == other["frames"]


def test_predictions_of_another_challenge_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = made(VA)
    (tmp_path / "predictions.txt").write_text(f"{AU.submission_header}\nv3/00001.jpg{',0' * 12}\n")
    command = ["score", "--predictions", tmp_path / "predictions.txt", "--annotations", annotations(tmp_path, table)]
    assert "predictions.txt:1: has another header; found 'image_location,AU1," in fails(capsys, *command)


def test_decisions_and_tables_of_two_challenges_do_not_meet(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for task in (VA, AU):
        write_outputs(tmp_path / f"{task.name}.parquet", made(task))
        equal_weights(made(task)).save(tmp_path / f"{task.name}.json")
    va, au = ("--outputs", tmp_path / "va.parquet"), ("--decision", tmp_path / "au.json")
    assert "au.json: task cannot be used; found 'au'; expected va" in fails(capsys, "score", *va, *au)
    both = ["--outputs", tmp_path / "va.parquet", tmp_path / "au.parquet"]
    assert "au.parquet: is of another task; found 'au'; expected va" in fails(capsys, "score", *both)
    pair = ["--other-outputs", tmp_path / "au.parquet", "--other-decision", tmp_path / "au.json"]
    text = fails(capsys, "compare", *va, "--decision", tmp_path / "va.json", *pair)
    assert "has other annotated frames" in text


def test_annotations_are_read_as_the_table_holds_them(tmp_path: Path, table: Outputs) -> None:
    labels = read_annotation_folder(annotations(tmp_path, table), table.task)
    assert labels.keys() == {video.name for video in table.videos()}
    for video in table.videos():
        assert labels[video.name].dtype == video.label.dtype
        assert labels[video.name] == pytest.approx(video.label, abs=1e-6)
