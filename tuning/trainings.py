"""Trials of the six penalties that train networks: `further`, one epoch more of a run, and `full`, whole trainings.

What penalties do to macro F1 after a whole training is less than what another seed does. `further` therefore begins
every trial with the same weights, shows it the same batches, and judges it by cross-entropy. `full` ends those early
that fall behind (successive halving, Jamieson and Talwalkar, AISTATS 2016; asynchronous, Li et al., MLSys 2020).
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import optuna
from optuna.pruners import BasePruner, SuccessiveHalvingPruner
from optuna.trial import Trial

from abaw_expr.data.store import Store
from abaw_expr.files import digest, file_digest
from abaw_expr.inference import predict, wanted_of_split
from abaw_expr.outputs import Outputs
from abaw_expr.settings import Settings, signature
from abaw_expr.tasks import Task
from abaw_expr.training.loop import train
from abaw_expr.training.run import Epoch, RunFolder
from tuning.penalties import CONTROLS, FURTHER, Mu, Progress, Row, Search, Shared, mu_of, result_of, search_of, study_of
from tuning.study import SLOT, Result

FULL = "full"
EPOCHS = 1
"""What `further` trains a network on for."""
RATE = 0.3
"""Share of the recipe's learning rates at the peak of that epoch: the network is trained already."""
_KEPT = 3
"""Of so many whole trainings, successive halving lets one go on at each rung."""


@dataclass(frozen=True)
class Trainings:
    """Trials of one fidelity, each a run of its own, resumed where it stopped."""

    fidelity: str
    settings: Settings
    """Of each run but for the penalties."""
    store: Store
    task: Task
    shared: Shared
    start: Path | None = None
    """The checkpoint that each run begins with, if any."""
    pruner: BasePruner | None = None

    def search(self, found: Search | None, count: int, progress: Progress) -> Search:
        """Trains with the controls and `count` more penalties, the best of another search as far as that goes."""
        top = _top(found, count)

        def evaluate(asked: Sequence[Trial]) -> list[Result]:
            (trial,) = asked
            try:
                outputs = self.outputs(mu_of(trial.params), progress, _told(trial))
            except optuna.TrialPruned:
                return [Result(None)]
            return [result_of(self.fidelity, outputs, self.settings.loss)]

        identity = {"run": signature(self.settings, self.store.digest), "interval": self.shared.interval}
        identity |= {} if self.start is None else {"start": file_digest(self.start)}
        planned = [*CONTROLS.values(), *(row.mu for row in top)]
        study = study_of(self.fidelity, identity, planned, self.shared, len(CONTROLS) + count, self.pruner)
        study.work(1, evaluate)
        return search_of(self.fidelity, study.done(), [row.name for row in top])

    def run(self, mu: Mu) -> RunFolder:
        """The run with these penalties."""
        return RunFolder(self.shared.out / self.fidelity / digest(mu))

    def outputs(
        self, mu: Mu, progress: Progress, report: Callable[[int, float], None] = lambda epoch, f1: None
    ) -> Outputs:
        """Trains the run with these penalties, or what is left of it; what its last weights say of validation.

        They are asked about one frame an interval (seconds), and those between are interpolated. `report` is told the
        fused macro F1 of every epoch.
        """
        run, shared = self.run(mu), self.shared
        settings = replace(self.settings, loss=self.settings.loss.with_mu(mu))
        if run.metrics.exists():
            with open(run.metrics) as file:
                for row in csv.DictReader(file):
                    report(int(row["epoch"]), float(row["fused_f1"]))

        def told(epoch: Epoch) -> None:
            report(epoch.epoch, epoch.fused_f1)

        start = () if self.start is None else (self.start,)
        train(self.store, run, settings, self.task, True, told, progress, start)
        wanted = wanted_of_split(self.store, "val")
        where = shared.interval, shared.accelerator
        return predict(run, self.store, self.task, "val", wanted, *where, "last", lambda done, total: None)


def _told(trial: Trial) -> Callable[[int, float], None]:
    """What tells a trial the macro F1 of its epochs. Raises TrialPruned where it falls behind; a control never does."""
    control = trial.user_attrs[SLOT] < len(CONTROLS)

    def report(epoch: int, f1: float) -> None:
        trial.report(f1, epoch)
        if trial.should_prune() and not control:
            raise optuna.TrialPruned

    return report


def further(run: RunFolder, store: Store, task: Task, shared: Shared) -> Trainings:
    """Trials that train the network of a run on, from its last weights: its best were chosen on validation.

    Raises RunError where it is not complete.
    """
    before = run.load_settings()
    run.require_complete()
    rates = {name: RATE * getattr(before.optimiser, name) for name in ("learning_rate", "branch_learning_rate")}
    optimiser = replace(before.optimiser, schedule="one-cycle", epochs=EPOCHS, **rates)
    settings = replace(before, seed=before.seed + 1, optimiser=optimiser)  # not the batches of its first epoch again
    return Trainings(FURTHER, _on(shared, settings), store, task, shared, run.last)


def full(settings: Settings, store: Store, task: Task, shared: Shared) -> Trainings:
    """Trials that are whole trainings with these settings."""
    least = max(settings.optimiser.epochs // _KEPT**2, 1)
    pruner = SuccessiveHalvingPruner(min_resource=least, reduction_factor=_KEPT)
    return Trainings(FULL, _on(shared, settings), store, task, shared, pruner=pruner)


def _on(shared: Shared, settings: Settings) -> Settings:
    return replace(settings, compute=replace(settings.compute, accelerator=shared.accelerator))


def _top(found: Search | None, count: int) -> list[Row]:
    """The best of a search beside its controls."""
    rows = () if found is None else found.rows[len(CONTROLS) :]
    return sorted(rows, key=lambda row: -row.worth)[:count]
