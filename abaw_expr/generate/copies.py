"""Whether a generator copies its training faces: the training face that is nearest to each sample.

Distances are root mean squares of differences of pixels, in grey values of 0 to 255, over faces reduced to 32 x 32: a
moved or sharpened copy stays near.

Shapes: n samples, m training faces, S x S pixels.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import interpolate

_SIDE = 32
_CHUNK = 512


@dataclass(frozen=True)
class Copies:
    """How near samples come to training faces."""

    nearest: np.ndarray
    """int64 [n], the training face nearest to each sample."""
    distance: np.ndarray
    """float64 [n], its distance."""
    among_training: np.ndarray
    """float64 [m or fewer], the distance of each training face to the nearest one that is no copy of it."""
    closest_pair: float
    """The smallest of these."""

    @property
    def closer_than_a_pair(self) -> float:
        """The fraction of samples that are closer to a training face than the closest pair of training faces."""
        return float(np.mean(self.distance < self.closest_pair))

    @property
    def closer_than_most(self) -> float:
        """The fraction of samples closer to a training face than 99 % of training faces are to another one."""
        return float(np.mean(self.distance < np.quantile(self.among_training, 0.01)))


def find_copies(samples: Tensor, training: Tensor, same: float = 8.0) -> Copies:
    """The nearest of training faces uint8 [m, 3, S, S] to samples uint8 [n, 3, S, S].

    Training faces within `same` of each other, frames of one moment or double entries, count as one face.
    """
    ours, theirs = _small(samples), _small(training)
    nearest, distance = _nearest(ours, theirs, 0.0)
    _, among = _nearest(theirs, theirs, same)
    among = among[np.isfinite(among)]
    if not len(among):  # all are one face
        among = np.zeros(1)
    return Copies(nearest, distance, among, float(among.min()))


def _small(faces: Tensor) -> Tensor:
    """float32 [n, 3 * 32 * 32]."""
    pieces = [
        interpolate(part.float(), (_SIDE, _SIDE), mode="bilinear", antialias=True).flatten(1)
        for part in faces.split(_CHUNK)
    ]
    return torch.cat(pieces)


def _nearest(a: Tensor, b: Tensor, beyond: float) -> tuple[np.ndarray, np.ndarray]:
    """For each row of `a` the row of `b` that is nearest of those further than `beyond`, and its distance."""
    index, distance = [], []
    for part in a.split(_CHUNK):
        found = torch.cdist(part, b) / a.shape[1] ** 0.5
        found = found.masked_fill(found < beyond, torch.inf) if beyond else found
        value, where = found.min(dim=1)
        index.append(where.numpy())
        distance.append(value.double().numpy())
    return np.concatenate(index), np.concatenate(distance)
