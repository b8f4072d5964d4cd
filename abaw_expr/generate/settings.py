"""Settings of a generator of faces; imports little, for the command line's help."""

from dataclasses import dataclass
from typing import Literal

from abaw_expr.errors import SettingsError

SIDES = (64, 112)


@dataclass(frozen=True)
class GeneratorSettings:
    """How a generator of faces is trained (class-conditional GAN)."""

    side: Literal[64, 112] = 64
    """Pixels of a generated face's side; 112 is that of the released crops."""
    steps: int = 20_000
    """Steps of training; each updates discriminator and generator once."""
    batch_size: int = 64
    """Real faces of a step, and as many generated ones."""
    width: int = 32
    """Channels at half the side; they double with each halving, up to four times as many."""
    identity: int = 64
    """Length of the code that a face's identity is drawn from."""
    learning_rate: float = 4e-4
    """Of Adam for the discriminator; the generator's is half of it."""
    class_weight: float = 1.0
    """Weight of the classification loss: generated faces are to be named as their class by a network that learns to
    name real ones. 0: the class counts in the discriminator's projection only."""
    ema_decay: float = 0.999
    """Decay of the EMA of the generator's weights, which is what samples."""
    sheet_every: int = 500
    """Steps between two sheets of samples."""
    save_every: float = 60.0
    """Seconds between two checkpoints."""
    seed: int = 0
    """Seed of weights, faces and codes."""
    workers: int = 0
    """Processes that decode faces; 0: the training process does it."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"
    """Device; auto takes a GPU if there is one."""

    def __post_init__(self) -> None:
        for name in ("steps", "batch_size", "width", "identity", "sheet_every"):
            _require(name, getattr(self, name) >= 1, getattr(self, name), "1 or more")
        for name in ("save_every", "class_weight", "seed", "workers"):
            _require(name, getattr(self, name) >= 0, getattr(self, name), "0 or more")
        _require("side", self.side in SIDES, self.side, "64 or 112")
        _require("batch_size", self.batch_size >= 2, self.batch_size, "2 or more")
        _require("learning_rate", 0 < self.learning_rate < 1, self.learning_rate, "above 0, below 1")
        _require("ema_decay", 0 <= self.ema_decay < 1, self.ema_decay, "0 or more, below 1")


NOT_SIGNED = ("save_every", "sheet_every", "workers", "accelerator", "steps")
"""What does not change the samples after a number of steps; a generator can be trained for more steps later."""


def _require(name: str, holds: bool, found: object, expected: str) -> None:
    if not holds:
        raise SettingsError(f"--{name.replace('_', '-')} cannot be used", found=found, expected=expected)
