"""Any folder of labelled clips, described by one CSV file.

    path,label,subject,split
    clips/a.mp4,happy,anna,train
    clips/b.wav,Anger,ben,val

Paths go from the file's folder. `path` and `label` must be there; `subject` may be left out where `split` is given.
Also known: `start` and `end` (seconds; several rows of a clip label its stretches) and `name`.
"""

import csv
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from abaw_expr.data.datasets.clips import SPLITS, Row
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import read_lines
from abaw_expr.errors import ReleaseError, of_machine

NEEDED = ("path", "label")
COLUMNS = (*NEEDED, "subject", "split", "start", "end", "name")


def read_rows(path: Path, problems: list[Problem]) -> Iterator[Row]:
    """The rows of a description; all that is wrong with one is an error.

    Raises ReleaseError, with its line, for what cannot be one.
    """
    lines = csv.reader(read_lines(path), strict=True)
    try:
        header = [name.strip().casefold() for name in next(lines, [])]
        _check_header(path, header)
        for cells in lines:
            if any(cells):
                yield _row(path, lines.line_num, header, [cell.strip() for cell in cells])
    except csv.Error as problem:
        raise ReleaseError(f"is not CSV ({problem})", path=path, line=lines.line_num) from problem


def _check_header(path: Path, header: list[str]) -> None:
    unknown = [name for name in header if name not in COLUMNS]
    if unknown or not set(NEEDED) <= set(header) or len(set(header)) < len(header):
        expected = f"{' and '.join(NEEDED)}, and any of {', '.join(COLUMNS[2:])}, each once"
        raise ReleaseError("has a wrong header", path=path, line=1, found=",".join(header), expected=expected)


def _row(path: Path, line: int, header: list[str], cells: list[str]) -> Row:
    if len(cells) != len(header):
        raise ReleaseError("has a wrong line", path=path, line=line, found=len(cells), expected=f"{len(header)} cells")
    values = dict.fromkeys(COLUMNS, "") | dict(zip(header, cells, strict=True))
    file = path.parent / values["path"]
    said, split = (path, line), values["split"].casefold()
    row = Row(file, values["label"], values["subject"], split, name=values["name"], said=said)
    if not values["path"]:
        raise row.error("names no file")
    try:
        file.is_dir()
    except OSError as problem:
        if of_machine(problem):
            raise
        raise row.error(f"names what cannot be a file ({problem.strerror})", values["path"]) from problem
    if row.split not in ("", *SPLITS):
        raise row.error("has an unknown split", row.split, f"{', '.join(SPLITS)}, or nothing")
    if not row.subject and not row.split:
        raise row.error(
            "names neither subject nor split", expected="one of the two", remedy="Clips are split by subject."
        )
    start, end = _seconds(row, values["start"], 0.0), _seconds(row, values["end"], math.inf)
    if start >= end:
        raise row.error("ends before it starts", f"{start:g} to {end:g}", "seconds, start below end")
    return replace(row, subject=row.subject or f"that of {row.clip}", start=start, end=end)


def _seconds(row: Row, text: str, default: float) -> float:
    try:
        seconds = float(text) if text else default
    except ValueError:
        seconds = math.nan
    if not seconds >= 0:
        raise row.error("has an unknown time", text, "seconds, 0 or more")
    return seconds
