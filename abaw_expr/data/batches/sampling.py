"""Which frames an epoch trains on, in which order, and what each process takes of them.

Shapes: n frames of an index, k places of usable ones, s stores, c classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from abaw_expr.data.batches.frames import Draws, FrameIndex, draw_noise
from abaw_expr.data.store.store import Store
from abaw_expr.errors import StoreError
from abaw_expr.settings import DataSettings, Settings
from abaw_expr.tasks.task import Task

_PHASES = 16
"""Grids over which shares are averaged where no formula gives them."""


@dataclass(frozen=True)
class Frames:
    """The frames of a split that a run may use: annotated, and with a modality that is trained."""

    index: FrameIndex
    usable: np.ndarray
    """bool [n]."""
    extras: tuple[tuple[int, float], ...] = ()
    """Of each store beside the main one its first place in the index, and its share of an epoch's samples."""

    @property
    def shares(self) -> np.ndarray:
        """[s], each store's share of an epoch's samples, the main one first."""
        extras = [share for _, share in self.extras]
        return np.array([1 - sum(extras), *extras])

    def store(self, places: np.ndarray) -> np.ndarray:
        """int [k], which store each place is of."""
        return np.searchsorted([first for first, _ in self.extras], places, side="right")

    def chances(self, data: DataSettings, places: np.ndarray, interval: float) -> np.ndarray:
        """How likely an epoch draws each of these usable places, which are a grid of this interval (seconds), [k].

        They sum to a store's share over its places. Within it a chance goes by the size of the frame's video to the
        power of minus `video_balance`, and by that of its class, in all stores together, so that the classes drawn are
        their sizes to the power of 1 - `balance`, as far as the shares allow. A size is how many frames the epochs'
        grids hold, as a mean over their phases: a video of many frames a second has no more of them than another. A
        place counts as much more as the epochs' grids hold it more often than its own grid does.
        """
        label, video = self.index.label, self.index.video
        used, held = np.flatnonzero(self.usable), self.index.frequency(self.usable, data.interval)
        sizes = np.zeros((len(self.shares), label.max() + 1))
        np.add.at(sizes, (self.store(used), label[used]), held[used])
        lengths = np.bincount(video, held, len(self.index.videos))
        store = self.store(places)
        weights = _evened(sizes, self.shares, data.balance)[store, label[places]]
        weights *= np.maximum(lengths, 1)[video[places]] ** -data.video_balance
        weights *= held[places] / self.index.frequency(self.usable, interval)[places]
        return weights * (self.shares / np.bincount(store, weights, len(self.shares)))[store]

    def class_shares(self, data: DataSettings, task: Task) -> list[float]:
        """Share of each class among the frames that training draws, as a mean over the phases of its grid."""
        if data.neighbours > 1 and (data.balance or data.video_balance):
            return self._grouped_shares(data, task)
        used = np.flatnonzero(self.usable)
        chances = self.chances(data, used, interval=0)
        return np.bincount(self.index.label[used], chances, minlength=task.n_columns).tolist()

    def _grouped_shares(self, data: DataSettings, task: Task) -> list[float]:
        """The same of groups of neighbours: whoever is drawn brings frames that may be of other classes."""
        size, counts = data.neighbours, np.zeros(task.n_columns)
        for phase in (np.arange(_PHASES) + 0.5) / _PHASES:
            places = self.index.at_intervals(self.usable, data.interval, phase)
            chances, video = self.chances(data, places, data.interval), self.index.video[places]
            begin = np.searchsorted(video, video, side="left")
            for before in range(size):
                first = np.maximum(np.arange(len(places)) - before, begin)
                label = self.index.label[places[_groups(video, first, size)]]
                counts += np.bincount(label, np.repeat(chances, size), task.n_columns)
        return (counts / counts.sum()).tolist()


def usable_frames(store: Store, split: str, settings: Settings) -> Frames:
    """The usable frames of a split; of the training split, those of the stores beside it too.

    Raises StoreError where a store has none.
    """
    extras = store.extras if split == "train" else ()
    stores = [store, *(extra.store for extra in extras)]
    videos = [each.split(split) for each in stores]
    index = FrameIndex([*chain.from_iterable(videos)])
    usable = (index.label >= 0) & index.present(settings.model.branches)
    edges = np.cumsum([0, *(sum(len(video.frames) for video in own) for own in videos)]).tolist()
    for each, (start, stop) in zip(stores, pairwise(edges), strict=True):
        if not usable[start:stop].any():
            what = " or ".join(settings.model.branches)
            raise StoreError(f"has no annotated {split} frame with {what} input", path=each.root)
    return Frames(index, usable, tuple((start, e.share) for start, e in zip(edges[1:-1], extras, strict=True)))


def draw_epoch(frames: Frames, settings: Settings, epoch: int) -> Draws:
    """An epoch's frames in their order, with the random numbers of their augmentation.

    One frame an interval of each video, from a grid that moves with the epoch; where classes or videos are balanced,
    drawn from those with replacement. With neighbours, as many groups of them as the same number of frames makes.
    The main store's frames are as many as without others; these add as many as makes their shares.
    """
    data = settings.data
    rng = np.random.default_rng([settings.seed, epoch])
    places = frames.index.at_intervals(frames.usable, data.interval, rng.random())
    balanced = bool(data.balance or data.video_balance)
    chances = frames.chances(data, places, data.interval) if balanced else None
    store, size = frames.store(places), data.neighbours
    groups, pieces = -(-np.count_nonzero(store == 0) // size), []
    for number, share in enumerate(frames.shares):
        mine = np.flatnonzero(store == number)
        count, video = round(groups * share / frames.shares[0]), frames.index.video[places[mine]]
        if chances is None:
            first = _in_turns(rng, video, count, size)
        else:
            first = _drawn(rng, video, chances[mine], count, size)
        pieces.append(places[mine][_groups(video, first, size)])
    order = np.concatenate(pieces)
    if frames.extras:
        order = rng.permutation(order.reshape(-1, size)).ravel()
    # What else is in a batch must not change what a group hears, or the number of devices would.
    return Draws(order, draw_noise(rng, len(order)), np.arange(len(order)) // size)


def _evened(sizes: np.ndarray, shares: np.ndarray, balance: float) -> np.ndarray:
    """Weight of a frame by store and class, [s, c], from how many frames each has: see `Frames.chances`.

    By iterative proportional fitting (Deming and Stephan 1940). Where only small stores have a class, it stays below
    what it should be.
    """
    fitted = natural = sizes / sizes.sum(axis=1, keepdims=True) * shares[:, None]
    there = natural.sum(axis=0) > 0
    wanted = np.where(there, natural.sum(axis=0), 1.0) ** (1 - balance) * there
    wanted /= wanted.sum()
    for _ in range(100 if balance else 0):
        fitted = fitted * wanted / np.where(there, fitted.sum(axis=0), 1.0)
        fitted = fitted * (shares / fitted.sum(axis=1))[:, None]
    return np.divide(fitted, sizes, out=np.zeros_like(fitted), where=sizes > 0)


def _drawn(rng: np.random.Generator, video: np.ndarray, chances: np.ndarray, count: int, size: int) -> np.ndarray:
    """int [count], where groups of a store's places [k] begin: around places that are drawn by their chances.

    The place drawn may be any of its group, and the group lies in its video.
    """
    drawn = rng.choice(len(video), count, p=chances / chances.sum())
    begin = np.searchsorted(video, video[drawn], side="left")
    return np.maximum(drawn - rng.integers(size, size=count), begin)


def _in_turns(rng: np.random.Generator, video: np.ndarray, count: int, size: int) -> np.ndarray:
    """int [count], where groups of a store's places [k] begin that cover every video, all once before any again."""
    _, begin, length = np.unique(video, return_index=True, return_counts=True)
    first = np.concatenate([start + np.arange(0, n, size) for start, n in zip(begin, length, strict=True)])
    turns = [rng.permutation(len(first)) for _ in range(max(-(-count // len(first)), 1))]
    return first[np.concatenate(turns)[:count]]


def _groups(video: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """int [groups x size]: runs of `size` places from each first one, moved so that they end in its video.

    In a video of fewer places the last of them is repeated.
    """
    begin, end = (np.searchsorted(video, video[first], side=side) for side in ("left", "right"))
    moved = np.maximum(np.minimum(first, end - size), begin)
    return np.minimum(moved[:, None] + np.arange(size), end[:, None] - 1).ravel()


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
