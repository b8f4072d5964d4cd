"""Batches of the audio windows and images around frames: store -> batches.

Neighbouring frames share almost all of their audio window, so a batch holds audio in chunks that cover several windows.

Shapes: n frames of an index, b samples, k of them with a modality, f frames a sample, g chunks of audio of t steps and
m mel bands, h x w pixels.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from abaw_expr.data.batches.audio_chunks import Cut
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.store import StoredVideo
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.settings import BRANCHES, DataSettings

_LEAST_STD = 0.1
"""Least standard deviation by which a mel band is divided, so that a silent recording stays finite."""


@dataclass(frozen=True)
class Batch:
    """The samples of a step or of a part of it."""

    inputs: dict[str, Tensor]
    """audio: float32 [g, 1, t, m], standardised; visual: [k, f, 3, h, w], uint8, on the device float32 in [-1, 1]."""
    rows: dict[str, Tensor]
    """int64 [k] by branch, ascending: the samples that have that modality."""
    windows: dict[str, Tensor]
    """audio: int64 [k, 2], the chunk of each sample's window and the window's first step in the chunk."""
    present: dict[str, Tensor]
    """bool [b] by branch: the same as `rows`, as a mask."""
    label: Tensor
    """int64 [b], -1 where not annotated."""
    index: Tensor
    """int64 [b], the frame's index in the `FrameIndex`."""
    noise: Tensor | None
    """float32 [b, NOISE], the samples' random numbers."""

    def __len__(self) -> int:
        return len(self.label)

    def to(self, device: torch.device, augment: Augment | None = None) -> "Batch":
        """The batch on a device, with images as floats, and augmented by what is faster for a batch than a sample."""
        inputs, rows, windows, present = (
            _moved(x, device) for x in (self.inputs, self.rows, self.windows, self.present)
        )
        moved = Batch(inputs, rows, windows, present, self.label.to(device, non_blocking=True), self.index, self.noise)
        noise = None if augment is None or self.noise is None else self.noise.to(device, non_blocking=True)
        return replace(moved, inputs={name: work(moved, augment, noise) for name, work in _ON_DEVICE.items()})


def _audio_on_device(batch: Batch, augment: Augment | None, noise: Tensor | None) -> Tensor:
    """A batch's audio [g, 1, t, m], masked where there are random numbers [b, NOISE]."""
    audio = batch.inputs["audio"]
    if augment is None or noise is None:
        return audio
    # A chunk is masked by the random numbers of its first sample.
    chunk = batch.windows["audio"][:, 0]
    first = torch.zeros(len(audio), dtype=torch.int64, device=audio.device)
    first = first.scatter_reduce_(0, chunk, batch.rows["audio"], "amin", include_self=False)
    return augment.mask(audio, noise[first])


def _images_on_device(batch: Batch, augment: Augment | None, noise: Tensor | None) -> Tensor:
    """A batch's images [k, f, 3, h, w] in [-1, 1], jittered where there are random numbers [b, NOISE]."""
    images = batch.inputs["visual"].float().div_(127.5).sub_(1)
    return images if augment is None or noise is None else augment.jitter_(images, noise[batch.rows["visual"]])


_ON_DEVICE: dict[str, Callable[[Batch, Augment | None, Tensor | None], Tensor]] = {
    "audio": _audio_on_device,
    "visual": _images_on_device,
}
"""What is done to each modality's inputs on the device."""


class Windows(Dataset):
    """The data set of the samples around frames of an index; its items are batches, by `Samples`."""

    def __init__(
        self,
        frame_index: FrameIndex,
        data: DataSettings,
        cut: Cut,
        augment: Augment | None = None,
        branches: Sequence[str] = BRANCHES,
    ) -> None:
        self._frame_index, self._cut, self._augment = frame_index, cut, augment
        none = np.zeros(len(frame_index), bool)  # a modality that no branch uses is not read
        self._has = {name: has if name in branches else none for name, has in frame_index.has.items()}
        self._offsets = (np.arange(data.frames_per_sample) - (data.frames_per_sample - 1) / 2) * data.spacing

    def __getitem__(self, samples: Samples) -> Batch:
        noise = None if samples.noise is None else torch.from_numpy(samples.noise)
        audio, audio_rows, windows = self._audio(samples)
        images, image_rows = self._images(samples.indices, noise)
        rows = {"audio": torch.from_numpy(audio_rows), "visual": torch.tensor(image_rows, dtype=torch.int64)}
        present = {
            name: torch.zeros(len(samples), dtype=torch.bool).index_fill_(0, k, True) for name, k in rows.items()
        }
        label = torch.from_numpy(self._frame_index.label[samples.indices]).long()
        inputs = {"audio": audio, "visual": images}
        return Batch(inputs, rows, {"audio": windows}, present, label, torch.from_numpy(samples.indices), noise)

    def _audio(self, samples: Samples) -> tuple[Tensor, np.ndarray, Tensor]:
        """Chunks [g, 1, t, m], the samples [k] that have audio, and their windows [k, 2]."""
        frame_index = self._frame_index
        rows = np.flatnonzero(self._has["audio"][samples.indices])
        indices = samples.indices[rows]
        video, start = frame_index.video[indices], frame_index.window_start(indices, self._cut.window.steps)
        cut = self._cut(video if samples.group is None else samples.group[rows], start)
        chunk_video = np.empty(len(cut.first), np.int64)
        chunk_video[cut.chunk] = video
        audio = torch.zeros(len(chunk_video), 1, cut.steps, MEL_BANDS)
        for chunk, i, first in zip(audio.numpy()[:, 0], chunk_video, cut.first, strict=True):
            fill_audio(frame_index.videos[i], int(first), chunk)
        return audio, rows, torch.from_numpy(np.stack([cut.chunk, start - cut.first[cut.chunk]], axis=1))

    def _images(self, indices: np.ndarray, noise: Tensor | None) -> tuple[Tensor, list[int]]:
        """Images uint8 [k, f, 3, h, w], and their samples, given indices [b] and random numbers [b, NOISE]."""
        candidates = np.flatnonzero(self._has["visual"][indices]).tolist()
        # Channels last in memory, as the decoder returns images and as the networks take them.
        shape = (len(candidates), len(self._offsets), CROP_SIDE, CROP_SIDE, 3)
        images = torch.empty(shape, dtype=torch.uint8).movedim(4, 2)
        rows: list[int] = []
        for row in candidates:
            frames = self._frames(int(indices[row]))
            if frames is None:
                continue
            if self._augment is not None and noise is not None:
                frames = self._augment.crop(frames, noise[row])
            images[len(rows)] = frames
            rows.append(row)
        return images[: len(rows)], rows

    def _frames(self, index: int) -> Tensor | None:
        """uint8 [f, 3, h, w]: for each offset the crop nearest in time; None where none of them can be decoded."""
        video, row = self._frame_index.videos[self._frame_index.video[index]], int(self._frame_index.row[index])
        if len(self._offsets) == 1:
            own = decode_crop(video, row)
            return None if own is None else own[None]
        frames = video.frames
        crops = np.flatnonzero(frames.has_crop)
        wanted = frames.time[row] + self._offsets
        nearest = crops[np.abs(frames.time[crops][None] - wanted[:, None]).argmin(axis=1)]
        images = [decode_crop(video, int(near)) for near in nearest]
        decoded = [image for image in images if image is not None]
        return torch.stack([decoded[0] if image is None else image for image in images]) if decoded else None


def fill_audio(video: StoredVideo, first: int, out: np.ndarray) -> None:
    """Fills `out`, float32 [t, m] of zeros, with audio from step `first` on, each band standardised by its recording.

    Beyond the recording's ends it stays 0, the recording's mean.
    """
    assert video.audio is not None
    assert video.audio_mean is not None
    assert video.audio_std is not None
    start, stop = max(first, 0), min(first + len(out), len(video.audio))
    if start < stop:
        standard = (video.audio[start:stop] - video.audio_mean) / np.maximum(video.audio_std, _LEAST_STD)
        out[start - first : stop - first] = standard


def _moved(tensors: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: x.to(device, non_blocking=True) for name, x in tensors.items()}
