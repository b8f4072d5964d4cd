"""Values such as valence and arousal: a line of the annotation, of the decision and of each branch for every field.

Shapes: T frames of one video, F fields.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.style import VALUE_COLOURS, cycled
from abaw_expr.report.kind import Codes, Reliability, TaskKind, TimelineRow, binned
from abaw_expr.report.packing import NO_CODE, codes
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.statistics import is_annotated

_LEVELS = 8
"""Levels of a value from its lowest to its highest, in the confusion."""


class ValueKind(TaskKind):
    """One value per field and frame."""

    steps = NO_CODE
    confusion_title = "Frames by annotated value (rows) and decided value (columns), each in equal parts of its range"
    reliability_axes = "decided value", "mean annotated value"
    reliability_lead = "A slope above the line's: the decided values stay too close to the middle."

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        first = self.task.fields[0]
        self.low, self.high = float(first.low), float(first.high)
        self.fields = tuple(field.name for field in self.task.fields)
        edges = np.linspace(self.low, self.high, _LEVELS + 1).tolist()
        self.levels = tuple(f"{low:+.2f} to {high:+.2f}" for low, high in pairwise(edges))
        self.colours = tuple(cycled(VALUE_COLOURS, _LEVELS))
        self.patterns = ("",) * _LEVELS

    def codes(self, labels: NDArray[Any]) -> Codes:
        known = np.where(is_annotated(labels, self.task), labels, np.nan)
        return codes(known.T.astype(np.float64), self.low, self.high)

    def errors(self, label: NDArray[Any], decided: NDArray[Any]) -> NDArray[np.float64]:
        return np.where(is_annotated(label, self.task), np.abs(label - decided), 0).sum(axis=1, dtype=np.float64)

    def in_words(self, label: NDArray[Any], decided: NDArray[Any]) -> str:
        known = is_annotated(label, self.task)
        parts = [
            f"{name} {label[has, i].mean():+.2f} annotated, {decided[has, i].mean():+.2f} decided"
            for i, (name, has) in enumerate(zip(self.fields, known.T, strict=True))
            if has.any()
        ]
        return "; ".join(parts)

    def reliability(self, rows: NDArray[np.floating], label: NDArray[Any]) -> Reliability:
        known = is_annotated(label, self.task)
        edges = np.linspace(self.low, self.high, _LEVELS + 1)
        return binned(rows[known].astype(np.float64), label[known].astype(np.float64), edges)

    def panels(self, votes: Mapping[str, str]) -> Sequence[TimelineRow]:
        return [TimelineRow(name, "lines", 170, "values", field) for field, name in enumerate(self.fields)]

    def column_style(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        return self.colours[: len(names)], [""] * len(names)
