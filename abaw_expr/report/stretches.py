"""The worst stretches of a video: windows of a few seconds in which the decision is most wrong.

Shapes: T frames of one video.
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

STRETCH_SECONDS = 3.0
"""The length of a stretch."""
MOST_STRETCHES = 4
"""Stretches of a video."""


class Stretch(NamedTuple):
    """Frames of a video by their rows, counted from 0."""

    first: int
    last: int
    """The last row, which belongs to it."""
    error: float
    """The sum of the errors of its frames."""


def worst_stretches(errors: NDArray[np.float64], time: NDArray[np.float64]) -> list[Stretch]:
    """The stretches of at most `STRETCH_SECONDS` with the largest sums of errors, none of which overlap: [T], [T].

    Each begins and ends with a frame that is wrong; a stretch without an error is none.
    """
    left = errors.astype(np.float64).copy()
    ends = np.searchsorted(time, time + STRETCH_SECONDS, "left")
    found: list[Stretch] = []
    while len(found) < MOST_STRETCHES:
        sums = np.concatenate([[0.0], np.cumsum(left)])
        totals = sums[ends] - sums[:-1]
        first = int(totals.argmax()) if len(totals) else 0
        if not len(totals) or totals[first] <= 1e-9:
            break
        wrong = first + np.flatnonzero(left[first : ends[first]] > 0)
        taken = Stretch(int(wrong[0]), int(wrong[-1]), float(totals[first]))
        found.append(taken)
        # So much below 0 that no window is chosen which reaches into a stretch that is taken.
        left[taken.first : taken.last + 1] = -1 - errors.sum()
    return sorted(found, key=lambda one: (-one.error, one.first))
