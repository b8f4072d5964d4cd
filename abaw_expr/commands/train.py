"""The commands that train: they take every setting as a flag, with the values of a settings file as defaults.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, Flag, Stores
from abaw_expr.settings import Settings
from abaw_expr.tasks.task import Task


def train_command(base: Settings, arguments: Sequence[str], task: Task) -> Callable[..., int]:
    def train(
        store: Stores,
        run: Path,
        settings: Path = DEFAULT_RECIPE,
        resume: Flag = False,
        start: tuple[Path, ...] = (),
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains the networks on a store.

        Every setting below can be changed here; its default is the file's value.

        (S) marks what the paper says, (D) our default where it is silent.

        Args:
            store: The prepared store, or several: the first is trained and validated on as it is; of each other one,
                given as STORE=SHARE, that share of an epoch's samples is added. `main ravdess=0.3`: 7 samples of 10 are
                of main, 3 of ravdess.
            run: The folder of this run: settings, metrics.csv, checkpoints.
            settings: A YAML file, or the name of a shipped one: paper, modern, demo.
            resume: Go on with the run in the folder; without --settings it keeps its own.
            start: Runs, or checkpoints, whose networks this one begins with, each for the branches that it has, in
                place of weights drawn from the seed: to go on from what was learnt on other data.
        """
        from abaw_expr.data.store.mixture import open_mixture
        from abaw_expr.training.launch import is_first, join_slurm_step, start_processes, started_by_torchrun
        from abaw_expr.training.loop import train as fit
        from abaw_expr.training.run import RunFolder, best_epoch

        join_slurm_step()
        console.speak(is_first())
        if overrides.compute.devices > 1 and not started_by_torchrun():
            return start_processes(arguments, overrides.compute.devices)
        if resume and not RunFolder(run).last.exists():
            console.note(f"Nothing to resume in {run}: this is a new run.")
        if RunFolder(run).complete:
            console.note(f"The run in {run} is complete already.")
        with console.progress("Training steps") as tell:
            history = fit(
                open_mixture(store, task),
                RunFolder(run),
                overrides,
                task,
                resume,
                console.print_epoch,
                tell,
                start,
            )
        best = best_epoch(history)
        rows = [("audio", best.audio_f1), ("visual", best.visual_f1), ("fused", best.fused_f1)]
        console.table(f"Best epoch {best.epoch} of {len(history)}: macro F1 on validation", ("", "macro F1"), rows)
        return 0

    return train
