"""Writes submission files: the template says which rows and in which order, the labels say what.

Nothing is written before every row is known to have a valid label, and a file or folder appears whole or not at all.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from abaw_expr.errors import PredictionsError, TemplateError, shorten
from abaw_expr.files import atomic
from abaw_expr.tasks import EXPR, Task
from submissions.template import Template, line_of


@dataclass(frozen=True, eq=False)
class VideoLabels:
    """The predicted labels of one video; both arrays [frames]."""

    frames: np.ndarray
    """Integer frame numbers, strictly ascending."""
    labels: np.ndarray
    """Integer class of each of these frames."""

    def __post_init__(self) -> None:
        assert self.frames.shape == self.labels.shape, (self.frames.shape, self.labels.shape)
        assert all(np.issubdtype(array.dtype, np.integer) for array in (self.frames, self.labels))
        assert (np.diff(self.frames) > 0).all(), "frames must ascend strictly"


def write_predictions(
    template: Template, labels: Mapping[str, VideoLabels], path: Path | str, task: Task = EXPR
) -> None:
    """Writes `predictions.txt`: the header, then `<row of the template>,<class>` in the template's order.

    Labels of videos and frames that the template does not list are left out.

    Raises:
        PredictionsError: a row of the template has no label, or a label is not a class of the task.
    """
    classes = _classes_of_rows(template, labels, task)
    with atomic(Path(path)) as temporary, open(temporary, "w", encoding="utf-8", newline="\n") as file:
        file.write(f"{task.submission_header}\n")
        file.writelines(f"{row},{label}\n" for row, label in zip(template.rows, classes.tolist(), strict=True))


def write_per_video(
    template: Template, labels: Mapping[str, VideoLabels], folder: Path | str, task: Task = EXPR
) -> None:
    """Writes the 3rd edition's folder: one `<video>.txt` a video, the header, then a class a line, frame 1 first.

    Raises:
        PredictionsError: as `write_predictions`; or `folder` is there and holds anything but such files.
        TemplateError: a video's rows are not the frames 1..n, which this format, without names, cannot express.
    """
    folder = Path(folder)
    classes = _classes_of_rows(template, labels, task)
    orders = {video: _frame_order(template, video) for video in template.videos}
    _check_replaceable(folder, {_file_name(video) for video in template.videos})
    with atomic(folder) as temporary:
        temporary.mkdir()
        for video, rows in template.videos.items():
            lines = [task.header, *map(str, classes[rows.positions[orders[video]]].tolist())]
            (temporary / _file_name(video)).write_bytes("".join(f"{line}\n" for line in lines).encode())


def _classes_of_rows(template: Template, labels: Mapping[str, VideoLabels], task: Task) -> np.ndarray:
    """The class of every row of the template, int64 [rows]; refuses where there is none."""
    _check_videos(template, labels)
    classes = np.zeros(len(template.rows), np.int64)
    found = np.zeros(len(template.rows), bool)
    for video, rows in template.videos.items():
        known = labels[video]
        places = np.searchsorted(known.frames, rows.frames)
        hits = np.isin(rows.frames, known.frames, assume_unique=True)
        classes[rows.positions[hits]] = known.labels[places[hits]]
        found[rows.positions[hits]] = True
    _refuse(template, ~found, "have no prediction", "Predict every row, a frame without a face or sound too.")
    wrong = (classes < 0) | (classes >= task.n_classes)
    expected = f"an integer 0..{task.n_classes - 1}"
    _refuse(template, wrong, f"have a label that is not {expected}", "Only a class can be submitted.", classes)
    return classes


def _check_videos(template: Template, labels: Mapping[str, VideoLabels]) -> None:
    unknown = [video for video in template.videos if video not in labels]
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


def _refuse(template: Template, bad: np.ndarray, problem: str, remedy: str, classes: np.ndarray | None = None) -> None:
    """Raises where any row is bad (bool [rows]), naming the first; with `classes`, their labels as well."""
    positions = np.flatnonzero(bad)
    if not positions.size:
        return
    names = [template.rows[position] for position in positions]
    raise PredictionsError(
        f"{len(names)} of {len(bad)} rows {problem}: {shorten(names)}",
        path=template.path,
        line=line_of(positions[0]),
        found=None if classes is None else classes[positions[0]],
        remedy=remedy,
    )


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
