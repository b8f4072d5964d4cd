"""Plots of a search, as SVG and PNG: the choice, the width of its optimum, and the optimism of its score.

Shapes: R recordings, C classes, M x M weights of two branches.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from abaw_expr.files import atomic
from abaw_expr.outputs.fusion import MAX_WEIGHT, SMOOTHERS, WEIGHTS, reduced
from abaw_expr.outputs.style import CHOSEN, DASHES, NEUTRAL, RULES, SERIES, line_style
from abaw_expr.tasks.statistics import bootstrap_interval
from abaw_expr.tasks.task import Task
from tuning.selection import Search
from tuning.space import NO_SMOOTHING, Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]
EDGE_NOTE = "\n(at the edge of the search space)"


def draw_search(search: Search, branches: Sequence[str], folder: Path) -> list[Path]:
    """Draws the results of a search into a folder, and returns the PNG files.

    weights: the score over the weights of two branches; smoothing: over the window, with its interval; optimism: tuned
    and nested score; confusion: the matrix of the chosen candidate, for classes.
    """
    chosen, task = search.space.candidates()[int(search.choose(search.scores))], search.task
    plots: dict[str, Draw] = {
        "smoothing": lambda figure: draw_smoothing(figure, search, chosen),
        "optimism": lambda figure: draw_optimism(figure, search),
    }
    if task.one_class:
        plots["confusion"] = lambda figure: draw_confusion(figure, search, chosen, task)
    if len(branches) == 2 and len(search.space.ratios) > 1:
        plots["weights"] = lambda figure: draw_weights(figure, search, chosen, branches)
    return [save(draw, folder / name) for name, draw in plots.items()]


def save(draw: Draw, path: Path) -> Path:
    """Saves a plot as `path`.svg and `path`.png, atomically; equal plots give equal files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for suffix, metadata in (("svg", {"Date": None}), ("png", {})):
        rules = mpl.rc_context({**RULES, "svg.hashsalt": path.name})
        with rules, atomic(path.with_suffix(f".{suffix}")) as temporary:
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            draw(figure)
            figure.savefig(temporary, format=suffix, dpi=110, metadata=metadata)
    return path.with_suffix(".png")


def draw_weights(figure: "Figure", search: Search, chosen: Candidate, branches: Sequence[str]) -> None:
    """Draws a heat map [M, M] of the score over both weights, with smoothing and correction as chosen."""
    index = {candidate: number for number, candidate in enumerate(search.space.candidates())}
    scores, known = search.scores, set(search.space.ratios)
    cells = np.full((len(WEIGHTS), len(WEIGHTS)), np.nan)
    for row, m in enumerate(WEIGHTS):
        for column, n in enumerate(WEIGHTS):
            if reduced((m, n)) in known:
                cells[row, column] = scores[index[replace(chosen, weights=reduced((m, n)))]]
    axes = figure.subplots()
    image = axes.imshow(cells, origin="lower", cmap="viridis")
    _number_cells(axes, cells, "{:.3f}")
    _frame_cell(axes, chosen.weights)
    ticks = range(len(WEIGHTS))
    axes.set_xticks(ticks, [str(weight) for weight in WEIGHTS])
    axes.set_yticks(ticks, [str(weight) for weight in WEIGHTS])
    axes.set(
        xlabel=f"weight of {branches[1]}, n",
        ylabel=f"weight of {branches[0]}, m",
        title=_given(search, chosen, "weights") + (EDGE_NOTE if MAX_WEIGHT in chosen.weights else ""),
    )
    figure.colorbar(image, ax=axes, label=f"{search.metric.name}, tuned on these frames")


def _frame_cell(axes: "Axes", weights: Sequence[int]) -> None:
    """Frames the chosen weights, in lowest terms, in the heat map."""
    from matplotlib.patches import Rectangle

    m, n = weights
    cell = Rectangle((n - 1.5, m - 1.5), 1, 1, fill=False, edgecolor=CHOSEN, linewidth=3, label="chosen")
    axes.add_patch(cell)
    axes.legend(handles=[cell], loc="upper left", bbox_to_anchor=(0.0, -0.12), frameon=False, fontsize="small")


def draw_smoothing(figure: "Figure", search: Search, chosen: Candidate) -> None:
    """Draws the score over the width of the window, with its 95 % interval, weights and correction as chosen."""
    index = {candidate: number for number, candidate in enumerate(search.space.candidates())}
    axes, score = figure.subplots(), search.metric.tuned_score
    for smoother, colour, dash, marker in zip(SMOOTHERS, SERIES[::2], DASHES, "os", strict=False):
        windows = sorted(s for s in search.space.smoothing if s.smoother == smoother or s == NO_SMOOTHING)
        if len(windows) < 2:
            continue
        counts = search.counts[[index[replace(chosen, smoothing=window)] for window in windows]]
        seconds = [window.seconds for window in windows]
        axes.plot(seconds, score(counts.sum(axis=1)), marker, linestyle=line_style(dash), color=colour, label=smoother)
        if counts.shape[1] > 1:
            low, high = zip(*(bootstrap_interval(one, score, seed=0) for one in counts), strict=True)
            axes.fill_between(seconds, low, high, color=colour, alpha=0.15, label="95 % over recordings")
    axes.axvline(
        chosen.smoothing.seconds, color=CHOSEN, linestyle=":", linewidth=2, label=_chosen_window(search, chosen)
    )
    axes.set(xlabel="window, s", ylabel=search.metric.name, title=_given(search, chosen, "smoothing"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)


def _chosen_window(search: Search, chosen: Candidate) -> str:
    """The legend of the chosen window; it notes where this is the widest window that is tried."""
    widest = chosen.smoothing.seconds == max(window.seconds for window in search.space.smoothing)
    return "chosen" + (", the widest tried" if widest and chosen.smoothing.seconds else "")


def draw_optimism(figure: "Figure", search: Search) -> None:
    """Draws the tuned score beside the nested one with its interval."""
    estimate, scores = search.estimate, search.scores
    tuned = float(scores[search.choose(scores)])
    axes = figure.subplots()
    bars = [("nothing tuned", float(scores[0])), ("tuned", tuned)]
    if estimate.nested is not None:
        bars.append(("nested: what to expect", estimate.nested))
    axes.barh([name for name, _ in bars], [value for _, value in bars], color=[NEUTRAL, CHOSEN, SERIES[0]][: len(bars)])
    if estimate.nested is not None and estimate.interval is not None:
        low, high = estimate.interval
        axes.plot([low, high], [len(bars) - 1] * 2, color="black", label="95 % over recordings")
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
    for row, (_, value) in enumerate(bars):
        axes.annotate(f" {value:.4f}", (0, row), va="center", color="white", fontweight="bold")
    optimism = "" if estimate.optimism is None else f": optimism {estimate.optimism:.4f}"
    axes.set(xlabel=search.metric.name, ylabel="score", title=f"{len(scores):,} candidates{optimism}")
    axes.invert_yaxis()


def draw_confusion(figure: "Figure", search: Search, chosen: Candidate, task: Task) -> None:
    """Draws the confusion matrix [C, C] of the chosen candidate: fractions of each true class, and counts."""
    counts = search.counts[search.space.candidates().index(chosen)].sum(axis=0)
    fractions = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    image = axes.imshow(fractions, cmap="Blues", vmin=0, vmax=1)
    _number_cells(axes, counts, "{:,}", dark=fractions > 0.5)
    ticks = range(task.n_columns)
    axes.set_xticks(ticks, task.columns, rotation=45, ha="right", fontsize="small")
    axes.set_yticks(ticks, task.columns, fontsize="small")
    axes.set(
        xlabel="predicted",
        ylabel="annotated",
        title=f"Macro F1 {search.metric.score(counts):.4f}, tuned on these frames",
    )
    figure.colorbar(image, ax=axes, label="fraction of the annotated class")


def _number_cells(axes: "Axes", cells: np.ndarray, text: str, dark: np.ndarray | None = None) -> None:
    middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            light = value < middle if dark is None else dark[row, column]
            color = "white" if light else "black"
            axes.annotate(text.format(value), (column, row), ha="center", va="center", color=color, fontsize="x-small")


def _given(search: Search, chosen: Candidate, varied: str) -> str:
    """The title: the chosen values of the axes other than `varied`."""
    window = (
        f"{chosen.smoothing.smoother} of {chosen.smoothing.seconds:g} s"
        if chosen.smoothing != NO_SMOOTHING
        else "no window"
    )
    parts = {
        "weights": f"weights {':'.join(map(str, chosen.weights))}",
        "smoothing": window,
        "tau": f"tau {':'.join(f'{tau:g}' for tau in chosen.tau)}",
    }
    if not search.metric.distribution:
        del parts["tau"]
    given = ", ".join(part for name, part in parts.items() if name != varied)
    return f"{search.metric.title} at {given}"
