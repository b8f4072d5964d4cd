"""Classes: bands of the annotated and of the decided class, and the probabilities of all classes by branch.

Shapes: T frames of one video, C classes.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.style import CLASS_COLOURS, CLASS_PATTERNS, cycled
from abaw_expr.report.kind import Codes, Reliability, TaskKind, TimelineRow, binned
from abaw_expr.report.packing import NO_CODE
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.statistics import is_annotated

_BINS = 15


class ClassKind(TaskKind):
    """One class per frame."""

    confusion_title = "Confusion: rows are annotated classes, columns are decided classes"
    reliability_axes = "probability of the decided class", "fraction of frames that are right"
    reliability_lead = "Points below the line: the fused probabilities promise more than they keep."

    def __init__(self, metric: Metric) -> None:
        super().__init__(metric)
        self.levels, self.fields, self.steps = self.task.columns, ("class",), self.task.n_columns
        self.colours = tuple(cycled(CLASS_COLOURS, self.steps))
        self.patterns = tuple(cycled(CLASS_PATTERNS, self.steps))

    def codes(self, labels: NDArray[Any]) -> Codes:
        return np.where(labels < 0, NO_CODE, labels).astype(np.uint8)[None]

    def errors(self, label: NDArray[Any], decided: NDArray[Any]) -> NDArray[np.float64]:
        return ((label != decided) & is_annotated(label, self.task)).astype(np.float64)

    def in_words(self, label: NDArray[Any], decided: NDArray[Any]) -> str:
        wrong = self.errors(label, decided) > 0
        pairs = np.bincount(label[wrong].astype(np.intp) * self.steps + decided[wrong])
        truth, other = divmod(int(pairs.argmax()), self.steps)
        return f"annotated {self.levels[truth]}, decided {self.levels[other]}"

    def reliability(self, rows: NDArray[np.floating], label: NDArray[Any]) -> Reliability:
        known = is_annotated(label, self.task)
        right = rows[known].argmax(axis=1) == label[known]
        return binned(
            rows[known].max(axis=1).astype(np.float64), right.astype(np.float64), np.linspace(0, 1, _BINS + 1)
        )

    def panels(self, votes: Mapping[str, str]) -> Sequence[TimelineRow]:
        height = 15 * self.steps
        bands = [TimelineRow("annotated", "band", 26, "truth"), TimelineRow("decided", "band", 26, "decided")]
        return [*bands, *(TimelineRow(title, "heat", height, key) for key, title in votes.items())]

    def column_style(self, names: Sequence[str]) -> tuple[Sequence[str], Sequence[str]]:
        return self.colours, self.patterns
