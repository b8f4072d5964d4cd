"""Action units: which are annotated and decided as active, and the probability of each by branch.

Shapes: T frames of one video, U units.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.style import UNIT_COLOUR
from abaw_expr.report.kind import Codes, Reliability, TaskKind, TimelineRow, binned
from abaw_expr.report.packing import NO_CODE
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.statistics import is_annotated

_BINS = 15
_MOST_NAMED = 3
"""Units of each kind of error that are named of a stretch."""


class UnitKind(TaskKind):
    """The activity of each unit on a frame."""

    levels, steps = ("inactive", "active"), 2
    colours, patterns = ("#ffffff", UNIT_COLOUR), ("", "")
    confusion_title = "Frames of each unit, by annotation and decision"
    reliability_axes = "probability of a unit", "fraction of frames on which it is active"
    reliability_lead = "All units together. Points below the line: units are less often active than promised."

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self.fields = self.task.columns

    def codes(self, labels: NDArray[Any]) -> Codes:
        return np.where(labels < 0, NO_CODE, labels).astype(np.uint8).T

    def errors(self, label: NDArray[Any], decided: NDArray[Any]) -> NDArray[np.float64]:
        return ((label != decided) & is_annotated(label, self.task)).sum(axis=1, dtype=np.float64)

    def in_words(self, label: NDArray[Any], decided: NDArray[Any]) -> str:
        known = is_annotated(label, self.task)
        missed, false = (known & (label == truth) & (decided != truth) for truth in (1, 0))
        parts = [(name, self._named(wrong.sum(axis=0))) for name, wrong in (("missed", missed), ("false", false))]
        return "; ".join(f"{name} {units}" for name, units in parts if units)

    def _named(self, counts: NDArray[np.int64]) -> str:
        """The units with the most frames, of those that have any: [U]."""
        most = [i for i in np.argsort(-counts, kind="stable").tolist() if counts[i]][:_MOST_NAMED]
        return ", ".join(self.fields[i] for i in most)

    def reliability(self, rows: NDArray[np.floating], label: NDArray[Any]) -> Reliability:
        known = is_annotated(label, self.task)
        return binned(rows[known].astype(np.float64), label[known].astype(np.float64), np.linspace(0, 1, _BINS + 1))

    def panels(self, votes: Mapping[str, str]) -> Sequence[TimelineRow]:
        height = 14 * len(self.fields)
        shown = {"truth": "annotated", "decided": "decided", **votes}
        return [TimelineRow(title, "heat", height, key) for key, title in shown.items()]
