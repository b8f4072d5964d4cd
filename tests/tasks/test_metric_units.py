"""F1 of action units against scikit-learn, and its conventions."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import f1_score, multilabel_confusion_matrix, precision_recall_fscore_support

from abaw_expr.errors import UserError
from abaw_expr.tasks.metric_units import (
    CUTS,
    at_cuts,
    best_cuts,
    cut_counter,
    f1_by_unit,
    mean_f1,
    unit_counts,
    unit_report,
)
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import resample, sum_recordings
from abaw_expr.tasks.task import AU

U = len(AU.fields)
UNTIMED = settings(deadline=None, max_examples=30)


def draw(seed: int, frames: int) -> tuple[np.ndarray, np.ndarray]:
    """Marks of units, each missing by itself, and probabilities that know a little of them; some units are rare."""
    rng = np.random.default_rng(seed)
    truth = (rng.random((frames, U)) < np.linspace(0, 0.6, U)).astype(np.int8)
    p = np.clip(0.3 * truth + rng.random((frames, U)) * 0.7, 0, 1).astype(np.float32)
    truth[rng.random((frames, U)) < 0.2] = -1
    return truth, p


def reference(truth: np.ndarray, predicted: np.ndarray) -> list[float]:
    return [
        f1_score(truth[kept, unit], predicted[kept, unit], zero_division=0) if kept.any() else 0.0
        for unit in range(U)
        for kept in [truth[:, unit] != -1]
    ]


@pytest.mark.slow
@UNTIMED
@given(st.integers(0, 2**32 - 1), st.integers(1, 50))
def test_f1_is_scikit_learns(seed: int, frames: int) -> None:
    truth, p = draw(seed, frames)
    found = unit_counts(truth, p >= 0.5, AU)
    assert f1_by_unit(found) == pytest.approx(reference(truth, p >= 0.5))
    assert mean_f1(found) == pytest.approx(np.mean(reference(truth, p >= 0.5)))


def test_counts_are_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    truth, predicted = rng.integers(0, 2, (2, 5000, U))
    assert (
        unit_counts(truth, predicted, AU).tolist()
        == multilabel_confusion_matrix(truth, predicted).reshape(U, 4).tolist()
    )


def test_a_unit_that_is_never_active_and_never_predicted_counts_zero() -> None:
    truth, predicted = np.zeros((10, U), int), np.zeros((10, U), int)
    truth[:, 3] = predicted[:, 3] = 1
    assert f1_by_unit(unit_counts(truth, predicted, AU)).tolist() == [0.0] * 3 + [1.0] + [0.0] * 8
    assert mean_f1(unit_counts(truth, predicted, AU)) == 1 / U
    predicted[0, 5] = 1  # never active, and predicted: 0 too
    assert mean_f1(unit_counts(truth, predicted, AU)) == 1 / U


def test_a_frame_counts_for_the_units_that_are_marked() -> None:
    truth = np.full((2, U), -1)
    truth[0, 2], truth[1] = 1, 0
    counts = unit_counts(truth, np.ones((2, U), int), AU)
    assert counts.sum(axis=-1).tolist() == [1, 1, 2] + [1] * 9
    assert counts[2].tolist() == [0, 1, 0, 1]


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        (2, 1, "a true AU4 of an annotated frame is out of range; found 2.0; expected an integer from 0 to 1"),
        (1, -1, "a predicted AU4 .*found -1"),
        (1, 0.5, "a predicted AU4 .*found 0.5"),
    ],
)
def test_marks_that_are_none_are_refused(truth: float, predicted: float, message: str) -> None:
    tables = np.zeros((2, 3, U))
    tables[0, 1, 2], tables[1, 1, 2] = truth, predicted
    with pytest.raises(UserError, match=message):
        unit_counts(tables[0], tables[1], AU)


@UNTIMED
@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
def test_counts_of_all_thresholds_are_those_of_each(seed: int, frames: int) -> None:
    truth, p = draw(seed, frames)
    p[seed % frames] = np.random.default_rng(seed).integers(0, 17, U) / 16  # on the thresholds themselves
    every = cut_counter(truth, AU)(p[None])[0]
    for place, cut in enumerate(CUTS):
        counts = unit_counts(truth, p >= cut, AU)
        assert at_cuts(every, np.full(U, place)).tolist() == counts.tolist()
    expected = np.max([f1_by_unit(unit_counts(truth, p >= cut, AU)) for cut in CUTS], axis=0)
    assert f1_by_unit(at_cuts(every, best_cuts(every))).tolist() == expected.tolist()


def test_of_thresholds_alike_the_simplest_is_chosen() -> None:
    assert CUTS[:3] == (0.5, 0.4375, 0.5625)
    assert len(set(CUTS)) == 15
    truth = np.tile([[0], [1]], (1, U))
    p = np.tile(np.array([[0.1], [0.9]], np.float32), (1, U))
    assert metric_of(AU).thresholds(cut_counter(truth, AU)(p[None])[0]) == (0.5,) * U


def test_pools_and_resamples_are_sums() -> None:
    videos = ["a_left", "a_right", "b", "c"]
    parts = [draw(seed, 40) for seed in range(4)]
    counts = np.stack([unit_counts(truth, p >= 0.5, AU) for truth, p in parts])
    by_recording = sum_recordings(videos, counts)
    draws = np.random.default_rng(3).multinomial(3, np.full(3, 1 / 3), 15)
    expected = []
    for times in draws:
        drawn = [parts[i] for group, count in zip([[0, 1], [2], [3]], times, strict=True) for i in group * count]
        truth, p = (np.concatenate(column) for column in zip(*drawn, strict=True))
        expected.append(np.mean(reference(truth, p >= 0.5)))
    assert resample(by_recording, mean_f1, 3, 15) == pytest.approx(expected)


def test_a_report_holds_scikit_learns_figures() -> None:
    videos = ["a", "b", "nobody"]
    truths, p = zip(*(draw(seed, 90) for seed in range(3)), strict=True)
    truths[2][:] = -1
    predictions = [rows >= 0.5 for rows in p]
    made = unit_report(AU, videos, metric_of(AU).statistics(truths, predictions))
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    for unit, score in enumerate(made.units):
        kept = truth[:, unit] != -1
        expected = precision_recall_fscore_support(
            truth[kept, unit], predicted[kept, unit], average="binary", zero_division=0
        )
        assert (score.precision, score.recall, score.f1) == pytest.approx(expected[:3])
        assert (score.name, score.support) == (AU.columns[unit], (truth[:, unit] == 1).sum())
    assert made.macro_f1 == pytest.approx(np.mean([score.f1 for score in made.units]))
    assert [video.name for video in made.videos] == ["a", "b"]
    occurs = (truths[0] == 1).any(axis=0) | (predictions[0] & (truths[0] != -1)).any(axis=0)
    assert made.videos[0].macro_f1 == pytest.approx(np.mean(np.array(reference(truths[0], predictions[0]))[occurs]))
    assert made.interval is not None
    value = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert list(value) == ["macro_f1", "interval", "frames", "units", "videos"]
    with pytest.raises(UserError, match="no annotated frame"):
        unit_report(AU, ["a"], np.zeros((1, U, 4), int))
