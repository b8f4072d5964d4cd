"""What a page shows of a finished sweep and of cross-validation, from the files that they leave behind."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from abaw_expr.errors import UserError, unreadable
from abaw_expr.files import read_json
from abaw_expr.outputs.style import CHOSEN, DASHES
from abaw_expr.report.blocks import Block, Fact, Facts, Figure, Key, Part, Table
from abaw_expr.report.figures import bars, canvas, finished, hover, plain
from abaw_expr.tasks.registry import METRICS
from tuning.sweep_plots import DEFAULT

_TABLE, _BEST = "table.csv", "best.json"
_MEASURES = ("nested", "plain", "tuned", "cross_entropy")
_NOT_SETTINGS = ("trial", "state", "reason", *_MEASURES)
_SLANTED = 0.5
"""Radians by which the names of settings are turned, so that they do not meet on a narrow page."""
_LOG_FROM = 30
"""The ratio of the largest to the smallest value of a setting from which its axis is logarithmic."""


def sweep_section(folder: Path) -> Part:
    """The trials of a sweep. Raises UserError where the folder holds none."""
    table = _read(folder, "a folder of `sweep`", ("trial", "state"))
    best: dict[str, Any] = read_json(folder / _BEST, UserError, "Name the folder of a finished `sweep`.", dict)
    objective = str(best.get("objective", "nested")).replace("-", "_")
    column = objective if objective in table else "nested"
    settings = [name for name in table.columns if name not in _NOT_SETTINGS]
    scored = table[table["state"].eq("complete") & table[column].notna()]
    shown = [name for name in ("trial", *settings, "state", *_MEASURES) if name in table]
    rows = [[_cell(value) for value in row] for row in table[shown].itertuples(index=False)]
    blocks: list[Block] = [Facts(_facts(best, column))]
    if len(scored) > 1 and settings:
        blocks.append(_parallel(scored, settings, column))
    blocks.append(Table("Trials", shown, rows, folded=True))
    return Part(
        f"Sweep: {folder.resolve().name}", blocks, f"{len(table)} trials, {len(scored)} scored by {_words(column)}."
    )


def _facts(best: dict[str, Any], column: str) -> list[Fact]:
    facts = [Fact(f"Best trial: {best.get('best', '-')}", _cell(best.get(column)), _words(column))]
    facts.append(Fact("Nested over all trials: quote this one", _cell(best.get("sweep_nested"))))
    gain = best.get("gain_over_default")
    if isinstance(gain, dict):
        note = f"95 % over recordings: {gain['low']:+.4f} to {gain['high']:+.4f}"
        facts.append(Fact("Gain over the default", _cell(gain["difference"]), note))
    return facts


def _words(column: str) -> str:
    return column.replace("_", "-")


def _parallel(scored: pd.DataFrame, settings: Sequence[str], column: str) -> Figure:
    """One line for each trial over its values, coloured by its score: the best in bold, the default dashed."""
    from bokeh.palettes import Viridis256

    names = [f"{number}: {plain(name.rpartition('.')[2], 18)}" for number, name in enumerate(settings, start=1)]
    order = scored.sort_values(column, ascending=column != "cross_entropy", kind="stable")
    places = np.stack([_places(order[name]) for name in settings])  # [settings, trials]
    scores = order[column].to_numpy(float)
    low, high = float(scores.min()), float(scores.max())
    shades = [Viridis256[round(225 * (score - low) / (high - low)) if high > low else 128] for score in scores.tolist()]
    plot = canvas(("setting", "from the low to the high end of its range"), 380, x_range=names, y_range=(-0.08, 1.08))
    trials = order["trial"].astype(str).tolist()
    plot.xaxis.major_label_orientation = _SLANTED
    last, default = len(order) - 1, [number for number, name in enumerate(trials) if name == DEFAULT]
    source = {
        "xs": [names] * len(order),
        "ys": places.T.tolist(),
        "colour": [*shades[:-1], CHOSEN],
        "width": [1.5] * last + [4],
        "trial": [plain(name) for name in trials],
        "score": scores.tolist(),
    }
    drawn = plot.multi_line("xs", "ys", line_color="colour", line_width="width", line_alpha=0.8, source=source)
    drawn.hover_glyph = type(drawn.glyph)(line_color="#000000", line_width=4)
    hover(plot, [("", "@trial"), (_words(column), "@score{0.0000}")], drawn, snap=False)
    for number in default:
        plot.line(names, places[:, number].tolist(), line_color="#000000", line_dash=[*DASHES[1]], line_width=2.5)
    keys = [Key(f"best: {trials[-1]}, {scores[-1]:.4f}", CHOSEN)]
    keys += [Key(f"default, {scores[number]:.4f}", "#000000", DASHES[1]) for number in default]
    ends = "; ".join(f"{name}: {_end(order[name], 0)} to {_end(order[name], -1)}" for name in settings)
    note = f"Other trials: dark is {low:.4f}, light is {high:.4f}. {ends}."
    figure = finished(plot, "Values of the trials and their scores", f"{len(order)} trials. {note}", keys, note)
    return Figure(figure.title, figure.item, figure.summary, figure.height, figure.keys, figure.note, wide=True)


def _places(values: pd.Series) -> np.ndarray:
    """Where values lie between the ends of their range, 0 to 1; texts in their order, [trials]."""
    numbers = pd.to_numeric(values, errors="coerce")
    if numbers.isna().any():
        codes, names = pd.factorize(values.astype(str), sort=True)
        return codes / max(len(names) - 1, 1)
    at = numbers.to_numpy(float)
    if at.min() > 0 and at.max() / at.min() >= _LOG_FROM:
        at = np.log(at)
    return (at - at.min()) / (at.max() - at.min()) if at.max() > at.min() else np.full(len(at), 0.5)


def _end(values: pd.Series, place: int) -> str:
    numbers = pd.to_numeric(values, errors="coerce")
    ordered = sorted(values.astype(str)) if numbers.isna().any() else [f"{value:g}" for value in sorted(numbers)]
    return ordered[place]


def folds_section(folder: Path) -> Part:
    """The scores of a cross-validation's runs and averages. Raises UserError where the folder holds none."""
    table = _read(folder, "a folder of `folds`", ("run", "split", "recordings", "low", "high"))
    (key,) = [name for name in table.columns if name not in ("run", "split", "recordings", "low", "high")][:1]
    names = [f"{run}, {split}" for run, split in zip(table["run"], table["split"], strict=True)]
    average = table["run"].eq("average").tolist()
    colours = [CHOSEN if one else "#56b4e9" for one in average]
    ends = list(zip(table["low"].tolist(), table["high"].tolist(), strict=True))
    metric = next((kind.name for kind in METRICS.values() if kind.key == key), key)
    title = f"{metric[0].upper()}{metric[1:]} of each run, and of the averages, with the 95 % interval over recordings"
    patterns = ["/" if one else "" for one in average]
    figure = bars(title, ("run and split", metric), names, table[key].tolist(), colours, patterns, ends)
    rows = [[_cell(value) for value in row] for row in table.itertuples(index=False)]
    return Part(
        f"Folds: {folder.resolve().name}", [figure, Table("Scores", list(table.columns), rows)], "Nothing is tuned."
    )


def _read(folder: Path, expected: str, columns: Sequence[str]) -> pd.DataFrame:
    path = folder / _TABLE
    try:
        table = pd.read_csv(path)
    except OSError as error:
        raise unreadable(UserError, path, error, f"Name {expected}.") from error
    except ValueError as error:
        raise UserError(f"is not a table ({error})", path=path, expected=expected) from error
    lacking = [name for name in columns if name not in table]
    if lacking or table.empty:
        raise UserError("is not the table that was expected", path=path, found=", ".join(table), expected=expected)
    return table


def _cell(value: Any) -> str | int | float | None:
    if value is None or (isinstance(value, float) and np.isnan(value)):
        return None
    return (
        value.item() if isinstance(value, np.generic) else value if isinstance(value, str | int | float) else str(value)
    )
