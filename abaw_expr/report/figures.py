"""Plots from plain numbers, by Bokeh; both axes of each are labelled, and the legend is text of the page.

Bokeh draws texts on a canvas, where they are never markup; `plain` keeps it from reading formulas in them.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from abaw_expr.outputs.style import CHOSEN, DASHES, NEUTRAL, Dash, text_colour
from abaw_expr.report.blocks import Figure, Key

if TYPE_CHECKING:
    from bokeh.plotting import figure

LONGEST = 26
"""Characters of a name in a plot; tables have all of them."""
MaybeNumber = float | int | None
HEIGHT = 320
_FONT = "system-ui, sans-serif"
_FITTING = 8
"""Columns of a map whose names stand beside each other on a narrow page."""
_CLOSE = 0.01
"""The range of scores below which one digit more is shown."""
_NOT_A_NUMBER = float("nan")


@dataclass(frozen=True)
class Line:
    """A line of a plot; None in `y` is a gap."""

    name: str
    x: Sequence[MaybeNumber]
    y: Sequence[MaybeNumber]
    colour: str
    dash: Dash = ()
    marker: str | None = None
    low: Sequence[float] = ()
    high: Sequence[float] = ()
    """The ends of its interval at each x, if it has one."""


def plain(text: str, longest: int = LONGEST) -> str:
    """A name on one line as it is read, cut in the middle where it is long."""
    whole = " ".join(text.split())
    if len(whole) > longest:
        head = (longest - 1) // 2
        whole = f"{whole[:head]}…{whole[len(whole) - (longest - 1 - head) :]}"
    return re.sub(r"(\$(?=\$)|\\(?=[(\[]))", "\\1\u200b", whole)  # `$$` and `\(` would begin a formula


def distinct(names: Sequence[str]) -> list[str]:
    """Names as a plot shows them, none twice: those that are cut to the same text are numbered."""
    shown: list[str] = []
    for name in map(plain, names):
        others = sum(name == other.rpartition(" #")[0] or name == other for other in shown)
        shown.append(f"{name} #{others + 1}" if others else name)
    return shown


def lines(
    title: str,
    axes: tuple[str, str],
    drawn: Sequence[Line],
    marks: Mapping[str, float] | None = None,
    y_range: tuple[float, float] | None = None,
    log: bool = False,
) -> Figure:
    """Lines over the labels `axes` of x and y; `marks` are named values of x, drawn as vertical lines."""
    plot = canvas(axes, HEIGHT, x_axis_type="log" if log else "linear", **({"y_range": y_range} if y_range else {}))
    for line in drawn:
        _draw_line(plot, line)
    if marks:
        plot.vspan(x=[*marks.values()], line_color=CHOSEN, line_dash=[*DASHES[2]], line_width=2)
    keys = [Key(line.name, line.colour, line.dash, line.marker) for line in drawn]
    keys += [Key(name, CHOSEN, DASHES[2]) for name in marks or {}]
    ends = [f"{line.name} from {in_label(line.y[0])} to {in_label(line.y[-1])}" for line in drawn if len(line.y)]
    return finished(plot, title, f"{axes[1]} over {axes[0]}: {'; '.join(ends)}.", keys)


def _draw_line(plot: "figure", line: Line) -> None:
    from bokeh.models import ColumnDataSource

    source = ColumnDataSource({"x": gaps(line.x), "y": gaps(line.y), "name": [plain(line.name)] * len(line.x)})
    if line.low:
        plot.varea(x=gaps(line.x), y1=gaps(line.low), y2=gaps(line.high), fill_color=line.colour, fill_alpha=0.15)
    plot.line("x", "y", source=source, line_color=line.colour, line_dash=[*line.dash], line_width=2)
    points = plot.scatter(
        "x",
        "y",
        source=source,
        marker=line.marker or "circle",
        size=7,
        color=line.colour,
        alpha=1 if line.marker else 0,
    )
    hover(plot, [("", "@name: @y{0.0000} at @x")], points)


def bars(
    title: str,
    axes: tuple[str, str],
    names: Sequence[str],
    values: Sequence[MaybeNumber],
    colours: Sequence[str],
    patterns: Sequence[str],
    intervals: Sequence[tuple[float, float]] = (),
) -> Figure:
    """Horizontal bars with their numbers, the first on top; `axes` are the labels of the names and of the values."""
    labels = [f"{name}  {in_label(value)}" for name, value in zip(distinct(names), values, strict=True)]
    plot = canvas((axes[1], axes[0]), 80 + 27 * len(names), y_range=labels[::-1])
    source = {
        "y": labels,
        "x": gaps(values),
        "colour": list(colours),
        "pattern": [pattern or " " for pattern in patterns],
    }
    drawn = plot.hbar(
        y="y",
        right="x",
        left=0,
        height=0.72,
        source=source,
        fill_color="colour",
        line_color="#1a1a1a",
        hatch_pattern="pattern",
        hatch_color="#1a1a1a",
        hatch_alpha=0.45,
        hatch_scale=8,
        hatch_weight=0.8,
    )
    if intervals:
        low, high = (list(ends) for ends in zip(*intervals, strict=True))
        plot.segment(low, labels, high, labels, line_color="#000000", line_width=2)
        for ends in (low, high):
            plot.scatter(ends, labels, marker="dash", angle=1.5708, size=9, line_color="#000000", line_width=2)
    hover(plot, [("", "@y")], drawn)
    plot.ygrid.visible = False
    told = "; ".join(f"{name} {in_label(value)}" for name, value in zip(names, values, strict=True))
    return finished(plot, title, f"{axes[1]} of each {axes[0]}: {told}.")


def heat(
    title: str,
    axes: tuple[str, str, str],
    columns: Sequence[str],
    rows: Sequence[str],
    cells: Sequence[Sequence[MaybeNumber]],
    chosen: Sequence[tuple[int, int]] = (),
    digits: int = 3,
) -> Figure:
    """A map of scores with its numbers; `axes` label columns, rows and cells; `chosen` cells (row, column) are
    framed. The first row is at the bottom."""
    from bokeh.core.properties import value
    from bokeh.palettes import Viridis256

    x, y = distinct(columns), distinct(rows)
    known = [cell for row in cells for cell in row if cell is not None]
    low, high = (min(known), max(known)) if known else (0.0, 1.0)
    digits += high - low < _CLOSE
    spots = [(c, r, cell) for r, row in enumerate(cells) for c, cell in enumerate(row) if cell is not None]
    shades = [Viridis256[round(255 * (cell - low) / (high - low)) if high > low else 128] for _, _, cell in spots]
    source = {
        "x": [x[column] for column, _, _ in spots],
        "y": [y[row] for _, row, _ in spots],
        "text": [f"{cell:.{digits}f}".replace("0.", ".", 1) for _, _, cell in spots],
        "value": [cell for _, _, cell in spots],
        "colour": shades,
        "ink": [text_colour(shade) for shade in shades],
    }
    plot = canvas(axes[:2], max(280, 80 + 28 * len(rows)), x_range=x, y_range=y)
    drawn = plot.rect("x", "y", 0.97, 0.95, source=source, fill_color="colour", line_color=None)
    places = [(x[column], y[row]) for row, column in chosen]
    plot.rect(
        [p[0] for p in places], [p[1] for p in places], 0.97, 0.95, fill_color=None, line_color=CHOSEN, line_width=5
    )
    size = "12px" if len(columns) <= _FITTING else "9.5px"
    font = {"text_font": value(_FONT), "text_font_size": value(size), "text_align": "center", "text_baseline": "middle"}
    plot.text("x", "y", text="text", source=source, text_color="ink", **font)
    hover(plot, [("", f"@y, @x: @value{{0.{'0' * 4}}}")], drawn)
    plot.grid.visible = False
    if len(columns) > _FITTING:
        plot.xaxis.major_label_orientation = "vertical"
    keys = [Key("chosen", CHOSEN)] if chosen else []
    summary = f"{axes[2]} over {axes[0]} and {axes[1]}, from {low:.4f} to {high:.4f}."
    return finished(plot, title, summary, keys, note=f"{axes[2]}: dark is {low:.3f}, light is {high:.3f}")


def canvas(axes: Sequence[str], height: int, **more: Any) -> "figure":
    """An empty plot with the labels of x and y, as wide as its place."""
    from bokeh import plotting
    from bokeh.models import PlainText

    plot = plotting.figure(
        height=height, sizing_mode="stretch_width", toolbar_location=None, tools="", min_border_right=14, **more
    )
    plot.xaxis.axis_label, plot.yaxis.axis_label = (
        PlainText(text=plain(axes[0], 80)),
        PlainText(text=plain(axes[1], 80)),
    )
    for one in plot.axis:
        one.axis_label_text_font_style, one.axis_label_text_font_size = "normal", "13px"
        one.axis_label_text_font = one.major_label_text_font = _FONT
        one.major_label_text_font_size, one.major_label_text_color = "12px", "#1a1a1a"
        one.axis_label_text_color = "#1a1a1a"
        one.minor_tick_line_color = None
    plot.outline_line_color = "#bbbbbb"
    plot.grid.grid_line_color = "#e2e2e2"
    return plot


def diagonal(plot: "figure", low: float, high: float) -> None:
    """Draws the line of equal x and y."""
    plot.line([low, high], [low, high], line_color=NEUTRAL, line_dash=[*DASHES[2]], line_width=2)


def hover(plot: "figure", tips: Sequence[tuple[str, str]], drawn: Any, snap: bool = True) -> None:
    """Shows numbers of what the pointer is on; Bokeh escapes what it takes from the data."""
    from bokeh.models import HoverTool

    policy = "snap_to_data" if snap else "follow_mouse"
    plot.add_tools(HoverTool(tooltips=[*tips], renderers=[drawn], point_policy=policy, line_policy="nearest"))


def finished(plot: "figure", title: str, summary: str, keys: Sequence[Key] = (), note: str = "") -> Figure:
    """The plot as a block; equal plots give equal ones."""
    from bokeh.embed import json_item

    item: Any = _renumbered(json_item(plot), {})
    return Figure(title, item, summary, int(plot.height or HEIGHT), tuple(keys), note)


def _renumbered(value: Any, known: dict[str, str]) -> Any:
    """JSON of Bokeh with its objects numbered from 1; Bokeh itself counts on over all plots of a process."""
    if isinstance(value, dict):
        return {
            name: known.setdefault(one, f"p{len(known) + 1}")
            if name in ("id", "root_id") and isinstance(one, str)
            else _renumbered(one, known)
            for name, one in value.items()
        }
    return [_renumbered(one, known) for one in value] if isinstance(value, list) else value


def gaps(values: Sequence[MaybeNumber]) -> list[float]:
    """Numbers with NaN for None, which is a gap."""
    return [_NOT_A_NUMBER if value is None else float(value) for value in values]


def in_label(value: MaybeNumber) -> str:
    """A number in a label."""
    return "-" if value is None else f"{value:.3f}" if isinstance(value, float) else f"{value:,}"
