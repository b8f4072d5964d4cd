"""The table (Markdown, CSV) and plot of the ablation, beside the paper's published scores."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from abaw_expr.files import atomic, write_text
from abaw_expr.outputs.style import CHOSEN, NEUTRAL, RULES, SERIES
from tuning.ablation import RowResult

HEADER = (
    "",
    "modality",
    "macro F1",
    "sd",
    "95 % interval",
    "nested",
    "difference to",
    "parameters",
    "training",
    "paper",
)


def write_report(found: Sequence[RowResult], out: Path) -> None:
    """Writes table.md, table.csv and figure.png into a folder."""
    write_text(out / "table.md", markdown(found))
    with atomic(out / "table.csv") as temporary:
        pd.DataFrame([_values(result) for result in found]).to_csv(temporary, index=False)
    draw(found, out / "figure.png")


def markdown(found: Sequence[RowResult]) -> str:
    """The table as Markdown: macro F1 in percent, as in the paper."""
    lines = [HEADER, ("---",) * len(HEADER), *(cells(result, found) for result in found)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n"


def cells(result: RowResult, found: Sequence[RowResult]) -> tuple[str, ...]:
    """One row of the table as text."""
    low, high = result.interval
    return (
        result.row.title,
        result.row.modality,
        _percent(result.mean),
        _percent(result.deviation),
        f"{_percent(low)} to {_percent(high)}",
        _percent(result.nested),
        _difference(result, found),
        f"{result.parameters:,}",
        f"{result.seconds / 60:.1f} min",
        _percent(result.row.paper),
    )


def draw(found: Sequence[RowResult], path: Path) -> None:
    """Every row's mean with its interval and its seeds, and the paper's score where it gives one, as a PNG."""
    import matplotlib as mpl

    with mpl.rc_context(RULES):
        _draw(found, path)


def _draw(found: Sequence[RowResult], path: Path) -> None:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 0.45 * len(found) + 1.4), layout="constrained")
    axes = figure.subplots()
    for index, result in enumerate(found):
        low, high = (100 * value for value in result.interval)
        axes.plot([low, high], [index, index], color=SERIES[0], linewidth=2)
        axes.plot([100 * f1 for f1 in result.f1], [index] * len(result.f1), "o", color=SERIES[0], alpha=0.4, ms=4)
        axes.plot(100 * result.mean, index, "o", color=SERIES[0], label="ours: mean, seeds, 95 % over recordings")
        if result.row.paper is not None:
            axes.plot(100 * result.row.paper, index, "D", color=CHOSEN, label="paper, on Aff-Wild2")
    axes.axvline(12.5, color=NEUTRAL, linestyle=":", label="chance")
    axes.set_yticks(range(len(found)), [f"{result.row.modality}: {result.row.title}" for result in found])
    axes.invert_yaxis()
    axes.set(xlabel="macro F1 on validation, %", ylabel="row of the table", xlim=(0, None))
    axes.grid(axis="x", alpha=0.3)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=3, fontsize="small")
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=110)


def _values(result: RowResult) -> dict[str, object]:
    difference = result.difference or (None, None, None)
    return {
        "row": result.row.name,
        "title": result.row.title,
        "modality": result.row.modality,
        "macro_f1": result.mean,
        "sd": result.deviation,
        "low": result.interval[0],
        "high": result.interval[1],
        "nested": result.nested,
        "against": result.row.against if result.difference else None,
        **dict(zip(("difference", "difference_low", "difference_high"), difference, strict=True)),
        "parameters": result.parameters,
        "seconds": result.seconds,
        "paper": result.row.paper,
        **{f"seed_{seed}": f1 for seed, f1 in enumerate(result.f1)},
    }


def _difference(result: RowResult, found: Sequence[RowResult]) -> str:
    if result.difference is None:
        return "-"
    other = next(other.row for other in found if other.row.name == result.row.against)
    mean, low, high = (f"{100 * value:+.1f}" for value in result.difference)
    return f"{mean} ({low} to {high}) {other.title}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.2f}"
