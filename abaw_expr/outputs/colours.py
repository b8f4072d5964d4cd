"""One colour for each class and each branch, the same in every plot and distinguishable with colour blindness.

The palette is that of Okabe and Ito ("Color Universal Design", 2008), with grey and lighter shades for the classes.
"""

from collections.abc import Iterable

CLASS_COLOURS = ("#d0d0d0", "#d55e00", "#009e73", "#5c2d91", "#f2d13c", "#0072b2", "#cc79a7", "#56b4e9")
"""By class number; a task of fewer classes uses the first ones."""
VALUE_COLOURS = ("#5c2d91", "#e69f00", "#009e73", "#cc79a7")
"""By field number, such as valence and arousal; a task of more fields repeats them."""
UNIT_COLOUR = "#0072b2"
"""The colour of active action units."""
FUSED = "fused"
"""The key of the colour of the fused branches."""
_BRANCHES = {"audio": "#0072b2", "visual": "#d55e00", FUSED: "#000000"}
_OTHERS = ("#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7b4fa3")
NEUTRAL = "#767676"
"""The colour of reference lines: chance, the chosen value, the published value."""


def branch_colours(names: Iterable[str]) -> dict[str, str]:
    """A colour for each branch: its own for `audio`, `visual` and `fused`, for others by their order."""
    others = (name for name in names if name not in _BRANCHES)
    return _BRANCHES | {name: _OTHERS[number % len(_OTHERS)] for number, name in enumerate(others)}


def text_colour(background: str) -> str:
    """Black or white, whichever reads better on a colour `#rrggbb` (its luma by ITU-R BT.601)."""
    red, green, blue = (int(background[start : start + 2], 16) for start in (1, 3, 5))
    return "white" if 0.299 * red + 0.587 * green + 0.114 * blue < 110 else "black"
