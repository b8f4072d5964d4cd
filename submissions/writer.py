"""Writes submission files: the rows and their order are those of the template, the labels are the predictions.

A file or folder is written atomically, after the labels of all rows have been checked. Numbers that are not whole are
written with `DECIMALS` decimals; a number out of range is an error, and is never clipped.

A row without a prediction is an error, unless it is to be filled from the predicted frames of the video:

- `nearest`: with the label of the nearest predicted frame; the earlier of two that are equally near.
- `interpolate`: valence and arousal linearly between the predicted frames around it, constant at both ends; classes and
  units as with `nearest`. (Gaps between predicted probabilities are interpolated in the decision, not here.)

Shapes: N rows of the template, T frames of a video, F fields.
"""

from collections.abc import Iterable, Mapping, Sequence
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
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.task import Field, Task
from submissions.formats import DECIMALS, PER_VIDEO
from submissions.template import Template, line_of

Fill = Literal["nearest", "interpolate"]


@dataclass(frozen=True, eq=False)
class VideoLabels:
    """The predicted labels of one video."""

    frames: np.ndarray
    """[T], integer frame numbers, strictly ascending."""
    labels: np.ndarray
    """The labels of these frames: classes, int [T]; valence and arousal, float [T, 2]; or units, int [T, 12]."""

    def __post_init__(self) -> None:
        assert self.frames.shape == self.labels.shape[:1], (self.frames.shape, self.labels.shape)
        assert np.issubdtype(self.frames.dtype, np.integer), self.frames.dtype
        assert (np.diff(self.frames) > 0).all(), "frames must ascend strictly"


Predictions = Mapping[str, VideoLabels]
"""The labels of one task by video."""


def predictions_of(decided: Iterable[tuple[Outputs, Decision]]) -> dict[Task, Predictions]:
    """The labels that the decisions give for the outputs, by task and video."""
    return {
        decision.task: {video.name: VideoLabels(video.frame, decision.labels(video)) for video in outputs.videos()}
        for outputs, decision in decided
    }


def write_predictions(
    template: Template, labels: Mapping[Task, Predictions], path: Path | str, fill: Fill | None = None
) -> dict[str, int]:
    """Writes one file in the template's format: its header, then `<row of the template>,<numbers>` in its order.

    Labels of videos and frames that the template does not have are left out. Returns the number of filled rows by
    video.

    Raises:
        PredictionsError: the tasks of the labels are not those of the template; a row of the template has no label
            (with `fill`: its video has no label); or a label is not valid for its task.
    """
    rest, filled = _row_texts(template, labels, fill)
    write_rows(template.format.header, template.rows, rest, path)
    return filled


def write_per_video(
    template: Template, labels: Mapping[Task, Predictions], folder: Path | str, fill: Fill | None = None
) -> dict[str, int]:
    """Writes the 3rd edition's folder: one `<video>.txt` per video, the header, then one line per frame from frame 1.

    Raises:
        PredictionsError: as `write_predictions`; or `folder` exists and has other files than those of such a folder.
        TemplateError: the template's challenge had no such folder, or a video's rows are not the frames 1..n, which
            this format, without names, cannot represent.
    """
    rest, filled = _row_texts(template, labels, fill)
    write_files(template, rest, folder)
    return filled


def write_rows(header: str, rows: pa.ChunkedArray, rest: pa.ChunkedArray, path: Path | str) -> None:
    """Writes one file: the header, then each image location of `rows` [N], a comma, and the text of `rest` [N]."""
    with atomic(Path(path)) as temporary, open(temporary, "wb") as file:
        file.write(f"{header}\n".encode())
        start = 0
        for block in rows.iterchunks():
            part = rest.slice(start, len(block)).combine_chunks()
            file.write(_with_newlines(pc.binary_join_element_wise(block, part, ",")))
            start += len(block)


def write_files(template: Template, rest: pa.ChunkedArray, folder: Path | str) -> None:
    """Writes the 3rd edition's folder from the text after the comma of each row, `rest` [N].

    Raises as `write_per_video`.
    """
    folder = Path(folder)
    header = _per_video_header(template)
    orders = {video: _frame_order(template, video) for video in template.videos}
    _check_replaceable(folder, {_file_name(video) for video in template.videos})
    with atomic(folder) as temporary:
        temporary.mkdir()
        for video, rows in template.videos.items():
            lines = _with_newlines(rest.take(pa.array(rows.positions[orders[video]])).combine_chunks())
            (temporary / _file_name(video)).write_bytes(f"{header}\n".encode() + lines)


def _with_newlines(lines: pa.Array) -> memoryview:
    """The bytes of lines, each with a newline."""
    _, _, text = pc.binary_join_element_wise(lines, "", "\n").buffers()
    return memoryview(text)


def labels_of_rows(template: Template, labels: Predictions, fill: Fill | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of the template's rows, [N] or [N, F], and which rows have a prediction and are not filled, [N].

    Raises PredictionsError where a row has no prediction and `fill` is None, or a video has none.
    """
    _check_videos(template, labels)
    first = [labels[video].labels[:1] for video in template.videos]
    values = np.zeros((len(template.rows), *first[0].shape[1:]), np.result_type(*first))
    own = np.zeros(len(template.rows), bool)
    for video, rows in template.videos.items():
        values[rows.positions], own[rows.positions] = _at(rows.frames, labels[video], fill)
    if fill is None:
        remedy = "Predict every row, including frames without a face or audio, or use --fill."
        _refuse(template, ~own, "have no prediction", remedy)
    return values, own


def _at(frames: np.ndarray, known: VideoLabels, fill: Fill | None) -> tuple[np.ndarray, np.ndarray]:
    """The labels of frames [T], filled where they have no prediction, [T] or [T, F], and which have one, [T]."""
    after = np.searchsorted(known.frames, frames).clip(max=len(known.frames) - 1)
    own = known.frames[after] == frames
    if fill == "interpolate" and np.issubdtype(known.labels.dtype, np.floating):
        between = [np.interp(frames, known.frames, column) for column in _columns(known.labels)]
        return np.where(own[:, None], known.labels[after], np.stack(between, axis=1)), own
    before = np.where(own, after, np.maximum(after - 1, 0))
    nearer = np.abs(known.frames[after] - frames) < np.abs(known.frames[before] - frames)
    return known.labels[np.where(nearer, after, before)], own


def _row_texts(
    template: Template, labels: Mapping[Task, Predictions], fill: Fill | None
) -> tuple[pa.ChunkedArray, dict[str, int]]:
    """The text after the comma of each row, [N], and the number of filled rows by video."""
    check_tasks(template, list(labels))
    filled = np.zeros(len(template.rows), bool)
    texts: list[pa.Array] = []
    for task in template.format.tasks:
        values, own = labels_of_rows(template, labels[task], fill)
        filled |= ~own
        indices = [_text_indices(field, column) for field, column in zip(task.fields, _columns(values), strict=True)]
        _check_allowed(template, task, values, np.min(indices, axis=0) >= 0)
        texts += [_spellings(field).take(pa.array(index)) for field, index in zip(task.fields, indices, strict=True)]
    counts = {video: int(filled[rows.positions].sum()) for video, rows in template.videos.items()}
    rest = pa.chunked_array([pc.binary_join_element_wise(*texts, ",")])
    return rest, {video: count for video, count in counts.items() if count}


def _columns(values: np.ndarray) -> np.ndarray:
    """The labels of each field: [N] or [N, F] -> [F, N]."""
    return values.reshape(len(values), -1).T


def _text_indices(field: Field, values: np.ndarray) -> np.ndarray:
    """The indices of numbers [N] into `_spellings`, int16 [N]; -1: out of range or not a number."""
    assert not field.whole or np.issubdtype(values.dtype, np.integer), values.dtype
    right = (values >= field.low) & (values <= field.high)
    scaled = np.where(right, values, field.low).astype(np.float64) * _steps(field)
    return np.where(right, np.rint(scaled) - field.low * _steps(field), -1).astype(np.int16)


@cache
def _spellings(field: Field) -> pa.Array:
    """The text of every number that a field may have, ascending; there is no minus zero."""
    steps = _steps(field)
    decimals = 0 if field.whole else DECIMALS
    return pa.array([f"{step / steps:.{decimals}f}" for step in range(field.low * steps, field.high * steps + 1)])


def _steps(field: Field) -> int:
    """The number of written numbers per unit: 1, or 10^`DECIMALS`."""
    return 1 if field.whole else 10**DECIMALS


def _check_allowed(template: Template, task: Task, values: np.ndarray, right: np.ndarray) -> None:
    """Raises PredictionsError where not all labels [N] or [N, F] are valid; `right` [N] tells which are."""
    if not right.all():
        problem = f"have a label that is not {task.fields[0].expected}"
        _refuse(template, ~right, problem, "Only that can be submitted.", values[right.argmin()])


def check_tasks(template: Template, tasks: Sequence[Task]) -> None:
    """Raises PredictionsError unless these are the tasks of the template."""
    if set(tasks) != set(template.format.tasks):
        found, expected = (
            "; ".join(f"{task.name} ({task.header})" for task in some) for some in (tasks, template.format.tasks)
        )
        raise PredictionsError(
            "the template is of another challenge than the predictions",
            path=template.path,
            line=1,
            found=found,
            expected=expected,
            remedy="Use the template of the predicted challenge, or outputs of the template's challenge.",
        )


def _check_videos(template: Template, labels: Predictions) -> None:
    unknown = [video for video in template.videos if video not in labels or not len(labels[video].frames)]
    if not unknown:
        return
    # A video that the template also has is not a misspelling of this one.
    nearest = get_close_matches(unknown[0], [video for video in labels if video not in template.videos], n=1)
    raise PredictionsError(
        f"{len(unknown)} of {len(template.videos)} videos have no predictions: {shorten(unknown)}",
        path=template.path,
        line=line_of(template.videos[unknown[0]].positions[0]),
        remedy=f"There are predictions for {nearest[0]}, which is not in the template and similar to {unknown[0]}."
        if nearest
        else "Predict these videos.",
    )


def _refuse(template: Template, bad: np.ndarray, problem: str, remedy: str, found: object = None) -> None:
    """Raises PredictionsError where any row is bad, bool [N]; it names the first, and `found` there."""
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
    raise TemplateError(f"{asked.name} has no files per video", path=template.path, line=1, remedy=remedy)


def _frame_order(template: Template, video: str) -> np.ndarray:
    """The indices [T] that sort a video's rows into frames 1..T."""
    rows = template.videos[video]
    order = np.argsort(rows.frames)
    if not np.array_equal(rows.frames[order], np.arange(1, len(order) + 1)):
        raise TemplateError(
            f"the frames of {video} are not 1..{len(order)}",
            path=template.path,
            line=line_of(rows.positions[0]),
            remedy="In a file per video the line determines the frame. Submit one predictions.txt instead.",
        )
    return order


def _check_replaceable(folder: Path, names: set[str]) -> None:
    """Raises PredictionsError where the folder, which is replaced as a whole, has other files than these."""
    if not folder.exists():
        return
    others = sorted({entry.name for entry in folder.iterdir()} - names) if folder.is_dir() else [folder.name]
    if others:
        raise PredictionsError(
            f"would be replaced, but is or holds other files: {shorten(others)}",
            path=folder,
            remedy="Name a new folder.",
        )


def _file_name(video: str) -> str:
    return f"{video}.txt"
