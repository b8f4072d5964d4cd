"""Writes submission files: the template says which rows and in which order, the labels say what.

Nothing is written before every row is known to have a valid label, and a file or folder appears whole or not at all.
Numbers that are not whole are written with `DECIMALS` decimals; one out of range is refused, never clipped.

Rows without a prediction are refused too, unless it is said how to fill them, from the predicted frames of the video:

- `nearest`: as the nearest predicted frame says; the earlier of two that are equally near.
- `interpolate`: valence and arousal linear between the predicted frames around it, held at both ends. Classes and
  units as by `nearest`: of a line between two 0-or-1 answers the larger share is the nearer one's. (Probabilities are
  interpolated in time before they are decided; that needs no filling here.)
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from abaw_expr.errors import PredictionsError, TemplateError, shorten
from abaw_expr.files import atomic
from abaw_expr.tasks.task import Field, Task
from submissions.formats import DECIMALS, PER_VIDEO
from submissions.template import Template, line_of

Fill = Literal["nearest", "interpolate"]


@dataclass(frozen=True, eq=False)
class VideoLabels:
    """The predicted labels of one video."""

    frames: np.ndarray
    """[frames] integer frame numbers, strictly ascending."""
    labels: np.ndarray
    """The challenge's numbers of each of these frames: a class, int [frames]; valence and arousal, float [frames, 2];
    or units, int [frames, 12]."""

    def __post_init__(self) -> None:
        assert self.frames.shape == self.labels.shape[:1], (self.frames.shape, self.labels.shape)
        assert np.issubdtype(self.frames.dtype, np.integer), self.frames.dtype
        assert (np.diff(self.frames) > 0).all(), "frames must ascend strictly"


Predictions = Mapping[str, VideoLabels]
"""The labels of one challenge by video."""


def write_predictions(
    template: Template, labels: Mapping[Task, Predictions], path: Path | str, fill: Fill | None = None
) -> dict[str, int]:
    """Writes one file in the template's format: its header, then `<row of the template>,<numbers>` in its order.

    Labels of videos and frames that the template does not list are left out. Returns how many rows of which video
    were filled.

    Raises:
        PredictionsError: labels of another challenge than the template's are given, or none of one of its own; a row
            of the template has no label (with `fill`: its video has none at all); or a label is not one of the
            challenge's.
    """
    rest, filled = _answers(template, labels, fill)
    write_rows(template.format.header, template.rows, rest, path)
    return filled


def write_per_video(
    template: Template, labels: Mapping[Task, Predictions], folder: Path | str, fill: Fill | None = None
) -> dict[str, int]:
    """Writes the 3rd edition's folder: one `<video>.txt` a video, the header, then a line a frame, frame 1 first.

    Raises:
        PredictionsError: as `write_predictions`; or `folder` is there and holds anything but such files.
        TemplateError: the template is not of a challenge that had such a folder, or a video's rows are not the frames
            1..n, which this format, without names, cannot express.
    """
    rest, filled = _answers(template, labels, fill)
    write_files(template, rest, folder)
    return filled


def write_rows(header: str, rows: pa.ChunkedArray, rest: pa.ChunkedArray, path: Path | str) -> None:
    """Writes one file: the header, then image locations [rows], each with the text [rows] that follows its comma."""
    with atomic(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(f"{header}\n".encode())
        start = 0
        for block in rows.iterchunks():
            part = rest.slice(start, len(block)).combine_chunks()
            file.write(_ended(pc.binary_join_element_wise(block, part, ",")))
            start += len(block)


def write_files(template: Template, rest: pa.ChunkedArray, folder: Path | str) -> None:
    """Writes the 3rd edition's folder from the text [rows] that follows each row's comma.

    Raises as `write_per_video`.
    """
    folder = Path(folder)
    header = _per_video_header(template)
    orders = {video: _frame_order(template, video) for video in template.videos}
    _check_replaceable(folder, {_file_name(video) for video in template.videos})
    with atomic(folder) as temporary:
        temporary.mkdir()
        for video, rows in template.videos.items():
            lines = _ended(rest.take(pa.array(rows.positions[orders[video]])).combine_chunks())
            (temporary / _file_name(video)).write_bytes(f"{header}\n".encode() + lines)


def _ended(lines: pa.Array) -> memoryview:
    """The bytes of lines, each with a newline."""
    _, _, text = pc.binary_join_element_wise(lines, "", "\n").buffers()
    return memoryview(text)


def labels_of_rows(template: Template, labels: Predictions, fill: Fill | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of every row of the template, [rows] or [rows, fields], and whether each is its own, not filled.

    Raises PredictionsError where a row has none.
    """
    _check_videos(template, labels)
    first = [labels[video].labels[:1] for video in template.videos]
    values = np.zeros((len(template.rows), *first[0].shape[1:]), np.result_type(*first))
    own = np.zeros(len(template.rows), bool)
    for video, rows in template.videos.items():
        values[rows.positions], own[rows.positions] = _at(rows.frames, labels[video], fill)
    if fill is None:
        remedy = "Predict every row, a frame without a face or sound too, or let --fill say what stands in for them."
        _refuse(template, ~own, "have no prediction", remedy)
    return values, own


def _at(frames: np.ndarray, known: VideoLabels, fill: Fill | None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of these frames, filled where they have none of their own, and whether they have: both [frames]."""
    after = np.searchsorted(known.frames, frames).clip(max=len(known.frames) - 1)
    own = known.frames[after] == frames
    if fill == "interpolate" and np.issubdtype(known.labels.dtype, np.floating):
        between = [np.interp(frames, known.frames, column) for column in _columns(known.labels)]
        return np.where(own[:, None], known.labels[after], np.stack(between, axis=1)), own
    before = np.where(own, after, np.maximum(after - 1, 0))
    nearer = np.abs(known.frames[after] - frames) < np.abs(known.frames[before] - frames)
    return known.labels[np.where(nearer, after, before)], own


def _answers(
    template: Template, labels: Mapping[Task, Predictions], fill: Fill | None
) -> tuple[pa.ChunkedArray, dict[str, int]]:
    """The text that follows each row's comma, [rows], and how many rows of which video were filled."""
    check_tasks(template, list(labels))
    filled = np.zeros(len(template.rows), bool)
    texts: list[pa.Array] = []
    for task in template.format.tasks:
        values, own = labels_of_rows(template, labels[task], fill)
        filled |= ~own
        places = [_places(field, column) for field, column in zip(task.fields, _columns(values), strict=True)]
        _check_allowed(template, task, values, np.min(places, axis=0) >= 0)
        texts += [_texts(field).take(pa.array(place)) for field, place in zip(task.fields, places, strict=True)]
    counts = {video: int(filled[rows.positions].sum()) for video, rows in template.videos.items()}
    rest = pa.chunked_array([pc.binary_join_element_wise(*texts, ",")])
    return rest, {video: count for video, count in counts.items() if count}


def _columns(values: np.ndarray) -> np.ndarray:
    """A challenge's numbers by field: [frames] or [frames, fields] -> [fields, frames]."""
    return values.reshape(len(values), -1).T


def _places(field: Field, values: np.ndarray) -> np.ndarray:
    """Where numbers stand in `_texts`, int16 [frames]; -1: nowhere, it is out of range or not a number."""
    assert not field.whole or np.issubdtype(values.dtype, np.integer), values.dtype
    right = (values >= field.low) & (values <= field.high)
    scaled = np.where(right, values, field.low).astype(np.float64) * _steps(field)
    return np.where(right, np.rint(scaled) - field.low * _steps(field), -1).astype(np.int16)


@cache
def _texts(field: Field) -> pa.Array:
    """Every number that a field may have, as it is written; there is no minus zero."""
    steps = _steps(field)
    decimals = 0 if field.whole else DECIMALS
    return pa.array([f"{step / steps:.{decimals}f}" for step in range(field.low * steps, field.high * steps + 1)])


def _steps(field: Field) -> int:
    """How many numbers that can be written there are from one whole number to the next."""
    return 1 if field.whole else 10**DECIMALS


def _check_allowed(template: Template, task: Task, values: np.ndarray, right: np.ndarray) -> None:
    """Refuses labels [rows] or [rows, fields] that may not stand in a file, by `right`, bool [rows]."""
    if not right.all():
        problem = f"have a label that is not {task.fields[0].expected}"
        _refuse(template, ~right, problem, "Only that can be submitted.", values[right.argmin()])


def check_tasks(template: Template, tasks: Sequence[Task]) -> None:
    """Raises PredictionsError where a template does not ask for these challenges and no others."""
    if set(tasks) != set(template.format.tasks):
        found, expected = (
            "; ".join(f"{task.name} ({task.header})" for task in some) for some in (tasks, template.format.tasks)
        )
        raise PredictionsError(
            "the template asks for another challenge than was predicted",
            path=template.path,
            line=1,
            found=found,
            expected=expected,
            remedy="Take the template of this challenge, or the outputs of the template's.",
        )


def _check_videos(template: Template, labels: Predictions) -> None:
    unknown = [video for video in template.videos if video not in labels or not len(labels[video].frames)]
    if not unknown:
        return
    # A video that the template lists as well is itself, not a misspelling of this one.
    nearest = get_close_matches(unknown[0], [video for video in labels if video not in template.videos], n=1)
    raise PredictionsError(
        f"{len(unknown)} of {len(template.videos)} videos have no predictions: {shorten(unknown)}",
        path=template.path,
        line=line_of(template.videos[unknown[0]].positions[0]),
        remedy=f"The nearest to {unknown[0]} that has some, and is not in the template, is {nearest[0]}."
        if nearest
        else "Predict these videos.",
    )


def _refuse(template: Template, bad: np.ndarray, problem: str, remedy: str, found: object = None) -> None:
    """Raises where any row is bad (bool [rows]), naming the first, and `found` there."""
    positions = np.flatnonzero(bad)
    if not positions.size:
        return
    names = template.rows.take(pa.array(positions)).to_pylist()
    raise PredictionsError(
        f"{len(names)} of {len(bad)} rows {problem}: {shorten(names)}",
        path=template.path,
        line=line_of(positions[0]),
        found=found,
        remedy=remedy,
    )


def _per_video_header(template: Template) -> str:
    asked = template.format
    for known in PER_VIDEO:
        if known.tasks == asked.tasks:
            return known.header
    remedy = "Submit one predictions.txt instead."
    raise TemplateError(f"{asked.name} has no files of a video", path=template.path, line=1, remedy=remedy)


def _frame_order(template: Template, video: str) -> np.ndarray:
    """The order that puts a video's rows into frames 1..n."""
    rows = template.videos[video]
    order = np.argsort(rows.frames)
    if not np.array_equal(rows.frames[order], np.arange(1, len(order) + 1)):
        raise TemplateError(
            f"the frames of {video} are not 1..{len(order)}",
            path=template.path,
            line=line_of(rows.positions[0]),
            remedy="A file a video tells frames by their line alone. Submit one predictions.txt instead.",
        )
    return order


def _check_replaceable(folder: Path, names: set[str]) -> None:
    """The folder is replaced as a whole, so it must not hold anything else."""
    if not folder.exists():
        return
    foreign = sorted({entry.name for entry in folder.iterdir()} - names) if folder.is_dir() else [folder.name]
    if foreign:
        raise PredictionsError(
            f"would be replaced, but is or holds something else: {shorten(foreign)}",
            path=folder,
            remedy="Give a new folder.",
        )


def _file_name(video: str) -> str:
    return f"{video}.txt"
