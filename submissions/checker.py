"""Finds every fault of a submission before the organisers do.

This module shares nothing with the template reader and the writer, on purpose: it reads templates and rows with code
of its own, so that a bug in the others cannot hide itself here. It also stays off NumPy, so that a check answers at
once.

Faults are grouped by kind, and one cause gives one fault: a row that is spelled wrongly is not missing as well, and a
missing row does not put the rows after it out of order.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from functools import cache
from pathlib import Path

from abaw_expr.errors import PredictionsError, TemplateError, UserError, shorten, unreadable
from abaw_expr.tasks import EXPR, Task, frame_name
from submissions.faults import Fault, Faults, merged

MOST_TEXT = 120
MOST_GUESSES = 300  # Looking for the nearest name is slow; a release has fewer videos than this.
INTEGER = re.compile(r"-?[0-9]+")
# An image location however it may be spelled: more folders before it, backslashes, another padding or ending.
IMAGE = re.compile(r"(?:.*[/\\])?(?P<video>[^/\\]+)[/\\](?P<frame>[0-9]{1,9})(?:\.\w+)?")
TEMPLATE_ROW = re.compile(r"[^/]+/[0-9]+\.jpg")
TEMPLATE_REMEDY = "Take the organisers' file as it is."


def check_predictions(path: Path | str, template_path: Path | str, task: Task = EXPR) -> list[Fault]:
    """All faults of a `predictions.txt` against the organisers' template, in the order of their first lines.

    Raises:
        PredictionsError: the file cannot be read, is empty, or is not UTF-8 text.
        TemplateError: so is the template, or it is not one.
    """
    rows = _template_rows(Path(template_path), task)
    faults = Faults(Path(path))
    check = _Rows(faults, rows, task)
    for number, line in _body(faults, task.submission_header):
        check.line(number, line)
    check.finish()
    return faults.sorted()


def check_folder(folder: Path | str, template_path: Path | str, task: Task = EXPR) -> list[Fault]:
    """All faults of the 3rd edition's folder (one `<video>.txt` a video: the header, then one class a line).

    Raises:
        PredictionsError: the folder or a file of it cannot be read, or a file is empty or not UTF-8 text.
        TemplateError: the template cannot be read, or is not one.
    """
    folder = Path(folder)
    counts = Counter(f"{row.partition('/')[0]}.txt" for row in _template_rows(Path(template_path), task))
    if not folder.is_dir():
        raise PredictionsError("is not a folder", path=folder, remedy="Give the folder that holds <video>.txt files.")
    present = {entry.name for entry in folder.iterdir()}
    if present.isdisjoint(counts):
        remedy = "Give the predictions.txt, or the folder that `submit` wrote."
        raise PredictionsError("holds none of the template's videos as <video>.txt", path=folder, remedy=remedy)
    faults = _name_faults(folder, present, list(counts))
    for name, count in counts.items():
        if name in present:
            faults += _video_faults(folder / name, count, task)
    return merged(faults)


class _Rows:
    """Judges the rows of one predictions file: each line by itself, then names, order and completeness."""

    def __init__(self, faults: Faults, rows: list[str], task: Task) -> None:
        self.faults, self.rows, self.task = faults, rows, task
        self.positions = {row: position for position, row in enumerate(rows)}
        self.line_of = [0] * len(rows)
        """The line that stands for a row of the template; 0: none."""
        self.unknown: list[tuple[int, str]] = []
        self.videos = list(dict.fromkeys(row.partition("/")[0] for row in rows))
        self._nearest: dict[str, str | None] = {video: video for video in self.videos}

    def line(self, number: int, line: str) -> None:
        """Judges one line by itself and notes which row it stands for."""
        name, _, label = line.rpartition(",")
        if name not in self.positions or _label_fault(label, self.task):
            name = self._diagnose(number, line)
        if name in self.positions:
            self._claim(number, name)
        elif name:
            self.unknown.append((number, name))

    def finish(self) -> None:
        """Judges names once all rows that are spelled right are known, then order and completeness."""
        for number, name in self.unknown:
            self._place(number, name)
        self._check_order()
        self._check_complete()

    def _diagnose(self, number: int, line: str) -> str:
        """Reports what is wrong with a line's form and label; returns its image location, empty if it has none."""
        text, causes = _repaired(line)
        name, _, label = text.partition(",")
        if not IMAGE.fullmatch(name):
            kind = "header again" if text == self.task.submission_header else "not a row"
            self.faults.add(kind, number, _shown(line), f"rows like {self._row(self.rows[0])}")
            return ""
        for cause in causes:
            self.faults.add(f"row {cause}", number, _shown(line), _shown(text))
        if kind_of_label := _label_fault(label, self.task):
            self.faults.add(kind_of_label, number, _shown(line), self._row(name))
        return name

    def _row(self, name: str) -> str:
        return f"{_shown(name)} and a label {_label_range(self.task)}"

    def _claim(self, number: int, name: str) -> None:
        position = self.positions[name]
        if self.line_of[position]:
            expected = f"it once, and it is on line {self.line_of[position]}"
            self.faults.add("duplicate row", number, _shown(name), expected)
        else:
            self.line_of[position] = number

    def _place(self, number: int, name: str) -> None:
        """Reports an image location that the template lacks; it stands for the row it likely means, if that is free."""
        kind, likely = self._likely(name)
        position = self.positions.get(likely)
        expected = "a row of the template" if position is None else f"likely {_shown(likely)}"
        self.faults.add(kind, number, _shown(name), expected)
        if position is not None and not self.line_of[position]:
            self.line_of[position] = number

    def _likely(self, name: str) -> tuple[str, str]:
        """What is wrong with an image location, and what it likely means."""
        match = IMAGE.fullmatch(name)
        assert match is not None, name
        video, frame = match["video"], int(match["frame"])
        nearest = self._nearest_video(video)
        likely = frame_name(nearest or video, frame)
        if nearest != video:
            return "video name", likely
        return "row name" if likely in self.positions else "surplus row", likely

    def _nearest_video(self, video: str) -> str | None:
        if video not in self._nearest and len(self._nearest) < len(self.videos) + MOST_GUESSES:
            self._nearest[video] = next(iter(get_close_matches(video, self.videos, n=1)), None)
        return self._nearest.get(video)

    def _check_order(self) -> None:
        """Compares the order of the rows that file and template share, so that a missing row disturbs nothing."""
        shared = [position for position, line in enumerate(self.line_of) if line]
        in_file = sorted(shared, key=self.line_of.__getitem__)
        for found, expected in zip(in_file, shared, strict=True):
            if found != expected:
                line = self.line_of[found]
                self.faults.add("row order", line, _shown(self.rows[found]), _shown(self.rows[expected]))

    def _check_complete(self) -> None:
        missing = [row for row, line in zip(self.rows, self.line_of, strict=True) if not line]
        if missing:
            found = f"{len(self.rows) - len(missing)} of the template's {len(self.rows)} rows"
            self.faults.add("missing row", None, found, f"also {shorten(missing)}", len(missing))


def _label_fault(label: str, task: Task) -> str | None:
    """The kind of fault of a label's text, None where it is right: the one place that says what a label may be."""
    if label in _labels(task.n_classes):
        return None
    if not label:
        return "empty label"
    if "," in label:
        return "too many fields"
    if label == str(task.unannotated):
        return "not-annotated label"
    return "label out of range" if INTEGER.fullmatch(label) else "label not an integer"


@cache
def _labels(n_classes: int) -> frozenset[str]:
    return frozenset(map(str, range(n_classes)))


def _label_range(task: Task) -> str:
    return f"0..{task.n_classes - 1}"


def _body(faults: Faults, expected_header: str) -> Iterator[tuple[int, str]]:
    """Judges a file's form and header; gives its other lines with their numbers, blank ones left out."""
    lines = _lines(faults)
    number, first = next(lines)
    # A row's first field is an image location, or has no letter; a header's is a name.
    field = _repaired(first)[0].partition(",")[0]
    if IMAGE.fullmatch(field) or not any(map(str.isalpha, field)):
        faults.add("no header", number, _shown(first), repr(expected_header))
        yield number, first
    else:
        _check_header(faults, number, first, expected_header)
    yield from lines


def _lines(faults: Faults) -> Iterator[tuple[int, str]]:
    text = _read(faults.path, PredictionsError, "Write the predictions again.")
    if text.startswith("\ufeff"):
        faults.add("byte-order mark", 1, "U+FEFF before the header", "nothing before the header")
        text = text[1:]
    if "\r" in text:
        first = text.index("\r")
        found = "\r\n" if text.startswith("\r\n", first) else "\r"
        faults.add("line ending", text.count("\n", 0, first) + 1, repr(found), repr("\n"), text.count("\r"))
        text = _plain(text)
    if not text.endswith("\n"):
        faults.add("no last newline", text.count("\n") + 1, "the end of the file", "a newline before it")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        if line and not line.isspace():
            yield number, line
        else:
            faults.add("blank line", number, _shown(line), "a row")


def _check_header(faults: Faults, number: int, header: str, expected: str) -> None:
    text, causes = _repaired(header)
    if text != expected:
        causes.append(_names_fault(text, expected))
    for cause in causes:
        faults.add(f"header {cause}", number, _shown(header), repr(expected))


def _names_fault(header: str, expected: str) -> str:
    if header.lower() == expected.lower():
        return "case"
    same = sorted(header.lower().split(",")) == sorted(expected.lower().split(","))
    return "order" if same else "names"


def _without_quotes(text: str) -> str:
    return text.replace('"', "").replace("'", "")


def _with_commas(text: str) -> str:
    return text if "," in text else re.sub(r"(?<=\S)[;|\t ]+(?=\S)", ",", text)


def _without_spaces(text: str) -> str:
    return ",".join(field.strip() for field in text.split(","))


def _without_trailing_comma(text: str) -> str:
    # With a single comma nothing trails: `video/00001.jpg,` lacks its label.
    return text.rstrip(",") if text.count(",") > 1 else text


REPAIRS: tuple[tuple[str, Callable[[str], str]], ...] = (
    ("quotes", _without_quotes),
    ("separator", _with_commas),
    ("spaces", _without_spaces),
    ("trailing comma", _without_trailing_comma),
)


def _repaired(line: str) -> tuple[str, list[str]]:
    """A line as it was likely meant, and what had to be repaired in its form."""
    causes = []
    for cause, repair in REPAIRS:
        before, line = line, repair(line)
        if line != before:
            causes.append(cause)
    return line, causes


def _template_rows(path: Path, task: Task) -> list[str]:
    """The image locations of a template, read by this module's own code."""
    text = _read(path, TemplateError, TEMPLATE_REMEDY).removeprefix("\ufeff")
    header, *lines = _plain(text).rstrip("\n").split("\n")
    if header != task.submission_header:
        raise TemplateError(
            "has another header",
            path=path,
            line=1,
            found=header,
            expected=task.submission_header,
            remedy=TEMPLATE_REMEDY,
        )
    rows = [line.partition(",")[0] for line in lines]
    for number, row in enumerate(rows, start=2):
        if not TEMPLATE_ROW.fullmatch(row):
            raise TemplateError("is not a row of a template", path=path, line=number, found=row, remedy=TEMPLATE_REMEDY)
    if not rows or len(set(rows)) != len(rows):
        raise TemplateError("has no rows, or a row twice", path=path, remedy=TEMPLATE_REMEDY)
    return rows


def _read(path: Path, error: type[UserError], remedy: str) -> str:
    try:
        content = path.read_bytes()
        text = content.decode()
    except OSError as problem:
        raise unreadable(error, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise error("is not UTF-8 text", path=path, found=content[:16], remedy=remedy) from problem
    if "\0" in text:
        raise error("is not text: it holds zero bytes", path=path, remedy=remedy)
    if not text.strip("\ufeff \t\r\n"):
        raise error("is empty", path=path, remedy=remedy)
    return text


def _plain(text: str) -> str:
    return text.replace("\r\n", "\n").replace("\r", "\n")


def _name_faults(folder: Path, present: set[str], expected: list[str]) -> list[Fault]:
    """What the folder lacks, and what it should not have."""
    faults = Faults(folder)
    missing = [name for name in expected if name not in present]
    if missing:
        found = f"{len(expected) - len(missing)} of {len(expected)} files"
        faults.add("missing file", None, found, f"also {shorten(missing)}", len(missing))
    surplus = sorted(present.difference(expected))
    if surplus:
        likely = get_close_matches(surplus[0], missing, n=1)
        faults.add(
            "surplus file", None, shorten(surplus), f"likely {likely[0]}" if likely else "no such file", len(surplus)
        )
    return faults.sorted()


def _video_faults(path: Path, count: int, task: Task) -> list[Fault]:
    """All faults of one video's file, which should have `count` labels."""
    faults = Faults(path)
    labels = list(_body(faults, task.header))
    for number, line in labels:
        text, causes = _repaired(line)
        for cause in causes:
            faults.add(f"row {cause}", number, _shown(line), _shown(text))
        if kind := _label_fault(text, task):
            faults.add(kind, number, _shown(line), f"a label {_label_range(task)}")
    if len(labels) != count:
        faults.add("row count", None, f"{len(labels)} labels", str(count))
    return faults.sorted()


def _shown(text: str) -> str:
    """A piece of a file for a message: in quotes, so that a stray space is seen, and cut to a readable length."""
    return repr(text if len(text) <= MOST_TEXT else f"{text[:MOST_TEXT]}...")
