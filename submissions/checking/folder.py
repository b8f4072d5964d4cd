"""Checks the 3rd edition's folder: one `<video>.txt` per video, whose lines have no image location."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from abaw_expr.errors import PredictionsError, shorten
from submissions.checking.faults import Fault, Faults, merge_faults
from submissions.checking.file import check_header
from submissions.checking.numbers import Numbers, warn
from submissions.checking.text import check_garbage, check_length, repaired
from submissions.formats import PER_VIDEO, Format

LONGEST_NUMBER = 40
"""Bytes beyond which a field is prose: floats have 25, `nan` and the names of classes are shorter."""
NOTHING = re.compile(rb"(?!)")
"""A pattern without matches, for lines that have no image location."""


def check_files(folder: Path, form: Format, rows: Mapping[str, int]) -> list[Fault]:
    """Faults and warnings of a folder that should have a file for each of these videos, with `rows` rows.

    Raises PredictionsError where the folder or a file cannot be read, or a file is empty or not text.
    """
    counts = {f"{video}.txt": count for video, count in rows.items()}
    if not folder.is_dir():
        raise PredictionsError("is not a folder", path=folder, remedy="Give the folder that holds <video>.txt files.")
    present = {entry.name for entry in folder.iterdir()}
    if present.isdisjoint(counts):
        remedy = "Name the predictions.txt, or the folder that `submit` wrote."
        raise PredictionsError("holds none of the template's videos as <video>.txt", path=folder, remedy=remedy)
    findings = _check_names(folder, present, list(counts))
    numbers = Numbers(form, located=False)
    for name, count in counts.items():
        if name in present:
            findings += _check_video(folder / name, form, count, numbers)
    warnings = Faults(folder)
    warn(warnings, numbers.tallies)
    return merge_faults(findings) + warnings.sorted()


def _check_names(folder: Path, present: set[str], expected: list[str]) -> list[Fault]:
    """The missing and surplus files of the folder."""
    faults = Faults(folder)
    missing = [name for name in expected if name not in present]
    if missing:
        found = f"{len(expected) - len(missing)} of {len(expected)} files"
        faults.add("missing file", None, found, f"also {shorten(missing)}", len(missing))
    surplus = sorted(present.difference(expected))
    if surplus:
        likely = get_close_matches(surplus[0], missing, n=1)
        meant = f"likely {likely[0]}" if likely else "no such file"
        faults.add("surplus file", None, shorten(surplus), meant, len(surplus))
    return faults.sorted()


def _check_video(path: Path, form: Format, count: int, numbers: Numbers) -> list[Fault]:
    """All faults of one video's file, which should have `count` lines of numbers."""
    faults = Faults(path)
    own, blocks = check_header(faults, form, PER_VIDEO)
    if own != form:
        numbers = Numbers(own, located=False)
    indexed = "extra first column" in faults.counts
    found = 0
    for number, block in blocks:
        check_length(path, number, count)
        columns = None if indexed else numbers.columns(block)
        if columns and numbers.right_columns(columns):
            found += len(columns[0])
            continue
        lines = block[:-1].split(b"\n")
        for line, text in enumerate(lines, number):
            found += _check_line(faults, line, text, indexed, numbers)
        numbers.flush()
        garbage = sum(not text.strip() or len(text) > LONGEST_NUMBER * (numbers.commas + 1) for text in lines)
        check_garbage(path, number, lines, garbage, numbers.expected)
    if found != count:
        faults.add("row count", None, f"{found} lines of numbers", str(count))
    return faults.sorted()


def _check_line(faults: Faults, number: int, line: bytes, indexed: bool, numbers: Numbers) -> bool:
    """Checks one line, and returns whether it is a line of numbers."""
    if not line.strip():
        faults.add("blank line", number, line, "a row")
        return False
    text, causes = repaired(line, numbers.commas + indexed, NOTHING)
    if indexed and text.count(b",") > numbers.commas:
        text = text.partition(b",")[2]
        causes.append("extra first column")
    for cause in causes:
        faults.add(cause, number, line, text)
    kinds = numbers.kinds(text)
    for kind in kinds:
        faults.add(kind, number, line, numbers.expected)
    if not kinds:
        numbers.hold(text)
    return True
