"""What a checker finds: faults and warnings grouped by kind, with line numbers and a remedy each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MOST_LINES = 5
"""Line numbers that are kept of a kind of fault."""
MOST_TEXT = 120
"""Characters of a file's line that a message shows."""

FAULTS = {
    "byte-order mark": "Save the file as UTF-8 without a byte-order mark.",
    "UTF-16": "Save the file as UTF-8; the > of Windows' PowerShell writes UTF-16.",
    "not UTF-8": "Save the file as UTF-8, or write names without accents as the template does.",
    "line ending": "Write plain newlines (\\n), not Windows' or old Mac's.",
    "no last newline": "End the last line with a newline.",
    "blank line": "Remove the line.",
    "no header": "Put the header on line 1.",
    "header again": "Keep the header on line 1 only.",
    "header names": "Copy the header from the template.",
    "header order": "Copy the header from the template, and make sure that the labels count in its order too.",
    "header case": "Write the names with the template's capitals.",
    "another challenge": "Hand in this challenge's predictions, or name the other challenge's template.",
    "quotes": "Write header and rows without quotes.",
    "separator": "Separate the fields with commas.",
    "spaces": "Remove the spaces around commas and at the ends.",
    "extra first column": "Remove what stands before it; pandas writes its index unless index=False.",
    "trailing comma": "Remove the comma at the end.",
    "not a row": "Remove the line, or write it as the template does.",
    "column a class": "Give one whole number, the class itself: not a column a class, nor probabilities.",
    "decimal comma": "Write decimals with a point: 0.5.",
    "too many fields": "Write as many numbers as the format has.",
    "too few fields": "Write as many numbers as the format has.",
    "empty label": "Predict every row of the template.",
    "class name": "Write the class's number; the first name of the header is 0.",
    "label not a number": "Write plain numbers; a frame without an answer needs one all the same.",
    "label not whole": "Write classes and units as whole numbers: 3, not 3.0.",
    "label spelling": "Write plain digits with a point: no exponent, no plus, no leading zero.",
    "not-annotated label": "The mark for a frame nobody annotated is no prediction; predict frames without a face too.",
    "label out of range": "Check the order and the number of the classes, or the scale of the values.",
    "row name": "Spell image locations as the template does; frames have five digits at least.",
    "video name": "Spell videos as the template does.",
    "left and right": "_left, _right and no ending are different people in one video: take the template's.",
    "frames from 0": "Count a video's frames from 1.",
    "surplus row": "Remove the row: the template, not the video, says which rows there are.",
    "duplicate row": "Keep one row an image.",
    "row order": "Write the rows in the template's order.",
    "missing row": "Predict every row of the template, a frame without a face too.",
    "missing file": "Write one file for every video of the template.",
    "surplus file": "Remove the file: the template has no such video.",
    "row count": "Write as many labels as the template has rows for this video.",
}
"""Every kind of fault, and what to do about it."""

WARNINGS = {
    "constant predictions": "Was the right checkpoint loaded, and did it learn anything?",
    "class histogram": "Check the order of the classes, and that it is argmax; or the test set is unlike others.",
    "filled template": "Take the organisers' file: against predictions, rows that they lack cannot be missed.",
    "unusual row count": "Take the number of rows from the organisers' template.",
}
"""Every kind of warning: what may be right, and should be looked at."""

REMEDIES = FAULTS | WARNINGS


@dataclass(frozen=True)
class Fault:
    """All findings of one kind."""

    kind: str
    """One of `REMEDIES`."""
    path: Path
    """The file of the first of them."""
    lines: tuple[int, ...]
    """The first few lines in that file, from 1; of what is missing, the lines where it should be."""
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
    def severity(self) -> str:
        """`fault`, or `warning`: what may be right."""
        return "warning" if self.kind in WARNINGS else "fault"

    @property
    def remedy(self) -> str:
        return REMEDIES[self.kind]

    def to_json(self) -> dict[str, Any]:
        return {
            "kind": self.kind,
            "severity": self.severity,
            "file": str(self.path),
            "lines": list(self.lines),
            "count": self.count,
            "files": self.files,
            "found": self.found,
            "expected": self.expected,
            "remedy": self.remedy,
        }

    def __str__(self) -> str:
        where = f"{self.path}:{self.line}" if self.lines else str(self.path)
        kind = f"warning: {self.kind}" if self.severity == "warning" else self.kind
        times = f" ({self.count} times{self._whereabouts()})" if self.count > 1 else ""
        return f"{where}: {kind}{times}; found {self.found}; expected {self.expected}. {self.remedy}"

    def _whereabouts(self) -> str:
        if self.files > 1:
            return f" in {self.files} files"
        more = ", ..." if self.count > len(self.lines) else ""
        return f", lines {', '.join(map(str, self.lines))}{more}" if self.lines else ""


@dataclass(frozen=True)
class Verdict:
    """What a check of a submission comes to."""

    path: Path
    findings: Sequence[Fault]
    """Faults and warnings."""
    unchecked: Sequence[str] = ()
    """What could not be checked, a phrase each."""

    @property
    def clean(self) -> bool:
        """Whether there is no fault; warnings do not count."""
        return all(finding.severity == "warning" for finding in self.findings)

    @property
    def summary(self) -> str:
        warnings = sum(finding.severity == "warning" for finding in self.findings)
        faults = len(self.findings) - warnings
        parts = [f"{faults} kind{'s' * (faults > 1)} of fault" if faults else "clean"]
        if warnings:
            parts.append(f"{warnings} warning{'s' * (warnings > 1)}")
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "file": str(self.path),
            "verdict": "clean" if self.clean else "faults",
            "summary": self.summary,
            "findings": [finding.to_json() for finding in self.findings],
            "not_checked": list(self.unchecked),
        }


class Faults:
    """Gathers one file's findings by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, kind: str, line: int | None, found: bytes | str, expected: bytes | str, count: int = 1) -> None:
        """The first of a kind is described, bytes of a file being quoted; of the others only the line is noted."""
        self.counts[kind] += count
        if kind not in self._first:
            self._first[kind] = _shown(found), _shown(expected)
            self._lines[kind] = []
        lines = self._lines[kind]
        if line is not None and len(lines) < MOST_LINES:
            lines.append(line)

    def sorted(self) -> list[Fault]:
        faults = [
            Fault(kind, self.path, tuple(self._lines[kind]), *described, self.counts[kind])
            for kind, described in self._first.items()
        ]
        return sorted(faults, key=lambda fault: (not fault.lines, fault.lines))


def merged(faults: Sequence[Fault]) -> list[Fault]:
    """One fault a kind, over all files."""
    merged: dict[str, Fault] = {}
    for fault in faults:
        known = merged.get(fault.kind)
        merged[fault.kind] = replace(known, count=known.count + fault.count, files=known.files + 1) if known else fault
    return list(merged.values())


def _shown(text: bytes | str) -> str:
    """A piece of a file for a message: in quotes, so that a stray space is seen, and cut to a readable length."""
    if isinstance(text, str):
        return text
    cut = text[:MOST_TEXT].decode(errors="backslashreplace")
    return repr(cut + "..." if len(text) > MOST_TEXT else cut)
