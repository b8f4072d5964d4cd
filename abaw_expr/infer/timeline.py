"""The answer as a picture: faces along the time, the class decided, and the probabilities of all classes."""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from abaw_expr.files import atomic
from abaw_expr.infer.answer import Answer
from abaw_expr.tasks.names import crop_name

COLOURS = ("#b3b3b3", "#d55e00", "#009e73", "#7b4fa3", "#f2d13c", "#0072b2", "#e89ac7", "#56b4e9")
"""One a class, told apart by most eyes (after Okabe and Ito); of further tasks the first so many."""
THUMBNAILS = 14
"""Faces along the time, at most."""
MOST_POINTS = 2_000
"""Moments that are drawn, at most; a longer video is drawn at equal steps."""


def draw_timeline(answer: Answer, crops: Path | None, path: Path) -> None:
    """Draws an answer as PNG, whole or not at all; `crops` is the person's folder, None where there is no face."""
    with mpl.rc_context({"text.parse_math": False}):  # names are no formulas, whatever is in them
        _draw(answer, crops, path)


def _draw(answer: Answer, crops: Path | None, path: Path) -> None:
    figure = Figure(figsize=(12, 5), layout="constrained")
    heights = (0.78, 0.22, 3.2) if crops else (0.22, 3.2)
    rows = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    *strip, band, areas = rows
    end = float(answer.frames.time[-1]) or 1.0
    for axes in strip:
        assert crops is not None
        _draw_faces(axes, answer, crops, end)
    _draw_classes(band, answer, end)
    _draw_probabilities(areas, answer, end)
    often = ", ".join(f"{name} {share:.0%}" for name, share in answer.shares()[:3])
    rows[0].set_title(f"{answer.name}: {often} of the frames", loc="left")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_faces(axes: Axes, answer: Answer, crops: Path, end: float) -> None:
    """The face nearest to each of some moments at equal steps; none where none is near."""
    time, seen = answer.frames.time, np.flatnonzero(answer.frames.crop)
    count = min(THUMBNAILS, len(time))
    step = end / count
    for left in step * np.arange(count):
        nearest = seen[np.abs(time[seen] - (left + step / 2)).argmin()]
        place = (left + 0.03 * step, left + 0.97 * step, 0, 1)
        if left <= time[nearest] <= left + step:
            with Image.open(crops / crop_name(int(answer.frames.frame[nearest]))) as face:
                axes.imshow(np.asarray(face), extent=place, aspect="auto")
        else:
            axes.text(left + step / 2, 0.5, "no face", ha="center", va="center", color="0.6", fontsize=8)
    axes.set(xlim=(0, end), ylim=(0, 1))
    axes.axis("off")


def _draw_classes(axes: Axes, answer: Answer, end: float) -> None:
    """The decided class as a band, named where there is room."""
    label, time = answer.label, answer.frames.time
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    for start, stop in pairwise(edges):
        since, until = time[start], time[stop] if stop < len(label) else end
        axes.axvspan(since, until, color=COLOURS[label[start]], linewidth=0)
        if until - since > 0.07 * end:
            name = answer.task.columns[label[start]]
            axes.text((since + until) / 2, 0.5, name, ha="center", va="center", fontsize=9)
    axes.set(yticks=[], ylim=(0, 1))
    axes.tick_params(bottom=False)


def _draw_probabilities(axes: Axes, answer: Answer, end: float) -> None:
    """The probabilities laid on each other, so that the height of a colour is its class's share."""
    step = -(-len(answer.p) // MOST_POINTS)
    names = answer.task.columns
    areas = axes.stackplot(
        answer.frames.time[::step], answer.p[::step].T, colors=COLOURS[: len(names)], linewidth=0.4, edgecolor="white"
    )
    axes.set(xlim=(0, end), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    axes.legend(areas[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
