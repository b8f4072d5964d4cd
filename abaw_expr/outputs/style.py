"""The one style of all plots: a colour, a line and a pattern for each class and each branch, the same everywhere.

The palette is that of Okabe and Ito ("Color Universal Design", 2008), with grey and lighter shades for the classes.
What a colour says, a line style, a marker or a pattern says too, so that a plot can be read in black and white.
"""

from collections.abc import Iterable
from typing import Any

CLASS_COLOURS = ("#d0d0d0", "#d55e00", "#009e73", "#5c2d91", "#f2d13c", "#0072b2", "#cc79a7", "#56b4e9")
"""By class number; a task of fewer classes uses the first ones."""
CLASS_PATTERNS = ("", "/", "x", "\\", ".", "|", "-", "+")
"""By class number: hatches, by the names that Matplotlib and Bokeh share."""
VALUE_COLOURS = ("#5c2d91", "#e69f00", "#009e73", "#cc79a7")
"""By field number, such as valence and arousal; a task of more fields repeats them."""
UNIT_COLOUR = "#0072b2"
"""The colour of active action units."""
TRUTH = "#767676"
"""The colour of annotations, where they are lines."""
FUSED = "fused"
"""The key of the colour of the fused branches."""
_BRANCHES = {"audio": "#0072b2", "visual": "#d55e00", FUSED: "#000000"}
_OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fa3")
Dash = tuple[int, ...]
"""The lengths of the strokes and gaps of a line, in turn; none of a solid line."""
DASHES: tuple[Dash, ...] = ((), (7, 3), (2, 2), (7, 2, 2, 2), (12, 4), (12, 3, 2, 3))
"""Line styles of lines that are neither classes nor branches, by their order."""
_BRANCH_DASHES = {"audio": DASHES[1], "visual": DASHES[2], FUSED: DASHES[0]}
NEUTRAL = "#767676"
"""The colour of reference lines: chance, the chosen value, the published value."""
CHOSEN = "#d55e00"
"""The colour of what was chosen: a candidate, the best trial."""
SERIES = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#5c2d91", "#e69f00", "#56b4e9", "#000000")
"""The colours of lines that are neither classes nor branches, such as runs, by their order."""
MARKERS = ("circle", "square", "diamond", "triangle", "inverted_triangle", "hex", "star", "plus")
"""Markers of the same, by Bokeh's names."""

RULES: Any = {"text.parse_math": False, "savefig.bbox": "tight", "axes.axisbelow": True}
"""Matplotlib's settings of all plots: names may contain $, and no text is cut at the edge."""


def line_style(dash: Dash) -> str | tuple[int, Dash]:
    """A line style by Matplotlib's name."""
    return (0, dash) if dash else "-"


def branch_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each branch: its own for `audio`, `visual` and `fused`, for others by their order."""
    return _BRANCHES | {name: _OTHERS[number % len(_OTHERS)] for number, name in enumerate(_others(names))}


def branch_dashes(names: Iterable[str]) -> dict[str, Dash]:
    """A line style for each branch, as `branch_colours` gives colours."""
    others = DASHES[3:]
    return _BRANCH_DASHES | {name: others[number % len(others)] for number, name in enumerate(_others(names))}


def styled_series(number: int) -> dict[str, Any]:
    """The colour, line style and marker of a line that is neither a class nor a branch, by its order."""
    return {
        "colour": SERIES[number % len(SERIES)],
        "dash": DASHES[number % len(DASHES)],
        "marker": MARKERS[number % len(MARKERS)],
    }


def _others(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if name not in _BRANCHES)


def cycled(values: tuple[str, ...], count: int) -> list[str]:
    """That many values, from the first on again where there are fewer."""
    return [values[number % len(values)] for number in range(count)]


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on a colour `#rrggbb` (its luma by ITU-R BT.601)."""
    red, green, blue = (int(background[start : start + 2], 16) for start in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 110 else "black"
