"""Statistics of frames and bootstrap intervals of scores, shared by the metrics of all tasks.

Conventions
- The statistics of frames are the numbers [..., F, K] from which a metric is computed; they are added over frames,
  videos and recordings.
- The people of one recording (`_left`, `_right`) are not independent, so intervals resample recordings, not videos.

Shapes: T frames, V videos, R recordings, S runs, F fields with K statistics each; of classes F and K are both C.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import Field, Task

Counts = NDArray[np.int64]
Values = NDArray[np.float64]
Statistics = NDArray[Any]
"""int64 counts or float64 sums."""
Score = Callable[[Statistics], Values]
"""A function from statistics [..., F, K] to the scores [...] of a metric."""
_CHUNK = 10**7
"""Number of float64 values that a bootstrap holds in memory at once, 80 MB."""


def sum_recordings(videos: Sequence[str], statistics: Statistics) -> Statistics:
    """Adds the statistics of each recording's videos: [..., V, F, K] -> [..., R, F, K], recordings sorted by name.

    A recording without an annotated frame is left out: it has no effect on the score but would count when resampled.
    """
    names, group = np.unique([recording_of(video) for video in videos], return_inverse=True)
    sums = np.zeros((*statistics.shape[:-3], len(names), *statistics.shape[-2:]), statistics.dtype)
    for video, recording in enumerate(group):
        sums[..., recording, :, :] += statistics[..., video, :, :]
    other_axes = tuple(axis for axis in range(sums.ndim) if axis != sums.ndim - 3)
    annotated = sums.any(axis=other_axes)
    return sums if annotated.all() else sums[..., annotated, :, :]  # a copy of these would be as large as the tensor


def bootstrap_interval(
    statistics: Statistics, score: Score, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of a score under resampling of recordings with replacement: [R, F, K] -> (low, high).

    Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. A resample is the number of times that each
    recording was drawn; its statistics are the sum of the recordings' statistics weighted by these numbers. For several
    runs, [S, R, F, K], the interval is that of their mean score.
    """
    scores = _mean_of_runs(resample(statistics, score, seed, resamples))
    low, high = np.quantile(scores, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    statistics: Statistics,
    others: Statistics,
    score: Score,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
) -> tuple[float, float, float]:
    """The score minus that of `others`, and the percentile interval of this difference: (difference, low, high).

    Both are [R, F, K] of the same recordings, or [S, R, F, K] of several runs, whose scores are averaged. The bootstrap
    is paired: a resample draws the same recordings for both.
    """
    difference = score(statistics.sum(axis=-3)).mean() - score(others.sum(axis=-3)).mean()
    first, second = (_mean_of_runs(resample(one, score, seed, resamples)) for one in (statistics, others))
    differences = first - second
    low, high = np.quantile(differences, [(1 - level) / 2, (1 + level) / 2])
    return float(difference), float(low), float(high)


def resample(statistics: Statistics, score: Score, seed: int, resamples: int = 1000) -> Values:
    """The score on each resample of recordings with replacement: [..., R, F, K] -> [resamples, ...].

    The same seed always draws the same recordings.
    """
    n_recordings, shape = statistics.shape[-3], statistics.shape[:-3]
    draws = np.random.default_rng(seed).multinomial(n_recordings, np.full(n_recordings, 1 / n_recordings), resamples)
    # Products of float64 are exact for counts, and much faster than products of integers.
    sums = np.moveaxis(statistics, -3, 0).reshape(n_recordings, -1).astype(np.float64)
    chunks = np.array_split(draws.astype(np.float64), -(-resamples * sums[0].size // _CHUNK))
    return np.concatenate([score((chunk @ sums).reshape(-1, *shape, *statistics.shape[-2:])) for chunk in chunks])


def interval_over_recordings(
    videos: Sequence[str], statistics: Statistics, score: Score, seed: int
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval from the statistics of videos [V, F, K]; None with fewer than two recordings."""
    by_recording = sum_recordings(videos, statistics)
    return bootstrap_interval(by_recording, score, seed) if len(by_recording) > 1 else None


def _mean_of_runs(scores: Values) -> Values:
    return scores.reshape(len(scores), -1).mean(axis=1)


def safe_divide(numerator: NDArray[Any], denominator: NDArray[Any]) -> Values:
    """numerator / denominator, or 0 where the denominator is 0; any shapes that broadcast, [...]."""
    return np.divide(numerator, denominator, out=np.zeros(denominator.shape), where=denominator > 0)


def annotated_fields(truth: NDArray[Any], predicted: NDArray[Any], task: Task) -> NDArray[np.bool_]:
    """Which values of the truth are annotated: [T, F], [T, F] -> [T, F].

    Raises UserError where the shapes differ, or an annotated value or the prediction for it is out of range.
    """
    fields = task.fields
    if truth.shape != predicted.shape or truth.shape[1:] != (len(fields),):
        raise UserError("truth and prediction differ in shape", found=predicted.shape, expected=truth.shape)
    annotated = is_annotated(truth, task)
    for number, field in enumerate(fields):
        for kind, values in (("true", truth[:, number]), ("predicted", predicted[:, number])):
            wrong = annotated[:, number] & ~in_range(values, field)
            if wrong.any():
                problem = f"a {kind} {field.name} of an annotated frame is out of range"
                raise UserError(problem, found=values[wrong][0].item(), expected=field.expected)
    return annotated


def ignored_row(task: Task, dtype: DTypeLike) -> NDArray[Any]:
    """The labels of a frame that is not annotated, [F]."""
    return np.array([field.ignore_value for field in task.fields], dtype)


def is_annotated(labels: NDArray[Any], task: Task) -> NDArray[np.bool_]:
    """Which labels are annotated: [T] or [T, F] -> the same shape."""
    return labels != ignored_row(task, labels.dtype)


def in_range(values: NDArray[Any], field: Field) -> NDArray[np.bool_]:
    """Which values are valid predictions of a field: [...] -> [...]."""
    inside = (values >= field.low) & (values <= field.high)
    return inside & (values == np.floor(values)) if field.whole else inside


def pool(statistics: Statistics) -> Statistics:
    """The sum over videos: [V, F, K] -> [F, K]. Raises UserError where no frame is annotated."""
    if not statistics.any():
        raise UserError("there is no annotated frame to score", remedy="Score a split that has annotations.")
    return statistics.sum(axis=0)


def with_crop(truth: NDArray[Any], has_crop: NDArray[np.bool_], task: Task) -> NDArray[Any]:
    """The truth [T] or [T, F] with the ignore value on frames without a face crop [T]."""
    ignored = ignored_row(task, truth.dtype)
    return np.where(has_crop, truth, ignored) if truth.ndim == 1 else np.where(has_crop[:, None], truth, ignored)
