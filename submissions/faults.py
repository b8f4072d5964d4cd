"""What a checker finds: faults grouped by kind, with line numbers and a remedy each."""

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path

MOST_LINES = 5
"""Line numbers that are kept of a kind of fault."""

REMEDIES = {
    "byte-order mark": "Save the file as UTF-8 without a byte-order mark.",
    "line ending": "Write plain newlines (\\n), not Windows' or old Mac's.",
    "no last newline": "End the last line with a newline.",
    "blank line": "Remove the line.",
    "no header": "Put the header on line 1.",
    "header again": "Keep the header on line 1 only.",
    "header names": "Copy the header from the template.",
    "header order": "Copy the header from the template, and make sure that the labels count in its order too.",
    "header case": "Write the names with the template's capitals.",
    "header quotes": "Write the header without quotes.",
    "header separator": "Separate the names with commas.",
    "header spaces": "Remove the spaces around commas and at the ends.",
    "header trailing comma": "Remove the comma at the end.",
    "row quotes": "Write rows without quotes.",
    "row separator": "Separate image location and label with a comma.",
    "row spaces": "Remove the spaces around commas and at the ends.",
    "row trailing comma": "Remove the comma at the end.",
    "not a row": "Remove the line, or write it as the template does.",
    "too many fields": "Give one integer, the class itself: not a column a class, nor probabilities.",
    "empty label": "Predict every row of the template.",
    "label not an integer": "Write the class as a plain integer.",
    "not-annotated label": "The mark for a frame nobody annotated is no prediction; predict frames without a face too.",
    "label out of range": "Check the order and the number of the classes.",
    "row name": "Spell image locations as the template does; frames have five digits at least.",
    "video name": "Spell videos as the template does; _left and _right are different videos.",
    "surplus row": "Remove the row: the template, not the video, says which rows there are.",
    "duplicate row": "Keep one row an image.",
    "row order": "Write the rows in the template's order.",
    "missing row": "Predict every row of the template, a frame without a face too.",
    "missing file": "Write one file for every video of the template.",
    "surplus file": "Remove the file: the template has no such video.",
    "row count": "Write as many labels as the template has rows for this video.",
}
"""Every kind of fault, and what to do about it."""


@dataclass(frozen=True)
class Fault:
    """All faults of one kind."""

    kind: str
    """One of `REMEDIES`."""
    path: Path
    """The file of the first of them."""
    lines: tuple[int, ...]
    """The first few lines in that file, from 1; empty where the fault is that something is not there."""
    found: str
    """What the first of them is."""
    expected: str
    """What it should be."""
    count: int = 1
    """How many there are."""
    files: int = 1
    """In how many files."""

    @property
    def line(self) -> int | None:
        return self.lines[0] if self.lines else None

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind]

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.lines else str(self.path)
        times = f" ({self.count} times{self._whereabouts()})" if self.count > 1 else ""
        return f"{where}: {self.kind}{times}; found {self.found}; expected {self.expected}. {self.remedy}"

    def _whereabouts(self) -> str:
        if self.files > 1:
            return f" in {self.files} files"
        more = ", ..." if self.count > len(self.lines) else ""
        return f", lines {', '.join(map(str, self.lines))}{more}" if self.lines else ""


class Faults:
    """Gathers one file's faults by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._first: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, list[int]] = {}
        self._counts: Counter[str] = Counter()

    def add(self, kind: str, line: int | None, found: str, expected: str, count: int = 1) -> None:
        """The first fault of a kind is described; of the others only the line is noted."""
        self._first.setdefault(kind, (found, expected))
        self._counts[kind] += count
        lines = self._lines.setdefault(kind, [])
        if line is not None and len(lines) < MOST_LINES:
            lines.append(line)

    def sorted(self) -> list[Fault]:
        faults = [
            Fault(kind, self.path, tuple(self._lines[kind]), *described, self._counts[kind])
            for kind, described in self._first.items()
        ]
        return sorted(faults, key=lambda fault: (not fault.lines, fault.lines))


def merged(faults: list[Fault]) -> list[Fault]:
    """One fault a kind, over all files."""
    merged: dict[str, Fault] = {}
    for fault in faults:
        known = merged.get(fault.kind)
        merged[fault.kind] = replace(known, count=known.count + fault.count, files=known.files + 1) if known else fault
    return list(merged.values())
