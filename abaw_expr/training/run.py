"""The folder of a training run.

settings.yaml        every setting, resolved
metrics.csv          a row an epoch
checkpoints/         last.pt and best.pt; start.pt where the run began with weights of others
tensorboard/         the same rows, and the loss of every step, for TensorBoard
curves.png           losses and F1 over the epochs, at the end
manifest.json        written last: its presence means complete
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel, FiniteFloat

from abaw_expr.errors import RunError, shorten
from abaw_expr.files import atomic, clean, file_digest, is_passing, read_json, write_json
from abaw_expr.settings import Settings, load_settings, save_settings
from abaw_expr.settings import signature as sign
from abaw_expr.tasks.task import Task

if TYPE_CHECKING:
    from abaw_expr.training.checkpoint import Checkpoint


@dataclass(frozen=True)
class Epoch:
    """What an epoch gave; F1 is macro F1 on the validation frames, None for a branch that is not trained."""

    epoch: int
    steps: int
    learning_rate: float
    train_loss: float
    val_loss: float
    audio_f1: float | None
    visual_f1: float | None
    fused_f1: float
    class_f1: list[float]
    """F1 of each class, fused."""
    waiting: float
    """Share of the epoch's time spent waiting for data."""
    seconds: float

    def row(self, task: Task) -> dict[str, Any]:
        """The epoch as a row of metrics.csv, F1 of a class under its name."""
        row = asdict(self)
        del row["class_f1"]
        return row | {f"f1_{name}": f1 for name, f1 in zip(task.columns, self.class_f1, strict=True)}


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights best.pt holds: the highest fused F1, of equal ones the latest."""
    return max(history, key=lambda epoch: (epoch.fused_f1, epoch.epoch))


class Summary(BaseModel):
    """The manifest, as far as it is read again."""

    seconds: FiniteFloat
    signature: str | None = None
    store: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """Where things lie in a run."""

    root: Path

    @property
    def settings(self) -> Path:
        return self.root / "settings.yaml"

    @property
    def metrics(self) -> Path:
        return self.root / "metrics.csv"

    @property
    def manifest(self) -> Path:
        return self.root / "manifest.json"

    @property
    def last(self) -> Path:
        return self.root / "checkpoints" / "last.pt"

    @property
    def best(self) -> Path:
        return self.root / "checkpoints" / "best.pt"

    @property
    def begun_with(self) -> Path:
        return self.root / "checkpoints" / "start.pt"

    @property
    def events(self) -> Path:
        return self.root / "tensorboard"

    @property
    def curves(self) -> Path:
        return self.root / "curves.png"

    @property
    def bad_batch(self) -> Path:
        return self.root / "bad-batch.pt"

    @property
    def complete(self) -> bool:
        return self.manifest.exists()

    def load_settings(self) -> Settings:
        """The settings that the run was started with. Raises RunError where this is no run folder."""
        if not self.settings.exists():
            raise RunError("is not a run folder", path=self.root, expected="a folder with settings.yaml in it")
        return load_settings(self.settings)

    def identity(self, settings: Settings, data: str) -> str:
        """The signature of a run of these settings in this folder; `data` is the store's digest."""
        start = file_digest(self.begun_with) if self.begun_with.exists() else None
        return sign(settings, data, start, self.summary().get("heads"))

    def summary(self) -> dict[str, Any]:
        """What the manifest says; nothing where the run is not complete. Raises RunError where it cannot be read."""
        return self.read_summary() if self.complete else {}

    def check(self, settings: Settings, checkpoint: "Checkpoint", path: Path) -> None:
        """Raises RunError where a checkpoint, which is at `path`, was not trained with these settings of the run."""
        data = checkpoint.data or str(self.summary().get("store", ""))
        if data and (found := self.identity(settings, data)) != checkpoint.signature:
            raise RunError(
                "says other settings than the checkpoint was trained with",
                path=self.settings,
                found=f"signature {found}",
                expected=f"{checkpoint.signature}, as {path.name} has it",
                remedy="Put back the settings.yaml that it was trained with, or train again.",
            )

    def start(self, settings: Settings, data: str, resume: bool) -> None:
        """Makes the folder, or makes sure that the run in it is this one; one without a checkpoint starts anew.

        Raises RunError where a run is there and `resume` is not asked for, where that run has other settings or lacks
        the checkpoint that it would go on from, and where the folder is another's.
        `data` is the store's digest.
        """
        if not self.last.exists():
            self._check_new(resume)
            if not resume:
                self.begun_with.unlink(missing_ok=True)
            save_settings(settings, self.settings)
            return
        if not resume:
            raise RunError(
                "holds a run already",
                path=self.root,
                remedy="Go on with it by --resume, or name another folder.",
            )
        if sign(self.load_settings(), data) != sign(settings, data):
            raise RunError(
                "holds a run of other settings",
                path=self.settings,
                remedy="Resume with the settings it was started with, or name another folder.",
            )
        clean(self.last.parent)

    def _check_new(self, resume: bool) -> None:
        """Refuses to start a run in a folder that is something else, or where one has come so far that it is missed."""
        if self.root.exists() and not self.root.is_dir():
            raise RunError("is not a folder", path=self.root, expected="a new folder for the run")
        names = {entry.name for entry in self.root.iterdir()} if self.root.exists() else set()
        names = {name for name in names if not is_passing(name)}
        done = [path.name for path in (self.manifest, self.metrics, self.best) if path.exists()]
        if done and self.settings.exists() and not (resume and self._in_first_epoch()):
            again = "Begin it again by --resume" if self._in_first_epoch() else "Put checkpoints/last.pt back"
            remedy = f"{again}, or name another folder for the run."
            raise RunError("holds a run without its last.pt", path=self.root, found=", ".join(done), remedy=remedy)
        begun = {path.name for path in (self.settings, self.metrics, self.last.parent, self.events, self.bad_batch)}
        if names and (names - begun or not self.settings.exists()):
            found, remedy = shorten(sorted(names - begun or names)), "Name a new folder for the run."
            raise RunError("is not empty and not a run", path=self.root, found=found, remedy=remedy)

    def _in_first_epoch(self) -> bool:
        """Whether a run without last.pt was killed while its first epoch was written down, which ends with last.pt."""
        rows = self.metrics.read_text(errors="replace").count("\n") - 1 if self.metrics.exists() else 0
        return not self.complete and rows <= 1

    def write_metrics(self, history: Sequence[Epoch], task: Task) -> None:
        """Writes the table anew, a row an epoch."""
        with atomic(self.metrics) as temporary:
            pd.DataFrame([epoch.row(task) for epoch in history]).to_csv(temporary, index=False)

    def read_summary(self) -> dict[str, Any]:
        """The manifest of a complete run. Raises RunError where there is none, or it is damaged."""
        summary: dict[str, Any] = read_json(self.manifest, RunError, "Train the run to its end.", Summary)
        return summary

    def finish(self, summary: dict[str, object]) -> None:
        """Writes the manifest; the run is complete."""
        write_json(self.manifest, summary)
