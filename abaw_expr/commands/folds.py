"""`folds`: cross-validation over recordings, and the ensemble of its runs."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, Stores, require_counts
from abaw_expr.settings import Settings

if TYPE_CHECKING:
    from tuning.folds import CrossValidation, Plan


def folds_command(base: Settings) -> Callable[..., int]:
    def folds(
        store: Stores,
        out: Path,
        settings: Path = DEFAULT_RECIPE,
        branches: tuple[str, ...] = (),
        folds: int = 5,
        seeds: int = 1,
        jobs: int = 0,
        template: Path | None = None,
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains a run for each fold and seed, and averages what they predict.

        Recordings stay whole, and so do subjects where the store knows them; classes are spread evenly over the folds.
        oof.parquet has every training recording, predicted by the runs that did not train on it: tune on it.
        val.parquet and test.parquet have the average of all runs, and how far these are apart as a column: submit
        that. table.csv has the scores. Run it again to continue.

            abaw-expr folds store --out folds --folds 5 --seeds 2 \\
                --settings pretrained --template template.txt
            abaw-expr tune folds/oof.parquet --out decision.json
            abaw-expr submit folds/test.parquet --decision decision.json \\
                --template template.txt --out predictions.txt

        Args:
            store: The prepared store, or several with their fractions; the folds are of the first.
            out: The folder of the cross-validation.
            settings: The recipe of all runs; each of its settings can be changed here, as with `train`. With
                --data.train-on both the folds are of training and validation recordings together.
            branches: Train only these branches of the settings, by name.
            folds: Folds of the recordings.
            seeds: Runs of each fold, with the seed of the settings and those after it.
            jobs: Trainings at a time; 0: one on each GPU, on a CPU one.
            template: The organisers' template; test.parquet then has its rows instead of all frames of the test split.
        """
        from abaw_expr.data.store.store import open_store
        from tuning.folds import Plan, collect
        from tuning.jobs import gpus_of, train_jobs

        require_counts(2, folds=folds)
        require_counts(1, seeds=seeds)
        require_counts(0, jobs=jobs)
        asked = replace(overrides, data=replace(overrides.data, folds=folds, fold=0))
        splits = {video.split for video in open_store(Path(store[0]), asked.task_of).videos}
        of_val = () if asked.data.train_on == "both" or "val" not in splits else ("val",)
        plan = Plan(asked, seeds, out, (*of_val, *(("test",) if "test" in splits else ())), template)
        gpus = gpus_of(asked)
        with console.progress("Training epochs") as on_progress:
            train_jobs(plan.jobs, store, jobs or gpus or 1, gpus, on_progress)
        _report(plan, collect(plan))
        return 0

    return folds


def _report(plan: "Plan", found: "CrossValidation") -> None:
    from abaw_expr.tasks.registry import metric_of

    rows = [
        (one.name, one.split, one.recordings, one.interval.value, f"{one.interval.low:.4f} to {one.interval.high:.4f}")
        for one in found.scores
    ]
    columns = ("run", "split", "recordings", metric_of(plan.base.task_of).name, "95 % over recordings")
    console.table(f"Folds {plan.folder}: the branches fused by the weights of the settings", columns, rows)
    if found.gain is not None:
        best, (value, low, high) = found.gain
        told = f"The average is {value:+.4f} ({low:+.4f} to {high:+.4f}) above the best run on validation, {best}."
        console.note(f"{told} That run was chosen on these frames.")
    console.note(f"Tune on what was held out: abaw-expr tune {plan.folder / 'oof.parquet'} --out decision.json")
