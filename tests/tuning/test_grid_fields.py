"""The grid of values and action units: each candidate has the statistics of its decision, and those of plain loops."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs
from abaw_expr.tasks.metric_units import CUTS
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import sum_recordings
from abaw_expr.tasks.task import AU, VA, Task
from tests.helpers.challenges import make_table, make_video
from tuning import grid_fields
from tuning.grid import statistics_tensor
from tuning.selection import Search, search
from tuning.space import NO_SMOOTHING, Candidate, Smoothing, Space

WINDOWS = (NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0, "median"))
BOTH = pytest.mark.parametrize("task", [VA, AU], ids=lambda task: task.name)
UNTIMED = settings(deadline=None, max_examples=10)
CLOSE = 1e-5
"""More than the rounding of rows to float32 moves them."""


def drawn(task: Task, branches: int, seed: int, gaps: float) -> Outputs:
    """A table with missing rows, frames without any row, a video without any, and frames annotated in part or not."""
    rng, names = np.random.default_rng(seed), [f"b{branch}" for branch in range(branches)]
    videos = [
        make_video(task, name, int(rng.integers(1, 40)), seed, gaps, names) for name in ("a_left", "a_right", "b")
    ]
    videos.append(make_video(task, "c", 7, seed, 1.0, names))
    for video in videos[:2]:
        empty = rng.random(len(video.time)) < gaps / 2
        for rows in video.p.values():
            rows[empty] = np.nan
    lone = rng.integers(branches)  # of the video b only one branch has rows
    videos[2] = replace(
        videos[2], p={n: r if b == lone else r * np.nan for b, (n, r) in enumerate(videos[2].p.items())}
    )
    prior = rng.uniform(0, 1, (branches, task.n_columns))
    sources = {name: Source("run", tuple(row.tolist())) for name, row in zip(names, prior, strict=True)}
    return replace(make_table(task, videos), branches=sources)


tables = given(
    branches=st.integers(1, 4),
    seed=st.integers(0, 2**32 - 1),
    gaps=st.sampled_from((0.0, 0.2, 0.7)),
    missing=st.sampled_from(("smoothed", "masked")),
)


def space_of(branches: int, seed: int, missing: str) -> Space:
    """A space with a few ratios, the last of which leave branches out."""
    space = Space(branches=branches, smoothing=WINDOWS, tau=(0.0,), missing=missing, zero=True)
    kept = np.random.default_rng(seed).choice(len(space.ratios), min(4, len(space.ratios)), replace=False).tolist()
    last = range(max(0, len(space.ratios) - 2), len(space.ratios))
    return replace(space, weights=tuple(space.ratios[index] for index in sorted({*kept, *last})))


def decided(outputs: Outputs, space: Space, candidate: Candidate) -> Decision:
    return replace(candidate.decision(outputs), missing=space.missing)


def by_decision(metric: Any, made: Decision, videos: Sequence[VideoOutputs]) -> np.ndarray:
    """The statistics of a decision, of units at each threshold: [V, F, K] or [V, H, U, 4]."""
    if metric.task == VA:
        return made.statistics(videos)
    cuts = [replace(made, thresholds=(cut,) * len(AU.fields)).statistics(videos) for cut in CUTS]
    return np.stack(cuts, axis=1)


def unfolded(metric: Any, statistics: np.ndarray) -> np.ndarray:
    """Tuning statistics [V, F, K] in the form of `by_decision`."""
    if metric.task == VA:
        return statistics
    by_truth = statistics.reshape(len(statistics), len(AU.fields), 2, 1 + len(CUTS))
    frames, active = by_truth[..., :1], by_truth[..., 1:]  # [V, U, truth, 1], [V, U, truth, H]
    pairs = np.stack([frames - active, active], axis=-1)  # [V, U, truth, H, prediction]
    return pairs.transpose(0, 3, 1, 2, 4).reshape(len(statistics), len(CUTS), len(AU.fields), 4)


@pytest.mark.slow
@BOTH
@UNTIMED
@tables
def test_each_candidate_has_the_statistics_of_its_decision(
    task: Task, branches: int, seed: int, gaps: float, missing: str
) -> None:
    """Equal bit by bit, those of values too, so that the choice is the same in every case."""
    outputs, space, metric = drawn(task, branches, seed, gaps), space_of(branches, seed, missing), metric_of(task)
    videos, tensor = outputs.videos(), statistics_tensor(outputs, space)
    for candidate, statistics in zip(space.candidates(), tensor, strict=True):
        expected = by_decision(metric, decided(outputs, space, candidate), videos)
        np.testing.assert_array_equal(unfolded(metric, statistics), expected)


@pytest.mark.slow
@BOTH
@UNTIMED
@tables
def test_each_candidate_has_the_statistics_of_plain_loops(
    task: Task, branches: int, seed: int, gaps: float, missing: str
) -> None:
    outputs, space = drawn(task, branches, seed, gaps), space_of(branches, seed, missing)
    videos, tensor = outputs.videos(), statistics_tensor(outputs, space)
    rng = np.random.default_rng(seed)
    for number in rng.choice(len(tensor), min(4, len(tensor)), replace=False):
        candidate = space.candidates()[number]
        for video, statistics in zip(videos, tensor[number], strict=True):
            rows = looped_rows(outputs, video, candidate, missing)
            for field in range(len(task.fields)):
                pairs = [(x, y) for x, y in zip(video.label[:, field].tolist(), rows[:, field], strict=True) if x >= -1]
                if task == VA:
                    np.testing.assert_allclose(statistics[field], looped_moments(pairs), rtol=1e-5, atol=1e-5)
                else:
                    check_looped_counts(statistics[field].reshape(2, -1), pairs)


def looped_moments(pairs: list[tuple[float, float]]) -> list[float]:
    sums = [0.0] * 6
    for x, y in pairs:
        for index, value in enumerate((1, x, y, x * x, y * y, x * y)):
            sums[index] += value
    return sums


def check_looped_counts(statistics: np.ndarray, pairs: list[tuple[int, float]]) -> None:
    """Counts of [truth, all frames and each threshold]; a probability next to a threshold may be on either side."""
    for truth in (0, 1):
        own = [p for x, p in pairs if x == truth]
        assert statistics[truth, 0] == len(own)
        for place, cut in enumerate(CUTS, start=1):
            surely, perhaps = (sum(bool(p >= cut + margin) for p in own) for margin in (CLOSE, -CLOSE))
            assert surely <= int(statistics[truth, place]) <= perhaps


def looped_rows(outputs: Outputs, video: VideoOutputs, candidate: Candidate, missing: str) -> np.ndarray:
    """The fused rows of a candidate, a frame at a time in float64: [T, C]."""
    voting = [(name, w) for name, w in zip(outputs.branches, candidate.weights, strict=True) if w]
    smoothed = {name: looped_smoothing(video.p[name], video.time, candidate.smoothing, missing) for name, _ in voting}
    rows = {}
    for frame in range(len(video.time)):
        own = [(smoothed[name][frame], w) for name, w in voting if not np.isnan(smoothed[name][frame][0])]
        if own:
            rows[frame] = np.average([row for row, _ in own], axis=0, weights=[w for _, w in own])
    if not rows:
        priors = [outputs.branches[name].prior for name, _ in voting]
        return np.tile(np.average(priors, axis=0, weights=[w for _, w in voting]), (len(video.time), 1))
    filled = []
    for frame in range(len(video.time)):
        before, after = [f for f in rows if f <= frame], [f for f in rows if f >= frame]
        first, last = before[-1] if before else after[0], after[0] if after else before[-1]
        span = video.time[last] - video.time[first]
        weight = (video.time[frame] - video.time[first]) / span if span else 0
        filled.append((1 - weight) * rows[first] + weight * rows[last])
    return np.array(filled)


def looped_smoothing(p: np.ndarray, time: np.ndarray, smoothing: Smoothing, missing: str) -> list[np.ndarray]:
    """Rows [T, C] smoothed a frame at a time; NaN where missing."""
    seconds, smoother = smoothing
    present = [frame for frame in range(len(p)) if not np.isnan(p[frame, 0])]
    rows = []
    rate = (len(time) - 1) / max(time[-1] - time[0], 1e-6)
    half = int(seconds / 2 * rate + 1e-6)
    for frame in range(len(p)):
        if seconds == 0:
            window = [frame] if frame in present else []
        elif smoother == "mean":
            window = [other for other in present if abs(time[other] - time[frame]) <= seconds / 2 + 1e-9]
        else:
            window = [other for other in present if abs(other - frame) <= half]
        if missing == "masked" and frame not in present:
            window = []
        statistic = np.mean if smoother == "mean" else np.median
        rows.append(statistic(p[window].astype(np.float64), axis=0) if window else np.full(p.shape[1], np.nan))
    return rows


@BOTH
def test_the_chosen_candidate_is_that_of_the_decisions(task: Task) -> None:
    metric = metric_of(task)
    for seed in range(5):
        outputs, space = drawn(task, 2, seed, 0.2), space_of(2, seed, "smoothed")
        videos = outputs.videos()
        scores = []
        for candidate in space.candidates():
            pooled = by_decision(metric, decided(outputs, space, candidate), videos).sum(axis=0)
            scores.append(float(metric.score(pooled)) if task == VA else best_of_cuts(pooled))
        found = search(outputs, space)
        np.testing.assert_allclose(found.scores, scores, rtol=1e-12)
        assert found.choose(found.scores) == np.argmax(scores)


def best_of_cuts(counts: np.ndarray) -> float:
    """The mean over units of the best F1 of any threshold, from [H, U, 4]."""
    best = []
    for unit in range(counts.shape[1]):
        f1 = [2 * tp / (2 * tp + fp + fn) if tp else 0.0 for _, fp, fn, tp in counts[:, unit].tolist()]
        best.append(max(f1))
    return float(np.mean(best))


@BOTH
def test_the_number_of_ratios_at_a_time_makes_no_difference(task: Task) -> None:
    outputs, space = drawn(task, 3, 0, 0.2), space_of(3, 0, "masked")
    together = statistics_tensor(outputs, space)
    with patch.object(grid_fields, "NUMBERS_AT_A_TIME", 1):
        np.testing.assert_array_equal(statistics_tensor(outputs, space), together)


@BOTH
def test_the_table_is_left_as_it_was(task: Task) -> None:
    outputs = drawn(task, 2, 1, 0.3)
    before = outputs.table.copy()
    statistics_tensor(outputs, space_of(2, 1, "masked"))
    assert outputs.table.equals(before)


@BOTH
def test_the_nested_estimate_is_that_of_the_statistics(task: Task) -> None:
    outputs, space = drawn(task, 2, 3, 0.2), space_of(2, 3, "smoothed")
    counts = sum_recordings([video.name for video in outputs.videos()], statistics_tensor(outputs, space))
    assert search(outputs, space).nested == Search(space, counts, "best", task).nested
