"""Macro F1 as the organisers compute it, and what explains it; and what every challenge's figure shares.

Conventions
- Statistics of frames are what a figure needs of them: numbers [..., F, K] that add up over frames, videos and
  recordings. Those of classes are a confusion matrix, int64 [..., C, C]: a row a true class, a column a predicted one.
- A frame whose truth is -1 (nobody annotated it) is dropped, whatever was predicted for it.
- The organisers' metric is the mean over all C classes of F1 on the annotated frames pooled over all videos; it is not
  a mean over videos. A class with neither truth nor prediction counts 0, and so do precision and recall of nothing.
- People of one recording (`_left`, `_right`) are not independent, so intervals resample recordings, not videos.

Shapes: T frames, V videos, R recordings, C classes, F fields with K statistics each.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.errors import UserError
from abaw_expr.tasks import EXPR, Challenge, Field, recording_of

Counts = NDArray[np.int64]
Values = NDArray[np.float64]
Statistics = NDArray[Any]
"""int64 counts or float64 sums."""
Figure = Callable[[Statistics], Values]
"""From statistics [..., F, K] to a challenge's figure [...]."""
_AT_A_TIME = 10**7
"""Numbers that a bootstrap holds at a time, 80 MB."""


def confusion(truth: ArrayLike, predicted: ArrayLike, n_classes: int) -> Counts:
    """Counts the pairs of true and predicted class over frames: [T], [T] -> [C, C].

    Raises UserError where the lengths differ, or an annotated frame's truth or prediction is no class.
    """
    truth, predicted = _annotated(np.asarray(truth), np.asarray(predicted), n_classes)
    pairs = np.bincount(truth * n_classes + predicted, minlength=n_classes**2)
    return pairs.reshape(n_classes, n_classes)


def sum_recordings(videos: Sequence[str], statistics: Statistics) -> Statistics:
    """Adds up the videos of each recording: [..., V, F, K] -> [..., R, F, K], recordings in order of name.

    A recording without an annotated frame is left out: it says nothing, yet would count when resampled.
    """
    names, group = np.unique([recording_of(video) for video in videos], return_inverse=True)
    sums = np.zeros((*statistics.shape[:-3], len(names), *statistics.shape[-2:]), statistics.dtype)
    for video, recording in enumerate(group):
        sums[..., recording, :, :] += statistics[..., video, :, :]
    other_axes = tuple(axis for axis in range(sums.ndim) if axis != sums.ndim - 3)
    return sums[..., sums.any(axis=other_axes), :, :]


def f1_by_class(confusion: Statistics) -> Values:
    """F1 = 2 TP / (2 TP + FP + FN) a class, 0 where that is 0/0: [..., C, C] -> [..., C]."""
    hits = np.diagonal(confusion, axis1=-2, axis2=-1)
    return share(2 * hits, confusion.sum(axis=-1) + confusion.sum(axis=-2))


def macro_f1(confusion: Statistics) -> Values:
    """The organisers' figure, the mean F1 of all C classes: [..., C, C] -> [...]."""
    return f1_by_class(confusion).mean(axis=-1)


def bootstrap_interval(
    statistics: Statistics, seed: int, resamples: int = 1000, level: float = 0.95, figure: Figure = macro_f1
) -> tuple[float, float]:
    """The percentile interval of a figure under resampling of recordings with replacement: [R, F, K] -> (low, high).

    Efron and Tibshirani, "An Introduction to the Bootstrap", chapter 13. A resample is how often each recording was
    drawn; its statistics are the sum weighted by that. Of several runs, [S, R, F, K], the interval is that of their
    mean figure.
    """
    figures = _mean_of_runs(resample(statistics, seed, resamples, figure))
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def bootstrap_difference(
    statistics: Statistics,
    others: Statistics,
    seed: int,
    resamples: int = 1000,
    level: float = 0.95,
    figure: Figure = macro_f1,
) -> tuple[float, float, float]:
    """By how much the figure is above that of `others`, and the percentile interval: (difference, low, high).

    Both are [R, F, K] of the same recordings, or [S, R, F, K] of several runs, whose mean counts. Paired: a resample
    draws the same recordings for both.
    """
    difference = figure(statistics.sum(axis=-3)).mean() - figure(others.sum(axis=-3)).mean()
    first, second = (_mean_of_runs(resample(one, seed, resamples, figure)) for one in (statistics, others))
    figures = first - second
    low, high = np.quantile(figures, [(1 - level) / 2, (1 + level) / 2])
    return float(difference), float(low), float(high)


def resample(statistics: Statistics, seed: int, resamples: int = 1000, figure: Figure = macro_f1) -> Values:
    """The figure on each resample of recordings with replacement: [..., R, F, K] -> [resamples, ...].

    The same seed draws the same recordings, whatever is resampled.
    """
    n_recordings, shape = statistics.shape[-3], statistics.shape[:-3]
    draws = np.random.default_rng(seed).multinomial(n_recordings, np.full(n_recordings, 1 / n_recordings), resamples)
    # Products of float64 are exact for counts, and many times as fast as those of integers.
    sums = np.moveaxis(statistics, -3, 0).reshape(n_recordings, -1).astype(np.float64)
    parts = np.array_split(draws.astype(np.float64), -(-resamples * sums[0].size // _AT_A_TIME))
    return np.concatenate([figure((part @ sums).reshape(-1, *shape, *statistics.shape[-2:])) for part in parts])


def interval_over_recordings(
    videos: Sequence[str], statistics: Statistics, seed: int, figure: Figure
) -> tuple[float, float] | None:
    """The 95 % bootstrap interval of videos' statistics [V, F, K]; None where there are fewer than two recordings."""
    by_recording = sum_recordings(videos, statistics)
    return bootstrap_interval(by_recording, seed, figure=figure) if len(by_recording) > 1 else None


def _mean_of_runs(figures: Values) -> Values:
    return figures.reshape(len(figures), -1).mean(axis=1)


def share(part: NDArray[Any], whole: NDArray[Any]) -> Values:
    """part / whole, and 0 where whole is 0."""
    return np.divide(part, whole, out=np.zeros(whole.shape), where=whole > 0)


def annotated_fields(truth: NDArray[Any], predicted: NDArray[Any], challenge: Challenge) -> NDArray[np.bool_]:
    """Which values of the truth are annotated, [T, F]; those and their predictions are in range.

    Raises UserError where the shapes differ, or a value is out of its field's range.
    """
    fields = challenge.fields
    if truth.shape != predicted.shape or truth.shape[1:] != (len(fields),):
        raise UserError("truth and prediction differ in shape", found=predicted.shape, expected=truth.shape)
    annotated = truth != np.array([field.unannotated for field in fields], truth.dtype)
    for number, field in enumerate(fields):
        for kind, values in (("true", truth[:, number]), ("predicted", predicted[:, number])):
            wrong = annotated[:, number] & ~in_range(values, field)
            if wrong.any():
                problem = f"a {kind} {field.name} of an annotated frame is out of range"
                raise UserError(problem, found=values[wrong][0].item(), expected=field.expected)
    return annotated


def in_range(values: NDArray[Any], field: Field) -> NDArray[np.bool_]:
    """Which values may be predicted for a field."""
    inside = (values >= field.low) & (values <= field.high)
    return inside & (values == np.floor(values)) if field.whole else inside


class Section(NamedTuple):
    """A table that explains a report's figure."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


@dataclass(frozen=True)
class Report:
    """All figures of one set of predictions, of whatever challenge."""

    @abstractmethod
    def headline(self) -> str:
        """The figure in a line."""

    @abstractmethod
    def sections(self) -> Iterator[Section]:
        """What explains it."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def in_words(name: str, figure: float, interval: tuple[float, float] | None) -> str:
    """A figure with its interval."""
    over = "" if interval is None else " (95 % over recordings: {:.4f} to {:.4f})".format(*interval)
    return f"{name} {figure:.4f}{over}"


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
class ClassReport(Report):
    """All figures of predicted classes."""

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


def report(class_names: Sequence[str], videos: Sequence[str], confusions: Counts, seed: int = 0) -> ClassReport:
    """Scores predictions from one confusion matrix a video, [V, C, C]; `seed` is the bootstrap's.

    Raises UserError where no frame is annotated.
    """
    pooled = pool(confusions)
    return ClassReport(
        macro_f1=float(macro_f1(pooled)),
        interval=interval_over_recordings(videos, confusions, seed, macro_f1),
        accuracy=_accuracy(pooled),
        frames=int(pooled.sum()),
        classes=_class_scores(class_names, pooled),
        videos=tuple(_video_score(name, one) for name, one in zip(videos, confusions, strict=True) if one.any()),
        confusion=tuple(map(tuple, pooled.tolist())),
    )


def pool(statistics: Statistics) -> Statistics:
    """The sum over videos, [V, F, K] -> [F, K]. Raises UserError where no frame is annotated."""
    if not statistics.any():
        raise UserError("there is no annotated frame to score", remedy="Score a split that has annotations.")
    return statistics.sum(axis=0)


def with_crop(truth: NDArray[Any], has_crop: NDArray[np.bool_], challenge: Challenge) -> NDArray[Any]:
    """The truth, [T] or [T, F], with annotations on the frames [T] that have a crop only: teams often quote those."""
    marks = np.array([field.unannotated for field in challenge.fields], truth.dtype)
    return np.where(has_crop, truth, marks) if truth.ndim == 1 else np.where(has_crop[:, None], truth, marks)


def _abbreviated(name: str) -> str:
    """Four letters at most: `Neut`, and of a compound expression `FeSu`."""
    parts = name.split("_")
    return "".join(part[: 4 // len(parts)] for part in parts)


def _class_scores(names: Sequence[str], pooled: Counts) -> tuple[ClassScore, ...]:
    hits, support = np.diagonal(pooled), pooled.sum(axis=1)
    columns = (share(hits, pooled.sum(axis=0)), share(hits, support), f1_by_class(pooled), support)
    rows = zip(names, *(column.tolist() for column in columns), strict=True)
    return tuple(ClassScore(*row) for row in rows)


def _video_score(name: str, one: Counts) -> VideoScore:
    occurs = (one.sum(axis=0) + one.sum(axis=1)) > 0
    return VideoScore(name, int(one.sum()), _accuracy(one), float(f1_by_class(one)[occurs].mean()))


def _accuracy(one: Counts) -> float:
    return float(np.trace(one) / one.sum())


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
