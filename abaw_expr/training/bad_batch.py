"""The batch whose loss is not a finite number, kept for inspection.

Shapes: B samples of a step.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.windows import Batch
from abaw_expr.errors import DivergedError, shorten
from abaw_expr.tasks.names import frame_name
from abaw_expr.training.checkpoint import save_tensors
from abaw_expr.training.run import RunFolder


class Pending(NamedTuple):
    """A step that may still run on the device: reading its loss waits for the device."""

    step: int
    samples: int
    """Of all processes."""
    micro_batches: list[Batch]
    loss: Tensor
    """A scalar: this process's part of the mean over samples [B]."""


def bad_batch(run: RunFolder, index: FrameIndex, pending: Pending, epoch: int, loss: float, own: bool) -> DivergedError:
    """The error for a loss that is not finite; saves the batch where this process's part (`own`) is not finite."""
    indices = torch.cat([micro_batch.index for micro_batch in pending.micro_batches]).numpy()
    frames = [frame_name(index.videos[index.video[i]].name, int(index.row[i]) + 1) for i in indices]
    if own:
        parts = [_plain(micro_batch) for micro_batch in pending.micro_batches]
        save_tensors(run.bad_batch, {"epoch": epoch, "step": pending.step, "frames": frames, "parts": parts})
    return DivergedError(
        f"the loss of step {pending.step + 1} of epoch {epoch} is {loss}",
        path=run.bad_batch,
        found=f"a batch of {shorten(frames, 2)}",
        remedy="Inspect that batch; lower the learning rate, or use 32-true.",
    )


def _plain(batch: Batch) -> dict[str, Any]:
    """A batch as plain values."""
    return batch.given | {"target": batch.target, "index": batch.index, "noise": batch.noise}
