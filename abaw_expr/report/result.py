"""The sections of a task: the headline with its interval, scores by column, reliability, and the explorer."""

from collections.abc import Sequence
from typing import Any

from abaw_expr.data.workers import OnProgress
from abaw_expr.outputs.applied import note_on
from abaw_expr.outputs.style import DASHES, NEUTRAL, SERIES
from abaw_expr.report.blocks import Block, Explorer, Fact, Facts, Figure, Key, Part, Table, Text
from abaw_expr.report.explorer import explorer
from abaw_expr.report.figures import HEIGHT, bars, canvas, diagonal, finished, hover
from abaw_expr.report.media import Media
from abaw_expr.report.packing import Pack
from abaw_expr.report.scored import ASSUMED_RATE, Scored, column_intervals, has_times
from abaw_expr.tasks.report import Report


def task_sections(scored: Scored, media: Media | None, pack: Pack, on_progress: OnProgress) -> list[Part]:
    """The result of a task, and its recordings."""
    task = scored.outputs.task.name.upper()
    found = [Part(f"{task}: result", _result(scored), _lead(scored))]
    lead = (
        "Choose a cell to see the stretches behind it, and a recording to see its timeline. The cost of a recording is "
        f"{scored.metric.name} without it minus {scored.metric.name} with it."
    )
    blocks: list[Block] = []
    if media is not None and (lacking := [name for name in scored.names if name not in media.videos]):
        blocks.append(Text(f"{len(lacking)} videos are not in the store: no thumbnails and no audio of them.", True))
    blocks.append(Explorer(explorer(scored, media, pack, on_progress)))
    return [*found, Part(f"{task}: where it fails", blocks, lead)]


def _lead(scored: Scored) -> str:
    outputs = scored.outputs
    files = ", ".join(path.name for path in outputs.paths)
    return f"Outputs: {files or 'a table'}; {len(scored.names)} videos, split {outputs.split}."


def _result(scored: Scored) -> list[Block]:
    blocks: list[Block] = [Facts(_facts(scored))]
    if scored.path is not None:
        blocks.append(Text(f"Decision {scored.path.name}: {scored.decision}."))
    blocks += [Text(text, True) for text in _warnings(scored)]
    blocks += [_by_column(scored), _reliability(scored)]
    first = next(iter(scored.reports.values()))
    section = next(iter(first.sections()))
    blocks.append(Table(section.title, section.columns, [_cells(row) for row in section.rows]))
    return [*blocks, _by_crop(scored)]


def _facts(scored: Scored) -> list[Fact]:
    metric, estimate = scored.metric, scored.decision.estimate or {}
    report = next(iter(scored.reports.values()))
    value, interval, frames = _of(report, metric.key)
    facts = [Fact(f"{metric.title} on these frames", value, _between(interval))]
    nested = estimate.get(f"nested_{metric.key}")
    if isinstance(nested, float):
        facts.append(Fact("Nested estimate: quote this one", nested, _between(estimate.get("interval"))))
    if isinstance(estimate.get("optimism"), float):
        facts.append(Fact("Optimism: tuned minus nested", estimate["optimism"], "by how much tuning flatters itself"))
    if hasattr(report, "accuracy"):
        facts.append(Fact("Accuracy", float(report.accuracy)))
    return [*facts, Fact("Annotated frames", frames, f"in {len(scored.by_recording)} recordings")]


def _of(report: Report, key: str) -> tuple[float, Any, int]:
    """The metric, its interval and the number of annotated frames of a report."""
    values = vars(report)
    return float(values[key]), values["interval"], int(values["frames"])


def _between(interval: Any) -> str:
    if not interval:
        return "no interval: it takes two recordings"
    low, high = interval
    return f"95 % over recordings: {low:.4f} to {high:.4f}"


def _warnings(scored: Scored) -> list[str]:
    """What should be known before the numbers are quoted."""
    found = [f"These scores are too high, the nested estimate too: {one}." for one in _caveats(scored)]
    if not all(map(has_times, scored.outputs.videos())):
        found.append(f"Videos have no times: the page shows them at {ASSUMED_RATE:g} frames a second.")
    note = note_on(scored.path, scored.outputs, scored.decision)
    return [*found, *([note] if note else [])]


def _caveats(scored: Scored) -> Sequence[str]:
    caveats = (scored.decision.estimate or {}).get("caveats", [])
    return [str(one) for one in caveats] if isinstance(caveats, list) else []


def _by_column(scored: Scored) -> Figure:
    metric, names = scored.metric, scored.outputs.task.columns
    values = metric.by_column(scored.by_recording.sum(axis=0)).tolist()
    colours, patterns = scored.kind.column_style(names)
    score, noun = metric.short.upper(), metric.columns_are
    title = f"{score} of the {noun}, with the 95 % interval over recordings"
    return bars(title, (noun, score), names, values, colours, patterns, column_intervals(scored))


def _reliability(scored: Scored) -> Figure:
    rows, label, _ = scored.stacked
    found, kind = scored.kind.reliability(rows, label), scored.kind
    edge = 0.04 * (kind.high - kind.low)
    ends = kind.low - edge, kind.high + edge
    plot = canvas(kind.reliability_axes, HEIGHT, x_range=ends, y_range=ends)
    diagonal(plot, kind.low, kind.high)
    frames = found.frames.tolist()
    source = {"x": found.predicted.tolist(), "y": found.observed.tolist(), "frames": frames}
    source["size"] = [7 + 17 * (count / max(frames)) ** 0.5 for count in frames]
    plot.line("x", "y", source=source, line_color=SERIES[0], line_width=2)
    points = plot.scatter("x", "y", size="size", source=source, color=SERIES[0], line_color="#000000")
    hover(plot, [("predicted", "@x{0.000}"), ("observed", "@y{0.000}"), ("frames", "@frames{0,0}")], points)
    title = f"Reliability: mean distance from the line {found.error:.3f}"
    summary = f"{kind.reliability_axes[1]} over {kind.reliability_axes[0]}."
    keys = [Key("these frames, larger points are more", SERIES[0], (), "circle"), Key("equal", NEUTRAL, DASHES[2])]
    return finished(plot, title, summary, keys, kind.reliability_lead)


def _by_crop(scored: Scored) -> Table:
    rows = []
    for title, report in scored.reports.items():
        value, interval, frames = _of(report, scored.metric.key)
        low, high = interval or (None, None)
        rows.append((title, value, low, high, frames))
    return Table("Frames with and without a face crop", ("", scored.metric.name, "95 % from", "to", "frames"), rows)


def _cells(row: Sequence[object]) -> list[Any]:
    return [value if isinstance(value, str | int | float) or value is None else str(value) for value in row]
