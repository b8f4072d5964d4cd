"""Chunks of audio, each of which holds the windows of several frames.

The audio windows of neighbouring frames overlap almost entirely. A chunk that covers several windows is read, moved and
encoded once.

Shapes: k windows, g chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.logmel import HOP
from abaw_expr.settings import DataSettings

_SEGMENT = 262_144
"""Samples (16.4 s) from one chunk of a recording to the next at prediction."""
_LEAST_STRIDE = 0.1
"""Seconds between frames that a chunk's length assumes where the stride is smaller, such as 0 for every frame."""


@dataclass(frozen=True)
class AudioWindow:
    """The window of audio that an encoder reads for a frame, in steps of its own. Encoders define it."""

    steps: int
    """Length of the window."""
    stride: int
    """Steps per row of the encoder's feature map."""
    context: int
    """Steps beyond a window on which its rows of the feature map depend."""
    hop: int = HOP
    """Samples a step; by default a step of the store's log-mel."""
    before: int | None = None
    """Steps of it that come before the frame's time; None: half of them."""

    def at(self, seconds: float | np.ndarray) -> np.ndarray:
        """The step nearest to each time in seconds, int64 [...] for times [...]."""
        return np.rint(np.asarray(seconds) / (self.hop / SAMPLE_RATE)).astype(np.int64)

    def start(self, seconds: np.ndarray) -> np.ndarray:
        """int64 [k]: the first step of the window of a frame at each time [k]; negative early in a recording."""
        return self.at(seconds) - (self.steps // 2 if self.before is None else self.before)

    @property
    def segment(self) -> int:
        """Steps from one chunk of a recording to the next at prediction."""
        return _SEGMENT // self.hop

    def whole_rows(self, steps: int) -> int:
        """Rounds steps up to a multiple of the stride."""
        return -(-steps // self.stride) * self.stride


@dataclass(frozen=True)
class Chunks:
    """Chunks of audio, and the chunk that holds each window."""

    first: np.ndarray
    """int64 [g], the first step of each chunk in its recording."""
    chunk: np.ndarray
    """int64 [k], the chunk of each window."""
    steps: int
    """Length of every chunk."""


@dataclass(frozen=True)
class Cut:
    """A way to divide audio into chunks that hold given windows."""

    window: AudioWindow
    divide: Callable[[np.ndarray, np.ndarray], Chunks]
    """Takes keys [k] (windows with different keys, such as videos, share no chunk) and first steps [k] of windows."""

    def __call__(self, keys: np.ndarray, start: np.ndarray) -> Chunks:
        """The chunks of windows, by their keys [k] and first steps [k]."""
        return self.divide(keys, start)


def cut_for_training(data: DataSettings, window: AudioWindow) -> Cut:
    """Chunks for training: one per sequence, with the encoder's context around it; for single frames the window (S)."""
    if data.sequence == 1:
        return merged_windows(window, 0.0)
    longer = 1.2 * (data.sequence - 1) * max(data.stride, _LEAST_STRIDE)  # a stride between frames is approximate
    return merged_windows(window, longer, window.context)


def cut_for_prediction(data: DataSettings, window: AudioWindow) -> Cut:
    """Chunks for prediction, with the context that training had: single windows, or whole recordings in segments."""
    return merged_windows(window, 0.0) if data.sequence == 1 else segments(window)


def merged_windows(window: AudioWindow, seconds: float, context: int = 0) -> Cut:
    """Chunks shared by the windows of a video that begin within `seconds` of the first.

    Each chunk has `context` steps more before its first window and after the last one that fits into it.
    """
    longest = window.whole_rows(window.steps + int(window.at(seconds)))

    def divide(video: np.ndarray, start: np.ndarray) -> Chunks:
        first: list[int] = []
        chunk = np.empty(len(start), np.int64)
        opened = None
        for i in np.lexsort((start, video)):
            if opened is None or video[i] != video[opened] or start[i] + window.steps > first[-1] + longest:
                opened = i
                first.append(int(start[i]))
            chunk[i] = len(first) - 1
        return Chunks(np.array(first, np.int64) - context, chunk, longest + 2 * context)

    return Cut(window, divide)


def segments(window: AudioWindow) -> Cut:
    """Chunks on a fixed grid over each recording, so that a window's features do not depend on the other windows."""

    def divide(video: np.ndarray, start: np.ndarray) -> Chunks:
        keys, chunk = np.unique(np.stack([video, start // window.segment]), axis=1, return_inverse=True)
        steps = window.segment + window.steps + 2 * window.context
        return Chunks(keys[1] * window.segment - window.context, chunk.ravel(), steps)

    return Cut(window, divide)
