"""The folder of a training run.

settings.yaml        all settings, resolved
metrics.csv          one row per epoch
checkpoints/         last.pt and best.pt; initial.pt where the run has initial weights of other runs, and weights.json
                     with the digests of files of weights that the settings name
tensorboard/         the same rows, and the loss of every step, for TensorBoard
curves.png           losses and scores over the epochs, drawn after every epoch
manifest.json        written last: its presence means that the run is complete
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, FiniteFloat

from abaw_expr.errors import RunError, shorten, unreadable
from abaw_expr.files import atomic, clean, file_digest, is_passing, read_json, write_json
from abaw_expr.models.encoders.weights_path import DEFAULT, weights_path
from abaw_expr.outputs.style import FUSED
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.training.signature import differences, earlier_signature
from abaw_expr.training.signature import signature as sign

if TYPE_CHECKING:
    from abaw_expr.training.checkpoint import Checkpoint


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """The results of an epoch: training, and scores on the validation frames."""

    epoch: int
    steps: int
    learning_rate: float
    train_loss: float
    val_loss: float
    metric: str
    """The score's name in metrics.csv, such as `f1` or `ccc`."""
    scores: Mapping[str, float]
    """The task's score of each branch, and of their fusion by the name `FUSED`."""
    columns: Mapping[str, float]
    """The score of each column of the task (class, value or unit), of the fused branches."""
    waiting: float
    """Fraction of the epoch's time spent waiting for data."""
    seconds: float

    @property
    def score(self) -> float:
        """The score of the fused branches."""
        return self.scores[FUSED]

    def row(self) -> dict[str, Any]:
        """The epoch as a row of metrics.csv: `audio_f1`, `fused_f1`, and `f1_Anger` of a class."""
        first = {name: getattr(self, name) for name in ("epoch", "steps", "learning_rate", "train_loss", "val_loss")}
        scores = {f"{name}_{self.metric}": score for name, score in self.scores.items()}
        times = {"waiting": self.waiting, "seconds": self.seconds}
        return first | scores | times | {f"{self.metric}_{name}": score for name, score in self.columns.items()}


@dataclass(frozen=True)
class RunStart:
    """The facts of a run that is about to start."""

    device: str
    processes: int
    precision: str
    train_videos: int
    train_samples: int
    """Samples of the first epoch; the sampling grid shifts, so other epochs may have a few more or fewer."""
    steps: int
    """Steps of the first epoch."""
    val_videos: int
    val_samples: int
    epochs: int
    epochs_done: int
    """More than 0 in a run that is resumed."""
    steps_done: int
    """Finished steps of the epoch after these."""
    seen: tuple[str, ...] = ()
    """Recordings that the task validates or tests on, and that the initial weights were trained on."""


def best_epoch(history: Sequence[Epoch]) -> Epoch:
    """The epoch whose weights are in best.pt: the one with the highest fused score, the last of equal ones."""
    return max(history, key=lambda epoch: (epoch.score, epoch.epoch))


def weights_files(settings: Settings) -> dict[str, Path]:
    """The files of weights that encoders start from, by `branch.stream`, and `text` of the texts of cosine heads.

    Those that a library downloads are not among them.
    """
    streams = {
        f"{name}.{one}": stream
        for name, branch in settings.branches.items()
        for one, stream in branch.streams_of(name).items()
    }
    named = {name: stream.weights for name, stream in streams.items()}
    if any(branch.head == "cosine" for branch in settings.branches.values()):
        named["text"] = settings.model.text_weights
    return {name: weights_path(weights) for name, weights in named.items() if weights not in ("", DEFAULT)}


def _setting(name: str) -> str:
    """The setting that a file of weights is of."""
    return "model.text-weights" if name == "text" else f"branches.{name}"


class Summary(BaseModel):
    """The values of the manifest that are read."""

    seconds: FiniteFloat
    signature: str | None = None
    store: str | None = None


@dataclass(frozen=True)
class RunFolder:
    """The paths of a run's files."""

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
    def initial_weights(self) -> Path:
        return self.root / "checkpoints" / "initial.pt"

    @property
    def weights(self) -> Path:
        return self.root / "checkpoints" / "weights.json"

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
        """The settings that the run was started with. Raises RunError where this is not a run folder."""
        if not self.settings.exists():
            raise RunError("is not a run folder", path=self.root, expected="a folder with settings.yaml in it")
        return load_settings(self.settings)

    def identity(self, settings: Settings, data: str) -> str:
        """The signature of a run with these settings in this folder; `data` is the store's digest."""
        start = file_digest(self.initial_weights) if self.initial_weights.exists() else None
        heads = self.summary().get("heads")
        if (earlier := self._earlier_settings()) is not None:
            return earlier_signature(earlier, data, start, heads)
        return sign(settings, data, start, heads, self.weights_digests())

    def weights_digests(self) -> dict[str, str]:
        """The digests of the files of weights that the run began with, by `branch.stream`."""
        digests: dict[str, str] = read_json(self.weights, RunError, "Train again.") if self.weights.exists() else {}
        return digests

    def _earlier_settings(self) -> dict[str, Any] | None:
        """The values in the settings.yaml of a run of an earlier version, which names no task; None of other runs."""
        import yaml

        values = yaml.safe_load(self.settings.read_text(encoding="utf-8-sig")) if self.settings.exists() else {}
        return None if not values or "task" in values else values

    def summary(self) -> dict[str, Any]:
        """The manifest; empty where the run is not complete. Raises RunError where it cannot be read."""
        return self.read_summary() if self.complete else {}

    def check(self, settings: Settings, checkpoint: "Checkpoint", path: Path) -> None:
        """Raises RunError where the checkpoint at `path` was not trained with these settings of the run."""
        data = checkpoint.data or str(self.summary().get("store", ""))
        if data and (found := self.identity(settings, data)) != checkpoint.signature:
            raise RunError(
                "has other settings than the checkpoint was trained with",
                path=self.settings,
                found=f"signature {found}",
                expected=f"{checkpoint.signature}, as in {path.name}",
                remedy="Put back the settings.yaml that it was trained with, or train again.",
            )

    def start(self, settings: Settings, data: str, resume: bool, embeddings: Mapping[str, str] | None = None) -> None:
        """Makes the folder, or checks that the run in it has these settings; a run without checkpoint is started again.

        `data` is the store's digest, `embeddings` are those of the embeddings in it that the settings read, by
        `branch.stream`. Raises RunError where the folder has a run and `resume` is false, where that run
        has other settings or lacks its last checkpoint, and where the folder has other files.
        """
        if not self.last.exists():
            self._check_new(resume)
            if not resume:
                self.initial_weights.unlink(missing_ok=True)
            save_settings(settings, self.settings)
            self._keep_weights_digests(settings, embeddings or {})
            return
        if not resume:
            raise RunError(
                "holds a run already",
                path=self.root,
                remedy="Resume it with --resume, or name another folder.",
            )
        self.check_settings(settings)
        for name, known in (embeddings or {}).items():
            if known != self.weights_digests().get(name):
                remedy = "Train a new run."
                problem = f"was trained on other embeddings than the store has for branches.{name} now"
                raise RunError(problem, path=self.root, remedy=remedy)
        clean(self.last.parent)

    def _keep_weights_digests(self, settings: Settings, embeddings: Mapping[str, str]) -> None:
        """Writes the digests of the files of weights that the settings name, and of embeddings.

        Raises RunError where a file is missing.
        """
        digests = {**embeddings}
        for name, path in weights_files(settings).items():
            try:
                digests[name] = file_digest(path)
            except OSError as error:
                raise unreadable(RunError, path, error, f"It is the weights of {_setting(name)}.") from error
        self.weights.unlink(missing_ok=True)
        if digests:
            write_json(self.weights, digests)

    def check_settings(self, settings: Settings) -> None:
        """Raises RunError where the run in the folder has other settings, as far as they decide its result."""
        if self._earlier_settings() is not None:
            remedy = (
                f"Predict with it, or train on from its weights: another --run, and `--initial-weights {self.root}`."
            )
            raise RunError("was made by an earlier version, so it cannot be resumed", path=self.root, remedy=remedy)
        before = self.load_settings()
        if sign(before, "") != sign(settings, ""):
            raise RunError(
                "holds a run of other settings",
                path=self.settings,
                found=shorten(differences(before, settings), 8),
                remedy=f"`train --run {self.root} --resume` without these flags continues that run; with another --run "
                f"and `--initial-weights {self.root}` the new settings train on from its weights.",
            )
        for name, path in weights_files(settings).items():
            if path.exists() and file_digest(path) != self.weights_digests().get(name):
                remedy = "Put that file back, or train a new run."
                raise RunError(f"is another file of weights than {_setting(name)} began with", path=path, remedy=remedy)

    def _check_new(self, resume: bool) -> None:
        """Raises RunError for a folder with other files, and for a run that lacks last.pt but not its later files."""
        if self.root.exists() and not self.root.is_dir():
            raise RunError("is not a folder", path=self.root, expected="a new folder for the run")
        names = {entry.name for entry in self.root.iterdir()} if self.root.exists() else set()
        names = {name for name in names if not is_passing(name)}
        done = [path.name for path in (self.manifest, self.metrics, self.best) if path.exists()]
        if done and self.settings.exists() and not (resume and self._in_first_epoch()):
            again = "Start it again with --resume" if self._in_first_epoch() else "Put checkpoints/last.pt back"
            remedy = f"{again}, or name another folder for the run."
            raise RunError("holds a run without its last.pt", path=self.root, found=", ".join(done), remedy=remedy)
        own = {path.name for path in (self.settings, self.metrics, self.last.parent, self.events, self.bad_batch)}
        if names and (names - own or not self.settings.exists()):
            found, remedy = shorten(sorted(names - own or names)), "Name a new folder for the run."
            raise RunError("is not empty and not a run", path=self.root, found=found, remedy=remedy)

    def _in_first_epoch(self) -> bool:
        """Whether a run without last.pt was killed in its first epoch; last.pt is written last in an epoch."""
        rows = self.metrics.read_text(errors="replace").count("\n") - 1 if self.metrics.exists() else 0
        return not self.complete and rows <= 1

    def write_metrics(self, history: Sequence[Epoch]) -> None:
        """Writes metrics.csv, one row per epoch."""
        import pandas as pd  # slow to import, and not needed for a complete run

        with atomic(self.metrics) as temporary:
            pd.DataFrame([epoch.row() for epoch in history]).to_csv(temporary, index=False)

    def read_summary(self) -> dict[str, Any]:
        """The manifest of a complete run. Raises RunError where it is missing or damaged."""
        summary: dict[str, Any] = read_json(self.manifest, RunError, "Train the run to its end.", Summary)
        return summary

    def finish(self, summary: dict[str, object]) -> None:
        """Writes the manifest, which marks the run as complete."""
        write_json(self.manifest, summary)
