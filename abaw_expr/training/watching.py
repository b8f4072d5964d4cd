"""What a run can be watched by: events for TensorBoard while it goes on, a picture of its curves at the end."""

from collections.abc import Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from abaw_expr.files import atomic
from abaw_expr.tasks.task import Task
from abaw_expr.training.run import Epoch


class Watch:
    """Writes TensorBoard's event files; a resumed run takes back what it did after its checkpoint."""

    def __init__(self, folder: Path, next_step: int) -> None:
        self._events = SummaryWriter(str(folder), purge_step=next_step, flush_secs=10)

    def step(self, number: int, loss: float) -> None:
        """The loss of a step, counted over the run from 0."""
        self._events.add_scalar("step/loss", loss, number)

    def epoch(self, epoch: Epoch, task: Task, step: int) -> None:
        """An epoch's row, at its last step."""
        for name, value in epoch.row(task).items():
            if value is not None and name != "epoch":
                self._events.add_scalar(f"epoch/{name}", value, step)

    def flush(self) -> None:
        """Writes down all that was told so far."""
        self._events.flush()

    def close(self) -> None:
        self._events.close()


def draw_curves(history: Sequence[Epoch], task: Task, path: Path) -> None:
    """Draws losses, macro F1 a branch and F1 a class over the epochs as a PNG."""
    from matplotlib.figure import Figure  # slow to import, and this is the last thing that a run does

    epochs = [epoch.epoch for epoch in history]
    figure = Figure(figsize=(15, 4.5), layout="constrained")
    losses, branches, classes = figure.subplots(1, 3)
    for label, values in (("training", [e.train_loss for e in history]), ("validation", [e.val_loss for e in history])):
        losses.plot(epochs, values, label=label)
    losses.set(title="Loss", xlabel="epoch")
    for label, f1s in (
        ("audio", [e.audio_f1 for e in history]),
        ("visual", [e.visual_f1 for e in history]),
        ("fused", [e.fused_f1 for e in history]),
    ):
        if None not in f1s:
            branches.plot(epochs, f1s, label=label)
    branches.set(title="Macro F1 on validation", xlabel="epoch", ylim=(0, 1))
    for number, name in enumerate(task.columns):
        classes.plot(epochs, [epoch.class_f1[number] for epoch in history], label=name)
    classes.set(title="F1 a class, fused, on validation", xlabel="epoch", ylim=(0, 1))
    for axes in (losses, branches, classes):
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small")
        axes.xaxis.get_major_locator().set_params(integer=True)
    with atomic(path) as temporary:
        figure.savefig(temporary, format="png", dpi=100)
