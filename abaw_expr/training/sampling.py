"""Which frames an epoch trains on, in which order, and what each process takes of them.

Shapes: n frames of an index, k usable ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from abaw_expr.data.store import Store
from abaw_expr.data.windows import Draws, FrameIndex, draw_noise
from abaw_expr.errors import StoreError
from abaw_expr.settings import DataSettings, Settings
from abaw_expr.tasks import Task


@dataclass(frozen=True)
class Frames:
    """The frames of a split that a run may use: annotated, and with a modality that is trained."""

    index: FrameIndex
    usable: np.ndarray
    """bool [n]."""

    def weights(self, data: DataSettings) -> np.ndarray:
        """How likely each frame of the index is drawn, [n], to be normalised; 0 where it is not usable.

        The size of its class to the power of minus `balance`, times that of its video to minus `video_balance`.
        """
        label, video = self.index.label[self.usable], self.index.video[self.usable]
        weights = np.zeros(len(self.index))
        weights[self.usable] = (
            np.bincount(label)[label] ** -data.balance * np.bincount(video)[video] ** -data.video_balance
        )
        return weights

    def class_shares(self, data: DataSettings, task: Task) -> list[float]:
        """Share of each class among the frames that training draws."""
        weights = self.weights(data)[self.usable]
        drawn = np.bincount(self.index.label[self.usable], weights, minlength=task.n_classes)
        return (drawn / drawn.sum()).tolist()


def usable_frames(store: Store, split: str, settings: Settings) -> Frames:
    """The usable frames of a split. Raises StoreError where there are none."""
    index = FrameIndex(store.split(split))
    usable = (index.label >= 0) & index.present(settings.model.branches)
    if not usable.any():
        what = " or ".join(settings.model.branches)
        raise StoreError(f"has no annotated {split} frame with {what} input", path=store.root)
    return Frames(index, usable)


def draw_epoch(frames: Frames, settings: Settings, epoch: int) -> Draws:
    """An epoch's frames in their order, with the random numbers of their augmentation.

    One frame an interval of each video, from a grid that moves with the epoch; where classes or videos are balanced,
    drawn from those with replacement. With neighbours, as many groups of them as the same number of frames makes.
    """
    data = settings.data
    rng = np.random.default_rng([settings.seed, epoch])
    places = frames.index.at_intervals(frames.usable, data.interval, rng.random())
    groups = -(-len(places) // data.neighbours)
    if data.balance or data.video_balance:
        chances = frames.weights(data)[places]
        anchors = rng.choice(len(places), groups, p=chances / chances.sum())
        anchors -= rng.integers(data.neighbours, size=groups)  # the frame drawn may be any of its group
    else:
        anchors = rng.permutation(groups) * data.neighbours
    order = places[_groups(frames.index.video[places], anchors, data.neighbours)]
    # What else is in a batch must not change what a group hears, or the number of devices would.
    return Draws(order, draw_noise(rng, len(order)), np.arange(len(order)) // data.neighbours)


def _groups(video: np.ndarray, anchors: np.ndarray, size: int) -> np.ndarray:
    """int [groups x size]: runs of `size` places from near each anchor, moved so that they stay in one video.

    In a video of fewer places the last of them is repeated.
    """
    anchors = anchors.clip(0)
    ends = np.searchsorted(video, video[anchors], side="right")
    begins = np.searchsorted(video, video[anchors], side="left")
    first = np.maximum(np.minimum(anchors, ends - size), begins)
    return np.minimum(first[:, None] + np.arange(size), ends[:, None] - 1).ravel()


def split_steps(draws: Draws, settings: Settings, process: int, processes: int) -> list[list[Draws]]:
    """What one process reads of every step: its share of the batch, in parts; each step has as many in all processes.

    Neighbours stay together. A process may have nothing of the last step's part.
    """
    size, group = settings.optimiser.batch_size, settings.data.neighbours
    share = -(-size // processes)
    parts = -(-share // (settings.compute.part or share))
    return [
        _parts(draws[start : start + size], group, process * parts, processes * parts, parts)
        for start in range(0, len(draws), size)
    ]


def _parts(batch: Draws, group: int, first: int, pieces: int, count: int) -> list[Draws]:
    """`count` of the `pieces` that a batch is cut in, from piece `first` on; pieces differ by one group at most."""
    groups = -(-len(batch) // group)
    edges = [groups * piece // pieces * group for piece in range(first, first + count + 1)]
    return [batch[start:stop] for start, stop in pairwise(edges)]


def flatten(steps: Sequence[Sequence[Draws]]) -> list[Draws]:
    """All parts of some steps, one after the other."""
    return [part for parts in steps for part in parts]
