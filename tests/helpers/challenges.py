"""Made-up branch outputs and annotations of any challenge."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from abaw_expr.outputs.table import Outputs, Source, VideoOutputs, branch_columns, label_columns
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task, compound
from tests.helpers.branches import BRANCHES

COMPOUND = compound(("Fearfully_Surprised", "Happily_Surprised", "Sadly_Angry"))
EVERY = (EXPR, COMPOUND, VA, AU)


def make_video(
    task: Task, name: str, length: int, seed: int = 0, gaps: float = 0.2, branches: Sequence[str] = BRANCHES
) -> VideoOutputs:
    """A video whose branches know the truth a little; shares `gaps` of branches and of annotations are missing."""
    rng = np.random.default_rng([seed, *name.encode()])
    truth = make_truth(task, length, rng)
    p = {branch: make_rows(task, truth, rng) for branch in branches}
    for rows in p.values():
        rows[rng.random(length) < gaps] = np.nan
    marks = np.array([field.ignore_value for field in task.fields], truth.dtype)
    label = np.where(rng.random(truth.shape) < gaps, marks, truth)
    frame, time = np.arange(1, length + 1, dtype=np.int32), np.cumsum(rng.integers(1, 7, length)) / 64
    crop = ~np.isnan(p[branches[-1]][:, 0])
    return VideoOutputs(name, frame, time, crop, p, label[:, 0] if task.one_class else label)


def make_truth(task: Task, length: int, rng: np.random.Generator) -> np.ndarray:
    """The annotation of every frame, [length, fields]."""
    columns = [
        rng.integers(field.low, field.high + 1, length)
        if field.whole
        else np.round(np.sin(rng.uniform(0, 6) + np.arange(length) / 9), 3)
        for field in task.fields
    ]
    return np.stack(columns, axis=1).astype(np.int8 if task.fields[0].whole else np.float32)


def make_rows(task: Task, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What a branch says of it, [length, columns]."""
    if task.one_class:
        rows = rng.dirichlet(np.ones(task.n_columns), len(truth)) + np.eye(task.n_columns)[truth[:, 0]]
        return (rows / 2).astype(np.float32)
    low, high = task.fields[0].low, task.fields[0].high
    return (0.5 * truth + 0.5 * rng.uniform(low, high, truth.shape)).astype(np.float32)


def make_table(task: Task, videos: Sequence[VideoOutputs], split: str = "val") -> Outputs:
    """The table of such videos."""
    parts = []
    for video in videos:
        columns = {"frame": video.frame, "time": video.time, "crop": video.crop}
        for branch, rows in video.p.items():
            columns |= dict(zip(branch_columns(branch, task), rows.T, strict=True))
        labels = video.label.reshape(len(video.frame), -1).T
        columns |= dict(zip(label_columns(task), labels, strict=True))
        parts.append(pd.DataFrame({"video": video.name, **columns}))
    prior = metric_of(task).unknown_prior
    return Outputs(task, pd.concat(parts, ignore_index=True), split, dict.fromkeys(videos[0].p, Source("run", prior)))


def write_annotations(folder: Path, task: Task, labels: dict[str, np.ndarray]) -> Path:
    """The organisers' files: a line a frame, numbers as they are."""
    folder.mkdir(parents=True, exist_ok=True)
    for video, rows in labels.items():
        lines = [",".join(f"{number:g}" for number in row) for row in rows.reshape(len(rows), -1).tolist()]
        (folder / f"{video}.txt").write_text("\n".join([task.header, *lines]))
    return folder
