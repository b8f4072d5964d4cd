"""Checkpoints: tensors and plain values only, so that a stranger's file cannot run code when it is loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from abaw_expr.errors import RunError, unreadable
from abaw_expr.files import atomic

_REMEDY = "Train again, or name a run whose training got that far."


@dataclass(frozen=True)
class Checkpoint:
    """The state of training after an epoch."""

    epoch: int
    """Epochs done."""
    signature: str
    """The run's identity: settings and data."""
    prior: list[float]
    """Share of each class among the frames that training drew."""
    network: dict[str, Any]
    optimiser: dict[str, Any]
    """Empty in a checkpoint that is only predicted from."""
    history: list[dict[str, Any]]
    """A row an epoch, as metrics.csv has them."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all."""
    with atomic(path) as temporary:
        torch.save({**vars(checkpoint)}, temporary)


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a checkpoint. Raises RunError where it is missing or is none."""
    try:
        return Checkpoint(**torch.load(path, map_location=device, weights_only=True))
    except OSError as error:
        raise unreadable(RunError, path, error, _REMEDY) from error
    except Exception as error:  # of bytes that are no checkpoint, torch raises whatever it trips over
        raise RunError("is not a checkpoint of this project", path=path, remedy=_REMEDY) from error
