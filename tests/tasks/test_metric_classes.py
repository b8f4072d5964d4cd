"""Scoring against scikit-learn, and its conventions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import confusion_matrix, f1_score, precision_recall_fscore_support

from abaw_expr.errors import UserError
from abaw_expr.tasks.metric_classes import class_report, confusion, f1_by_class, macro_f1
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import bootstrap_interval, sum_recordings
from abaw_expr.tasks.task import EXPR

C = EXPR.n_columns
UNTIMED = settings(deadline=None)
CLASSES = range(C)
LABELS = st.lists(st.tuples(st.integers(-1, C - 1), st.integers(0, C - 1)), min_size=1, max_size=60)


def reference(truth: np.ndarray, predicted: np.ndarray) -> float:
    kept = truth >= 0
    return f1_score(truth[kept], predicted[kept], average="macro", labels=CLASSES, zero_division=0)


@pytest.mark.slow
@UNTIMED
@given(LABELS.filter(lambda pairs: any(truth >= 0 for truth, _ in pairs)))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, predicted = np.array(pairs).T
    assert macro_f1(confusion(truth, predicted, C)) == pytest.approx(reference(truth, predicted), abs=1e-12)


def test_macro_f1_is_scikit_learns_on_many_frames() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(-1, C, 50_000), rng.integers(0, C, 50_000)
    counts = confusion(truth, predicted, C)
    assert macro_f1(counts) == pytest.approx(reference(truth, predicted), abs=1e-12)
    assert np.array_equal(counts, confusion_matrix(truth[truth >= 0], predicted[truth >= 0], labels=CLASSES))


def test_a_class_with_neither_truth_nor_prediction_counts_zero() -> None:
    assert macro_f1(confusion([4, 4, 4], [4, 4, 4], C)) == 1 / C
    assert f1_by_class(confusion([0, 0, 1], [0, 1, 1], C)).tolist() == [2 / 3, 2 / 3, 0, 0, 0, 0, 0, 0]


def test_frames_that_nobody_annotated_are_dropped_whatever_is_predicted_for_them() -> None:
    assert confusion([-1, 2, -1], [7, 3, -1], C).sum() == 1
    assert not confusion([-1, -1], [0, 1], C).any()
    assert not confusion([], [], C).any()


def test_rows_are_truth_and_columns_prediction() -> None:
    counts = confusion([1, 1, 0], [2, 2, 0], C)
    assert counts.dtype == np.int64
    assert (counts[1, 2], counts[0, 0], counts[2, 1]) == (2, 1, 0)


def test_scores_of_many_matrices_are_scores_of_each() -> None:
    stack = np.random.default_rng(1).integers(0, 5, (3, 4, C, C))
    each = [[macro_f1(one) for one in row] for row in stack]
    assert macro_f1(stack) == pytest.approx(np.array(each))
    assert f1_by_class(stack).shape == (3, 4, C)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([0, 1], [0], "differ in length"),
        ([8], [0], "true label .* not a class; found 8"),
        ([-2], [0], "true label .* not a class; found -2"),
        ([3], [-1], r"predicted label .* not a class; found -1; expected one of 0..7"),
        ([3], [1.5], "predicted label .* not a class; found 1.5"),
    ],
)
def test_labels_that_are_no_class_are_refused(truth: list[int], predicted: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        confusion(truth, predicted, C)


def test_people_of_one_recording_are_added_up_and_recordings_without_annotation_left_out() -> None:
    videos = ["a", "a_right", "b_left", "c", "d-2", "d"]
    one = np.arange(6)[:, None, None] * np.ones((6, C, C), dtype=np.int64)
    one[3] = 0
    sums = sum_recordings(videos, one)
    assert sums[:, 0, 0].tolist() == [0 + 1, 2, 5, 4]
    assert np.array_equal(sum_recordings(videos, np.stack([one, one]))[1], sums)


def test_the_interval_holds_the_figure_repeats_with_its_seed_and_narrows_with_its_level() -> None:
    counts = np.random.default_rng(2).integers(0, 9, (30, C, C))
    low, high = bootstrap_interval(counts, macro_f1, seed=1)
    assert low < macro_f1(counts.sum(axis=0)) < high
    assert bootstrap_interval(counts, macro_f1, seed=1) == (low, high)
    inner_low, inner_high = bootstrap_interval(counts, macro_f1, seed=1, level=0.5)
    assert low < inner_low < inner_high < high


def test_recordings_that_are_all_alike_have_an_interval_of_one_point() -> None:
    counts = np.repeat(np.random.default_rng(3).integers(0, 9, (1, C, C)), 10, axis=0)
    assert bootstrap_interval(counts, macro_f1, seed=0) == pytest.approx([macro_f1(counts[0])] * 2)


def test_a_report_holds_scikit_learns_figures() -> None:
    rng = np.random.default_rng(4)
    truths = [rng.integers(-1, C, size) for size in (40, 60, 30)] + [np.full(5, -1)]
    predictions = [rng.integers(0, C, len(truth)) for truth in truths]
    counts = metric_of(EXPR).statistics(truths, predictions)
    made = class_report(EXPR.columns, ["a_left", "a", "b", "c"], counts)

    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    kept = truth >= 0
    expected = precision_recall_fscore_support(truth[kept], predicted[kept], labels=CLASSES, zero_division=0)
    scores = zip(*((one.precision, one.recall, one.f1, one.support) for one in made.classes), strict=True)
    for ours, theirs in zip(scores, expected, strict=True):
        assert ours == pytest.approx(theirs)
    assert [one.name for one in made.classes] == list(EXPR.columns)
    assert made.macro_f1 == pytest.approx(reference(truth, predicted))
    assert made.frames == kept.sum()
    assert made.accuracy == pytest.approx((truth == predicted)[kept].mean())
    assert made.interval is not None
    assert np.array_equal(made.confusion, counts.sum(axis=0))


def test_a_video_is_scored_on_the_classes_that_occur_in_it() -> None:
    counts = metric_of(EXPR).statistics(
        [np.array([0, 0, 4, 4]), np.array([-1])], [np.array([0, 0, 4, 4]), np.array([3])]
    )
    made = class_report(EXPR.columns, ["a", "b"], counts)
    assert [(one.name, one.frames, one.accuracy, one.macro_f1) for one in made.videos] == [("a", 4, 1.0, 1.0)]
    assert made.interval is None
    assert made.macro_f1 == 2 / C


def test_a_report_is_json() -> None:
    made = class_report(EXPR.columns, ["a"], confusion([0, 1], [0, 2], C)[None])
    value = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert value["classes"][0] == {"name": "Neutral", "precision": 1.0, "recall": 1.0, "f1": 1.0, "support": 1}
    assert value["confusion"][1][2] == 1


def test_nothing_annotated_cannot_be_reported() -> None:
    with pytest.raises(UserError, match="no annotated frame"):
        class_report(EXPR.columns, ["a"], np.zeros((1, C, C), dtype=np.int64))
