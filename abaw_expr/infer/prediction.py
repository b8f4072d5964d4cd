"""The predictions for one person in a video, and the interface by which a kind of task shows them.

The kinds are in `prediction_classes.py`, `prediction_values.py` and `prediction_units.py`, by kind in `registry.py`.

Shapes: T frames, C numbers of a row, F fields.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw_expr.outputs.table import VideoOutputs
from abaw_expr.report.media import AudioLevels
from abaw_expr.tasks.task import Task

if TYPE_CHECKING:
    from matplotlib.axes import Axes

DECIMALS = 5
"""Of the numbers in a table."""
_MOST_POINTS = 2_000
"""The largest number of plotted points; a longer video is sampled at equal steps."""


class Panel(NamedTuple):
    """A part of the plot over time."""

    height: float
    """Relative to the other parts."""
    draw: "Callable[[Axes, float], None]"
    """Draws it, from 0 to this number of seconds."""


class Caption(NamedTuple):
    """The prediction for a frame, as it is written onto the video."""

    text: str
    colour: str
    """`#rrggbb`, of the box around the face and behind the text."""


@dataclass(frozen=True, eq=False)
class PersonPrediction(ABC):
    """The predictions for one person in a video, T frames."""

    name: str
    """The video's name, with `_left` or `_right` where there are two people."""
    frames: VideoOutputs
    """The outputs of the branches, and the time, face and number of each frame."""
    p: NDArray[np.floating]
    """[T, C], the fused rows."""
    label: NDArray[Any]
    """[T] or [T, F], what `Metric.decide` makes of them."""
    task: Task
    audio: AudioLevels | None = None
    """Of the frames that a page samples; None without audio."""

    @property
    def seconds(self) -> float:
        """The length of the video; its last frame is shown as long as the others."""
        time = self.frames.time
        return float(time[-1]) * len(time) / max(len(time) - 1, 1)

    @property
    def plotted(self) -> slice:
        """The frames that are plotted over time."""
        return slice(None, None, -(-len(self.p) // _MOST_POINTS))

    def table(self) -> pd.DataFrame:
        """A row a frame: number, seconds, whether it has a face, the prediction."""
        first = {"frame": self.frames.frame, "time": self.frames.time.round(4), "face": self.frames.crop.astype(int)}
        return pd.DataFrame(first | dict(self.columns()))

    @abstractmethod
    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The prediction for each frame, [T] by the name of the column."""

    @abstractmethod
    def summary(self) -> Mapping[str, str | float]:
        """The prediction for the whole video in a few cells, by their headers."""

    @abstractmethod
    def headline(self) -> str:
        """The prediction for the whole video as a line of text."""

    @abstractmethod
    def caption(self, row: int) -> Caption:
        """The prediction for the frame of a row, counted from 0."""

    @abstractmethod
    def panels(self) -> Sequence[Panel]:
        """The parts of the plot, from top to bottom; the last one is below the band of branches."""


def percent(fractions: Sequence[tuple[str, float]], most: int = 3) -> str:
    """The first few names with their fractions in words: `Neutral 60%, Anger 40% of the frames`."""
    return f"{', '.join(f'{name} {fraction:.0%}' for name, fraction in fractions[:most])} of the frames"


def most_frequent(names: Sequence[str], fractions: NDArray[np.floating]) -> list[tuple[str, float]]:
    """The names that occur, the most frequent first, with their fractions of the frames."""
    return [(names[i], float(fractions[i])) for i in np.argsort(-fractions, kind="stable") if fractions[i]]
