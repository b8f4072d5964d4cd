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
from abaw_expr.tasks.task import TASKS, Task, compound, task_of_columns
from tests.helpers.challenges import make_rows, make_truth

ALL = (*TASKS, compound(("Fearfully_Surprised", "Happily_Surprised", "Sadly_Angry")))
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
    assert {task.kind for task in TASKS} == METRICS.keys()
    assert len({metric_of(task).key for task in TASKS}) == 2, "macro F1 of classes and of units, and mean CCC"


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
