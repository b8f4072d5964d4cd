"""Chunks of audio that carry the windows of many frames.

Neighbouring frames hear almost the same three seconds, so audio travels in chunks that hold the windows of several.
Shapes: k windows, g chunks.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from abaw_expr.data.media.logmel import step_at
from abaw_expr.settings import DataSettings

SEGMENT = 1024
"""Steps (16.4 s) between the chunks that a recording is heard in at prediction."""
_LEAST_INTERVAL = 0.1
"""Seconds from frame to frame that are reckoned with where every frame is taken."""


@dataclass(frozen=True)
class AudioWindow:
    """The stretch of log-mel audio around a frame that an audio encoder takes, in steps of it; the encoder says it."""

    steps: int
    """Length of the window."""
    stride: int
    """Steps that a row of the encoder's feature map stands for."""
    context: int
    """Steps beyond a window that its row of the map depends on."""

    def whole_rows(self, steps: int) -> int:
        """Steps made up to a multiple of the stride."""
        return -(-steps // self.stride) * self.stride


@dataclass(frozen=True)
class Chunks:
    """Which chunk of sound each window lies in."""

    first: np.ndarray
    """int64 [g], the step of the recording at which the chunk begins."""
    chunk: np.ndarray
    """int64 [k], the chunk of each window."""
    steps: int
    """Length of every chunk."""


@dataclass(frozen=True)
class Cut:
    """Lays windows into chunks."""

    window: AudioWindow
    lay: Callable[[np.ndarray, np.ndarray], Chunks]
    """From keys [k], one key a chunk, such as the video of a window, and the first steps [k] of windows."""

    def __call__(self, keys: np.ndarray, start: np.ndarray) -> Chunks:
        return self.lay(keys, start)


def cut_for_training(data: DataSettings, window: AudioWindow) -> Cut:
    """Chunks of an epoch: neighbours share one, with the sound around it; alone, a frame hears its window only (S)."""
    if data.neighbours == 1:
        return merged(window, 0.0)
    longer = 1.2 * (data.neighbours - 1) * max(data.interval, _LEAST_INTERVAL)  # frames are only about as far apart
    return merged(window, longer, window.context)


def cut_for_prediction(data: DataSettings, window: AudioWindow) -> Cut:
    """Chunks that sound to the network as those of its training do: windows alone, or recordings in one pass."""
    return merged(window, 0.0) if data.neighbours == 1 else segments(window)


def merged(window: AudioWindow, seconds: float, context: int = 0) -> Cut:
    """Windows of a video share a chunk where they are not more than `seconds` apart.

    Every chunk goes on for `context` steps before the first and after the last window that it has room for.
    """
    longest = window.whole_rows(window.steps + int(step_at(seconds)))

    def lay(video: np.ndarray, start: np.ndarray) -> Chunks:
        first: list[int] = []
        chunk = np.empty(len(start), np.int64)
        opened = None
        for place in np.lexsort((start, video)):
            if opened is None or video[place] != video[opened] or start[place] + window.steps > first[-1] + longest:
                opened = place
                first.append(int(start[place]))
            chunk[place] = len(first) - 1
        return Chunks(np.array(first, np.int64) - context, chunk, longest + 2 * context)

    return Cut(window, lay)


def segments(window: AudioWindow) -> Cut:
    """Chunks of a fixed grid over each recording, so that what else is asked for does not change what a frame gets."""

    def lay(video: np.ndarray, start: np.ndarray) -> Chunks:
        keys, chunk = np.unique(np.stack([video, start // SEGMENT]), axis=1, return_inverse=True)
        steps = SEGMENT + window.steps + 2 * window.context
        return Chunks(keys[1] * SEGMENT - window.context, chunk.ravel(), steps)

    return Cut(window, lay)
