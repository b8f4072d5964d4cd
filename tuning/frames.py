"""The annotated frames of all videos, smoothed, with the gaps that are interpolated, for counting by the grid.

Shapes: T frames of one video, V videos, C classes, k branches, N annotated frames, g of them in gaps.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.fusion import Gaps, find_gaps, smooth_branch
from abaw_expr.outputs.table import Outputs, VideoOutputs
from tuning.space import Smoothing


@dataclass(frozen=True)
class AnnotatedFrames:
    """The annotated frames of videos, with the smoothed rows of every branch; a row all NaN is missing."""

    key: NDArray[np.intp]
    """[N], the index into flattened counts [V, C, C] of each frame's video and true class, and class 0."""
    p: NDArray[np.floating]
    """[k, N, C], the smoothed rows of every branch."""
    gap: NDArray[np.intp]
    """[g], the frames for which no branch has a row, in videos in which another frame has one."""
    before: NDArray[np.floating]
    """[k, g, C], the last rows before these gaps."""
    after: NDArray[np.floating]
    """[k, g, C], the first rows after them."""
    weight: NDArray[np.float64]
    """[g], the weight of `after`."""
    without_rows: NDArray[np.intp]
    """[s], the frames of videos for which no branch has any row."""

    def by_voters(self) -> Iterator[tuple[list[int], NDArray[np.intp] | slice]]:
        """For each set of branches, its indices and the indices [n] of the frames with a row of these branches only."""
        votes = ~np.isnan(self.p[:, :, 0])  # [k, N]
        code = np.sum([has.astype(np.intp) << branch for branch, has in enumerate(votes)], axis=0)
        for present in np.flatnonzero(np.bincount(code)):
            voters = [branch for branch in range(len(votes)) if present >> branch & 1]
            if voters:
                everywhere = len(code) == np.count_nonzero(code == present)
                yield voters, slice(None) if everywhere else np.flatnonzero(code == present)


def annotated_frames(
    outputs: Outputs, names: Sequence[str], videos: Sequence[VideoOutputs], smoothing: Smoothing, missing: str
) -> AnnotatedFrames:
    """The annotated frames of videos, with the rows of the branches `names`, for a task with one class per frame."""
    parts, start = [], 0
    for number, video in enumerate(videos):
        annotated = np.flatnonzero(video.label != outputs.task.ignore_value)
        p = np.stack([smooth_branch(video.p[name], video.time, *smoothing, True, missing) for name in names])
        key = (number * outputs.task.n_columns + video.label[annotated].astype(np.intp)) * outputs.task.n_columns
        parts.append(_of_video(p, video.time, annotated, key, start))
        start += len(annotated)
    return AnnotatedFrames(
        key=np.concatenate([part.key for part in parts]),
        p=np.concatenate([part.p for part in parts], axis=1),
        gap=np.concatenate([part.gap for part in parts]),
        before=np.concatenate([part.before for part in parts], axis=1),
        after=np.concatenate([part.after for part in parts], axis=1),
        weight=np.concatenate([part.weight for part in parts]),
        without_rows=np.concatenate([part.without_rows for part in parts]),
    )


def _of_video(
    p: NDArray[np.floating],
    time: NDArray[np.float64],
    annotated: NDArray[np.intp],
    key: NDArray[np.intp],
    start: int,
) -> AnnotatedFrames:
    """One video, from its smoothed rows [k, T, C] and times [T]; earlier videos have `start` annotated frames."""
    empty = np.isnan(p[:, :, 0]).all(axis=0)
    gap, without_rows = np.flatnonzero(empty[annotated]), np.zeros(0, np.intp)
    if empty.all():
        gap, without_rows = without_rows, gap
    gaps = find_gaps(empty, time) if len(gap) else Gaps(*np.zeros((4, 0), np.intp))
    wanted = np.isin(gaps.row, annotated[gap])
    return AnnotatedFrames(
        key=key,
        p=p[:, annotated],
        gap=gap + start,
        before=p[:, gaps.before[wanted]],
        after=p[:, gaps.after[wanted]],
        weight=gaps.weight[wanted],
        without_rows=without_rows + start,
    )
