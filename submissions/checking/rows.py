"""Checks the rows of one predictions file: first single lines, then names, order and completeness.

Blocks of lines that equal the template's next rows are checked at once; only the others are checked line by line.
"""

import re
from array import array
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain, islice
from operator import lt

from abaw_expr.tasks.names import recording_of
from submissions.checking.expected_rows import _FIRST_ROW_LINE, CheckedTemplate
from submissions.checking.faults import Faults
from submissions.checking.numbers import Numbers
from submissions.checking.text import check_garbage, check_length, repaired

MOST_GUESSES = 300
"""Unknown videos for which the nearest name is searched, which is slow; a release has fewer videos than this."""
MOST_NAMES = 5
# An image location in any spelling: with more folders, backslashes, another padding or suffix.
IMAGE_LOCATION = re.compile(rb"(?:.*[/\\])?(?P<video>[^/\\]+)[/\\](?P<frame>[0-9]{1,9})(?:\.\w+)?")


class RowChecker:
    """The rows of one file against a template."""

    def __init__(self, faults: Faults, template: CheckedTemplate, numbers: Numbers) -> None:
        self.faults, self.template, self.numbers = faults, template, numbers
        self.line_of = array("i", bytes(4 * template.rows))
        """The line of each row of the template; 0: none."""
        self._next = 0
        """The position after the last row that was found."""
        self._misspelled = array("i"), array("i")
        """Lines that are misspelled, and the positions of the rows that they likely are."""
        self._extra: dict[int, tuple[str, int, bytes, str]] = {}
        """Extra rows of a video by the position of another row that each may be, with the fault if it is not."""
        self._people: dict[str, list[bytes]] = {}
        for video in template.of_video:
            self._people.setdefault(recording_of(_text(video)), []).append(video)
        self._likely: dict[bytes, tuple[str, bytes | None]] = {}
        self._likely |= {video: ("row name", video) for video in template.of_video}

    def add(self, number: int, block: bytes) -> None:
        """Checks whole lines, the first of which is line `number`.

        Raises PredictionsError where most of them are not rows, or there are far too many.
        """
        if self._as_expected(number, block):
            return
        check_length(self.faults.path, number, self.template.rows)
        lines = block[:-1].split(b"\n")
        garbage = sum([not self._line(line, text) for line, text in enumerate(lines, number)])
        self.numbers.flush()
        check_garbage(self.faults.path, number, lines, garbage, f"rows like {self._example()}")

    def finish(self) -> None:
        """Checks order and completeness after all rows were added."""
        for line, position in zip(*self._misspelled, strict=True):
            # A correctly spelled row comes first, wherever it is.
            self.line_of[position] = self.line_of[position] or line
        moved = self._report_extra()
        self._check_order(moved)
        self._check_complete()

    def _as_expected(self, number: int, block: bytes) -> bool:
        """Whether these are the next rows of the template with valid numbers; records them if so."""
        rows = block.count(b"\n")
        start, stop = self._next, self._next + rows
        columns = self.numbers.columns(block)
        if columns is None or any(self.line_of[start:stop]) or columns[0] != self.template.names(start, stop):
            return False
        if not self.numbers.right_columns(columns[1:]):
            return False
        self.line_of[start:stop] = array("i", range(number, number + rows))
        self._next = stop
        return True

    def _line(self, number: int, line: bytes) -> bool:
        """Checks one line, records the row that it is, and returns whether it is a row."""
        name, _, text = line.partition(b",")
        position = self.template.find(name)
        if position < 0 or self.numbers.kinds(text):
            likely = self._diagnose(number, line)
            position = position if likely == name else self.template.find(likely)
            name = likely
        else:
            self.numbers.hold(text)
        if position >= 0:
            self._record(number, position, name)
        elif name:
            self._record_unknown(number, name)
        return bool(name)

    def _diagnose(self, number: int, line: bytes) -> bytes:
        """Adds the faults of a line's form and numbers; returns its image location, empty if it has none."""
        if not line.strip():
            self.faults.add("blank line", number, line, "a row")
            return b""
        text, causes = repaired(line, self.numbers.commas, IMAGE_LOCATION)
        name, _, numbers = text.partition(b",")
        if not IMAGE_LOCATION.fullmatch(name):
            kind = "header again" if text == self.template.form.header.encode() else "not a row"
            self.faults.add(kind, number, line, f"rows like {self._example()}")
            return b""
        for cause in causes:
            self.faults.add(cause, number, line, text)
        for kind in self.numbers.kinds(numbers):
            self.faults.add(kind, number, line, self.numbers.expected)
        return name

    def _example(self) -> str:
        return f"{_text(self.template.name(0))} and {self.numbers.expected}"

    def _record(self, number: int, position: int, name: bytes) -> None:
        """Records the line of a row, or a second line of it."""
        self._next = position + 1
        known = self.line_of[position]
        if known:
            self._record_extra(number, "duplicate row", name, f"the row once; it is on line {known}")
        else:
            self.line_of[position] = number

    def _record_unknown(self, number: int, name: bytes) -> None:
        """Adds the fault of an image location that the template lacks, and records the row that it likely is."""
        match = IMAGE_LOCATION.fullmatch(name)
        assert match is not None, name
        video, frame = match["video"], int(match["frame"])
        kind, nearest = self._likely_video(video)
        likely = self.template.spelled(nearest or video, frame)
        position = self.template.find(likely)
        if nearest == video and position < 0:
            self._record_extra(number, "surplus row", name, "a row of the template")
            return
        self.faults.add(kind, number, name, likely if nearest else "a row of the template")
        if position >= 0:
            self._next = position + 1
            for column, value in zip(self._misspelled, (number, position), strict=True):
                column.append(value)

    def _likely_video(self, video: bytes) -> tuple[str, bytes | None]:
        """The kind of fault of an unknown video's image locations, and the video of the template that it likely is."""
        known = self._likely.get(video)
        if known is None and len(self._likely) < len(self.template.of_video) + MOST_GUESSES:
            name, others = _text(video), {_text(other): other for other in self.template.of_video}
            same = list(map(_text, self._partners(video)))
            nearest = get_close_matches(name, same or others, n=1, cutoff=0 if same else 0.6)
            kind = "left and right" if same else "video name"
            known = self._likely[video] = kind, others[nearest[0]] if nearest else None
        return known or ("video name", None)

    def _partners(self, video: bytes) -> list[bytes]:
        """The template's names of the other people in the recording of a video."""
        names = self._people.get(recording_of(_text(video)), [])
        return [name for name in names if name != video]

    def _record_extra(self, number: int, kind: str, name: bytes, expected: str) -> None:
        """Adds the fault of an extra row of a video, or records it if it may be another row."""
        match = IMAGE_LOCATION.fullmatch(name)
        assert match is not None, name
        position = self._other_position(match["video"], int(match["frame"]))
        if position < 0 or self.line_of[position] or position in self._extra:
            self.faults.add(kind, number, name, expected)
        else:
            self._extra[position] = kind, number, name, expected

    def _other_position(self, video: bytes, frame: int) -> int:
        """The position of the same frame of another person in the recording; of the last frame for frame 0; or -1."""
        if frame == 0:
            last = self.template.of_video[video][-1]
            return last.start + last.rows - 1
        for other in self._partners(video):
            position = self.template.find(self.template.spelled(other, frame))
            if position >= 0:
                return position
        return -1

    def _report_extra(self) -> set[bytes]:
        """Adds the faults of extra rows; returns the videos whose order is not checked.

        Extra rows that another person of the recording lacks, or the end of the video, are taken for these.
        """
        moved: set[bytes] = set()
        for position, (kind, number, name, expected) in self._extra.items():
            if self.line_of[position]:
                self.faults.add(kind, number, name, expected)
                continue
            likely = self.template.name(position)
            video, other = (location.rpartition(b"/")[0] for location in (name, likely))
            self.faults.add("frames from 0" if video == other else "left and right", number, name, likely)
            self.line_of[position] = number
            moved |= {video, other}
        return moved

    def _check_order(self, moved: set[bytes]) -> None:
        """Compares the order of the rows that are in file and template, so that missing rows do not matter.

        Videos in `moved` are left out.
        """
        line_of = self.line_of[:] if moved else self.line_of
        for run in (run for video in moved for run in self.template.of_video[video]):
            line_of[run.start : run.start + run.rows] = array("i", bytes(4 * run.rows))
        lines = array("i", filter(None, line_of))
        if all(map(lt, lines, islice(lines, 1, None))):
            return
        position_of = array("i", [-1]) * (max(lines) + 1)
        for position, line in enumerate(line_of):
            if line:
                position_of[line] = position
        in_file = (position for position in position_of if position >= 0)
        shared = (position for position, line in enumerate(line_of) if line)
        for found, expected in zip(in_file, shared, strict=True):
            if found != expected:
                names = (b"", b"") if "row order" in self.faults.counts else map(self.template.name, (found, expected))
                self.faults.add("row order", line_of[found], *names)

    def _check_complete(self) -> None:
        count = self.line_of.count(0)
        if not count:
            return
        missing = self._missing()
        first = list(islice(missing, MOST_NAMES))
        names = ", ".join(_text(self.template.name(position)) for position, _ in first)
        found = f"{self.template.rows - count} of the template's {self.template.rows} rows"
        expected = f"also {names}" + (f" and {count - MOST_NAMES} more" if count > MOST_NAMES else "")
        for _, line in chain(first, missing):
            self.faults.add("missing row", line, found, expected)

    def _missing(self) -> Iterator[tuple[int, int | None]]:
        """Positions of missing rows; the first of a gap has the line where it should be."""
        before, gap = _FIRST_ROW_LINE - 1, False
        for position, line in enumerate(self.line_of):
            if not line:
                yield position, None if gap else before + 1
            before, gap = line or before, not line


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
