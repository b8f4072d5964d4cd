"""Macro F1 of classes as the organisers compute it, and the scores that explain it.

Conventions
- Statistics are a confusion matrix, int64 [..., C, C]: rows are true classes, columns are predicted classes.
- A frame whose true label is the ignore value, -1, is dropped, whatever was predicted for it.
- The organisers' metric is the mean over all C classes of F1 on the annotated frames pooled over all videos; it is not
  a mean over videos. The F1 of a class that occurs neither in truth nor in prediction is 0, and so are precision and
  recall where their denominator is 0.

Shapes: T frames, V videos, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks.metric import Metric, RowFault, Rows
from abaw_expr.tasks.report import ClassScore, Report, Section, class_scores, in_words
from abaw_expr.tasks.statistics import Counts, Statistics, Values, interval_over_recordings, pool, safe_divide
from abaw_expr.tasks.task import EXPR, Task

SUM_TOLERANCE = 1e-3
"""How far the sum of a row of class probabilities may be from 1; wide enough for a model that computes in 16 bits."""
ROUNDED_DECIMALS = (1, 2, 3, 4)
"""Numbers of decimals at which probabilities are recognised as rounded when they were written."""


def confusion(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> Counts:
    """Counts the pairs of true and predicted class over frames: [T], [T] -> [C, C].

    Raises UserError where the lengths differ, or the true or predicted label of an annotated frame is not a class.
    """
    truth, predicted = _annotated(np.asarray(truth), np.asarray(predicted), n_classes)
    pairs = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def f1_by_class(confusion: Statistics) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN) of each class, 0 where that is 0/0: [..., C, C] -> [..., C]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return safe_divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: Statistics) -> Values:
    """The organisers' metric, the mean F1 of all C classes: [..., C, C] -> [...]."""
    return f1_by_class(confusion).mean(axis=-1)


@dataclass(frozen=True)
class VideoClasses:
    """Scores of one video on its annotated frames."""

    name: str
    frames: int
    """Number of annotated frames."""
    accuracy: float
    macro_f1: float
    """Mean F1 of the classes that occur in the video's truth or prediction. The organisers' rule, 0 for every class
    that does not occur, would lower the score of a video for classes that it does not show."""


@dataclass(frozen=True)
class ClassReport(Report):
    """All scores of predicted classes."""

    macro_f1: float
    """The organisers' metric."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of `macro_f1` over recordings; None where there are fewer than two."""
    accuracy: float
    frames: int
    """Number of annotated frames."""
    classes: tuple[ClassScore, ...]
    videos: tuple[VideoClasses, ...]
    """The videos that have an annotated frame, in the order given."""
    confusion: tuple[tuple[int, ...], ...]
    """Rows are true classes, columns are predicted classes."""

    def headline(self) -> str:
        return f"{in_words('macro F1', self.macro_f1, self.interval)}, accuracy {self.accuracy:.4f}"

    def sections(self) -> Iterator[Section]:
        classes = [(c.name, c.precision, c.recall, c.f1, c.support) for c in self.classes]
        yield Section("By class", ("class", "precision", "recall", "F1", "frames"), classes)
        names = [score.name for score in self.classes]
        rows = [(truth, *counts) for truth, counts in zip(names, self.confusion, strict=True)]
        yield Section("Confusion (rows: truth)", ("", *map(_abbreviated, names)), rows)
        videos = [(v.name, v.macro_f1, v.accuracy, v.frames) for v in self.videos]
        yield Section("By video (F1 over its own classes)", ("video", "macro F1", "accuracy", "frames"), videos)


def class_report(class_names: Sequence[str], videos: Sequence[str], confusions: Counts, seed: int = 0) -> ClassReport:
    """Scores predictions from the confusion matrix of each video, [V, C, C]; `seed` seeds the bootstrap.

    Raises UserError where no frame is annotated.
    """
    pooled = pool(confusions)
    return ClassReport(
        macro_f1=float(macro_f1(pooled)),
        interval=interval_over_recordings(videos, confusions, macro_f1, seed),
        accuracy=_accuracy(pooled),
        frames=int(pooled.sum()),
        classes=class_scores(class_names, np.diagonal(pooled), pooled.sum(axis=0), pooled.sum(axis=1)),
        videos=tuple(_video_score(name, one) for name, one in zip(videos, confusions, strict=True) if one.any()),
        confusion=tuple(map(tuple, pooled.tolist())),
    )


def _abbreviated(name: str) -> str:
    """At most four letters: `Neut`, or `FeSu` for a compound expression."""
    parts = name.split("_")
    return "".join(part[: 4 // len(parts)] for part in parts)


def _video_score(name: str, one: Counts) -> VideoClasses:
    occurs = (one.sum(axis=0) + one.sum(axis=1)) > 0
    return VideoClasses(name, int(one.sum()), _accuracy(one), float(f1_by_class(one)[occurs].mean()))


def _accuracy(one: Counts) -> float:
    return float(np.trace(one) / one.sum())


def _annotated(truth: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> tuple[Counts, Counts]:
    """Both label arrays [T] without the frames that are not annotated, checked."""
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise UserError("truth and prediction differ in length", found=predicted.shape, expected=truth.shape)
    kept = truth != EXPR.ignore_value
    return _class_indices("true", truth[kept], n_classes), _class_indices("predicted", predicted[kept], n_classes)


def _class_indices(kind: str, labels: NDArray[Any], n_classes: int) -> Counts:
    whole = labels.astype(np.int64)
    wrong = (whole != labels) | (whole < 0) | (whole >= n_classes)
    if wrong.any():
        found, expected = labels[wrong][0].item(), f"one of 0..{n_classes - 1}"
        raise UserError(f"a {kind} label of an annotated frame is not a class", found=found, expected=expected)
    return whole


class ClassMetric(Metric):
    """One class per frame; a model gives the probability of each class."""

    name, key, short, columns_are, distribution = "macro F1", "macro_f1", "f1", "classes", True
    remedy = "Use --logits only for logits; divide probabilities by the sum of their row."

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._n = task.n_columns
        self._names = task.columns
        self.unknown_prior = (1 / self._n,) * self._n
        self.prior_expected = f"{self._n} fractions that sum to 1"

    def _fits(self, prior: Sequence[float]) -> bool:
        return min(prior) >= 0 and abs(sum(prior) - 1) <= SUM_TOLERANCE

    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        yield "has a negative probability", "0 or more", np.any(rows < 0, axis=1)
        off = np.abs(rows.sum(axis=1, dtype=np.float64) - 1) > SUM_TOLERANCE
        yield "does not sum to 1", f"a sum within {SUM_TOLERANCE} of 1", off

    def rounded(self, rows: Rows) -> Rows:
        """Rows [T, C]; a row whose sum differs from 1 by no more than rounding explains is divided by its sum."""
        decimals = next(
            (d for d in ROUNDED_DECIMALS if np.allclose(rows * 10**d, np.round(rows * 10**d), atol=1e-4)), None
        )
        if decimals is None:
            return rows
        sums = rows.sum(axis=1, keepdims=True)
        near = np.abs(sums - 1) <= rows.shape[1] / 2 * 10.0**-decimals + SUM_TOLERANCE
        scaled = near & (sums > 0) & (rows >= 0).all(axis=1, keepdims=True)
        return np.where(scaled, rows / np.where(scaled, sums, 1), rows)

    def from_logits(self, rows: Rows) -> Rows:
        e = np.exp(rows - rows.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def from_labels(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        return np.eye(self._n)[labels]

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.int64]:
        return rows.argmax(axis=1)

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return confusion(truth, predicted, self._n)

    def score(self, statistics: Statistics) -> Values:
        return macro_f1(statistics)

    def by_column(self, statistics: Statistics) -> Values:
        return f1_by_class(statistics)

    def mean_label(self, labels: NDArray[Any], weights: NDArray[np.float64]) -> list[float]:
        known = labels >= 0
        return np.bincount(labels[known], weights[known], minlength=self._n).tolist()

    def strata(self, labels: NDArray[Any]) -> NDArray[np.intp]:
        return labels.astype(np.intp)

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics.sum(axis=(-2, -1))[..., None]

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return class_report(self._names, videos, statistics)
