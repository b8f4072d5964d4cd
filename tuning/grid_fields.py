"""Counts every candidate of a task with one number per field, exactly: values and action units.

The statistics equal those of `Decision` bit by bit: a candidate's fused rows are computed in the same float32
arithmetic and order, and counted by the metric. What candidates share is computed once: a video's smoothed rows for
each window, its gaps for each set of branches with a weight above 0, and what depends on the truth alone
(`Metric.tuning_counter`). Rows are laid out by column, then frame, for vector instructions; one video is fused at a
time, with many ratios.

The sums of values would also follow from the Gram matrix of the branches' rows, without any fused rows. But fusing them
takes no longer than smoothing does, and keeps the rounding of the decision's rows to float32.

Shapes: T frames of one video, V videos, C numbers of a row, k branches, R ratios, F fields with K tuning statistics
each, and P sets of branches such that a frame has a row of exactly these branches.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.fusion import Gaps, between, find_gaps, fuse_priors, smooth_branch
from abaw_expr.outputs.table import Outputs, VideoOutputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Statistics
from tuning.space import Candidate, Smoothing, Space, by_zeros

NUMBERS_AT_A_TIME = 2**19
"""Fused numbers at a time: a few MB, and enough that threads seldom wait for each other's Python code."""


class FieldCounts:
    """The tuning statistics of candidates on the videos of a table."""

    def __init__(self, outputs: Outputs, videos: Sequence[VideoOutputs], space: Space) -> None:
        assert space.tau == (0.0,), "values and units have no prior correction; `Space.restricted_to` removes it"
        metric = metric_of(outputs.task)
        self._videos, self._space, self._names = videos, space, list(outputs.branches)
        self._priors = [source.prior for source in outputs.branches.values()]
        self._counters = [metric.tuning_counter(video.label) for video in videos]

    def __call__(self, smoothing: Smoothing) -> Iterator[tuple[Candidate, Statistics]]:
        """The candidates of one smoothing with their statistics [V, F, K]."""
        found: dict[tuple[int, ...], list[Statistics]] = {weights: [] for weights in self._space.ratios}
        for video, counter in zip(self._videos, self._counters, strict=True):
            smoothed = SmoothedVideo.of(video, self._names, smoothing, self._space.missing)
            at_a_time = max(1, NUMBERS_AT_A_TIME // smoothed.rows[0].size)
            for ratios in by_zeros(self._space.ratios):
                gaps = smoothed.gaps(ratios[0])
                for start in range(0, len(ratios), at_a_time):
                    part = ratios[start : start + at_a_time]
                    statistics = counter(smoothed.fused(part, gaps, self._priors))
                    for weights, one in zip(part, statistics, strict=True):
                        found[weights].append(one)
        for weights, by_video in found.items():
            yield Candidate(weights, smoothing, (0.0,) * len(weights)), np.stack(by_video)


@dataclass(frozen=True)
class SmoothedVideo:
    """The smoothed rows of one video, ready to be fused with any weights."""

    time: NDArray[np.float64]
    """[T]"""
    rows: Sequence[NDArray[np.float32]]
    """k arrays [C, T], 0 where the row is missing."""
    has: NDArray[np.bool_]
    """[k, P], the branches of each set."""
    which: NDArray[np.intp]
    """[T], the set of each frame."""

    @classmethod
    def of(cls, video: VideoOutputs, names: Sequence[str], smoothing: Smoothing, missing: str) -> Self:
        """The rows of the branches `names`."""
        rows, present = [], []
        for name in names:
            smoothed = smooth_branch(video.p[name], video.time, *smoothing, False, missing)
            present.append(~np.isnan(smoothed[:, 0]))
            planes = np.array(smoothed.T, np.float32, order="C")
            planes[:, ~present[-1]] = 0
            rows.append(planes)
        code = sum(has.astype(np.int64) << branch for branch, has in enumerate(present))
        codes, which = np.unique(code, return_inverse=True)
        return cls(video.time, rows, (codes >> np.arange(len(names))[:, None] & 1).astype(bool), which)

    def gaps(self, weights: Sequence[int]) -> Gaps | None:
        """The frames for which no branch with a weight above 0 has a row; None where these are all frames."""
        missing = ((np.asarray(weights) @ self.has) == 0)[self.which]
        return None if missing.all() else find_gaps(missing, self.time)

    def fused(
        self, ratios: Sequence[tuple[int, ...]], gaps: Gaps | None, priors: Sequence[Sequence[float]]
    ) -> NDArray[np.float32]:
        """The rows of `Decision.probabilities` for weights with the same zeros: [R, T, C], by column in memory.

        `gaps` are those of these weights, `priors` k rows [C].
        """
        if gaps is None:
            fallback = np.stack([fuse_priors(priors, weights) for weights in ratios])
            return np.tile(fallback[:, None], (1, len(self.time), 1))
        weights_rk = np.array(ratios)
        total = weights_rk @ self.has  # [R, P]
        fused = np.zeros((len(ratios), *self.rows[0].shape), np.float32)
        for rows, weights, has in zip(self.rows, weights_rk.T, self.has, strict=True):
            if weights.any():
                fraction = np.divide(weights[:, None], total, out=np.zeros(total.shape), where=has)  # [R, P]
                by_frame = fraction.astype(np.float32)[:, None, self.which if len(has) > 1 else slice(None)]
                fused += rows * by_frame
        filled = fused.swapaxes(1, 2)
        if len(gaps.row):
            filled[:, gaps.row] = between(filled[:, gaps.before], filled[:, gaps.after], gaps.weight)
        return filled
