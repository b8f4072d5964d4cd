"""Annotations of valence and arousal and of action units, beside those of a release that has expressions alone."""

import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from abaw_expr.data.labels import Labels, label_type, no_labels
from abaw_expr.data.synthetic.corpus import TEST_LISTS, label_folder
from abaw_expr.tasks.task import TASKS, Task
from tests.helpers.tiny import annotate


def leave_challenges(root: Path, *tasks: Task) -> None:
    """Removes the annotations and test lists of all challenges but these from a release, which is a copy."""
    for task in TASKS.values():
        if task not in tasks:
            for folder in (root / "6th_ABAW_Annotations" / name for name in task.annotation_folders):
                shutil.rmtree(folder, ignore_errors=True)
            (root / TEST_LISTS[task.name]).unlink(missing_ok=True)


def random_labels(task: Task, count: int, rng: np.random.Generator, ignored: float = 0.2) -> Labels:
    """Labels of frames as a release may have them; that fraction of the numbers, each by itself, is not annotated."""
    low, high = np.array([(field.low, field.high) for field in task.fields]).T
    shape = count, len(task.fields)
    drawn = rng.integers(low, high + 1, shape) if task.fields[0].whole else rng.uniform(low, high, shape).round(2)
    values = drawn.astype(label_type(task))
    values = np.where(rng.random(shape) < ignored, no_labels(1, task).reshape(1, -1), values)
    return values[:, 0] if task.one_class else values


def write_annotation(root: Path, task: Task, split: str, name: str, labels: Labels) -> Path:
    """Writes a video's annotation file of any challenge, [L] or [L, F]."""
    # str() of a float32 gives the shortest text that is read as this number again
    lines = [",".join(map(str, np.atleast_1d(row))) for row in labels]
    return annotate(root, name, lines, label_folder(task, split), task)


def write_test_list(root: Path, task: Task, *names: str) -> None:
    """Writes a challenge's list of test videos."""
    path = root / TEST_LISTS[task.name]
    path.parent.mkdir(exist_ok=True)
    path.write_text("\n".join(names) + "\n")


def add_challenge(root: Path, task: Task, splits: Mapping[str, str], lines: int, seed: int = 0) -> dict[str, Labels]:
    """Annotates videos of a release for another challenge, with `lines` lines each; returns the labels by video.

    `splits` is the split of each video; there must be one to train and one to validate.
    """
    rng, written = np.random.default_rng(seed), dict[str, Labels]()
    for name, split in splits.items():
        if split != "test":
            written[name] = random_labels(task, lines, rng)
            write_annotation(root, task, split, name, written[name])
    if listed := [name for name, split in splits.items() if split == "test"]:
        write_test_list(root, task, *listed)
    return written
