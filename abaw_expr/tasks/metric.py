"""What the numbers of a challenge mean: the one place where classes, values and action units differ.

A branch gives a row of numbers a frame; rows are fused by their weighted mean, whatever they mean. A kind says which
rows there can be, how a row is decided, and how decisions are scored. What a decided frame is:

| kind | a branch's row | decision |
|---|---|---|
| classes | probabilities that sum to 1 | the most probable class, int64 [T]; the lower one where two are equal |
| values | the values | the same within their range, float32 [T, F] |
| units | a probability a unit | 1 where it is its threshold or more, else 0, int64 [T, F] |

What is chosen by looking at the truth is scored on other frames than it was chosen on. Most choices are between
candidates (`tuning.space`); the thresholds of units are chosen for each candidate, out of its tuning statistics.

Shapes: T frames of one video, V videos, C numbers of a row, F fields with K statistics each (`statistics.py`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from abaw_expr.tasks.report import Report
from abaw_expr.tasks.statistics import Statistics, Values, with_crop
from abaw_expr.tasks.task import Task

Rows = NDArray[np.floating]
"""[T, C], a branch's numbers; a row all NaN is missing."""
RowFault = tuple[str, str, NDArray[np.bool_]]
"""What a row has or does, what is expected instead, and the rows [T] of which that is so."""


class Metric(ABC):
    """What the numbers of one challenge mean."""

    name: ClassVar[str]
    """The organisers' figure, in words."""
    key: ClassVar[str]
    """The same, as JSON files name it."""
    noun: ClassVar[str] = "probabilities"
    """What a branch's numbers are."""
    columns_are: ClassVar[str]
    """What the numbers are of."""
    remedy: ClassVar[str] = "Say --logits where they are logits."
    """What to do about numbers out of range."""
    distribution: ClassVar[bool] = False
    """Whether the numbers of a row are shares of one whole, which priors correct."""
    unknown_prior: tuple[float, ...]
    """The prior of a model whose training is not known."""
    prior_expected: str
    """What a prior may be, in words."""

    def __init__(self, task: Task) -> None:
        self.task = task

    def is_prior(self, value: Any) -> bool:
        """Whether a JSON value can be a prior: what training saw on average, said where no branch says anything."""
        listed = isinstance(value, list | tuple) and len(value) == self.task.n_columns
        return listed and all(isinstance(number, int | float) for number in value) and self._fits(value)

    @property
    def title(self) -> str:
        """The figure at the head of a table."""
        return self.name[0].upper() + self.name[1:]

    @abstractmethod
    def _fits(self, prior: Sequence[float]) -> bool:
        """Whether that many numbers are a prior."""

    @abstractmethod
    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        """The faults of rows that are not missing; NaN has none."""

    def rounded(self, rows: Rows) -> Rows:
        """Rows that were rounded when they were written, as a branch's: [T, C]."""
        return rows

    @abstractmethod
    def from_logits(self, rows: Rows) -> Rows:
        """Logits as a branch's rows. Raises OutputsError where such numbers have none."""

    def from_labels(self, labels: NDArray[Any]) -> NDArray[np.float64]:
        """Labels as the rows of a branch that is sure of them: [T] or [T, F] -> [T, C]."""
        return labels.astype(np.float64)

    @abstractmethod
    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[Any]:
        """What is predicted for frames, from their fused rows: [T, C] -> [T] or [T, F]; `thresholds` are a unit's."""

    def are_thresholds(self, value: Any) -> bool:
        """Whether a JSON value can be thresholds of a decision; None always can."""
        return value is None

    @abstractmethod
    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        """The statistics [F, K] of a video's frames. Raises UserError where one is out of range."""

    @abstractmethod
    def score(self, statistics: Statistics) -> Values:
        """The organisers' figure: [..., F, K] -> [...]."""

    @abstractmethod
    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        """How many frames are annotated, of each field: [..., F, K] -> [..., F]."""

    @abstractmethod
    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        """All figures, from the statistics a video, [V, F, K]. Raises UserError where no frame is annotated."""

    def count_for_tuning(self, truth: NDArray[Any], rows: Rows) -> Statistics:
        """The tuning statistics of a video, out of its fused rows."""
        return self.count(truth, self.decide(rows))

    def tuned_score(self, statistics: Statistics) -> Values:
        """The figure of tuning statistics, with the thresholds that are best on them: [..., F, K] -> [...]."""
        return self.score(statistics)

    def thresholds(self, statistics: Statistics) -> tuple[float, ...] | None:
        """The thresholds that are best on tuning statistics, [F, K]; None where there are none."""
        return None

    def settled(self, statistics: Statistics, chosen_on: Statistics) -> Statistics:
        """Tuning statistics as statistics, with the thresholds that are best on `chosen_on`: [..., F, K] both."""
        return statistics

    def statistics(self, truths: Sequence[NDArray[Any]], predicted: Sequence[NDArray[Any]]) -> Statistics:
        """The statistics of each video: V arrays each -> [V, F, K]."""
        return np.stack([self.count(*pair) for pair in zip(truths, predicted, strict=True)])

    def reports(
        self,
        videos: Sequence[str],
        truths: Sequence[NDArray[Any]],
        predicted: Sequence[NDArray[Any]],
        has_crop: Sequence[NDArray[np.bool_]] | None,
    ) -> dict[str, Report]:
        """Reports on all annotated frames and, where that is known, on those with a crop: V arrays each."""
        found = {"all annotated frames": self.report(videos, self.statistics(truths, predicted))}
        if has_crop is not None:
            pairs = zip(truths, has_crop, strict=True)
            cropped = self.statistics([with_crop(*pair, self.task) for pair in pairs], predicted)
            if cropped.any():
                found["frames with a crop"] = self.report(videos, cropped)
        return found


class FieldMetric(Metric):
    """A number a field, each of them by itself."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._low, self._high = np.array([(field.low, field.high) for field in task.fields]).T
        self._expected = f"from {self._low[0]} to {self._high[0]}"
        self.unknown_prior = (0.0,) * task.n_columns
        self.prior_expected = f"{task.n_columns} numbers {self._expected}"

    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        yield f"has {self.noun} out of range", self._expected, ((rows < self._low) | (rows > self._high)).any(axis=1)

    def _fits(self, prior: Sequence[float]) -> bool:
        return bool(((self._low <= prior) & (prior <= self._high)).all())
