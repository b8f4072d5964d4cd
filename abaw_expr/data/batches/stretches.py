"""Stretches of consecutive frames for temporal models: never across videos, a short last one filled up.

Shapes: k frames of a grid, s stretches of t frames.
"""

from dataclasses import dataclass

import numpy as np

from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.settings import DataSettings


@dataclass(frozen=True)
class Stretches:
    """Stretches of a grid of frames."""

    indices: np.ndarray
    """int64 [s, t], indices of frames in a `FrameIndex`; beyond the end of a video that of its last frame."""
    beyond: np.ndarray
    """bool [s, t], what lies beyond the end of its video."""

    def __getitem__(self, rows: np.ndarray) -> "Stretches":
        return Stretches(self.indices[rows], self.beyond[rows])

    def __len__(self) -> int:
        return len(self.indices)

    def samples(self, noise: np.ndarray | None = None) -> Samples:
        """Their frames in order, a group a stretch; `noise`, [s, NOISE], is that of all frames of a stretch."""
        size = self.indices.shape[1]
        repeated = None if noise is None else noise.repeat(size, axis=0)
        return Samples(self.indices.ravel(), repeated, np.arange(len(self)).repeat(size), self.beyond.ravel())


def cut_stretches(index: FrameIndex, grid: np.ndarray, data: DataSettings) -> Stretches:
    """The stretches of `data.sequence` frames of a grid [k], which ascends, one every `data.hop` frames of each video.

    The first begins with the video. The last is the first that reaches the video's end, and may be short.
    """
    size, hop = data.sequence, data.hop or data.sequence
    _, begin, length = np.unique(index.video[grid], return_index=True, return_counts=True)
    firsts, ends = [], []
    for start, count in zip(begin.tolist(), length.tolist(), strict=True):
        number = 1 + max(-(-(count - size) // hop), 0)
        firsts.append(start + hop * np.arange(number))
        ends.append(np.full(number, start + count))
    positions = np.concatenate(firsts)[:, None] + np.arange(size)
    last = np.concatenate(ends)[:, None] - 1
    return Stretches(grid[np.minimum(positions, last)], positions > last)


def time_grid(index: FrameIndex, stride: float, phase: float = 0.0) -> np.ndarray:
    """Indices int64 [k] of a frame every `stride` seconds of each video, whether or not it is annotated or has a
    modality: the clock of temporal models. `phase` is as in `FrameIndex.at_stride`."""
    return index.at_stride(np.ones(len(index), bool), stride, phase)
