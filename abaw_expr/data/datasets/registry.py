"""The data sets that `prepare` reads, by name."""

from collections.abc import Callable, Iterable
from pathlib import Path

from abaw_expr.data.datasets import afew, ckplus, clips_csv, ravdess
from abaw_expr.data.datasets.clips import ClipRow, release_of
from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Release, read_release
from abaw_expr.errors import UserError

CLIPS: dict[DatasetKind, Callable[[Path, list[Problem]], Iterable[ClipRow]]] = {
    "afew": afew.read_rows,
    "ck+": ckplus.read_rows,
    "ravdess": ravdess.read_rows,
    "clips": clips_csv.read_rows,
}
"""Readers of data sets that label clips instead of frames."""


def read_dataset(kind: DatasetKind, root: Path, options: ClipOptions) -> Release:
    """Reads a data set. Raises ReleaseError where it cannot be used, and UserError for options that its kind does not
    have."""
    if kind != "aff-wild2":
        problems = list[Problem]()
        rows = list(CLIPS[kind](root, problems))
        return release_of(root, rows, options, problems)
    if options != ClipOptions():
        remedy = "Leave out --labels, --crops, --images-are-faces and --val-fraction."
        raise UserError(
            "these options are not for aff-wild2, whose release has labels, crops and splits", remedy=remedy
        )
    return read_release(root)
