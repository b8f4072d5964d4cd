"""Data loaders: batches in a given order, read by worker processes.

Shapes: k frames of an index.
"""

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.windows import Windows

_BATCH = 64
"""Frames in a batch of prediction, or a few more. It changes the speed only, since no gradients are computed."""


class BatchSampler(Sampler[Samples]):
    """The batches that a loader reads next. Set a new list for every epoch: the worker processes stay."""

    def __init__(self) -> None:
        self.batches: Sequence[Samples] = ()

    def __iter__(self) -> Iterator[Samples]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def build_loader(windows: Windows, sampler: BatchSampler, workers: int) -> DataLoader:
    """A loader of the sampler's batches, in order, read and augmented by worker processes (0: by this process)."""
    return DataLoader(
        windows,
        batch_size=None,  # an item of the data set is a batch
        sampler=sampler,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
    )


def load(windows: Windows, batches: Sequence[Samples], workers: int) -> DataLoader:
    """The loader of one list of batches."""
    sampler = BatchSampler()
    sampler.batches = batches
    return build_loader(windows, sampler, workers)


def split_segments(windows: Windows, index: FrameIndex, indices: np.ndarray) -> list[Samples]:
    """Splits ascending indices [k] into batches of about `_BATCH`, at edges of the segments that audio is read in.

    Each segment is then in one batch and is encoded once.
    """
    segment, video = windows.segments(indices), index.video[indices]
    segment = np.arange(len(indices)) // _BATCH if segment is None else segment
    edges = 1 + np.flatnonzero((segment[1:] != segment[:-1]) | (video[1:] != video[:-1]))
    batches, start = [], 0
    for edge in [*edges.tolist(), len(indices)]:
        if edge - start >= _BATCH or edge == len(indices):
            batches.append(Samples(indices[start:edge]))
            start = edge
    return [batch for batch in batches if len(batch)]


def _ignore_signals(worker: int) -> None:
    """A user who stops a run stops its first process, which saves and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
