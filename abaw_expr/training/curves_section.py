"""What a page shows of runs: a table of them, and their learning curves."""

from collections.abc import Sequence

from abaw_expr.outputs.style import FUSED, branch_colours, branch_dashes, styled_series
from abaw_expr.report.blocks import Block, Figure, Part, Table
from abaw_expr.report.figures import Line, lines
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task
from abaw_expr.training.runs import RunSummary, by_task, differing_settings


def runs_sections(runs: Sequence[RunSummary]) -> list[Part]:
    """A section for the runs of each task, as their scores cannot be compared."""
    return [_section(task, own) for task, own in by_task(runs).items()]


def _section(task: Task, runs: Sequence[RunSummary]) -> Part:
    metric = metric_of(task).name
    columns = ("run", "state", "epochs", f"best {metric}", "at epoch", "device", "minutes")
    blocks: list[Block] = [Table("Runs", columns, [_row(run) for run in runs])]
    if differing := differing_settings(runs):
        rows = [(name, *values) for name, values in differing.items()]
        blocks.append(Table("Settings that differ", ("setting", *(run.name for run in runs)), rows))
    trained = [run for run in runs if run.epochs]
    if len(trained) > 1:
        blocks += [_curves(trained, runs[0].metric_column, f"{metric} on validation")]
        blocks += [_curves(trained, name, f"{title} loss") for name, title in _LOSSES.items()]
    elif trained:
        blocks += [_branches(trained[0], metric), _losses(trained[0])]
    lead = (
        "Scores of the best epoch, which validation chose, are too high: compare them, and quote the nested estimate."
    )
    return Part(f"{task.name.upper()}: runs and learning curves", blocks, lead)


_LOSSES = {"train_loss": "training", "val_loss": "validation"}


def _row(run: RunSummary) -> tuple[str | int | float | None, ...]:
    best = run.best
    done = f"{len(run.epochs)} of {run.settings.optimiser.epochs}"
    at = None if best is None else int(best["epoch"])
    return run.name, run.state, done, run.score, at, run.device or "-", f"{run.seconds / 60:.1f}"


def _curves(runs: Sequence[RunSummary], column: str, title: str) -> Figure:
    """One number of each run over the epochs."""
    drawn = [_line(run, column, run.name, number) for number, run in enumerate(runs)]
    return lines(title[0].upper() + title[1:], ("epoch", title), drawn)


def _line(run: RunSummary, column: str, name: str, number: int) -> Line:
    epochs = [row["epoch"] for row in run.epochs]
    return Line(name, epochs, [row.get(column) for row in run.epochs], **styled_series(number))


def _branches(run: RunSummary, metric: str) -> Figure:
    """The score of each branch of one run over the epochs."""
    ending = run.metric_column.removeprefix(FUSED)
    names = [name.removesuffix(ending) for name in run.epochs[0] if name.endswith(ending)]
    colours, dashes = branch_colours(names), branch_dashes(names)
    epochs = [row["epoch"] for row in run.epochs]
    drawn = [
        Line(name, epochs, [row.get(f"{name}{ending}") for row in run.epochs], colours[name], dashes[name], "circle")
        for name in names
    ]
    return lines(f"{metric[0].upper()}{metric[1:]} on validation", ("epoch", metric), drawn)


def _losses(run: RunSummary) -> Figure:
    drawn = [_line(run, column, name, number) for number, (column, name) in enumerate(_LOSSES.items())]
    return lines("Loss", ("epoch", "loss"), drawn)
