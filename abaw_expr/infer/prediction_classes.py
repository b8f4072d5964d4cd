"""Predicted classes: a band of the predicted class over time, and the stacked probabilities of all classes.

Shapes: T frames, C classes.
"""

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.infer.prediction import DECIMALS, Caption, Panel, PersonPrediction, most_frequent, percent
from abaw_expr.outputs.style import CLASS_COLOURS, text_colour

if TYPE_CHECKING:
    from matplotlib.axes import Axes


class ClassPrediction(PersonPrediction):
    """The probability of each class, and the most probable class."""

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The probability of each class, and the name of the predicted one."""
        names = self.task.columns
        return dict(zip(names, self.p.T.round(DECIMALS), strict=True)) | {"class": np.array(names)[self.label]}

    def summary(self) -> Mapping[str, str | float]:
        name, fraction = self._fractions()[0]
        return {"most frequent": name, "fraction": fraction}

    def headline(self) -> str:
        return percent(self._fractions())

    def caption(self, row: int) -> Caption:
        best = int(self.label[row])
        return Caption(f"{self.task.columns[best]} {self.p[row, best]:.0%}", CLASS_COLOURS[best])

    def panels(self) -> Sequence[Panel]:
        return Panel(0.22, self._draw_classes), Panel(3.2, self._draw_probabilities)

    def _fractions(self) -> list[tuple[str, float]]:
        """The predicted classes, the most frequent first, with their fractions of the frames."""
        counts = np.bincount(self.label, minlength=self.task.n_columns)
        return most_frequent(self.task.columns, counts / len(self.label))

    def _draw_classes(self, axes: "Axes", end: float) -> None:
        """The predicted class as a band, named where there is room."""
        label, time = self.label, self.frames.time
        edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
        for start, stop in pairwise(edges):
            begin, finish = time[start], time[stop] if stop < len(label) else end
            axes.axvspan(begin, finish, facecolor=CLASS_COLOURS[label[start]], linewidth=0)
            if finish - begin > 0.07 * end:
                name = self.task.columns[label[start]]
                colour = text_colour(CLASS_COLOURS[label[start]])
                axes.text((begin + finish) / 2, 0.5, name, ha="center", va="center", fontsize=9, color=colour)
        axes.set(yticks=[], ylim=(0, 1))
        axes.tick_params(bottom=False)

    def _draw_probabilities(self, axes: "Axes", end: float) -> None:
        """The stacked probabilities: the height of a colour is the probability of its class."""
        names, plotted = self.task.columns, self.plotted
        areas = axes.stackplot(
            self.frames.time[plotted],
            self.p[plotted].T,
            colors=CLASS_COLOURS[: len(names)],
            linewidth=0.4,
            edgecolor="white",
        )
        axes.set(xlim=(0, end), ylim=(0, 1), xlabel="seconds", ylabel="probability")
        axes.legend(areas[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
