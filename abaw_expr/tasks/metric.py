"""The interface of a task's metric: the only place where classes, values and action units differ.

A branch gives one row of numbers per frame; rows of every kind are fused by their weighted mean. A metric defines which
rows are valid, how a row becomes a prediction, and how predictions are scored:

| kind | a branch's row | prediction |
|---|---|---|
| classes | probabilities that sum to 1 | the most probable class, int64 [T]; the lower index of equal ones |
| values | the values | the values clipped to their range, float32 [T, F] |
| units | the probability of each unit | 1 where it is at least the unit's threshold, else 0, int64 [T, F] |

Whatever is chosen by its score on annotated frames is scored on other frames. Most choices are between candidates
(`tuning.space`); the thresholds of units are chosen for each candidate from its tuning statistics.

Shapes: T frames of one video, V videos, C numbers of a row, N candidates, F fields with K statistics each
(`statistics.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from abaw_expr.tasks.report import Report
from abaw_expr.tasks.statistics import Statistics, Values, is_annotated, safe_divide, with_crop
from abaw_expr.tasks.task import Task

Rows = NDArray[np.floating]
"""[T, C], a branch's numbers; a row all NaN is missing."""
Counter = Callable[[NDArray[np.floating]], Statistics]
"""A function from the rows [N, T, C] of N candidates to statistics [N, F, K]. It keeps no state between calls, so that
threads may share it."""
RowFault = tuple[str, str, NDArray[np.bool_]]
"""The fault of a row in words, what is expected instead, and the rows [T] that have it."""


class Metric(ABC):
    """The metric of one task."""

    name: ClassVar[str]
    """The name of the organisers' score."""
    key: ClassVar[str]
    """The key of the score in JSON files."""
    noun: ClassVar[str] = "probabilities"
    """What a branch's numbers are, in the plural."""
    short: ClassVar[str]
    """The name of the score of a branch, and of a column, in metrics.csv."""
    columns_are: ClassVar[str]
    """What the columns of a row stand for, in the plural."""
    remedy: ClassVar[str] = "Use --logits for logits."
    """The remedy for numbers out of range."""
    distribution: ClassVar[bool] = False
    """Whether a row is a probability distribution, which prior correction applies to."""
    has_strata: ClassVar[bool] = True
    """Whether training can be balanced by drawing frames of some strata more often."""
    unknown_prior: tuple[float, ...]
    """The prior of a model whose training data is unknown."""
    prior_expected: str
    """A valid prior, in words."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def is_prior(self, value: Any) -> bool:
        """Whether a JSON value is a valid prior: the average over the training data, used where no branch has a row."""
        listed = isinstance(value, list | tuple) and len(value) == self.task.n_columns
        return listed and all(isinstance(number, int | float) for number in value) and self._fits(value)

    @property
    def title(self) -> str:
        """The name of the score with a capital letter, for the header of a table."""
        return self.name[0].upper() + self.name[1:]

    @abstractmethod
    def _fits(self, prior: Sequence[float]) -> bool:
        """Whether these C numbers are a valid prior."""

    @abstractmethod
    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        """The faults of rows [T, C]; missing rows, which are NaN, have none."""

    def rounded(self, rows: Rows) -> Rows:
        """Rows that were rounded when they were written, as valid rows of a branch: [T, C] -> [T, C]."""
        return rows

    @abstractmethod
    def from_logits(self, rows: Rows) -> Rows:
        """Logits as rows of a branch: [T, C] -> [T, C]. Raises OutputsError where the kind has no logits."""

    def from_labels(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Labels as the rows of a branch that is certain of them: [T] or [T, F] -> [T, C]."""
        return labels.astype(np.float64)

    @abstractmethod
    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """Predicts labels from fused rows: [T, C] -> [T] or [T, F]; `thresholds` has one number for each unit."""

    def are_thresholds(self, value: Any) -> bool:
        """Whether a JSON value is valid as the thresholds of a decision; None always is."""
        return value is None

    @abstractmethod
    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        """The statistics of a video: [T] or [T, F] each -> [F, K]. Raises UserError for labels out of range."""

    @abstractmethod
    def score(self, statistics: Statistics) -> Values:
        """The organisers' score: [..., F, K] -> [...]."""

    @abstractmethod
    def by_column(self, statistics: Statistics) -> Values:
        """The score of each column: [..., F, K] -> [..., C]."""

    @abstractmethod
    def mean_label(self, labels: NDArray[Any], weights: NDArray[np.float64]) -> list[float]:
        """The average of the annotated labels, weighed: [T] or [T, F], [T] -> [C]; what a prior is."""

    def strata(self, labels: NDArray[Any]) -> NDArray[np.intp]:
        """The group of each frame, counted from 0, for `data.balance`: [T] or [T, F] -> [T]."""
        return np.zeros(len(labels), np.intp)

    @abstractmethod
    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        """The number of annotated frames of each field: [..., F, K] -> [..., F]."""

    @abstractmethod
    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        """All scores, from the statistics of each video, [V, F, K]. Raises UserError where no frame is annotated."""

    def tuning_counter(self, truth: NDArray[Any]) -> Counter:
        """A function from the fused rows of candidates to their tuning statistics on a video with these labels:
        [T] or [T, F] -> ([N, T, C] -> [N, F, K])."""
        return lambda candidates: np.stack([self.count(truth, self.decide(rows)) for rows in candidates])

    def tuned_score(self, statistics: Statistics) -> Values:
        """The score of tuning statistics with the thresholds that are best on them: [..., F, K] -> [...]."""
        return self.score(statistics)

    def thresholds(self, statistics: Statistics) -> tuple[float, ...] | None:
        """The thresholds that are best on tuning statistics [F, K]; None for a kind without thresholds."""
        return None

    def by_threshold(self, statistics: Statistics) -> tuple[tuple[float, ...], Values] | None:
        """The thresholds that are tried, ascending, and the score of each column with each of them, from tuning
        statistics [F, K] -> [C, H]; None for a kind without thresholds."""
        return None

    def at_best_thresholds(self, statistics: Statistics, chosen_on: Statistics) -> Statistics:
        """Statistics from tuning statistics, with the thresholds that are best on `chosen_on`: [..., F, K] both."""
        return statistics

    def statistics(self, truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> Statistics:
        """The statistics of each video, from V arrays [T] or [T, F] each -> [V, F, K]."""
        return np.stack([self.count(*pair) for pair in zip(truths, predicted, strict=True)])

    def reports(
        self,
        videos: Sequence[str],
        truths: Sequence[NDArray[Any]],
        predicted: Sequence[NDArray[Any]],
        has_crop: Sequence[NDArray[np.bool_]] | None,
    ) -> dict[str, Report]:
        """Reports on all annotated frames and, where `has_crop` is known, on those with a face crop.

        Labels are V arrays [T] or [T, F], `has_crop` V arrays [T].
        """
        found = {"all annotated frames": self.report(videos, self.statistics(truths, predicted))}
        if has_crop is not None:
            pairs = zip(truths, has_crop, strict=True)
            cropped = self.statistics([with_crop(*pair, self.task) for pair in pairs], predicted)
            if cropped.any():
                found["frames with a crop"] = self.report(videos, cropped)
        return found


class FieldMetric(Metric):
    """The metric of a task with one number per field, each scored separately."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._low, self._high = np.array([(field.low, field.high) for field in task.fields]).T
        self._expected = f"from {self._low[0]} to {self._high[0]}"
        self.unknown_prior = (0.0,) * task.n_columns
        self.prior_expected = f"{task.n_columns} numbers {self._expected}"

    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        yield f"has {self.noun} out of range", self._expected, ((rows < self._low) | (rows > self._high)).any(axis=1)

    def mean_label(self, labels: NDArray[Any], weights: NDArray[np.float64]) -> list[float]:
        kept = np.where(is_annotated(labels, self.task), weights[:, None], 0.0)
        return safe_divide((kept * labels).sum(axis=0), kept.sum(axis=0)).tolist()

    def _fits(self, prior: Sequence[float]) -> bool:
        return bool(((self._low <= prior) & (prior <= self._high)).all())
