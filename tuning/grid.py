"""Every candidate evaluated exactly, as confusion counts.

The tensor [candidates, videos, C, C] is the sufficient statistic of tuning: the score of any candidate on any set of
videos is a sum away. It holds what `Decision.confusions` counts, to the last frame: the same arithmetic in the same
order, with what candidates share computed once, and classes before frames, so that one instruction serves many frames.

Values and action units have statistics [candidates, videos, F, K] instead, counted candidate by candidate.

Shapes: N annotated frames of all videos, V videos, C classes, k branches, F fields with K statistics each.
"""

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.fusion import Gaps, between, correct_prior, find_gaps, fuse, fuse_priors, smooth_branch
from abaw_expr.outputs.table import Outputs, VideoOutputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Counts, Statistics
from tuning.space import NONE, Candidate, Smoothing, Space

Progress = Callable[[int, int], None]
"""Called with the number of videos done and of all videos."""
BLOCK = 2048
"""Frames at a time: few enough for a core's own cache, many enough that Python's share is small."""


def statistics_tensor(outputs: Outputs, space: Space, progress: Progress | None = None) -> Statistics:
    """The tuning statistics of every candidate on every video, of any challenge: [candidates, V, F, K].

    Candidates in the order of `space.candidates()`, videos in that of `outputs.videos()`.
    """
    if outputs.task.one_class:
        return confusion_tensor(outputs, space, progress)
    metric, videos, candidates = metric_of(outputs.task), outputs.videos(), space.candidates()

    def count(smoothing: Smoothing) -> dict[Candidate, Statistics]:
        how = *smoothing, metric.distribution, space.missing
        smoothed = [
            replace(v, p={name: smooth_branch(v.p[name], v.time, *how) for name in outputs.branches}) for v in videos
        ]
        counts = {}
        for candidate in candidates:
            if candidate.smoothing == smoothing:
                decision = replace(candidate, smoothing=NONE).decision(outputs)
                rows = [metric.count_for_tuning(video.label, decision.probabilities(video)) for video in smoothed]
                counts[candidate] = np.stack(rows)
        return counts

    found: dict[Candidate, Statistics] = {}
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, counts in enumerate(pool.map(count, space.smoothing), start=1):
            found |= counts
            if progress is not None:
                progress(done, len(space.smoothing))
    return np.stack([found[candidate] for candidate in candidates])


def confusion_tensor(outputs: Outputs, space: Space, progress: Progress | None = None) -> Counts:
    """Confusion counts of every candidate on every video: int64 [candidates, V, C, C].

    Candidates in the order of `space.candidates()`, videos in that of `outputs.videos()`.
    """
    place = {candidate: number for number, candidate in enumerate(space.candidates())}
    videos, n_classes = outputs.videos(), outputs.task.n_columns
    tensor = np.zeros((len(place), len(videos), n_classes, n_classes), dtype=np.int64)

    def count(smoothing: Smoothing) -> None:
        for ratios in _by_voters(space.ratios):
            for candidate, counts in _counts(outputs, videos, smoothing, space, ratios):
                tensor[place[candidate]] = counts

    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for done, _ in enumerate(pool.map(count, space.smoothing), start=1):
            if progress is not None:
                progress(done, len(space.smoothing))
    return tensor


Ratios = Sequence[tuple[int, ...]]


def _by_voters(ratios: Ratios) -> list[Ratios]:
    """The ratios in groups that leave the same branches out."""
    groups: dict[tuple[bool, ...], list[tuple[int, ...]]] = {}
    for weights in ratios:
        groups.setdefault(tuple(weight > 0 for weight in weights), []).append(weights)
    return list(groups.values())


def _counts(
    outputs: Outputs, videos: Sequence[VideoOutputs], smoothing: Smoothing, space: Space, ratios: Ratios
) -> Iterator[tuple[Candidate, Counts]]:
    """Every candidate of one smoothing and of these ratios, which leave the same out, with its counts, [V, C, C]."""
    n_classes, taus = outputs.task.n_columns, space.taus_of(ratios[0])
    kept = [place for place, weight in enumerate(ratios[0]) if weight]
    names = [list(outputs.branches)[place] for place in kept]
    priors = [outputs.branches[name].prior for name in names]
    weights_rk = np.array(ratios)[:, kept]
    exponents = [[tau[place] for place in kept] for tau in taus]
    rows = _Rows.of(outputs, names, videos, smoothing, space.missing)
    p, *around = (_corrected(smoothed, priors, space) for smoothed in (rows.p, rows.before, rows.after))
    labels = np.zeros((len(taus), len(ratios), len(rows.key)), np.uint8)
    for voters, places in rows.voters():
        planes = [{tau: p[voter][tau][places] for tau in p[voter]} for voter in voters]
        labels[:, :, places] = _classes(planes, weights_rk[:, voters], [[tau[v] for v in voters] for tau in exponents])
    for tau, own, of_tau in zip(taus, exponents, labels, strict=True):
        for weights, row, decided in zip(ratios, weights_rk.tolist(), of_tau, strict=True):
            if len(rows.gap):
                first, last = (fuse([branch[t] for branch, t in zip(p, own, strict=True)], row) for p in around)
                decided[rows.gap] = between(first, last, rows.weight).astype(np.float32).argmax(axis=1)
            if len(rows.silent):
                decided[rows.silent] = fuse_priors(priors, row).argmax()
            pairs = np.bincount(rows.key + decided, minlength=len(videos) * n_classes**2)
            yield Candidate(weights, smoothing, tau), pairs.reshape(len(videos), n_classes, n_classes)


def _corrected(
    p: Sequence[NDArray], priors: Sequence[tuple[float, ...]], space: Space
) -> list[dict[float, NDArray[np.float32]]]:
    """Each branch's rows by the exponent of its correction: k of [N, C]."""
    return [
        {tau: correct_prior(rows, prior, tau).astype(np.float32) for tau in space.tau}
        for rows, prior in zip(p, priors, strict=True)
    ]


@dataclass(frozen=True)
class _Rows:
    """The annotated frames of all videos, smoothed."""

    key: NDArray[np.intp]
    """[N], the place among V x C x C counts of each frame's video and true class."""
    p: list[NDArray]
    """k x [N, C]"""
    gap: NDArray[np.intp]
    """[g], the frames on which no branch speaks, but some do elsewhere in their video."""
    before: list[NDArray]
    """k x [g, C], the rows that those lie between: before them"""
    after: list[NDArray]
    """and after them."""
    weight: NDArray[np.float64]
    """[g], the weight of `after`."""
    silent: NDArray[np.intp]
    """The frames of videos on which no branch ever speaks."""

    @classmethod
    def of(
        cls, outputs: Outputs, names: Sequence[str], videos: Sequence[VideoOutputs], smoothing: Smoothing, missing: str
    ) -> "_Rows":
        (field,) = outputs.task.fields
        n_classes, parts, start = outputs.task.n_columns, [], 0
        for number, video in enumerate(videos):
            annotated = np.flatnonzero(video.label != field.ignore_value)
            smoothed = [smooth_branch(video.p[name], video.time, *smoothing, True, missing) for name in names]
            empty = np.all([np.isnan(rows[:, 0]) for rows in smoothed], axis=0)
            gap, silent = np.flatnonzero(empty[annotated]), np.zeros(0, np.intp)
            if empty.all():
                gap, silent = silent, gap
            gaps = find_gaps(empty, video.time) if len(gap) else Gaps(*(np.zeros((4, 0), np.intp)))
            wanted = np.isin(gaps.row, annotated[gap])
            parts.append(
                _Rows(
                    (number * n_classes + video.label[annotated].astype(np.intp)) * n_classes,
                    [rows[annotated] for rows in smoothed],
                    gap + start,
                    [rows[gaps.before[wanted]] for rows in smoothed],
                    [rows[gaps.after[wanted]] for rows in smoothed],
                    gaps.weight[wanted],
                    silent + start,
                )
            )
            start += len(annotated)
        return cls(*(_joined([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def voters(self) -> Iterator[tuple[list[int], NDArray[np.intp] | slice]]:
        """For each set of branches that speak together, the frames on which they do."""
        speaks = [~np.isnan(rows[:, 0]) for rows in self.p]
        code = np.sum([has.astype(np.intp) << branch for branch, has in enumerate(speaks)], axis=0)
        for spoken in np.flatnonzero(np.bincount(code)):
            voters = [branch for branch in range(len(speaks)) if spoken >> branch & 1]
            if voters:
                everywhere = len(code) == np.count_nonzero(code == spoken)
                yield voters, slice(None) if everywhere else np.flatnonzero(code == spoken)


def _joined(parts: list[Any]) -> Any:
    """Arrays, or lists of k arrays, one after the other."""
    if isinstance(parts[0], list):
        return [np.concatenate(branch) for branch in zip(*parts, strict=True)]
    return np.concatenate(parts)


def _classes(
    planes: Sequence[Mapping[float, NDArray[np.float32]]], weights: NDArray[np.int64], taus: Sequence[Sequence[float]]
) -> NDArray[np.uint8]:
    """The most probable class of each frame, the lower one where two are equal, for each of the exponents and of the
    weights [R, k]: [exponents, R, N], from each branch's [N, C] by exponent."""
    shares = (weights / weights.sum(axis=1, keepdims=True)).astype(np.float32).T[:, :, None, None]  # [k, R, 1, 1]
    frames, n_classes = next(iter(planes[0].values())).shape
    labels = np.empty((len(taus), len(weights), frames), np.uint8)
    rank = np.arange(n_classes, 0, -1, dtype=np.uint8)[:, None]  # the lower the class the higher
    for start in range(0, frames, BLOCK):
        block = slice(start, min(start + BLOCK, frames))
        votes = [
            {tau: share * np.ascontiguousarray(p[block].T) for tau, p in branch.items()}  # [R, C, block]
            for branch, share in zip(planes, shares, strict=True)
        ]
        fused = np.empty_like(next(iter(votes[0].values())))
        for number, tau in enumerate(taus):
            np.copyto(fused, votes[0][tau[0]])
            for branch, exponent in zip(votes[1:], tau[1:], strict=True):
                np.add(fused, branch[exponent], out=fused)
            first = (fused == fused.max(axis=1, keepdims=True)).view(np.uint8)
            np.multiply(first, rank, out=first)
            np.subtract(n_classes, first.max(axis=1), out=labels[number, :, block])
    return labels
