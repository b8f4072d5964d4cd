"""Training: a visible loop.

Everything random in an epoch (order, phase of the frame grid, augmentation, dropout) is drawn from the seed and the
epoch's number, so a run that is resumed after any epoch ends as the undisturbed run does.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from abaw_expr.data.augment import Augment
from abaw_expr.data.store import Store
from abaw_expr.data.windows import Draw, FrameIndex, Windows, load, split_batches
from abaw_expr.errors import RunError, StoreError
from abaw_expr.fusion import fuse
from abaw_expr.losses import CoarseFineLoss
from abaw_expr.models.gcsa import GCSA
from abaw_expr.models.network import Branch, Network, build_network
from abaw_expr.scoring import confusion, macro_f1
from abaw_expr.settings import DataSettings, OptimiserSettings, Settings, signature
from abaw_expr.tasks import CROP_SIDE, Task
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abaw_expr.training.evaluation import branch_probabilities, build_fabric, native_precision
from abaw_expr.training.run import Epoch, RunFolder, best_epoch
from abaw_expr.version import VERSION

WARM_UP = 0.3
"""Share of a one-cycle run in which the learning rate rises (D)."""
_START, _END = 1 / 25, 1e-4
"""Shares of the peak learning rate at the start and the end of one cycle (D)."""


@dataclass(frozen=True)
class Frames:
    """The frames of a split that a run may use: annotated, and with a modality that is trained."""

    index: FrameIndex
    usable: np.ndarray
    """bool [frames]."""


def train(
    store: Store,
    run: RunFolder,
    settings: Settings,
    task: Task,
    resume: bool,
    on_epoch: Callable[[Epoch], None],
    progress: Callable[[int, int], None],
) -> list[Epoch]:
    """Trains into a run folder and returns its epochs; a complete run is returned as it is.

    `progress(steps done, steps in all)` is told after every step. Raises RunError where the folder holds another run or
    the loss stops being a number, StoreError where the store has nothing to train or validate on.
    """
    settings = replace(settings, precision=native_precision(settings))
    fabric = build_fabric(settings)
    run.start(settings, store.digest, resume)
    torch.manual_seed(settings.seed)
    network = build_network(settings.model, task.n_classes)
    module, optimiser = fabric.setup(network, build_optimiser(network, settings.optimiser))
    criterion = CoarseFineLoss(settings.loss).to(fabric.device)
    training, validation = (_frames(store, name, settings) for name in ("train", "val"))
    weights = class_weights(training.index.label[training.usable], settings.data.balance, task)
    prior = class_shares(training, weights, task)
    history: list[Epoch] = []
    identity = signature(settings, store.digest)
    if run.last.exists():
        history = _restore(run, identity, network, optimiser)
    for number in range(len(history) + 1, settings.optimiser.epochs + 1):
        began = time.perf_counter()
        torch.manual_seed(_seed(settings.seed, number))
        draws = draw_epoch(training, settings, weights, number)
        loss, waiting = _train_epoch(fabric, module, optimiser, criterion, training, draws, settings, number, progress)
        figures = _validate(module, criterion, validation, settings, fabric.device, task)
        _finite(figures[0], "validation", number)  # the last step may be the one that broke the weights
        rate = optimiser.param_groups[0]["lr"]
        seconds = time.perf_counter() - began
        history.append(Epoch(number, rate, loss, *figures, waiting / seconds, seconds))
        _save(run, history, identity, prior, network, optimiser)
        on_epoch(history[-1])
    if not run.complete:
        run.finish(_summary(history, identity, store, task))
    return history


def _train_epoch(
    fabric: Fabric,
    network: nn.Module,
    optimiser: Optimizer,
    criterion: CoarseFineLoss,
    frames: Frames,
    draws: Sequence[Draw],
    settings: Settings,
    epoch: int,
    progress: Callable[[int, int], None],
) -> tuple[float, float]:
    """One pass over the drawn frames: the mean loss, and the seconds spent waiting for data."""
    network.train()
    windows = Windows(frames.index, settings.data, Augment(settings.augment, CROP_SIDE))
    batches = split_batches(draws, settings.optimiser.batch_size)
    total, waiting = torch.zeros((), device=fabric.device), 0.0
    asked = time.perf_counter()
    for step, raw in enumerate(load(windows, batches, settings.data.pictures, settings.compute.workers)):
        waiting += time.perf_counter() - asked
        share = (epoch - 1 + step / len(batches)) / settings.optimiser.epochs
        set_learning_rates(optimiser, settings.optimiser, share)
        batch = raw.to(fabric.device)
        loss = criterion(network(batch.inputs, batch.present), batch.present, batch.label)
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss)
        optimiser.step()
        total += loss.detach() * len(batch.label)
        progress((epoch - 1) * len(batches) + step + 1, settings.optimiser.epochs * len(batches))
        asked = time.perf_counter()
    return _finite(float(total) / len(draws), "training", epoch), waiting


def _finite(loss: float, kind: str, epoch: int) -> float:
    if not math.isfinite(loss):
        remedy = "Lower the learning rate, or use 32-true."
        raise RunError(f"the {kind} loss of epoch {epoch} is {loss}", remedy=remedy)
    return loss


def _validate(
    network: nn.Module, criterion: CoarseFineLoss, frames: Frames, settings: Settings, device: torch.device, task: Task
) -> tuple[float, float | None, float | None, float]:
    """Loss, and macro F1 of audio, visual and fused, on the validation frames."""
    places = frames.index.at_intervals(frames.usable, settings.data.val_interval)
    p, loss = branch_probabilities(network, frames.index, places, settings, device, criterion)
    truth = frames.index.label[places]
    missing = np.full((len(places), task.n_classes), np.nan, np.float32)
    audio, visual = p.get("audio", missing), p.get("visual", missing)
    fused = fuse(audio, visual, settings.loss.m, settings.loss.n)
    return (
        loss,
        _f1(audio, truth, task) if "audio" in p else None,
        _f1(visual, truth, task) if "visual" in p else None,
        _f1(fused, truth, task),
    )


def _f1(p: np.ndarray, truth: np.ndarray, task: Task) -> float:
    """Macro F1 on the frames that have the modality."""
    has = ~np.isnan(p[:, 0])
    return float(macro_f1(confusion(truth[has], p[has].argmax(axis=1), task.n_classes)))


def build_optimiser(network: Network, settings: OptimiserSettings) -> Optimizer:
    """The optimiser over four groups: attention and heads, or the rest; weight matrices, or biases and BN."""
    slow = {id(p) for module in network.modules() if isinstance(module, GCSA) for p in module.parameters()}
    slow |= {id(p) for module in network.modules() if isinstance(module, Branch) for p in module.head.parameters()}
    groups = [
        {"params": params, "peak": peak, "lr": peak, "weight_decay": decay}
        for is_slow, peak in ((False, settings.branch_learning_rate), (True, settings.learning_rate))
        for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0))
        if (params := [p for p in network.parameters() if (id(p) in slow, p.ndim > 1) == (is_slow, is_matrix)])
    ]
    if settings.name == "sgd":
        return SGD(groups, momentum=settings.momentum)
    return AdamW(groups)


def set_learning_rates(optimiser: Optimizer, settings: OptimiserSettings, share: float) -> None:
    """Sets every group's learning rate for a point of the run, `share` in [0, 1)."""
    factor = 1.0 if settings.schedule == "constant" else one_cycle(share)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def one_cycle(share: float) -> float:
    """One-cycle schedule as a share of the peak: half a cosine up over the warm-up, half a cosine down after it.

    A function of the run's share rather than of a step count, since epochs need not have equally many steps.
    """
    if share < WARM_UP:
        return _START + (1 - _START) * (1 - math.cos(math.pi * share / WARM_UP)) / 2
    return _END + (1 - _END) * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


def class_weights(labels: np.ndarray, balance: float, task: Task) -> np.ndarray:
    """How likely a frame of each class is drawn, [c], to be normalised: count to the power of minus `balance`."""
    counts = np.bincount(labels, minlength=task.n_classes)
    return np.where(counts > 0, np.maximum(counts, 1.0) ** -balance, 0.0)


def class_shares(frames: Frames, weights: np.ndarray, task: Task) -> list[float]:
    """Share of each class among the frames that training draws."""
    drawn = np.bincount(frames.index.label[frames.usable], minlength=task.n_classes) * weights
    return (drawn / drawn.sum()).tolist()


def draw_epoch(frames: Frames, settings: Settings, weights: np.ndarray, epoch: int) -> list[Draw]:
    """An epoch's frames in their order, each with a seed for its augmentation.

    One frame an interval of each video, from a grid that moves with the epoch; with class balance, drawn from those
    with replacement.
    """
    data: DataSettings = settings.data
    rng = np.random.default_rng([settings.seed, epoch])
    places = frames.index.at_intervals(frames.usable, data.interval, rng.random())
    if data.balance:
        chances = weights[frames.index.label[places]]
        order = rng.choice(places, len(places), p=chances / chances.sum())
    else:
        order = rng.permutation(places)
    seeds = rng.integers(2**62, size=len(order))
    return [(int(place), int(seed)) for place, seed in zip(order, seeds, strict=True)]


def _frames(store: Store, split: str, settings: Settings) -> Frames:
    index = FrameIndex(store.split(split))
    usable = (index.label >= 0) & index.present(settings.model.branches)
    if not usable.any():
        what = " or ".join(settings.model.branches)
        raise StoreError(f"has no annotated {split} frame with {what} input", path=store.root)
    return Frames(index, usable)


def _restore(run: RunFolder, identity: str, network: Network, optimiser: Optimizer) -> list[Epoch]:
    """Puts the last checkpoint back and returns the epochs done."""
    checkpoint = load_checkpoint(run.last)
    if checkpoint.signature != identity:
        raise RunError("is of another run or another store", path=run.last, remedy="Name another run folder.")
    network.load_state_dict(checkpoint.network)
    optimiser.load_state_dict(checkpoint.optimiser)
    return [Epoch(**row) for row in checkpoint.history]


def _save(
    run: RunFolder, history: list[Epoch], identity: str, prior: list[float], network: Network, optimiser: Optimizer
) -> None:
    """The best checkpoint before the last, so that a kill between them costs an epoch and loses nothing."""
    rows = [asdict(epoch) for epoch in history]
    weights = network.state_dict()
    if best_epoch(history) is history[-1]:
        save_checkpoint(run.best, Checkpoint(len(history), identity, prior, weights, {}, rows))
    run.write_metrics(history)
    save_checkpoint(run.last, Checkpoint(len(history), identity, prior, weights, optimiser.state_dict(), rows))


def _summary(history: list[Epoch], identity: str, store: Store, task: Task) -> dict[str, object]:
    return {
        "version": VERSION,
        "task": task.name,
        "signature": identity,
        "store": store.digest,
        "epochs": len(history),
        "best": asdict(best_epoch(history)),
        "seconds": sum(epoch.seconds for epoch in history),
    }


def _seed(seed: int, epoch: int) -> int:
    return int(np.random.SeedSequence([seed, epoch]).generate_state(1, np.uint64)[0] >> 1)
