"""The precision of a network, and its probabilities on frames of an index.

Shapes: k frames, C classes.
"""

import logging
from collections.abc import Callable
from itertools import chain
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from abaw_expr.data.batches.audio_chunks import cut_for_prediction
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.loading import load, split_segments
from abaw_expr.data.batches.windows import Windows
from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.losses import ANY, CoarseFineLoss
from abaw_expr.settings import Settings
from abaw_expr.training.parallel import gather, strategy_of, sum_over_processes


def native_precision(settings: Settings) -> Literal["32-true", "bf16-mixed", "64-true"]:
    """The precision of the settings; for `auto`, bf16-mixed if the device supports it in hardware."""
    if settings.precision != "auto":
        return settings.precision
    if settings.compute.accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
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


@torch.inference_mode()
@torch.compiler.set_stance("force_eager")  # batches have many sizes here, and each would be compiled
def branch_probabilities(
    fabric: Fabric,
    network: nn.Module,
    index: FrameIndex,
    indices: np.ndarray,
    settings: Settings,
    criterion: CoarseFineLoss | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, np.ndarray], float]:
    """Probabilities of every branch, float32 [k, C], a row all NaN where the frame lacks the modality; and mean loss.

    `indices` [k] ascend. Each process of a run evaluates a part of them, and every process gets all results. The loss
    is NaN without `criterion`, which needs annotated frames. `on_progress(frames done, frames of this process)`.
    """
    network.eval()
    dtype = next(network.parameters()).dtype
    own = np.array_split(indices, fabric.world_size)[fabric.global_rank]
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in settings.model.branches}
    # The mean is over all frames, not over batches, so that it does not depend on the batches.
    present = {name: index.has[name][indices].sum() for name in settings.model.branches} | {ANY: len(indices)}
    counts = {name: torch.tensor(int(count), device=fabric.device) for name, count in present.items()}
    loss, done = 0.0, 0
    for raw in load(
        Windows(
            index, settings.data, cut_for_prediction(settings.data, AUDIO_WINDOW), branches=settings.model.branches
        ),
        split_segments(index, own, AUDIO_WINDOW),
        settings.compute.workers,
    ):
        batch = raw.to(fabric.device)
        inputs = {name: x.to(dtype) for name, x in batch.inputs.items()}
        with fabric.autocast():
            log_p = network(inputs, batch.rows, batch.windows, len(batch))
        for name, rows in log_p.items():
            absent = ~batch.present[name][:, None]
            pieces[name].append(rows.float().exp().masked_fill(absent, torch.nan).cpu().numpy())
        if criterion is not None:
            loss += float(criterion(log_p, batch.present, batch.label, counts))
        done += len(batch)
        on_progress(done, len(own))
    whole = {name: np.concatenate([*chain.from_iterable(gather(fabric, rows))]) for name, rows in pieces.items()}
    (total,) = sum_over_processes(fabric, [loss])
    return whole, total if criterion is not None else float("nan")
