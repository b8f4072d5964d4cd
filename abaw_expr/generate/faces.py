"""The real faces that a generator learns from: annotated crops of the training videos of stores, classes balanced.

Shapes: B faces of S x S pixels, n crops, C classes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset
from torchvision.transforms.v2.functional import resize

from abaw_expr.data.store.store import Store, StoredVideo
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.errors import StoreError
from abaw_expr.tasks.task import EXPR

_TRIES = 10
"""Crops that are tried for each one that is wanted."""


@dataclass(frozen=True)
class Faces:
    """The annotated crops of a split of some stores."""

    videos: tuple[StoredVideo, ...]
    video: np.ndarray
    """int32 [n], the video of each crop."""
    row: np.ndarray
    """int32 [n], its row there."""
    label: np.ndarray
    """int8 [n], its class."""

    def __len__(self) -> int:
        return len(self.row)

    @cached_property
    def classes(self) -> tuple[int, ...]:
        """The classes that have a crop."""
        return tuple(np.unique(self.label).tolist())

    @cached_property
    def by_class(self) -> dict[int, np.ndarray]:
        """The indices of each class's crops."""
        return {label: np.flatnonzero(self.label == label) for label in self.classes}

    def read(self, index: int, side: int) -> Tensor | None:
        """A crop, uint8 [3, side, side]; None where it cannot be decoded."""
        crop = decode_crop(self.videos[self.video[index]], int(self.row[index]))
        return None if crop is None else resize(crop, [side, side], antialias=True)

    def sample(self, count: int, side: int, rng: np.random.Generator, label: int | None = None) -> Tensor:
        """uint8 [n, 3, side, side], different crops of one class or of all in random order: `count`, or fewer where
        there are not as many. Those that cannot be decoded are stepped over."""
        chosen = np.arange(len(self)) if label is None else self.by_class.get(label, np.empty(0, np.int64))
        found = (self.read(int(index), side) for index in rng.permutation(chosen))
        faces = [*islice((face for face in found if face is not None), count)]
        return torch.stack(faces) if faces else torch.empty(0, 3, side, side, dtype=torch.uint8)


def faces_of(stores: Sequence[Store], split: str) -> Faces:
    """The annotated crops of a split. Raises StoreError where a store has none."""
    videos = [video for store in stores for video in store.split(split)]
    pieces = []
    for number, video in enumerate(videos):
        frames = video.frames
        rows = np.flatnonzero(frames.has_crop & (frames.label != EXPR.ignore_value))
        pieces.append((np.full(len(rows), number), rows, frames.label[rows]))
    owner, row, label = (np.concatenate(parts) for parts in zip(*pieces, strict=True))
    if not len(row):
        raise StoreError(f"has no annotated {split} frame with a crop", path=stores[0].root)
    return Faces(tuple(videos), owner.astype(np.int32), row.astype(np.int32), label)


class Batches(Dataset[tuple[Tensor, Tensor]]):
    """The real faces of every step: each class as often as the others, half of them mirrored.

    An entry depends on the seed and the step alone, so that a training that goes on sees the same.
    """

    def __init__(self, faces: Faces, side: int, size: int, seed: int) -> None:
        self._faces, self._side, self._size, self._seed = faces, side, size, seed

    def __getitem__(self, step: int) -> tuple[Tensor, Tensor]:
        """Faces uint8 [B, 3, S, S] and their classes int64 [B]; for a crop that cannot be decoded another is drawn.

        Raises StoreError where too many cannot be decoded.
        """
        rng = np.random.default_rng([self._seed, step])
        images, labels = [], []
        for _ in range(_TRIES * self._size):
            label = int(rng.choice(self._faces.classes))
            image = self._faces.read(int(rng.choice(self._faces.by_class[label])), self._side)
            mirrored = rng.random() < 0.5
            if image is not None:
                images.append(image.flip(2) if mirrored else image)
                labels.append(label)
            if len(images) == self._size:
                return torch.stack(images), torch.tensor(labels)
        raise StoreError("has hardly a crop that can be decoded", remedy="Run `prepare --verify` on the stores.")


def as_float(images: Tensor) -> Tensor:
    """uint8 images as float32 in [-1, 1], as networks take them."""
    return images.float() / 127.5 - 1


def as_bytes(faces: Tensor) -> Tensor:
    """Faces in [-1, 1] as uint8 images."""
    return ((faces.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
