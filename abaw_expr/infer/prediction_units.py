"""Predicted action units: a band for each over time, filled where the unit is active.

Shapes: T frames, U units.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.infer.prediction import DECIMALS, Caption, Panel, PersonPrediction, most_frequent, percent
from abaw_expr.outputs.style import UNIT_COLOUR

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_NO_UNIT = "no active unit"
_PALEST = -0.4
"""The probability that would be white: an active unit is seen even where its threshold is low."""


class UnitPrediction(PersonPrediction):
    """The probability of each action unit, and whether it is active."""

    def columns(self) -> Mapping[str, NDArray[Any]]:
        """The probability of each unit, then 1 or 0 for each: active or not."""
        p = dict(zip(self.task.columns, self.p.T.round(DECIMALS), strict=True))
        return p | {f"{name}_active": active for name, active in zip(self.task.columns, self.label.T, strict=True)}

    def summary(self) -> Mapping[str, str | float]:
        name, fraction = (self._fractions() or [("none", 0.0)])[0]
        return {"most frequent unit": name, "fraction": fraction}

    def headline(self) -> str:
        fractions = self._fractions()
        return f"active units {percent(fractions)}" if fractions else _NO_UNIT

    def caption(self, row: int) -> Caption:
        return Caption(" ".join(np.array(self.task.columns)[self.label[row] == 1]) or _NO_UNIT, UNIT_COLOUR)

    def panels(self) -> Sequence[Panel]:
        return (Panel(3.2, self._draw_units),)

    def _fractions(self) -> list[tuple[str, float]]:
        """The units that are ever active, the most frequent first, with their fractions of the frames."""
        return most_frequent(self.task.columns, self.label.mean(axis=0))

    def _draw_units(self, axes: "Axes", end: float) -> None:
        """A band for each unit: blank where it is not active, else the darker the more probable."""
        names, plotted = self.task.columns, self.plotted
        edges = np.append(self.frames.time[plotted], end)
        active = np.where(self.label[plotted] == 1, self.p[plotted], np.nan)
        bands = axes.pcolormesh(edges, np.arange(len(names) + 1) - 0.5, active.T, cmap="Blues", vmin=_PALEST, vmax=1)
        axes.set_facecolor("0.96")
        axes.hlines(np.arange(1, len(names)) - 0.5, 0, end, color="white", linewidth=3)
        axes.set_yticks(range(len(names)), names, fontsize=8)
        axes.tick_params(left=False)
        axes.set(xlim=(0, end), ylim=(len(names) - 0.5, -0.5), xlabel="seconds")
        scale = axes.figure.colorbar(bands, ax=axes, label="probability where active", pad=0.01)
        scale.ax.set_ylim(0, 1)
