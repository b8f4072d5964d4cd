"""Reports of scores, for every task.

Shapes: C classes or units.
"""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from abaw_expr.tasks.statistics import Counts, safe_divide


class Section(NamedTuple):
    """A table of a report."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[object, ...]]


@dataclass(frozen=True)
class Report:
    """All scores of one set of predictions of a task."""

    @abstractmethod
    def headline(self) -> str:
        """The score in one line."""

    @abstractmethod
    def sections(self) -> Iterator[Section]:
        """The tables that explain the score."""

    def to_json(self) -> dict[str, Any]:
        """The report as plain JSON values."""
        return asdict(self)


def in_words(name: str, score: float, interval: tuple[float, float] | None) -> str:
    """A score and its interval as text."""
    over = "" if interval is None else " (95 % over recordings: {:.4f} to {:.4f})".format(*interval)
    return f"{name} {score:.4f}{over}"


@dataclass(frozen=True)
class ClassScore:
    """Scores of one class or action unit over all annotated frames."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """Number of frames whose true label is this class, or on which the unit is active."""


def class_scores(names: Sequence[str], hits: Counts, predicted: Counts, support: Counts) -> tuple[ClassScore, ...]:
    """The scores of classes or units from counts of frames [C]: true positives, predicted and true ones."""
    f1 = safe_divide(2 * hits, predicted + support)
    columns = (safe_divide(hits, predicted), safe_divide(hits, support), f1, support)
    return tuple(ClassScore(*row) for row in zip(names, *(column.tolist() for column in columns), strict=True))
