"""AFEW: film clips in class folders of its own split, such as `Train/Angry/000046280.avi`.

It is split by film. Clips name no subject, so each clip counts as a subject. The clips of its test part lie in no class
folder and have no label.
"""

from collections.abc import Iterator
from pathlib import Path

from abaw_expr.data.datasets.clips import ClipRow, find_files
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import VIDEO_SUFFIXES

_SPLIT_FOLDERS = {"train": "train", "val": "val", "test": "test"}
"""Prefixes of split folders: Train, Train_AFEW, Val, Validation, Test."""


def read_rows(root: Path, problems: list[Problem]) -> Iterator[ClipRow]:
    """A row a clip: its folder is its class, a folder above that its split; of test clips the folder is the split."""
    for path in find_files(root, VIDEO_SUFFIXES, problems):
        *above, own = [_split(part) for part in path.relative_to(root).parts[:-1]] or [None]
        split = next((split for split in above if split), None)
        if split is None and own == "test":
            yield ClipRow(path, "", "", own)
            continue
        if split is None:
            remedy = "Name the folder that contains Train and Val."
            expected = "Train/<class>/, Val/<class>/ or Test/"
            raise ReleaseError("is in no split folder", path=path, expected=expected, remedy=remedy)
        yield ClipRow(path, path.parent.name, "", split)


def _split(folder: str) -> str | None:
    """The split that a folder's name begins with."""
    return next((split for prefix, split in _SPLIT_FOLDERS.items() if folder.casefold().startswith(prefix)), None)
