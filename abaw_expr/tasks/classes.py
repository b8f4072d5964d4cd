"""Macro F1 of classes as the organisers compute it, and what explains it.

Conventions
- Statistics are a confusion matrix, int64 [..., C, C]: a row a true class, a column a predicted one.
- A frame whose truth is the ignore value, -1, is dropped, whatever was predicted for it.
- The organisers' metric is the mean over all C classes of F1 on the annotated frames pooled over all videos; it is not
  a mean over videos. A class with neither truth nor prediction counts 0, and so do precision and recall of nothing.

Shapes: T frames, V videos, C classes.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks.metric import Metric, RowFault, Rows
from abaw_expr.tasks.report import ClassScore, Report, Section, in_words
from abaw_expr.tasks.statistics import Counts, Statistics, Values, interval_over_recordings, pool, safe_divide
from abaw_expr.tasks.task import EXPR, Task

SUM_TOLERANCE = 1e-3
"""How far a row of class probabilities may be from 1: room for a model that computes in 16 bits."""
DECIMALS = (1, 2, 3, 4)
"""Those of probabilities that were rounded when they were written."""


def confusion(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> Counts:
    """Counts the pairs of true and predicted class over frames: [T], [T] -> [C, C].

    Raises UserError where the lengths differ, or an annotated frame's truth or prediction is no class.
    """
    truth, predicted = _annotated(np.asarray(truth), np.asarray(predicted), n_classes)
    pairs = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def f1_by_class(confusion: Statistics) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN) a class, 0 where that is 0/0: [..., C, C] -> [..., C]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return safe_divide(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: Statistics) -> Values:
    """The organisers' metric, the mean F1 of all C classes: [..., C, C] -> [...]."""
    return f1_by_class(confusion).mean(axis=-1)


@dataclass(frozen=True)
class VideoClasses:
    """One video over its annotated frames."""

    name: str
    frames: int
    """How many frames are annotated."""
    accuracy: float
    macro_f1: float
    """Mean F1 of the classes that the video's truth or prediction holds. The organisers' rule, 0 for every class that
    does not occur, would mark a video down for what it does not show."""


@dataclass(frozen=True)
class ClassReport(Report):
    """All scores of predicted classes."""

    macro_f1: float
    """The organisers' metric."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of `macro_f1` over recordings; None where there are fewer than two."""
    accuracy: float
    frames: int
    """How many frames are annotated."""
    classes: tuple[ClassScore, ...]
    videos: tuple[VideoClasses, ...]
    """The videos that have an annotated frame, in the order given."""
    confusion: tuple[tuple[int, ...], ...]
    """A row a true class, a column a predicted class."""

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
    """Scores predictions from one confusion matrix a video, [V, C, C]; `seed` is the bootstrap's.

    Raises UserError where no frame is annotated.
    """
    pooled = pool(confusions)
    return ClassReport(
        macro_f1=float(macro_f1(pooled)),
        interval=interval_over_recordings(videos, confusions, macro_f1, seed),
        accuracy=_accuracy(pooled),
        frames=int(pooled.sum()),
        classes=_class_scores(class_names, pooled),
        videos=tuple(_video_score(name, one) for name, one in zip(videos, confusions, strict=True) if one.any()),
        confusion=tuple(map(tuple, pooled.tolist())),
    )


def _abbreviated(name: str) -> str:
    """Four letters at most: `Neut`, and of a compound expression `FeSu`."""
    parts = name.split("_")
    return "".join(part[: 4 // len(parts)] for part in parts)


def _class_scores(names: Sequence[str], pooled: Counts) -> tuple[ClassScore, ...]:
    hits, support = np.diagonal(pooled), pooled.sum(axis=1)
    columns = (safe_divide(hits, pooled.sum(axis=0)), safe_divide(hits, support), f1_by_class(pooled), support)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _video_score(name: str, one: Counts) -> VideoClasses:
    occurs = (one.sum(axis=0) + one.sum(axis=1)) > 0
    return VideoClasses(name, int(one.sum()), _accuracy(one), float(f1_by_class(one)[occurs].mean()))


def _accuracy(one: Counts) -> float:
    return float(np.trace(one) / one.sum())


def _annotated(truth: NDArray[Any], predicted: NDArray[Any], n_classes: int) -> tuple[Counts, Counts]:
    """Both label arrays without the frames that nobody annotated, checked."""
    if truth.shape != predicted.shape or truth.ndim != 1:
        raise UserError("truth and prediction differ in length", found=predicted.shape, expected=truth.shape)
    kept = truth != EXPR.ignore_value
    return _classes("true", truth[kept], n_classes), _classes("predicted", predicted[kept], n_classes)


def _classes(kind: str, labels: NDArray[Any], n_classes: int) -> Counts:
    whole = labels.astype(np.int64)
    wrong = (whole != labels) | (whole < 0) | (whole >= n_classes)
    if wrong.any():
        found, expected = labels[wrong][0].item(), f"one of 0..{n_classes - 1}"
        raise UserError(f"a {kind} label of an annotated frame is no class", found=found, expected=expected)
    return whole


class ClassMetric(Metric):
    """One class a frame, of which a model gives probabilities."""

    name, key, columns_are, distribution = "macro F1", "macro_f1", "classes", True
    remedy = "Say --logits only where they are logits; probabilities are to be divided by the sum of their row."

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._n = task.n_columns
        self._names = task.columns
        self.unknown_prior = (1 / self._n,) * self._n
        self.prior_expected = f"{self._n} shares that sum to 1"

    def _fits(self, prior: Sequence[float]) -> bool:
        return min(prior) >= 0 and abs(sum(prior) - 1) <= SUM_TOLERANCE

    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        yield "has a negative probability", "0 or more", np.any(rows < 0, axis=1)
        off = np.abs(rows.sum(axis=1, dtype=np.float64) - 1) > SUM_TOLERANCE
        yield "does not sum to 1", f"a sum within {SUM_TOLERANCE} of 1", off

    def rounded(self, rows: Rows) -> Rows:
        """Rows that rounding to so few decimals can keep from summing to 1 are divided by their sum."""
        decimals = next((d for d in DECIMALS if np.allclose(rows * 10**d, np.round(rows * 10**d), atol=1e-4)), None)
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

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics.sum(axis=(-2, -1))[..., None]

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return class_report(self._names, videos, statistics)
