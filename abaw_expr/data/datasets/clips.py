"""The one description that every data set of labelled clips is brought into: rows, and from them a release.

A row is a stretch of a clip with one class in the data set's own word. Subjects, not clips, are split.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from abaw_expr.data.datasets.options import ClipOptions
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Recording, Release, Span, Video
from abaw_expr.data.walk import crop_folders, crops_of, tour
from abaw_expr.errors import ReleaseError, shorten, unreadable
from abaw_expr.files import check_name
from abaw_expr.tasks.task import Task

WORDS = {
    "Neutral": ("neutral", "calm"),
    "Anger": ("anger", "angry"),
    "Disgust": ("disgust", "disgusted"),
    "Fear": ("fear", "fearful"),
    "Happiness": ("happiness", "happy"),
    "Sadness": ("sadness", "sad"),
    "Surprise": ("surprise", "surprised"),
    "Other": ("other", "contempt"),
}
"""What data sets call each class (D: calm is Neutral, contempt Other)."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class Row:
    """A stretch of a clip that has one class."""

    path: Path
    """A video or sound file, a picture, or a folder of pictures in the order of their names."""
    label: str
    """The data set's word; empty: not annotated."""
    subject: str
    """Who is seen or heard."""
    split: str = ""
    """train, val or test; empty: where the subject's share puts it."""
    start: float = 0.0
    """Seconds, included."""
    end: float = math.inf
    """Seconds, not included."""
    name: str = ""
    """What the clip is called in the store and in folders of crops; empty: its file's name without the ending."""
    said: tuple[Path, int | None] | None = None
    """File and line that say so; None: the path does."""

    @property
    def clip(self) -> str:
        return self.name or (self.path.name if self.path.is_dir() else self.path.stem)

    def error(
        self, problem: str, found: object = None, expected: str | None = None, remedy: str | None = None
    ) -> ReleaseError:
        """The error of what this row says."""
        path, line = self.said or (self.path, None)
        return ReleaseError(problem, path=path, line=line, found=found, expected=expected, remedy=remedy)


def release_of(
    root: Path, rows: Iterable[Row], task: Task, options: ClipOptions, problems: Sequence[Problem] = ()
) -> Release:
    """The release that rows describe; `problems` are what was wrong with where they lie.

    Raises ReleaseError, with file and line, for an unknown class, a subject in two splits, a clip that is two or whose
    stretches overlap, and where there is no row.
    """
    clips: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        clips[row.clip].append(row)
    if not clips:
        raise ReleaseError("holds no labelled clip", path=root, remedy="Is this the data set's top folder?")
    for folder in options.crops:
        if not folder.is_dir():
            raise ReleaseError("is not a folder", path=folder, remedy="Name a folder that holds a folder a clip.")
    classes = read_classes(options.labels, task)
    for same in clips.values():
        _check_clip(same)
    splits = split_subjects([row for same in clips.values() for row in same], options.val_share)
    told = [*problems]
    roots = [folders for crops in options.crops for folders in crop_folders(crops, crops, told)]
    crops = crops_of(clips, roots, root, told)
    recordings = []
    for name, same in sorted(clips.items()):
        spans = tuple(Span(_class_of(row, classes), row.start, row.end) for row in same if row.label)
        faces = same[0].path if options.pictures_are_faces else None
        video = Video(name, splits[same[0].subject], None, crops[name], spans, faces)
        recordings.append(Recording(name, same[0].path, (video,)))
    return Release(root, tuple(recordings), (), True, tuple(told))


def read_classes(path: Path | None, task: Task) -> dict[str, int]:
    """Each word's class, or the mark of no annotation. Raises ReleaseError where `path` is no such map."""
    import yaml

    classes = {word: task.columns.index(name) for name, words in WORDS.items() for word in words}
    if path is None:
        return classes
    try:
        # Every scalar as it is written: YAML has `no`, `null`, 0012 and 1e5 for something else than words.
        own = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except OSError as problem:
        raise unreadable(ReleaseError, path, problem) from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ReleaseError(f"is not YAML ({' '.join(str(problem).split())})", path=path) from problem
    if not isinstance(own, Mapping):
        raise ReleaseError("is not a map of labels", path=path, expected="a line `word: Class` for each word")
    known = {name.casefold(): number for number, name in enumerate(task.columns)}
    known |= dict.fromkeys(("", "~", "null"), task.ignore_value)
    for word, name in own.items():
        number = known.get(str(name).casefold())
        if number is None:
            expected = f"one of {', '.join(task.columns)}, or null"
            raise ReleaseError(f"maps {word} to an unknown class", path=path, found=name, expected=expected)
        classes[str(word).casefold()] = number
    return classes


def split_subjects(rows: Sequence[Row], val_share: float) -> dict[str, str]:
    """Each subject's split: what its rows say, and for the others by a hash of its name.

    Of those, the nearest whole number to `val_share` of them validates, and the same ones every time.
    """
    said: dict[str, Row] = {}
    for row in rows:
        if not row.split:
            continue
        first = said.setdefault(row.subject, row)
        if first.split != row.split:
            raise row.error(
                f"subject {row.subject} is in {row.split}, and in {first.split} by {_place(first)}",
                remedy="Put all clips of a subject into one split.",
            )
    free = sorted({row.subject for row in rows} - said.keys(), key=lambda x: hashlib.sha256(x.encode()).digest())
    val = round(val_share * len(free))
    drawn = {subject: "val" if place < val else "train" for place, subject in enumerate(free)}
    return drawn | {subject: row.split for subject, row in said.items()}


def folders_in(root: Path, problems: list[Problem]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """The walk through a data set. Raises ReleaseError where there is no such folder."""
    if not root.is_dir():
        raise ReleaseError("is not a folder", path=root, remedy="Name the folder that holds the data set.")
    return tour(root, problems)


def find_files(root: Path, suffixes: Sequence[str], problems: list[Problem]) -> Iterator[Path]:
    """Files with these endings at any depth, in order. Raises ReleaseError where there is no such folder."""
    for folder, _, files in folders_in(root, problems):
        yield from (folder / name for name in files if Path(name).suffix.lower() in suffixes)


def _check_clip(rows: list[Row]) -> None:
    """One clip is one file of one subject, and no moment of it has two classes."""
    first = rows[0]
    check_name(first.clip, ReleaseError, *(first.said or (first.path, None)))
    for row in rows[1:]:
        for what, mine, other in (("file", row.path, first.path), ("subject", row.subject, first.subject)):
            if mine != other:
                remedy = "Give one of them another name."
                raise row.error(
                    f"clip {row.clip} has another {what} than by {_place(first)}", str(mine), str(other), remedy
                )
    for before, row in pairwise(sorted(rows, key=lambda row: row.start)):
        if row.start < before.end:
            raise row.error(f"clip {row.clip} overlaps what {_place(before)} says of it")


def _place(row: Row) -> str:
    path, line = row.said or (row.path, None)
    return f"{path.name}:{line}" if line else path.name


def _class_of(row: Row, classes: Mapping[str, int]) -> int:
    if row.label.casefold() in classes:
        return classes[row.label.casefold()]
    remedy = f"Correct it, or map it by a line `{row.label}: Class` in a file named by --labels."
    raise row.error("has an unknown class", row.label, shorten(list(classes), len(classes)), remedy)
