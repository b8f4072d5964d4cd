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
    from abaw_expr.outputs.table import Outputs
    from abaw_expr.tasks.report import Report
    from abaw_expr.training.run import Epoch


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
    """A bar with time left; the function it gives is told (done, total)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("left,"),
        TimeElapsedColumn(),
        TextColumn("so far"),
    )
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def note(text: str) -> None:
    """A line about what is going on."""
    ERR.print(text, soft_wrap=True)


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
    """Prints what is wrong with a release: each kind once, with its videos, what was found first, and what to do."""
    kinds: dict[tuple[str, str], list[Problem]] = {}
    for problem in found:
        kinds.setdefault((problem.kind, problem.remedy), []).append(problem)
    OUT.print(f"\n{title}", style="bold", soft_wrap=True)
    for (metric, remedy), alike in kinds.items():
        OUT.print(f"{len(alike):5d} {metric}: {shorten([problem.video for problem in alike])}", soft_wrap=True)
        OUT.print(f"      {alike[0].detail}. {remedy}", soft_wrap=True)


def applied(path: "Path | None", outputs: "Outputs", decision: "Decision") -> None:
    """Says how a decision is applied to outputs, where that is not as it was tuned."""
    if path is None:
        note(f"No --decision: all branches have the same vote, nothing is tuned ({decision}).")
    else:
        strangers(path, decision.strangers(outputs.branches))


def strangers(decision: object, found: Sequence[str]) -> None:
    """Says that a decision is applied to other outputs than it was tuned on, where it is."""
    if found:
        note(
            f"Warning: {decision} was tuned on other outputs: {'; '.join(found)}. Its weights, smoothing and prior "
            "correction are those of what it was tuned on. Tune again on the validation outputs of the same run."
        )


def tell(problem: "Problem") -> None:
    """Prints one thing that is wrong with the input, as a note."""
    note(f"{problem.kind}: {problem.video}: {problem.detail}. {problem.remedy}")


def ignored_tracks(found: "Sequence[Faces]", folder: "Path") -> None:
    """Says how many tracks of faces were ignored, and where to choose otherwise."""
    from abaw_expr.faces.choose import IGNORE
    from abaw_expr.faces.extract import TABLE
    from abaw_expr.faces.folders import FOUND

    ignored = sum(choice == IGNORE for one in found for choice in one.chosen.values())
    if ignored:
        note(f"{ignored} more tracks of faces were ignored. To choose otherwise, edit {folder / FOUND / TABLE}.")


def print_epoch(epoch: "Epoch") -> None:
    """Prints a line an epoch, under a header at the first line of a run."""
    if epoch.epoch == 1:
        note("epoch     loss val loss   audio  visual   fused seconds  (macro F1)")
    note(
        f"{epoch.epoch:5d} {epoch.train_loss:8.4f} {epoch.val_loss:8.4f} {show(epoch.audio_f1):>7} "
        f"{show(epoch.visual_f1):>7} {epoch.fused_f1:7.4f} {epoch.seconds:7.1f}"
    )


def print_decision(name: str, decision: "Decision") -> None:
    """Prints what was chosen, the figures it was chosen by, and what to expect of it."""
    metric, figures, estimate = decision.metric, decision.figures or {}, decision.estimate or {}
    chosen = [(branch, vote.weight, vote.tau) for branch, vote in decision.branches.items()]
    columns = ("branch", "weight", "prior correction tau")[: 3 if metric.distribution else 2]
    table(f"Decision {name}", columns, [row[: len(columns)] for row in chosen])
    OUT.print(f"Smoothing: {f'{decision.smoother} over {decision.smoothing:g} s' if decision.smoothing else 'none'}")
    if decision.thresholds is not None:
        table(
            "A unit is active from",
            ("unit", "probability"),
            zip(decision.task.columns, decision.thresholds, strict=True),
        )
    rows = [(f"{branch} alone, nothing tuned", figure) for branch, figure in figures["alone"].items()]
    rows += [("equal weights, nothing tuned", figures["equal"]), ("tuned", figures[metric.key])]
    rows += [("tuned, frames with a crop", figures[f"{metric.key}_with_crop"])]
    caveats = estimate.get("caveats", [])
    rows += [("nested (too high, see below)" if caveats else "nested", estimate[f"nested_{metric.key}"])]
    rows += [(f"nested without {branch}", figure) for branch, figure in estimate.get("without", {}).items()]
    rows += [("optimism: tuned - nested", estimate["optimism"])]
    table(f"{metric.title} on these frames", ("", metric.name), rows)
    if estimate["interval"]:
        low, high = estimate["interval"]
        again = f"{estimate['chosen_again']:.0%} of resamples of the recordings choose the same"
        OUT.print(f"Nested, 95 % over recordings: {low:.4f} to {high:.4f}; {again}.", soft_wrap=True)
    for branch, figure in estimate.get("without", {}).items():
        if figure > (estimate[f"nested_{metric.key}"] or 0):
            remedy = "tune --leave-out tries that." if len(chosen) == 2 else "leave it out of --outputs."
            note(f"Without {branch} the nested estimate is higher, so it may harm: {remedy}")
    for caveat in caveats:
        note(f"Warning: all these figures, nested too, are too high: {caveat}.")
    for branch, figure in figures["alone"].items():
        if (figure or 0) > (figures[metric.key] or 0):
            note(f"{branch} alone beats every fusion: the others need more training, or more data.")


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
