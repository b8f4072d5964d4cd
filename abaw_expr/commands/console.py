"""What the command line shows: progress with time left, small tables, errors as one paragraph."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from unicodedata import category

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from abaw_expr.errors import shorten

if TYPE_CHECKING:
    from pathlib import Path

    from abaw_expr.data.problems import Problem
    from abaw_expr.faces.extract import Faces
    from abaw_expr.outputs.decision import Decision
    from abaw_expr.outputs.importing import Imported
    from abaw_expr.outputs.table import Outputs
    from abaw_expr.tasks.report import Report
    from abaw_expr.tasks.task import Task
    from abaw_expr.training.run import Epoch, RunStart
    from abaw_expr.training.runs import RunSummary


class _Escaping(Console):
    """A console that shows what files hold, names above all, without obeying it: control characters as escapes."""

    def render_str(self, text: str, **options: Any) -> Text:
        return super().render_str(escape(text), **options)


def escape(text: str) -> str:
    """A text without what a terminal would obey, or could not be written: all but letters, spaces and new lines."""
    return "".join(c if c.isprintable() or c in "\n" or category(c) == "Zs" else repr(c)[1:-1] for c in text)


_PROCESS = os.environ.get("RANK", "0")
"""Of several processes of a run the first one speaks."""
OUT = _Escaping(highlight=False, markup=False, emoji=False, quiet=_PROCESS != "0")
"""Results."""
ERR = _Escaping(stderr=True, highlight=False, markup=False, emoji=False, quiet=_PROCESS != "0")
"""Progress, notes and errors, so that a pipe gets results only."""


def speak(first: bool) -> None:
    """Says whether this is the process that speaks, where that turns out after the start."""
    OUT.quiet = ERR.quiet = not first


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with time left; yields `on_progress(done, total)`."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left,"),
        TimeElapsedColumn(),
        TextColumn("so far"),
    )
    with Progress(*columns, console=ERR, transient=True, disable=not ERR.is_terminal) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def note(text: str) -> None:
    """A line about what is going on."""
    ERR.print(text, soft_wrap=not ERR.is_terminal)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a small table under its title: numbers to the right, text to the left."""
    body = [list(row) for row in rows]
    grid = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(columns):
        text = all(isinstance(row[number], str) for row in body)
        grid.add_column(column, justify="left" if text else "right", overflow="fold")
    for row in body:
        grid.add_row(*(show(value) for value in row))
    OUT.print(f"\n{title}", style="bold", soft_wrap=True)
    OUT.print(grid)


def problems(title: str, found: "Sequence[Problem]") -> None:
    """Prints the problems of a release: each kind once, with its videos, its first detail and its remedy."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in found:
        kinds.setdefault((problem.kind, problem.remedy), []).append(problem)
    OUT.print(f"\n{title}", style="bold", soft_wrap=True)
    for (kind, remedy), alike in kinds.items():
        OUT.print(f"{len(alike):5d} {kind}: {shorten([problem.video for problem in alike])}", soft_wrap=True)
        OUT.print(f"      {alike[0].detail}. {remedy}", soft_wrap=True)


def applied(path: "Path | None", outputs: "Outputs", decision: "Decision") -> None:
    """Prints what should be known of a decision that is applied to outputs."""
    from abaw_expr.outputs.applied import note_on

    if text := note_on(path, outputs, decision):
        note(text)


def imported(title: str, found: "Imported") -> None:
    """Prints how the rows of a source met those of an outputs table."""
    rows = [("rows of the table", found.used + found.unfilled), ("rows with numbers", found.used)]
    rows += [("rows without: no vote", found.unfilled), ("rows of other frames, left out", found.unmatched)]
    rows += [("rows scaled to sum to 1", found.scaled)] if found.scaled else []
    table(title, ("", "count"), rows)
    if found.respelled:
        names = [f"{theirs} for {ours}" for theirs, ours in found.respelled.items()]
        note(f"{len(names)} videos are spelled differently, and were matched: {shorten(names)}.")
    if found.extra_videos:
        count = len(found.extra_videos)
        note(f"{count} videos are not in the table, and were left out: {shorten(found.extra_videos)}.")


def problem_note(problem: "Problem") -> None:
    """Prints one problem of the input, as a note."""
    note(f"{problem.kind}: {problem.video}: {problem.detail}. {problem.remedy}")


def ignored_tracks(found: "Sequence[Faces]", folder: "Path") -> None:
    """Says how many tracks of faces were ignored, and where to choose otherwise."""
    from abaw_expr.faces.choose import IGNORE
    from abaw_expr.faces.extract import TRACKS_TABLE
    from abaw_expr.faces.folders import FOUND

    ignored = sum(choice == IGNORE for one in found for choice in one.choices.values())
    if ignored:
        note(f"{ignored} more tracks of faces were ignored. To correct a choice, edit {folder / FOUND / TRACKS_TABLE}.")


def print_start(start: "RunStart") -> None:
    """Prints what a run is about to do."""
    processes = f"{start.processes} process{'es' * (start.processes > 1)}"
    note(f"Device:     {start.device}, {processes}, precision {start.precision}")
    note(f"Training:   {start.train_samples:,} samples an epoch, from {start.train_videos:,} videos")
    note(f"Validation: {start.val_samples:,} samples, from {start.val_videos:,} videos")
    resumed = f"; resumed after epoch {start.epochs_done}, step {start.steps_done:,}"
    again = start.epochs_done or start.steps_done
    if start.seen:
        note(
            f"Warning:    the initial weights were trained on {len(start.seen)} recordings that this task validates or "
            f"tests on: {shorten(start.seen)}. Scores on them are too high; outputs tables name them."
        )
    note(f"Epochs:     {start.epochs:,} of {start.steps:,} steps{resumed if again else ''}")


def epoch_printer() -> Callable[["Epoch"], None]:
    """Prints a line an epoch, under a header before its first one."""
    told: list[str] = []

    def print_epoch(epoch: "Epoch") -> None:
        names = [f"{epoch.metric.upper()} {name}" for name in epoch.scores]
        if not told:
            told.append("epoch     loss  val loss" + "".join(f"  {name:>8}" for name in names) + "  seconds")
            note(told[0])
        pairs = zip(names, epoch.scores.values(), strict=True)
        scores = "".join(f"  {score:{max(len(name), 8)}.4f}" for name, score in pairs)
        note(f"{epoch.epoch:5d} {epoch.train_loss:8.4f} {epoch.val_loss:9.4f}{scores} {epoch.seconds:8.1f}")

    return print_epoch


def print_best(best: "Epoch", task: "Task", epochs: int) -> None:
    """Prints the scores of a run's best epoch."""
    from abaw_expr.tasks.registry import metric_of

    name = metric_of(task).name
    table(f"Best epoch {best.epoch} of {epochs}: {name} on validation", ("", name), best.scores.items())


def print_runs(found: "Sequence[RunSummary]") -> None:
    """Prints a table of the runs of each task, and the settings in which they differ."""
    from abaw_expr.tasks.registry import metric_of
    from abaw_expr.training.runs import by_task, differing_settings

    for task, own in by_task(found).items():
        columns = ("run", "state", "epochs", metric_of(task).name, "at epoch", "minutes", "device")
        table(f"Runs of the task {task.name}", columns, [_run_row(run) for run in own])
        if differing := differing_settings(own):
            rows = [(name, *values) for name, values in differing.items()]
            table("Settings that differ", ("", *(run.name for run in own)), rows)


def _run_row(run: "RunSummary") -> tuple[object, ...]:
    done = f"{len(run.epochs)} of {run.settings.optimiser.epochs}"
    at = None if run.best is None else int(run.best["epoch"])
    return run.name, run.state, done, run.score, at, f"{run.seconds / 60:.1f}", run.device


def print_decision(name: str, decision: "Decision") -> None:
    """Prints what was chosen, the scores it was chosen by, and what to expect of it."""
    metric, scores, estimate = decision.metric, decision.scores or {}, decision.estimate or {}
    chosen = [(branch, vote.weight, vote.tau) for branch, vote in decision.branches.items()]
    columns = ("branch", "weight", "prior correction tau")[: 3 if metric.distribution else 2]
    table(f"Decision {name}", columns, [row[: len(columns)] for row in chosen])
    OUT.print(f"Smoothing: {f'{decision.smoother} over {decision.smoothing:g} s' if decision.smoothing else 'none'}")
    if refined := str(decision.refinement):
        OUT.print(f"Refined: {refined}", soft_wrap=True)
    if decision.thresholds is not None:
        table(
            "A unit is active from",
            ("unit", "probability"),
            zip(decision.task.columns, decision.thresholds, strict=True),
        )
    rows = [(f"{branch} alone, nothing tuned", figure) for branch, figure in scores["alone"].items()]
    rows += [("equal weights, nothing tuned", scores["equal"]), ("tuned", scores[metric.key])]
    rows += [("tuned, frames with a crop", scores[f"{metric.key}_with_crop"])]
    caveats = estimate.get("caveats", [])
    rows += [("nested (too high, see below)" if caveats else "nested", estimate[f"nested_{metric.key}"])]
    rows += [(f"nested without {branch}", figure) for branch, figure in estimate.get("without", {}).items()]
    rows += [(f"nested, refined by {name}", figure) for name, figure in estimate.get("refinements", {}).items()]
    rows += [("optimism: tuned - nested", estimate["optimism"])]
    table(f"{metric.title} on these frames", ("", metric.name), rows)
    if estimate["interval"]:
        low, high = estimate["interval"]
        again = f"{estimate['chosen_again']:.0%} of bootstrap resamples of the recordings select this decision"
        OUT.print(f"Nested, 95 % interval over recordings: {low:.4f} to {high:.4f}. {again}.", soft_wrap=True)
    for branch, figure in estimate.get("without", {}).items():
        if figure > (estimate[f"nested_{metric.key}"] or 0):
            remedy = "`tune --leave-out` tries weight 0." if len(chosen) == 2 else "Tune without it."
            note(f"Without {branch} the nested estimate is higher. {remedy}")
    for caveat in caveats:
        note(f"Warning: these scores are too high, the nested estimate too: {caveat}.")
    for branch, figure in scores["alone"].items():
        if (figure or 0) > (scores[metric.key] or 0):
            note(f"{branch} alone scores higher than every fusion: the others need more training, or more data.")


def print_report(name: str, report: "Report", detailed: bool) -> None:
    """Prints a score: one line, and in detail the tables that explain it."""
    OUT.print(f"\n{name}: {report.headline()}", soft_wrap=True)
    for section in report.sections() if detailed else ():
        table(*section)


def show(value: object) -> str:
    """A value in a table: floats to four digits, thousands apart, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def error(problem: object) -> None:
    """An error as one paragraph, whichever process it befalls."""
    ERR.quiet = False
    ERR.print(f"abaw-expr: error: {problem}", style="red", soft_wrap=not ERR.is_terminal)
