"""Plots of a search over the six penalties: their importance, and their values with the macro F1."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import optuna
from optuna.importance import FanovaImportanceEvaluator, get_param_importances

from tuning.penalties import MU_NAMES, SPACE, PenaltySearch, TrialRow
from tuning.plots import CHOSEN, save

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_LABELS = tuple(f"µ{name.removeprefix('mu')}" for name in MU_NAMES)


def draw_penalties(found: PenaltySearch, folder: Path) -> list[Path]:
    """Draws importance and parallel coordinates of a search into a folder, and returns the PNG files.

    There are no files where all trials have the same score.
    """
    rows = [row for row in found.rows if row.macro_f1 is not None]
    if len({row.macro_f1 for row in rows}) < 2:
        return []
    fidelity = found.best.fidelity
    return [
        save(lambda figure: draw_importance(figure, importance(rows), len(rows)), folder / f"importance-{fidelity}"),
        save(lambda figure: draw_parallel(figure, rows), folder / f"parallel-{fidelity}"),
    ]


def importance(rows: Sequence[TrialRow]) -> Mapping[str, float]:
    """Each penalty's fraction of the variance of macro F1, by fANOVA (Hutter et al., ICML 2014); they sum to 1.

    All `rows` have a macro F1.
    """
    study = optuna.create_study(direction="maximize")
    study.add_trials(
        [
            optuna.trial.create_trial(
                params=dict(zip(MU_NAMES, row.mu, strict=True)), distributions=dict(SPACE), value=row.macro_f1
            )
            for row in rows
        ]
    )
    fractions = get_param_importances(study, evaluator=FanovaImportanceEvaluator(seed=0))
    return {name: fractions[name] for name in MU_NAMES}


def draw_importance(figure: "Figure", fractions: Mapping[str, float], trials: int) -> None:
    """Draws one bar for each penalty."""
    axes = figure.subplots()
    bars = axes.barh(_LABELS, [fractions[name] for name in MU_NAMES])
    axes.bar_label(bars, fmt="%.2f", padding=3)
    axes.set(xlabel="fraction of the variance of macro F1 (fANOVA)", title=f"What matters, by {trials} trials")
    axes.margins(x=0.1)
    axes.invert_yaxis()


def draw_parallel(figure: "Figure", rows: Sequence[TrialRow]) -> None:
    """Draws one line for each trial over its penalties, coloured by macro F1: the best on top, the default dashed."""
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import Normalize

    f1 = np.array([row.macro_f1 for row in rows], float)
    colours = ScalarMappable(Normalize(f1.min(), f1.max()), "viridis")
    axes = figure.subplots()
    order = np.argsort(f1, kind="stable")
    for index in order[:-1].tolist():
        axes.plot(_LABELS, rows[index].mu, color=colours.to_rgba(f1[index]), alpha=0.5, linewidth=0.8)
    best = rows[int(order[-1])]
    axes.plot(_LABELS, best.mu, color=CHOSEN, linewidth=2.5, label=f"best: {best.name}, {best.macro_f1:.4f}")
    for row in rows:
        if row.name == "default":
            axes.plot(_LABELS, row.mu, "--", color="black", label=f"default, {row.macro_f1:.4f}")
    axes.set(ylim=(-0.02, 1.02), ylabel="misclassification cost", title="Costs and the macro F1 tuned with them")
    axes.grid(alpha=0.3, axis="x")
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(0.0, -0.1), frameon=False, ncols=2)
    figure.colorbar(colours, ax=axes, label="macro F1, ratio tuned on these frames")
