"""The organisers' template: which rows a submission must have, and in which order.

It is the only authority on that. A video's frame count is not: in the real release it differs from the template's for
about half of the videos.
"""

import re
from array import array
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw_expr.errors import TemplateError, unreadable
from abaw_expr.tasks import EXPR, Task

# What follows the comma is ignored: nothing in the template, dummy labels in the organisers' example file.
ROW = re.compile(r"(?P<row>(?P<video>[^/,\x00-\x1f]+)/(?P<frame>0*[1-9][0-9]{0,8})\.jpg),.*")
FIRST_ROW_LINE = 2
REMEDY = "Take the organisers' file as it is, the one whose rows read `<video>/00001.jpg,`."


@dataclass(frozen=True, eq=False)
class VideoRows:
    """The rows of one video, in the template's order. Both arrays have the video's number of rows."""

    frames: np.ndarray
    """int32 frame numbers, each once; usually 1..n, but neither that nor their order is assumed."""
    positions: np.ndarray
    """int32 places of these rows in `Template.rows`, ascending."""


@dataclass(frozen=True, eq=False)
class Template:
    """A template's rows as the organisers list them."""

    path: Path
    rows: list[str]
    """Every row's image location, `<video>/00001.jpg`, as the organisers spell it."""
    videos: Mapping[str, VideoRows]
    """The rows of every video, videos in the order of their first rows."""


def line_of(position: int) -> int:
    """The template's line (from 1) of the row at `position` (from 0)."""
    return position + FIRST_ROW_LINE


def read_template(path: Path | str, task: Task = EXPR) -> Template:
    """Reads a template, or the organisers' example file with dummy labels.

    A byte-order mark, CRLF, a missing last newline and blank lines at the end are accepted.

    Raises:
        TemplateError: the file cannot be read or is empty, its header is not the task's, a row is not
            `<video>/<digits>.jpg,`, or a frame is listed twice.
    """
    path = Path(path)
    header, *lines = _read_lines(path)
    _check_header(path, header, lines, task)
    rows: list[str] = []
    frames: dict[str, array[int]] = {}
    positions: dict[str, array[int]] = {}
    for position, line in enumerate(lines):
        match = ROW.fullmatch(line)
        if match is None:
            raise _bad_row(path, line_of(position), line)
        row, video, frame = match.groups()
        rows.append(row)
        if video not in frames:
            frames[video], positions[video] = array("i"), array("i")
        frames[video].append(int(frame))
        positions[video].append(position)
    videos = {video: VideoRows(np.array(frames[video]), np.array(positions[video])) for video in frames}
    template = Template(path, rows, videos)
    _check_unique(template)
    return template


def _read_lines(path: Path) -> list[str]:
    try:
        # Text mode turns CRLF into plain newlines; this codec drops a byte-order mark.
        text = path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise unreadable(TemplateError, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise TemplateError("is not UTF-8 text", path=path, remedy=REMEDY) from problem
    return text.rstrip("\n").split("\n")


def _check_header(path: Path, header: str, lines: list[str], task: Task) -> None:
    if not header and not lines:
        raise TemplateError("is empty", path=path, expected=task.submission_header, remedy=REMEDY)
    if header != task.submission_header:
        raise TemplateError(
            "has another header", path=path, line=1, found=header, expected=task.submission_header, remedy=REMEDY
        )
    if not lines:
        raise TemplateError("has a header and no rows", path=path, remedy=REMEDY)


def _bad_row(path: Path, line: int, found: str) -> TemplateError:
    return TemplateError(
        "is not a row of a template", path=path, line=line, found=found, expected="<video>/00001.jpg,", remedy=REMEDY
    )


def _check_unique(template: Template) -> None:
    for video, rows in template.videos.items():
        _, first, back, counts = np.unique(rows.frames, return_index=True, return_inverse=True, return_counts=True)
        if counts.max() == 1:
            continue
        # The first row of the video whose frame was listed before it.
        again = int(np.argmax(first[back] != np.arange(len(back))))
        line, earlier = (line_of(rows.positions[place]) for place in (again, first[back[again]]))
        raise TemplateError(
            f"lists frame {rows.frames[again]} of {video} twice, on lines {earlier} and {line}",
            path=template.path,
            line=line,
            found=template.rows[rows.positions[again]],
            remedy=REMEDY,
        )
