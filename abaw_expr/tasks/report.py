"""What a score is reported as, whatever the task."""

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple


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


def in_words(name: str, score: float, interval: tuple[float, float] | None) -> str:
    """A figure with its interval."""
    over = "" if interval is None else " (95 % over recordings: {:.4f} to {:.4f})".format(*interval)
    return f"{name} {score:.4f}{over}"


@dataclass(frozen=True)
class ClassScore:
    """One class over all annotated frames."""

    name: str
    precision: float
    recall: float
    f1: float
    support: int
    """How many frames truly are of this class."""
