"""Videos of a store that are written without a release."""

from pathlib import Path

import numpy as np

from abaw_expr.data.store.store import StoredVideo
from abaw_expr.data.store.tables import label_file, write_frame_table, write_labels
from abaw_expr.files import file_digest
from abaw_expr.tasks.task import EXPR, Task


def write_tables(
    folder: Path,
    name: str,
    time: np.ndarray,
    label: np.ndarray,
    offset: np.ndarray,
    size: np.ndarray,
    audio: tuple[np.ndarray, np.ndarray] | None = None,
    task: Task = EXPR,
) -> StoredVideo:
    """Writes a training video's frames and labels; `audio` is the mean and deviation of its audio, if it has any."""
    write_frame_table(folder / f"{name}.parquet", time, offset, size)
    path = folder / label_file(name, task.name)
    write_labels(path, label, task)
    mean, std = audio or (None, None)
    return StoredVideo(name, "train", folder, mean, std, {path.name: file_digest(path)}, task)
