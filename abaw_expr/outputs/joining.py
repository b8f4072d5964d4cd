"""Joins several tables of outputs into one, or into one for each task: branches of the same frames, or the same
branches of other videos."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from abaw_expr.errors import OutputsError
from abaw_expr.files import digest
from abaw_expr.outputs.table import Outputs, Source, branch_columns, check_branch_name, read_outputs, spread_column
from abaw_expr.tasks.task import EXPR, Task


def read_joined(files: Sequence[Path], task: Task | None = EXPR) -> Outputs:
    """Reads several tables as one, as `combine` does; `NAME=FILE` renames the branch of a file.

    If `task` is None, the task is that of the first file. Raises OutputsError as `read_outputs` and `combine` do.
    """
    parts: list[Outputs] = []
    for file in files:
        parts.append(_read_named(file, parts[0].task if parts else task))
    return combine(parts)


def read_by_task(files: Sequence[Path]) -> dict[Task, Outputs]:
    """Reads tables of several tasks, and joins those of each task as `read_joined` does."""
    parts: dict[Task, list[Outputs]] = {}
    for file in files:
        read = _read_named(file, None)
        parts.setdefault(read.task, []).append(read)
    return {task: combine(tables) for task, tables in parts.items()}


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


def combine(parts: Sequence[Outputs]) -> Outputs:
    """One table of several: those of the same branches without a common video are put below each other, as tables of
    folds are, and the results beside each other. Raises OutputsError as `stack` and `join` do.
    """
    piles: dict[tuple[str, ...], list[Outputs]] = {}
    for part in parts:
        piles.setdefault(tuple(part.branches), []).append(part)
    return join([one for pile in piles.values() for one in (pile if _share_videos(pile) else [stack(pile)])])


def _share_videos(parts: Sequence[Outputs]) -> bool:
    names = [set(part.table["video"].unique()) for part in parts]
    return len(set[str]().union(*names)) < sum(map(len, names))


def stack(parts: Sequence[Outputs]) -> Outputs:
    """One table of the videos of all, which have the same branches and no video in common.

    A branch is of all their runs (`pool`). Raises OutputsError where splits differ.
    """
    first, *others = parts
    if not others:
        return first
    for other in others:
        _check_split(first, other)
    table = pd.concat([part.table.assign(video=part.table["video"].astype(str)) for part in parts], ignore_index=True)
    table = table.sort_values(["video", "frame"], kind="stable", ignore_index=True)
    branches = {name: pool([part.branches[name] for part in parts]) for name in first.branches}
    return replace(first, table=table, branches=branches, paths=tuple(path for part in parts for path in part.paths))


def pool(sources: Sequence[Source]) -> Source:
    """The source of what several made together: its members are all their runs, its prior is the mean of theirs."""
    members = tuple(dict.fromkeys(run for source in sources for run in source.runs))
    if len(members) == 1:
        return sources[0]
    prior = np.average([source.prior for source in sources], axis=0, weights=[len(source.runs) for source in sources])
    checkpoints = {source.checkpoint for source in sources}
    seen = sorted({name for source in sources for name in source.seen})
    checkpoint = checkpoints.pop() if len(checkpoints) == 1 else "best" if "best" in checkpoints else None
    return Source(digest(sorted(members)), tuple(prior.tolist()), checkpoint, tuple(seen), members)


def join(parts: Sequence[Outputs]) -> Outputs:
    """One table with the branches of all. Raises OutputsError if rows, labels or split differ or a name occurs twice.

    Time and crop are those of the first table.
    """
    first, *others = parts
    table, branches = first.table, dict(first.branches)
    for other in others:
        check_same(first, other)
        twice = [name for name in other.branches if name in branches]
        if twice:
            remedy = f"Give the second another name: NAME={other.path}."
            raise OutputsError("has branches that another file also has", path=other.path, found=twice, remedy=remedy)
        branches |= other.branches
        columns = [column for name in other.branches for column in columns_of(name, other)]
        table = pd.concat([table, other.table[columns]], axis=1)
    paths = tuple(path for part in parts for path in part.paths)
    return replace(first, table=table, branches=branches, paths=paths)


def columns_of(branch: str, outputs: Outputs) -> list[str]:
    """The columns of a branch: its numbers, and its spread where it has one."""
    spread = [spread_column(branch)] if spread_column(branch) in outputs.table else []
    return [*branch_columns(branch, outputs.task), *spread]


def rename(outputs: Outputs, name: str) -> Outputs:
    """The table with its branch renamed to `name`, or several branches to `name-audio` and so on."""
    new = {old: name if len(outputs.branches) == 1 else f"{name}-{old}" for old in outputs.branches}
    columns = {
        before: after
        for old in new
        for before, after in zip(
            [*branch_columns(old, outputs.task), spread_column(old)],
            [*branch_columns(new[old], outputs.task), spread_column(new[old])],
            strict=True,
        )
    }
    branches = {new[old]: source for old, source in outputs.branches.items()}
    return replace(outputs, table=outputs.table.rename(columns=columns), branches=branches)


def _check_split(first: Outputs, other: Outputs) -> None:
    if other.split != first.split:
        raise OutputsError("is of another split", path=other.path, found=other.split, expected=first.split)


def check_same(first: Outputs, other: Outputs) -> None:
    """Raises OutputsError where two tables differ in split, frames or labels."""
    _check_split(first, other)
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
