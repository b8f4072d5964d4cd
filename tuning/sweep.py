"""A sweep: trials of whole trainings, each with other settings, in a study that several workers share.

Each trial is a run under `runs`, named by its values, and is resumed where its worker died. The last weights are scored
on validation; the ratio m:n is the best of 19 there where the objective is `tuned` or `nested`. A trial that falls
behind is ended by successive halving (Jamieson and Talwalkar, AISTATS 2016; asynchronous, Li et al., MLSys 2020) or by
the median, on the score of the branches' fusion after each epoch: unlike the loss, it does not hold what is varied.

Shapes: R recordings, F fields with K statistics each.
"""

import csv
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import optuna
from optuna.pruners import BasePruner, MedianPruner, NopPruner, SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, Trial

from abaw_expr.data.store.folds import split_for_training
from abaw_expr.data.store.store import Store
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import BusyError, DivergedError, SettingsError
from abaw_expr.files import digest
from abaw_expr.outputs.comparison import Interval
from abaw_expr.outputs.decision import untuned
from abaw_expr.outputs.fusion import fuse
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.settings import Settings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import bootstrap_difference
from tuning.selection import Search, held_out_statistics, nested_score, search
from tuning.space import RATIOS_ONLY
from tuning.study import SLOT, SharedStudy, StudyOptions, TrialResult
from tuning.sweep_space import SweepSpace, Values, with_values

if TYPE_CHECKING:
    from abaw_expr.training.run import Epoch, RunFolder

_REDUCTION = 3
"""Successive halving continues one of this many trainings at each rung."""
_FORMAT = 1
"""The version of the attributes that a trial stores."""
_WAIT = 5.0
"""Seconds between looks at a run that another worker trains."""
FAILED = "failed"
PRUNERS: Mapping[str, Callable[[int], BasePruner]] = {
    "halving": lambda epochs: SuccessiveHalvingPruner(
        min_resource=max(epochs // _REDUCTION**2, 1), reduction_factor=_REDUCTION
    ),
    "median": lambda epochs: MedianPruner(n_warmup_steps=max(epochs // _REDUCTION, 1)),
    "none": lambda epochs: NopPruner(),
}
"""The pruners by name, for trainings of that many epochs."""
OBJECTIVES: Mapping[str, Callable[[Mapping[str, Any]], float | None]] = {
    "nested": lambda found: found["nested"],
    "plain": lambda found: found["plain"],
    "cross-entropy": lambda found: None if found["cross_entropy"] is None else -found["cross_entropy"],
    "tuned": lambda found: found["tuned"],
}
"""What is maximised, from what a trial is measured by."""


@dataclass(frozen=True)
class Sweep:
    """What trials are made of."""

    base: Settings
    space: SweepSpace
    planned: Sequence[Values]
    """The values of the first trials."""
    trials: int
    """With those that are planned."""
    objective: str = "nested"
    pruner: str = "halving"
    kept: int = 1
    """The first so many trials are never ended early."""


@dataclass(frozen=True)
class TrialOfSweep:
    """One finished trial."""

    slot: int
    values: Values
    objective: float | None
    """None where it was ended early, or failed."""
    found: Mapping[str, Any]
    """nested, plain, tuned (score of the best ratio), ratio, cross_entropy; or why it failed."""
    outputs: Path

    @property
    def failed(self) -> str | None:
        """Why it failed, if it did."""
        return self.found.get(FAILED)


@dataclass(frozen=True)
class SweepResult:
    """The trials of a sweep, in the order of slots."""

    sweep: Sweep
    trials: tuple[TrialOfSweep, ...]

    @property
    def best(self) -> TrialOfSweep | None:
        """The trial of the highest objective, of equal ones the first; None where none was trained to its end."""
        return max(self.finished, key=lambda one: (one.objective, -one.slot), default=None)

    @property
    def finished(self) -> list[TrialOfSweep]:
        """The trials that were trained to their end."""
        return [one for one in self.trials if one.objective is not None]

    @cached_property
    def nested(self) -> float | None:
        """The score with each recording decided by the trial and the ratio that are chosen on the others.

        Its score is not too high by the choice among many trials, as that of the best is.
        """
        tensors = [self._search(one).counts for one in self.finished]
        return nested_score(np.concatenate(tensors), metric_of(self.sweep.base.task_of)) if tensors else None

    def gain(self, default: TrialOfSweep) -> Interval | None:
        """How much the best trial is above another, each recording with the ratio that the others choose: the
        difference and its 95 % interval of a paired bootstrap. None where there are not two recordings."""
        if self.best is None or default.objective is None:
            return None
        first, second = (held_out_statistics(self._search(one)) for one in (self.best, default))
        if len(first) < 2:
            return None
        return Interval(*bootstrap_difference(first, second, metric_of(self.sweep.base.task_of).score, seed=0))

    def _search(self, trial: TrialOfSweep) -> Search:
        return search(read_outputs(trial.outputs, self.sweep.base.task_of), RATIOS_ONLY)


def run_sweep(sweep: Sweep, store: Store, options: StudyOptions, on_progress: OnProgress) -> SweepResult:
    """Trains what is left of a sweep, together with other workers of the same storage and folder.

    `on_progress(epochs done, epochs in all)`. Raises UserError where the storage cannot be used.
    """
    _check_recordings(sweep, store)
    base = replace(sweep.base, compute=replace(sweep.base.compute, accelerator=options.accelerator))
    own, study, epochs = replace(sweep, base=base), _study(sweep, store, options), base.optimiser.epochs
    done = 0

    def told(trials: int, total: int) -> None:
        nonlocal done
        done = trials
        on_progress(trials * epochs, total * epochs)

    def within(part: float) -> None:
        on_progress(round((done + part) * epochs), study.total * epochs)

    def evaluate(asked: Sequence[Trial]) -> list[TrialResult]:
        (trial,) = asked
        return [_evaluate(own, store, options, trial, within)]

    study.work(1, evaluate, told)
    return SweepResult(own, tuple(_trial(own, options, slot, trial) for slot, trial in study.done().items()))


def _check_recordings(sweep: Sweep, store: Store) -> None:
    """Raises SettingsError where a nested score is asked for of a single recording."""
    held_out = split_for_training(store, sweep.base.data).split("val")
    if sweep.objective == "nested" and len({recording_of(video.name) for video in held_out}) < 2:
        expected = "at least 2, or the objective plain"
        raise SettingsError("a nested score needs more recordings to validate on", found=1, expected=expected)


def measure(outputs: Outputs, settings: Settings) -> dict[str, Any]:
    """What a trial is measured by, from its outputs on validation."""
    found, metric = search(outputs, RATIOS_ONLY), metric_of(outputs.task)
    index = int(found.choose(found.scores))
    videos = outputs.videos()
    plain = untuned(outputs, settings.weights).statistics(videos).sum(axis=0)
    return {
        "nested": found.nested,
        "plain": float(metric.score(plain)),
        "tuned": float(found.scores[index]),
        "ratio": found.space.candidates()[index].weights,
        "cross_entropy": cross_entropy(outputs, settings.weights),
    }


def cross_entropy(outputs: Outputs, weights: Mapping[str, int]) -> float | None:
    """Mean cross-entropy in nats of the fused probabilities on what is annotated, as in the loss without penalties.

    Of action units it is the mean over frames and units. A frame that lacks every modality has uniform probabilities.
    None for values, which have none.
    """
    if outputs.task.kind == "values":
        return None
    p = fuse([outputs.branch(name) for name in outputs.branches], [weights[name] for name in outputs.branches])
    label, classes = outputs.label(), outputs.task.one_class
    p[np.isnan(p[:, 0])] = 1 / p.shape[1] if classes else 0.5
    p = p.clip(np.finfo(np.float32).tiny)
    if classes:
        known = np.flatnonzero(label >= 0)
        return float(-np.log(p[known, label[known]]).mean(dtype=np.float64))
    said = np.where(label == 1, p, (1 - p).clip(np.finfo(np.float32).tiny))
    return float(-np.log(said[label >= 0]).mean(dtype=np.float64))


def _study(sweep: Sweep, store: Store, options: StudyOptions) -> SharedStudy:
    """The study of a sweep; its name has a hash of all that its values depend on, so only equal sweeps share it."""
    from abaw_expr.training.signature import signature

    key = {
        "base": signature(sweep.base, store.digest),
        "space": {name: repr(distribution) for name, distribution in sweep.space.items()},
        "planned": [[*values.items()] for values in sweep.planned],
        "how": [sweep.objective, sweep.pruner, sweep.kept, options.sampler, options.seed, options.stride, _FORMAT],
    }
    pruner = PRUNERS[sweep.pruner](sweep.base.optimiser.epochs)
    return SharedStudy(
        options.storage,
        f"sweep-{digest(key)}",
        sweep.space,
        sweep.trials,
        sweep.planned,
        options.sampler,
        options.seed,
        options.heartbeat,
        pruner,
    )


def _evaluate(
    sweep: Sweep, store: Store, options: StudyOptions, trial: Trial, on_part: Callable[[float], None]
) -> TrialResult:
    """Trains a trial, or what is left of it, and measures it; a training that cannot be is no end of the sweep."""
    from abaw_expr.training.predict import predict, wanted_of_fold, wanted_of_split
    from abaw_expr.training.run import RunFolder

    run, path = RunFolder(_folder(options, trial.params)), _outputs(options, trial.params)
    try:
        settings = with_values(sweep.base, trial.params)
        _train(run, store, settings, trial, trial.user_attrs[SLOT] < sweep.kept, on_part)
    except optuna.TrialPruned:
        return TrialResult(None)
    except (DivergedError, SettingsError) as problem:
        return TrialResult(None, {FAILED: str(problem)})
    wanted = wanted_of_fold(store, settings) if settings.data.folds else wanted_of_split(store, "val")
    stride = None if settings.over_time else options.stride
    outputs = predict(run, store, "val", wanted, stride, options.accelerator, "last")
    write_outputs(path, outputs)
    found = measure(outputs, settings)
    return TrialResult(OBJECTIVES[sweep.objective](found), found)


def _train(
    run: "RunFolder", store: Store, settings: Settings, trial: Trial, kept: bool, on_part: Callable[[float], None]
) -> None:
    """Trains a run, or resumes it; another worker may train it for a trial with the same values, then it waits.

    Raises TrialPruned where the pruner ends it.
    """
    from abaw_expr.training.loop import train

    def report(epoch: int, score: float) -> None:
        trial.report(score, epoch)
        if trial.should_prune() and not kept:
            raise optuna.TrialPruned

    if run.metrics.exists():
        name = f"fused_{metric_of(settings.task_of).short}"
        with open(run.metrics) as file:
            for row in csv.DictReader(file):
                report(int(row["epoch"]), float(row[name]))

    def on_epoch(epoch: "Epoch") -> None:
        report(epoch.epoch, epoch.score)

    while True:
        try:
            train(store, run, settings, True, on_epoch, lambda done, total: on_part(done / total))
            return
        except BusyError:
            time.sleep(_WAIT)


def _trial(sweep: Sweep, options: StudyOptions, slot: int, trial: FrozenTrial) -> TrialOfSweep:
    found = {name: value for name, value in trial.user_attrs.items() if name not in (SLOT, "worker")}
    value = trial.value if "nested" in found else None
    return TrialOfSweep(slot, dict(trial.params), value, found, _outputs(options, trial.params))


def _folder(options: StudyOptions, values: Values) -> Path:
    return options.out / "runs" / digest(dict(values))


def _outputs(options: StudyOptions, values: Values) -> Path:
    return _folder(options, values) / "outputs" / "val.parquet"
