"""Predicts the outputs of a checkpoint: the numbers of every branch for every frame of some videos of a store.

Shapes: k frames of a video, j of them predicted, n predicted frames of all videos, C numbers of a row.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.stretches import time_grid
from abaw_expr.data.release.frame_times import seconds_of
from abaw_expr.data.store.folds import split_for_training
from abaw_expr.data.store.store import Store, StoredVideo
from abaw_expr.errors import RunError, SettingsError, StoreError, shorten
from abaw_expr.models.network import Network, build_network, fold_batch_norm
from abaw_expr.outputs.table import Outputs, Source, branch_columns, label_columns
from abaw_expr.settings import Settings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint
from abaw_expr.training.embeddings import check_embeddings
from abaw_expr.training.evaluation import branch_numbers, build_fabric
from abaw_expr.training.initial_weights import trained_weights
from abaw_expr.training.run import RunFolder

STRIDE = 0.2
"""Seconds between the frames that networks see, where nothing else is said."""


@dataclass(frozen=True)
class Wanted:
    """The requested frames of one video."""

    video: StoredVideo
    frames: np.ndarray
    """int [k], counted from 1, ascending; may exceed the number of frames in the store."""

    @property
    def rows(self) -> np.ndarray:
        """int [k], the frames' rows in the store; the last one of frames beyond its end."""
        return np.minimum(self.frames, len(self.video.frames)) - 1

    @property
    def beyond(self) -> np.ndarray:
        """bool [k], frames that the store does not have."""
        return self.frames > len(self.video.frames)

    @property
    def columns(self) -> dict[str, object]:
        """The columns of every table of these frames: video, frame, and time in seconds."""
        time = seconds_of(self.frames, self.video.frames.time)
        return {"video": self.video.name, "frame": self.frames.astype(np.int32), "time": time}


def wanted_of_split(store: Store, split: str) -> list[Wanted]:
    """Every frame of a split's videos."""
    return [Wanted(video, np.arange(1, len(video.frames) + 1)) for video in store.split(split)]


def wanted_of_fold(store: Store, settings: Settings) -> list[Wanted]:
    """Every frame of the fold that a run of these settings held out. Raises SettingsError where it has no folds."""
    if not settings.data.folds:
        raise SettingsError("is no run of a fold, so it held none out", found="data.folds 0")
    return wanted_of_split(split_for_training(store, settings.data), "val")


def wanted_by_name(store: Store, split: str, rows: Mapping[str, np.ndarray]) -> list[Wanted]:
    """The frames `rows`, [k] by video name.

    Raises StoreError where the store lacks a video or has it in another split.
    """
    known = {video.name: video for video in store.videos}
    missing = [name for name in rows if name not in known]
    if missing:
        remedy = "Prepare a release that has these videos, or use the template of this release."
        raise StoreError(f"the store lacks {len(missing)} videos: {shorten(missing)}", path=store.root, remedy=remedy)
    others = [name for name in rows if known[name].split != split]
    if others:
        found = f"{len(others)} videos of another split: {shorten(others)}"
        raise StoreError(
            f"the template is not of the {split} split", found=found, remedy="Name the template's --split."
        )
    return [Wanted(known[name], np.unique(frames)) for name, frames in rows.items()]


def predict(
    run: RunFolder,
    store: Store,
    split: str,
    wanted: Sequence[Wanted] | None = None,
    stride: float | None = None,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    checkpoint: Literal["best", "last"] = "best",
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Outputs:
    """The outputs of a run's checkpoint on the wanted frames; without `wanted`, on every frame of the split.

    The networks run on one frame every `stride` seconds (0: every frame; None: 0.2, and of a temporal model the stride
    that it was trained with, the only one that it can have); outputs between these frames are interpolated.
    `on_progress(frames done, total frames)` is called after every batch. Raises RunError where there is no checkpoint,
    or it was trained with other settings than those of the run, and SettingsError for another stride.
    """
    settings = run.load_settings()
    path = getattr(run, checkpoint)
    trained = load_checkpoint(path)
    run.check(settings, trained, path)
    check_embeddings(settings, store, run.weights_digests())
    settings, task = replace(settings, compute=replace(settings.compute, accelerator=accelerator)), settings.task_of
    stride = stride_of(settings, stride)
    fabric = build_fabric(settings)
    network = load_network(path, settings, trained)
    fabric.to_device(fold_batch_norm(network))
    wanted = sorted(wanted_of_split(store, split) if wanted is None else wanted, key=lambda item: item.video.name)
    index, read = FrameIndex([item.video for item in wanted], task), network.modalities()
    indices = anchors(index, read, stride, settings.over_time)
    p: Mapping[str, np.ndarray] = dict.fromkeys(read, np.empty((0, task.n_columns), np.float32))
    if len(indices):  # empty where no video has a modality of the run
        p, _ = branch_numbers(fabric, network, index, indices, settings, on_progress=on_progress)
    has = {name: index.present(own) for name, own in read.items()}
    tables = [
        _table(item, has, index.video == i, _of_video(index, indices, p, i), task) for i, item in enumerate(wanted)
    ]
    table = pd.concat(tables, ignore_index=True)
    seen = () if split == "train" else _seen(trained.videos, [item.video.name for item in wanted])
    source = Source(trained.signature, tuple(trained.prior), checkpoint, seen)
    return Outputs(task, table, split, dict.fromkeys(read, source))


def _seen(trained: Sequence[str], videos: Sequence[str]) -> tuple[str, ...]:
    """The recordings of these videos that the run was trained on, even with another person."""
    return tuple(sorted({recording_of(name) for name in trained} & {recording_of(name) for name in videos}))


def stride_of(settings: Settings, asked: float | None) -> float:
    """The seconds between the frames that networks see. Raises SettingsError where a temporal model has another."""
    if not settings.over_time:
        return STRIDE if asked is None else asked
    trained = settings.data.stride
    if asked not in (None, trained):
        raise SettingsError(
            "a temporal model has the stride that it was trained with",
            found=asked,
            expected=trained,
            remedy="Leave out --stride.",
        )
    return trained


def load_network(path: Path, settings: Settings, checkpoint: Checkpoint) -> Network:
    """The network with the weights of a checkpoint, or their EMA if it has one.

    Raises RunError, which names `path`, where the settings do not fit the checkpoint.
    """
    network = build_network(settings)
    try:
        network.load_state_dict(trained_weights(checkpoint))
    except RuntimeError as error:
        remedy = "Put back the settings.yaml that it was trained with, or train again."
        raise RunError("does not fit the settings of its run", path=path, remedy=remedy) from error
    return network


def anchors(index: FrameIndex, read: Mapping[str, Sequence[str]], stride: float, temporal: bool = False) -> np.ndarray:
    """Indices [n] of the frames to predict: for each branch one with its modalities every `stride` seconds.

    `read` are the modalities of each branch. Of a temporal model they are the frames of its clock that have any.
    """
    if temporal:
        grid = time_grid(index, stride)
        return grid[np.any([index.present(own)[grid] for own in read.values()], axis=0)]
    chosen = [index.at_stride(index.present(own), stride) for own in read.values()]
    return np.unique(np.concatenate(chosen))


def interpolate(time: np.ndarray, known: np.ndarray, p: np.ndarray) -> np.ndarray:
    """Rows [k, C] at times [k], linear between the rows `p` [j, C] at times `known` [j], constant at the ends.

    A row of `p` that is all NaN is left out; without any other row, the result is NaN.
    """
    has = ~np.isnan(p[:, 0])
    if not has.any():
        return np.full((len(time), p.shape[1]), np.nan, np.float32)
    columns = [np.interp(time, known[has], column) for column in p[has].T]
    return np.stack(columns, axis=1).astype(np.float32)


def _of_video(
    index: FrameIndex, indices: np.ndarray, p: Mapping[str, np.ndarray], video: int
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Times [j] and rows [j, C] of the predicted frames of one video, by branch."""
    own = index.video[indices] == video
    return {name: (index.time[indices[own]], rows[own]) for name, rows in p.items()}


def _table(
    item: Wanted,
    has: Mapping[str, np.ndarray],
    own: np.ndarray,
    known: Mapping[str, tuple[np.ndarray, np.ndarray]],
    task: Task,
) -> pd.DataFrame:
    frames, stored, beyond = item.video.frames, item.rows, item.beyond
    time = seconds_of(item.frames, frames.time)
    columns = item.columns | {"crop": frames.has_crop[stored] & ~beyond}
    for name in known:
        rows = np.full((len(time), task.n_columns), np.nan, np.float32)
        present = has[name][own][stored] & ~beyond
        rows[present] = interpolate(time[present], *known[name])
        columns |= dict(zip(branch_columns(name, task), rows.T, strict=True))
    label = frames.label[stored].reshape(len(time), -1)
    for number, (name, field) in enumerate(label_columns(task).items()):
        columns[name] = np.where(beyond, field.ignore_value, label[:, number]).astype(label.dtype)
    return pd.DataFrame(columns)
