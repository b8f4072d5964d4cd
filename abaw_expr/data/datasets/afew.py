"""AFEW: film clips in class folders of its own split, such as `Train/Angry/000046280.avi`.

Its split is by film; the clips name no subject, so each is its own.
"""

from collections.abc import Iterator
from pathlib import Path

from abaw_expr.data.datasets.clips import Row, find_files
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import VIDEO_SUFFIXES

SPLITS = {"train": "train", "val": "val"}
"""How folders of a split begin: Train, Train_AFEW, Val, Validation."""


def read_rows(root: Path, problems: list[Problem]) -> Iterator[Row]:
    """A row a clip: the folder that it lies in is its class, a folder above that its split."""
    for path in find_files(root, VIDEO_SUFFIXES, problems):
        above = [part.casefold() for part in path.relative_to(root).parts[:-2]]
        split = next((name for part in above for start, name in SPLITS.items() if part.startswith(start)), None)
        if split is None:
            remedy = "Name the folder above Train and Val."
            raise ReleaseError("lies in no split", path=path, expected="Train/<class>/ or Val/<class>/", remedy=remedy)
        yield Row(path, path.parent.name, path.stem, split)
