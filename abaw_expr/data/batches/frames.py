"""The frames of an index, and samples drawn from them: store -> batches.

Shapes: n frames of an index, b samples.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from abaw_expr.data.batches.augment import NOISE
from abaw_expr.data.media.logmel import step_at
from abaw_expr.data.store.store import StoredVideo

_STAMP = 1e-3
"""Seconds to which containers round time stamps at most (Matroska)."""


@dataclass(frozen=True)
class Draws:
    """Frames to be read."""

    place: np.ndarray
    """int64 [b], places in the index."""
    noise: np.ndarray | None = None
    """float32 [b, NOISE], uniform in [0, 1): the random numbers of each sample's augmentation (None: none)."""
    group: np.ndarray | None = None
    """int64 [b], ascending: draws that may be heard together (None: all of a video)."""

    def __len__(self) -> int:
        return len(self.place)

    def __getitem__(self, rows: slice) -> "Draws":
        noise, group = (None if x is None else x[rows] for x in (self.noise, self.group))
        return Draws(self.place[rows], noise, group)


class FrameIndex:
    """Every frame of some videos in columns: where it is, when, its label and what it has."""

    def __init__(self, videos: Sequence[StoredVideo]) -> None:
        self.videos = tuple(videos)
        self.video = np.concatenate([np.full(len(v.frames), i, np.int32) for i, v in enumerate(videos)])
        self.row = np.concatenate([np.arange(len(v.frames), dtype=np.int32) for v in videos])
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
        video, cell = self.video[places], np.floor(self._intervals(places, seconds) + phase)
        first = np.ones(len(places), bool)  # of its interval: time never goes back in a video
        first[1:] = (video[1:] != video[:-1]) | (cell[1:] != cell[:-1])
        return places[first]

    def frequency(self, usable: np.ndarray, seconds: float) -> np.ndarray:
        """float64 [n]: how often `at_intervals` takes each frame, as a mean over phases; 0 where it is not usable.

        It is the first of its interval where a border lies between it and the usable frame before it.
        """
        places = np.flatnonzero(usable)
        often = usable.astype(np.float64)
        if seconds:
            apart = np.diff(self._intervals(places, seconds)).clip(0, 1)
            often[places[1:]] = np.where(self.video[places[1:]] == self.video[places[:-1]], apart, 1.0)
        return often

    def _intervals(self, places: np.ndarray, seconds: float) -> np.ndarray:
        """Times in intervals. One at a border is on it, whatever its last bits, or milliseconds in Matroska, are."""
        time = self.time[places]
        intervals = np.round(time / seconds, 6)
        border = np.round(intervals)
        return np.where(np.abs(time - border * seconds) <= _STAMP / 2 + 1e-9, border, intervals)

    def window_start(self, places: np.ndarray, steps: int) -> np.ndarray:
        """int64 [b]: the step at which the window of so many steps around each place [b] begins.

        It is below 0 early in a recording.
        """
        return step_at(self.time[places]) - steps // 2


def draw_noise(rng: np.random.Generator, count: int) -> np.ndarray:
    """The random numbers of that many samples' augmentation."""
    return rng.random((count, NOISE), np.float32)


def _has_sound(video: StoredVideo) -> np.ndarray:
    """bool [frames]: whether the recording's sound has not ended by the frame's time."""
    steps = 0 if video.sound is None else len(video.sound)
    return step_at(video.frames.time) < steps
