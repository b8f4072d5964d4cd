"""Joins several tables of outputs of the same frames into one, or into one for each task."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from abaw_expr.errors import OutputsError
from abaw_expr.outputs.table import Outputs, branch_columns, check_branch_name, read_outputs
from abaw_expr.tasks.task import EXPR, Task


def read_joined(files: Sequence[Path], task: Task | None = EXPR) -> Outputs:
    """Reads several tables of the same frames as one; `NAME=FILE` renames the branch of a file.

    If `task` is None, the task is that of the first file. Raises OutputsError as `read_outputs` and `join` do.
    """
    parts: list[Outputs] = []
    for file in files:
        parts.append(_read_named(file, parts[0].task if parts else task))
    return join(parts)


def read_by_task(files: Sequence[Path]) -> dict[Task, Outputs]:
    """Reads tables of several tasks, and joins those of each task as `read_joined` does."""
    parts: dict[Task, list[Outputs]] = {}
    for file in files:
        read = _read_named(file, None)
        parts.setdefault(read.task, []).append(read)
    return {task: join(tables) for task, tables in parts.items()}


def _read_named(file: Path, task: Task | None) -> Outputs:
    name, path = split_name(file)
    read = read_outputs(path, task)
    return read if name is None else rename(read, name)


def split_name(file: Path) -> tuple[str | None, Path]:
    """Splits `NAME=FILE` into name, None without one, and file. Raises OutputsError for an invalid name."""
    name, named, path = str(file).partition("=")
    if not named or file.exists():
        return None, file
    check_branch_name(name)
    return name, Path(path)


def join(parts: Sequence[Outputs]) -> Outputs:
    """One table with the branches of all. Raises OutputsError if rows, labels or split differ or a name occurs twice.

    Time and crop are those of the first table.
    """
    first, *others = parts
    table, branches = first.table, dict(first.branches)
    for other in others:
        _check_same(first, other)
        twice = [name for name in other.branches if name in branches]
        if twice:
            remedy = f"Give the second another name: NAME={other.path}."
            raise OutputsError("has branches that another file also has", path=other.path, found=twice, remedy=remedy)
        branches |= other.branches
        columns = [column for name in other.branches for column in branch_columns(name, first.task)]
        table = pd.concat([table, other.table[columns]], axis=1)
    paths = tuple(path for part in parts for path in part.paths)
    return replace(first, table=table, branches=branches, paths=paths)


def rename(outputs: Outputs, name: str) -> Outputs:
    """The table with its branch renamed to `name`, or several branches to `name-audio` and so on."""
    new = {old: name if len(outputs.branches) == 1 else f"{name}-{old}" for old in outputs.branches}
    columns = {
        before: after
        for old in new
        for before, after in zip(branch_columns(old, outputs.task), branch_columns(new[old], outputs.task), strict=True)
    }
    branches = {new[old]: source for old, source in outputs.branches.items()}
    return replace(outputs, table=outputs.table.rename(columns=columns), branches=branches)


def _check_same(first: Outputs, other: Outputs) -> None:
    """Raises OutputsError where two tables differ in split, frames or labels."""
    if other.split != first.split:
        raise OutputsError("is of another split", path=other.path, found=other.split, expected=first.split)
    here, there = (list(zip(part.table["video"], part.table["frame"], strict=True)) for part in (first, other))
    if here != there:
        extra, lacking = len(set(there) - set(here)), len(set(here) - set(there))
        found = f"{extra} rows that are not in the first file, {lacking} rows of the first file missing"
        remedy = "Make both for the same frames: `predict` with one template, `import` with one --like."
        raise OutputsError("has other rows than the first file", path=other.path, found=found, remedy=remedy)
    wrong = (first.label() != other.label()).nonzero()[0]
    if len(wrong):
        video, frame = here[wrong[0]]
        raise OutputsError(f"video {video}, frame {frame}: the label differs from the first file's", path=other.path)
