"""The tables of a recording in the store: its videos' frames, and their labels in a table a task.

Shapes: T frames of a video, F fields of a task.
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from abaw_expr.data.labels import Labels, label_type
from abaw_expr.errors import StoreError, unreadable
from abaw_expr.files import bytes_digest
from abaw_expr.tasks.task import Task

REMAKE = "Delete its folder and run `prepare` again: it makes what is missing."
"""The remedy of a damaged recording."""
_FRAME_COLUMNS = pa.schema([("time", pa.float64()), ("offset", pa.int64()), ("size", pa.int32())])
"""Columns of a table of frames that are read again."""


def label_file(video: str, task: str) -> str:
    """The name of the table of a video's labels, given the task's name."""
    return f"{video}.{task}.parquet"


def write_frame_table(path: Path, time: np.ndarray, offset: np.ndarray, size: np.ndarray) -> None:
    """Writes a video's frames, each column [T], with the frame numbers."""
    frame = np.arange(1, len(time) + 1, dtype=np.int32)
    with open(path, "wb") as file:  # pyarrow opens UTF-8 paths only
        table = pa.table({"frame": frame, "time": time, "offset": offset, "size": size})
        pq.write_table(table, file, compression="zstd")


def read_frame_table(path: Path, known: str | None = None) -> list[np.ndarray]:
    """Time float64, offset int64 and size int32 of a video's frames, each [T], T at least 1.

    Raises StoreError where the table is damaged, or the file's digest is not the `known` one.
    """
    return _read_table(path, known, _FRAME_COLUMNS)


def write_labels(path: Path, labels: Labels, task: Task) -> None:
    """Writes a video's labels [T] or [T, F], a row a frame and a column a field; the file has no frame numbers."""
    names = _label_columns(task).names
    table = pa.table(dict(zip(names, labels.reshape(len(labels), len(names)).T.copy(), strict=True)))
    with open(path, "wb") as file:
        # without what Parquet says of itself beyond need, which is most of so small a table
        pq.write_table(table, file, compression="zstd", write_statistics=False, store_schema=False)


def read_labels(path: Path, task: Task, known: str | None = None) -> Labels:
    """A video's labels as `write_labels` wrote them: [T] or [T, F]; raises StoreError as `read_frame_table` does."""
    columns = _read_table(path, known, _label_columns(task))
    return columns[0] if task.one_class else np.stack(columns, axis=1)


def read_known(path: Path, known: str | None, remedy: str = REMAKE) -> bytes:
    """A file's bytes. Raises StoreError where it cannot be read, or its digest is not the `known` one."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(StoreError, path, error, remedy) from error
    check_digest(path, known, bytes_digest(data), remedy)
    return data


def check_digest(path: Path, known: str | None, found: str, remedy: str = REMAKE) -> None:
    """Raises StoreError where a file's digest is known and another one was found."""
    if known not in (None, found):
        raise StoreError("was changed since `prepare` wrote it", path=path, remedy=remedy)


def _label_columns(task: Task) -> pa.Schema:
    names: Sequence[str] = ("label",) if task.one_class else [field.name for field in task.fields]
    return pa.schema([(name, pa.from_numpy_dtype(label_type(task))) for name in names])


def _read_table(path: Path, known: str | None, columns: pa.Schema) -> list[np.ndarray]:
    data = read_known(path, known)
    try:
        table = pq.read_table(pa.BufferReader(data)).select(columns.names)
    except Exception as error:  # Arrow raises many kinds of errors for bytes that are no table
        raise StoreError(f"is no table of {', '.join(columns.names)}", path=path, remedy=REMAKE) from error
    if table.schema.remove_metadata() != columns or any(column.null_count for column in table.columns):
        raise StoreError("has other columns", path=path, found=table.schema.names, remedy=REMAKE)
    if not len(table):
        raise StoreError("holds no frame", path=path, remedy=REMAKE)
    return [column.to_numpy() for column in table.columns]
