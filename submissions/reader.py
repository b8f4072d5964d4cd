"""Reads predictions back, so that a submission file can be scored or converted.

Each distinct text of a line is parsed once: a million rows of classes have only eight.

Shapes: N rows or lines, T frames of a video, F fields.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa

from abaw_expr.errors import PredictionsError, TemplateError, unreadable
from abaw_expr.files import check_name
from abaw_expr.tasks.task import Field, Task
from submissions.formats import PER_VIDEO
from submissions.template import Template, line_of, read_template, split_lines
from submissions.writer import VideoLabels

NUMBER = re.compile(r"-?(0|[1-9][0-9]*)(\.[0-9]+)?")
_REMEDY = "Run `check` on the file to see all its faults."


def read_prediction_rows(path: Path, task: Task | None = None) -> Template:
    """The rows of a file of predictions as a template, with the text of the predictions, not yet checked, as `rest`.

    Raises PredictionsError for a file of another challenge, or the first line that has no image location.
    """
    try:
        return read_template(path, task)
    except TemplateError as error:
        raise PredictionsError(
            error.problem, path=path, line=error.line, found=error.found, expected=error.expected, remedy=_REMEDY
        ) from error


def labels_of(predictions: Template, task: Task) -> dict[str, VideoLabels]:
    """The labels of one task by video, from the result of `read_prediction_rows`. Raises as `read_predictions`."""
    numbers = read_numbers(predictions.rest, predictions.format.fields, predictions.path)
    first = predictions.format.tasks.index(task)
    before = sum(len(other.fields) for other in predictions.format.tasks[:first])
    labels = {}
    for video, rows in predictions.videos.items():
        order = np.argsort(rows.frames)
        selected = numbers[rows.positions[order], before : before + len(task.fields)]
        labels[video] = VideoLabels(rows.frames[order], _as_labels(selected, task))
    return labels


def read_predictions(source: Path, task: Task | None = None) -> tuple[Task, dict[str, VideoLabels]]:
    """The task of one file or of the 3rd edition's folder, and its labels by video.

    Raises PredictionsError as `read_prediction_rows`, `read_video_files` and `read_numbers`, and where a file has
    several tasks and `task` is None.
    """
    if source.is_dir():
        known, lines = read_video_files(source, task)
        return known, _labels_of_lines(source, known, lines)
    rows = read_prediction_rows(source, task)
    tasks = rows.format.tasks if task is None else (task,)
    if len(tasks) > 1:
        found = ", ".join(known.name for known in tasks)
        raise PredictionsError("has predictions of several tasks", path=source, found=found, remedy="Use --task.")
    return tasks[0], labels_of(rows, tasks[0])


def read_video_files(folder: Path, task: Task | None = None) -> tuple[Task, dict[str, pa.Array]]:
    """The task of the 3rd edition's folder, and the text of each video's lines, videos sorted by name.

    Raises PredictionsError for a folder without such files, or a file whose header differs from the first file's.
    """
    paths = sorted(folder.glob("[!.]*.txt"), key=lambda path: path.stem)
    if not paths:
        raise PredictionsError("holds no <video>.txt", path=folder, remedy="Name a folder of the 3rd edition.")
    header = task.header if task else _text(paths[0]).partition("\n")[0]
    known = next((known for known in PER_VIDEO if known.header == header), None)
    expected = header if known else "; ".join(known.header for known in PER_VIDEO)
    lines = {}
    for path in paths:
        check_name(path.stem, PredictionsError, path)
        first, _, rest = _text(path).rstrip("\n").partition("\n")
        if known is None or first != header:
            raise PredictionsError("has another header", path=path, line=1, found=first, expected=expected)
        if not rest:
            raise PredictionsError("has a header and no lines", path=path, remedy=_REMEDY)
        lines[path.stem] = split_lines(rest)
    assert known is not None
    return known.tasks[0], lines


def read_numbers(rest: pa.Array | pa.ChunkedArray, fields: Sequence[Field], path: Path) -> np.ndarray:
    """The numbers after the image locations of lines, from texts [N], float64 [N, F].

    Raises PredictionsError for the first line without a valid number for each field.
    """
    encoded = pa.chunked_array(rest).combine_chunks().dictionary_encode()
    texts, indices = encoded.dictionary.to_pylist(), encoded.indices.to_numpy()
    table = np.array([_read(text, fields) for text in texts]).reshape(len(texts), len(fields))
    wrong = np.isnan(table).any(axis=1)
    if wrong.any():
        first = int(wrong[indices].argmax())
        found, expected = texts[indices[first]], _expected(fields)
        raise PredictionsError(
            "has no usable label", path=path, line=line_of(first), found=found, expected=expected, remedy=_REMEDY
        )
    return table[indices]


def align(predictions: Mapping[str, VideoLabels], video: str, frames: int) -> np.ndarray:
    """The predicted labels of the T frames 1 to `frames` of a video, [T] or [T, F].

    Raises PredictionsError where the video or one of the frames has no prediction.
    """
    if video not in predictions:
        remedy = "Use the annotations of the split that was predicted."
        raise PredictionsError(f"there is no prediction for the annotated video {video}", remedy=remedy)
    known, wanted = predictions[video], np.arange(1, frames + 1)
    lacking = np.setdiff1d(wanted, known.frames)
    if len(lacking):
        raise PredictionsError(
            f"there is no prediction for {len(lacking)} of the {frames} annotation lines of {video}",
            found=f"none for frame {lacking[0]}",
        )
    return known.labels[np.searchsorted(known.frames, wanted)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise unreadable(PredictionsError, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise PredictionsError("is not UTF-8 text", path=path, remedy=_REMEDY) from problem


def _labels_of_lines(folder: Path, task: Task, lines: Mapping[str, pa.Array]) -> dict[str, VideoLabels]:
    labels = {}
    for video, text in lines.items():
        numbers = read_numbers(text, task.fields, folder / f"{video}.txt")
        labels[video] = VideoLabels(np.arange(1, len(text) + 1), _as_labels(numbers, task))
    return labels


def _read(text: str, fields: Sequence[Field]) -> list[float]:
    """The numbers of a line; NaN for one that is not valid for its field."""
    texts = text.split(",")
    if len(texts) != len(fields):
        return [np.nan] * len(fields)
    return [_number(part, field) for part, field in zip(texts, fields, strict=True)]


def _number(text: str, field: Field) -> float:
    plain = text in map(str, range(field.low, field.high + 1)) if field.whole else NUMBER.fullmatch(text)
    return float(text) if plain and field.low <= float(text) <= field.high else np.nan


def _expected(fields: Sequence[Field]) -> str:
    if len(fields) == 1:
        return fields[0].expected
    return f"{len(fields)} numbers: {', '.join(f'{field.name} {field.low}..{field.high}' for field in fields)}"


def _as_labels(numbers: np.ndarray, task: Task) -> np.ndarray:
    """Numbers [T, F] as labels of `VideoLabels`, [T] or [T, F]."""
    typed = numbers.astype(np.int64) if task.fields[0].whole else numbers
    return typed[:, 0] if len(task.fields) == 1 else typed
