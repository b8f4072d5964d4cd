"""Batches in order, read by worker processes."""

import signal
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from torch.utils.data import DataLoader, Sampler

from abaw_expr.data.batches.chunks import SEGMENT, AudioWindow
from abaw_expr.data.batches.frames import Draws, FrameIndex
from abaw_expr.data.batches.windows import Windows

_BATCH = 64
"""Frames, or a few more, that a batch of prediction holds; without gradients it changes speed only."""


class Plan(Sampler[Draws]):
    """What a loader reads next; a new list for every epoch, so that its worker processes can stay."""

    def __init__(self) -> None:
        self.batches: Sequence[Draws] = ()

    def __iter__(self) -> Iterator[Draws]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


def build_loader(windows: Windows, plan: Plan, workers: int) -> DataLoader:
    """Batches of a plan, in order, read and augmented by worker processes (0: by this one)."""
    return DataLoader(
        windows,
        batch_size=None,  # a batch is read as one
        sampler=plan,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=_ignore_signals,
    )


def load(windows: Windows, batches: Sequence[Draws], workers: int) -> DataLoader:
    """The loader of one list of batches."""
    plan = Plan()
    plan.batches = batches
    return build_loader(windows, plan, workers)


def split_segments(index: FrameIndex, places: np.ndarray, window: AudioWindow) -> list[Draws]:
    """Ascending places in batches of about `_BATCH` that never cut a segment of sound, so that none is heard twice."""
    segment = index.window_start(places, window.steps) // SEGMENT
    video = index.video[places]
    edges = 1 + np.flatnonzero((segment[1:] != segment[:-1]) | (video[1:] != video[:-1]))
    batches, start = [], 0
    for edge in [*edges.tolist(), len(places)]:
        if edge - start >= _BATCH or edge == len(places):
            batches.append(Draws(places[start:edge]))
            start = edge
    return [batch for batch in batches if len(batch)]


def _ignore_signals(worker: int) -> None:
    """Who stops a run stops its first process, which saves and then ends its workers."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
