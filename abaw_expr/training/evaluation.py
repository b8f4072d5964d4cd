"""The precision of a network, and its numbers on frames of an index.

Shapes: k frames, n frames of a grid, s stretches of t frames, C columns of the task.
"""

import logging
from collections.abc import Callable
from itertools import chain
from typing import Any, Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from numpy.typing import NDArray

from abaw_expr.data.batches.audio_chunks import AudioWindow, Cut, cut_for_prediction
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.loading import load, split_segments
from abaw_expr.data.batches.sampling import UsableFrames
from abaw_expr.data.batches.stretches import cut_stretches, time_grid
from abaw_expr.data.batches.windows import Batch, Windows, modalities
from abaw_expr.data.store.store import Store
from abaw_expr.errors import SettingsError, StoreError
from abaw_expr.models.encoders.lstm import cpu_has_bfloat16
from abaw_expr.models.links import Votes
from abaw_expr.models.network import Network
from abaw_expr.models.objectives import Objective
from abaw_expr.settings import DataSettings, Settings
from abaw_expr.training.parallel import gather, strategy_of

_STRETCHES = 4
"""Stretches in a batch of prediction."""


def native_precision(settings: Settings) -> Literal["32-true", "bf16-mixed", "64-true"]:
    """The precision of the settings; for `auto`, bf16-mixed if the device supports it in hardware."""
    if settings.precision != "auto":
        return settings.precision
    if settings.compute.accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = cpu_has_bfloat16()
    return "bf16-mixed" if native else "32-true"


def check_accelerator(settings: Settings) -> None:
    """Raises SettingsError where the settings ask for a GPU and there is none."""
    if settings.compute.accelerator == "cuda" and not torch.cuda.is_available():
        remedy = "Use auto or cpu, or install a driver that this torch can use."
        raise SettingsError("the accelerator cuda cannot be used: no GPU is found", remedy=remedy)


def build_fabric(settings: Settings) -> Fabric:
    """The devices and precision of the settings. Raises SettingsError where they are not available."""
    check_accelerator(settings)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would print the precision
    devices = strategy_of(settings.compute)
    fabric = Fabric(accelerator=settings.compute.accelerator, precision=native_precision(settings), **devices)
    fabric.launch()
    return fabric


def reader(
    network: Network,
    index: FrameIndex,
    data: DataSettings,
    cut: Callable[[DataSettings, AudioWindow], Cut],
    augment: Augment | None = None,
) -> Windows:
    """The data set of the samples that a network reads; `cut` divides the audio, if it reads any."""
    cuts = {name: cut(data, window) for name, window in network.windows.items()}
    return Windows(index, modalities(network.reads, data, cuts), augment, network.key_frames)


def validation_frames(store: Store, frames: UsableFrames, settings: Settings) -> NDArray[np.intp]:
    """Indices [n] of the frames that an epoch is validated on; of a temporal model those on its clock."""
    index, usable, data = frames.frame_index, frames.usable, settings.data
    if not settings.over_time:
        return index.at_stride(usable, data.val_stride)
    grid = time_grid(index, data.stride)
    if not usable[grid].any():
        remedy = "Lower data.stride."
        raise StoreError("has no usable val frame on the clock of the temporal model", path=store.root, remedy=remedy)
    return grid[usable[grid]]


Numbers = dict[str, np.ndarray]
"""float32 [k, C] by branch; a row all NaN where the branch has no vote."""


@torch.inference_mode()
@torch.compiler.set_stance("force_eager")  # batches have many sizes here, and each would be compiled
def branch_numbers(
    fabric: Fabric,
    network: Network,
    index: FrameIndex,
    indices: np.ndarray,
    settings: Settings,
    criterion: Objective | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Numbers, float]:
    """The numbers of every branch (probabilities or values) on frames, and the loss on them.

    `indices` [k] ascend; of a temporal model they are frames of `time_grid`. Each process of a run evaluates a part of
    them, and every process gets all results. The loss is NaN without `criterion`, which needs annotated frames.
    `on_progress(frames done, frames of this process)`.
    """
    network.eval()
    if settings.over_time:
        return _of_stretches(fabric, network, index, indices, settings, criterion, on_progress)
    windows, branches = reader(network, index, settings.data, cut_for_prediction), network.modalities()
    own = np.array_split(indices, fabric.world_size)[fabric.global_rank]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in branches}
    # The mean is over all frames, not over batches, so that it does not depend on the batches.
    counts = _counts(fabric, network, index, indices, criterion)
    sums: Any = 0.0
    done = 0
    for raw in load(windows, split_segments(windows, index, own), settings.compute.workers):
        votes, target = _votes(fabric, network, windows, raw)
        for name, vote in votes.items():
            numbers = network.link.numbers(vote.value.float())
            pieces[name].append(numbers.masked_fill(~vote.present[:, None], torch.nan).cpu().numpy())
        if criterion is not None:
            sums = sums + criterion.sums(votes, target, counts).double().cpu().numpy()
        done += len(raw)
        on_progress(done, len(own))
    whole = {name: np.concatenate([*chain.from_iterable(gather(fabric, rows))]) for name, rows in pieces.items()}
    return whole, _loss(fabric, criterion, sums)


def _votes(fabric: Fabric, network: Network, windows: Windows, raw: Batch) -> tuple[dict[str, Votes], torch.Tensor]:
    """The votes of a batch, and its target."""
    dtype = next(network.parameters()).dtype
    batch = windows.on(fabric.device, raw)
    inputs = {name: x.to(dtype) if x.is_floating_point() else x for name, x in batch.inputs.items()}
    with fabric.autocast():
        return network(**batch.given | {"inputs": inputs}), batch.target


def _counts(
    fabric: Fabric, network: Network, index: FrameIndex, indices: np.ndarray, criterion: Objective | None
) -> dict[str, torch.Tensor]:
    """The counts of labels of all frames, as far as the index knows their modalities."""
    if criterion is None:
        return {}
    present = {name: torch.from_numpy(index.present(own)[indices]) for name, own in network.modalities().items()}
    counts = criterion.counts(present, torch.from_numpy(index.target(indices)))
    return {name: count.to(fabric.device) for name, count in counts.items()}


def _loss(fabric: Fabric, criterion: Objective | None, sums: Any) -> float:
    """The loss from this process's sums."""
    if criterion is None:
        return float("nan")
    return criterion.value(torch.as_tensor(sum(gather(fabric, sums))))


def _of_stretches(
    fabric: Fabric,
    network: Network,
    index: FrameIndex,
    indices: np.ndarray,
    settings: Settings,
    criterion: Objective | None,
    on_progress: Callable[[int, int], None],
) -> tuple[Numbers, float]:
    """`branch_numbers` of a temporal model: of all stretches of the videos, averaged where they overlap.

    What a frame gets does not depend on which frames were asked for.
    """
    grid, windows = time_grid(index, settings.data.stride), reader(network, index, settings.data, cut_for_prediction)
    cut = cut_stretches(index, grid, settings.data)
    own = np.array_split(np.arange(len(cut)), fabric.world_size)[fabric.global_rank]
    sums = {name: np.zeros((len(grid), network.link.task.n_columns)) for name in network.modalities()}
    counts = {name: np.zeros(len(grid)) for name in sums}
    pieces = [cut[own[start : start + _STRETCHES]] for start in range(0, len(own), _STRETCHES)]
    batches = [piece.samples() for piece in pieces]
    read = zip(batches, load(windows, batches, settings.compute.workers), strict=True)
    for done, (samples, raw) in enumerate(read, start=1):
        votes, _ = _votes(fabric, network, windows, raw)
        place = np.searchsorted(grid, samples.indices)
        for name, vote in votes.items():
            has = vote.present.cpu().numpy()
            np.add.at(sums[name], place[has], network.link.numbers(vote.value.float()).cpu().numpy()[has])
            np.add.at(counts[name], place[has], 1)
        on_progress(done * len(indices) // len(batches), len(indices))
    wanted, found = np.searchsorted(grid, indices), Numbers()
    for name in sums:
        total, count = (sum(parts)[wanted] for parts in (gather(fabric, sums[name]), gather(fabric, counts[name])))
        found[name] = (total / np.where(count, count, np.nan)[:, None]).astype(np.float32)
    return found, float("nan") if criterion is None else _loss_of(network, criterion, found, index.target(indices))


def _loss_of(network: Network, criterion: Objective, found: Numbers, target: np.ndarray) -> float:
    """The loss of averaged numbers."""
    device = next(network.parameters()).device
    votes = {}
    for name, rows in found.items():
        numbers = torch.from_numpy(np.nan_to_num(rows)).to(device)
        votes[name] = Votes(network.link.from_numbers(numbers), torch.from_numpy(~np.isnan(rows[:, 0])).to(device))
    return criterion.value(criterion.sums(votes, torch.from_numpy(target).to(device)))
