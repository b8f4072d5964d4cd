"""The findings of the checker: faults and warnings grouped by kind, with line numbers and remedies."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

MOST_LINES = 5
"""Line numbers that are stored for each kind of fault."""
MOST_TEXT = 120
"""Characters of a line that a message shows."""

FAULT_KINDS = {
    "byte-order mark": "Save the file as UTF-8 without a byte-order mark.",
    "UTF-16": "Save the file as UTF-8; the > of Windows' PowerShell writes UTF-16.",
    "not UTF-8": "Save the file as UTF-8, or write names without accents as the template does.",
    "line ending": "Write newlines as \\n, not as \\r\\n or \\r.",
    "no last newline": "End the last line with a newline.",
    "blank line": "Remove the line.",
    "no header": "Put the header on line 1.",
    "header again": "Keep the header on line 1 only.",
    "header names": "Copy the header from the template.",
    "header order": "Copy the header from the template, and make sure that the labels follow its order.",
    "header case": "Write the names with the template's capitals.",
    "another challenge": "Submit predictions of this challenge, or name the template of the other challenge.",
    "quotes": "Write header and rows without quotes.",
    "separator": "Separate the fields with commas.",
    "spaces": "Remove the spaces around commas and at the ends.",
    "extra first column": "Remove the first column; pandas writes its index unless index=False.",
    "trailing comma": "Remove the comma at the end.",
    "not a row": "Remove the line, or write it as in the template.",
    "column per class": "Write one whole number, the class: not one column per class, and not probabilities.",
    "decimal comma": "Write decimals with a point: 0.5.",
    "too many fields": "Write as many numbers as the format has.",
    "too few fields": "Write as many numbers as the format has.",
    "empty label": "Predict every row of the template.",
    "class name": "Write the number of the class; the first name of the header is 0.",
    "label not a number": "Write plain numbers, also for frames without a face or audio.",
    "label not whole": "Write classes and units as whole numbers: 3, not 3.0.",
    "label spelling": "Write plain digits with a decimal point: no exponent, no plus, no leading zero.",
    "not-annotated label": "Do not write the ignore value; predict every row, also frames without a face.",
    "label out of range": "Check the order and the number of the classes, or the scale of the values.",
    "row name": "Spell image locations as in the template; frames have at least five digits.",
    "video name": "Spell videos as in the template.",
    "left and right": "Use the template's names: _left, _right and no ending are different people in one video.",
    "frames from 0": "Count a video's frames from 1.",
    "surplus row": "Remove the row: the rows are those of the template, not the frames of the video.",
    "duplicate row": "Keep one row per image.",
    "row order": "Write the rows in the template's order.",
    "missing row": "Predict every row of the template, also frames without a face.",
    "missing file": "Write one file for every video of the template.",
    "surplus file": "Remove the file: the template has no such video.",
    "row count": "Write as many labels as the template has rows for this video.",
}
"""The kinds of fault and their remedies."""

WARNINGS = {
    "constant predictions": "Check that the right checkpoint was loaded, and that it was trained.",
    "class histogram": "Check the order of the classes and the use of argmax; or the test set differs from others.",
    "filled template": "Use the organisers' file: with predictions as template, rows that they lack are not found.",
    "unusual row count": "Use the number of rows of the organisers' template.",
}
"""The kinds of warning, which may be correct, and their remedies."""

REMEDIES = FAULT_KINDS | WARNINGS


@dataclass(frozen=True)
class Fault:
    """All findings of one kind."""

    kind: str
    """One of `REMEDIES`."""
    path: Path
    """The file of the first of them."""
    lines: tuple[int, ...]
    """The first few lines in that file, from 1; for missing rows, the lines where they should be."""
    found: str
    """The text of the first finding."""
    expected: str
    """The expected text there."""
    count: int = 1
    """Number of findings."""
    files: int = 1
    """Number of files with findings."""

    @property
    def line(self) -> int | None:
        return self.lines[0] if self.lines else None

    @property
    def severity(self) -> str:
        """`fault`, or `warning` for a finding that may be correct."""
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
        times = f" ({self.count} times{self._line_list()})" if self.count > 1 else ""
        return f"{where}: {kind}{times}; found {self.found}; expected {self.expected}. {self.remedy}"

    def _line_list(self) -> str:
        if self.files > 1:
            return f" in {self.files} files"
        more = ", ..." if self.count > len(self.lines) else ""
        return f", lines {', '.join(map(str, self.lines))}{more}" if self.lines else ""


@dataclass(frozen=True)
class Verdict:
    """The result of a check of a submission."""

    path: Path
    findings: Sequence[Fault]
    """Faults and warnings."""
    unchecked: Sequence[str] = ()
    """Phrases that name what could not be checked."""

    @property
    def clean(self) -> bool:
        """Whether there is no fault; warnings do not count."""
        return all(finding.severity == "warning" for finding in self.findings)

    def under_names(self, names: Mapping[Path, str]) -> "Verdict":
        """The same on `predictions`, with these names for files and no folders: equal on every machine."""
        findings = [replace(each, path=Path(names.get(each.path, each.path.name))) for each in self.findings]
        return replace(self, path=Path("predictions"), findings=findings)

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
    """Collects the findings of one file by kind."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[str] = Counter()
        self._first: dict[str, tuple[str, str]] = {}
        self._lines: dict[str, list[int]] = {}

    def add(self, kind: str, line: int | None, found: bytes | str, expected: bytes | str, count: int = 1) -> None:
        """Adds findings: the first of a kind with its texts, bytes of a file in quotes; of others only the line."""
        self.counts[kind] += count
        if kind not in self._first:
            self._first[kind] = _quoted(found), _quoted(expected)
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


def merge_faults(faults: Sequence[Fault]) -> list[Fault]:
    """One fault per kind, over all files."""
    merged: dict[str, Fault] = {}
    for fault in faults:
        known = merged.get(fault.kind)
        merged[fault.kind] = replace(known, count=known.count + fault.count, files=known.files + 1) if known else fault
    return list(merged.values())


def _quoted(text: bytes | str) -> str:
    """Text for a message; bytes of a file are quoted, so that spaces are visible, and cut to a readable length."""
    if isinstance(text, str):
        return text
    cut = text[:MOST_TEXT].decode(errors="backslashreplace")
    return repr(cut + "..." if len(text) > MOST_TEXT else cut)
