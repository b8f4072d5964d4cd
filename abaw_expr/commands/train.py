"""`train`: a store to a run. Every setting is a flag, with the values of a settings file as defaults.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, Flag, Stores, at_ratio
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import RunError
from abaw_expr.settings import Settings

if TYPE_CHECKING:
    from abaw_expr.training.run import RunFolder


def train_command(base: Settings, arguments: Sequence[str]) -> Callable[..., int]:
    def train(
        store: Stores,
        run: Path,
        settings: Path = DEFAULT_RECIPE,
        branches: tuple[str, ...] = (),
        decision: Path | None = None,
        resume: Flag = False,
        initial_weights: tuple[Path, ...] = (),
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains the networks on a store and validates them after every epoch.

        --settings names a YAML file or a recipe; each of its settings can be changed by its flag below. (S) marks a
        value that the paper states, (D) our default where it states none.

            abaw-expr train store --run runs/first
            abaw-expr train store ravdess=0.3 --run runs/more --optimiser.epochs 20
            abaw-expr train store --run runs/first --resume
            abaw-expr train store --run runs/va --task va
            abaw-expr train store --run runs/tuned --initial-weights runs/first

        Several GPUs of a machine: --devices 4. Several machines: start the same command on each by torchrun, or in a
        SLURM job by `srun abaw-expr train ...` with one task a GPU; abaw_expr/training/README.md has both lines.

        Args:
            store: The prepared store, or several: the first is trained and validated on; each other one, given as
                STORE=FRACTION, adds that fraction of an epoch's samples, from its training split. `main ravdess=0.3`: 7
                samples of 10 come from main, 3 from ravdess.
            run: The folder of this run: settings.yaml, metrics.csv, curves.png, checkpoints.
            settings: A YAML file, or the name of a recipe: paper, modern, demo, mecs, va, au (and by default the
                recipe of a --task that is not expr).
            branches: Train only these branches of the settings, by name: audio, visual.
            decision: Train through the ratio m:n that this decision of `tune` chose, instead of that of the settings.
            resume: Continue the run in the folder, with its own settings unless --settings is given.
            initial_weights: Fine-tune: runs or checkpoints whose weights this run starts from, each for the branches
                that it has, instead of weights drawn from the seed.
        """
        from abaw_expr.training.launch import is_first, join_slurm_step, start_processes, started_by_torchrun
        from abaw_expr.training.run import RunFolder

        join_slurm_step()
        console.speak(is_first())
        wanted = overrides if decision is None else at_ratio(overrides, decision)
        folder = RunFolder(run)
        if folder.complete and folder.last.exists() and not (resume and initial_weights):
            return _finished(folder, wanted, resume)
        if wanted.compute.devices > 1 and not started_by_torchrun():
            return start_processes(arguments, wanted.compute.devices)
        return _train(store, folder, wanted, resume, initial_weights)

    return train


def _train(
    stores: Sequence[str],
    run: "RunFolder",
    settings: Settings,
    resume: bool,
    initial_weights: Sequence[Path],
) -> int:
    from abaw_expr.data.store.mixture import open_mixture
    from abaw_expr.training.loop import train as fit
    from abaw_expr.training.run import best_epoch

    if resume and not run.last.exists():
        console.note(f"Nothing to resume in {run.root}: this is a new run.")
    opened, print_epoch = open_mixture(stores, settings.task_of), console.epoch_printer()
    with console.progress("Training steps") as on_progress:
        history = fit(opened, run, settings, resume, print_epoch, on_progress, initial_weights, console.print_start)
    console.print_best(best_epoch(history), settings.task_of, len(history))
    return OK


def _finished(run: "RunFolder", settings: Settings, resume: bool) -> int:
    """Says of a finished run that it is, before anything heavy is imported.

    Raises RunError where a new run was asked for, or one of other settings.
    """
    from abaw_expr.training.run import Epoch

    summary, root = run.read_summary(), run.root
    remedy = (
        f"Predict with it: `abaw-expr predict {root} STORE --split val --out val.parquet`. Train on from its weights: "
        f"`abaw-expr train STORE --run NEW --initial-weights {root}`."
    )
    if not resume:
        raise RunError("holds a finished run", path=root, expected="a new folder for the run", remedy=remedy)
    trained = run.load_settings()
    automatic = settings.precision == "auto"  # which the run has settled
    run.check_settings(replace(settings, precision=trained.precision) if automatic else settings)
    console.note(f"The run in {root} is finished. {remedy}")
    if "best" in summary:
        console.print_best(Epoch(**summary["best"]), trained.task_of, summary["epochs"])
    return OK
