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

Shapes: T frames of one video, V videos, C numbers of a row, F fields with K statistics each (`abaw_expr.scoring`).
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from abaw_expr import concordance, scoring, units
from abaw_expr.errors import OutputsError
from abaw_expr.scoring import Report, Statistics, Values, with_crop
from abaw_expr.tasks import Challenge, Task

SUM_TOLERANCE = 1e-3
"""How far a row of class probabilities may be from 1: room for a model that computes in 16 bits."""
DECIMALS = (1, 2, 3, 4)
"""Those of probabilities that were rounded when they were written."""
ACTIVE = 0.5
"""The probability from which on a unit counts as active, where no threshold was tuned."""
Rows = NDArray[np.floating]
"""[T, C], a branch's numbers; a row all NaN is missing."""
RowFault = tuple[str, str, NDArray[np.bool_]]
"""What a row has or does, what is expected instead, and the rows [T] of which that is so."""


class Kind(ABC):
    """What the numbers of one challenge mean."""

    figure_name: ClassVar[str]
    """The organisers' figure, in words."""
    figure_key: ClassVar[str]
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

    def __init__(self, challenge: Challenge) -> None:
        self.challenge = challenge

    def is_prior(self, value: Any) -> bool:
        """Whether a JSON value can be a prior: what training saw on average, said where no branch says anything."""
        listed = isinstance(value, list | tuple) and len(value) == self.challenge.n_columns
        return listed and all(isinstance(number, int | float) for number in value) and self._fits(value)

    @property
    def figure_title(self) -> str:
        """The figure at the head of a table."""
        return self.figure_name[0].upper() + self.figure_name[1:]

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
    def figure(self, statistics: Statistics) -> Values:
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

    def tuned_figure(self, statistics: Statistics) -> Values:
        """The figure of tuning statistics, with the thresholds that are best on them: [..., F, K] -> [...]."""
        return self.figure(statistics)

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
            cropped = self.statistics([with_crop(*pair, self.challenge) for pair in pairs], predicted)
            if cropped.any():
                found["frames with a crop"] = self.report(videos, cropped)
        return found


class Classes(Kind):
    """One class a frame, of which a model gives probabilities."""

    figure_name, figure_key, columns_are, distribution = "macro F1", "macro_f1", "classes", True
    remedy = "Say --logits only where they are logits; probabilities are to be divided by the sum of their row."

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._n = task.n_classes
        self._names = task.class_names
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

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.int64]:
        return rows.argmax(axis=1)

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return scoring.confusion(truth, predicted, self._n)

    def figure(self, statistics: Statistics) -> Values:
        return scoring.macro_f1(statistics)

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics.sum(axis=(-2, -1))[..., None]

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return scoring.report(self._names, videos, statistics)


class _Fields(Kind):
    """A number a field, each of them by itself."""

    def __init__(self, challenge: Challenge) -> None:
        super().__init__(challenge)
        self._low, self._high = np.array([(field.low, field.high) for field in challenge.fields]).T
        self._expected = f"from {self._low[0]} to {self._high[0]}"
        self.unknown_prior = (0.0,) * challenge.n_columns
        self.prior_expected = f"{challenge.n_columns} numbers {self._expected}"

    def row_faults(self, rows: Rows) -> Iterator[RowFault]:
        yield f"has {self.noun} out of range", self._expected, ((rows < self._low) | (rows > self._high)).any(axis=1)

    def _fits(self, prior: Sequence[float]) -> bool:
        return bool(((self._low <= prior) & (prior <= self._high)).all())


class Numbers(_Fields):
    """Values such as valence and arousal, which a model gives as they are."""

    figure_name, figure_key, noun, columns_are = "mean CCC", "mean_ccc", "values", "values"
    remedy = "Clip or scale them."

    def from_logits(self, rows: Rows) -> Rows:
        expected = f"the values themselves, {self._expected}"
        raise OutputsError(f"{self.challenge.header} cannot be given as logits", expected=expected)

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.float32]:
        return rows.clip(self._low, self._high).astype(np.float32)  # a weighted mean of ones can round to more than one

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return concordance.moments(truth, predicted, self.challenge)

    def figure(self, statistics: Statistics) -> Values:
        return concordance.mean_ccc(statistics)

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics[..., 0]

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return concordance.report(self.challenge, videos, statistics)


class Units(_Fields):
    """Action units that are active or not, of each of which a model gives the probability."""

    figure_name, figure_key, columns_are = "macro F1", "macro_f1", "units"

    def from_logits(self, rows: Rows) -> Rows:
        return 0.5 * (1 + np.tanh(rows / 2))

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.int64]:
        return (rows >= (ACTIVE if thresholds is None else np.array(thresholds))).astype(np.int64)

    def are_thresholds(self, value: Any) -> bool:
        return value is None or self.is_prior(value)

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return units.unit_counts(truth, predicted, self.challenge)

    def figure(self, statistics: Statistics) -> Values:
        return units.mean_f1(statistics)

    def count_for_tuning(self, truth: NDArray[Any], rows: Rows) -> Statistics:
        return units.unit_counts_by_cut(truth, rows, self.challenge)

    def tuned_figure(self, statistics: Statistics) -> Values:
        return units.best_mean_f1(statistics)

    def thresholds(self, statistics: Statistics) -> tuple[float, ...] | None:
        return tuple(units.CUTS[place] for place in units.best_cuts(statistics))

    def settled(self, statistics: Statistics, chosen_on: Statistics) -> Statistics:
        return units.at_cuts(statistics, units.best_cuts(chosen_on))

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics.sum(axis=-1)

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return units.report(self.challenge, videos, statistics)


@cache
def kind_of(challenge: Challenge) -> Kind:
    """The kind of a challenge's numbers."""
    if isinstance(challenge, Task):
        return Classes(challenge)
    return Units(challenge) if all(field.whole for field in challenge.fields) else Numbers(challenge)
