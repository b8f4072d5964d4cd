"""`sweep`: a search over any settings of training."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, Stores, require, require_counts
from abaw_expr.settings import Settings

if TYPE_CHECKING:
    from abaw_expr.outputs.comparison import Interval
    from tuning.sweep import Sweep, SweepResult

_SHOWN = 10
"""Trials in the table on the terminal."""


def sweep_command(base: Settings) -> Callable[..., int]:
    def sweep(
        store: Stores,
        space: Path,
        out: Path,
        settings: Path = DEFAULT_RECIPE,
        branches: tuple[str, ...] = (),
        trials: int = 50,
        objective: Literal["nested", "plain", "cross-entropy"] = "nested",
        sampler: Literal["tpe", "cmaes", "random", "qmc", "grid"] = "tpe",
        pruner: Literal["median", "halving", "none"] = "median",
        storage: str | None = None,
        heartbeat: int = 10,
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains with many values of some settings, and writes the best as a settings file.

        The space is a YAML file with a line for each setting, by the name of its flag:

            optimiser.learning-rate: {low: 1.0e-4, high: 1.0e-2, log: true}
            model.dropout: {low: 0.0, high: 0.6, step: 0.1}
            data.balance: [0.0, 0.5, 1.0]

        best.yaml has the settings of the best trial, for `train --settings`; table.csv every trial; best.json the
        gain over the default with its interval, and the figure to quote. The settings as they are are the first trial;
        their seed is that of the sampler too.
        Run it again to continue, also with more trials.

        Several workers share a sweep: start the same command on each, with a folder that all can write, and across
        machines with one --storage. A worker may be killed; another then goes on with its trial.

            abaw-expr sweep store --space space.yaml --out sweep --trials 30

        Args:
            store: The prepared store, or several with their fractions.
            space: The YAML file of what is varied.
            out: The folder of the sweep: runs, study, best.yaml, best.json, table.csv, plots.
            settings: The recipe that all trials share; each of its settings can be changed here, as with `train`.
            branches: Train only these branches of the settings, by name.
            trials: Trials, with the default; of a grid all of its points.
            objective: What is maximised on validation: the score where each recording has the ratio that the others
                choose (nested), the score by the weights of the settings (plain), or the likelihood (cross-entropy).
            sampler: Bayesian (tpe), CMA-ES (cmaes), random, a low-discrepancy sequence (qmc), or every point (grid).
            pruner: Which trials end early, by the score after each epoch: those below the median of the others
                (median), two of three at each rung of successive halving (halving), or none.
            storage: URL of the study's database, such as postgresql+psycopg://user:password@machine/database; without
                it an SQLite file in the folder.
            heartbeat: Seconds between heartbeats of a worker; after three missed ones its trial is marked as failed.
        """
        require_counts(1, trials=trials, heartbeat=heartbeat)
        no_entropy = overrides.task_of.kind == "values" and objective == "cross-entropy"
        expected = "nested or plain: valence and arousal have none"
        require(not no_entropy, "objective", objective, expected)
        plan = _plan(overrides, space, trials, objective, sampler, pruner)
        _report(_run(plan, store, out, sampler, storage, heartbeat), out)
        return 0

    return sweep


def _run(
    plan: "Sweep", store: Sequence[str], out: Path, sampler: str, storage: str | None, heartbeat: int
) -> "SweepResult":
    from abaw_expr.data.store.mixture import open_mixture
    from tuning.study import StudyOptions
    from tuning.sweep import run_sweep

    opened = open_mixture(store, plan.base.task_of)
    out.mkdir(parents=True, exist_ok=True)
    url = storage or f"sqlite:///{out.resolve() / 'study.db'}"
    drawn = "random" if sampler == "grid" else sampler
    options = StudyOptions(out, url, drawn, plan.base.seed, heartbeat, accelerator=plan.base.compute.accelerator)
    with console.progress("Training epochs") as on_progress:
        return run_sweep(plan, opened, options, on_progress)


def _plan(base: Settings, path: Path, trials: int, objective: str, sampler: str, pruner: str) -> "Sweep":
    """The sweep: first the settings as they are, and of a grid all of its points."""
    from tuning.sweep import Sweep
    from tuning.sweep_space import grid_of, read_space, values_of

    space = read_space(path, base)
    default = values_of(base, space)
    planned = [] if default is None else [default]
    if sampler == "grid":
        planned += [values for values in grid_of(space) if values != default]
        trials = len(planned)
    if default is None:
        console.note("The settings as they are lie outside the space, so they are no trial.")
    return Sweep(base, space, planned, trials, objective, pruner, kept=0 if default is None else 1)


def _report(result: "SweepResult", out: Path) -> None:
    """Writes what was found, and prints the best trials."""
    from tuning.sweep_report import default_of, describe_values, name_of, objective_name, state_of, write_sweep

    gain = write_sweep(result, out)
    ranked = sorted(result.finished, key=lambda trial: -(trial.objective or 0.0))
    default = default_of(result)
    shown = [*ranked[:_SHOWN], *([default] if default in ranked[_SHOWN:] else [])]
    rows = [(name_of(trial, result), trial.objective, describe_values(trial.values)) for trial in shown if trial]
    console.table(f"Sweep {out}: the best of {len(result.trials)} trials", ("", objective_name(result), ""), rows)
    states = [state_of(trial) for trial in result.trials]
    console.OUT.print(
        f"{states.count('complete')} complete, {states.count('ended early')} ended early, {states.count('failed')} "
        "failed (why: table.csv).",
        soft_wrap=True,
    )
    _print_estimate(result, gain)
    console.note(f"Train with the best: --settings {out / 'best.yaml'}")


def _print_estimate(result: "SweepResult", gain: "Interval | None") -> None:
    if result.nested is not None:
        console.OUT.print(
            "The best of many trials scores too high on the frames that chose it. With the trial chosen by the other "
            f"recordings too, the sweep scores {console.show(result.nested)}: quote that.",
            soft_wrap=True,
        )
    if gain is not None:
        value, low, high = gain
        console.OUT.print(
            f"Best minus default: {value:+.4f} ({low:+.4f} to {high:+.4f}, paired over recordings).", soft_wrap=True
        )
