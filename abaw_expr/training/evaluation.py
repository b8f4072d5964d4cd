"""A network's arithmetic, and its probabilities on frames of an index. Shapes: k frames, c classes."""

import logging
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric
from torch import nn

from abaw_expr.data.windows import FrameIndex, Windows, load, split_batches
from abaw_expr.errors import SettingsError
from abaw_expr.losses import CoarseFineLoss
from abaw_expr.settings import Settings

BATCH = 64
"""Frames a step; without gradients it changes speed only."""


def native_precision(settings: Settings) -> Literal["32-true", "bf16-mixed"]:
    """The arithmetic that the settings name; of `auto`, bf16-mixed where the device has units for it."""
    if settings.precision != "auto":
        return settings.precision
    if settings.compute.accelerator != "cpu" and torch.cuda.is_available():
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16-mixed" if native else "32-true"


def build_fabric(settings: Settings) -> Fabric:
    """The device and arithmetic that the settings name. Raises SettingsError for a GPU that is not there."""
    if settings.compute.accelerator == "cuda" and not torch.cuda.is_available():
        remedy = "Use auto or cpu, or install a driver that this torch can use."
        raise SettingsError("the accelerator cuda cannot be used: no GPU is found", remedy=remedy)
    logging.getLogger("lightning_fabric").setLevel(logging.WARNING)  # it would tell what precision it uses
    return Fabric(accelerator=settings.compute.accelerator, devices=1, precision=native_precision(settings))


@torch.inference_mode()
def branch_probabilities(
    network: nn.Module,
    index: FrameIndex,
    places: Sequence[int] | np.ndarray,
    settings: Settings,
    device: torch.device,
    criterion: CoarseFineLoss | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[dict[str, np.ndarray], float]:
    """Probabilities float32 [k, c] a branch, a row all NaN where the frame lacks the modality; and the mean loss.

    The loss is nan without `criterion`, which needs annotated frames.
    """
    network.eval()
    windows = Windows(index, settings.data)
    batches = split_batches([(int(place), None) for place in places], BATCH)
    pieces: dict[str, list[np.ndarray]] = {name: [] for name in settings.model.branches}
    losses, done = [], 0
    for raw in load(windows, batches, settings.data.pictures, settings.compute.workers):
        batch = raw.to(device)
        log_p = network(batch.inputs, batch.present)
        for name, rows in log_p.items():
            absent = ~batch.present[name][:, None]
            pieces[name].append(rows.float().exp().masked_fill(absent, torch.nan).cpu().numpy())
        if criterion is not None:
            losses.append(float(criterion(log_p, batch.present, batch.label)) * len(batch.label))
        done += len(batch.label)
        progress(done, len(places))
    loss = sum(losses) / done if losses else float("nan")
    return {name: np.concatenate(rows) for name, rows in pieces.items()}, loss
