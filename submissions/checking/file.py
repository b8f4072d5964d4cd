"""Checks one predictions file against a template."""

import re
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from abaw_expr.errors import PredictionsError
from submissions.checking.expected_rows import CheckedTemplate
from submissions.checking.faults import Fault, Faults
from submissions.checking.numbers import Numbers, warn
from submissions.checking.rows import IMAGE_LOCATION, RowChecker
from submissions.checking.text import Blocks, cut_header, read_blocks, repaired
from submissions.formats import FORMATS, Format

_REMEDY = "Write the predictions again."


def check_file(path: Path, template: CheckedTemplate) -> list[Fault]:
    """Faults and warnings in the order of their first lines.

    Raises PredictionsError where the file cannot be read, is empty, is not text, or most of its lines are not rows.
    """
    faults = Faults(path)
    form, blocks = check_header(faults, template.form, FORMATS)
    numbers = Numbers(form, located=True)
    rows = RowChecker(faults, template, numbers)
    for number, block in blocks:
        rows.add(number, block)
    rows.finish()
    warn(faults, numbers.tallies)
    return faults.sorted()


def check_header(faults: Faults, form: Format, others: Sequence[Format]) -> tuple[Format, Blocks]:
    """Checks a file's header; returns the format of its lines, which may be one of the others, and the lines.

    Raises PredictionsError where the file cannot be read, is empty, or is not text.
    """
    number, line, blocks = cut_header(read_blocks(faults, PredictionsError, _REMEDY), faults)
    expected = form.header.encode()
    text, causes = repaired(line, expected.count(b","), first_name(expected))
    # The first field of a row is an image location, or has no letter; that of a header is a name.
    field = text.partition(b",")[0]
    if IMAGE_LOCATION.fullmatch(field) or not re.search(rb"[A-Za-z]", field):
        faults.add("no header", number, line, expected)
        return form, chain([(number, line + b"\n")], blocks)
    other = next((other for other in others if other != form and other.header.encode() == text), None)
    if other:
        causes.append("another challenge")
    elif text != expected:
        causes.append(f"header {_names_fault(text.lower(), expected.lower())}")
    for cause in causes:
        faults.add(cause, number, line, expected)
    return other or form, blocks


def first_name(header: bytes) -> re.Pattern[bytes]:
    """A pattern for the first field of a header, in any case of letters."""
    return re.compile(re.escape(header.partition(b",")[0]), re.IGNORECASE)


def _names_fault(header: bytes, expected: bytes) -> str:
    """The fault of the names in a header, both in lower case."""
    if header == expected:
        return "case"
    return "order" if sorted(header.split(b",")) == sorted(expected.split(b",")) else "names"
