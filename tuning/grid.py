"""Evaluates every candidate exactly, as confusion counts.

The tensor [candidates, V, C, C] is the sufficient statistic of tuning: the score of any candidate on any set of videos
follows from a sum. Its counts equal those of `Decision.statistics`, frame by frame: the arithmetic and its order are
the same, but intermediate results that candidates share are computed once, and arrays are laid out by class, then
frame, for vector instructions.

This is so for classes; `grid_fields.py` counts values and action units, whose tensor is [candidates, V, F, K].

Shapes: N annotated frames of all videos, V videos, C classes, k branches, R ratios, F fields with K statistics each.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.workers import OnProgress
from abaw_expr.outputs.fusion import between, correct_prior, fuse, fuse_priors
from abaw_expr.outputs.table import Outputs, VideoOutputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Counts, Statistics
from tuning.frames import annotated_frames
from tuning.grid_fields import FieldCounts
from tuning.space import Candidate, Smoothing, Space, by_zeros

FRAMES_AT_A_TIME = 2048
"""Frames at a time: few enough for the cache of a core, enough that Python's overhead is small."""


def statistics_tensor(outputs: Outputs, space: Space, on_progress: OnProgress | None = None) -> Statistics:
    """The tuning statistics of every candidate on every video: [candidates, V, F, K]; of classes int64 [..., V, C, C].

    Candidates are in the order of `space.candidates()`, videos in that of `outputs.videos()`. `on_progress` counts
    smoothings.
    """
    position = {candidate: number for number, candidate in enumerate(space.candidates())}
    videos, task = outputs.videos(), outputs.task
    counts_of = partial(_confusions, outputs, videos, space) if task.one_class else FieldCounts(outputs, videos, space)
    first = videos[0].label
    like = metric_of(task).tuning_counter(first)(np.zeros((1, len(first), task.n_columns), np.float32))
    tensor = np.zeros((len(position), len(videos), *like.shape[1:]), like.dtype)

    def count(smoothing: Smoothing) -> None:
        for candidate, statistics in counts_of(smoothing):
            tensor[position[candidate]] = statistics

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(count, space.smoothing), start=1):
            if on_progress is not None:
                on_progress(done, len(space.smoothing))
    return tensor


def _confusions(
    outputs: Outputs, videos: Sequence[VideoOutputs], space: Space, smoothing: Smoothing
) -> Iterator[tuple[Candidate, Counts]]:
    """The candidates of one smoothing with their counts [V, C, C]."""
    for ratios in by_zeros(space.ratios):
        yield from _counts(outputs, videos, smoothing, space, ratios)


def _counts(
    outputs: Outputs,
    videos: Sequence[VideoOutputs],
    smoothing: Smoothing,
    space: Space,
    ratios: Sequence[tuple[int, ...]],
) -> Iterator[tuple[Candidate, Counts]]:
    """The candidates of one smoothing and of `ratios`, which have the same zeros, with their counts [V, C, C]."""
    n_classes, taus = outputs.task.n_columns, space.taus_of(ratios[0])
    kept = [branch for branch, weight in enumerate(ratios[0]) if weight]
    names = [list(outputs.branches)[branch] for branch in kept]
    priors = [outputs.branches[name].prior for name in names]
    weights_rk = np.array(ratios)[:, kept]
    exponents = [[tau[branch] for branch in kept] for tau in taus]
    frames = annotated_frames(outputs, names, videos, smoothing, space.missing)
    p, *around = (_corrected(smoothed, priors, space) for smoothed in (frames.p, frames.before, frames.after))
    labels = np.zeros((len(taus), len(ratios), len(frames.key)), np.uint8)
    for voters, indices in frames.by_voters():
        planes = [{tau: p[voter][tau][indices] for tau in p[voter]} for voter in voters]
        labels[:, :, indices] = _classes(planes, weights_rk[:, voters], [[tau[v] for v in voters] for tau in exponents])
    for tau, kept_tau, by_ratio in zip(taus, exponents, labels, strict=True):
        for weights, row, decided in zip(ratios, weights_rk.tolist(), by_ratio, strict=True):
            if len(frames.gap):
                first, last = (fuse([branch[t] for branch, t in zip(p, kept_tau, strict=True)], row) for p in around)
                decided[frames.gap] = between(first, last, frames.weight).astype(np.float32).argmax(axis=1)
            if len(frames.without_rows):
                decided[frames.without_rows] = fuse_priors(priors, row).argmax()
            pairs = np.bincount(frames.key + decided, minlength=len(videos) * n_classes**2)
            yield Candidate(weights, smoothing, tau), pairs.reshape(len(videos), n_classes, n_classes)


def _corrected(
    p: NDArray[np.floating], priors: Sequence[tuple[float, ...]], space: Space
) -> list[dict[float, NDArray[np.float32]]]:
    """The rows of each branch by the exponent of its prior correction: [k, N, C] -> k arrays [N, C] by exponent."""
    return [
        {tau: correct_prior(rows, prior, tau).astype(np.float32) for tau in space.tau}
        for rows, prior in zip(p, priors, strict=True)
    ]


def _classes(
    planes: Sequence[Mapping[float, NDArray[np.float32]]], weights: NDArray[np.int64], taus: Sequence[Sequence[float]]
) -> NDArray[np.uint8]:
    """The most probable class of each frame, the lower index of equal ones, [exponents, R, N].

    `planes` are the rows [N, C] of each branch by exponent, `weights` [R, k], and `taus` the exponents of the branches.
    """
    fractions = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32).T[:, :, None, None]  # [k, R, 1, 1]
    frames, n_classes = next(iter(planes[0].values())).shape
    labels = np.empty((len(taus), len(weights), frames), np.uint8)
    rank = np.arange(n_classes, 0, -1, dtype=np.uint8)[:, None]  # lower classes have higher ranks
    for start in range(0, frames, FRAMES_AT_A_TIME):
        block = slice(start, min(start + FRAMES_AT_A_TIME, frames))
        weighted = [
            {tau: fraction * np.ascontiguousarray(p[block].T) for tau, p in branch.items()}  # [R, C, block]
            for branch, fraction in zip(planes, fractions, strict=True)
        ]
        fused = np.empty_like(next(iter(weighted[0].values())))
        for number, tau in enumerate(taus):
            np.copyto(fused, weighted[0][tau[0]])
            for branch, exponent in zip(weighted[1:], tau[1:], strict=True):
                np.add(fused, branch[exponent], out=fused)
            first = (fused == fused.max(axis=1, keepdims=True)).view(np.uint8)
            np.multiply(first, rank, out=first)
            np.subtract(n_classes, first.max(axis=1), out=labels[number, :, block])
    return labels
