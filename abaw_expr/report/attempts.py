"""What a page shows of the submissions so far: a table of them, and validation against the official test score."""

from collections.abc import Sequence
from dataclasses import dataclass

from abaw_expr.outputs.style import DASHES, NEUTRAL, SERIES
from abaw_expr.report.blocks import Block, Figure, Key, Part, Table, Text
from abaw_expr.report.figures import HEIGHT, canvas, diagonal, finished, hover, plain


@dataclass(frozen=True)
class Submission:
    """One attempt at a challenge."""

    number: int
    date: str
    tuned: float | None
    nested: float | None
    """What was expected."""
    official: float | None
    """The organisers' score on the test set."""
    note: str


def attempts_section(title: str, found: Sequence[Submission], summary: str) -> Part:
    """The attempts at one challenge; `summary` says how well validation predicts the test."""
    rows = [
        (
            one.number,
            one.date,
            one.tuned,
            one.nested,
            one.official,
            None if one.official is None or one.nested is None else one.official - one.nested,
            one.note,
        )
        for one in found
    ]
    columns = ("attempt", "date, UTC", "tuned", "nested", "test", "test minus nested", "note")
    blocks: list[Block] = [Table("Attempts", columns, rows)]
    both = [(one, one.nested, one.official) for one in found if one.nested is not None and one.official is not None]
    if both:
        blocks.append(_figure([(one.number, nested, official) for one, nested, official in both]))
    return Part(f"Submissions: {title}", [*blocks, Text(summary)])


def _figure(both: Sequence[tuple[int, float, float]]) -> Figure:
    """The official score over the nested estimate, with the number of each attempt."""
    numbers, nested, official = (list(column) for column in zip(*both, strict=True))
    low, high = min(*nested, *official), max(*nested, *official)
    edge = 0.15 * (high - low) or 0.05
    ends = low - edge, high + edge
    plot = canvas(("nested estimate, on validation", "official score, on test"), HEIGHT, x_range=ends, y_range=ends)
    diagonal(plot, *ends)
    source = {"x": nested, "y": official, "text": [plain(str(number)) for number in numbers]}
    points = plot.scatter("x", "y", source=source, size=12, color=SERIES[0], line_color="#000000")
    plot.text("x", "y", text="text", source=source, x_offset=9, y_offset=-4, text_font_size="13px")
    hover(plot, [("attempt", "@text"), ("nested", "@x{0.0000}"), ("test", "@y{0.0000}")], points)
    keys = [Key("an attempt, by its number", SERIES[0], (), "circle"), Key("equal", NEUTRAL, DASHES[2])]
    return finished(plot, "Test over validation", "Official scores over nested estimates.", keys)
