"""What every modality is: a way to read samples from a store.

Shapes: b samples, k of them with the modality.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples


@dataclass(frozen=True)
class Part:
    """What a batch holds of one modality."""

    x: Tensor
    """The inputs of the samples that have the modality, as the modality says."""
    rows: Tensor
    """int64 [k], ascending: the samples that have it."""
    windows: Tensor | None = None
    """int64 [k, 2], where `x` holds stretches that samples share: the stretch of each sample's window, and the window's
    first step in it."""
    activity: Tensor | None = None
    """float32 [k] in [0, 1], where key frames are asked for: how much is said or seen to move around each sample."""

    def to(self, device: torch.device) -> "Part":
        """The part on a device."""
        windows, activity = (
            None if x is None else x.to(device, non_blocking=True) for x in (self.windows, self.activity)
        )
        x, rows = (x.to(device, non_blocking=True) for x in (self.x, self.rows))
        return Part(x, rows, windows, activity)


class Modality(ABC):
    """A modality of a run, in one of the processes that read."""

    @abstractmethod
    def read(self, index: FrameIndex, samples: Samples, rows: np.ndarray, augment: Augment | None) -> Part:
        """Reads the samples that have the modality, `rows` int64 [k]; those that turn out to be damaged are left out.

        Here is augmented what is faster for a sample than for a batch.
        """

    @abstractmethod
    def on_device(self, part: Part, augment: Augment | None, noise: Tensor | None) -> Tensor:
        """What a network gets of a part on the device: `x` as floats, and augmented by random numbers [b, NOISE]."""

    def segments(self, index: FrameIndex, indices: np.ndarray) -> np.ndarray | None:
        """int64 [k], the stretch of its recording that each frame is read from at prediction; None: each by itself."""
        return None
