"""Macro F1 as the organisers compute it, and what explains it.

Conventions
- A confusion matrix is int64 [..., C, C]: a row a true class, a column a predicted class.
- A frame whose truth is -1 (nobody annotated it) is dropped, whatever was predicted for it.
- The organisers' metric is the mean over all C classes of F1 on the annotated frames pooled over all videos; it is not
  a mean over videos. A class with neither truth nor prediction counts 0, and so do precision and recall of nothing.
- A confusion matrix is all that the metric needs: a pool of videos is the sum of their matrices.
- People of one recording (`_left`, `_right`) are not independent, so intervals resample recordings, not videos.

Shapes: T frames, V videos, R recordings, C classes.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks import EXPR, Task, recording_of

Counts = NDArray[np.int64]
Values = NDArray[np.float64]
_AT_A_TIME = 10**7
"""Numbers that a bootstrap holds at a time, 80 MB."""


def confusion(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> Counts:
    """Counts the pairs of true and predicted class over frames: [T], [T] -> [C, C].

    Raises UserError where the lengths differ, or an annotated frame's truth or prediction is no class.
    """
    truth, predicted = _annotated(np.asarray(truth), np.asarray(predicted), n_classes)
    pairs = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def confusion_by_video(truths: Sequence[ArrayLike], predictions: Sequence[ArrayLike], n_classes: int) -> Counts:
    """One confusion matrix a video: V arrays [T], V arrays [T] -> [V, C, C]. Raises UserError as `confusion` does."""
    counts = [confusion(truth, predicted, n_classes) for truth, predicted in zip(truths, predictions, strict=True)]
    return np.array(counts, dtype=np.int64).reshape(-1, n_classes, n_classes)


def sum_recordings(videos: Sequence[str], confusions: Counts) -> Counts:
    """Adds up the videos of each recording: [..., V, C, C] -> [..., R, C, C], recordings in order of name.

    A recording without an annotated frame is left out: it says nothing, yet would count when resampled.
    """
    names, group = np.unique([recording_of(video) for video in videos], return_inverse=True)
    sums = np.zeros((*confusions.shape[:-3], len(names), *confusions.shape[-2:]), dtype=np.int64)
    for video, recording in enumerate(group):
        sums[..., recording, :, :] += confusions[..., video, :, :]
    other_axes = tuple(axis for axis in range(sums.ndim) if axis != sums.ndim - 3)
    return sums[..., sums.any(axis=other_axes), :, :]


def f1_by_class(confusion: Counts | Values) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN) a class, 0 where that is 0/0: [..., C, C] -> [..., C]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return _share(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: Counts | Values) -> Values:
    """The organisers' figure, the mean F1 of all C classes: [..., C, C] -> [...]."""
    return f1_by_class(confusion).mean(axis=-1)


def bootstrap_interval(
    confusions: Counts, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float]:
    """The percentile interval of macro F1 under resampling of recordings with replacement: [R, C, C] -> (low, high).

    Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. A resample is how often each recording was
    drawn; its confusion matrix is the sum weighted by that. Of several runs, [S, R, C, C], the interval is that of
    their mean macro F1.
    """
    figures = _mean_of_runs(resample(confusions, seed, resamples))
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    confusions: Counts, others: Counts, seed: int, resamples: int = 1000, level: float = 0.95
) -> tuple[float, float, float]:
    """By how much macro F1 is above that of `others`, and the percentile interval: (difference, low, high).

    Both are [R, C, C] of the same recordings, or [S, R, C, C] of several runs, whose mean counts. Paired: a resample
    draws the same recordings for both.
    """
    difference = macro_f1(confusions.sum(axis=-3)).mean() - macro_f1(others.sum(axis=-3)).mean()
    first, second = (_mean_of_runs(resample(counts, seed, resamples)) for counts in (confusions, others))
    figures = first - second
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(difference), float(low), float(high)


def resample(confusions: Counts, seed: int, resamples: int = 1000) -> Values:
    """Macro F1 on each resample of recordings with replacement: [..., R, C, C] -> [resamples, ...].

    The same seed draws the same recordings, whatever is resampled.
    """
    n_recordings, shape = confusions.shape[-3], confusions.shape[:-3]
    draws = np.random.default_rng(seed).multinomial(n_recordings, np.full(n_recordings, 1 / n_recordings), resamples)
    # Products of float64 are exact for counts, and many times as fast as those of integers.
    counts = np.moveaxis(confusions, -3, 0).reshape(n_recordings, -1).astype(np.float64)
    parts = np.array_split(draws.astype(np.float64), -(-resamples * counts[0].size // _AT_A_TIME))
    return np.concatenate([macro_f1((part @ counts).reshape(-1, *shape, *confusions.shape[-2:])) for part in parts])


def _mean_of_runs(figures: Values) -> Values:
    return figures.reshape(len(figures), -1).mean(axis=1)


@dataclass(frozen=True)
class ClassScore:
    """One class over all annotated frames."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """How many frames truly are of this class."""


@dataclass(frozen=True)
class VideoScore:
    """One video over its annotated frames."""

    name: str
    frames: int
    """How many frames are annotated."""
    accuracy: float
    macro_f1: float
    """Mean F1 of the classes that the video's truth or prediction holds. The organisers' rule, 0 for every class that
    does not occur, would mark a video down for what it does not show."""


@dataclass(frozen=True)
class Report:
    """All figures of one set of predictions."""

    macro_f1: float
    """The organisers' figure."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of `macro_f1` over recordings; None where there are fewer than two."""
    accuracy: float
    frames: int
    """How many frames are annotated."""
    classes: tuple[ClassScore, ...]
    videos: tuple[VideoScore, ...]
    """The videos that have an annotated frame, in the order given."""
    confusion: tuple[tuple[int, ...], ...]
    """A row a true class, a column a predicted class."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def report(class_names: Sequence[str], videos: Sequence[str], confusions: Counts, seed: int = 0) -> Report:
    """Scores predictions from one confusion matrix a video, [V, C, C]; `seed` is the bootstrap's.

    Raises UserError where no frame is annotated.
    """
    pooled = confusions.sum(axis=0)
    if not pooled.any():
        raise UserError("there is no annotated frame to score", remedy="Score a split that has annotations.")
    by_recording = sum_recordings(videos, confusions)
    return Report(
        macro_f1=float(macro_f1(pooled)),
        interval=bootstrap_interval(by_recording, seed) if len(by_recording) > 1 else None,
        accuracy=_accuracy(pooled),
        frames=int(pooled.sum()),
        classes=_class_scores(class_names, pooled),
        videos=tuple(_video_score(name, one) for name, one in zip(videos, confusions, strict=True) if one.any()),
        confusion=tuple(map(tuple, pooled.tolist())),
    )


def with_crop(truth: NDArray[np.integer], has_crop: NDArray[np.bool_], task: Task) -> NDArray[Any]:
    """The truth with annotations on the frames that have a crop only, [T]: teams often quote F1 on those."""
    return np.where(has_crop, truth, task.unannotated)


def reports(
    task: Task,
    videos: Sequence[str],
    truths: Sequence[NDArray[np.integer]],
    predicted: Sequence[NDArray[np.integer]],
    has_crop: Sequence[NDArray[np.bool_]] | None,
) -> dict[str, Report]:
    """Reports on all annotated frames and, where that is known, on those with a crop: V arrays [T] each."""
    kinds = {"all annotated frames": truths}
    if has_crop is not None:
        masked = [with_crop(truth, crop, task) for truth, crop in zip(truths, has_crop, strict=True)]
        if any((truth != task.unannotated).any() for truth in masked):
            kinds["frames with a crop"] = masked
    return {
        name: report(task.class_names, videos, confusion_by_video(labels, predicted, task.n_classes))
        for name, labels in kinds.items()
    }


def _class_scores(names: Sequence[str], pooled: Counts) -> tuple[ClassScore, ...]:
    hits, support = np.diagonal(pooled), pooled.sum(axis=1)
    columns = (_share(hits, pooled.sum(axis=0)), _share(hits, support), f1_by_class(pooled), support)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _video_score(name: str, one: Counts) -> VideoScore:
    occurs = (one.sum(axis=0) + one.sum(axis=1)) > 0
    return VideoScore(name, int(one.sum()), _accuracy(one), float(f1_by_class(one)[occurs].mean()))


def _accuracy(one: Counts) -> float:
    return float(np.trace(one) / one.sum())


def _share(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def _annotated(truth: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> tuple[Counts, Counts]:
    """Both label arrays without the frames that nobody annotated, checked."""
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise UserError("truth and prediction differ in length", found=predicted.shape, expected=truth.shape)
    kept = truth != EXPR.unannotated
    return _classes("true", truth[kept], n_classes), _classes("predicted", predicted[kept], n_classes)


def _classes(kind: str, labels: NDArray[Any], n_classes: int) -> Counts:
    whole = labels.astype(np.int64)
    wrong = (whole != labels) | (whole < 0) | (whole >= n_classes)
    if wrong.any():
        found, expected = labels[wrong][0].item(), f"one of 0..{n_classes - 1}"
        raise UserError(f"a {kind} label of an annotated frame is no class", found=found, expected=expected)
    return whole
