"""Batches of what networks read around frames, whatever the modalities: store -> batches.

Shapes: b samples, k of them with a modality.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from abaw_expr.data.batches.audio import Audio, Waveform
from abaw_expr.data.batches.audio_chunks import Cut
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.embedding import Embedding
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.modality import Modality, Part
from abaw_expr.data.batches.visual import Visual
from abaw_expr.settings import DataSettings

Cuts = Mapping[str, Cut]
"""How audio is divided into chunks, by the name of a modality that reads it in windows."""
MODALITIES: dict[str, Callable[[str, DataSettings, Cuts], Modality]] = {
    "audio": lambda name, data, cuts: Audio(cuts[name]),
    "visual": lambda name, data, cuts: Visual(data),
    "waveform": lambda name, data, cuts: Waveform(cuts[name]),
    "embedding": lambda name, data, cuts: Embedding(name.partition(":")[2]),
}
"""The registry of modalities by name, as far as the colon; a new one is entered here and in `HAS`."""


def modalities(names: Sequence[str], data: DataSettings, cuts: Cuts) -> dict[str, Modality]:
    """The modalities that a network reads."""
    return {name: MODALITIES[name.partition(":")[0]](name, data, cuts) for name in names}


@dataclass(frozen=True)
class Batch:
    """The samples of a step or of a part of it."""

    parts: dict[str, Part]
    """By modality."""
    target: Tensor
    """int64 [b], the class, -1 where not annotated; of values and units float32 [b, F], NaN where not annotated."""
    index: Tensor
    """int64 [b], the frame's index in the `FrameIndex`."""
    noise: Tensor | None
    """float32 [b, NOISE], the samples' random numbers."""
    valid: Tensor
    """bool [b], false for samples that fill up a stretch beyond the end of its video."""

    def __len__(self) -> int:
        return len(self.index)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """The inputs of the samples that have a modality, by modality."""
        return {name: part.x for name, part in self.parts.items()}

    @property
    def rows(self) -> dict[str, Tensor]:
        """int64 [k] by modality, ascending: the samples that have it."""
        return {name: part.rows for name, part in self.parts.items()}

    @property
    def windows(self) -> dict[str, Tensor]:
        """int64 [k, 2] by modality, of those whose inputs are shared by samples (see `Part`)."""
        return {name: part.windows for name, part in self.parts.items() if part.windows is not None}

    @property
    def activity(self) -> dict[str, Tensor]:
        """float32 [k] by modality, where key frames are asked for (see `Part`)."""
        return {name: part.activity for name, part in self.parts.items() if part.activity is not None}

    @property
    def given(self) -> dict[str, Any]:
        """What a network is given."""
        parts = {"inputs": self.inputs, "rows": self.rows, "windows": self.windows, "activity": self.activity}
        return parts | {"valid": self.valid}

    def present(self, names: Sequence[str]) -> Tensor:
        """bool [b], the samples that have one of these modalities."""
        return torch.stack([torch.zeros_like(self.valid).index_fill_(0, self.rows[name], True) for name in names]).any(
            0
        )

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device, but for the indices."""
        target, valid = (x.to(device, non_blocking=True) for x in (self.target, self.valid))
        noise = None if self.noise is None else self.noise.to(device, non_blocking=True)
        return Batch({name: part.to(device) for name, part in self.parts.items()}, target, self.index, noise, valid)


class Windows(Dataset):
    """The data set of the samples around frames of an index; its items are batches, by `Samples`.

    With `key_frames` they have the activity of each sample in its modalities.
    """

    def __init__(
        self,
        frame_index: FrameIndex,
        modalities: Mapping[str, Modality],
        augment: Augment | None = None,
        key_frames: bool = False,
    ) -> None:
        self._frame_index, self._modalities, self._augment = frame_index, modalities, augment
        self._activity = frame_index.activity if key_frames else {}

    def __getitem__(self, samples: Samples) -> Batch:
        valid = np.ones(len(samples), bool) if samples.beyond is None else ~samples.beyond
        parts = {}
        for name, modality in self._modalities.items():
            rows = np.flatnonzero(self._frame_index.has[name][samples.indices] & valid)
            part = modality.read(self._frame_index, samples, rows, self._augment)
            if name in self._activity:  # damaged samples were left out
                own = torch.from_numpy(self._activity[name][samples.indices[part.rows.numpy()]])
                part = replace(part, activity=own)
            parts[name] = part
        target = torch.from_numpy(self._frame_index.target(samples.indices))
        if samples.beyond is not None:
            target[torch.from_numpy(samples.beyond)] = -1 if target.ndim == 1 else torch.nan
        noise = None if samples.noise is None else torch.from_numpy(samples.noise)
        return Batch(parts, target, torch.from_numpy(samples.indices), noise, torch.from_numpy(valid))

    def on(self, device: torch.device, batch: Batch) -> Batch:
        """The batch on a device as networks take it: images as floats, and augmented by what is faster for a batch."""
        moved = batch.to(device)
        augment = None if moved.noise is None else self._augment
        done = {
            name: replace(part, x=self._modalities[name].on_device(part, augment, moved.noise))
            for name, part in moved.parts.items()
        }
        return replace(moved, parts=done)

    def segments(self, indices: np.ndarray) -> np.ndarray | None:
        """int64 [k], the stretch of its recording that each frame is read from at prediction; None: each by itself."""
        found = (modality.segments(self._frame_index, indices) for modality in self._modalities.values())
        return next((segments for segments in found if segments is not None), None)
