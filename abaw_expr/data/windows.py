"""Frames at equal intervals and the window of sound and pictures around each: store -> batches.

Shapes: b samples, f pictures a sample, t steps of sound, m mel bands, h x w picture; n frames of an index.
A missing crop or missing sound is False in `Batch.present`; the input beside it is 0 and must not vote.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.io import ImageReadMode, decode_jpeg
from torchvision.transforms.v2.functional import resize

from abaw_expr.data.augment import Augment
from abaw_expr.data.logmel import step_at
from abaw_expr.data.store import StoredVideo
from abaw_expr.settings import DataSettings
from abaw_expr.tasks import BRANCHES, CROP_SIDE, MEL_BANDS, SOUND_WINDOW

_LEAST_STD = 0.1
"""Least deviation of a mel band that is divided by, so that a silent recording stays finite."""

Draw = tuple[int, int | None]
"""A frame of an index, and the seed of its augmentation (None: none)."""


@dataclass(frozen=True)
class Batch:
    """Samples of a step."""

    inputs: dict[str, Tensor]
    """audio: float32 [b, 1, t, m], standardised; visual: float32 [b, f, 3, h, w] in [-1, 1]."""
    present: dict[str, Tensor]
    """bool [b] by branch: whether the sample has that modality."""
    label: Tensor
    """int64 [b], -1 where not annotated."""
    index: Tensor
    """int64 [b], the frame's place in the index."""

    def to(self, device: torch.device) -> "Batch":
        """The batch on a device; pictures travel as bytes and become numbers there."""
        inputs = {name: x.to(device, non_blocking=True) for name, x in self.inputs.items()}
        present = {name: x.to(device, non_blocking=True) for name, x in self.present.items()}
        if inputs["visual"].dtype == torch.uint8:
            shown = present["visual"][:, None, None, None, None]  # a missing crop is mid-gray, not black
            inputs["visual"] = (inputs["visual"].float() / 127.5 - 1) * shown
        return Batch(inputs, present, self.label.to(device), self.index)


class FrameIndex:
    """Every frame of some videos in columns: where it is, when, its label and what it has."""

    def __init__(self, videos: Sequence[StoredVideo]) -> None:
        self.videos = tuple(videos)
        self.video = np.concatenate([np.full(len(v.frames), i) for i, v in enumerate(videos)])
        self.row = np.concatenate([np.arange(len(v.frames)) for v in videos])
        self.time = np.concatenate([v.frames.time for v in videos])
        self.label = np.concatenate([v.frames.label for v in videos])
        self.has = {
            "audio": np.concatenate([_has_sound(v) for v in videos]),
            "visual": np.concatenate([v.frames.has_crop for v in videos]),
        }

    def __len__(self) -> int:
        return len(self.video)

    def present(self, branches: Sequence[str]) -> np.ndarray:
        """bool [n]: frames that have at least one of these modalities."""
        return np.any([self.has[name] for name in branches], axis=0)

    def at_intervals(self, usable: np.ndarray, seconds: float, phase: float = 0.0) -> np.ndarray:
        """Places of usable frames, one every so many seconds of each video; 0 takes all.

        `phase` in [0, 1) moves the grid by that share of the interval, so that epochs see different frames.
        """
        places = np.flatnonzero(usable)
        if seconds == 0:
            return places
        video, cell = self.video[places], np.floor(self.time[places] / seconds + phase)
        first = np.ones(len(places), bool)  # of its interval: time never goes back in a video
        first[1:] = (video[1:] != video[:-1]) | (cell[1:] != cell[:-1])
        return places[first]


class Windows(Dataset):
    """The sample around each frame of an index, by `Draw`."""

    def __init__(self, index: FrameIndex, data: DataSettings, augment: Augment | None = None) -> None:
        self._index, self._augment = index, augment
        self._offsets = (np.arange(data.pictures) - (data.pictures - 1) / 2) * data.spacing

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, draw: Draw) -> tuple[Tensor | None, Tensor | None, int, int]:
        place, seed = draw
        video, row = self._index.videos[self._index.video[place]], int(self._index.row[place])
        sound = sound_window(video, self._index.time[place]) if self._index.has["audio"][place] else None
        pictures = self._pictures(video, row) if self._index.has["visual"][place] else None
        if seed is not None and self._augment is not None:
            sound, pictures = self._augment(sound, pictures, seed)
        return sound, pictures, int(self._index.label[place]), place

    def _pictures(self, video: StoredVideo, row: int) -> Tensor | None:
        """uint8 [f, 3, h, w]: for each offset the picture nearest in time; None where all of them are broken."""
        frames = video.frames
        if len(self._offsets) == 1:
            own = _decode(video, row)
            return None if own is None else own[None]
        crops = np.flatnonzero(frames.has_crop)
        wanted = frames.time[row] + self._offsets
        rows = crops[np.abs(frames.time[crops][None] - wanted[:, None]).argmin(axis=1)]
        pictures = [_decode(video, int(near)) for near in rows]
        whole = [picture for picture in pictures if picture is not None]
        return torch.stack([whole[0] if p is None else p for p in pictures]) if whole else None


def sound_window(video: StoredVideo, time: float) -> Tensor:
    """The steps of sound around a time, float32 [1, t, m], standardised a band over the recording.

    Beyond the recording's ends it is 0, the recording's mean.
    """
    assert video.sound is not None
    assert video.sound_mean is not None
    assert video.sound_std is not None
    first = int(step_at(time)) - SOUND_WINDOW // 2
    start, stop = max(first, 0), min(first + SOUND_WINDOW, len(video.sound))
    window_tm = np.zeros((SOUND_WINDOW, MEL_BANDS), np.float32)
    if start < stop:
        standard = (video.sound[start:stop] - video.sound_mean) / np.maximum(video.sound_std, _LEAST_STD)
        window_tm[start - first : stop - first] = standard
    return torch.from_numpy(window_tm)[None]


def load(windows: Windows, batches: Sequence[Sequence[Draw]], pictures: int, workers: int) -> DataLoader:
    """Batches of draws, in order, read and augmented by worker processes (0: by this one)."""
    return DataLoader(
        windows,
        batch_sampler=batches,  # type: ignore[arg-type]  # any sequence of batches will do
        collate_fn=_Collate(pictures),
        num_workers=workers,
        pin_memory=torch.cuda.is_available(),
    )


def split_batches(draws: Sequence[Draw], size: int) -> list[Sequence[Draw]]:
    """Draws in batches of `size`; the last may be smaller."""
    return [draws[start : start + size] for start in range(0, len(draws), size)]


class _Collate:
    """Samples -> Batch. A class, so that worker processes of any start method can have it."""

    def __init__(self, pictures: int) -> None:
        self._empty_visual = torch.zeros(pictures, 3, CROP_SIDE, CROP_SIDE, dtype=torch.uint8)
        self._empty_audio = torch.zeros(1, SOUND_WINDOW, MEL_BANDS)

    def __call__(self, samples: list[tuple[Tensor | None, Tensor | None, int, int]]) -> Batch:
        sounds, pictures, labels, places = zip(*samples, strict=True)
        inputs, present = {}, {}
        for name, column, empty in zip(
            BRANCHES, (sounds, pictures), (self._empty_audio, self._empty_visual), strict=True
        ):
            inputs[name] = torch.stack([empty if x is None else x for x in column])
            present[name] = torch.tensor([x is not None for x in column])
        return Batch(inputs, present, torch.tensor(labels), torch.tensor(places))


def _has_sound(video: StoredVideo) -> np.ndarray:
    """bool [frames]: whether the recording's sound has not ended by the frame's time."""
    steps = 0 if video.sound is None else len(video.sound)
    return step_at(video.frames.time) < steps


def _decode(video: StoredVideo, row: int) -> Tensor | None:
    """A frame's crop, uint8 [3, h, w]; None where it cannot be decoded."""
    data = video.jpeg(row)
    if data is None:
        return None
    try:
        picture = decode_jpeg(torch.from_numpy(data.copy()), ImageReadMode.RGB)
    except RuntimeError:
        return None
    same = picture.shape[-2:] == (CROP_SIDE, CROP_SIDE)
    return picture if same else resize(picture, [CROP_SIDE, CROP_SIDE], antialias=True)
