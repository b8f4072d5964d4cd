"""What is said of one person in a video."""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw_expr.outputs.table import VideoOutputs
from abaw_expr.tasks.task import Task


@dataclass(frozen=True, eq=False)
class Answer:
    """What is said of one person in a video, T frames."""

    name: str
    """The video's name, with `_left` or `_right` where there are two people."""
    frames: VideoOutputs
    """The branches' own say, and when each frame is shown and has a face."""
    p: NDArray[np.floating]
    """[T, C], the fused probabilities."""
    task: Task

    @property
    def label(self) -> NDArray[np.intp]:
        """[T], the most probable class."""
        return self.p.argmax(axis=1)

    @property
    def seconds(self) -> float:
        """How long the video is: to its last picture, which is shown as long as the others."""
        time = self.frames.time
        return float(time[-1]) * len(time) / max(len(time) - 1, 1)

    def shares(self) -> list[tuple[str, float]]:
        """The classes that are decided, the most frequent first, with their shares of the frames."""
        counts = np.bincount(self.label, minlength=self.task.n_columns) / len(self.label)
        return [(self.task.columns[i], float(counts[i])) for i in np.argsort(-counts, kind="stable") if counts[i]]

    def table(self) -> pd.DataFrame:
        """A row a frame: number, seconds, whether it has a face, the probability of each class, the class."""
        names = self.task.columns
        first = {"frame": self.frames.frame, "time": self.frames.time.round(4), "face": self.frames.crop.astype(int)}
        classes = dict(zip(names, self.p.T.round(5), strict=True))
        return pd.DataFrame(first | classes | {"class": np.array(names)[self.label]})
