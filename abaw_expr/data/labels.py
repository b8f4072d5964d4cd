"""Arrays of labels, of any task.

Shapes: T frames or lines, F fields. Labels are int8 [T] of classes, int8 [T, F] of action units, and float32 [T, F] of
valence and arousal.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.tasks.statistics import ignored_row
from abaw_expr.tasks.task import Task

Labels = NDArray[Any]


def label_type(task: Task) -> type[np.generic]:
    """The type of a task's labels."""
    return np.int8 if all(field.whole for field in task.fields) else np.float32


def no_labels(count: int, task: Task) -> Labels:
    """The labels of frames that are not annotated, [count] or [count, F]."""
    rows = np.tile(ignored_row(task, label_type(task)), (count, 1))
    return rows[:, 0].copy() if task.one_class else rows
