"""What the classification heads of a trained run see, cached, so that they can be trained again without the rest.

Shapes: k frames, V pictures a sample (sound has one), K classes.
"""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from abaw_expr.data.batches.frames import FrameIndex
from abaw_expr.data.batches.sampling import usable_frames
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError
from abaw_expr.files import file_digest
from abaw_expr.models.network import Branch, Network, fold_batch_norm
from abaw_expr.settings import Settings
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint, save_tensors
from abaw_expr.training.evaluation import branch_probabilities, build_fabric
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import RunFolder

Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Samples:
    """Frames of one split, each with at least one modality."""

    features: dict[str, Tensor]
    """float32 [k, V, width] by branch: the pooled features after attention; 0 where the modality is missing."""
    present: dict[str, Tensor]
    """bool [k] by branch."""
    label: Tensor
    """int64 [k], all annotated."""

    def __len__(self) -> int:
        return len(self.label)


@dataclass(frozen=True)
class Features:
    """The frames of a store as the heads of a run see them, and those heads."""

    key: dict[str, Any]
    """What they were made of: run, its weights, store, interval."""
    train: Samples
    chances: Tensor
    """float64 [k] of the training frames: how likely training draws each."""
    val: Samples
    frames: dict[str, Any]
    """Of the validation frames `frame`, `time`, `crop`, and `video`, a number into the names under `videos`."""
    heads: dict[str, dict[str, Tensor]]
    """By branch `weight` [K, width] and `bias` [K], as the run trained them."""
    prior: list[float]
    """Share of each class among the samples that the run weighed."""
    shares: list[float]
    """Share of each class among the frames that heads are trained on, as `chances` draw them."""

    def frame_table(self) -> pd.DataFrame:
        """The validation frames as a table of outputs has them, without the probabilities."""
        columns = {name: self.frames[name].numpy() for name in ("frame", "time", "crop")}
        video = pd.Categorical.from_codes(self.frames["video"].numpy(), self.frames["videos"])
        label = self.val.label.numpy().astype(np.int8)
        return pd.DataFrame({"video": video, **columns, "label": label})


def cached_features(
    path: Path,
    run: RunFolder,
    store: Store,
    task: Task,
    interval: float,
    accelerator: Literal["auto", "cpu", "cuda"],
    progress: Progress,
) -> Features:
    """The features of one frame an interval (seconds; 0: every frame), from the file if it holds these, else made anew.

    They come from the run's last weights: the best were chosen on validation. Raises RunError where the run is not
    complete or was trained on another store.
    """
    settings = run.load_settings()
    if run.last.exists() and not run.complete:
        raise RunError("is not complete", path=run.root, remedy="Train it to its end first.")
    trained = load_checkpoint(run.last)
    if trained.signature != run.identity(settings, store.digest):
        remedy = "Name the store that it was trained on."
        raise RunError("was trained on another store, or its settings were changed", path=run.root, remedy=remedy)
    key = {"run": trained.signature, "weights": file_digest(run.last), "store": store.digest, "interval": interval}
    cached = _read(path)
    if cached is None or cached.key != key:
        settings = replace(settings, compute=replace(settings.compute, accelerator=accelerator))
        network = load_network(run.last, settings, trained, task)
        save_tensors(path, asdict(_collect(key, network, trained.prior, store, task, settings, progress)))
        cached = _read(path)
        assert cached is not None
    return cached


def _read(path: Path) -> Features | None:
    """The cached features, mapped from disk; None where the file holds none."""
    try:
        values = torch.load(path, weights_only=True, mmap=True)
        return Features(**values | {name: Samples(**values[name]) for name in ("train", "val")})
    except Exception:  # of bytes that are no such file, torch raises whatever it trips over; they are made anew
        return None


def _collect(
    key: dict[str, Any],
    network: Network,
    prior: Sequence[float],
    store: Store,
    task: Task,
    settings: Settings,
    progress: Progress,
) -> Features:
    """Runs the network on both splits."""
    heads = {name: _weights(branch) for name, branch in branches(network).items()}
    fabric = build_fabric(settings)
    fold_batch_norm(fabric.to_device(network))
    train, val = (usable_frames(store, split, settings) for split in ("train", "val"))
    t_places, v_places = (frames.index.at_intervals(frames.usable, key["interval"]) for frames in (train, val))
    before, total = len(t_places), len(t_places) + len(v_places)
    seen = _see(fabric, network, train.index, t_places, settings, lambda done, of: progress(done, total))
    held_out = _see(fabric, network, val.index, v_places, settings, lambda done, of: progress(before + done, total))
    has_crop = np.concatenate([video.frames.has_crop for video in val.index.videos])
    chances = train.chances(settings.data, t_places, key["interval"])
    return Features(
        key=key,
        train=seen,
        chances=torch.from_numpy(chances),
        val=held_out,
        frames={
            "videos": [video.name for video in val.index.videos],
            "video": torch.from_numpy(val.index.video[v_places]),
            "frame": torch.from_numpy(val.index.row[v_places] + 1),
            "time": torch.from_numpy(val.index.time[v_places]),
            "crop": torch.from_numpy(has_crop[v_places]),
        },
        heads=heads,
        prior=list(prior),
        shares=np.bincount(train.index.label[t_places], chances, minlength=task.n_columns).tolist(),
    )


def _see(
    fabric: Fabric, network: Network, index: FrameIndex, places: np.ndarray, settings: Settings, progress: Progress
) -> Samples:
    """What the heads are given for the frames at these places, caught on its way to them."""
    caught: dict[str, list[Tensor]] = {name: [] for name in settings.model.branches}

    def catch(name: str, inputs: tuple[Tensor, ...]) -> None:
        caught[name].append(inputs[0].float().cpu())

    hooks = [
        branch.head.register_forward_pre_hook(lambda head, inputs, name=name: catch(name, inputs))
        for name, branch in branches(network).items()
    ]
    p, _ = branch_probabilities(fabric, network, index, places, settings, progress=progress)
    for hook in hooks:
        hook.remove()
    present = {name: torch.from_numpy(~np.isnan(rows[:, 0])) for name, rows in p.items()}
    features = {}
    for name, branch in branches(network).items():
        rows = torch.cat([*caught[name], torch.empty(0, linear_of(branch).in_features)])
        views = max(len(rows) // max(int(present[name].sum()), 1), 1)
        features[name] = torch.zeros(len(places), views, rows.shape[1])
        features[name][present[name]] = rows.unflatten(0, (-1, views))
    return Samples(features, present, torch.from_numpy(index.label[places]).long())


def branches(network: Network) -> dict[str, Branch]:
    """The branches of a network, by name."""
    return {name: branch for name, branch in network.branches.items() if isinstance(branch, Branch)}


def linear_of(branch: Branch) -> nn.Linear:
    """The layer that is a branch's head, behind its dropout."""
    layer = branch.head[-1]
    assert isinstance(layer, nn.Linear)
    return layer


def _weights(branch: Branch) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().clone() for name, tensor in linear_of(branch).named_parameters()}
