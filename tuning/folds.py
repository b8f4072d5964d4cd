"""Cross-validation: K folds of the recordings, each held out once by runs of S seeds, and the ensemble of all runs.

A run predicts the recordings of its fold, which it did not train on. Together these out-of-fold outputs are of all
training recordings, so that what is tuned on them is tuned on hundreds of recordings. The outputs of all K x S runs on
validation and test are averaged.

Shapes: R recordings, F fields with K statistics each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from abaw_expr.data.store.folds import HELD_OUT
from abaw_expr.files import atomic
from abaw_expr.outputs.averaging import average
from abaw_expr.outputs.comparison import Interval
from abaw_expr.outputs.decision import untuned
from abaw_expr.outputs.joining import stack
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.settings import Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Statistics, bootstrap_difference, bootstrap_interval, sum_recordings
from tuning.jobs import Job

OUT_OF_FOLD, TABLE = "oof", "table.csv"
_AVERAGE = "average"


@dataclass(frozen=True)
class Plan:
    """The trainings of a cross-validation."""

    base: Settings
    """The settings of every run, but for fold and seed; `data.folds` are the folds."""
    seeds: int
    folder: Path
    splits: tuple[str, ...] = ()
    """The splits that every run predicts beside its fold: val, test."""
    template: Path | None = None

    def job(self, fold: int, seed: int) -> Job:
        """The training that holds out a fold."""
        settings = replace(self.base, seed=self.base.seed + seed, data=replace(self.base.data, fold=fold))
        return Job(f"fold{fold}-seed{seed}", settings, self.folder / "runs", (HELD_OUT, *self.splits), self.template)

    @property
    def jobs(self) -> list[Job]:
        """All trainings, seed by seed."""
        folds = range(self.base.data.folds)
        return [self.job(fold, seed) for seed in range(self.seeds) for fold in folds]


@dataclass(frozen=True)
class Score:
    """The score of a run, or of an average of runs, on a split, by the weights of the settings; nothing is tuned."""

    name: str
    split: str
    recordings: int
    interval: Interval
    """The score and its 95 % interval over recordings, without one for a single recording."""


@dataclass(frozen=True)
class CrossValidation:
    """What the runs of a plan give."""

    scores: tuple[Score, ...]
    """Of each run on its fold and on validation, and of the averages."""
    gain: tuple[str, Interval] | None
    """The best single run on validation by its score there, and how much the average of all is above it."""


def collect(plan: Plan) -> CrossValidation:
    """Writes the tables of all finished runs, out of fold and averaged, and `table.csv`; returns their scores."""
    members = {split: [_read(plan, job, split) for job in plan.jobs] for split in plan.splits}
    tables = {OUT_OF_FOLD: _out_of_fold(plan), **{split: average(of_split) for split, of_split in members.items()}}
    for name, outputs in tables.items():
        write_outputs(plan.folder / f"{name}.parquet", outputs)
    names = [job.name for job in plan.jobs]
    counted = [(job.name, HELD_OUT, _statistics(plan, _read(plan, job, HELD_OUT))) for job in plan.jobs]
    of_val = [_statistics(plan, outputs) for outputs in members.get("val", [])]
    counted += [(name, "val", counts) for name, counts in zip(names, of_val, strict=False)]
    counted.append((_AVERAGE, HELD_OUT, _statistics(plan, tables[OUT_OF_FOLD])))
    if of_val:
        counted.append((_AVERAGE, "val", _statistics(plan, tables["val"])))
    scores = [_score(plan, *one) for one in counted]
    _write_table(plan.folder / TABLE, plan, scores)
    return CrossValidation(tuple(scores), _gain(plan, of_val, counted[-1][2]) if of_val else None)


def _read(plan: Plan, job: Job, split: str) -> Outputs:
    return read_outputs(job.outputs(split), plan.base.task_of)


def _out_of_fold(plan: Plan) -> Outputs:
    """The outputs of all recordings by the runs that held them out, averaged over the seeds."""
    folds = range(plan.base.data.folds)
    return stack(
        [average([_read(plan, plan.job(fold, seed), HELD_OUT) for seed in range(plan.seeds)]) for fold in folds]
    )


def _score(plan: Plan, name: str, split: str, counts: Statistics) -> Score:
    metric = metric_of(plan.base.task_of)
    value = float(metric.score(counts.sum(axis=0)))
    low, high = bootstrap_interval(counts, metric.score, seed=0) if len(counts) > 1 else (value, value)
    return Score(name, split, len(counts), Interval(value, low, high))


def _statistics(plan: Plan, outputs: Outputs) -> Statistics:
    """Of each recording, [R, F, K], with the branches fused by the weights of the settings."""
    decision, videos = untuned(outputs, plan.base.weights), outputs.videos()
    return sum_recordings([video.name for video in videos], decision.statistics(videos))


def _gain(plan: Plan, counts: Sequence[Statistics], ensemble: Statistics) -> tuple[str, Interval] | None:
    """How much the average is above the best member, from the statistics of each."""
    metric = metric_of(plan.base.task_of)
    best = max(range(len(counts)), key=lambda number: float(metric.score(counts[number].sum(axis=0))))
    if len(counts[best]) < 2:
        return None
    difference = bootstrap_difference(ensemble, counts[best], metric.score, seed=0)
    return plan.jobs[best].name, Interval(*difference)


def _write_table(path: Path, plan: Plan, scores: Sequence[Score]) -> None:
    key = metric_of(plan.base.task_of).key
    rows = [
        {
            "run": one.name,
            "split": one.split,
            "recordings": one.recordings,
            **dict(zip((key, "low", "high"), one.interval, strict=True)),
        }
        for one in scores
    ]
    with atomic(path) as temporary:
        pd.DataFrame(rows).to_csv(temporary, index=False)
