"""Any folder of labelled clips, described by one CSV file.

    path,label,subject,split
    clips/a.mp4,happy,anna,train
    clips/b.wav,Anger,ben,val

Paths are relative to the file's folder. `path` and `label` are required; `subject` is optional where `split` is given.
Other columns: `start` and `end` (seconds; several rows of a clip label its stretches), `name`, and `provenance` of
generated clips, a file that says what their generator learned from.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path

from abaw_expr.data.datasets.clips import SPLITS, ClipRow
from abaw_expr.data.datasets.provenance import PROVENANCE, is_generated, read_provenance
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import read_text_lines
from abaw_expr.errors import ReleaseError, is_machine_error

_NEEDED = ("path", "label")
_COLUMNS = (*_NEEDED, "subject", "split", "start", "end", "name", "provenance")


def read_rows(path: Path, problems: list[Problem]) -> Iterator[ClipRow]:
    """The rows of a CSV file of clips. Raises ReleaseError, with the line, for what is none."""
    lines = csv.reader(read_text_lines(path), strict=True)
    try:
        header = [name.strip().casefold() for name in next(lines, [])]
        _check_header(path, header)
        for cells in lines:
            if any(cells):
                yield _row(path, lines.line_num, header, [cell.strip() for cell in cells])
    except csv.Error as problem:
        raise ReleaseError(f"is not CSV ({problem})", path=path, line=lines.line_num) from problem


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in header if name not in _COLUMNS]
    if unknown or not set(_NEEDED) <= set(header) or len(set(header)) < len(header):
        expected = f"{' and '.join(_NEEDED)}, and any of {', '.join(_COLUMNS[2:])}, each once"
        raise ReleaseError("has a wrong header", path=path, line=1, found=",".join(header), expected=expected)


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> ClipRow:
    if len(cells) != len(header):
        raise ReleaseError("has a wrong line", path=path, line=line, found=len(cells), expected=f"{len(header)} cells")
    values = dict.fromkeys(_COLUMNS, "") | dict(zip(header, cells, strict=True))
    file = path.parent / values["path"]
    source, split = (path, line), values["split"].casefold()
    row = ClipRow(file, values["label"], values["subject"], split, name=values["name"], source=source)
    if not values["path"]:
        raise row.error("names no file")
    try:
        file.is_dir()
    except OSError as problem:
        if is_machine_error(problem):
            raise
        raise row.error(f"has a path that cannot be a file ({problem.strerror})", values["path"]) from problem
    if row.split not in ("", *SPLITS):
        raise row.error("has an unknown split", row.split, f"{', '.join(SPLITS)}, or nothing")
    if not row.subject and not row.split:
        raise row.error(
            "names neither subject nor split", expected="one of the two", remedy="Clips are split by subject."
        )
    start, end = _seconds(row, values["start"], 0.0), _seconds(row, values["end"], math.inf)
    if start >= end:
        raise row.error("ends before it starts", f"{start:g} to {end:g}", "seconds, start below end")
    return replace(row, start=start, end=end, generated_from=_generated_from(row, values["provenance"]))


def _generated_from(row: ClipRow, provenance: str) -> tuple[str, ...]:
    """The recordings that a generated clip's generator learned from. Raises ReleaseError where they are not known."""
    if provenance:
        return _recordings(row.path.parent / provenance if row.source is None else row.source[0].parent / provenance)
    if is_generated(row.path):
        remedy = f"Keep the column provenance, with the {PROVENANCE} that `generate sample` wrote."
        raise row.error("is generated, and names no file that says what from", remedy=remedy)
    return ()


@cache
def _recordings(path: Path) -> tuple[str, ...]:
    """Those of a file, which many rows name."""
    return read_provenance(path, ReleaseError, "Put back the file that `generate sample` wrote.").recordings


def _seconds(row: ClipRow, text: str, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise row.error("has an unknown time", text, "seconds, 0 or more")
    return seconds
