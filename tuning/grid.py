"""Every candidate evaluated exactly, as confusion counts; the functions are fusion's own.

The tensor [candidates, videos, C, C] is the sufficient statistic of tuning: the score of any candidate on any set of
videos is a sum away.
"""

from collections.abc import Callable

import numpy as np

from abaw_expr.fusion import finish, fuse, smooth
from abaw_expr.outputs import Outputs, VideoOutputs
from abaw_expr.scoring import Counts, confusion, macro_f1
from tuning.space import Candidate, Space

Progress = Callable[[int, int], None]
"""Called with the number of videos done and of all videos."""


def confusion_tensor(outputs: Outputs, space: Space, progress: Progress | None = None) -> Counts:
    """Confusion counts of every candidate on every video: int64 [candidates, videos, C, C].

    Candidates in the order of `space.candidates()`, videos in that of `outputs.videos()`. What candidates share is
    computed once: smoothing a window, fusing a ratio.
    """
    index = {candidate: position for position, candidate in enumerate(space.candidates())}
    videos, n_classes = outputs.videos(), outputs.task.n_classes
    tensor = np.zeros((len(index), len(videos), n_classes, n_classes), dtype=np.int64)
    for position, video in enumerate(videos):
        if (video.label != outputs.task.unannotated).any():
            for candidate, counts in _video_counts(video, space, outputs).items():
                tensor[index[candidate], position] = counts
        if progress is not None:
            progress(position + 1, len(videos))
    return tensor


def best(tensor: Counts) -> int:
    """The candidate with the highest macro F1 over all videos; the first, so the simplest, of equals."""
    return int(macro_f1(tensor.sum(axis=1)).argmax())


def _video_counts(video: VideoOutputs, space: Space, outputs: Outputs) -> dict[Candidate, Counts]:
    """The confusion matrix [C, C] of every candidate on one video."""
    counts = {}
    annotated = np.flatnonzero(video.label != outputs.task.unannotated)
    truth = video.label[annotated]
    for smoothing in space.smoothing:
        audio, visual = (smooth(p, video.time, smoothing) for p in (video.audio, video.visual))
        for m, n in space.ratios:
            fused = fuse(audio, visual, m, n)
            for tau in space.tau:
                # Rows that nobody annotated are done with once the gaps between rows are filled.
                labels = finish(fused, video.time, outputs.prior, tau, annotated).argmax(axis=1)
                counts[Candidate(m, n, smoothing, tau)] = confusion(truth, labels, outputs.task.n_classes)
    return counts
