"""Plots a person's predictions over time: faces, the branches, and what the kind of task shows."""

from functools import partial
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from abaw_expr.files import atomic
from abaw_expr.infer.prediction import Panel, PersonPrediction
from abaw_expr.outputs.style import RULES, branch_colours
from abaw_expr.tasks.names import crop_name

_THUMBNAILS = 14
"""The largest number of faces."""


def draw_timeline(prediction: PersonPrediction, crops: Path | None, path: Path) -> None:
    """Plots predictions as PNG, whole or not at all; `crops` is the person's folder, None without a face."""
    with mpl.rc_context(RULES):
        _draw(prediction, crops, path)


def _draw(prediction: PersonPrediction, crops: Path | None, path: Path) -> None:
    figure = Figure(figsize=(12, 5.4), layout="constrained")
    *upper, last = prediction.panels()
    branches = Panel(0.14 * len(prediction.frames.p), partial(_draw_branches, prediction))
    faces = [Panel(0.78, partial(_draw_faces, prediction, crops))] if crops else []
    above = [*faces, *upper] or [Panel(0.01, lambda axes, end: axes.set_axis_off())]  # a place for the title
    panels = [*above, branches, last]
    heights = [panel.height for panel in panels]
    rows = figure.subplots(len(panels), 1, sharex=True, height_ratios=heights)
    end = float(prediction.frames.time[-1]) or 1.0
    for axes, panel in zip(rows, panels, strict=True):
        panel.draw(axes, end)
    rows[0].set_title(f"{prediction.name}: {prediction.headline()}", loc="left")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _draw_faces(prediction: PersonPrediction, crops: Path, axes: Axes, end: float) -> None:
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


def _draw_branches(prediction: PersonPrediction, axes: Axes, end: float) -> None:
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
