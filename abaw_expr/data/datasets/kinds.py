"""The data sets that `prepare` reads, by name."""

from collections.abc import Callable, Iterable
from pathlib import Path

from abaw_expr.data.datasets import afew, ckplus, description, ravdess
from abaw_expr.data.datasets.clips import Row, release_of
from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Release, read_release
from abaw_expr.errors import UserError
from abaw_expr.tasks.task import Task

CLIPS: dict[DatasetKind, Callable[[Path, list[Problem]], Iterable[Row]]] = {
    "afew": afew.read_rows,
    "ck+": ckplus.read_rows,
    "ravdess": ravdess.read_rows,
    "clips": description.read_rows,
}
"""Readers of data sets whose clips, not frames, are labelled."""


def read_dataset(kind: DatasetKind, root: Path, task: Task, options: ClipOptions) -> Release:
    """What a data set holds. Raises ReleaseError where it cannot be used, UserError for options of other kinds."""
    if kind != "aff-wild2":
        problems = list[Problem]()
        rows = list(CLIPS[kind](root, problems))
        return release_of(root, rows, task, options, problems)
    if options != ClipOptions():
        remedy = "Leave out --labels, --crops, --pictures-are-faces and --val-share."
        raise UserError("these options are not for aff-wild2, whose release says it all", remedy=remedy)
    return read_release(root, task)
