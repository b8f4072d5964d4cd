"""Writes sections as one HTML file that needs nothing else: style, scripts, plotting library and data are inside.

The page asks the network for nothing, and its policy forbids it: only scripts whose hash the policy names may run, so
that a script in a name would not, even if it were not shown as text.
"""

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from abaw_expr.files import write_text
from abaw_expr.report.blocks import Block, Cell, Explorer, Figure, Part, Player
from abaw_expr.report.packing import Pack, as_json, compressed
from abaw_expr.version import VERSION

if TYPE_CHECKING:
    from jinja2 import Environment

_ASSETS = Path(__file__).parent / "assets"
"""Templates, style and scripts."""
SCRIPTS = ("data.js", "figures.js", "video.js", "timeline.js", "view.js", "explorer.js", "player.js", "main.js")
"""In the order in which they are put together."""
COMPONENTS = ("bokeh", "bokeh-api")
"""The parts of the plotting library: its core, and what scripts draw with."""
_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; img-src data:; media-src file: 'self'; "
    "script-src {scripts}; base-uri 'none'; form-action 'none'"
)


def write_page(path: Path, title: str, sections: Sequence[Part], pack: Pack) -> None:
    """Writes a page of these sections, whole or not at all; `pack` has the arrays that they refer to."""
    write_text(path, render(title, sections, pack))


def render(title: str, sections: Sequence[Part], pack: Pack) -> str:
    """The text of a page; equal sections give equal text."""
    blocks = [block for section in sections for block in section.blocks]
    figures = [block for block in blocks if isinstance(block, Figure)]
    explorers = [block for block in blocks if isinstance(block, Explorer)]
    players = [block for block in blocks if isinstance(block, Player)]
    data = {
        "figures": [dict(figure.item) for figure in figures],
        "explorers": [_without_markup(block.value) for block in explorers],
        "players": [dict(block.value) for block in players],
    }
    script = Markup(_script())
    numbers = {id(block): number for kind in (figures, explorers, players) for number, block in enumerate(kind)}
    return (
        _environment(numbers)
        .get_template("page.html.j2")
        .render(
            title=title,
            sections=sections,
            version=VERSION,
            whole=not players,
            css=Markup((_ASSETS / "page.css").read_text(encoding="utf-8")),
            script=script,
            policy=_POLICY.format(scripts=" ".join(map(_hash, (script, _library())))),
            data=as_json(data),
            arrays=compressed(pack.bytes()),
            library=_packed_library(),
        )
    )


def _without_markup(value: Mapping[str, Any]) -> dict[str, Any]:
    """What the scripts need of an explorer: the rest is in the page's markup."""
    videos = [{name: one for name, one in video.items() if name != "stretches"} for video in value["videos"]]
    recordings = [{"videos": recording["videos"]} for recording in value["recordings"]]
    return {name: one for name, one in value.items() if name != "confusion"} | {
        "videos": videos,
        "recordings": recordings,
    }


@cache
def _script() -> str:
    """The scripts of the page as one, in a scope of its own."""
    parts = "\n".join((_ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}}})();\n'


@cache
def _library() -> str:
    """The plotting library and its interface for scripts, which its Python package carries."""
    from bokeh.resources import Resources

    parts: list[str] = Resources(mode="inline", components=[*COMPONENTS]).js_raw
    return "\n".join(parts[: len(COMPONENTS)])  # what follows sets a level of logging, and says so on the console


@cache
def _packed_library() -> Markup:
    return compressed(_library().encode())


def _hash(script: str) -> str:
    """A script as a policy names it."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()}'"


def _environment(numbers: Mapping[int, int]) -> "Environment":
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    loader = FileSystemLoader(_ASSETS)
    made = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)

    def number(block: Block) -> int:
        return numbers[id(block)]

    filters = (number, cell_text, compact, counted, signed, percent_of_highest, abbreviated)
    made.filters |= {function.__name__: function for function in filters}
    macros: Any = made.get_template("macros.html.j2").module
    made.globals |= {"cell": macros.cell, "sample": macros.sample}
    return made


def cell_text(value: Cell) -> str:
    """A cell of a table: floats to four digits, thousands apart, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else value


def signed(value: float) -> str:
    """A difference of scores with its sign; what rounds to nothing has none."""
    return f"{value:+.4f}".replace("+0.0000", "0.0000").replace("-0.0000", "0.0000")


def compact(count: int) -> str:
    """A count in at most four characters: 950, 9.5k, 95k."""
    if count < 10_000:
        return str(count)
    return f"{count / 1e3:.0f}k" if count < 999_500 else f"{count / 1e6:.1f}M"


def counted(count: int, what: str) -> str:
    """A count in words: 1 frame, 2,000 frames."""
    return f"{count:,} {what}{'s' * (count != 1)}"


def percent_of_highest(cost: float, recordings: Sequence[Mapping[str, Any]]) -> int:
    """The length of a recording's bar, in percent of the highest cost; 0 where it costs nothing."""
    highest = max(float(one["cost"]) for one in recordings)
    return round(100 * max(cost, 0) / highest) if highest > 0 else 0


def abbreviated(name: str) -> str:
    """A level's name as a column of a confusion shows it: `Neut`, `FeSu` of two words, of a range its lower end."""
    parts = name.split("_")
    short = "".join(part[: max(4 // len(parts), 2)] for part in parts)
    return short if name[:1].isalpha() else name.partition(" to ")[0]
