"""Reads predictions back, so that a file is scored as it would be handed in."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.tasks import EXPR, Task
from submissions.template import line_of, read_template
from submissions.writer import VideoLabels

_REMEDY = "Run `check` on the file to see every fault of it."


def read_predictions(path: Path, task: Task = EXPR) -> dict[str, VideoLabels]:
    """The labels of a `predictions.txt` by video.

    Raises PredictionsError for the first line that is not `<video>/00001.jpg,<class>`.
    """
    try:
        template = read_template(path, task)
    except TemplateError as error:
        raise PredictionsError(
            error.problem, path=path, line=error.line, found=error.found, expected=error.expected, remedy=_REMEDY
        ) from error
    with open(path, encoding="utf-8-sig") as file:
        next(file)
        classes = np.array([_label(text, path, line_of(i), task) for i, text in enumerate(file) if text.strip()])
    labels = {}
    for video, rows in template.videos.items():
        order = np.argsort(rows.frames)
        labels[video] = VideoLabels(rows.frames[order], classes[rows.positions[order]])
    return labels


def read_folder(folder: Path, task: Task = EXPR) -> dict[str, VideoLabels]:
    """The labels of the 3rd edition's folder, one `<video>.txt` a video, by video; line i + 1 is frame i.

    Raises PredictionsError for a wrong header or the first line that is no class.
    """
    labels = {}
    for path in sorted(folder.glob("*.txt")):
        header, *lines = _text(path).splitlines() or [""]
        if header != task.header:
            raise PredictionsError("has another header", path=path, line=1, found=header, expected=task.header)
        classes = np.array([_class(text, path, line_of(i), task) for i, text in enumerate(lines)], np.int64)
        labels[path.stem] = VideoLabels(np.arange(1, len(classes) + 1), classes)
    return labels


def align(predictions: Mapping[str, VideoLabels], video: str, frames: int) -> np.ndarray:
    """The predicted class of frames 1 to `frames` of a video, int [frames].

    Raises PredictionsError where the video or one of the frames has no prediction.
    """
    if video not in predictions:
        remedy = "Are these the annotations of the set that was predicted?"
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
    except UnicodeDecodeError as problem:
        raise PredictionsError("is not UTF-8 text", path=path, remedy=_REMEDY) from problem


def _label(text: str, path: Path, line: int, task: Task) -> int:
    return _class(text.rstrip("\n").partition(",")[2], path, line, task)


def _class(text: str, path: Path, line: int, task: Task) -> int:
    if text.isdecimal() and int(text) < task.n_classes:
        return int(text)
    expected = f"an integer from 0 to {task.n_classes - 1}"
    raise PredictionsError("has no usable label", path=path, line=line, found=text, expected=expected, remedy=_REMEDY)
