"""The parts of a page as plain values: sections of texts, tables and figures, in the order in which they are shown.

Whoever has something to show gives a `Part`; the page neither knows where it comes from nor computes anything.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

Cell = str | int | float | None
"""What a cell of a table may hold: floats are shown to four digits; those that need others are given as texts."""
_NUMBER = re.compile(r"[-+]?[\d.,]+|-")
_FITTING = 5
"""Columns of a table that fit into half of the page."""


@dataclass(frozen=True)
class Text:
    """A paragraph, as plain text."""

    text: str
    warning: bool = False

    kind = "text"


@dataclass(frozen=True)
class Fact:
    """A number that is shown large, with its name and a note below it."""

    name: str
    value: Cell
    note: str = ""


@dataclass(frozen=True)
class Facts:
    """Numbers that are shown large, beside each other."""

    facts: Sequence[Fact]

    kind = "facts"


@dataclass(frozen=True)
class Table:
    """A table of numbers and plain texts."""

    caption: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    folded: bool = False
    """Whether it is shown only when its caption is chosen."""

    kind = "table"

    @property
    def numeric(self) -> list[bool]:
        """Whether a column holds numbers, also those that are texts already, which are aligned to the right."""
        columns = zip(*self.rows, strict=True) if self.rows else [()] * len(self.columns)
        return [all(not isinstance(value, str) or _NUMBER.fullmatch(value) for value in column) for column in columns]

    @property
    def wide(self) -> bool:
        """Whether it takes the whole width of the page."""
        return len(self.columns) > _FITTING


@dataclass(frozen=True)
class Key:
    """A line of a legend."""

    name: str
    colour: str
    dash: tuple[int, ...] = ()
    marker: str | None = None


@dataclass(frozen=True)
class Figure:
    """A plot, as the plotting library in the page reads it."""

    title: str
    item: Mapping[str, Any]
    """JSON, as `figures.finished` makes it."""
    summary: str
    """What it shows in words, for those who do not see it."""
    height: int
    """In pixels."""
    keys: Sequence[Key] = ()
    """The legend."""
    note: str = ""
    """A line below it."""
    wide: bool = False
    """Whether it takes the whole width of the page."""

    kind = "figure"


@dataclass(frozen=True)
class Explorer:
    """The interactive part of a task: confusion cells, recordings and their timelines."""

    value: Mapping[str, Any]
    """JSON, as `explorer.py` makes it."""

    kind = "explorer"


@dataclass(frozen=True)
class Player:
    """A video beside its timeline."""

    value: Mapping[str, Any]
    """JSON: what `timeline.task_value` and `timeline.video_value` make."""
    sources: Sequence[str]
    """The addresses of the video, relative to the page: the first that the browser can play is shown."""
    title: str

    kind = "player"


Block = Text | Facts | Table | Figure | Explorer | Player


@dataclass(frozen=True)
class Part:
    """A part of the page under a heading."""

    title: str
    blocks: Sequence[Block] = field(default_factory=tuple)
    lead: str = ""
    """A sentence under the heading that says what is shown."""
