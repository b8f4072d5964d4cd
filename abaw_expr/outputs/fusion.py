"""From the branches' numbers to one decision a frame.

The proportion criterion of arXiv 2503.11935, P = (m P_a + n P_v) / (m + n) with integers 0 < m, n < 6, for any number
of branches, between steps that the paper leaves open (our defaults): smoothing and prior correction of each branch
before it, filling after it. All of it is plain arithmetic on arrays. A row that is all NaN is missing. Probabilities of
classes and of action units and values of valence and arousal are fused alike; what a fused row decides is
`abaw_expr.tasks.metric`'. Only the shares of classes have a prior to correct.

Shapes: T frames of one video, C numbers of a row (classes, say), k branches, V videos, F fields of K statistics.
"""

from collections.abc import Sequence
from itertools import product
from math import gcd
from typing import NamedTuple

import bottleneck
import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.tasks.metric import Rows

MOST = 5
"""The largest weight of a branch (arXiv 2503.11935)."""
MAX_TAU = 2.0
SMOOTHERS = ("mean", "median")
MISSING = ("smoothed", "masked")
"""What smoothing makes of a frame whose modality is missing: it gets the vote of the frames in its window, or none."""
EDGE = 1e-6
"""Seconds of slack at a window's ends, so that a frame on the edge is inside whatever the last bit of its time."""
NEVER_SEEN = 1e-9
"""A prior below this belongs to a class that training never saw; no data set has 10^9 frames."""
WEIGHTS = range(1, MOST + 1)


def ratios(branches: int, least: int = 1) -> tuple[tuple[int, ...], ...]:
    """The distinct ratios of that many branches' weights, the simplest first: 19 of the 25 pairs for two.

    With `least` 0 also those that leave branches out, but for all of them.
    """
    distinct = {reduced(weights) for weights in product(range(least, MOST + 1), repeat=branches) if any(weights)}
    return tuple(sorted(distinct, key=lambda weights: (sum(weights), max(weights) - min(weights), weights)))


def reduced(weights: Sequence[int]) -> tuple[int, ...]:
    """The weights in lowest terms."""
    divisor = gcd(*weights)
    return tuple(weight // divisor for weight in weights)


def fuse(p: Sequence[Rows], weights: Sequence[int]) -> Rows:
    """The proportion criterion: k x [T, C] -> float32 [T, C].

    Where a branch is missing it has no vote: the weights of the others are shares of their own sum. A row of which only
    branches of weight 0 say something is missing.
    """
    present = np.stack([~np.isnan(rows[:, 0]) for rows in p])  # [k, T]
    total = np.asarray(weights) @ present  # [T]
    fused = np.zeros(p[0].shape, np.float32)
    for rows, weight, has in zip(p, weights, present, strict=True):
        share = np.divide(weight, total, out=np.zeros(len(total)), where=has & (total > 0)).astype(np.float32)
        fused += np.where(has[:, None], rows.astype(np.float32), 0) * share[:, None]
    fused[total == 0] = np.nan
    return fused


def fuse_priors(priors: Sequence[Sequence[float]], weights: Sequence[int]) -> Rows:
    """What is said of frames that no branch has anything to say of: k priors -> [C]."""
    return fuse([np.array([prior]) for prior in priors], weights)[0]


def smooth(
    p: Rows, time: NDArray[np.float64], seconds: float, smoother: str = "mean", distribution: bool = True
) -> Rows:
    """The mean or median of the rows that are present within `seconds` / 2 of each frame: [T, C], [T] -> [T, C].

    A missing row takes the mean or median of its window too (`smooth_branch` says whether it keeps that); it stays
    missing where the window holds nothing. 0 seconds return the input. The mean's window is on the video's own clock,
    so frame rates may vary; the median's is an odd number of rows, as many as fit the window at the video's own rate,
    and the medians of a `distribution` are made to sum to 1.
    """
    if seconds == 0 or not len(p):
        return p
    if smoother == "mean":
        return _mean(p, time, seconds)
    medians = _median(p, time, seconds)
    return _normalised(medians) if distribution else medians


def smooth_branch(
    p: Rows, time: NDArray[np.float64], seconds: float, smoother: str, distribution: bool, missing: str
) -> Rows:
    """A branch's rows smoothed, as `smooth` does; a missing row as `missing`, one of `MISSING`, says."""
    smoothed = smooth(p, time, seconds, smoother, distribution)
    absent = np.isnan(p[:, 0])
    if missing == "smoothed" or not seconds or not absent.any():
        return smoothed
    return np.where(absent[:, None], np.float32(np.nan), smoothed)


def _mean(p: Rows, time: NDArray[np.float64], seconds: float) -> Rows:
    present = ~np.isnan(p[:, 0])
    clock, half = time[present], seconds / 2 + EDGE
    first, last = np.searchsorted(clock, time - half, "left"), np.searchsorted(clock, time + half, "right")
    totals = np.zeros((len(clock) + 1, p.shape[1]))  # float64: a running sum loses float32's digits
    np.cumsum(p[present], axis=0, dtype=np.float64, out=totals[1:])
    counts = np.where(last > first, last - first, np.nan)
    return (totals[last] - totals[first]) / counts[:, None]


def _median(p: Rows, time: NDArray[np.float64], seconds: float) -> Rows:
    rate = (len(time) - 1) / max(time[-1] - time[0], EDGE)
    half = min(int(seconds / 2 * rate + EDGE), len(p) - 1)
    ahead = np.full((half, p.shape[1]), np.nan, p.dtype)
    rows = np.concatenate([p, ahead]).T.copy()  # the moving median ends at its row: it is read `half` rows later
    return bottleneck.move_median(rows, 2 * half + 1, min_count=1)[:, half:].T


def _normalised(medians: Rows) -> Rows:
    total = medians.sum(axis=1, keepdims=True)
    undecided = total[:, 0] == 0  # no class has half of the window: none is preferred
    return np.where(undecided[:, None], 1 / medians.shape[1], medians / np.where(undecided[:, None], 1, total))


class Gaps(NamedTuple):
    """Rows that are missing, and the present rows around each, between which it is interpolated."""

    row: NDArray[np.intp]
    """[g]"""
    before: NDArray[np.intp]
    """[g], the last present row before it; the first present row where there is none."""
    after: NDArray[np.intp]
    """[g], the first present row after it; the last present row where there is none."""
    weight: NDArray[np.float64]
    """[g], the weight of `after`."""


def find_gaps(missing: NDArray[np.bool_], time: NDArray[np.float64]) -> Gaps:
    """The gaps of a video that has some row present: [T], [T]."""
    present, gaps = np.flatnonzero(~missing), np.flatnonzero(missing)
    following = np.searchsorted(present, gaps)
    before = present[np.maximum(following - 1, 0)]
    after = present[np.minimum(following, len(present) - 1)]
    span = time[after] - time[before]  # 0 at both ends of the video, where before and after are one row
    weight = np.divide(time[gaps] - time[before], span, out=np.zeros(len(gaps)), where=span > 0)
    return Gaps(gaps, before, after, weight)


def fill(p: Rows, time: NDArray[np.float64], fallback: ArrayLike) -> Rows:
    """Fills missing rows: linear in time between the rows around them, held at both ends: [T, C], [T], [C] -> [T, C].

    Where no row is present at all, every row is `fallback`.
    """
    missing = np.isnan(p[:, 0])
    if not missing.any():
        return p
    if missing.all():
        return np.tile(np.asarray(fallback, dtype=p.dtype), (len(p), 1))
    gaps = find_gaps(missing, time)
    filled = p.copy()
    filled[gaps.row] = between(p[gaps.before], p[gaps.after], gaps.weight)
    return filled


def between(before: Rows, after: Rows, weight: NDArray[np.float64]) -> Rows:
    """The rows of gaps, from the rows before and after them and the weight of the latter: [g, C], [g, C], [g]."""
    return (1 - weight[:, None]) * before + weight[:, None] * after


def correct_prior(p: Rows, prior: ArrayLike, tau: float) -> Rows:
    """Divides training's class shares out of probabilities: p prior^-tau, normalised: [T, C], [C] -> [T, C].

    Post-hoc logit adjustment (Menon et al., ICLR 2021): logits minus tau log prior. tau = 0 returns the input. A class
    that training never saw keeps the factor 1, the smallest of all: there is no evidence to raise it by.
    """
    if tau == 0:
        return p
    shares = np.asarray(prior, dtype=np.float64)
    corrected = p * np.where(shares < NEVER_SEEN, 1.0, shares) ** -tau
    return corrected / corrected.sum(axis=-1, keepdims=True)
