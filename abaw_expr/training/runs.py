"""The runs of a folder in a list: state, score, device, duration, and the settings in which they differ."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from abaw_expr.errors import RunError, unreadable
from abaw_expr.files import is_locked
from abaw_expr.outputs.style import FUSED
from abaw_expr.settings import Settings
from abaw_expr.settings_file import flat_settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task
from abaw_expr.training.run import RunFolder

State = Literal["complete", "running", "stopped", "diverged", "not begun"]
_ABSENT = "none"


@dataclass(frozen=True)
class RunSummary:
    """One run: how far it is, and what it gives."""

    name: str
    """Its path in the folder that was searched, or the path that was given."""
    settings: Settings
    state: State
    epochs: Sequence[Mapping[str, float]]
    """The rows of metrics.csv, of which those of an unfinished epoch are not there yet."""
    device: str | None
    """None of runs that are not complete, or were made by earlier versions."""

    @property
    def metric_column(self) -> str:
        """The column of the fused score in metrics.csv."""
        return f"{FUSED}_{metric_of(self.settings.task_of).short}"

    @property
    def best(self) -> Mapping[str, float] | None:
        """The epoch with the highest fused score, the last of equal ones."""
        column = self.metric_column
        return max(self.epochs, key=lambda row: (row.get(column, float("-inf")), row["epoch"]), default=None)

    @property
    def score(self) -> float | None:
        """The fused score of the best epoch."""
        return None if self.best is None else self.best.get(self.metric_column)

    @property
    def seconds(self) -> float:
        """How long its epochs took."""
        return sum(row.get("seconds", 0.0) for row in self.epochs)


def find_runs(folder: Path) -> list[RunSummary]:
    """All runs in a folder at any depth, by name. Raises RunError where there is none, or one cannot be read."""
    if not folder.is_dir():
        raise RunError("is not a folder", path=folder, expected="a folder with runs in it", remedy="Check the path.")
    found = sorted(path.parent for path in folder.rglob("settings.yaml"))
    if not found:
        raise RunError("holds no runs", path=folder, expected="folders with settings.yaml in them")
    return [read_run(path, path.relative_to(folder).as_posix()) for path in found]


def named_runs(folders: Sequence[Path]) -> list[RunSummary]:
    """The runs that are named, each a run folder or a folder of them; RunError as `find_runs`."""
    found: list[RunSummary] = []
    for folder in folders:
        if RunFolder(folder).settings.exists():
            found.append(read_run(folder))
        else:
            found += [replace(run, name=f"{folder.name}/{run.name}") for run in find_runs(folder)]
    return found


def read_run(path: Path, name: str | None = None) -> RunSummary:
    """A run by its folder. Raises RunError where it is none or cannot be read."""
    run = RunFolder(path)
    settings, summary = run.load_settings(), run.summary()
    device = summary.get("device")
    shown = (path.name if name == "." else name) or str(path)
    return RunSummary(shown, settings, _state(run), _rows(run), device if isinstance(device, str) else None)


def _state(run: RunFolder) -> State:
    if run.complete:
        return "complete"
    if is_locked(run.root):
        return "running"
    if run.bad_batch.exists():
        return "diverged"
    return "stopped" if run.last.exists() or run.metrics.exists() else "not begun"


def _rows(run: RunFolder) -> list[dict[str, float]]:
    """The rows of metrics.csv. Raises RunError where one is no row of numbers."""
    remedy = "Restore the file, or train again."
    try:
        with open(run.metrics, newline="", encoding="utf-8-sig") as file:
            read = list(csv.DictReader(file))
        rows = [{name: float(value) for name, value in row.items() if value} for row in read]
        return [row | {"epoch": row["epoch"]} for row in rows]
    except FileNotFoundError:
        return []
    except OSError as error:
        raise unreadable(RunError, run.metrics, error) from error
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error) as error:
        raise RunError(f"is not a table of epochs ({error})", path=run.metrics, remedy=remedy) from error


def by_task(runs: Sequence[RunSummary]) -> dict[Task, list[RunSummary]]:
    """Runs by their tasks, whose scores cannot be compared."""
    found: dict[Task, list[RunSummary]] = {}
    for run in runs:
        found.setdefault(run.settings.task_of, []).append(run)
    return found


def best_scores(runs: Sequence[RunSummary]) -> list[tuple[str | float | None, ...]]:
    """The scores of each run's best epoch, a row a branch and a column of the task: its name, then a cell a run."""
    short = metric_of(runs[0].settings.task_of).short
    ending, start = f"_{short}", f"{short}_"
    names = dict.fromkeys(
        name for run in runs for name in run.best or () if name.endswith(ending) or name.startswith(start)
    )
    best = [run.best or {} for run in runs]
    return [(name.removesuffix(ending).removeprefix(start), *(one.get(name) for one in best)) for name in names]


def differing_settings(runs: Sequence[RunSummary]) -> dict[str, list[str]]:
    """The settings that are not the same in all runs, by name, with the value of each run as text.

    Settings of `compute`, such as workers, decide nothing of the result and are left out.
    """
    flat = [flat_settings(run.settings) for run in runs]
    names = dict.fromkeys(name for values in flat for name in values if not name.startswith("compute."))
    found = {name.replace("_", "-"): [_text(values.get(name)) for values in flat] for name in names}
    return {name: values for name, values in found.items() if len(set(values)) > 1}


def _text(value: Any) -> str:
    if value is None:
        return _ABSENT
    return f"{value:g}" if isinstance(value, float) else str(value)
