"""What a sweep leaves behind: best.yaml, best.json, table.csv and plots."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from abaw_expr.errors import UserError
from abaw_expr.files import atomic, write_json
from abaw_expr.outputs.comparison import Interval
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.registry import metric_of
from tuning.sweep import SweepResult, TrialOfSweep
from tuning.sweep_plots import DEFAULT, Axis, Point, draw_sweep
from tuning.sweep_space import with_values

_MEASURES = ("nested", "plain", "tuned", "cross_entropy")


def name_of(trial: TrialOfSweep, result: SweepResult) -> str:
    """`default` for the settings as they are, else `trial 7`."""
    return DEFAULT if trial is default_of(result) else f"trial {trial.slot}"


def default_of(result: SweepResult) -> TrialOfSweep | None:
    """The trial of the settings as they are; None where these lie outside the space."""
    return result.trials[0] if result.trials and result.sweep.kept else None


def state_of(trial: TrialOfSweep) -> str:
    """`complete`, `ended early` or `failed`."""
    return "failed" if trial.failed else "ended early" if trial.objective is None else "complete"


def objective_name(result: SweepResult) -> str:
    """What the trials are compared by, in words."""
    metric = metric_of(result.sweep.base.task_of).name
    return {
        "nested": f"nested {metric}",
        "plain": f"{metric}, nothing tuned",
        "cross-entropy": "minus cross-entropy",
    }[result.sweep.objective]


def write_sweep(result: SweepResult, out: Path) -> Interval | None:
    """Writes everything into a folder, and returns how much the best trial is above the default.

    Raises UserError where no trial was trained to its end.
    """
    best, default = result.best, default_of(result)
    _write_table(result, out / "table.csv")
    if best is None:
        reasons = [trial.failed for trial in result.trials if trial.failed]
        raise UserError("no trial was trained to its end", path=out, found=reasons[0] if reasons else "none")
    save_settings(with_values(result.sweep.base, best.values), out / "best.yaml")
    gain = None if default is None or default is best else result.gain(default)
    value: dict[str, Any] = {
        "best": name_of(best, result),
        "values": dict(best.values),
        "objective": result.sweep.objective,
        **{name: best.found[name] for name in _MEASURES},
        "caveat": "the best of many trials on the frames that chose it: quote sweep_nested",
        "sweep_nested": result.nested,
        "gain_over_default": None if gain is None else dict(zip(("difference", "low", "high"), gain, strict=True)),
    }
    write_json(out / "best.json", value)
    scored = [(trial, trial.objective) for trial in result.trials if trial.objective is not None]
    points = [Point(name_of(trial, result), trial.values, objective) for trial, objective in scored]
    draw_sweep(points, _axes(result), objective_name(result), out)
    return gain


def _axes(result: SweepResult) -> Mapping[str, Axis]:
    return {name: Axis(_flag(name).rpartition(".")[2], one) for name, one in result.sweep.space.items()}


def _flag(name: str) -> str:
    return name.replace("_", "-")


def _write_table(result: SweepResult, path: Path) -> None:
    """A row a trial: its values, how it ended, and what it was measured by."""
    rows = [
        {
            "trial": name_of(trial, result),
            **{_flag(name): value for name, value in trial.values.items()},
            "state": state_of(trial),
            **{name: trial.found.get(name) for name in _MEASURES},
            "reason": trial.failed,
        }
        for trial in result.trials
    ]
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)


def describe_values(values: Mapping[str, Any]) -> str:
    """The values of a trial in a line."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in values.items()}
    return ", ".join(f"{_flag(name).rpartition('.')[2]} {text}" for name, text in shown.items())
