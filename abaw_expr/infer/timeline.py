"""Plots a person's predictions over time: faces, the predicted class, the branches and the probabilities of all
classes."""

from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from abaw_expr.files import atomic
from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.outputs.colours import CLASS_COLOURS, branch_colours, text_colour
from abaw_expr.tasks.names import crop_name

_THUMBNAILS = 14
"""The largest number of faces."""
_MOST_POINTS = 2_000
"""The largest number of plotted points; a longer video is sampled at equal steps."""


def draw_timeline(prediction: PersonPrediction, crops: Path | None, path: Path) -> None:
    """Plots predictions as PNG, whole or not at all; `crops` is the person's folder, None without a face."""
    with mpl.rc_context({"text.parse_math": False}):  # names may hold characters of formulas
        _draw(prediction, crops, path)


def _draw(prediction: PersonPrediction, crops: Path | None, path: Path) -> None:
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    heights = (*((0.78,) if crops else ()), 0.22, 0.14 * len(prediction.frames.p), 3.2)
    rows = figure.subplots(len(heights), 1, sharex=True, height_ratios=heights)
    *strip, band, branches, areas = rows
    end = float(prediction.frames.time[-1]) or 1.0
    for axes in strip:
        assert crops is not None
        _draw_faces(axes, prediction, crops, end)
    _draw_classes(band, prediction, end)
    _draw_branches(branches, prediction, end)
    _draw_probabilities(areas, prediction, end)
    often = ", ".join(f"{name} {fraction:.0%}" for name, fraction in prediction.class_fractions()[:3])
    rows[0].set_title(f"{prediction.name}: {often} of the frames", loc="left")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_faces(axes: Axes, prediction: PersonPrediction, crops: Path, end: float) -> None:
    """The face nearest to the centre of each of some equal intervals; "no face" where the interval has none."""
    time, with_face = prediction.frames.time, np.flatnonzero(prediction.frames.crop)
    count = min(_THUMBNAILS, len(time))
    step = end / count
    for left in step * np.arange(count):
        nearest = with_face[np.abs(time[with_face] - (left + step / 2)).argmin()]
        extent = (left + 0.03 * step, left + 0.97 * step, 0, 1)
        if left <= time[nearest] <= left + step:
            with Image.open(crops / crop_name(int(prediction.frames.frame[nearest]))) as face:
                axes.imshow(np.asarray(face), extent=extent, aspect="auto")
        else:
            axes.text(left + step / 2, 0.5, "no face", ha="center", va="center", color="0.6", fontsize=8)
    axes.set(xlim=(0, end), ylim=(0, 1))
    axes.axis("off")


def _draw_classes(axes: Axes, prediction: PersonPrediction, end: float) -> None:
    """The predicted class as a band, named where there is room."""
    label, time = prediction.label, prediction.frames.time
    edges = [0, *(np.flatnonzero(np.diff(label)) + 1).tolist(), len(label)]
    for start, stop in pairwise(edges):
        begin, finish = time[start], time[stop] if stop < len(label) else end
        axes.axvspan(begin, finish, color=CLASS_COLOURS[label[start]], linewidth=0)
        if finish - begin > 0.07 * end:
            name = prediction.task.columns[label[start]]
            colour = text_colour(CLASS_COLOURS[label[start]])
            axes.text((begin + finish) / 2, 0.5, name, ha="center", va="center", fontsize=9, color=colour)
    axes.set(yticks=[], ylim=(0, 1))
    axes.tick_params(bottom=False)


def _draw_branches(axes: Axes, prediction: PersonPrediction, end: float) -> None:
    """A band for each branch, where it has a vote; blank where its modality is missing."""
    time, colours = np.append(prediction.frames.time, end), branch_colours(prediction.frames.p)
    for row, (name, p) in enumerate(prediction.frames.p.items()):
        edges = np.flatnonzero(np.diff(~np.isnan(p[:, 0]), prepend=False, append=False))
        spans = [(time[start], time[stop] - time[start]) for start, stop in edges.reshape(-1, 2)]
        axes.broken_barh(spans, (row - 0.35, 0.7), color=colours[name])
    axes.set_yticks(range(len(prediction.frames.p)), list(prediction.frames.p), fontsize=8)
    axes.set(xlim=(0, end), ylim=(len(prediction.frames.p) - 0.5, -0.5))
    axes.tick_params(bottom=False, left=False)
    axes.set_title("branches that have a vote", loc="left", fontsize=8, pad=2)


def _draw_probabilities(axes: Axes, prediction: PersonPrediction, end: float) -> None:
    """The stacked probabilities: the height of a colour is the probability of its class."""
    step = -(-len(prediction.p) // _MOST_POINTS)
    names = prediction.task.columns
    areas = axes.stackplot(
        prediction.frames.time[::step],
        prediction.p[::step].T,
        colors=CLASS_COLOURS[: len(names)],
        linewidth=0.4,
        edgecolor="white",
    )
    axes.set(xlim=(0, end), ylim=(0, 1), xlabel="seconds", ylabel="probability")
    axes.legend(areas[::-1], names[::-1], loc="center left", bbox_to_anchor=(1.0, 0.5), frameon=False)
