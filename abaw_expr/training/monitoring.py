"""Events of a run for TensorBoard, and a plot of its curves after every epoch."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from torch.utils.tensorboard import SummaryWriter

from abaw_expr.files import atomic
from abaw_expr.outputs.style import CLASS_COLOURS, NEUTRAL, RULES, branch_colours, branch_dashes, line_style
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task
from abaw_expr.training.run import Epoch, best_epoch

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class EventLog:
    """Writes TensorBoard's event files; a resumed run removes the events after its checkpoint."""

    def __init__(self, folder: Path, next_step: int) -> None:
        self._events = SummaryWriter(str(folder), purge_step=next_step, flush_secs=10)

    def step(self, number: int, loss: float) -> None:
        """Writes the loss of a step, counted over the run from 0."""
        self._events.add_scalar("step/loss", loss, number)

    def epoch(self, epoch: Epoch, step: int) -> None:
        """Writes the row of an epoch, at its last step."""
        for name, value in epoch.row().items():
            if name != "epoch":
                self._events.add_scalar(f"epoch/{name}", value, step)

    def flush(self) -> None:
        """Writes all events so far."""
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def plot_curves(history: Sequence[Epoch], task: Task, path: Path) -> None:
    """Plots losses, scores of branches and of columns over the epochs as a PNG; marks best epoch and, for classes,
    chance."""
    import matplotlib as mpl  # slow to import

    with mpl.rc_context(RULES), atomic(path) as temporary:
        _curves(history, task).savefig(temporary, format="png", dpi=100)


def _curves(history: Sequence[Epoch], task: Task) -> "Figure":
    from matplotlib.figure import Figure

    epochs, best, metric = [epoch.epoch for epoch in history], best_epoch(history).epoch, metric_of(task)
    figure = Figure(figsize=(16, 4.5), layout="constrained")
    losses, branches, columns = figure.subplots(1, 3)
    for label, style, values in (
        ("training", "--", [epoch.train_loss for epoch in history]),
        ("validation", "-", [epoch.val_loss for epoch in history]),
    ):
        losses.plot(epochs, values, style, color="black", label=label)
    losses.set(title="Loss", ylabel="loss")
    colours, dashes = branch_colours(history[0].scores), branch_dashes(history[0].scores)
    for name in history[0].scores:
        dash = line_style(dashes[name])
        branches.plot(epochs, [epoch.scores[name] for epoch in history], ls=dash, color=colours[name], label=name)
    branches.set(title=f"{metric.title} on validation", ylabel=metric.name)
    for number, name in enumerate(task.columns):
        style = "-" if number < len(CLASS_COLOURS) else "--"
        colour = CLASS_COLOURS[number % len(CLASS_COLOURS)]
        columns.plot(epochs, [epoch.columns[name] for epoch in history], style, color=colour, label=name)
    score = history[0].metric.upper()
    columns.set(title=f"{score} of {metric.columns_are}, fused, on validation", ylabel=score)
    for axes in (branches, columns):
        axes.set_ylim(None if task.kind == "values" else 0, 1)
        if task.one_class:
            axes.axhline(1 / task.n_columns, color=NEUTRAL, linestyle=":", label="chance")
    for axes in (losses, branches, columns):
        axes.axvline(best, color=NEUTRAL, linestyle="--", linewidth=1, label=f"best epoch, {best}")
        axes.set_xlabel("epoch")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0), frameon=False)
        axes.xaxis.get_major_locator().set_params(integer=True)
    return figure
