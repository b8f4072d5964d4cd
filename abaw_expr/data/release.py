"""The organisers' release, from the 3rd to the 10th edition: what is where, and the labels of every video.

Nothing is decoded here. A folder given as the release may hold, at any depth, one edition's annotations, one or more
roots of crops (`cropped_aligned*`), videos in any batch folder, and the list of test videos.
"""

import os
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from abaw_expr.errors import ReleaseError, shorten, unreadable
from abaw_expr.tasks import Task, recording_of

SPLIT_FOLDERS = {"Train_Set": "train", "Validation_Set": "val"}
CROP_ROOTS = "cropped_aligned*"
VIDEO_SUFFIXES = (".mp4", ".avi", ".mkv", ".mov", ".webm")


@dataclass(frozen=True)
class Video:
    """One person in one recording: the unit of annotation and submission."""

    name: str
    split: str
    """train, val or test."""
    labels: np.ndarray | None
    """int8 [lines]; entry i belongs to frame i + 1. None for a test video."""
    crop_folders: tuple[Path, ...]
    """This video's folder in every root of crops that has one."""


@dataclass(frozen=True)
class Recording:
    """One video file and the people in it (`_left` and `_right` share it)."""

    name: str
    path: Path | None
    """The video file, or None where the release has none."""
    videos: tuple[Video, ...]


@dataclass(frozen=True)
class Release:
    """What a release folder holds for one task."""

    root: Path
    recordings: tuple[Recording, ...]
    not_annotated: tuple[str, ...]
    """Video files that neither an annotation nor the test list names."""
    has_test_list: bool
    """Whether a list of test videos is there; before the organisers hand it out there is none."""


@dataclass
class _Found:
    """What a walk through the release meets."""

    annotations: list[Path] = field(default_factory=list)
    crop_roots: list[Path] = field(default_factory=list)
    test_lists: list[Path] = field(default_factory=list)
    videos: dict[str, Path] = field(default_factory=dict)


def read_release(root: Path, task: Task) -> Release:
    """Reads a release folder.

    Raises ReleaseError where the folder, its annotations or its lists cannot be used; the error names file and line.
    """
    root = Path(root)
    if not root.is_dir():
        raise ReleaseError("is not a folder", path=root, remedy="Name the folder that holds the organisers' release.")
    found = _walk(root, task)
    videos: dict[str, Video] = {}
    for name, split, labels in _subjects(found, root, task):
        if name in videos:
            raise ReleaseError(
                f"{name} is named as a {videos[name].split} video and as a {split} video",
                path=root,
                remedy="Leave it in one of the two.",
            )
        folders = tuple(folder for crops in found.crop_roots if (folder := crops / name).is_dir())
        videos[name] = Video(name, split, labels, folders)
    return _group(root, videos, found)


def read_annotation(path: Path, task: Task) -> np.ndarray:
    """Labels of one annotation file, int8 [lines]; entry i belongs to frame i + 1.

    A byte-order mark, CRLF and a missing last newline are normal. Raises ReleaseError for any other departure.
    """
    lines = read_lines(path)
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
    return np.array([_label(text, path, i, task) for i, text in enumerate(lines[1:], start=2)], dtype=np.int8)


def read_annotation_folder(folder: Path, task: Task) -> dict[str, np.ndarray]:
    """Labels of every `<video>.txt` in a folder, by video name."""
    files = sorted(path for path in Path(folder).glob("*.txt") if not path.name.startswith("."))
    if not files:
        raise ReleaseError("holds no annotation", path=folder, expected="a folder of <video>.txt files")
    return {path.stem: read_annotation(path, task) for path in files}


def read_test_list(path: Path) -> list[str]:
    """Names of the test videos, a line each, in the file's order."""
    names = [line.strip() for line in read_lines(path)]
    if not names:
        raise ReleaseError("is empty", path=path, expected="a video name a line")
    for number, name in enumerate(names, start=1):
        if not name or "/" in name or "," in name:
            raise ReleaseError(
                "has an unknown line", path=path, line=number, found=name, expected="the name of a video"
            )
    if len(set(names)) < len(names):
        repeated = sorted({name for name in names if names.count(name) > 1})
        raise ReleaseError(f"names videos more than once: {shorten(repeated)}", path=path)
    return names


def read_lines(path: Path) -> list[str]:
    """Lines of a text file of the organisers, without byte-order mark, carriage returns and the last newline."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except OSError as problem:
        raise unreadable(ReleaseError, path, problem) from problem
    except UnicodeDecodeError as problem:
        raise ReleaseError(f"is not a text file ({problem.reason} at byte {problem.start})", path=path) from problem
    return text.removesuffix("\n").split("\n") if text else []


def list_crops(folders: tuple[Path, ...]) -> tuple[dict[int, os.DirEntry[str]], list[str]]:
    """A video's crops by frame number, and the names of files that are none.

    Where two roots hold the same frame the first root wins.
    """
    crops: dict[int, os.DirEntry[str]] = {}
    strangers = []
    for folder in folders:
        with os.scandir(folder) as entries:
            for entry in entries:
                stem, suffix = os.path.splitext(entry.name)
                if suffix == ".jpg" and stem.isdecimal() and int(stem) > 0:
                    crops.setdefault(int(stem), entry)
                else:
                    strangers.append(entry.name)
    return dict(sorted(crops.items())), sorted(strangers)


def frames_with_crop(roots: Sequence[Path], truths: Mapping[str, np.ndarray]) -> list[np.ndarray]:
    """Which annotated lines of each video have a crop in any of the roots, bool [lines]; a video need not have any.

    Raises ReleaseError where the roots hold none of the videos.
    """
    folders = {video: tuple(root / video for root in roots if (root / video).is_dir()) for video in truths}
    if not any(folders.values()):
        remedy = "Name the folders that hold a folder a video, such as cropped_aligned."
        raise ReleaseError("holds no crops of the annotated videos", path=", ".join(map(str, roots)), remedy=remedy)
    return [np.isin(np.arange(len(truth)) + 1, list(list_crops(folders[v])[0])) for v, truth in truths.items()]


def _walk(root: Path, task: Task) -> _Found:
    """Looks through the release without entering folders of crops, which hold millions of files."""
    found = _Found()
    for folder, subfolders, files in os.walk(root):
        here = Path(folder)
        subfolders.sort()
        found.crop_roots += [here / name for name in subfolders if fnmatch(name, CROP_ROOTS)]
        found.annotations += [here / name for name in subfolders if name in task.annotation_folders]
        subfolders[:] = [name for name in subfolders if not fnmatch(name, CROP_ROOTS)]
        for name in sorted(files):
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in VIDEO_SUFFIXES:
                found.videos.setdefault(stem, here / name)
            elif fnmatch(name.lower(), task.test_list):
                found.test_lists.append(here / name)
    return found


def _subjects(found: _Found, root: Path, task: Task) -> Iterator[tuple[str, str, np.ndarray | None]]:
    """(name, split, labels) of every video that the task uses."""
    annotations = _only(found.annotations, root, "annotation folder", " or ".join(task.annotation_folders))
    for folder, split in SPLIT_FOLDERS.items():
        for name, labels in read_annotation_folder(annotations / folder, task).items():
            yield name, split, labels
    if found.test_lists:
        for name in read_test_list(_only(found.test_lists, root, "list of test videos", task.test_list)):
            yield name, "test", None


def _only(paths: list[Path], root: Path, what: str, expected: str) -> Path:
    if len(paths) == 1:
        return paths[0]
    if not paths:
        raise ReleaseError(f"holds no {what}", path=root, expected=expected, remedy="Is this the release's top folder?")
    raise ReleaseError(
        f"holds more than one {what}",
        path=root,
        found=shorten([str(path.relative_to(root)) for path in paths]),
        expected="those of one edition",
        remedy="Move the other editions out of the release folder.",
    )


def _group(root: Path, videos: dict[str, Video], found: _Found) -> Release:
    files = found.videos
    people: dict[str, list[Video]] = defaultdict(list)
    for name, video in videos.items():
        people[name if name in files else recording_of(name)].append(video)
    recordings = tuple(Recording(name, files.get(name), tuple(people[name])) for name in sorted(people))
    return Release(root, recordings, tuple(sorted(files.keys() - people.keys())), bool(found.test_lists))


def _label(text: str, path: Path, line: int, task: Task) -> int:
    # int() alone would take 1_0, +1 and the digits of other scripts
    label = int(text) if re.fullmatch(r"\s*-?[0-9]{1,9}\s*", text) else None
    if label is not None and (label == task.unannotated or 0 <= label < task.n_classes):
        return label
    raise ReleaseError(
        "has an unknown line" if label is None else "has a label outside its range",
        path=path,
        line=line,
        found=text,
        expected=f"an integer from 0 to {task.n_classes - 1}, or {task.unannotated} where not annotated",
    )
