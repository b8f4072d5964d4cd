"""Which frames an epoch trains on, in which order, and which of them each process reads.

Shapes: n frames of an index, k of them that are usable, s stores, c strata (classes, or bins of values), C columns.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

import numpy as np

from abaw_expr.data.batches.frame_index import FrameIndex, Samples, draw_noise
from abaw_expr.data.batches.stretches import Stretches, cut_stretches, time_grid
from abaw_expr.data.store.store import Store
from abaw_expr.errors import StoreError
from abaw_expr.settings import DataSettings, Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task

_PHASES = 16
"""Grids over which class fractions are averaged where no formula gives them."""


@dataclass(frozen=True)
class UsableFrames:
    """The frames of a split that a run may use: annotated, and with a modality that is trained."""

    frame_index: FrameIndex
    usable: np.ndarray
    """bool [n]."""
    extras: tuple[tuple[int, float], ...] = ()
    """For each store after the main one: the index of its first frame, and its fraction of an epoch's samples."""

    @property
    def fractions(self) -> np.ndarray:
        """float64 [s], each store's fraction of an epoch's samples, the main store first."""
        extras = [fraction for _, fraction in self.extras]
        return np.array([1 - sum(extras), *extras])

    def store_of(self, indices: np.ndarray) -> np.ndarray:
        """int64 [k], the store of each frame, by indices [k]."""
        return np.searchsorted([first for first, _ in self.extras], indices, side="right")

    def probabilities(self, data: DataSettings, indices: np.ndarray, stride: float) -> np.ndarray:
        """float64 [k], the probability with which an epoch draws each usable frame, by indices [k] at this stride.

        The probabilities of a store's frames sum to the store's fraction. Within a store a frame's probability is
        proportional to the size of its video to the power of -`video_balance`, times a weight of its stratum, such that
        the strata drawn from all stores have the frequency of their size to the power of 1 - `balance`, as far as the
        fractions allow. Sizes are expected counts in an epoch's grid of `data.stride` seconds, as a mean over its
        phases, so that the frame rate of a video does not matter. Where the grid of `stride` holds a frame less often
        than the epochs' grid does, its probability is raised by that ratio.
        """
        video = self.frame_index.video
        used, expected = np.flatnonzero(self.usable), self.frame_index.frequency(self.usable, data.stride)
        stratum = np.zeros(len(video), np.intp)
        stratum[used] = metric_of(self.frame_index.task).strata(self.frame_index.label[used])
        sizes = np.zeros((len(self.fractions), stratum.max() + 1))
        np.add.at(sizes, (self.store_of(used), stratum[used]), expected[used])
        lengths = np.bincount(video, expected, len(self.frame_index.videos))
        store = self.store_of(indices)
        weights = _balanced_weights(sizes, self.fractions, data.balance)[store, stratum[indices]]
        weights *= np.maximum(lengths, 1)[video[indices]] ** -data.video_balance
        weights *= expected[indices] / self.frame_index.frequency(self.usable, stride)[indices]
        sums = np.bincount(store, weights, len(self.fractions))
        return weights * (self.fractions / np.where(sums > 0, sums, 1))[store]

    def mean_label(self, settings: Settings) -> list[float]:
        """The mean label of the frames that training draws, [C] (of classes fractions), over phases of its grid."""
        data = settings.data
        if settings.over_time:
            return self._mean_label_of_stretches(data)
        if data.sequence > 1 and data.balanced:
            return self._mean_label_of_sequences(data)
        used = np.flatnonzero(self.usable)
        probabilities = self.probabilities(data, used, stride=0)
        return metric_of(self.frame_index.task).mean_label(self.frame_index.label[used], probabilities)

    def stretches(self, data: DataSettings, phase: float) -> tuple[Stretches, np.ndarray]:
        """The stretches that have a usable frame, on a grid of that phase, and the probability of each, [s].

        Those of a store sum to its fraction. Where strata or videos are balanced, it is proportional to the sum of the
        stretch's usable frames' probabilities; else it is the same for all of a store.
        """
        cut = cut_stretches(self.frame_index, time_grid(self.frame_index, data.stride, phase), data)
        usable = self.usable[cut.indices] & ~cut.beyond
        kept = np.flatnonzero(usable.any(axis=1))
        cut, usable = cut[kept], usable[kept]
        if not data.balanced:
            store = self.store_of(cut.indices[:, 0])
            return cut, (self.fractions / np.bincount(store, minlength=len(self.fractions)).clip(1))[store]
        weights = np.zeros(usable.shape)
        weights[usable] = self.probabilities(data, cut.indices[usable], data.stride)
        return cut, weights.sum(axis=1)

    def _mean_label_of_stretches(self, data: DataSettings) -> list[float]:
        """The same for stretches, of which all usable frames count; a phase counts by how many an epoch draws on it."""
        labels, weights = list[np.ndarray](), list[np.ndarray]()
        for phase in (np.arange(_PHASES) + 0.5) / _PHASES:
            cut, probabilities = self.stretches(data, phase)
            stretch, place = np.nonzero(self.usable[cut.indices] & ~cut.beyond)
            labels.append(self.frame_index.label[cut.indices[stretch, place]])
            count = np.count_nonzero(self.store_of(cut.indices[:, 0]) == 0)
            weights.append(count * probabilities[stretch])
        weight = np.concatenate(weights)
        return metric_of(self.frame_index.task).mean_label(np.concatenate(labels), weight / weight.sum())

    def _mean_label_of_sequences(self, data: DataSettings) -> list[float]:
        """The same for sequences: the frame drawn brings consecutive frames, whose labels may be others."""
        size, labels, weights = data.sequence, list[np.ndarray](), list[np.ndarray]()
        for phase in (np.arange(_PHASES) + 0.5) / _PHASES:
            indices = self.frame_index.at_stride(self.usable, data.stride, phase)
            probabilities, video = self.probabilities(data, indices, data.stride), self.frame_index.video[indices]
            begin = np.searchsorted(video, video, side="left")
            for before in range(size):
                first = np.maximum(np.arange(len(indices)) - before, begin)
                labels.append(self.frame_index.label[indices[_sequences(video, first, size)]])
                weights.append(np.repeat(probabilities, size))
        weight = np.concatenate(weights)
        return metric_of(self.frame_index.task).mean_label(np.concatenate(labels), weight / weight.sum())


def usable_frames(store: Store, split: str, task: Task, modalities: Sequence[str]) -> UsableFrames:
    """The usable frames of a split: annotated, with one of these modalities; for training with those of the additional
    stores.

    Raises StoreError where a store has none.
    """
    extras = store.extras if split == "train" else ()
    stores = [store, *(extra.store for extra in extras)]
    videos = [each.split(split) for each in stores]
    frame_index = FrameIndex([*chain.from_iterable(videos)], task)
    usable = frame_index.annotated & frame_index.present(modalities)
    edges = np.cumsum([0, *(sum(len(video.frames) for video in own) for own in videos)]).tolist()
    for each, (start, stop) in zip(stores, pairwise(edges), strict=True):
        if not usable[start:stop].any():
            what = " or ".join(modalities)
            raise StoreError(f"has no annotated {split} frame with {what} input", path=each.root)
    firsts = zip(edges[1:-1], (extra.fraction for extra in extras), strict=True)
    return UsableFrames(frame_index, usable, tuple(firsts))


def sample_epoch(frames: UsableFrames, settings: Settings, epoch: int) -> Samples:
    """The samples of an epoch in their order, with the random numbers of their augmentation.

    An epoch has one frame per stride of each video, from a grid that moves with the epoch. Where classes or videos are
    balanced, as many frames are drawn from these with replacement. With a sequence length above 1, it has as many
    sequences as that number of frames makes. The main store keeps its number of samples; the other stores add as many
    as their fractions ask for.
    """
    if settings.over_time:
        return _sample_stretches(frames, settings, epoch)
    data = settings.data
    rng = np.random.default_rng([settings.seed, epoch])
    indices = frames.frame_index.at_stride(frames.usable, data.stride, rng.random())
    probabilities = frames.probabilities(data, indices, data.stride) if data.balanced else None
    store, size = frames.store_of(indices), data.sequence
    main_count, pieces = -(-np.count_nonzero(store == 0) // size), []
    for number, fraction in enumerate(frames.fractions):
        own = np.flatnonzero(store == number)
        count, video = round(main_count * fraction / frames.fractions[0]), frames.frame_index.video[indices[own]]
        if probabilities is None:
            first = _shuffled_starts(rng, video, count, size)
        else:
            first = _drawn_starts(rng, video, probabilities[own], count, size)
        pieces.append(indices[own][_sequences(video, first, size)])
    order = np.concatenate(pieces)
    if frames.extras:
        order = rng.permutation(order.reshape(-1, size)).ravel()
    # Audio is shared within a sequence only: else a sample's audio would depend on its batch, and so on the devices.
    return Samples(order, draw_noise(rng, len(order)), np.arange(len(order)) // size)


def _sample_stretches(frames: UsableFrames, settings: Settings, epoch: int) -> Samples:
    """The stretches of an epoch, on a time grid that moves with the epoch; all frames of one are augmented alike."""
    data, rng = settings.data, np.random.default_rng([settings.seed, epoch])
    cut, probabilities = frames.stretches(data, rng.random())
    store, pieces = frames.store_of(cut.indices[:, 0]), []
    main_count = np.count_nonzero(store == 0)
    for number, fraction in enumerate(frames.fractions):
        own, count = np.flatnonzero(store == number), round(main_count * fraction / frames.fractions[0])
        if not len(own):
            continue  # no frame on this grid is usable
        if data.balanced:
            pieces.append(rng.choice(own, count, p=probabilities[own] / probabilities[own].sum()))
        else:
            pieces.append(own[_in_rounds(rng, len(own), count)])
    chosen = cut[rng.permutation(np.concatenate(pieces))]
    return chosen.samples(draw_noise(rng, len(chosen)))


def _balanced_weights(sizes: np.ndarray, fractions: np.ndarray, balance: float) -> np.ndarray:
    """Weight of a frame by store and class, [s, c], from expected counts [s, c]: see `UsableFrames.probabilities`.

    By iterative proportional fitting (Deming and Stephan 1940). Where only stores of small fractions have a class, the
    class stays below its target.
    """
    fitted = natural = sizes / sizes.sum(axis=1, keepdims=True) * fractions[:, None]
    there = natural.sum(axis=0) > 0
    wanted = np.where(there, natural.sum(axis=0), 1.0) ** (1 - balance) * there
    wanted /= wanted.sum()
    for _ in range(100 if balance else 0):
        fitted = fitted * wanted / np.where(there, fitted.sum(axis=0), 1.0)
        fitted = fitted * (fractions / fitted.sum(axis=1))[:, None]
    return np.divide(fitted, sizes, out=np.zeros_like(fitted), where=sizes > 0)


def _drawn_starts(
    rng: np.random.Generator, video: np.ndarray, probabilities: np.ndarray, count: int, size: int
) -> np.ndarray:
    """int64 [count], starts of sequences around frames drawn by probabilities [k], with the video [k] of each frame.

    The frame drawn has a random position in its sequence, and the sequence lies in its video.
    """
    drawn = rng.choice(len(video), count, p=probabilities / probabilities.sum())
    begin = np.searchsorted(video, video[drawn], side="left")
    return np.maximum(drawn - rng.integers(size, size=count), begin)


def _shuffled_starts(rng: np.random.Generator, video: np.ndarray, count: int, size: int) -> np.ndarray:
    """int64 [count], starts of sequences that cover every video [k], each sequence once before any is repeated."""
    _, begin, length = np.unique(video, return_index=True, return_counts=True)
    first = np.concatenate([start + np.arange(0, n, size) for start, n in zip(begin, length, strict=True)])
    return first[_in_rounds(rng, len(first), count)]


def _in_rounds(rng: np.random.Generator, choices: int, count: int) -> np.ndarray:
    """int64 [count] below `choices`, in random order, each once before any is repeated."""
    rounds = [rng.permutation(choices) for _ in range(max(-(-count // choices), 1))]
    return np.concatenate(rounds)[:count]


def _sequences(video: np.ndarray, first: np.ndarray, size: int) -> np.ndarray:
    """int64 [count * size]: `size` consecutive positions from each of `first` [count], moved to end in its video [k].

    In a video of fewer frames the last of them is repeated.
    """
    begin, end = (np.searchsorted(video, video[first], side=side) for side in ("left", "right"))
    moved = np.maximum(np.minimum(first, end - size), begin)
    return np.minimum(moved[:, None] + np.arange(size), end[:, None] - 1).ravel()


def split_steps(samples: Samples, settings: Settings, process: int, processes: int) -> list[list[Samples]]:
    """The micro-batches that one process reads in each step, as many in every process.

    Sequences stay whole. A micro-batch of the last step may be empty.
    """
    size, sequence = settings.optimiser.batch_size, settings.data.sequence
    own = -(-size // processes)
    count = -(-own // (settings.compute.micro_batch or own))
    return [
        _micro_batches(samples[start : start + size], sequence, process * count, processes * count, count)
        for start in range(0, len(samples), size)
    ]


def _micro_batches(batch: Samples, sequence: int, first: int, pieces: int, count: int) -> list[Samples]:
    """`count` of the `pieces` of a batch, from piece `first` on; pieces differ by one sequence at most."""
    sequences = -(-len(batch) // sequence)
    edges = [sequences * piece // pieces * sequence for piece in range(first, first + count + 1)]
    return [batch[start:stop] for start, stop in pairwise(edges)]


def flatten(steps: Sequence[Sequence[Samples]]) -> list[Samples]:
    """All micro-batches of some steps, in order."""
    return [micro_batch for step in steps for micro_batch in step]
