"""What the command line shows: progress with time left, small tables, errors as one paragraph."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

if TYPE_CHECKING:
    from abaw_expr.scoring import Report
    from abaw_expr.training.run import Epoch

_PROCESS = os.environ.get("RANK", "0")
"""Of several processes of a run the first one speaks."""
OUT = Console(highlight=False, markup=False, emoji=False, quiet=_PROCESS != "0")
"""Results."""
ERR = Console(stderr=True, highlight=False, markup=False, emoji=False, quiet=_PROCESS != "0")
"""Progress, notes and errors, so that a pipe gets results only."""


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


def print_epoch(epoch: "Epoch") -> None:
    """Prints a line an epoch, under a header at the first line of a run."""
    if epoch.epoch == 1:
        note("epoch     loss val loss   audio  visual   fused seconds  (macro F1)")
    note(
        f"{epoch.epoch:5d} {epoch.train_loss:8.4f} {epoch.val_loss:8.4f} {show(epoch.audio_f1):>7} "
        f"{show(epoch.visual_f1):>7} {epoch.fused_f1:7.4f} {epoch.seconds:7.1f}"
    )


def print_report(name: str, report: "Report", detailed: bool) -> None:
    """Prints a score: one line, and in detail a class, a video and the confusion matrix."""
    interval = "" if report.interval is None else " (95 % over recordings: {:.4f} to {:.4f})".format(*report.interval)
    OUT.print(f"\n{name}: macro F1 {report.macro_f1:.4f}{interval}, accuracy {report.accuracy:.4f}", soft_wrap=True)
    if not detailed:
        return
    classes = [(c.name, c.precision, c.recall, c.f1, c.support) for c in report.classes]
    table("By class", ("class", "precision", "recall", "F1", "frames"), classes)
    names = [score.name for score in report.classes]
    rows = zip(names, report.confusion, strict=True)
    table("Confusion (rows: truth)", ("", *(name[:4] for name in names)), [(truth, *counts) for truth, counts in rows])
    videos = [(v.name, v.macro_f1, v.accuracy, v.frames) for v in report.videos]
    table("By video (F1 over its own classes)", ("video", "macro F1", "accuracy", "frames"), videos)


def show(value: object) -> str:
    """A value in a table: floats to four digits, thousands apart, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


def error(problem: object) -> None:
    """An error as one paragraph, whichever process it befalls."""
    ERR.quiet = False
    ERR.print(f"abaw-expr: error: {problem}", style="red", soft_wrap=not ERR.is_terminal)
