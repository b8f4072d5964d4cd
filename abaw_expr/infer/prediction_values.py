"""Predicted values, such as valence and arousal: a line for each over time.

Shapes: T frames, F fields.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.infer.prediction import DECIMALS, Caption, Panel, PersonPrediction
from abaw_expr.outputs.style import NEUTRAL, VALUE_COLOURS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_MARGIN = 0.02
"""Beyond the range of the values, of this range: a line at its end is seen whole."""


class ValuePrediction(PersonPrediction):
    """The values themselves, clipped to their range."""

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """Each value."""
        return dict(zip(self.task.columns, self.label.T.round(DECIMALS), strict=True))

    def summary(self) -> Mapping[str, str | float]:
        return {f"mean {name}": mean for name, mean in self._means().items()}

    def headline(self) -> str:
        return ", ".join(f"mean {name} {mean:+z.2f}" for name, mean in self._means().items())

    def caption(self, row: int) -> Caption:
        values = zip(self.task.columns, self.label[row].tolist(), strict=True)
        return Caption(" ".join(f"{name} {value:+z.1f}" for name, value in values), VALUE_COLOURS[0])

    def panels(self) -> Sequence[Panel]:
        return (Panel(3.2, self._draw_lines),)

    def _means(self) -> dict[str, float]:
        means = self.label.mean(axis=0, dtype=np.float64)
        return dict(zip(self.task.columns, means.tolist(), strict=True))

    def _draw_lines(self, axes: "Axes", end: float) -> None:
        """A line for each value, in the range that all of them have, and a line at 0."""
        axes.axhline(0, color=NEUTRAL, linewidth=0.8)
        time, plotted = self.frames.time, self.plotted
        for number, (name, values) in enumerate(zip(self.task.columns, self.label.T, strict=True)):
            colour = VALUE_COLOURS[number % len(VALUE_COLOURS)]
            axes.plot(time[plotted], values[plotted], color=colour, linewidth=1.4, label=name)
        low, high = min(field.low for field in self.task.fields), max(field.high for field in self.task.fields)
        margin = _MARGIN * (high - low)
        axes.set(xlim=(0, end), ylim=(low - margin, high + margin), xlabel="seconds", ylabel="value")
        axes.legend(loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
