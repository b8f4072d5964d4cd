"""The metric of action units: the mean of their F1, as the organisers compute it.

Conventions
- The positive class of a unit is "active": F1 = 2 TP / (2 TP + FP + FN), and 0 where the unit is never active in truth
  or prediction.
- A unit whose label on a frame is -1 (not annotated) is dropped on that frame, independently of the other units, so a
  partly annotated frame counts for its annotated units; frames are pooled over all videos.
- The statistics of a unit are its 2 x 2 confusion counts in the order (truth, prediction) = (0, 0), (0, 1), (1, 0),
  (1, 1); int64 [..., U, 4]. The tuning statistics of a unit are, of the truth 0 and then of 1, the number of frames and
  the numbers of frames predicted active at each of the thresholds `CUTS`; int64 [..., U, 2 (1 + H)]. The best threshold
  of a unit does not depend on the other units, so these counts cover all combinations of thresholds.

Shapes: T frames, V videos, U units, H thresholds.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.tasks.metric import Counter, FieldMetric, Rows
from abaw_expr.tasks.report import ClassScore, Report, Section, class_scores, in_words
from abaw_expr.tasks.statistics import (
    Counts,
    Statistics,
    Values,
    annotated_fields,
    interval_over_recordings,
    is_annotated,
    pool,
    safe_divide,
)
from abaw_expr.tasks.task import Task

ACTIVE = 0.5
"""The probability from which a unit counts as active where no threshold was tuned."""
_STEPS = 16
CUTS = tuple(sorted((step / _STEPS for step in range(1, _STEPS)), key=lambda cut: (abs(cut - 0.5), cut)))
"""The thresholds that are tried, those close to 0.5 first. Multiples of 1/16, which float32 represents exactly."""
_LEVELS = [0, *(int(cut * _STEPS) for cut in CUTS)]
"""The steps at or above which frames are counted: all frames, then those of each of `CUTS`."""


def unit_counts(truth: NDArray[Any], predicted: NDArray[Any], task: Task) -> Counts:
    """The statistics of a video's frames, from labels 0 and 1: [T, U], [T, U] -> [U, 4].

    Raises UserError where the shapes differ, or an annotated label or the prediction for it is neither 0 nor 1.
    """
    kept = annotated_fields(truth, predicted, task)
    pairs = 2 * truth + predicted  # [T, U]
    return np.stack([((pairs == pair) & kept).sum(axis=0) for pair in range(4)], axis=-1)


def cut_counter(truth: NDArray[np.integer], task: Task) -> Counter:
    """A function from the probabilities of N candidates to the tuning statistics of a video:
    [T, U] -> ([N, T, U] -> [N, U, 2 (1 + H)]).

    What depends on the truth alone is computed once.
    """
    units, levels = len(task.fields), _STEPS + 1
    bins = units * 3 * levels
    kept = is_annotated(truth, task)
    kind = np.where(kept, truth, 2)  # frames that are not annotated are counted by themselves, and dropped
    key = np.array(((3 * np.arange(units) + kind) * levels).T, np.uint16, order="C")  # [U, T]

    def count(p: NDArray[np.floating]) -> Counts:
        pairs = (p.swapaxes(1, 2) * _STEPS).astype(np.min_scalar_type(len(p) * bins))  # [N, U, T]
        pairs += key
        pairs += (np.arange(len(p)) * bins).astype(pairs.dtype)[:, None, None]
        by_level = np.bincount(pairs.ravel(), minlength=len(p) * bins).reshape(-1, units, 3, levels)[:, :, :2]
        above = by_level[..., ::-1].cumsum(axis=-1)[..., ::-1]  # frames at or above each level
        return above[..., _LEVELS].reshape(len(p), units, -1)

    return count


def best_cuts(statistics: Statistics) -> NDArray[np.intp]:
    """The index into `CUTS` of each unit's best threshold, the first of equals: [..., U, 2 (1 + H)] -> [..., U]."""
    return _f1_by_cut(statistics).argmax(axis=-1)


def best_mean_f1(statistics: Statistics) -> Values:
    """The organisers' metric with the best threshold of each unit: [..., U, 2 (1 + H)] -> [...]."""
    return _f1_by_cut(statistics).max(axis=-1).mean(axis=-1)


def at_cuts(statistics: Statistics, cuts: NDArray[np.intp]) -> Statistics:
    """The statistics at one threshold per unit, by index: [..., U, 2 (1 + H)], [..., U] -> [..., U, 4]."""
    by_truth = _by_truth(statistics)
    frames = by_truth[..., 0]
    predicted = np.take_along_axis(by_truth, 1 + cuts[..., None, None], axis=-1)[..., 0]  # [..., U, 2], active ones
    pairs = np.stack([frames - predicted, predicted], axis=-1)  # [..., U, truth, prediction]
    return pairs.reshape(*pairs.shape[:-2], 4)


def _f1_by_cut(statistics: Statistics) -> Values:
    """F1 = 2 TP / (TP + FP + P) with P active frames, as FN = P - TP; 0 where that is 0/0: -> [..., U, H]."""
    by_truth = _by_truth(statistics)
    false, hits = by_truth[..., 0, 1:], by_truth[..., 1, 1:]
    return safe_divide(2 * hits, hits + false + by_truth[..., 1, :1])


def _by_truth(statistics: Statistics) -> Statistics:
    return statistics.reshape(*statistics.shape[:-1], 2, 1 + len(CUTS))


def f1_by_unit(statistics: Statistics) -> Values:
    """F1 of each unit, 0 where that is 0/0: [..., U, 4] -> [..., U]."""
    _, false, missed, hits = np.moveaxis(statistics, -1, 0)
    return safe_divide(2 * hits, 2 * hits + false + missed)


def mean_f1(statistics: Statistics) -> Values:
    """The organisers' metric: [..., U, 4] -> [...]."""
    return f1_by_unit(statistics).mean(axis=-1)


@dataclass(frozen=True)
class VideoUnits:
    """Scores of one video on its annotated frames."""

    name: str
    frames: int
    """Number of annotated frames: the maximum over units."""
    macro_f1: float
    """Mean F1 of the units that are active in the video's truth or prediction; 0 if none is."""


@dataclass(frozen=True)
class UnitReport(Report):
    """All scores of predicted action units."""

    macro_f1: float
    """The organisers' metric."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of `macro_f1` over recordings; None where there are fewer than two."""
    frames: int
    """Number of annotated frames: the maximum over units."""
    units: tuple[ClassScore, ...]
    videos: tuple[VideoUnits, ...]
    """The videos that have an annotated frame, in the order given."""

    def headline(self) -> str:
        return in_words(f"macro F1 of {len(self.units)} units", self.macro_f1, self.interval)

    def sections(self) -> Iterator[Section]:
        rows = [(u.name, u.precision, u.recall, u.f1, u.support) for u in self.units]
        yield Section("By unit", ("unit", "precision", "recall", "F1", "active frames"), rows)
        videos = [(v.name, v.macro_f1, v.frames) for v in self.videos]
        yield Section("By video (F1 over its own units)", ("video", "macro F1", "frames"), videos)


def unit_report(task: Task, videos: Sequence[str], statistics: Counts, seed: int = 0) -> UnitReport:
    """Scores predictions from the statistics of each video, [V, U, 4]; `seed` seeds the bootstrap.

    Raises UserError where no frame is annotated.
    """
    pooled = pool(statistics)
    _, false, missed, hits = pooled.T
    return UnitReport(
        macro_f1=float(mean_f1(pooled)),
        interval=interval_over_recordings(videos, statistics, mean_f1, seed),
        frames=_frames(pooled),
        units=class_scores(task.columns, hits, hits + false, hits + missed),
        videos=tuple(_video(name, one) for name, one in zip(videos, statistics, strict=True) if one.any()),
    )


def _video(name: str, one: Counts) -> VideoUnits:
    occurs = one[:, 1:].any(axis=1)
    return VideoUnits(name, _frames(one), float(f1_by_unit(one)[occurs].mean()) if occurs.any() else 0.0)


def _frames(statistics: Counts) -> int:
    return int(statistics.sum(axis=-1).max())


class UnitMetric(FieldMetric):
    """Action units; a model gives the probability that each unit is active."""

    name, key, short, columns_are = "macro F1", "macro_f1", "f1", "units"
    has_strata = False

    def from_logits(self, rows: Rows) -> Rows:
        return 0.5 * (1 + np.tanh(rows / 2))

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.int64]:
        return (rows >= (ACTIVE if thresholds is None else np.array(thresholds))).astype(np.int64)

    def are_thresholds(self, value: Any) -> bool:
        return value is None or self.is_prior(value)

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return unit_counts(truth, predicted, self.task)

    def score(self, statistics: Statistics) -> Values:
        return mean_f1(statistics)

    def by_column(self, statistics: Statistics) -> Values:
        return f1_by_unit(statistics)

    def tuning_counter(self, truth: NDArray[Any]) -> Counter:
        return cut_counter(truth, self.task)

    def tuned_score(self, statistics: Statistics) -> Values:
        return best_mean_f1(statistics)

    def thresholds(self, statistics: Statistics) -> tuple[float, ...] | None:
        return tuple(CUTS[index] for index in best_cuts(statistics))

    def by_threshold(self, statistics: Statistics) -> tuple[tuple[float, ...], Values] | None:
        order = np.argsort(CUTS)
        return tuple(sorted(CUTS)), _f1_by_cut(statistics)[:, order]

    def at_best_thresholds(self, statistics: Statistics, chosen_on: Statistics) -> Statistics:
        return at_cuts(statistics, best_cuts(chosen_on))

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics.sum(axis=-1)

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return unit_report(self.task, videos, statistics)
