"""Judges the rows of one predictions file: each line by itself, then names, order and completeness.

Blocks of lines that are what the template wants next are judged at once; only the others line by line.
"""

import re
from array import array
from collections.abc import Iterator
from difflib import get_close_matches
from itertools import chain, islice
from operator import lt

from abaw_expr.tasks.names import recording_of
from submissions.checking.faults import Faults
from submissions.checking.numbers import Numbers
from submissions.checking.template import FIRST_ROW_LINE, Template
from submissions.checking.text import check_garbage, check_length, repaired

MOST_GUESSES = 300
"""Unknown videos whose nearest name is looked for, which is slow; a release has fewer videos than this."""
MOST_NAMES = 5
# An image location however it may be spelled: more folders before it, backslashes, another padding or ending.
IMAGE = re.compile(rb"(?:.*[/\\])?(?P<video>[^/\\]+)[/\\](?P<frame>[0-9]{1,9})(?:\.\w+)?")


class Rows:
    """The rows of one file against a template."""

    def __init__(self, faults: Faults, template: Template, numbers: Numbers) -> None:
        self.faults, self.template, self.numbers = faults, template, numbers
        self.line_of = array("i", bytes(4 * template.rows))
        """The line that stands for a row of the template; 0: none."""
        self._next = 0
        """The position that comes after the last row that was found."""
        self._unplaced = array("i"), array("i")
        """Lines that are spelled wrongly, and the positions that they likely mean."""
        self._extra: dict[int, tuple[str, int, bytes, str]] = {}
        """Rows that a video has too many, by the position that each may stand for; and the fault that it is if not."""
        self._people: dict[str, list[bytes]] = {}
        for video in template.of_video:
            self._people.setdefault(recording_of(_text(video)), []).append(video)
        self._likely: dict[bytes, tuple[str, bytes | None]] = {}
        self._likely |= {video: ("row name", video) for video in template.of_video}

    def add(self, number: int, block: bytes) -> None:
        """Judges whole lines, the first of which is on line `number`.

        Raises PredictionsError where most of them are no rows at all, or there are far too many.
        """
        if self._as_expected(number, block):
            return
        check_length(self.faults.path, number, self.template.rows)
        lines = block[:-1].split(b"\n")
        garbage = sum([not self._line(line, text) for line, text in enumerate(lines, number)])
        self.numbers.flush()
        check_garbage(self.faults.path, number, lines, garbage, f"rows like {self._example()}")

    def finish(self) -> None:
        """Judges order and completeness once all rows are known."""
        for line, position in zip(*self._unplaced, strict=True):
            # A row that is spelled right stands for itself, wherever it is.
            self.line_of[position] = self.line_of[position] or line
        moved = self._place_extra()
        self._check_order(moved)
        self._check_complete()

    def _as_expected(self, number: int, block: bytes) -> bool:
        """Whether these are the next rows of the template with right numbers; notes them if so."""
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
        """Judges one line by itself and notes which row it stands for; whether it is a row at all."""
        name, _, text = line.partition(b",")
        position = self.template.find(name)
        if position < 0 or self.numbers.kinds(text):
            likely = self._diagnose(number, line)
            position = position if likely == name else self.template.find(likely)
            name = likely
        else:
            self.numbers.hold(text)
        if position >= 0:
            self._claim(number, position, name)
        elif name:
            self._place(number, name)
        return bool(name)

    def _diagnose(self, number: int, line: bytes) -> bytes:
        """Reports what is wrong with a line's form and numbers; returns its image location, empty if it has none."""
        if not line.strip():
            self.faults.add("blank line", number, line, "a row")
            return b""
        text, causes = repaired(line, self.numbers.commas, IMAGE)
        name, _, numbers = text.partition(b",")
        if not IMAGE.fullmatch(name):
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

    def _claim(self, number: int, position: int, name: bytes) -> None:
        self._next = position + 1
        known = self.line_of[position]
        if known:
            self._note_extra(number, "duplicate row", name, f"it once, and it is on line {known}")
        else:
            self.line_of[position] = number

    def _place(self, number: int, name: bytes) -> None:
        """Reports an image location that the template lacks, and notes the row that it likely means."""
        match = IMAGE.fullmatch(name)
        assert match is not None, name
        video, frame = match["video"], int(match["frame"])
        kind, nearest = self._likely_video(video)
        likely = self.template.spelled(nearest or video, frame)
        position = self.template.find(likely)
        if nearest == video and position < 0:
            self._note_extra(number, "surplus row", name, "a row of the template")
            return
        self.faults.add(kind, number, name, likely if nearest else "a row of the template")
        if position >= 0:
            self._next = position + 1
            for notes, value in zip(self._unplaced, (number, position), strict=True):
                notes.append(value)

    def _likely_video(self, video: bytes) -> tuple[str, bytes | None]:
        """What is wrong with an image location of a video, and the video of the template that it likely means."""
        known = self._likely.get(video)
        if known is None and len(self._likely) < len(self.template.of_video) + MOST_GUESSES:
            name, others = _text(video), {_text(other): other for other in self.template.of_video}
            same = list(map(_text, self._partners(video)))
            nearest = get_close_matches(name, same or others, n=1, cutoff=0 if same else 0.6)
            kind = "left and right" if same else "video name"
            known = self._likely[video] = kind, others[nearest[0]] if nearest else None
        return known or ("video name", None)

    def _partners(self, video: bytes) -> list[bytes]:
        """The other people in the recording of a video, as the template names them."""
        names = self._people.get(recording_of(_text(video)), [])
        return [name for name in names if name != video]

    def _note_extra(self, number: int, kind: str, name: bytes, expected: str) -> None:
        """Reports a row that its video has too many, or notes it if it may stand for another."""
        match = IMAGE.fullmatch(name)
        assert match is not None, name
        position = self._other_position(match["video"], int(match["frame"]))
        if position < 0 or self.line_of[position] or position in self._extra:
            self.faults.add(kind, number, name, expected)
        else:
            self._extra[position] = kind, number, name, expected

    def _other_position(self, video: bytes, frame: int) -> int:
        """The same frame of another person in the recording; the last frame where they are counted from 0; or -1."""
        if frame == 0:
            last = self.template.of_video[video][-1]
            return last.start + last.rows - 1
        for other in self._partners(video):
            position = self.template.find(self.template.spelled(other, frame))
            if position >= 0:
                return position
        return -1

    def _place_extra(self) -> set[bytes]:
        """Reports the rows that a video has too many; returns the videos whose order says nothing more.

        If another person of the recording, or the end of the video, lacks just these rows, that is what they are.
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
        """Compares the order of the rows that file and template share, so that a missing row disturbs nothing.

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
        """Positions of missing rows; the first of a gap with the line where it should be."""
        before, gap = FIRST_ROW_LINE - 1, False
        for position, line in enumerate(self.line_of):
            if not line:
                yield position, None if gap else before + 1
            before, gap = line or before, not line


def _text(name: bytes) -> str:
    return name.decode(errors="backslashreplace")
