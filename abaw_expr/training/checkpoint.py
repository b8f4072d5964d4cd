"""Checkpoints: tensors and plain values only, so that a stranger's file cannot run code when it is loaded."""

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
    """The state of training between two steps. Random numbers have none: every step makes its own from the seed."""

    signature: str
    """The run's identity: settings and data."""
    prior: list[float]
    """Share of each class among the samples that training weighed."""
    history: list[dict[str, Any]]
    """A row for every epoch that is done, as metrics.csv has them."""
    step: int
    """Steps done of the epoch after those."""
    loss: float
    """Sum of that epoch's losses so far, over samples."""
    waiting: float
    """Seconds of that epoch spent waiting for data so far."""
    seconds: float
    """Seconds of that epoch so far."""
    network: dict[str, Any]
    average: dict[str, Any]
    """The moving mean of the weights; empty where the run keeps none."""
    optimiser: dict[str, Any]
    """Empty in a checkpoint that is only predicted from."""
    data: str = ""
    """The digest of the store that it was trained on."""
    videos: tuple[str, ...] = ()
    """The names of the videos that it was trained on, of all stores; none where they are not known."""


_TYPES = {
    **dict.fromkeys(("network", "average", "optimiser"), dict),
    **dict.fromkeys(("loss", "waiting", "seconds"), float),
    **{"signature": str, "prior": list, "history": list, "step": int},
}
"""Of what a checkpoint holds."""
_LATER = {"data": str, "videos": tuple}
"""Of what checkpoints of earlier versions do not say."""


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Writes a checkpoint, whole or not at all."""
    save_tensors(path, {**vars(checkpoint)})


def save_tensors(path: Path, values: dict[str, Any]) -> None:
    """Writes tensors and plain values, whole or not at all."""
    buffer = io.BytesIO()
    torch.save(values, buffer)  # in memory first: a full disk is then an OSError like any other
    with atomic(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_checkpoint(path: Path, device: str | torch.device = "cpu") -> Checkpoint:
    """Reads a checkpoint. Raises RunError where it is missing, damaged or none."""
    values = load_tensors(path, device)
    types = _TYPES | {name: kind for name, kind in _LATER.items() if name in values}
    if values.keys() != types.keys() or not all(isinstance(values[name], kind) for name, kind in types.items()):
        raise RunError("is not a checkpoint of this project", path=path, remedy=_REMEDY)
    return Checkpoint(**values)


def load_tensors(path: Path, device: str | torch.device = "cpu") -> dict[str, Any]:
    """Reads what `save_tensors` wrote; its sums are checked, which torch does not. Raises as `load_checkpoint`."""
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
    except Exception as error:  # of bytes that are no checkpoint, torch raises whatever it trips over
        raise RunError("is not a checkpoint of this project", path=path, remedy=_REMEDY) from error
