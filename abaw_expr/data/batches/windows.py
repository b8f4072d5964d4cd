"""Frames at equal intervals and the stretch of sound and pictures around each: store -> batches.

Neighbouring frames hear almost the same three seconds, so sound travels in chunks that carry the windows of many
frames. Shapes: b samples, k of them with the modality, f pictures a sample, g chunks of sound of t steps and m mel
bands, h x w picture; n frames of an index.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.chunks import Cut
from abaw_expr.data.batches.frames import Draws, FrameIndex
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.decoding import decode_crop
from abaw_expr.data.store.store import StoredVideo
from abaw_expr.settings import BRANCHES, DataSettings

_LEAST_STD = 0.1
"""Least deviation of a mel band that is divided by, so that a silent recording stays finite."""


@dataclass(frozen=True)
class Batch:
    """Samples of a step."""

    inputs: dict[str, Tensor]
    """audio: float32 [g, 1, t, m], standardised; visual: [k, f, 3, h, w], bytes, on the device float32 in [-1, 1]."""
    rows: dict[str, Tensor]
    """int64 [k] by branch, ascending: the samples that have that modality."""
    windows: dict[str, Tensor]
    """audio: int64 [k, 2], the chunk that a sample's window lies in and the step of the chunk where it begins."""
    present: dict[str, Tensor]
    """bool [b] by branch: the same as `rows`, as a mask."""
    label: Tensor
    """int64 [b], -1 where not annotated."""
    index: Tensor
    """int64 [b], the frame's place in the index."""
    noise: Tensor | None
    """float32 [b, NOISE], the samples' random numbers."""

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device, augment: Augment | None = None) -> "Batch":
        """The batch on a device, where pictures become numbers and what is cheaper for many at once is augmented."""
        inputs, rows, windows, present = (
            _moved(x, device) for x in (self.inputs, self.rows, self.windows, self.present)
        )
        label = self.label.to(device, non_blocking=True)
        inputs["visual"] = inputs["visual"].float().div_(127.5).sub_(1)
        if augment is not None and self.noise is not None:
            noise = self.noise.to(device, non_blocking=True)
            chunk = windows["audio"][:, 0]
            # A chunk is masked as its first sample says.
            opens = torch.zeros(len(inputs["audio"]), dtype=torch.int64, device=device)
            opens = opens.scatter_reduce_(0, chunk, rows["audio"], "amin", include_self=False)
            inputs["audio"] = augment.mask(inputs["audio"], noise[opens])
            augment.relight_(inputs["visual"], noise[rows["visual"]])
        return Batch(inputs, rows, windows, present, label, self.index, self.noise)


class Windows(Dataset):
    """Batches of the samples around frames of an index, by `Draws`."""

    def __init__(
        self,
        index: FrameIndex,
        data: DataSettings,
        cut: Cut,
        augment: Augment | None = None,
        branches: Sequence[str] = BRANCHES,
    ) -> None:
        self._index, self._cut, self._augment = index, cut, augment
        none = np.zeros(len(index), bool)  # what no branch asks for is not read
        self._has = {name: has if name in branches else none for name, has in index.has.items()}
        self._offsets = (np.arange(data.pictures) - (data.pictures - 1) / 2) * data.spacing

    def __getitem__(self, draws: Draws) -> Batch:
        noise = None if draws.noise is None else torch.from_numpy(draws.noise)
        sound, heard, windows = self._sound(draws)
        pictures, seen = self._pictures(draws.place, noise)
        rows = {"audio": torch.from_numpy(heard), "visual": torch.tensor(seen, dtype=torch.int64)}
        present = {name: torch.zeros(len(draws), dtype=torch.bool).index_fill_(0, k, True) for name, k in rows.items()}
        label = torch.from_numpy(self._index.label[draws.place]).long()
        inputs = {"audio": sound, "visual": pictures}
        return Batch(inputs, rows, {"audio": windows}, present, label, torch.from_numpy(draws.place), noise)

    def _sound(self, draws: Draws) -> tuple[Tensor, np.ndarray, Tensor]:
        """Chunks [g, 1, t, m], the samples [k] that have sound, and their windows [k, 2]."""
        index = self._index
        heard = np.flatnonzero(self._has["audio"][draws.place])
        places = draws.place[heard]
        video, start = index.video[places], index.window_start(places, self._cut.window.steps)
        cut = self._cut(video if draws.group is None else draws.group[heard], start)
        of = np.empty(len(cut.first), np.int64)
        of[cut.chunk] = video
        sound = torch.zeros(len(of), 1, cut.steps, MEL_BANDS)
        for chunk, i, first in zip(sound.numpy()[:, 0], of, cut.first, strict=True):
            read_sound(index.videos[i], int(first), chunk)
        return sound, heard, torch.from_numpy(np.stack([cut.chunk, start - cut.first[cut.chunk]], axis=1))

    def _pictures(self, places: np.ndarray, noise: Tensor | None) -> tuple[Tensor, list[int]]:
        """Pictures uint8 [k, f, 3, h, w], and the samples that have them."""
        rows = np.flatnonzero(self._has["visual"][places]).tolist()
        # Channels last in memory: as the decoder gives pictures, and as the networks want them.
        pictures = torch.empty(len(rows), len(self._offsets), CROP_SIDE, CROP_SIDE, 3, dtype=torch.uint8).movedim(4, 2)
        seen: list[int] = []
        for row in rows:
            shown = self._shown(int(places[row]))
            if shown is None:
                continue
            if self._augment is not None and noise is not None:
                shown = self._augment.crop(shown, noise[row])
            pictures[len(seen)] = shown
            seen.append(row)
        return pictures[: len(seen)], seen

    def _shown(self, place: int) -> Tensor | None:
        """uint8 [f, 3, h, w]: for each offset the picture nearest in time; None where all of them are broken."""
        video, row = self._index.videos[self._index.video[place]], int(self._index.row[place])
        if len(self._offsets) == 1:
            own = decode_crop(video, row)
            return None if own is None else own[None]
        frames = video.frames
        crops = np.flatnonzero(frames.has_crop)
        wanted = frames.time[row] + self._offsets
        rows = crops[np.abs(frames.time[crops][None] - wanted[:, None]).argmin(axis=1)]
        pictures = [decode_crop(video, int(near)) for near in rows]
        whole = [picture for picture in pictures if picture is not None]
        return torch.stack([whole[0] if p is None else p for p in pictures]) if whole else None


def read_sound(video: StoredVideo, first: int, out: np.ndarray) -> None:
    """Fills `out`, float32 [t, m] of zeros, with the recording's sound from a step on, standardised a band over it.

    Beyond the recording's ends it stays 0, the recording's mean.
    """
    assert video.sound is not None
    assert video.sound_mean is not None
    assert video.sound_std is not None
    start, stop = max(first, 0), min(first + len(out), len(video.sound))
    if start < stop:
        standard = (video.sound[start:stop] - video.sound_mean) / np.maximum(video.sound_std, _LEAST_STD)
        out[start - first : stop - first] = standard


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
