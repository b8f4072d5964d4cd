"""A network's arithmetic, and its probabilities on frames of an index. Shapes: k frames, c classes."""

import logging
from collections.abc import Callable
from itertools import chain
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from abaw_expr.data.batches.chunks import cut_for_prediction
from abaw_expr.data.batches.frames import FrameIndex
from abaw_expr.data.batches.loading import load, split_segments
from abaw_expr.data.batches.windows import Windows
from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.losses import ANY, CoarseFineLoss
from abaw_expr.settings import Settings
from abaw_expr.training.parallel import add_up, gather, strategy_of


def native_precision(settings: Settings) -> Literal["32-true", "bf16-mixed", "64-true"]:
    """The arithmetic that the settings name; of `auto`, bf16-mixed where the device has units for it."""
    if settings.precision != "auto":
        return settings.precision
    if settings.compute.accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def check_accelerator(settings: Settings) -> None:
    """Raises SettingsError for a GPU that is not there."""
    if settings.compute.accelerator == "cuda" and not torch.cuda.is_available():
        remedy = "Use auto or cpu, or install a driver that this torch can use."
        raise SettingsError("the accelerator cuda cannot be used: no GPU is found", remedy=remedy)


def build_fabric(settings: Settings) -> Fabric:
    """The devices and arithmetic that the settings name. Raises SettingsError where they cannot be had."""
    check_accelerator(settings)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell what precision it uses
    devices = strategy_of(settings.compute)
    fabric = Fabric(accelerator=settings.compute.accelerator, precision=native_precision(settings), **devices)
    fabric.launch()
    return fabric


@torch.inference_mode()
@torch.compiler.set_stance("force_eager")  # batches here are of many sizes, and each would be compiled
def branch_probabilities(
    fabric: Fabric,
    network: nn.Module,
    index: FrameIndex,
    places: np.ndarray,
    settings: Settings,
    criterion: CoarseFineLoss | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, np.ndarray], float]:
    """Probabilities float32 [k, c] a branch, a row all NaN where the frame lacks the modality; and the mean loss.

    `places` ascend. Each process of a run takes its share of them, and all get the whole. The loss is nan without
    `criterion`, which needs annotated frames.
    """
    network.eval()
    kind = next(network.parameters()).dtype
    mine = np.array_split(places, fabric.world_size)[fabric.global_rank]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in settings.model.branches}
    # The mean over all places, not over batches: how they are cut must not show.
    having = {name: index.has[name][places].sum() for name in settings.model.branches} | {ANY: len(places)}
    counts = {name: torch.tensor(int(count), device=fabric.device) for name, count in having.items()}
    loss, done = 0.0, 0
    for raw in load(
        Windows(
            index, settings.data, cut_for_prediction(settings.data, AUDIO_WINDOW), branches=settings.model.branches
        ),
        split_segments(index, mine, AUDIO_WINDOW),
        settings.compute.workers,
    ):
        batch = raw.to(fabric.device)
        inputs = {name: x.to(kind) for name, x in batch.inputs.items()}
        with fabric.autocast():
            log_p = network(inputs, batch.rows, batch.windows, len(batch))
        for name, rows in log_p.items():
            absent = ~batch.present[name][:, None]
            pieces[name].append(rows.float().exp().masked_fill(absent, torch.nan).cpu().numpy())
        if criterion is not None:
            loss += float(criterion(log_p, batch.present, batch.label, counts))
        done += len(batch)
        progress(done, len(mine))
    whole = {name: np.concatenate([*chain.from_iterable(gather(fabric, rows))]) for name, rows in pieces.items()}
    (total,) = add_up(fabric, [loss])
    return whole, total if criterion is not None else float("nan")
