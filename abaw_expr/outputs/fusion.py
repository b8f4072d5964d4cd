"""Fuses the numbers of the branches into one row per frame.

The proportional fusion of arXiv 2503.11935, P = (m P_a + n P_v) / (m + n) with integers 0 < m, n < 6, for any number
of branches, with steps that the paper does not specify (our defaults): smoothing and prior correction of each branch
before it, filling of missing rows after it. A row that is all NaN is missing. The probabilities of classes,
the probabilities of action units and values are all fused in the same way; `abaw_expr.tasks.metric` turns fused rows
into labels. Only class probabilities have a prior correction.

Shapes: T frames of one video, C numbers of a row (classes, for example), k branches, g missing rows of a video.
"""

from collections.abc import Sequence
from itertools import product
from math import gcd
from typing import NamedTuple

import bottleneck
import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.tasks.metric import Rows

MAX_WEIGHT = 5
"""The largest weight of a branch (arXiv 2503.11935)."""
MAX_TAU = 2.0
SMOOTHERS = ("mean", "median")
MISSING = ("smoothed", "masked")
"""How smoothing treats a frame whose modality is missing: it gets the smoothed row of its window, or stays missing."""
EDGE = 1e-6
"""Seconds of tolerance at a window's ends, so that rounding of times does not exclude a frame on the edge."""
NEVER_SEEN = 1e-9
"""A prior below this counts as that of a class absent from training; no data set has 10^9 frames."""
WEIGHTS = range(1, MAX_WEIGHT + 1)


def ratios(branches: int, least: int = 1) -> tuple[tuple[int, ...], ...]:
    """The distinct ratios of the weights of that many branches, the simplest first: 19 of the 25 pairs for two.

    With `least` 0, also the ratios in which some but not all weights are 0.
    """
    distinct = {reduced(weights) for weights in product(range(least, MAX_WEIGHT + 1), repeat=branches) if any(weights)}
    return tuple(sorted(distinct, key=lambda weights: (sum(weights), max(weights) - min(weights), weights)))


def reduced(weights: Sequence[int]) -> tuple[int, ...]:
    """The weights in lowest terms."""
    divisor = gcd(*weights)
    return tuple(weight // divisor for weight in weights)


def fuse(p: Sequence[Rows], weights: Sequence[int]) -> Rows:
    """The proportional fusion: k x [T, C] -> float32 [T, C].

    A missing row has no weight: the weights of the other branches are divided by their sum. Where all branches with a
    weight above 0 are missing, the fused row is missing.
    """
    present = np.stack([~np.isnan(rows[:, 0]) for rows in p])  # [k, T]
    total = np.asarray(weights) @ present  # [T]
    fused = np.zeros(p[0].shape, np.float32)
    for rows, weight, has in zip(p, weights, present, strict=True):
        fraction = np.divide(weight, total, out=np.zeros(len(total)), where=has & (total > 0)).astype(np.float32)
        fused += np.where(has[:, None], rows.astype(np.float32), 0) * fraction[:, None]
    fused[total == 0] = np.nan
    return fused


def fuse_priors(priors: Sequence[Sequence[float]], weights: Sequence[int]) -> Rows:
    """The row of frames for which no branch has a row: k priors [C] -> [C]."""
    return fuse([np.array([prior]) for prior in priors], weights)[0]


def smooth(
    p: Rows, time: NDArray[np.float64], seconds: float, smoother: str = "mean", distribution: bool = True
) -> Rows:
    """The mean or median of the rows that are present within `seconds` / 2 of each frame: [T, C], [T] -> [T, C].

    A missing row also gets the mean or median of its window (`smooth_branch` may remove it again); it stays missing
    where the window has no row. 0 seconds return the input. The window of the mean is in seconds, so that the frame
    rate may vary; that of the median is an odd number of rows, as many as fit the window at the video's mean rate.
    Medians of a `distribution` are normalised to sum to 1.
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
    """`smooth` for a branch, with missing rows treated as `missing`, one of `MISSING`: [T, C], [T] -> [T, C]."""
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
    rows = np.concatenate([p, ahead]).T.copy()  # bottleneck's window ends at its row: results are read `half` later
    return bottleneck.move_median(rows, 2 * half + 1, min_count=1)[:, half:].T


def _normalised(medians: Rows) -> Rows:
    total = medians.sum(axis=1, keepdims=True)
    undecided = total[:, 0] == 0  # the median of every class is 0: all classes get the same probability
    return np.where(undecided[:, None], 1 / medians.shape[1], medians / np.where(undecided[:, None], 1, total))


class Gaps(NamedTuple):
    """Missing rows of a video, and the present rows around each, between which it is interpolated."""

    row: NDArray[np.intp]
    """[g], the missing row."""
    before: NDArray[np.intp]
    """[g], the last present row before it, or else the first present row."""
    after: NDArray[np.intp]
    """[g], the first present row after it, or else the last present row."""
    weight: NDArray[np.float64]
    """[g], the weight of `after`."""


def find_gaps(missing: NDArray[np.bool_], time: NDArray[np.float64]) -> Gaps:
    """The gaps of a video that has at least one present row, from the missing rows [T] and the times [T]."""
    present, gaps = np.flatnonzero(~missing), np.flatnonzero(missing)
    following = np.searchsorted(present, gaps)
    before = present[np.maximum(following - 1, 0)]
    after = present[np.minimum(following, len(present) - 1)]
    span = time[after] - time[before]  # 0 at both ends of the video, where before and after are the same row
    weight = np.divide(time[gaps] - time[before], span, out=np.zeros(len(gaps)), where=span > 0)
    return Gaps(gaps, before, after, weight)


def fill(p: Rows, time: NDArray[np.float64], fallback: ArrayLike) -> Rows:
    """Fills missing rows by linear interpolation in time, constant at both ends: [T, C], [T], [C] -> [T, C].

    Where no row is present, every row is `fallback`.
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
    """The rows of gaps from the rows before, after and the weight of those after: [g, C], [g, C], [g] -> [g, C]."""
    return (1 - weight[:, None]) * before + weight[:, None] * after


def correct_prior(p: Rows, prior: ArrayLike, tau: float) -> Rows:
    """Divides probabilities by the class fractions of training, p prior^-tau, normalised: [T, C], [C] -> [T, C].

    Post-hoc logit adjustment (Menon et al., ICLR 2021): logits minus tau log prior. tau = 0 returns the input. A class
    absent from training keeps the factor 1, the smallest possible, as its prior is unknown.
    """
    if tau == 0:
        return p
    fractions = np.asarray(prior, dtype=np.float64)
    corrected = p * np.where(fractions < NEVER_SEEN, 1.0, fractions) ** -tau
    return corrected / corrected.sum(axis=-1, keepdims=True)
