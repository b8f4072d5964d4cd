"""The table of branch outputs, `outputs.parquet`: the only input from a model to fusion, tuning and submission.

One row per frame, sorted by video and frame:

| column | type | |
|---|---|---|
| `video` | dictionary of string | |
| `frame` | int32 | counted from 1 |
| `time` | float64 | seconds on the video's own clock, never decreasing in a video |
| `crop` | bool | the frame has a face crop |
| `<branch>_0..` | float32 | a branch's numbers (`audio_0`); all null where the branch is missing |
| `<branch>_spread` | float32 | optional, of an average of runs: how far they are apart on the frame |
| `label` | int8 | the class, -1 where the frame is not annotated |

A branch's numbers are in the order of the header of the task's files: the probabilities of the classes, which sum to 1;
the probabilities of the action units; or valence and arousal themselves. A task with several fields has one column for
each instead of `label`: `label_valence` (float32, -5 where not annotated), `label_AU1` (int8, -1 where not annotated).

The Parquet schema has JSON metadata under the key `abaw_expr`: task, class_names (the header), split, version, and
branches, which gives the source of each by name: run (its signature) and prior (the average over its training data: the
fraction of each class or of each unit's active frames, the mean valence and arousal). Two optional keys record reasons
why an estimate on these frames is too high: checkpoint (`best`: its epoch was chosen on validation frames) and seen
(recordings of the table that the run was trained on, even with another person). A branch is a modality of our networks
or any other model. A branch that is the average of several runs has the key members, their signatures; its run is the
digest of these. Tables that other programs write in this format can be tuned, scored and submitted.

Shapes: T frames, C numbers of a row, F fields.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError, shorten, unreadable
from abaw_expr.files import atomic, check_name
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import in_range
from abaw_expr.tasks.task import COMPOUND, EXPR, TASKS, Field, Task, compound
from abaw_expr.version import VERSION

KEY = b"abaw_expr"
_SIGNATURE = re.compile("[0-9a-f]{16}")
_BRANCH_NAME = re.compile(r"[A-Za-z][A-Za-z0-9-]*")
_REMEDY = "Make the outputs again with `abaw-expr predict`, or correct the program that wrote them."


@dataclass(frozen=True, eq=False)
class VideoOutputs:
    """One video's rows as arrays of T frames."""

    name: str
    frame: NDArray[np.int32]
    """[T], counted from 1."""
    time: NDArray[np.float64]
    """[T], seconds, never decreasing."""
    crop: NDArray[np.bool_]
    """[T], whether the frame has a face crop."""
    p: Mapping[str, NDArray[np.float32]]
    """[T, C] by branch; a missing row is all NaN."""
    label: NDArray[Any]
    """int8 [T], the class, -1 where not annotated; or [T, F], one column per field: float32 values, -5 where not
    annotated, or int8 units, -1 where not annotated."""


@dataclass(frozen=True)
class Source:
    """The origin of a branch's numbers."""

    run: str
    """The signature of the run that made them, or the name of the file that they were imported from."""
    prior: tuple[float, ...]
    """[C], the average over the training data: the fraction of each class or of each unit's active frames, or the mean
    values."""
    checkpoint: str | None = None
    """`best` or `last` of our runs."""
    seen: tuple[str, ...] = ()
    """Recordings of the table that the run was trained on, even with another person."""
    members: tuple[str, ...] = ()
    """The signatures of the runs whose average it is; none: it is no average."""

    @property
    def runs(self) -> tuple[str, ...]:
        """All runs that made it."""
        return self.members or (self.run,)

    @property
    def of_run(self) -> bool:
        """Whether one of our runs made it, so that `run` is a signature."""
        return _SIGNATURE.fullmatch(self.run) is not None

    def to_json(self) -> dict[str, Any]:
        """The source in the table's metadata, without unknown values."""
        optional = {"checkpoint": self.checkpoint, "seen": list(self.seen), "members": list(self.members)}
        known = {name: value for name, value in optional.items() if value}
        return {"run": self.run, "prior": [float(fraction) for fraction in self.prior]} | known


@dataclass(frozen=True, eq=False)
class Outputs:
    """The outputs of one or several branches on one split."""

    task: Task
    table: pd.DataFrame
    """The columns of `outputs.parquet`, sorted as there; NaN for null."""
    split: str
    branches: Mapping[str, Source]
    """By name, in the order of their columns."""
    paths: tuple[Path, ...] = ()
    """The files that they were read from."""

    @property
    def path(self) -> Path | None:
        """The first of the files, for error messages."""
        return self.paths[0] if self.paths else None

    def videos(self) -> list[VideoOutputs]:
        """The videos in the table's order."""
        table, column = self.table, {}
        for name in ("frame", "time", "crop"):
            column[name] = table[name].to_numpy()
        column["label"] = self.label()
        p = {name: self.branch(name) for name in self.branches}
        codes, names = pd.factorize(table["video"])
        edges = np.flatnonzero(np.diff(codes, prepend=-1, append=-1))
        slices = map(slice, edges[:-1], edges[1:])
        return [
            VideoOutputs(
                str(name),
                p={branch: values[rows] for branch, values in p.items()},
                **{key: values[rows] for key, values in column.items()},
            )
            for name, rows in zip(names, slices, strict=True)
        ]

    def branch(self, name: str) -> NDArray[np.float32]:
        """A branch's numbers for all frames of the table, [T, C]; NaN where missing."""
        return self.table[branch_columns(name, self.task)].to_numpy(np.float32)

    def branches_with_rows(self) -> list[str]:
        """The branches that are not missing on all frames."""
        return [name for name in self.branches if np.isfinite(self.branch(name)).any()]

    def label(self) -> NDArray[Any]:
        """The annotations of all frames of the table, [T] or [T, F]."""
        names = list(label_columns(self.task))
        return self.table[names[0] if self.task.one_class else names].to_numpy()


def branch_columns(branch: str, task: Task) -> list[str]:
    """The columns of a branch's numbers."""
    return [f"{branch}_{index}" for index in range(task.n_columns)]


def spread_column(branch: str) -> str:
    """The column of how far the members of an average are apart."""
    return f"{branch}_spread"


def label_columns(task: Task) -> dict[str, Field]:
    """The annotation columns and the field of each: `label` for a class, else `label_valence` and so on."""
    if task.one_class:
        return {"label": task.fields[0]}
    return {f"label_{field.name}": field for field in task.fields}


@cache
def schema(task: Task, branches: tuple[str, ...], averages: tuple[str, ...] = ()) -> pa.Schema:
    """The columns and types of the file; `averages` are the branches that have a spread."""
    numbers = [(name, pa.float32()) for branch in branches for name in branch_columns(branch, task)]
    numbers += [(spread_column(branch), pa.float32()) for branch in branches if branch in averages]
    labels = [(name, pa.int8() if field.whole else pa.float32()) for name, field in label_columns(task).items()]
    video = pa.dictionary(pa.int32(), pa.string())
    return pa.schema(
        [
            ("video", video),
            ("frame", pa.int32()),
            ("time", pa.float64()),
            ("crop", pa.bool_()),
            *numbers,
            *labels,
        ]
    )


def write_outputs(path: Path, outputs: Outputs) -> None:
    """Writes the table atomically; equal outputs give equal bytes.

    Raises OutputsError where the table does not follow the format that `read_outputs` checks.
    """
    metadata = _metadata(outputs)
    _check_metadata(metadata, outputs.task, path)
    branches = tuple(outputs.branches)
    columns = schema(outputs.task, branches, _with_spread(branches, outputs.table.columns))
    _check_columns(list(outputs.table.columns), columns, path)
    table = _cast(outputs.table, columns, path)
    _checked(table, outputs.task, branches, path)
    with atomic(path) as temporary, open(temporary, "wb") as file:  # pyarrow accepts only paths that are UTF-8
        table = table.replace_schema_metadata({KEY: json.dumps(metadata).encode()})
        pq.write_table(table, file, compression="zstd")


def read_outputs(path: Path, task: Task | None = EXPR) -> Outputs:
    """Reads and checks a table of branch outputs, of any task where `task` is None.

    Raises OutputsError where the file is not such a table, has another task or class order, or an invalid row.
    """
    path = Path(path)
    try:
        with open(path, "rb") as source, pq.ParquetFile(source) as file:
            metadata = _read_metadata(file.schema_arrow.metadata or {}, path)
            task = task or _recognised(metadata, path)
            _check_metadata(metadata, task, path)
            branches = {name: _source(value) for name, value in metadata["branches"].items()}
            columns = schema(task, tuple(branches), _with_spread(branches, file.schema_arrow.names))
            _check_columns(file.schema_arrow.names, columns, path)
            table = _cast(file.read(columns=columns.names), columns, path)
    except OSError as error:
        raise unreadable(OutputsError, path, error) from error
    except (pa.ArrowException, UnicodeDecodeError, MemoryError) as error:  # MemoryError: a damaged length
        raise OutputsError(f"is not a Parquet file ({error})", path=path, remedy=_REMEDY) from error
    return Outputs(task, _checked(table, task, tuple(branches), path), metadata["split"], branches, (path,))


def check_branch_name(name: str, path: Path | None = None) -> None:
    """Raises OutputsError where a name cannot be that of a branch; it becomes part of column names."""
    if not _BRANCH_NAME.fullmatch(name):
        expected = "letters, digits and hyphens, a letter first"
        raise OutputsError("the name of a branch is not valid", path=path, found=name, expected=expected)


def _with_spread(branches: Iterable[str], columns: Iterable[str]) -> tuple[str, ...]:
    """The branches whose spread is among these columns."""
    there = set(columns)
    return tuple(branch for branch in branches if spread_column(branch) in there)


def _metadata(outputs: Outputs) -> dict[str, Any]:
    return {
        "task": outputs.task.name,
        "class_names": list(outputs.task.columns),
        "split": outputs.split,
        "branches": {name: source.to_json() for name, source in outputs.branches.items()},
        "version": VERSION,
    }


def _read_metadata(metadata: dict[bytes, bytes], path: Path) -> dict[str, Any]:
    if KEY not in metadata:
        raise OutputsError("has no `abaw_expr` metadata, so it is not a table of outputs", path=path, remedy=_REMEDY)
    try:
        value = json.loads(metadata[KEY])
    except (ValueError, RecursionError) as error:
        raise OutputsError(f"has `abaw_expr` metadata that is not JSON ({error})", path=path, remedy=_REMEDY) from error
    required = ("task", "class_names", "split", "branches")
    missing = [name for name in required if name not in value] if isinstance(value, dict) else list(required)
    if missing:
        raise OutputsError(f"lacks metadata: {', '.join(missing)}", path=path, remedy=_REMEDY)
    return value


def _recognised(metadata: dict[str, Any], path: Path) -> Task:
    """The task in a table's metadata."""
    name, names = metadata["task"], metadata["class_names"]
    if name == COMPOUND and isinstance(names, list) and names:
        return compound([str(one) for one in names])
    known = TASKS
    if not isinstance(name, str) or name not in known:
        expected = ", ".join([*known, COMPOUND])
        raise OutputsError("is of an unknown task", path=path, found=name, expected=f"one of {expected}")
    return known[name]


def _check_metadata(metadata: dict[str, Any], task: Task, path: Path) -> None:
    if metadata["task"] != task.name:
        raise OutputsError("is of another task", path=path, found=metadata["task"], expected=task.name)
    metric = metric_of(task)
    if metadata["class_names"] != list(task.columns):
        found, problem = metadata["class_names"], f"has other {metric.columns_are} or another order of them"
        raise OutputsError(problem, path=path, found=found, expected=list(task.columns))
    branches = metadata["branches"]
    if not isinstance(branches, dict) or not branches:
        raise OutputsError("has no branches", path=path, found=branches, expected="branches by name", remedy=_REMEDY)
    for name, source in branches.items():
        check_branch_name(name, path)
        prior = source.get("prior") if isinstance(source, dict) and isinstance(source.get("run"), str) else None
        if prior is not None and not _has_valid_options(source):
            expected = "checkpoint: best or last; seen and members: lists of names"
            raise OutputsError(f"the branch {name} has invalid metadata", path=path, found=source, expected=expected)
        if not metric.is_prior(prior):
            expected = f"run, and prior: {metric.prior_expected}"
            raise OutputsError(
                f"the branch {name} has no valid prior", path=path, found=source, expected=expected, remedy=_REMEDY
            )


def _has_valid_options(source: dict[str, Any]) -> bool:
    """Whether the optional keys of a branch's metadata have valid values."""
    lists = [source.get(key, []) for key in ("seen", "members")]
    listed = all(isinstance(one, list) and all(isinstance(name, str) for name in one) for one in lists)
    return listed and source.get("checkpoint") in (None, "best", "last")


def _source(value: dict[str, Any]) -> Source:
    seen, members = (tuple(value.get(key, ())) for key in ("seen", "members"))
    return Source(value["run"], tuple(value["prior"]), value.get("checkpoint"), seen, members)


def _check_columns(names: list[str], columns: pa.Schema, path: Path) -> None:
    missing = [name for name in columns.names if name not in names]
    if missing:
        raise OutputsError(f"lacks columns: {shorten(missing)}", path=path, remedy=_REMEDY)


def _cast(table: pd.DataFrame | pa.Table, schema: pa.Schema, path: Path) -> pa.Table:
    """The columns of the schema in its types, NaN as null.

    The dictionary of videos has only those that occur, in their order, so that equal tables give equal bytes.
    """
    columns = []
    for field in schema:
        try:
            column = table[field.name]
            if isinstance(column, pd.Series):
                column = pa.chunked_array([pa.array(column, from_pandas=True)])
            if pa.types.is_dictionary(field.type):
                columns.append(column.cast(pa.string()).combine_chunks().dictionary_encode())
            else:
                columns.append(column.cast(field.type))
        except (pa.ArrowException, TypeError, ValueError) as error:
            problem = f"column {field.name} cannot be converted to {field.type} ({error})"
            raise OutputsError(problem, path=path, remedy=_REMEDY) from error
    return pa.table(columns, schema=schema)


def _checked(table: pa.Table, task: Task, branches: tuple[str, ...], path: Path) -> pd.DataFrame:
    """The table as a DataFrame, its values checked. Raises OutputsError that names the first invalid row."""
    if not table.num_rows:
        raise OutputsError("has no rows", path=path, remedy=_REMEDY)
    for name in ("video", "frame", "time", "crop", *label_columns(task)):
        if table[name].null_count:
            raise OutputsError(f"column {name} has empty cells", path=path, found=table[name].null_count, expected=0)
    for video in table["video"].unique().to_pylist():
        check_name(video, OutputsError, path)
    rows = table.to_pandas()
    for problem, expected, wrong in (*_order_faults(rows), *_value_faults(rows, task, branches)):
        if wrong.any():
            row = rows.iloc[int(wrong.argmax())]
            where = f"video {row['video']}, frame {row['frame']}"
            raise OutputsError(f"{where}: {problem}", path=path, expected=expected, remedy=_REMEDY)
    return rows


TableFault = tuple[str, str, NDArray[np.bool_]]
"""A problem, what is expected instead, and the rows [T] that have the problem."""


def _order_faults(rows: pd.DataFrame) -> Iterator[TableFault]:
    """Faults in the order of rows: each row is compared with the row before it."""
    codes, names = pd.factorize(rows["video"])
    rank = np.argsort(np.argsort(np.asarray(names, dtype=object)))[codes]
    step, frames = np.diff(rank, prepend=rank[:1]), np.diff(rows["frame"], prepend=rows["frame"][:1])
    seconds = np.diff(rows["time"], prepend=rows["time"][:1])
    same = step == 0
    same[0] = False
    yield "the row occurs twice", "one row per frame", same & (frames == 0)
    yield "the row is out of order", "rows sorted by video, then frame", (step < 0) | (same & (frames < 0))
    yield "time decreases", "a time that never decreases in a video", same & (seconds < 0)


def _value_faults(rows: pd.DataFrame, task: Task, branches: tuple[str, ...]) -> Iterator[TableFault]:
    """Faults of single rows."""
    yield "the frame number is too low", "frames counted from 1", (rows["frame"] < 1).to_numpy()
    yield "time is not a number", "seconds", ~np.isfinite(rows["time"].to_numpy())
    for name, field in label_columns(task).items():
        label = rows[name].to_numpy()
        expected = f"{field.low}..{field.high}, or {field.ignore_value} where not annotated"
        yield f"the {name} is out of range", expected, ~in_range(label, field) & (label != field.ignore_value)
    metric = metric_of(task)
    for branch in branches:
        p = rows[branch_columns(branch, task)].to_numpy(np.float32)  # [T, C]
        empty = np.isnan(p)
        partly = empty.any(axis=1) & ~empty.all(axis=1)
        yield f"the {branch} row is partly empty", f"all {metric.noun} or none", partly
        yield from ((f"the {branch} row {fault}", expected, wrong) for fault, expected, wrong in metric.row_faults(p))
