"""Data sets of labelled clips: every one is read as rows, and rows become a release with annotations of expressions.

A row is a stretch of a clip with one class, in the data set's own word. Subjects, not clips, are split.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from abaw_expr.data.datasets.options import ClipOptions
from abaw_expr.data.discovery import crop_folders, crops_of, walk_folders
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Annotation, Recording, Release, Span, Video
from abaw_expr.errors import ReleaseError, shorten, unreadable
from abaw_expr.files import check_name
from abaw_expr.tasks.task import EXPR

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
"""The words of data sets for each class (D: calm is Neutral, contempt Other)."""
SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class ClipRow:
    """A stretch of a clip that has one class."""

    path: Path
    """A video or audio file, an image, or a folder of images in the order of their names."""
    label: str
    """The data set's word; empty: not annotated."""
    subject: str
    """The person in the clip; empty: not named, and each clip counts as a person of its own."""
    split: str = ""
    """train, val or test; empty: assigned by `split_subjects`."""
    start: float = 0.0
    """Seconds, included."""
    end: float = math.inf
    """Seconds, not included."""
    name: str = ""
    """The clip's name in the store and in folders of crops; empty: its file's name without the suffix."""
    generated_from: tuple[str, ...] = ()
    """Of a generated clip, the recordings that its generator learned from."""
    source: tuple[Path, int | None] | None = None
    """File and line of this row; None: its path says everything."""

    @property
    def clip(self) -> str:
        return self.name or (self.path.name if self.path.is_dir() else self.path.stem)

    @property
    def person(self) -> str:
        """The subject; of a clip that names none a name of its own."""
        return self.subject or f"that of {self.clip}"

    def error(
        self, problem: str, found: object = None, expected: str | None = None, remedy: str | None = None
    ) -> ReleaseError:
        """The error of this row's values."""
        path, line = self.source or (self.path, None)
        return ReleaseError(problem, path=path, line=line, found=found, expected=expected, remedy=remedy)


def release_of(root: Path, rows: Iterable[ClipRow], options: ClipOptions, problems: Sequence[Problem] = ()) -> Release:
    """The release that rows describe; `problems` are the defects found while reading them.

    Raises ReleaseError, with file and line, for an unknown class, a subject in two splits, a clip that has two files or
    overlapping stretches, and where there is no row.
    """
    clips: dict[str, list[ClipRow]] = defaultdict(list)
    for row in rows:
        clips[row.clip].append(row)
    if not clips:
        raise ReleaseError("holds no labelled clip", path=root, remedy="Is this the data set's top folder?")
    for folder in options.crops:
        if not folder.is_dir():
            raise ReleaseError("is not a folder", path=folder, remedy="Name a folder that holds one folder per clip.")
    classes = _read_classes(options.labels)
    for same in clips.values():
        _check_clip(same)
    splits = split_subjects([row for same in clips.values() for row in same], options.val_fraction)
    found_problems = [*problems]
    roots = [folders for crops in options.crops for folders in crop_folders(crops, crops, found_problems)]
    crops = crops_of(clips, roots, root, found_problems)
    recordings = []
    for name, same in sorted(clips.items()):
        spans = tuple(Span(_class_of(row, classes), row.start, row.end) for row in same if row.label)
        faces = same[0].path if options.images_are_faces else None
        annotation = Annotation(splits[same[0].person], spans=spans)
        video = Video(name, {EXPR: annotation}, crops[name], faces)
        recordings.append(Recording(name, same[0].path, (video,), same[0].subject, same[0].generated_from))
    return Release(root, (EXPR,), tuple(recordings), problems=tuple(found_problems))


def _read_classes(path: Path | None) -> dict[str, int]:
    """The class of each word, or the ignore value. Raises ReleaseError where `path` is no such map."""
    import yaml

    classes = {word: EXPR.columns.index(name) for name, words in WORDS.items() for word in words}
    if path is None:
        return classes
    try:
        # Every scalar is read as text: YAML reads `no`, `null`, 0012 and 1e5 as other values.
        own = yaml.load(path.read_text(encoding="utf-8-sig"), yaml.BaseLoader)
    except OSError as problem:
        raise unreadable(ReleaseError, path, problem) from problem
    except (yaml.YAMLError, UnicodeDecodeError) as problem:
        raise ReleaseError(f"is not YAML ({' '.join(str(problem).split())})", path=path) from problem
    if not isinstance(own, Mapping):
        raise ReleaseError("is not a map of labels", path=path, expected="a line `word: Class` for each word")
    known = {name.casefold(): number for number, name in enumerate(EXPR.columns)}
    known |= dict.fromkeys(("", "~", "null"), EXPR.ignore_value)
    for word, name in own.items():
        number = known.get(str(name).casefold())
        if number is None:
            expected = f"one of {', '.join(EXPR.columns)}, or null"
            raise ReleaseError(f"maps {word} to an unknown class", path=path, found=name, expected=expected)
        classes[str(word).casefold()] = number
    return classes


def split_subjects(rows: Sequence[ClipRow], val_fraction: float) -> dict[str, str]:
    """The split of each subject: as its rows say, for the others by a hash of its name.

    Of the others the nearest whole number to the fraction `val_fraction` validates, always the same subjects.
    """
    source: dict[str, ClipRow] = {}
    for row in rows:
        if not row.split:
            continue
        first = source.setdefault(row.person, row)
        if first.split != row.split:
            raise row.error(
                f"subject {row.person} is in {row.split}, and in {first.split} by {_location(first)}",
                remedy="Put all clips of a subject into one split.",
            )
    unassigned = sorted({row.person for row in rows} - source.keys(), key=lambda x: hashlib.sha256(x.encode()).digest())
    val = round(val_fraction * len(unassigned))
    assigned = {subject: "val" if i < val else "train" for i, subject in enumerate(unassigned)}
    return assigned | {subject: row.split for subject, row in source.items()}


def folders_in(root: Path, problems: list[Problem]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Walks through a data set. Raises ReleaseError where there is no such folder."""
    if not root.is_dir():
        raise ReleaseError("is not a folder", path=root, remedy="Name the folder that holds the data set.")
    return walk_folders(root, problems)


def find_files(root: Path, suffixes: Sequence[str], problems: list[Problem]) -> Iterator[Path]:
    """Files with these suffixes at any depth, in order. Raises ReleaseError where there is no such folder."""
    for folder, _, files in folders_in(root, problems):
        yield from (folder / name for name in files if Path(name).suffix.lower() in suffixes)


def _check_clip(rows: list[ClipRow]) -> None:
    """Checks that a clip is one file of one subject, and has one class at a time."""
    first = rows[0]
    check_name(first.clip, ReleaseError, *(first.source or (first.path, None)))
    for row in rows[1:]:
        for what, mine, other in (
            ("file", row.path, first.path),
            ("subject", row.subject, first.subject),
            ("provenance", row.generated_from, first.generated_from),
        ):
            if mine != other:
                remedy = "Give one of them another name."
                raise row.error(
                    f"clip {row.clip} has another {what} than by {_location(first)}", str(mine), str(other), remedy
                )
    for before, row in pairwise(sorted(rows, key=lambda row: row.start)):
        if row.start < before.end:
            raise row.error(f"clip {row.clip} overlaps what {_location(before)} says of it")


def _location(row: ClipRow) -> str:
    path, line = row.source or (row.path, None)
    return f"{path.name}:{line}" if line else path.name


def _class_of(row: ClipRow, classes: Mapping[str, int]) -> int:
    if row.label.casefold() in classes:
        return classes[row.label.casefold()]
    remedy = f"Correct it, or map it by a line `{row.label}: Class` in a file named by --labels."
    raise row.error("has an unknown class", row.label, shorten(list(classes), len(classes)), remedy)
