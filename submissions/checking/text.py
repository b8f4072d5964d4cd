"""Reads text for the checker: blocks of whole lines of any file, and repaired lines.

A file is read once, in blocks, so that memory does not depend on its size; other files than text are refused at their
first block.
"""

import codecs
import re
import stat
from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from pathlib import Path
from typing import BinaryIO

from abaw_expr.errors import PredictionsError, UserError, unreadable
from submissions.checking.faults import MOST_TEXT, Faults

BLOCK = 1 << 18
"""Bytes read at a time."""
LONGEST_LINE = 1 << 13
"""The most bytes of a line; a longer one shows that the file is not text."""
GARBAGE, GARBAGE_FRACTION = 10_000, 2 / 3
"""A check ends at a block of more than this many bytes of which more than this fraction of lines are not rows."""
ARCHIVES = {b"PK\x03\x04": "ZIP", b"\x1f\x8b": "gzip", b"\xfd7zXZ": "xz", b"7z\xbc\xaf": "7z", b"Rar!": "RAR"}
ENDING = re.compile(rb"\r?\r\n|\r|\n")
"""The end of a line. The longest is a CRLF that was written in Windows' text mode."""
OTHER_SEPARATORS = bytes.maketrans(b";|\t", b",,,")
UNTIDY = re.compile(rb"""["' ;|\t]""")
SPACES_WITHIN = re.compile(rb"(?<=\S) +(?=\S)")
UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)

Blocks = Iterator[tuple[int, bytes]]
"""Blocks of whole lines, each ending in a newline, with the number, from 1, of their first line."""


def read_blocks(faults: Faults, error: type[UserError], remedy: str) -> Blocks:
    """The lines of a text file as UTF-8 with \\n as line ending; repairs for this are added to `faults`.

    Raises `error` where the file cannot be read, is not a regular file, is empty, or is not text.
    """
    try:
        _check_regular(faults.path, error, remedy)
        with open(faults.path, "rb") as file:
            yield from _whole_lines(_decoded(file, faults, error, remedy), faults, error, remedy)
    except OSError as problem:
        raise unreadable(error, faults.path, problem) from problem


def _check_regular(path: Path, error: type[UserError], remedy: str) -> None:
    """Raises `error` for other than regular files before they are opened: a pipe blocks, a device may be endless."""
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        found = "a folder" if stat.S_ISDIR(mode) else "a pipe" if stat.S_ISFIFO(mode) else "a device"
        raise error("is not a regular file", path=path, found=found, expected="a text file", remedy=remedy)


def _decoded(file: BinaryIO, faults: Faults, error: type[UserError], remedy: str) -> Iterator[bytes]:
    """The content of a file in pieces, as UTF-8 without a byte-order mark."""
    start = file.read(BLOCK)
    for mark, name in ARCHIVES.items():
        if start.startswith(mark):
            raise error(
                f"is a {name} archive, not text", path=faults.path, remedy="Unpack it, and check the file in it."
            )
    encoding = _utf16(start)
    decoder = codecs.getincrementaldecoder(encoding)("replace") if encoding else None
    if encoding:
        faults.add("UTF-16", 1, start[:8], "UTF-8")
    elif start.startswith(codecs.BOM_UTF8):
        faults.add("byte-order mark", 1, "U+FEFF before the header", "nothing before the header")
        start = start.removeprefix(codecs.BOM_UTF8)
    for piece in chain([start], iter(partial(file.read, BLOCK), b"")):
        yield decoder.decode(piece).encode() if decoder else piece


def _utf16(start: bytes) -> str | None:
    """The UTF-16 encoding of a text, also without a byte-order mark, as its first letters are Latin; or None."""
    if start.startswith(UTF16):
        return "utf-16"
    letters = start[:32]
    if len(letters) < 4 or not any(letters):
        return None
    if not any(letters[1::2]):
        return "utf-16-le"
    return "utf-16-be" if not any(letters[::2]) else None


def _whole_lines(pieces: Iterator[bytes], faults: Faults, error: type[UserError], remedy: str) -> Blocks:
    number, rest, blank = 1, b"", True
    for piece in pieces:
        blank = blank and not piece.strip()
        text = rest + piece
        # Carriage returns at the end of the text may be the first half of a line ending.
        end = max(text.rfind(b"\n"), text.rfind(b"\r", 0, len(text.rstrip(b"\r")))) + 1
        block, rest = text[:end], text[end:]
        if b"\0" in piece:
            line = number + text.count(b"\n", 0, text.index(b"\0"))
            raise error("is not text: it holds zero bytes", path=faults.path, line=line, remedy=remedy)
        if block:
            block = _plain(number, block, faults)
            yield number, block
            number += block.count(b"\n")
        if len(rest) > LONGEST_LINE:
            problem = f"is not text: a line has more than {LONGEST_LINE:,} bytes"
            found = rest[:40].decode(errors="backslashreplace")
            raise error(problem, path=faults.path, line=number, found=found, remedy=remedy)
    if blank:
        raise error("is empty", path=faults.path, remedy=remedy)
    if rest:
        if not rest.endswith(b"\r"):
            faults.add("no last newline", number, "the end of the file", "a newline before it")
        yield number, _plain(number, rest, faults).removesuffix(b"\n") + b"\n"


def _plain(number: int, text: bytes, faults: Faults) -> bytes:
    """A text with \\n as line ending."""
    if b"\r" not in text:
        return text
    for line, end in enumerate(ENDING.findall(text), number):
        if end != b"\n":
            faults.add("line ending", line, end, b"\n")
    return ENDING.sub(b"\n", text)


def cut_header(blocks: Blocks, faults: Faults) -> tuple[int, bytes, Blocks]:
    """The first line that is not blank, its number, and the lines after it."""
    for number, block in blocks:
        blank = len(block) - len(block.lstrip())
        start = block.rfind(b"\n", 0, blank) + 1
        skipped = block.count(b"\n", 0, start)
        if skipped:
            faults.add("blank line", number, b"", "a row", skipped)
        line, _, rest = block[start:].partition(b"\n")
        if line:
            header = number + skipped
            return header, line, chain([(header + 1, rest)] if rest else [], blocks)
    raise AssertionError("`read_blocks` refuses an empty file")


def check_length(path: Path, number: int, rows: int) -> None:
    """Raises PredictionsError where a file has far more than twice the expected number of rows."""
    if number > 2 * rows + 100_000:
        raise PredictionsError(
            "has far too many lines", path=path, found=f"{number:,} and more", expected=f"{rows:,} rows"
        )


def check_garbage(path: Path, number: int, lines: list[bytes], garbage: int, expected: str) -> None:
    """Raises PredictionsError where most lines of a block, which starts at line `number`, are not rows."""
    if garbage > GARBAGE_FRACTION * len(lines) and sum(map(len, lines)) + len(lines) > GARBAGE:
        raise PredictionsError(
            f"is not a predictions file: {garbage:,} of {len(lines):,} lines are not rows",
            path=path,
            line=number,
            found=lines[0][:MOST_TEXT].decode(errors="backslashreplace"),
            expected=expected,
            remedy="Name the predictions file of this challenge and edition.",
        )


def repaired(line: bytes, commas: int, first: re.Pattern[bytes]) -> tuple[bytes, list[str]]:
    """A line with its form repaired, and the kinds of fault that were repaired.

    A valid line has `commas` commas, and its first field matches `first`.
    """
    if line.isascii() and not UNTIDY.search(line):
        start, _, _ = line.partition(b",")
        if first.fullmatch(start) and line.count(b",") <= commas:
            return line, []  # the result of the repairs below, but much faster
    causes = []
    for cause, repair in REPAIRS:
        before, line = line, repair(line, commas, first)
        if line != before:
            causes.append(cause)
    return line, causes


def _as_utf8(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    try:
        line.decode()
    except UnicodeDecodeError:
        return line.decode("cp1252", "replace").encode()
    return line


def _without_quotes(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    return line.replace(b'"', b"").replace(b"'", b"")


def _with_commas(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    body = line.rstrip()
    line = body.translate(OTHER_SEPARATORS) + line[len(body) :]
    # In a line with all its commas, spaces are not separators; an image location may contain spaces.
    name, comma, rest = line.partition(b",") if b"," in line else (b"", b"", line)
    return name + comma + SPACES_WITHIN.sub(b",", rest) if line.count(b",") < commas else line


def _without_spaces(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    return b",".join(map(bytes.strip, line.split(b","))) if b" " in line or b"\t" in line else line


def _without_index(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    index, _, rest = line.partition(b",")
    right = first.fullmatch(rest.partition(b",")[0]) and not first.fullmatch(index)
    return rest if right else line


def _without_trailing_comma(line: bytes, commas: int, first: re.Pattern[bytes]) -> bytes:
    trailing = len(line) - len(line.rstrip(b","))
    surplus = min(trailing, line.count(b",") - commas)
    return line[:-surplus] if surplus > 0 else line


REPAIRS: tuple[tuple[str, Callable[[bytes, int, re.Pattern[bytes]], bytes]], ...] = (
    ("not UTF-8", _as_utf8),
    ("quotes", _without_quotes),
    ("separator", _with_commas),
    ("spaces", _without_spaces),
    ("extra first column", _without_index),
    ("trailing comma", _without_trailing_comma),
)
