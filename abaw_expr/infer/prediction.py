"""The predictions for one person in a video.

Shapes: T frames, C classes.
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw_expr.outputs.table import VideoOutputs
from abaw_expr.tasks.task import Task


@dataclass(frozen=True, eq=False)
class PersonPrediction:
    """The predictions for one person in a video, T frames."""

    name: str
    """The video's name, with `_left` or `_right` where there are two people."""
    frames: VideoOutputs
    """The outputs of the branches, and the time, face and number of each frame."""
    p: NDArray[np.floating]
    """[T, C], the fused probabilities."""
    task: Task

    @property
    def label(self) -> NDArray[np.intp]:
        """[T], the most probable class."""
        return self.p.argmax(axis=1)

    @property
    def seconds(self) -> float:
        """The length of the video; its last frame is shown as long as the others."""
        time = self.frames.time
        return float(time[-1]) * len(time) / max(len(time) - 1, 1)

    def class_fractions(self) -> list[tuple[str, float]]:
        """The predicted classes, the most frequent first, with their fractions of the frames."""
        counts = np.bincount(self.label, minlength=self.task.n_columns) / len(self.label)
        return [(self.task.columns[i], float(counts[i])) for i in np.argsort(-counts, kind="stable") if counts[i]]

    def table(self) -> pd.DataFrame:
        """A row a frame: number, seconds, whether it has a face, the probability of each class, the class."""
        names = self.task.columns
        first = {"frame": self.frames.frame, "time": self.frames.time.round(4), "face": self.frames.crop.astype(int)}
        classes = dict(zip(names, self.p.T.round(5), strict=True))
        return pd.DataFrame(first | classes | {"class": np.array(names)[self.label]})
