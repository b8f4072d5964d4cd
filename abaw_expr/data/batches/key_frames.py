"""Key frames: how much is said, and how much is seen to move, around each frame of a video.

A frame's activity in a modality is a number in [0, 1], a mean over the stretch of 3 s around it; the streams of a
branch are weighed by it (`models.join`). The sources publish no formula for the entropy change and the weights
(arXiv 2503.11935, version 1); what stands here is derived (D).

Shapes: T frames of a video, e steps of 0.4 s, j steps of a grid.
"""

from collections.abc import Callable

import numpy as np

from abaw_expr.data.media.entropy import ENTROPY_STEP
from abaw_expr.data.media.voice import VOICE_STEP
from abaw_expr.data.store.store import StoredVideo

STRETCH = 3.0
"""Seconds around a frame; the window of audio that MCNN reads is 2.9 s."""
_LEAST_CHANGE = 0.05
"""Bits: the least usual change. What codecs do to a picture that stands still is less (H.264: 0.002)."""


def voice_activity(video: StoredVideo) -> np.ndarray:
    """The mean probability of a voice around each frame, float32 [T]; 0 without audio."""
    if video.voice is None:
        return np.zeros(len(video.frames), np.float32)
    return _mean_around(video.frames.time, video.voice.astype(np.float64), VOICE_STEP, 0.0)


def entropy_change(video: StoredVideo) -> np.ndarray:
    """The mean change of entropy from crop to crop around each frame, as a fraction of the usual one, float32 [T].

    A change counts 1 from the video's median change on; where no change is known, the fraction is 1. Without crops it
    is 0.
    """
    if video.entropy is None:
        return np.zeros(len(video.frames), np.float32)
    change = changes(video.entropy)
    known = change[~np.isnan(change)]
    usual = max(float(np.median(known)) if len(known) else 0.0, _LEAST_CHANGE)
    return _mean_around(video.frames.time, np.minimum(change / usual, 1.0), ENTROPY_STEP, 1.0)


def changes(entropy: np.ndarray) -> np.ndarray:
    """The change from the last known entropy to each of [e], float64 [e]; NaN where either is not known."""
    change, known = np.full(len(entropy), np.nan), np.flatnonzero(~np.isnan(entropy))
    change[known[1:]] = np.abs(np.diff(entropy[known].astype(np.float64)))
    return change


ACTIVITY: dict[str, Callable[[StoredVideo], np.ndarray]] = {
    "audio": voice_activity,
    "waveform": voice_activity,
    "visual": entropy_change,
}
"""The activity of a modality around each frame of a video, float32 [T] in [0, 1]; a modality without one always has
1."""


def _mean_around(time: np.ndarray, steps: np.ndarray, seconds: float, unknown: float) -> np.ndarray:
    """Means of steps [j], each of so many seconds, over the stretch around each time [T], float32 [T].

    NaN are left out; `unknown` stands where nothing else is in the stretch.
    """
    has = ~np.isnan(steps)
    sums, counts = (np.concatenate([[0.0], np.cumsum(x)]) for x in (np.where(has, steps, 0.0), has))
    first = np.floor((time - STRETCH / 2) / seconds).astype(np.int64).clip(0, len(steps))
    last = np.ceil((time + STRETCH / 2) / seconds).astype(np.int64).clip(0, len(steps))
    count = counts[last] - counts[first]
    mean = (sums[last] - sums[first]) / np.maximum(count, 1)
    return np.where(count > 0, mean, unknown).astype(np.float32)
