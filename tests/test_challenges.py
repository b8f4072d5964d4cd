"""Valence and arousal, action units and compound expressions on the table of outputs: kept, fused and tuned."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from abaw_expr.errors import DecisionError, OutputsError
from abaw_expr.outputs.decision import Decision, Vote, equal_weights
from abaw_expr.outputs.fusion import fill, fuse, smooth
from abaw_expr.outputs.joining import read_joined, rename
from abaw_expr.outputs.table import Outputs, label_columns, read_outputs, write_outputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from abaw_expr.version import VERSION
from tests.helpers.branches import BRANCHES
from tests.helpers.challenges import COMPOUND, EVERY, make_table, make_video
from tuning.grid import statistics_tensor
from tuning.selection import decide, search
from tuning.space import NO_SMOOTHING, Smoothing, Space

U = len(AU.fields)
SMALL = Space(
    weights=((1, 1), (1, 2), (5, 2)), smoothing=(NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0, "median")), tau=(0.0,)
)
PRIORS = {"expr": (1 / 8,) * 8, "compound": (1 / 3,) * 3, "va": (0.2, -0.1), "au": (0.25,) * U}


def names(task: Task) -> str:
    return task.name


def decision(task: Task, **changes: Any) -> Decision:
    votes = {"audio": Vote(PRIORS[task.name], 2), "visual": Vote(PRIORS[task.name], 3)}
    return Decision(votes, task=task, **changes)


# The table


@pytest.mark.parametrize("task", EVERY, ids=names)
def test_reading_gives_what_was_written_and_says_the_challenge(tmp_path: Path, task: Task) -> None:
    videos = [make_video(task, "a", 6), make_video(task, "b_left", 9)]
    write_outputs(tmp_path / "one", make_table(task, videos))
    read = read_outputs(tmp_path / "one", None)
    assert read.task == task
    assert read_outputs(tmp_path / "one", task).task == task
    for ours, theirs in zip(read.videos(), videos, strict=True):
        assert ours.label.dtype == theirs.label.dtype
        assert np.array_equal(ours.label, theirs.label)
        for branch in BRANCHES:
            assert np.array_equal(ours.p[branch], theirs.p[branch], equal_nan=True)
    write_outputs(tmp_path / "two", read)
    assert (tmp_path / "one").read_bytes() == (tmp_path / "two").read_bytes()


def test_ordinary_tools_see_the_contract(tmp_path: Path) -> None:
    write_outputs(tmp_path / "va", make_table(VA, [make_video(VA, "a", 6)]))
    schema = pq.read_schema(tmp_path / "va")
    types = {field.name: str(field.type) for field in schema}
    numbers = dict.fromkeys(["audio_0", "audio_1", "visual_0", "visual_1", "label_valence", "label_arousal"], "float")
    video = {"video": "dictionary<values=string, indices=int32, ordered=0>"}
    assert types == video | {"frame": "int32", "time": "double", "crop": "bool"} | numbers
    assert json.loads(schema.metadata[b"abaw_expr"]) == {
        "task": "va",
        "class_names": ["valence", "arousal"],
        "split": "val",
        "branches": {name: {"run": "run", "prior": [0.0, 0.0]} for name in BRANCHES},
        "version": VERSION,
    }
    write_outputs(tmp_path / "au", make_table(AU, [make_video(AU, "a", 6)]))
    schema = pq.read_schema(tmp_path / "au")
    assert schema.names[-12:] == [f"label_{unit}" for unit in AU.columns]
    assert {str(schema.field(name).type) for name in schema.names[-12:]} == {"int8"}
    assert "audio_11" in schema.names


@pytest.mark.parametrize(
    ("task", "column", "value", "message"),
    [
        (VA, "audio_1", 1.01, "video a, frame 3: the audio row has values out of range; expected from -1 to 1"),
        (VA, "audio_0", np.nan, "frame 3: the audio row is partly empty; expected all values or none"),
        (VA, "label_arousal", -1.5, "the label_arousal is out of range; expected -1..1, or -5 where not annotated"),
        (VA, "label_valence", np.nan, "column label_valence has empty cells; found 1"),
        (AU, "visual_3", -0.01, "frame 3: the visual row has probabilities out of range; expected from 0 to 1"),
        (AU, "label_AU12", 2, "video a, frame 3: the label_AU12 is out of range; expected 0..1, or -1"),
        (AU, "label_AU12", 0.5, "column label_AU12 cannot be converted to int8"),
        (COMPOUND, "visual_1", 0.7, "the visual row does not sum to 1"),
        (COMPOUND, "label", 3, "the label is out of range; expected 0..2, or -1"),
    ],
)
def test_a_table_that_breaks_the_contract_is_neither_written_nor_read(
    tmp_path: Path, task: Task, column: str, value: float, message: str
) -> None:
    outputs, path = make_table(task, [make_video(task, "a", 6, gaps=0)]), tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    before, metadata = path.read_bytes(), pq.read_schema(path).metadata
    broken = outputs.table.astype({column: float})
    broken.loc[2, column] = value
    with pytest.raises(OutputsError, match=message):
        write_outputs(path, replace(outputs, table=broken))
    assert path.read_bytes() == before
    pq.write_table(pa.Table.from_pandas(broken, preserve_index=False).replace_schema_metadata(metadata), path)
    with pytest.raises(OutputsError, match=f"outputs.parquet: .*{message}"):
        read_outputs(path, None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "fr"}, "is of an unknown task; found 'fr'; expected one of expr, va, au, compound"),
        ({"task": "au"}, "has other units or another order of them; found .*'valence'"),
        ({"class_names": ["arousal", "valence"]}, "has other values or another order of them"),
        (
            {"branches": {"audio": {"run": "x", "prior": [0.0, 2.0]}}},
            "audio has no valid prior; found .*; expected run, and prior: 2 numbers from -1 to 1",
        ),
        ({"branches": {"audio": {"run": "x", "prior": ["a", "b"]}}}, "audio has no valid prior"),
    ],
)
def test_metadata_of_something_else_is_refused(tmp_path: Path, change: dict[str, Any], message: str) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, make_table(VA, [make_video(VA, "a", 6)]))
    table = pq.read_table(path)
    metadata = json.dumps(json.loads(table.schema.metadata[b"abaw_expr"]) | change)
    pq.write_table(table.replace_schema_metadata({"abaw_expr": metadata}), path)
    with pytest.raises(OutputsError, match=message):
        read_outputs(path, None)


def test_tables_of_two_challenges_are_not_one(tmp_path: Path) -> None:
    for task in (VA, AU):
        write_outputs(tmp_path / task.name, make_table(task, [make_video(task, "a", 6)]))
    with pytest.raises(OutputsError, match="au: is of another task; found 'au'; expected va"):
        read_joined([tmp_path / "va", tmp_path / "au"], None)
    other = rename(read_outputs(tmp_path / "va", None), "other")
    labels = other.table["label_arousal"].to_numpy().copy()
    labels[4] = -labels[4] if labels[4] != -5 else 0
    write_outputs(tmp_path / "relabelled", replace(other, table=other.table.assign(label_arousal=labels)))
    with pytest.raises(OutputsError, match="relabelled: video a, frame 5: the label differs"):
        read_joined([tmp_path / "va", tmp_path / "relabelled"], None)


# The decision


@pytest.mark.parametrize("smoother", ["mean", "median"])
@pytest.mark.parametrize("task", EVERY, ids=names)
def test_every_challenge_is_smoothed_fused_and_filled(task: Task, smoother: str) -> None:
    video, shares = make_video(task, "a", 80, gaps=0.8), metric_of(task).distribution
    made = decision(task, smoothing=0.25, smoother=smoother)
    audio, visual = (smooth(video.p[name], video.time, 0.25, smoother, shares) for name in BRANCHES)
    fused = fuse([audio, visual], [2, 3])
    assert np.isnan(fused).any()
    assert made.probabilities(video) == pytest.approx(fill(fused, video.time, PRIORS[task.name]))


def test_medians_of_values_are_medians() -> None:
    video = make_video(VA, "a", 41, gaps=0)
    time = np.arange(41) / 8
    rows = smooth(video.p["audio"], time, 0.5, "median", distribution=False)
    assert rows[20] == pytest.approx(np.median(video.p["audio"][18:23], axis=0))


@pytest.mark.parametrize(
    ("task", "shape", "dtype"), [(COMPOUND, (30,), np.int64), (VA, (30, 2), np.float32), (AU, (30, U), np.int64)]
)
def test_every_frame_is_decided(task: Task, shape: tuple[int, ...], dtype: type) -> None:
    for gaps in (0.0, 0.5, 1.0):
        labels = decision(task).labels(make_video(task, "a", 30, gaps=gaps))
        assert (labels.shape, labels.dtype) == (shape, dtype)
        assert ((labels >= task.fields[0].low) & (labels <= task.fields[0].high)).all()


def test_a_missing_branch_has_no_vote() -> None:
    video = make_video(VA, "a", 20, gaps=0)
    video.p["audio"][:10] = np.nan
    labels = decision(VA).labels(video)
    assert labels[:10] == pytest.approx(video.p["visual"][:10])
    assert labels[10:] == pytest.approx((2 * video.p["audio"][10:] + 3 * video.p["visual"][10:]) / 5)


def test_a_video_with_nothing_comes_out_as_the_prior() -> None:
    assert decision(VA).labels(make_video(VA, "a", 3, gaps=1.0)) == pytest.approx(np.tile([0.2, -0.1], (3, 1)))
    assert not decision(AU).labels(make_video(AU, "a", 3, gaps=1.0)).any()


@pytest.mark.parametrize("weights", [(a, b, c) for a in (1, 2, 5) for b in (1, 3) for c in (1, 4)])
def test_rounding_does_not_leave_the_range(weights: tuple[int, ...]) -> None:
    video = make_video(VA, "a", 4, branches=("a", "b", "c"))
    video = replace(video, p={name: np.array([[1, -1]] * 4, np.float32) for name in video.p})
    votes = {name: Vote((0.0, 0.0), weight) for name, weight in zip(video.p, weights, strict=True)}
    labels = Decision(votes, task=VA).labels(video)
    assert np.abs(labels).max() <= 1
    assert labels == pytest.approx(np.array([[1, -1]] * 4))


def test_units_are_active_from_their_threshold_on() -> None:
    video = make_video(AU, "a", 3, gaps=0)
    rows = np.tile(np.linspace(0, 1, U, dtype=np.float32), (3, 1))
    video = replace(video, p=dict.fromkeys(video.p, rows))
    assert np.array_equal(decision(AU).labels(video), rows >= 0.5)
    cuts = tuple(np.linspace(1, 0, U).round(2).tolist())
    assert np.array_equal(decision(AU, thresholds=cuts).labels(video), rows >= np.array(cuts))


@pytest.mark.parametrize(
    "made", [decision(VA, smoothing=2.0), decision(AU), decision(AU, thresholds=(0.25,) * U), decision(COMPOUND)]
)
def test_a_decision_survives_its_file_and_says_its_challenge(tmp_path: Path, made: Decision) -> None:
    made.save(tmp_path / "d.json")
    assert Decision.load(tmp_path / "d.json", made.task) == made
    assert json.loads((tmp_path / "d.json").read_text())["task"] == made.task.name
    with pytest.raises(DecisionError, match=f"d.json: task cannot be used; found '{made.task.name}'; expected expr"):
        Decision.load(tmp_path / "d.json")


def test_a_decision_in_words() -> None:
    assert str(decision(VA, smoothing=2.0)) == "audio 2 : visual 3, mean of 2 s"
    assert str(decision(AU, thresholds=(0.25,) * U)).endswith("no smoothing, thresholds " + " ".join(["0.25"] * U))


@pytest.mark.parametrize(
    ("task", "changes", "message"),
    [
        (VA, {"branches": {"a": Vote((0.0, 0.0), tau=0.5)}}, "a's tau cannot be used; .*0, as values have no prior"),
        (VA, {"branches": {"a": Vote((0.0, 1.5))}}, "a's prior cannot be used; .*2 numbers from -1 to 1"),
        (VA, {"thresholds": (0.5, 0.5)}, "thresholds cannot be used"),
        (EXPR, {"thresholds": (0.5,) * 8}, "thresholds cannot be used"),
        (AU, {"thresholds": (0.5,) * 11}, "thresholds cannot be used; .*a probability for each action unit, or null"),
        (AU, {"thresholds": (1.5,) * 12}, "thresholds cannot be used"),
        (AU, {"thresholds": 0.5}, "thresholds cannot be used"),
    ],
)
def test_what_cannot_be_decided_by_is_refused(task: Task, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(DecisionError, match=message):
        replace(decision(task), **changes)


@pytest.mark.parametrize("task", EVERY, ids=names)
def test_equal_weights_are_the_plain_mean(task: Task) -> None:
    video = make_video(task, "a", 20, gaps=0)
    made = equal_weights(make_table(task, [video]))
    assert made.probabilities(video) == pytest.approx((video.p["audio"] + video.p["visual"]) / 2)
    assert made.scores is None


# Tuning


@pytest.fixture(params=[VA, AU, COMPOUND], ids=names)
def outputs(request: pytest.FixtureRequest) -> Outputs:
    task = request.param
    nobody = make_video(task, "b", 10)
    marks = np.array([field.ignore_value for field in task.fields], nobody.label.dtype)
    nobody = replace(nobody, label=np.broadcast_to(marks if nobody.label.ndim > 1 else marks[0], nobody.label.shape))
    videos = [make_video(task, "a_left", 60), make_video(task, "a_right", 40, gaps=0.6), nobody]
    return make_table(task, [*videos, make_video(task, "c", 50), make_video(task, "d", 25, gaps=0.9)])


def test_the_tensor_holds_what_each_decision_scores(outputs: Outputs) -> None:
    videos, metric = outputs.videos(), metric_of(outputs.task)
    tensor = statistics_tensor(outputs, SMALL)
    for statistics, candidate in zip(tensor, SMALL.candidates(), strict=True):
        made = candidate.decision(outputs)
        if outputs.task == AU:
            made = replace(made, thresholds=metric.thresholds(statistics.sum(axis=0)))
        counted = metric.at_best_thresholds(statistics, np.broadcast_to(statistics.sum(axis=0), statistics.shape))
        assert counted == pytest.approx(made.statistics(videos), abs=1e-12)


def test_the_chosen_decision_is_the_best_and_scores_what_it_says(outputs: Outputs) -> None:
    metric, found = metric_of(outputs.task), search(outputs, SMALL)
    made = decide(outputs, found)
    assert made.task == outputs.task
    assert made.scores is not None
    assert made.estimate is not None
    pooled = made.statistics(outputs.videos()).sum(axis=0)
    assert made.scores[metric.key] == pytest.approx(float(metric.score(pooled)))
    assert made.scores[metric.key] == pytest.approx(found.scores.max())
    assert made.scores[metric.key] >= made.scores["equal"]
    assert (made.thresholds is not None) == (outputs.task == AU)
    assert all(vote.tau == 0 for vote in made.branches.values())
    nested = made.estimate[f"nested_{metric.key}"]
    assert made.estimate["optimism"] == pytest.approx(found.scores.max() - nested)
    low, high = made.estimate["interval"]
    assert low <= high


def test_each_recording_is_scored_by_what_the_others_choose(outputs: Outputs) -> None:
    """By hand: all of a decision, thresholds too, is chosen without the recording that it is scored on."""
    metric, found = metric_of(outputs.task), search(outputs, SMALL)
    videos = outputs.videos()
    groups = [[videos[0], videos[1]], [videos[3]], [videos[4]]]
    parts = []
    for held in groups:
        others = [video for group in groups if group is not held for video in group]
        table = make_table(outputs.task, others)
        made = decide(table, search(table, SMALL))
        parts.append(made.statistics(held).sum(axis=0))
    assert found.nested == pytest.approx(float(metric.score(np.sum(parts, axis=0))))


def test_thresholds_find_units_that_a_model_says_too_low() -> None:
    videos = [make_video(AU, name, 200, gaps=0) for name in "abcd"]
    timid = [replace(video, p={"clip": video.p["visual"] * 0.4}) for video in videos]
    made = decide(table := make_table(AU, timid), search(table))
    assert made.scores is not None
    assert made.estimate is not None
    assert made.thresholds is not None
    assert max(made.thresholds) < 0.4
    assert made.scores["alone"]["clip"] == 0
    assert made.estimate["nested_macro_f1"] > 0.9
    truth = np.concatenate([video.label for video in videos])
    labels = np.concatenate([made.labels(video) for video in table.videos()])
    expected = np.mean([f1_score(truth[:, unit], labels[:, unit]) for unit in range(U)])
    assert made.scores["macro_f1"] == pytest.approx(expected)


def test_a_planted_ratio_of_values_is_found() -> None:
    videos = []
    for name in "abcdef":
        video = make_video(VA, name, 150, gaps=0)
        truth = (3 * video.p["audio"] + video.p["visual"]) / 4
        videos.append(replace(video, label=truth.astype(np.float32)))
    made = decide(table := make_table(VA, videos), search(table))
    assert [vote.weight for vote in made.branches.values()] == [3, 1]
    assert made.smoothing == 0
    assert made.scores is not None
    assert made.scores["mean_ccc"] == pytest.approx(1)


def test_labels_of_the_table_are_one_column_a_field() -> None:
    assert list(label_columns(EXPR)) == list(label_columns(COMPOUND)) == ["label"]
    assert list(label_columns(VA)) == ["label_valence", "label_arousal"]
    assert list(label_columns(AU)) == [f"label_{unit}" for unit in AU.columns]
