"""Plots of a sweep: the importance of its settings, and their values with the scores."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from abaw_expr.outputs.style import CHOSEN, SERIES
from tuning.plots import save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_FEWEST = 8
"""Trials that an importance is computed of."""
DEFAULT = "default"
"""The name of the trial of the settings as they are."""


@dataclass(frozen=True)
class Point:
    """A trial that was scored."""

    name: str
    values: Mapping[str, Any]
    score: float


@dataclass(frozen=True)
class Axis:
    """A setting that is varied, and how plots name it."""

    label: str
    distribution: BaseDistribution

    def place(self, value: Any) -> float:
        """Where a value lies between the ends of its range, 0 to 1."""
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return one.choices.index(value) / max(len(one.choices) - 1, 1)
        assert isinstance(one, FloatDistribution | IntDistribution)
        low, high, at = np.log([one.low, one.high, value]) if one.log else (one.low, one.high, value)
        return float((at - low) / (high - low)) if high > low else 0.5

    @property
    def ends(self) -> tuple[str, str]:
        """The first and the last value, as text."""
        one = self.distribution
        if isinstance(one, CategoricalDistribution):
            return str(one.choices[0]), str(one.choices[-1])
        assert isinstance(one, FloatDistribution | IntDistribution)
        return f"{one.low:g}", f"{one.high:g}"


def draw_sweep(
    points: Sequence[Point], axes: Mapping[str, Axis], score: str, folder: Path, name: str = ""
) -> list[Path]:
    """Draws importance and parallel coordinates of a sweep into a folder, and returns the PNG files.

    `score` says what the scores are. There are no files where all trials have the same score, and no importance
    of few trials.
    """
    if len({point.score for point in points}) < 2:
        return []
    files = [save(lambda figure: draw_parallel(figure, points, axes, score), folder / f"parallel{name}")]
    if len(points) < _FEWEST:
        return files
    fractions, path = importance(points, axes), folder / f"importance{name}"
    return [save(lambda figure: draw_importance(figure, fractions, axes, score, len(points)), path), *files]


def importance(points: Sequence[Point], axes: Mapping[str, Axis]) -> dict[str, float]:
    """Each setting's fraction of the variance of the score, by fANOVA (Hutter et al., ICML 2014); they sum to 1."""
    study = optuna.create_study(direction="maximize")
    distributions = {name: axis.distribution for name, axis in axes.items()}
    study.add_trials(
        [
            optuna.trial.create_trial(params=dict(point.values), distributions=distributions, value=point.score)
            for point in points
        ]
    )
    fractions = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: fractions.get(name, 0.0) for name in axes}


def draw_importance(
    figure: "Figure", fractions: Mapping[str, float], axes: Mapping[str, Axis], score: str, trials: int
) -> None:
    """Draws one bar for each setting."""
    plot = figure.subplots()
    bars = plot.barh([axes[name].label for name in fractions], [*fractions.values()], color=SERIES[0])
    plot.bar_label(bars, fmt="%.2f", padding=3)
    plot.set(
        xlabel=f"fraction of the variance of {score} (fANOVA)",
        ylabel="setting",
        title=f"What matters, by {trials} trials",
    )
    plot.margins(x=0.1)
    plot.invert_yaxis()


def draw_parallel(figure: "Figure", points: Sequence[Point], axes: Mapping[str, Axis], score: str) -> None:
    """Draws one line for each trial over its values, coloured by its score: the best on top, the default dashed."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    scores = np.array([point.score for point in points], float)
    colours = ScalarMappable(Normalize(scores.min(), scores.max()), "viridis")
    plot, x = figure.subplots(), np.arange(len(axes))

    def line(point: Point) -> list[float]:
        return [axis.place(point.values[name]) for name, axis in axes.items()]

    order = np.argsort(scores, kind="stable")
    for index in order[:-1].tolist():
        plot.plot(x, line(points[index]), color=colours.to_rgba(scores[index]), alpha=0.5, linewidth=0.8)
    best = points[int(order[-1])]
    plot.plot(x, line(best), color=CHOSEN, linewidth=2.5, label=f"best: {best.name}, {best.score:.4f}")
    for point in points:
        if point.name == DEFAULT:
            plot.plot(x, line(point), "--", color="black", label=f"default, {point.score:.4f}")
    for place, axis in enumerate(axes.values()):
        for y, text in zip((0, 1), axis.ends, strict=True):
            plot.annotate(text, (place, y), (0, -9 if y == 0 else 4), textcoords="offset points", ha="center")
    plot.set_xticks(x, [axis.label for axis in axes.values()], rotation=20 if len(axes) > 4 else 0)
    plot.set(ylim=(-0.1, 1.1), yticks=[], xlabel="setting", ylabel="from the low to the high end of its range")
    plot.set_title("Values of the trials")
    plot.tick_params(axis="x", pad=10)
    plot.grid(alpha=0.3, axis="x")
    plot.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0.0, -0.25), frameon=False, ncols=2)
    figure.colorbar(colours, ax=plot, label=score)
