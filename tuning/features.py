"""The inputs of a trained run's classification heads, cached, so that heads can be trained without the encoders.

Shapes: k frames, n validation frames, V views of a sample (audio has one), C columns of the task, F its fields.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.sampling import usable_frames
from abaw_expr.data.store.folds import split_for_training
from abaw_expr.data.store.store import Store
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import RunError
from abaw_expr.files import file_digest
from abaw_expr.models.branch import Branch
from abaw_expr.models.network import Network, fold_batch_norm
from abaw_expr.outputs.table import label_columns
from abaw_expr.settings import Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint, save_tensors
from abaw_expr.training.evaluation import branch_numbers, build_fabric
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import RunFolder


@dataclass(frozen=True)
class HeadSamples:
    """Head inputs of frames of one split, each with at least one modality."""

    features: dict[str, Tensor]
    """float32 [k, V, width] by branch: the pooled features after attention; 0 where the modality is missing."""
    present: dict[str, Tensor]
    """bool [k] by branch."""
    target: Tensor
    """int64 [k], the class, or float [k, F], NaN where not annotated."""

    def __len__(self) -> int:
        return len(self.target)


@dataclass(frozen=True)
class Features:
    """The head inputs of a run on the frames of a store, and the heads of the run."""

    key: dict[str, Any]
    """The inputs that they were computed from: run, its weights, store, interval between frames in seconds."""
    train: HeadSamples
    draw_probabilities: Tensor
    """float64 [k], proportional to the probability that training draws each training frame."""
    val: HeadSamples
    frames: dict[str, Any]
    """Of the validation frames: `frame`, `time`, `crop` and `video`, [n] each, an index into the names `videos`; and
    `label`, [n] or [n, F], as an outputs table has it."""
    heads: dict[str, dict[str, Tensor]]
    """The run's heads by branch: `weight` [C, width] and `bias` [C]."""
    prior: list[float]
    """[C], the mean label in the run's loss, such as the fraction of each class."""
    fractions: list[float]
    """[C], the mean label of the frames that heads are trained on, drawn by `draw_probabilities`."""

    def frame_table(self, task: Task) -> pd.DataFrame:
        """The validation frames as rows of an outputs table, without the columns of branches."""
        columns = {name: self.frames[name].numpy() for name in ("frame", "time", "crop")}
        video = pd.Categorical.from_codes(self.frames["video"].numpy(), self.frames["videos"])
        labels = self.frames["label"].numpy().reshape(len(self.val), -1).T
        return pd.DataFrame({"video": video, **columns, **dict(zip(label_columns(task), labels, strict=True))})


def cached_features(
    path: Path,
    run: RunFolder,
    store: Store,
    stride: float,
    accelerator: Literal["auto", "cpu", "cuda"],
    on_progress: OnProgress,
) -> Features:
    """The features of one frame every `stride` seconds (0: every frame), read from the file or computed and saved.

    They are computed with the run's last weights, as the best ones were chosen on validation. Raises RunError where the
    run is not complete, was trained on another store, has a network for each column, or a temporal model, whose heads
    are trained with it only.
    """
    settings = run.load_settings()
    if settings.over_time:
        remedy = "Train a run with other settings; `train --initial-weights` begins with these weights."
        raise RunError(
            "has a temporal model, so its heads cannot be trained by themselves", path=run.root, remedy=remedy
        )
    if several := [name for name, branch in settings.branches.items() if branch.networks == "each"]:
        problem, found = "has a network for each column, so its heads cannot be trained by themselves", several[0]
        raise RunError(problem, path=run.root, found=found, remedy="Train a run with networks: one.")
    if run.last.exists() and not run.complete:
        raise RunError("is not complete", path=run.root, remedy="Train it to its end first.")
    trained = load_checkpoint(run.last)
    if trained.signature != run.identity(settings, store.digest):
        remedy = "Name the store that it was trained on."
        raise RunError("was trained on another store, or its settings were changed", path=run.root, remedy=remedy)
    key = {"run": trained.signature, "weights": file_digest(run.last), "store": store.digest, "interval": stride}
    cached = _read(path)
    if cached is None or cached.key != key:
        settings = replace(settings, compute=replace(settings.compute, accelerator=accelerator))
        network = load_network(run.last, settings, trained)
        save_tensors(path, asdict(_collect(key, network, trained.prior, store, settings, on_progress)))
        cached = _read(path)
        assert cached is not None
    return cached


def _read(path: Path) -> Features | None:
    """The cached features, memory-mapped; None where the file has none."""
    try:
        values = torch.load(path, weights_only=True, mmap=True)
        return Features(**values | {name: HeadSamples(**values[name]) for name in ("train", "val")})
    except Exception:  # torch raises many types of error for other files; the features are then computed again
        return None


def _collect(
    key: dict[str, Any],
    network: Network,
    prior: Sequence[float],
    store: Store,
    settings: Settings,
    on_progress: OnProgress,
) -> Features:
    """Runs the network on both splits."""
    heads = {name: _weights(branch) for name, branch in network.own_branches().items()}
    task, store = settings.task_of, split_for_training(store, settings.data)
    fabric = build_fabric(settings)
    fold_batch_norm(fabric.to_device(network))
    train, val = (usable_frames(store, split, task, network.reads) for split in ("train", "val"))
    stride = key["interval"]
    train_indices, val_indices = (frames.frame_index.at_stride(frames.usable, stride) for frames in (train, val))
    before, total = len(train_indices), len(train_indices) + len(val_indices)
    run = partial(_head_inputs, fabric, network, settings)
    train_samples = run(train.frame_index, train_indices, lambda done, of: on_progress(done, total))
    val_samples = run(val.frame_index, val_indices, lambda done, of: on_progress(before + done, total))
    has_crop = np.concatenate([video.frames.has_crop for video in val.frame_index.videos])
    draws = train.probabilities(settings.data, train_indices, stride)
    return Features(
        key=key,
        train=train_samples,
        draw_probabilities=torch.from_numpy(draws),
        val=val_samples,
        frames={
            "videos": [video.name for video in val.frame_index.videos],
            "video": torch.from_numpy(val.frame_index.video[val_indices]),
            "frame": torch.from_numpy(val.frame_index.row[val_indices] + 1),
            "time": torch.from_numpy(val.frame_index.time[val_indices]),
            "crop": torch.from_numpy(has_crop[val_indices]),
            "label": torch.from_numpy(val.frame_index.label[val_indices]),
        },
        heads=heads,
        prior=list(prior),
        fractions=metric_of(task).mean_label(train.frame_index.label[train_indices], draws),
    )


def _head_inputs(
    fabric: Fabric,
    network: Network,
    settings: Settings,
    index: FrameIndex,
    indices: np.ndarray,
    on_progress: OnProgress,
) -> HeadSamples:
    """The inputs of the heads for the frames at these indices [k], recorded by hooks."""
    own = network.own_branches()
    recorded: dict[str, list[Tensor]] = {name: [] for name in own}

    def record(name: str, inputs: tuple[Tensor, ...]) -> None:
        recorded[name].append(inputs[0].float().cpu())

    hooks = [
        branch.head.register_forward_pre_hook(lambda head, inputs, name=name: record(name, inputs))
        for name, branch in own.items()
    ]
    p, _ = branch_numbers(fabric, network, index, indices, settings, on_progress=on_progress)
    for hook in hooks:
        hook.remove()
    present = {name: torch.from_numpy(~np.isnan(rows[:, 0])) for name, rows in p.items()}
    features = {}
    for name, branch in own.items():
        rows = torch.cat([*recorded[name], torch.empty(0, branch.linear.in_features)])
        if branch.of_frames is None:  # joined streams give features of every frame
            features[name] = rows[:, None].masked_fill(~present[name][:, None, None], 0.0)
            continue
        views = max(len(rows) // max(int(present[name].sum()), 1), 1)
        features[name] = torch.zeros(len(indices), views, rows.shape[1])
        features[name][present[name]] = rows.unflatten(0, (-1, views))
    return HeadSamples(features, present, torch.from_numpy(index.target(indices)))


def _weights(branch: Branch) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in branch.linear.named_parameters()}
