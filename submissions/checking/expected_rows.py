"""The checker's own template: the rows that a submission must have, as runs of frames.

The rows of a video nearly always follow each other, so that a release of ten million rows takes a few hundred runs.
"""

import re
from bisect import bisect_right, insort
from collections.abc import Iterator, Mapping
from itertools import count, pairwise
from operator import attrgetter
from pathlib import Path

from abaw_expr.errors import TemplateError
from submissions.checking.faults import Fault, Faults
from submissions.checking.text import Blocks, cut_header, read_blocks
from submissions.formats import Format, recognise

_ROW = re.compile(rb"(?P<video>[^/,\x00-\x1f]+)/(?P<frame>0*[1-9][0-9]{0,8})\.jpg")
_FIRST_ROW_LINE = 2
DIGITS = 5
"""Digits of a frame's number in a release."""
_REMEDY = "Use the organisers' file without changes; their list of test videos is for --videos."


class FrameRun:
    """Consecutive rows of a template with consecutive frames of one video, the first at position `start`."""

    __slots__ = ("digits", "frame", "rows", "start", "video")

    def __init__(self, video: bytes, frame: int, digits: int, start: int, rows: int = 0) -> None:
        self.video, self.frame, self.digits = video, frame, digits
        self.start, self.rows = start, rows

    def name(self, frame: int) -> bytes:
        return b"%b/%0*d.jpg" % (self.video, self.digits, frame)

    def following(self) -> Iterator[bytes]:
        """The image locations of the frames after the first, an endless iterator."""
        return map(self.name, count(self.frame + 1))

    def names(self, first: int, last: int) -> list[bytes]:
        """The image locations of the rows from `first` up to, not including, `last`, counted from 0 in this run."""
        start, digits = self.video + b"/", self.digits
        return [start + b"%0*d.jpg" % (digits, frame) for frame in range(self.frame + first, self.frame + last)]


class CheckedTemplate:
    """The rows of a template in its order; positions in it count from 0."""

    def __init__(self, form: Format) -> None:
        self.form = form
        self.runs: list[FrameRun] = []
        self.of_video: dict[bytes, list[FrameRun]] = {}
        """The runs of each video, sorted by frame."""

    def add(self, run: FrameRun) -> None:
        self.runs.append(run)
        insort(self.of_video.setdefault(run.video, []), run, key=attrgetter("frame"))

    @property
    def rows(self) -> int:
        return self.runs[-1].start + self.runs[-1].rows

    def names(self, start: int, stop: int) -> list[bytes]:
        """The image locations from position `start` up to, not including, `stop`; fewer at the end of the template."""
        names: list[bytes] = []
        index = max(0, bisect_right(self.runs, start, key=attrgetter("start")) - 1)
        while index < len(self.runs) and self.runs[index].start < stop:
            run = self.runs[index]
            names += run.names(max(0, start - run.start), min(run.rows, stop - run.start))
            index += 1
        return names

    def name(self, position: int) -> bytes:
        return self.names(position, position + 1)[0]

    def find(self, name: bytes) -> int:
        """The position of an image location with exactly this spelling, or -1."""
        video, _, image = name.rpartition(b"/")
        digits = image[:-4]
        if not digits.isdigit() or len(digits) > 9:
            return -1
        frame = int(digits)
        run = self.run_of(video, frame)
        return run.start + frame - run.frame if run and run.name(frame) == name else -1

    def spelled(self, video: bytes, frame: int) -> bytes:
        """The image location of a frame, in the template's spelling if it has the frame."""
        run = self.run_of(video, frame)
        return (run or FrameRun(video, frame, DIGITS, 0)).name(frame)

    def counts(self) -> dict[str, int]:
        """The number of rows of every video, in the template's order."""
        return {
            video.decode(errors="backslashreplace"): sum(run.rows for run in runs)
            for video, runs in self.of_video.items()
        }

    def run_of(self, video: bytes, frame: int) -> FrameRun | None:
        """The run with a frame, if there is one."""
        runs = self.of_video.get(video)
        if runs is None:
            return None
        run = runs[bisect_right(runs, frame, key=attrgetter("frame")) - 1] if len(runs) > 1 else runs[0]
        return run if run.frame <= frame < run.frame + run.rows else None


def read_checked_template(path: Path) -> tuple[CheckedTemplate, list[Fault]]:
    """A template and the warnings about it.

    A byte-order mark, CRLF, a missing last newline and blank lines at the end are accepted.

    Raises:
        TemplateError: the file cannot be read, has no known header or no rows, a line that is not a row, or a frame
            twice.
    """
    ignored, warnings = Faults(path), Faults(path)
    number, header, blocks = cut_header(read_blocks(ignored, TemplateError, _REMEDY), ignored)
    found = header.decode(errors="replace")
    form = recognise(found)
    if form is None or number > 1:
        expected = "the header of expr, va, au, multi-task or compound expressions"
        raise TemplateError("has another header", path=path, line=1, found=found, expected=expected, remedy=_REMEDY)
    template = CheckedTemplate(form)
    labels = _fill(template, blocks, path)
    if not template.runs:
        raise TemplateError("has no rows", path=path, remedy=_REMEDY)
    _check_apart(template, path)
    if len(labels) > 1:
        found = " and ".join(repr(label.decode(errors="replace")) for label in labels)
        warnings.add("filled template", _FIRST_ROW_LINE, f"labels that differ, {found}", "none, or dummies")
    return template, warnings.sorted()


def template_of(form: Format, rows: Mapping[str, int]) -> CheckedTemplate:
    """The template of videos whose rows are the frames 1, 2, ... of each, in this order."""
    template = CheckedTemplate(form)
    start = 0
    for video, frames in rows.items():
        template.add(FrameRun(video.encode(), 1, DIGITS, start, frames))
        start += frames
    return template


def _fill(template: CheckedTemplate, blocks: Blocks, path: Path) -> list[bytes]:
    """Adds the rows of a template's file; returns its labels, up to the second that differs."""
    labels: dict[bytes, None] = {}
    expected, blank = b"\n", 0  # no line equals a newline
    following: Iterator[bytes] = iter(())
    for number, block in blocks:
        if not block.strip():
            blank = blank or number
            continue
        for line, row in enumerate(block[:-1].split(b"\n"), number):
            name, _, label = row.partition(b",")
            if name != expected or blank:
                if not row.strip():
                    blank = blank or line
                    continue
                run = _new_run(b"" if blank else name, blank or line, path)
                _check_new(template, run, path)
                template.add(run)
                following = run.following()
            run.rows += 1
            expected = next(following)
            if len(labels) < 2:
                labels[label] = None
    return list(labels)


def _new_run(name: bytes, line: int, path: Path) -> FrameRun:
    match = _ROW.fullmatch(name)
    if match is None:
        found = name.decode(errors="backslashreplace")
        raise TemplateError(
            "is not a row of a template",
            path=path,
            line=line,
            found=found,
            expected="<video>/00001.jpg,",
            remedy=_REMEDY,
        )
    frame = match["frame"]
    # Without a leading zero, the number of digits may exceed the template's padding.
    digits = len(frame) if frame.startswith(b"0") else min(len(frame), DIGITS)
    return FrameRun(match["video"], int(frame), digits, line - _FIRST_ROW_LINE)


def _check_new(template: CheckedTemplate, run: FrameRun, path: Path) -> None:
    """Raises TemplateError where the first frame of a run is already in the template."""
    known = template.run_of(run.video, run.frame)
    if known:
        raise _twice(run, known.start + run.frame - known.frame, run.start, path)


def _check_apart(template: CheckedTemplate, path: Path) -> None:
    """Raises TemplateError where runs of a video overlap."""
    for runs in template.of_video.values():
        for before, run in pairwise(runs):
            if run.frame < before.frame + before.rows:
                raise _twice(run, run.start, before.start + run.frame - before.frame, path)


def _twice(run: FrameRun, first: int, again: int, path: Path) -> TemplateError:
    return TemplateError(
        f"has a row twice, on lines {first + _FIRST_ROW_LINE} and {again + _FIRST_ROW_LINE}",
        path=path,
        line=again + _FIRST_ROW_LINE,
        found=run.name(run.frame).decode(errors="backslashreplace"),
        remedy=_REMEDY,
    )
