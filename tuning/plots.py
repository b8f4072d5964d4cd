"""Pictures of a search, as SVG and PNG: what was chosen, how broad that optimum is, and how far the figure flatters.

Shapes: R recordings.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from abaw_expr.files import atomic
from abaw_expr.outputs.fusion import SMOOTHERS, WEIGHTS, reduced
from abaw_expr.tasks.statistics import bootstrap_interval
from abaw_expr.tasks.task import Task
from tuning.selection import Search
from tuning.space import NONE, Candidate

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Draw = Callable[["Figure"], None]


def draw_search(search: Search, branches: Sequence[str], folder: Path) -> list[Path]:
    """Draws what the search found into a folder, and returns the PNG files.

    weights: the figure over the weights of two branches; smoothing: over the window, with its interval; optimism: tuned
    beside nested; confusion: the chosen candidate's matrix, of classes.
    """
    chosen, task = search.space.candidates()[int(search.choose(search.figures))], search.task
    pictures: dict[str, Draw] = {
        "smoothing": lambda figure: draw_smoothing(figure, search, chosen),
        "optimism": lambda figure: draw_optimism(figure, search),
    }
    if task.one_class:
        pictures["confusion"] = lambda figure: draw_confusion(figure, search, chosen, task)
    if len(branches) == 2 and len(search.space.ratios) > 1:
        pictures["weights"] = lambda figure: draw_weights(figure, search, chosen, branches)
    return [save(draw, folder / name) for name, draw in pictures.items()]


def save(draw: Draw, path: Path) -> Path:
    """Saves a picture beside `path` as .svg and .png, whole or not at all; equal pictures give equal files."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    for metric, metadata in (("svg", {"Date": None}), ("png", {})):
        # names are no formulas, whatever is in them
        rules = mpl.rc_context({"svg.hashsalt": path.name, "text.parse_math": False})
        with rules, atomic(path.with_suffix(f".{metric}")) as temporary:
            figure = Figure(figsize=(7, 4.5), layout="constrained")
            draw(figure)
            figure.savefig(temporary, format=metric, dpi=110, metadata=metadata)
    return path.with_suffix(".png")


def draw_weights(figure: "Figure", search: Search, chosen: Candidate, branches: Sequence[str]) -> None:
    """A heat map of the figure over both weights, smoothing and correction as chosen."""
    place = {candidate: number for number, candidate in enumerate(search.space.candidates())}
    figures, known = search.figures, set(search.space.ratios)
    cells = np.full((len(WEIGHTS), len(WEIGHTS)), np.nan)
    for row, m in enumerate(WEIGHTS):
        for column, n in enumerate(WEIGHTS):
            if reduced((m, n)) in known:
                cells[row, column] = figures[place[replace(chosen, weights=reduced((m, n)))]]
    axes = figure.subplots()
    image = axes.imshow(cells, origin="lower", cmap="viridis")
    _number_cells(axes, cells, "{:.3f}")
    ticks = range(len(WEIGHTS))
    axes.set_xticks(ticks, [str(weight) for weight in WEIGHTS])
    axes.set_yticks(ticks, [str(weight) for weight in WEIGHTS])
    axes.set(
        xlabel=f"weight of {branches[1]}, n",
        ylabel=f"weight of {branches[0]}, m",
        title=_given(search, chosen, "weights"),
    )
    figure.colorbar(image, ax=axes, label=f"{search.metric.name}, tuned on these frames")


def draw_smoothing(figure: "Figure", search: Search, chosen: Candidate) -> None:
    """The figure over the width of the window, weights and correction as chosen, with 95 % over recordings."""
    place = {candidate: number for number, candidate in enumerate(search.space.candidates())}
    axes, score = figure.subplots(), search.metric.tuned_score
    for number, smoother in enumerate(SMOOTHERS):
        windows = sorted(s for s in search.space.smoothing if s.smoother == smoother or s == NONE)
        if len(windows) < 2:
            continue
        counts = search.counts[[place[replace(chosen, smoothing=window)] for window in windows]]
        seconds = [window.seconds for window in windows]
        axes.plot(seconds, score(counts.sum(axis=1)), "o-", color=f"C{number}", label=smoother)
        if counts.shape[1] > 1:
            low, high = zip(*(bootstrap_interval(one, score, seed=0) for one in counts), strict=True)
            axes.fill_between(seconds, low, high, color=f"C{number}", alpha=0.15, label="95 % over recordings")
    axes.axvline(chosen.smoothing.seconds, color="gray", linestyle=":", label="chosen")
    axes.set(xlabel="window, s", ylabel=search.metric.name, title=_given(search, chosen, "smoothing"))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def draw_optimism(figure: "Figure", search: Search) -> None:
    """The tuned figure beside the nested one with its interval."""
    estimate, figures = search.estimate, search.figures
    tuned = float(figures[search.choose(figures)])
    axes = figure.subplots()
    bars = [("nothing tuned", float(figures[0])), ("tuned", tuned)]
    if estimate.nested is not None:
        bars.append(("nested: what to expect", estimate.nested))
    axes.barh([name for name, _ in bars], [value for _, value in bars], color=["C7", "C1", "C0"][: len(bars)])
    if estimate.nested is not None and estimate.interval is not None:
        low, high = estimate.interval
        axes.plot([low, high], [len(bars) - 1] * 2, color="black", label="95 % over recordings")
        axes.legend(fontsize="small", loc="lower right")
    for row, (_, value) in enumerate(bars):
        axes.annotate(f" {value:.4f}", (0, row), va="center", color="white", fontweight="bold")
    flatters = "" if estimate.optimism is None else f": tuning flatters by {estimate.optimism:.4f}"
    axes.set(xlabel=search.metric.name, title=f"{len(figures):,} candidates{flatters}")
    axes.invert_yaxis()


def draw_confusion(figure: "Figure", search: Search, chosen: Candidate, task: Task) -> None:
    """The confusion matrix of the chosen candidate: shares of each true class, and counts."""
    counts = search.counts[search.space.candidates().index(chosen)].sum(axis=0)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1)
    _number_cells(axes, counts, "{:,}", dark=shares > 0.5)
    ticks = range(task.n_columns)
    axes.set_xticks(ticks, task.columns, rotation=45, ha="right", fontsize="small")
    axes.set_yticks(ticks, task.columns, fontsize="small")
    axes.set(
        xlabel="decided",
        ylabel="annotated",
        title=f"Macro F1 {search.metric.score(counts):.4f}, tuned on these frames",
    )
    figure.colorbar(image, ax=axes, label="share of the annotated class")


def _number_cells(axes: "Axes", cells: np.ndarray, text: str, dark: np.ndarray | None = None) -> None:
    middle = np.nanmean([np.nanmin(cells), np.nanmax(cells)])
    for (row, column), value in np.ndenumerate(cells):
        if np.isfinite(value):
            light = value < middle if dark is None else dark[row, column]
            color = "white" if light else "black"
            axes.annotate(text.format(value), (column, row), ha="center", va="center", color=color, fontsize="x-small")


def _given(search: Search, chosen: Candidate, varied: str) -> str:
    """What is held as chosen while one axis varies."""
    window = (
        f"{chosen.smoothing.smoother} of {chosen.smoothing.seconds:g} s" if chosen.smoothing != NONE else "no window"
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
