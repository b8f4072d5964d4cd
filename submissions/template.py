"""The organisers' template: the rows of a submission and their order.

Only the template defines them. The number of frames of a video does not: in the real release it differs from the
template for about half of the videos.

A template has about a million rows, so rows are Arrow columns of text from the file to the submission.

Shapes: N rows of the template, T rows of one video.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abaw_expr.errors import TemplateError, unreadable
from abaw_expr.files import check_name
from abaw_expr.tasks.task import Task
from submissions.formats import FORMATS, Format, recognise

_ROW = r"^(?P<row>(?P<video>[^/,\x00-\x1f]+)/(?P<frame>0*[1-9][0-9]{0,8})\.jpg),(?P<rest>.*)$"
FIRST_ROW_LINE = 2
_BLOCK = 1 << 22
"""Characters of a file that are read at a time."""
_REMEDY = "Use the organisers' file without changes, whose rows are `<video>/00001.jpg,`."


@dataclass(frozen=True, eq=False)
class VideoRows:
    """The rows of one video, in the template's order."""

    frames: np.ndarray
    """int32 [T], the frame numbers, each once; usually 1..T in this order, which is not assumed."""
    positions: np.ndarray
    """int64 [T], the indices of these rows into `Template.rows`, ascending."""


@dataclass(frozen=True, eq=False)
class Template:
    """The rows of a template in the organisers' order."""

    path: Path
    format: Format
    rows: pa.ChunkedArray
    """strings [N], the image location `<video>/00001.jpg` of each row, as the organisers spell it."""
    rest: pa.ChunkedArray
    """strings [N], the text after the comma: empty in a template, the labels in predictions."""
    videos: Mapping[str, VideoRows]
    """The rows of each video; videos are in the order of their first rows."""

    @property
    def frames(self) -> dict[str, np.ndarray]:
        """The frame numbers of each video, int32 [T]."""
        return {name: rows.frames for name, rows in self.videos.items()}


def line_of(position: int) -> int:
    """The line of the template, from 1, of the row with the index `position`, from 0."""
    return position + FIRST_ROW_LINE


def read_template(path: Path | str, task: Task | None = None) -> Template:
    """Reads a template, or the organisers' example file with dummy labels; its header determines the format.

    A byte-order mark, CRLF, a missing last newline and blank lines at the end are accepted.

    Raises:
        TemplateError: the file cannot be read or is empty, its header is not that of a format or of the task, a row is
            not `<video>/<digits>.jpg,` with a valid file name as video, or a frame is listed twice.
    """
    path = Path(path)
    blocks = _blocks(path)
    header = next(blocks)
    known = recognise(header)
    if known is None or (task is not None and task not in known.tasks):
        raise _bad_header(path, header, task, empty=not header and not next(blocks, ""))
    template = _read_rows(path, known, blocks)
    for name, rows in template.videos.items():
        check_name(name, TemplateError, path, line_of(rows.positions[0]))
    _check_unique(template)
    return template


def split_lines(text: str) -> pa.Array:
    """The lines of a text without its last newline."""
    return pc.list_flatten(pc.split_pattern(pa.array([text]), "\n"))


def _blocks(path: Path) -> Iterator[str]:
    """The first line, then the others in blocks of whole lines, without blank lines at the end."""
    try:
        # Text mode converts CRLF to newlines; this codec drops a byte-order mark.
        with open(path, encoding="utf-8-sig") as file:
            yield file.readline().removesuffix("\n")
            blank = ""
            while text := file.read(_BLOCK) + file.readline():
                lines = (blank + text).rstrip("\n")
                blank = (blank + text)[len(lines) + bool(lines) :]
                if lines:
                    yield lines
    except OSError as problem:
        raise unreadable(TemplateError, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise TemplateError("is not UTF-8 text", path=path, remedy=_REMEDY) from problem


def _bad_header(path: Path, found: str, task: Task | None, empty: bool) -> TemplateError:
    expected = task.submission_header if task else "; ".join(known.header for known in FORMATS)
    if empty:
        return TemplateError("is empty", path=path, expected=expected, remedy=_REMEDY)
    return TemplateError("has another header", path=path, line=1, found=found, expected=expected, remedy=_REMEDY)


def _read_rows(path: Path, known: Format, blocks: Iterator[str]) -> Template:
    rows, rest, videos, frames = [], [], [], []
    count = 0
    for text in blocks:
        lines = split_lines(text)
        fields = pc.extract_regex(lines, _ROW)
        if fields.null_count:
            wrong = pc.index(fields.is_null(), True).as_py()
            raise _bad_row(path, line_of(count + wrong), lines[wrong].as_py())
        rows.append(fields.field("row"))
        rest.append(fields.field("rest"))
        videos.append(fields.field("video").dictionary_encode())
        frames.append(fields.field("frame").cast(pa.int32()))
        count += len(lines)
    if not count:
        raise TemplateError("has a header and no rows", path=path, remedy=_REMEDY)
    by_video = _by_video(pa.chunked_array(videos).unify_dictionaries(), pa.chunked_array(frames).to_numpy())
    return Template(path, known, pa.chunked_array(rows), pa.chunked_array(rest), by_video)


def _by_video(videos: pa.ChunkedArray, frames: np.ndarray) -> dict[str, VideoRows]:
    """The rows of each video, from the video [N] and the frame [N] of each row."""
    codes = np.concatenate([chunk.indices.to_numpy() for chunk in videos.chunks])
    order = np.argsort(codes, kind="stable")
    ends = np.cumsum(np.bincount(codes)).tolist()
    indices = (order[start:end] for start, end in zip([0, *ends], ends, strict=False))
    names = videos.chunk(0).dictionary.to_pylist()
    return {name: VideoRows(frames[rows], rows) for name, rows in zip(names, indices, strict=True)}


def _bad_row(path: Path, line: int, found: str) -> TemplateError:
    return TemplateError(
        "is not a row of a template", path=path, line=line, found=found, expected="<video>/00001.jpg,", remedy=_REMEDY
    )


def _check_unique(template: Template) -> None:
    for video, rows in template.videos.items():
        if (np.diff(rows.frames) > 0).all():
            continue
        _, first, back, counts = np.unique(rows.frames, return_index=True, return_inverse=True, return_counts=True)
        if counts.max() == 1:
            continue
        # The first row of the video whose frame is in an earlier row.
        again = int(np.argmax(first[back] != np.arange(len(back))))
        line, earlier = (line_of(rows.positions[index]) for index in (again, first[back[again]]))
        raise TemplateError(
            f"lists frame {rows.frames[again]} of {video} twice, on lines {earlier} and {line}",
            path=template.path,
            line=line,
            found=template.rows[int(rows.positions[again])].as_py(),
            remedy=_REMEDY,
        )
