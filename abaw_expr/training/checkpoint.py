"""Checkpoints: tensors and plain values only, so that loading a file from an untrusted source cannot run code."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import ZipFile, is_zipfile

import torch

from abaw_expr.errors import RunError, unreadable
from abaw_expr.files import atomic

_REMEDY = "Train again, or name a run whose training got that far."


@dataclass(frozen=True)
class Checkpoint:
    """The state of training between two steps. There is no random state: every step derives its own from the seed."""

    signature: str
    """The run's identity: a hash of its settings and data."""
    prior: list[float]
    """The mean label in the loss by column: the fraction of each class or of active frames, or the mean value."""
    history: list[dict[str, Any]]
    """The row of each finished epoch in metrics.csv."""
    step: int
    """Finished steps of the current epoch."""
    loss: float
    """Sum of that epoch's losses so far, over samples."""
    waiting: float
    """Seconds of that epoch spent waiting for data so far."""
    seconds: float
    """Seconds of that epoch so far."""
    network: dict[str, Any]
    ema: dict[str, Any]
    """The EMA of the weights; empty without EMA."""
    optimiser: dict[str, Any]
    """Empty in best.pt, which is used for prediction only."""
    data: str = ""
    """The digest of the store that it was trained on."""
    videos: tuple[str, ...] = ()
    """The names of the videos that it and its initial weights were trained on, of all stores; empty where they are not
    known."""


_TYPES = {
    **dict.fromkeys(("network", "ema", "optimiser"), dict),
    **dict.fromkeys(("loss", "waiting", "seconds"), float),
    **{"signature": str, "prior": list, "history": list, "step": int},
}
"""The types of a checkpoint's values."""
_OPTIONAL_TYPES = {"data": str, "videos": tuple}
"""The types of values that checkpoints of earlier versions lack."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint atomically."""
    save_tensors(path, {**vars(checkpoint)})


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    """Writes tensors and plain values atomically."""
    buffer = io.BytesIO()
    torch.save(values, buffer)  # to memory first, so that a full disk raises an OSError
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a checkpoint. Raises RunError where it is missing, damaged or not a checkpoint."""
    values = load_tensors(path, device)
    types = _TYPES | {name: kind for name, kind in _OPTIONAL_TYPES.items() if name in values}
    if values.keys() != types.keys() or not all(isinstance(values[name], kind) for name, kind in types.items()):
        raise RunError("is not a checkpoint of this project", path=path, remedy=_REMEDY)
    return Checkpoint(**values)


def load_tensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads a file of `save_tensors` and checks its checksums, which torch does not. Raises as `load_checkpoint`."""
    try:
        if is_zipfile(path):
            with ZipFile(path) as file:
                damaged = file.testzip()
            if damaged is not None:
                raise RunError("is damaged", path=path, found=damaged, remedy=_REMEDY)
        return dict(torch.load(path, map_location=device, weights_only=True))
    except OSError as error:
        raise unreadable(RunError, path, error, _REMEDY) from error
    except (MemoryError, RunError):
        raise
    except Exception as error:  # torch raises many types of error for bytes that are not a checkpoint
        raise RunError("is not a checkpoint of this project", path=path, remedy=_REMEDY) from error
