"""Reads the organisers' release, from the 3rd to the 10th edition: its files, and the labels of every video.

No media file is decoded. A release folder may hold, at any depth, the annotations of one or more challenges in one
edition, one or more roots of crops (`cropped_aligned*`), videos in any batch folder, and lists of test videos.

Shapes: L lines of an annotation, T frames of a video.
"""

import math
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from unicodedata import normalize

import numpy as np

from abaw_expr.data.discovery import (
    Found,
    VideoFile,
    crop_folders,
    crops_of,
    discover,
    innermost,
    is_leftover,
    video_files_of,
)
from abaw_expr.data.labels import Labels, label_type, no_labels
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.crops import list_crops
from abaw_expr.errors import ReleaseError, shorten, unreadable
from abaw_expr.files import check_name, open_file
from abaw_expr.tasks.task import TASKS, Field, Task, task_of_columns

_SPLIT_FOLDERS = {"Train_Set": "train", "Validation_Set": "val"}
_WHOLE = re.compile(r"\s*-?[0-9]{1,9}\s*")
_DECIMAL = re.compile(r"\s*-?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][-+]?[0-9]{1,3})?\s*")


@dataclass(frozen=True)
class Span:
    """A stretch of a recording that has one class."""

    label: int
    start: float = 0.0
    """Seconds; the frame shown then belongs to it."""
    end: float = math.inf
    """Seconds; the frame shown then does not belong to it."""


@dataclass(frozen=True)
class Annotation:
    """A video's part in one challenge."""

    split: str
    """train, val or test."""
    labels: Labels | None = None
    """[L] or [L, fields] (see `labels`); entry i belongs to frame i + 1. None for a test video, and where `spans` hold
    the labels."""
    spans: tuple[Span, ...] = ()
    """Labels by time, in data sets that annotate clips instead of frames."""

    @property
    def lines(self) -> int:
        """The number of lines of labels."""
        return 0 if self.labels is None else len(self.labels)

    @property
    def has_labels(self) -> bool:
        """Whether any label is known, even the ignore value."""
        return self.labels is not None or bool(self.spans)

    def labels_at(self, time: np.ndarray, task: Task) -> Labels:
        """The label of each frame, [T] or [T, fields], the ignore value where not annotated.

        `time` [T] is in seconds, T at least the number of lines.
        """
        label = no_labels(len(time), task)
        if self.labels is not None:
            label[: self.lines] = self.labels
        for span in self.spans:
            label[(time >= span.start) & (time < span.end)] = span.label
        return label


@dataclass(frozen=True)
class Video:
    """One person in one recording: the unit of annotation and submission."""

    name: str
    annotations: Mapping[Task, Annotation]
    """Of each challenge that names the video. Its splits may differ."""
    crop_folders: tuple[Path, ...]
    """This video's folder in every root of crops that has one."""
    faces: Path | None = None
    """The images that serve as crops, a folder or one file, if the recording is made of images of faces; else None."""

    @property
    def lines(self) -> int:
        """The largest number of lines of its annotations."""
        return max(annotation.lines for annotation in self.annotations.values())


@dataclass(frozen=True)
class Recording:
    """One video file (or audio file, or images) and the people in it (`_left` and `_right` share it)."""

    name: str
    path: Path | None
    """What it is made from (see `sources`), or None where the release has no file."""
    videos: tuple[Video, ...]
    subject: str = ""
    """The person in it, where the data set names one."""
    generated_from: tuple[str, ...] = ()
    """Of a generated one, the recordings that its generator learned from."""


@dataclass(frozen=True)
class Release:
    """The content of a release folder, of all challenges in it."""

    root: Path
    tasks: tuple[Task, ...]
    """The challenges whose annotations it holds."""
    recordings: tuple[Recording, ...]
    not_annotated: tuple[str, ...] = ()
    """Video files that neither an annotation nor a test list names."""
    without_test_list: tuple[Task, ...] = ()
    """The challenges without a list of test videos; the organisers publish it late."""
    problems: tuple[Problem, ...] = ()
    """Defects of folders and file names."""


def read_release(root: Path) -> Release:
    """Reads a release folder: its videos are those of all challenges whose annotations it holds.

    Lists of test videos of other challenges are ignored. Raises ReleaseError where the folder, its annotations or its
    lists cannot be used, with file and line, and where one challenge names a video in two splits.
    """
    root = Path(root)
    if not root.is_dir():
        raise ReleaseError("is not a folder", path=root, remedy="Name the folder that holds the organisers' release.")
    found = discover(root)
    tasks = tuple(task for task, folders in found.annotations.items() if folders)
    if not tasks:
        expected = " or ".join(name for task in TASKS.values() for name in task.annotation_folders)
        remedy = "Is this the release's top folder?"
        raise ReleaseError("holds no annotation folder", path=root, expected=expected, remedy=remedy)
    annotations: dict[str, dict[Task, Annotation]] = defaultdict(dict)
    for task in tasks:
        for name, annotation in _annotations(found, root, task):
            before = annotations[name].setdefault(task, annotation)
            if before is not annotation:
                splits = f"a {before.split} video and as a {annotation.split} video"
                remedy = "Remove it from one of the two."
                raise ReleaseError(f"{name} is named as {splits} of {task.name.upper()}", path=root, remedy=remedy)
    crops = crops_of(annotations, found.crops, root, found.problems)
    videos = {name: Video(name, annotations[name], crops[name]) for name in sorted(annotations)}
    return _group(root, tasks, videos, found)


def read_annotation(path: Path, task: Task) -> np.ndarray:
    """The labels of one annotation file; entry i belongs to frame i + 1.

    A class: int8 [L]; action units: int8 [L, 12]; valence and arousal: float32 [L, 2]. Each number by itself may be the
    ignore value, so that a frame may be annotated in part.

    A byte-order mark, CRLF and a missing last newline are accepted. Raises ReleaseError for any other deviation.
    """
    lines = read_text_lines(path)
    if not lines:
        raise ReleaseError("is empty", path=path, expected=task.header, remedy="Unpack the annotations again.")
    if lines[0].strip() != task.header:
        raise ReleaseError(
            "has a wrong header",
            path=path,
            line=1,
            found=lines[0],
            expected=task.header,
            remedy="Is this another challenge's or another edition's file?",
        )
    if len(lines) == 1:
        raise ReleaseError("has a header and no label", path=path, line=1, remedy="Unpack the annotations again.")
    known: dict[str, list[float]] = {}  # most lines repeat
    for number, text in enumerate(lines[1:], start=2):
        if text not in known:
            known[text] = _label(text, path, number, task)
    labels = np.array([known[text] for text in lines[1:]])
    labels = labels.astype(label_type(task))
    return labels[:, 0] if task.one_class else labels


def task_of_folder(folder: Path) -> Task:
    """The task of the annotations in a folder, by the first file's header. Raises ReleaseError for an unknown
    header."""
    path = _annotation_files(folder)[0]
    header = (read_text_lines(path) or [""])[0].strip()
    task = task_of_columns(header.split(","))
    if task is None:
        expected = " or ".join(known.header for known in TASKS.values())
        raise ReleaseError("has a header of no challenge", path=path, line=1, found=header, expected=expected)
    return task


def read_annotation_folder(folder: Path, task: Task) -> dict[str, np.ndarray]:
    """The labels [L] or [L, fields] of every `<video>.txt` in a folder, by video name, as `read_annotation` returns
    them."""
    # systems write accents in file names in two forms; text files have the composed one
    files = dict[str, Path]()
    for path in _annotation_files(folder):
        other = files.setdefault(normalize("NFC", check_name(path.stem, ReleaseError, path)), path)
        if other != path:
            remedy = "Keep the right one of the two."
            raise ReleaseError("has the name of another file", path=path, found=f"{other.name!a}", remedy=remedy)
    return {name: read_annotation(path, task) for name, path in files.items()}


def _annotation_files(folder: Path) -> list[Path]:
    files = sorted(path for path in innermost(Path(folder)).glob("*.txt") if not is_leftover(path.name))
    if not files:
        raise ReleaseError("holds no annotation", path=folder, expected="a folder of <video>.txt files")
    return files


def read_test_list(path: Path) -> list[str]:
    """The names of the test videos, one a line, in the file's order."""
    names = [line.strip() for line in read_text_lines(path)]
    if not names:
        raise ReleaseError("is empty", path=path, expected="a video name a line")
    for number, name in enumerate(names, start=1):
        if not name or "/" in name or "," in name:
            raise ReleaseError(
                "has an unknown line", path=path, line=number, found=name, expected="the name of a video"
            )
        check_name(name, ReleaseError, path, number)
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ReleaseError(f"names videos more than once: {shorten(repeated)}", path=path)
    return names


def read_text_lines(path: Path) -> list[str]:
    """The lines of an organisers' text file, without byte-order mark, carriage returns and the last newline."""
    try:
        with os.fdopen(open_file(path), encoding="utf-8-sig") as file:
            text = file.read()
    except OSError as problem:
        raise unreadable(ReleaseError, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise ReleaseError(f"is not a text file ({problem.reason} at byte {problem.start})", path=path) from problem
    return text.removesuffix("\n").split("\n") if text else []


def frames_with_crop(roots: Sequence[Path], truths: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Which annotated lines of each video have a crop in any of the roots, bool [L]; a video may have none.

    `truths` are labels [L] or [L, fields] by video. Raises ReleaseError where the roots hold none of the videos.
    """
    problems = list[Problem]()
    crops = [folders for root in roots for folders in crop_folders(root, root, problems)]
    folders = crops_of(truths, crops, Path(), problems)
    if not any(folders.values()):
        remedy = "Name the folders that hold a folder a video, such as cropped_aligned."
        raise ReleaseError("holds no crops of the annotated videos", path=", ".join(map(str, roots)), remedy=remedy)
    return [np.isin(np.arange(len(truth)) + 1, list(list_crops(folders[v]).files)) for v, truth in truths.items()]


def _annotations(found: Found, root: Path, task: Task) -> Iterator[tuple[str, Annotation]]:
    """The name of every video of a challenge, and its part in it."""
    annotations = _only(found.annotations[task], root, "annotation folder")
    for folder, split in _SPLIT_FOLDERS.items():
        for name, labels in read_annotation_folder(annotations / folder, task).items():
            yield name, Annotation(split, labels)
    if found.test_lists[task]:
        for name in read_test_list(_only(found.test_lists[task], root, "list of test videos")):
            yield name, Annotation("test")


def _only(paths: list[Path], root: Path, what: str) -> Path:
    """The one path. Raises ReleaseError where a challenge has several."""
    if len(paths) == 1:
        return paths[0]
    raise ReleaseError(
        f"holds more than one {what}",
        path=root,
        found=shorten([str(path.relative_to(root)) for path in paths]),
        expected="those of one edition, one a challenge",
        remedy="Move the other editions out of the release folder.",
    )


def _group(root: Path, tasks: tuple[Task, ...], videos: Mapping[str, Video], found: Found) -> Release:
    people: dict[VideoFile, list[Video]] = defaultdict(list)
    for name, file in video_files_of(videos, found.videos, root, found.problems).items():
        people[file].append(videos[name])
    recordings = tuple(Recording(file.name, file.path, tuple(people[file])) for file in sorted(people, key=_name))
    used = {file.path for file in people}
    unknown = tuple(sorted(name for name, path in found.videos.items() if path not in used))
    without_list = tuple(task for task in tasks if not found.test_lists[task])
    return Release(root, tasks, recordings, unknown, without_list, tuple(found.problems))


def _name(video_file: VideoFile) -> str:
    return video_file.name


def _label(text: str, path: Path, line: int, task: Task) -> list[float]:
    """The numbers of a line, one per field."""
    parts = text.split(",")
    # int() and float() alone would accept 1_0, +1, nan and the digits of other scripts
    known = len(parts) == len(task.fields) and all(
        (_WHOLE if field.whole else _DECIMAL).fullmatch(part) for part, field in zip(parts, task.fields, strict=True)
    )
    numbers = [float(part) for part in parts] if known else []
    if known and all(map(_is_valid, numbers, task.fields)):
        return numbers
    field, count = task.fields[0], len(task.fields)
    each = f"{field.expected}, or {field.ignore_value} where not annotated"
    raise ReleaseError(
        "has a label outside its range" if known else "has an unknown line",
        path=path,
        line=line,
        found=text,
        expected=each if count == 1 else f"{count} values with commas between, each {each}",
    )


def _is_valid(number: float, field: Field) -> bool:
    return number == field.ignore_value or field.low <= number <= field.high
