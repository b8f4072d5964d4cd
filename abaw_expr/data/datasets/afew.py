"""AFEW: film clips in class folders of its own split, such as `Train/Angry/000046280.avi`.

It is split by film. Clips name no subject, so each clip counts as a subject.
"""

from collections.abc import Iterator
from pathlib import Path

from abaw_expr.data.datasets.clips import ClipRow, find_files
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import VIDEO_SUFFIXES

_SPLIT_FOLDERS = {"train": "train", "val": "val"}
"""Prefixes of split folders: Train, Train_AFEW, Val, Validation."""


def read_rows(root: Path, problems: list[Problem]) -> Iterator[ClipRow]:
    """A row a clip: its folder is its class, a folder above that its split."""
    for path in find_files(root, VIDEO_SUFFIXES, problems):
        above = [part.casefold() for part in path.relative_to(root).parts[:-2]]
        split = next((name for part in above for start, name in _SPLIT_FOLDERS.items() if part.startswith(start)), None)
        if split is None:
            remedy = "Name the folder that contains Train and Val."
            raise ReleaseError(
                "is in no split folder", path=path, expected="Train/<class>/ or Val/<class>/", remedy=remedy
            )
        yield ClipRow(path, path.parent.name, "", split)
