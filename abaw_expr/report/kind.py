"""The interface by which a kind of task is shown on the page.

The kinds are in `kind_classes.py`, `kind_values.py` and `kind_units.py`, by name in `registry.py`. Annotations and
decisions are given to the page as codes, so that the page itself need not know the kind: code c of a field is of level
c * L // Q, where the field has L levels and Q codes.

Shapes: T frames of one video, C numbers of a row, F fields with L levels each, B bins.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.style import branch_colours, branch_dashes
from abaw_expr.report.packing import NO_CODE
from abaw_expr.tasks.metric import Metric

Codes = NDArray[np.uint8]


class Reliability(NamedTuple):
    """What was observed where a certain number was predicted, in B bins that have a frame."""

    predicted: NDArray[np.float64]
    """[B], the mean prediction of each bin."""
    observed: NDArray[np.float64]
    """[B]"""
    frames: NDArray[np.int64]
    """[B]"""

    @property
    def error(self) -> float:
        """The mean absolute difference of both, weighed by frames: the expected calibration error."""
        return float(np.average(np.abs(self.predicted - self.observed), weights=self.frames))


@dataclass(frozen=True)
class TimelineRow:
    """A row of a timeline. `source` names the arrays that it shows."""

    title: str
    form: Literal["band", "heat", "lines"]
    height: int
    """In pixels."""
    source: str
    """`truth` or `decided`, the key of a branch, or `values` for a field's annotation with all branches."""
    field: int = 0
    """The field of `values`."""


class TaskKind(ABC):
    """How annotations, decisions and numbers of a kind of task are shown."""

    fields: tuple[str, ...]
    """The names of what is decided on a frame."""
    levels: tuple[str, ...]
    """[L], the names of the levels of a field."""
    steps: int
    """Q, the number of codes."""
    low, high = 0.0, 1.0
    """The ends of the range of a branch's numbers."""
    colours: tuple[str, ...]
    """[L]"""
    patterns: tuple[str, ...]
    """[L]"""
    confusion_title: str
    reliability_axes: tuple[str, str]
    """What is predicted, and what is observed."""
    reliability_lead: str

    def __init__(self, metric: Metric) -> None:
        self.metric, self.task = metric, metric.task

    @abstractmethod
    def codes(self, labels: NDArray[Any]) -> Codes:
        """Labels, annotated or predicted, as codes: [T] or [T, F] -> [F, T], `NO_CODE` where not annotated."""

    @abstractmethod
    def errors(self, label: NDArray[Any], decided: NDArray[Any]) -> NDArray[np.float64]:
        """How wrong each frame is, 0 where it is right or not annotated: [T] or [T, F] both -> [T]."""

    @abstractmethod
    def in_words(self, label: NDArray[Any], decided: NDArray[Any]) -> str:
        """What is wrong in a stretch of frames: [t] or [t, F] both."""

    @abstractmethod
    def reliability(self, rows: NDArray[np.floating], label: NDArray[Any]) -> Reliability:
        """What was observed over what the fused rows predicted, on annotated frames: [T, C], [T] or [T, F]."""

    @abstractmethod
    def panels(self, votes: Mapping[str, str]) -> Sequence[TimelineRow]:
        """The rows of a timeline; `votes` are titles by the key of each branch, and of the fusion."""

    def level(self, codes: Codes) -> NDArray[np.intp]:
        """The level of each code that is not `NO_CODE`: [...] -> [...]."""
        return codes.astype(np.intp) * len(self.levels) // self.steps

    def confusion(self, truth: Codes, decided: Codes) -> NDArray[np.int64]:
        """Frames by annotated and decided level of each field: [F, T], [F, T] -> [F, L, L]."""
        size, known = len(self.levels), truth != NO_CODE
        pairs = self.level(np.where(known, truth, 0)) * size + self.level(decided)  # [F, T]
        counts = [np.bincount(row[has], minlength=size**2) for row, has in zip(pairs, known, strict=True)]
        return np.stack(counts).reshape(-1, size, size)

    def column_style(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        """The colour and the pattern of the bar of each column of the task."""
        return [self.colours[-1]] * len(names), [""] * len(names)

    def votes(self, branches: Sequence[str]) -> list[dict[str, Any]]:
        """The fusion and the branches, with their colours and line styles."""
        colours, dashes = branch_colours(branches), branch_dashes(branches)
        return [{"key": name, "colour": colours[name], "dash": [*dashes[name]]} for name in ("fused", *branches)]


def binned(predicted: NDArray[np.float64], observed: NDArray[np.float64], edges: NDArray[np.float64]) -> Reliability:
    """The means of both in the bins between `edges`, without empty bins: [n], [n], [B + 1]."""
    which = np.clip(np.searchsorted(edges, predicted, "right") - 1, 0, len(edges) - 2)
    frames = np.bincount(which, minlength=len(edges) - 1)
    kept = frames > 0
    sums = [np.bincount(which, values, minlength=len(edges) - 1)[kept] for values in (predicted, observed)]
    return Reliability(sums[0] / frames[kept], sums[1] / frames[kept], frames[kept])
