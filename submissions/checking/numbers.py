"""Checks the numbers of a format's lines: blocks of lines at once, and line by line in blocks that have a fault.

Also counts the predictions, for two warnings with few false alarms: they need 1,000 rows, and predictions that no
trained model makes.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache
from itertools import groupby
from math import sqrt

from abaw_expr.tasks.task import Field
from submissions.checking.faults import Faults
from submissions.formats import VALIDATION_FRAMES, Format

INTEGER = re.compile(rb"[+-]?[0-9]+")
DECIMAL = re.compile(rb"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?")
MOST_TEXTS = 1 << 13
"""Distinct texts of lines whose faults are cached; those of classes and units occur often."""
ENOUGH_ROWS = 1000
"""Rows from which the warnings are given."""
CONSTANT_FRACTION = 0.95
"""Predictions are nearly constant if one class, or the more frequent value of every action unit, is on this fraction of
rows; the most frequent class of the validation set has 0.38."""
CONSTANT_DEVIATION = 0.01
"""Predictions from -1 to 1 are nearly constant if their standard deviation is below this."""
FAR = 0.5
"""The fraction of rows that would have to change class to match the validation set; for random classes it is 0.42."""


class Numbers:
    """The numbers of a format's lines."""

    def __init__(self, form: Format, located: bool) -> None:
        self.fields = form.fields
        self.commas = len(form.fields) - (not located)
        """Commas of a valid line."""
        self.expected = _described(form.fields)
        self.tallies = [Tally(field) for field in form.fields]
        self._names = form.header.encode().split(b",")
        self._texts = [_texts(field) for field in form.fields]
        self._held: list[list[bytes]] = []
        self.kinds = lru_cache(MOST_TEXTS)(self._kinds)
        """The kinds of fault of a line's numbers; empty for a valid line."""

    def columns(self, block: bytes) -> list[list[bytes]] | None:
        """The columns of a block of lines; None where a line has too few or too many fields."""
        # A newline stays at the end of its field, so that it is not taken for a comma.
        fields = block.replace(b"\n", b"\n,").split(b",")
        fields.pop()
        width = self.commas + 1
        columns = [fields[i::width] for i in range(width)]
        rows = block.count(b"\n")
        columns[-1] = b"".join(columns[-1]).split(b"\n")[:-1]
        whole = len(fields) == rows * width and len(columns[-1]) == rows
        return columns if whole else None

    def right_columns(self, columns: Sequence[Sequence[bytes]]) -> bool:
        """Whether all numbers of these columns, one per field, are valid; counts them if so."""
        tests = zip(self.fields, self._texts, columns, strict=True)
        right = all(_right(field, texts, set(column)) for field, texts, column in tests)
        if right:
            self._count(columns)
        return right

    def hold(self, text: bytes) -> None:
        """Stores the numbers of a valid line, to count them at the next `flush`."""
        self._held.append(text.split(b","))

    def flush(self) -> None:
        """Counts the lines that were stored."""
        if self._held:
            self._count(list(zip(*self._held, strict=True)))
            self._held.clear()

    def _kinds(self, text: bytes) -> tuple[str, ...]:
        if not text:
            return ("empty label",)
        numbers = text.split(b",")
        if len(numbers) != len(self.fields):
            return (self._miscounted(numbers),)
        tests = zip(self.fields, self._texts, numbers, strict=True)
        found = [self._kind(field, number) for field, texts, number in tests if not _right(field, texts, {number})]
        return tuple(dict.fromkeys(found))

    def _count(self, columns: Iterable[Sequence[bytes]]) -> None:
        for tally, column in zip(self.tallies, columns, strict=True):
            tally.add(column)

    def _miscounted(self, numbers: list[bytes]) -> str:
        wanted = len(self.fields)
        decimals = sum(not field.whole for field in self.fields)
        if wanted < len(numbers) <= wanted + decimals and all(map(INTEGER.fullmatch, numbers)):
            return "decimal comma"
        if wanted == 1 and len(numbers) == self.fields[0].high + 1:
            return "column per class"
        return "too many fields" if len(numbers) > wanted else "too few fields"

    def _kind(self, field: Field, text: bytes) -> str:
        """The kind of fault of a number that is not valid."""
        if not text:
            return "empty label"
        try:
            value = float(text)
        except ValueError:
            return "class name" if text in self._names else "label not a number"
        if value != value:
            return "label not a number"
        if value == field.ignore_value:
            return "not-annotated label"
        if not field.low <= value <= field.high:
            return "label out of range"
        return "label not whole" if field.whole and not INTEGER.fullmatch(text) else "label spelling"


class Tally:
    """Counts the valid numbers of one field."""

    def __init__(self, field: Field) -> None:
        self.field = field
        self.counts: Counter[int] = Counter()
        """The number of rows with each whole number."""
        self.rows = 0
        self._sum = self._squares = 0.0

    def add(self, column: Sequence[bytes]) -> None:
        self.rows += len(column)
        if self.field.whole:
            for text, count in Counter(column).items():
                self.counts[int(text)] += count
        else:
            values = list(map(float, column))
            self._sum += sum(values)
            self._squares += sum(value * value for value in values)

    @property
    def constant(self) -> str:
        """The value that nearly all rows have, in words; empty where there is none."""
        if self.rows < ENOUGH_ROWS:
            return ""
        if not self.field.whole:
            mean = self._sum / self.rows
            deviation = sqrt(max(0.0, self._squares / self.rows - mean * mean))
            steady = deviation < CONSTANT_DEVIATION
            return f"{self.field.name} {mean:.3f} with a standard deviation of {deviation:.4f}" if steady else ""
        ((value, count),) = self.counts.most_common(1)
        steady = count >= CONSTANT_FRACTION * self.rows
        return f"{self.field.name} {value} on {count / self.rows:.1%} of rows" if steady else ""


def warn(faults: Faults, tallies: Sequence[Tally]) -> None:
    """Adds warnings about predictions that have a valid form and are probably wrong."""
    units = [tally for tally in tallies if tally.field.whole and tally.field.high == 1]
    # One action unit may be rare, but not all of them.
    constant = [tally.constant for tally in units] if all(tally.constant for tally in units) else []
    constant += [tally.constant for tally in tallies if tally not in units and tally.constant]
    if constant:
        faults.add("constant predictions", None, "; ".join(constant), "predictions that vary")
    for tally in tallies:
        frames = VALIDATION_FRAMES.get(tally.field.name)
        if frames and tally.rows >= ENOUGH_ROWS and not tally.constant:
            _compare(faults, tally, frames)


def _compare(faults: Faults, tally: Tally, frames: Sequence[int]) -> None:
    """Compares the fractions of predicted classes with those of annotated classes in the validation set."""
    found = [tally.counts[label] / tally.rows for label in range(len(frames))]
    usual = [count / sum(frames) for count in frames]
    if sum(abs(a - b) for a, b in zip(found, usual, strict=True)) / 2 > FAR:
        faults.add("class histogram", None, _fractions(found), f"about {_fractions(usual)}, as in the validation set")


def _fractions(fractions: Iterable[float]) -> str:
    return ", ".join(f"{label}: {fraction:.0%}" for label, fraction in enumerate(fractions))


def _texts(field: Field) -> frozenset[bytes]:
    """All valid texts of a whole number; empty for other numbers, which have too many."""
    return frozenset(b"%d" % number for number in range(field.low, field.high + 1)) if field.whole else frozenset()


def _right(field: Field, texts: frozenset[bytes], numbers: set[bytes]) -> bool:
    """Whether all of these texts are valid numbers of the field; only here this is defined."""
    if field.whole:
        return numbers <= texts
    if not all(map(DECIMAL.fullmatch, numbers)):
        return False
    values = list(map(float, numbers))
    return field.low <= min(values) and max(values) <= field.high


def _described(fields: Sequence[Field]) -> str:
    """The expected numbers of a line, in words: `a whole number 0..7`."""
    groups = [(key, len(list(group))) for key, group in groupby(fields, lambda f: (f.low, f.high, f.whole))]
    parts = []
    for (low, high, whole), count in groups:
        number = "whole number" if whole else "number"
        parts.append(f"{f'{count} {number}s' if count > 1 else f'a {number}'} {low}..{high}")
    return " and ".join(parts)
