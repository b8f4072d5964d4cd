"""What the command line shows: progress with time left, small tables, errors as one paragraph."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

OUT = Console(highlight=False, markup=False, emoji=False)
"""Results."""
ERR = Console(stderr=True, highlight=False, markup=False, emoji=False)
"""Progress, notes and errors, so that a pipe gets results only."""


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar with time left; the function it gives is told (done, total)."""
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=ERR, transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def note(text: str) -> None:
    """A line about what is going on."""
    ERR.print(text, soft_wrap=True)


def table(title: str, columns: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Prints a small table: the first column to the left, the others to the right."""
    grid = Table(title=title, title_justify="left", title_style="bold")
    for number, column in enumerate(columns):
        grid.add_column(column, justify="right" if number else "left", overflow="fold")
    for row in rows:
        grid.add_row(*(show(value) for value in row))
    OUT.print(grid)


def show(value: object) -> str:
    """A value in a table: floats to four digits, nothing as a dash."""
    if value is None:
        return "-"
    return f"{value:.4f}" if isinstance(value, float) else str(value)


def error(problem: object) -> None:
    """An error as one paragraph."""
    ERR.print(f"abaw-expr: error: {problem}", style="red", soft_wrap=not ERR.is_terminal)
