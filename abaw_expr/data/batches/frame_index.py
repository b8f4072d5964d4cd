"""The index of the frames of some videos, and the samples drawn from it: store -> batches.

Shapes: n frames of an index, k of them, b samples, F fields of a task.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from abaw_expr.data.batches.augment import NOISE
from abaw_expr.data.batches.key_frames import ACTIVITY
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.logmel import step_at
from abaw_expr.data.store.arrays import release
from abaw_expr.data.store.store import StoredVideo
from abaw_expr.tasks.statistics import is_annotated
from abaw_expr.tasks.task import Task

_STAMP = 1e-3
"""Seconds to which containers round time stamps at most (Matroska)."""


@dataclass(frozen=True)
class Samples:
    """Frames to read, with the random numbers of their augmentation."""

    indices: np.ndarray
    """int64 [b], indices of the frames in a `FrameIndex`."""
    noise: np.ndarray | None = None
    """float32 [b, NOISE], uniform in [0, 1): the random numbers of each sample's augmentation (None: none)."""
    group: np.ndarray | None = None
    """int64 [b], ascending: samples of one group may share a chunk of audio (None: all samples of a video)."""
    beyond: np.ndarray | None = None
    """bool [b], samples that fill up a stretch beyond the end of its video: nothing of them is read (None: none)."""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, rows: slice) -> "Samples":
        noise, group, beyond = (None if x is None else x[rows] for x in (self.noise, self.group, self.beyond))
        return Samples(self.indices[rows], noise, group, beyond)


class FrameIndex:
    """Every frame of some videos in columns, each [n]: its video, row, time, label ([n] or [n, F]) and modalities."""

    def __init__(self, videos: Sequence[StoredVideo], task: Task) -> None:
        self.videos, self.task = tuple(videos), task
        self.video = np.concatenate([np.full(len(v.frames), i, np.int32) for i, v in enumerate(videos)])
        self.row = np.concatenate([np.arange(len(v.frames), dtype=np.int32) for v in videos])
        self.time = np.concatenate([v.frames.time for v in videos])
        self.label = np.concatenate([v.frames.label for v in videos])
        self.has = _Has(self.videos)

    @property
    def annotated(self) -> np.ndarray:
        """bool [n]: frames with a label, or with one of their labels."""
        return np.any(is_annotated(self.label, self.task).reshape(len(self), -1), axis=1)

    @cached_property
    def activity(self) -> dict[str, np.ndarray]:
        """How much is said and seen to move around each frame, float32 [n] in [0, 1] by modality (`key_frames`).

        Raises StoreError where a store was prepared before it kept that.
        """
        return {name: np.concatenate([of(video) for video in self.videos]) for name, of in ACTIVITY.items()}

    def target(self, indices: np.ndarray) -> np.ndarray:
        """What a network is to say of frames, by indices [k]: int64 [k], the class, -1 where not annotated; of values
        and units float32 [k, F], NaN where not annotated."""
        label = self.label[indices]
        if self.task.one_class:
            return label.astype(np.int64)
        return np.where(is_annotated(label, self.task), label.astype(np.float32), np.float32(np.nan))

    def __len__(self) -> int:
        return len(self.video)

    def present(self, modalities: Sequence[str]) -> np.ndarray:
        """bool [n]: frames that have at least one of these modalities."""
        return np.any([self.has[name] for name in modalities], axis=0)

    def at_stride(self, usable: np.ndarray, seconds: float, phase: float = 0.0) -> np.ndarray:
        """Indices int64 [k] of the first usable frame (bool [n]) in each stride of `seconds` of each video; 0: of all.

        `phase` in [0, 1) moves the grid by that fraction of the stride, so that epochs use different frames.
        """
        indices = np.flatnonzero(usable)
        if seconds == 0:
            return indices
        video, cell = self.video[indices], np.floor(self._in_strides(indices, seconds) + phase)
        first = np.ones(len(indices), bool)  # of its cell: times never decrease within a video
        first[1:] = (video[1:] != video[:-1]) | (cell[1:] != cell[:-1])
        return indices[first]

    def frequency(self, usable: np.ndarray, seconds: float) -> np.ndarray:
        """float64 [n]: how often `at_stride` takes each frame, as a mean over phases; 0 for frames not usable [n].

        A frame is the first of its cell where an edge of the grid lies between it and the usable frame before it.
        """
        indices = np.flatnonzero(usable)
        often = usable.astype(np.float64)
        if seconds:
            apart = np.diff(self._in_strides(indices, seconds)).clip(0, 1)
            often[indices[1:]] = np.where(self.video[indices[1:]] == self.video[indices[:-1]], apart, 1.0)
        return often

    def _in_strides(self, indices: np.ndarray, seconds: float) -> np.ndarray:
        """Times [k] in strides. A time at an edge is exactly on it, whatever floats or milliseconds (Matroska) add."""
        time = self.time[indices]
        strides = np.round(time / seconds, 6)
        edge = np.round(strides)
        return np.where(np.abs(time - edge * seconds) <= _STAMP / 2 + 1e-9, edge, strides)


class _Has(dict[str, np.ndarray]):
    """Which frames have a modality, bool [n] by its name; looked up in the store when it is first asked for."""

    def __init__(self, videos: Sequence[StoredVideo]) -> None:
        super().__init__()
        self._videos = videos

    def __missing__(self, name: str) -> np.ndarray:
        kind, _, which = name.partition(":")
        self[name] = np.concatenate([HAS[kind](video, which) for video in self._videos])
        return self[name]


def draw_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """The random numbers of the augmentation of `count` samples, float32 [count, NOISE], uniform in [0, 1)."""
    return rng.random((count, NOISE), np.float32)


def _has_audio(video: StoredVideo, which: str) -> np.ndarray:
    """bool [frames]: whether the recording's audio lasts to the frame's time."""
    steps = 0 if video.audio is None else len(video.audio)
    return step_at(video.frames.time) < steps


def _has_waveform(video: StoredVideo, which: str) -> np.ndarray:
    """bool [frames]: the same of its samples."""
    samples = 0 if video.waveform is None else len(video.waveform)
    return np.rint(video.frames.time * SAMPLE_RATE) < samples


def _has_crop(video: StoredVideo, which: str) -> np.ndarray:
    """bool [frames]: whether the frame has a face crop."""
    return video.frames.has_crop


def _has_embedding(video: StoredVideo, which: str) -> np.ndarray:
    """bool [frames]: whether the frame has an embedding of that name."""
    has = np.zeros(len(video.frames), bool)
    rows = video.embedding(which)
    has[: len(rows)] = ~np.isnan(rows[:, 0])
    release(rows)
    return has


HAS: dict[str, Callable[[StoredVideo, str], np.ndarray]] = {
    "audio": _has_audio,
    "visual": _has_crop,
    "waveform": _has_waveform,
    "embedding": _has_embedding,
}
"""Which frames of a video have a modality, bool [frames]; a new modality is entered here and in `MODALITIES`. Of one
that there are several of, such as `embedding:faces`, the second argument is what is behind the colon."""
