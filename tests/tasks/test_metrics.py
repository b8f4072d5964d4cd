"""What is asked of every task and its metric, over the registry: another task is tested by being in it."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks.registry import METRICS, metric_of
from abaw_expr.tasks.statistics import bootstrap_interval, with_crop
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task, compound, task_of_columns
from tests.helpers.challenges import make_rows, make_truth

ALL = (*TASKS.values(), compound(("Fearfully_Surprised", "Happily_Surprised", "Sadly_Angry")))
every_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)
LENGTH = 400


def labels_of(task: Task, length: int = LENGTH, seed: int = 0) -> NDArray:
    """Annotations of frames, [T] or [T, F], some of them the ignore value."""
    truth = make_truth(task, length, np.random.default_rng(seed))
    return truth[:, 0] if task.one_class else truth


def annotated(task: Task, labels: NDArray) -> NDArray:
    """The frames of which every field is annotated."""
    kept = labels.reshape(len(labels), -1) != np.array([field.ignore_value for field in task.fields])
    return labels[kept.all(axis=1)]


def test_every_kind_of_task_has_a_metric_and_the_other_way_round() -> None:
    assert {task.kind for task in TASKS.values()} == METRICS.keys()
    assert len({metric_of(task).key for task in TASKS.values()}) == 2, "macro F1 of classes and of units, and mean CCC"


@every_task
def test_a_task_is_known_by_its_columns(task: Task) -> None:
    assert task_of_columns(task.columns) == task
    assert task.n_columns == len(task.columns) == len(set(task.columns))
    assert task.submission_header.endswith(task.header)


@every_task
def test_predicting_the_truth_scores_1(task: Task) -> None:
    metric, labels = metric_of(task), annotated(task, labels_of(task))
    statistics = metric.statistics([labels], [labels])
    assert metric.score(statistics.sum(axis=0)) == pytest.approx(1)
    assert metric.report(["v"], statistics).headline()


@every_task
def test_labels_are_rows_that_are_decided_as_the_labels(task: Task) -> None:
    metric, labels = metric_of(task), annotated(task, labels_of(task))
    rows = metric.from_labels(labels)
    assert rows.shape == (len(labels), task.n_columns)
    assert not any(wrong.any() for _, _, wrong in metric.row_faults(rows))
    np.testing.assert_allclose(metric.decide(rows), labels, atol=1e-6)


@pytest.mark.slow
@every_task
@given(cut=st.integers(1, LENGTH - 1), seed=st.integers(0, 99))
def test_statistics_add_up(task: Task, cut: int, seed: int) -> None:
    metric, truth, other = metric_of(task), labels_of(task, seed=seed), labels_of(task, seed=seed + 100)
    predicted = np.where(other == task.ignore_value, 0, other).astype(truth.dtype)
    whole = metric.count(truth, predicted)
    assert whole.shape[0] in (len(task.fields), task.n_columns)
    np.testing.assert_allclose(
        metric.count(truth[:cut], predicted[:cut]) + metric.count(truth[cut:], predicted[cut:]), whole, atol=1e-9
    )


@every_task
def test_frames_that_nobody_annotated_do_not_count(task: Task) -> None:
    metric, truth = metric_of(task), labels_of(task)
    predicted = np.where(truth == task.ignore_value, 0, truth).astype(truth.dtype)
    nothing = with_crop(truth, np.zeros(len(truth), bool), task)
    assert not metric.count(nothing, predicted).any()
    with pytest.raises(UserError, match="no annotated frame"):
        metric.report(["v"], metric.statistics([nothing], [predicted]))
    assert metric.annotated(metric.count(truth, predicted)).max() <= len(truth)


@every_task
def test_predictions_out_of_range_are_refused(task: Task) -> None:
    metric, labels = metric_of(task), annotated(task, labels_of(task))
    with pytest.raises(UserError):
        metric.count(labels, labels + 100)
    with pytest.raises(UserError):
        metric.count(labels, labels[:-1])


@every_task
def test_the_unknown_prior_is_a_prior_and_others_are_not(task: Task) -> None:
    metric = metric_of(task)
    assert metric.is_prior(metric.unknown_prior)
    for wrong in (None, [], [2.0] * task.n_columns, [*metric.unknown_prior, 0.0], ["0"] * task.n_columns):
        assert not metric.is_prior(wrong)


@every_task
def test_better_predictions_score_higher_and_reports_are_json(task: Task) -> None:
    metric, rng = metric_of(task), np.random.default_rng(0)
    truths = [annotated(task, labels_of(task, seed=seed)) for seed in range(4)]
    scores, reports = [], []
    for noise in (0.0, 0.5, 1.0):
        chance = [make_rows(task, truth[rng.permutation(len(truth))].reshape(len(truth), -1), rng) for truth in truths]
        rows = [(1 - noise) * metric.from_labels(t) + noise * c for t, c in zip(truths, chance, strict=True)]
        statistics = metric.statistics(truths, [metric.decide(own) for own in rows])
        low, high = bootstrap_interval(statistics, metric.score, seed=0)
        score = float(metric.score(statistics.sum(axis=0)))
        assert low <= score + 0.05
        assert score - 0.05 <= high
        scores.append(score)
        reports.append(metric.report(["a", "b", "c", "d"], statistics))
    assert scores[0] > scores[2]
    assert scores[0] >= scores[1] >= scores[2]
    assert json.loads(json.dumps(reports[1].to_json()))[metric.key] == pytest.approx(scores[1])


@every_task
def test_thresholds_are_best_on_what_they_were_chosen_on(task: Task) -> None:
    metric, truth = metric_of(task), labels_of(task)
    rows = make_rows(task, truth.reshape(len(truth), -1), np.random.default_rng(1))
    tuned = metric.tuning_counter(truth)(rows[None])[0]
    decided = metric.count(truth, metric.decide(rows, metric.thresholds(tuned)))
    np.testing.assert_allclose(metric.at_best_thresholds(tuned, tuned), decided)
    assert metric.tuned_score(tuned) == pytest.approx(float(metric.score(decided)))
    assert metric.tuned_score(tuned) >= metric.score(metric.count(truth, metric.decide(rows))) - 1e-12


# What training asks of a metric


def test_the_mean_label_of_classes_is_the_weight_of_each() -> None:
    labels, weights = np.array([3, -1, 0, 3, 7], np.int8), np.array([0.1, 0.4, 0.2, 0.25, 0.05])
    assert metric_of(EXPR).mean_label(labels, weights) == pytest.approx([0.2, 0, 0, 0.35, 0, 0, 0, 0.05])


def test_the_mean_label_of_values_is_of_those_that_are_annotated() -> None:
    labels = np.array([[0.5, -5], [-1, 0.25], [-5, -5], [0.25, -0.75]], np.float32)
    weights = np.array([0.2, 0.1, 0.5, 0.2])
    expected = [(0.2 * 0.5 - 0.1 + 0.2 * 0.25) / 0.5, (0.1 * 0.25 - 0.2 * 0.75) / 0.3]
    assert metric_of(VA).mean_label(labels, weights) == pytest.approx(expected)


def test_the_mean_label_of_units_is_the_fraction_of_active_frames_that_are_annotated() -> None:
    labels = np.zeros((4, 12), np.int8)
    labels[:, 0], labels[:, 1], labels[:, 2] = [1, 0, -1, 1], [-1, -1, 1, 0], -1
    found = metric_of(AU).mean_label(labels, np.array([0.1, 0.2, 0.3, 0.4]))
    assert found == pytest.approx([0.5 / 0.7, 0.3 / 0.7, 0] + [0] * 9), "0 where nothing is annotated"


@every_task
@given(seed=st.integers(0, 99), scale=st.floats(0.1, 10))
def test_a_mean_label_is_a_prior_that_depends_on_annotated_labels_alone(task: Task, seed: int, scale: float) -> None:
    metric, labels = metric_of(task), labels_of(task, seed=seed)
    marks = np.array([field.ignore_value for field in task.fields], labels.dtype)
    rng = np.random.default_rng(seed)
    hidden = np.where(rng.random(labels.shape) < 0.3, marks[0] if task.one_class else marks, labels)
    weights = rng.random(len(labels))
    known = (hidden.reshape(len(labels), -1) != marks).any(axis=1)
    weights /= weights[known].sum()
    found = metric.mean_label(hidden, weights)
    assert metric.is_prior(found)
    assert found == pytest.approx(metric.mean_label(hidden[known], weights[known]))
    if not task.one_class:
        assert found == pytest.approx(metric.mean_label(hidden, scale * weights))


def test_the_strata_of_classes_are_the_classes() -> None:
    labels = np.array([7, 0, 3, 3], np.int8)
    assert metric_of(EXPR).strata(labels).tolist() == [7, 0, 3, 3]
    assert metric_of(EXPR).has_strata


def test_the_strata_of_values_are_the_joint_bins_of_five_each() -> None:
    """Bins of 0.4 from -1 to 1, the upper end in the last; valence counts ones, arousal fives."""
    edges = [-1, -0.61, -0.59, -0.21, -0.19, 0, 0.19, 0.21, 0.59, 0.61, 1]
    bins = [0, 0, 1, 1, 2, 2, 2, 3, 3, 4, 4]
    pairs = [(i, j) for i in range(len(edges)) for j in range(len(edges))]
    labels = np.array([(edges[i], edges[j]) for i, j in pairs], np.float32)
    found = metric_of(VA).strata(labels)
    assert found.tolist() == [bins[i] + 5 * bins[j] for i, j in pairs]
    assert set(found.tolist()) == set(range(25))
    assert metric_of(VA).has_strata


def test_a_value_that_is_not_annotated_is_in_the_lowest_bin() -> None:
    labels = np.array([[-5, 1], [1, -5], [-5, -5], [-1, 1]], np.float32)
    assert metric_of(VA).strata(labels).tolist() == [20, 4, 0, 20]


def test_units_have_one_stratum() -> None:
    assert metric_of(AU).strata(labels_of(AU)).tolist() == [0] * LENGTH
    assert not metric_of(AU).has_strata


@every_task
def test_strata_are_counted_from_zero(task: Task) -> None:
    strata = metric_of(task).strata(annotated(task, labels_of(task)))
    assert strata.dtype == np.intp
    assert strata.min() >= 0
    assert strata.max() < max(25, task.n_columns)


def test_the_score_of_each_class_is_its_f1() -> None:
    """Of true 0, 0, 1, 1, 1, 7 and predicted 0, 1, 1, 1, 0, 2: 2 TP / (2 TP + FP + FN); -1 does not count."""
    metric = metric_of(EXPR)
    truth = np.array([0, 0, 1, -1, 1, 1, 7, -1], np.int8)
    predicted = np.array([0, 1, 1, 5, 1, 0, 2, 0])
    found = metric.by_column(metric.count(truth, predicted))
    assert found.tolist() == pytest.approx([2 / 4, 4 / 6, 0, 0, 0, 0, 0, 0])
    assert found.mean() == pytest.approx(float(metric.score(metric.count(truth, predicted))))


def test_the_score_of_each_value_is_its_ccc() -> None:
    """Valence 0, 0.5, 1 and 0.5, 0.5, 0.8: covariance 0.05, variances 1/6 and 0.02, means 0.1 apart."""
    metric = metric_of(VA)
    truth = np.array([[0, 0.3], [0.5, -5], [-5, 0.3], [1, -5]], np.float32)
    predicted = np.array([[0.5, 0.1], [0.5, 0.9], [-1, 0.2], [0.8, -0.9]], np.float32)
    found = metric.by_column(metric.count(truth, predicted))
    assert found.tolist() == pytest.approx([0.1 / (1 / 6 + 0.02 + 0.01), 0], abs=1e-6), "arousal does not vary"
    assert found.mean() == pytest.approx(float(metric.score(metric.count(truth, predicted))))


def test_the_score_of_each_unit_is_its_f1() -> None:
    """AU1: one hit, one false alarm, one miss; AU2: two hits; AU4: a miss; the others are never active."""
    metric = metric_of(AU)
    truth, predicted = np.zeros((5, 12), np.int8), np.zeros((5, 12), np.int64)
    truth[:, 0], predicted[:, 0] = [1, 0, 1, -1, -1], [1, 1, 0, 1, 0]
    truth[:, 1], predicted[:, 1] = [1, -1, -1, 1, 0], [1, 1, 1, 1, 0]
    truth[:, 2] = [1, 0, -1, -1, 0]
    found = metric.by_column(metric.count(truth, predicted))
    assert found.tolist() == pytest.approx([2 / 4, 1, 0] + [0] * 9)
    assert found.mean() == pytest.approx(float(metric.score(metric.count(truth, predicted))))


@every_task
def test_the_score_of_columns_is_that_of_each_of_many(task: Task) -> None:
    """Statistics of several videos at once, and the mean over the columns is the score."""
    metric = metric_of(task)
    truths = [annotated(task, labels_of(task, seed=seed)) for seed in range(3)]
    statistics = metric.statistics(truths, [np.roll(truth, 1, axis=0) for truth in truths])
    found = metric.by_column(statistics)
    assert found.shape == (3, task.n_columns)
    for one, own in zip(found, statistics, strict=True):
        assert one.tolist() == metric.by_column(own).tolist()
    assert found.mean(axis=1) == pytest.approx(metric.score(statistics))
