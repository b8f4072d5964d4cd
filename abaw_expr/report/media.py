"""What a store shows of a video: crops as thumbnails, and the level of its audio with its voice activity.

Shapes: n times of one video, t steps of log-mel, v steps of voice activity.
"""

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.media.logmel import STEP
from abaw_expr.data.media.voice import VOICE_STEP
from abaw_expr.data.store.store import Store, StoredVideo

QUIETEST = -60.0
"""Decibels below the loudest moment of a video, below which everything counts as silent."""
_DECIBELS = 10 / np.log(10)
_JPEG = b"\xff\xd8"


class AudioLevels(NamedTuple):
    """The audio of a video at some times, float64 [n] each; NaN after its end."""

    level: NDArray[np.float64]
    """Decibels relative to the loudest moment, from `QUIETEST` to 0."""
    voice: NDArray[np.float64]
    """The probability of a voice."""


@dataclass(frozen=True)
class Media:
    """The videos of a store, by name."""

    videos: Mapping[str, StoredVideo]

    @classmethod
    def of(cls, store: Store) -> "Media":
        """All videos of the store, of any split."""
        return cls({video.name: video for video in store.videos})

    def thumbnail(self, name: str, first: int, last: int) -> str | None:
        """The crop nearest to the middle of some frames, counted from 1, as a `data:` address; None without one."""
        video = self.videos.get(name)
        if video is None:
            return None
        has = np.flatnonzero(video.frames.has_crop[first - 1 : last]) + first - 1
        if not len(has):
            return None
        row = int(has[np.abs(has - (first + last - 2) / 2).argmin()])
        data = bytes(video.jpeg(row) or b"")
        return f"data:image/jpeg;base64,{base64.b64encode(data).decode()}" if data.startswith(_JPEG) else None

    def audio(self, name: str, time: NDArray[np.float64]) -> AudioLevels | None:
        """The largest level and voice probability from each time to the next, [n]; None where it has no audio."""
        video = self.videos.get(name)
        if video is None or video.audio is None or video.voice is None or not len(video.audio):
            return None
        power = np.exp(np.asarray(video.audio, np.float32)).sum(axis=1)  # [t]
        level = _DECIBELS * np.log(power / power.max())
        voice = np.asarray(video.voice, np.float64)
        return AudioLevels(np.maximum(_largest(level, time, STEP), QUIETEST), _largest(voice, time, VOICE_STEP))


def _largest(steps: NDArray[np.floating], time: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """The largest of the steps from each time to the next, NaN where there is none: [t], [n] -> [n]."""
    start = np.clip(np.rint(time / seconds).astype(np.intp), 0, None)
    inside = start < len(steps)
    found = np.full(len(time), np.nan)
    if inside.any():
        found[inside] = np.maximum.reduceat(steps.astype(np.float64), start[inside])
    return found
