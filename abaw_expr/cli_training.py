"""The commands that train: they take every setting as a flag, with the values of a settings file as defaults.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated

import tyro

from abaw_expr import console
from abaw_expr.errors import UserError
from abaw_expr.settings import Settings, load_settings
from abaw_expr.tasks import Task

DEFAULT_RECIPE = Path("modern")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Stores = Annotated[tuple[str, ...], tyro.conf.arg(metavar="STORE [STORE=SHARE ...]")]


def base_settings(arguments: Sequence[str]) -> Settings:
    """The settings that command-line overrides start from: the named file's, or those of the run to resume."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings", type=Path)
    parser.add_argument("--run", type=Path)
    parser.add_argument("--resume", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    if known.settings is None and known.resume and known.run and (known.run / "settings.yaml").exists():
        return load_settings(known.run / "settings.yaml")
    return load_settings(known.settings or DEFAULT_RECIPE)


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
        from abaw_expr.data.mixture import open_mixture
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


def ablate_command(base: Settings, task: Task) -> Callable[..., int]:
    def ablate(
        store: Path,
        out: Path,
        settings: Path = DEFAULT_RECIPE,
        seeds: int = 5,
        jobs: int = 0,
        rows: tuple[str, ...] = (),
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains the paper's table and its controls over several seeds, and writes table.md, table.csv, figure.png.

        Run again, it does what is left to do: each training is a run of its own under OUT/runs, resumed where it
        stopped.

        Args:
            store: The prepared store.
            out: The folder of the ablation.
            settings: The recipe that all rows share; any of its settings can be changed here, as with train.
            seeds: Trainings of each row.
            jobs: Trainings at a time; 0: one on each GPU, on a CPU one.
            rows: Only these rows of the table, by name; the names are in table.csv.
        """
        from tuning import ablation
        from tuning.ablation_report import cells, write_report

        known = {row.name: row for row in ablation.ROWS}
        if unknown := sorted(set(rows) - set(known)):
            raise UserError("--rows names no row of the table", found=unknown, expected=", ".join(known))
        for flag, value, least in (("--seeds", seeds, 1), ("--jobs", jobs, 0)):
            if value < least:
                raise UserError(f"{flag} cannot be used", found=value, expected=f"a count of at least {least}")
        chosen = ablation.with_needed(rows) if rows else ablation.ROWS
        gpus = _gpus(overrides)
        with console.progress("Training epochs") as tell:
            ablation.train_rows(store, out, overrides, chosen, seeds, jobs or gpus or 1, gpus, tell)
        found = ablation.results(out, overrides, chosen, seeds, task)
        write_report(found, out)
        columns = ("row", "", "macro F1, %", "sd", "95 % interval", "nested", "paper")
        short = [cells(result, found) for result in found]
        console.table(
            f"Ablation {out}", columns, [[r.row.name, *c[1:6], c[-1]] for r, c in zip(found, short, strict=True)]
        )
        console.note(f"Whole table, and the figure: {out / 'table.md'}, {out / 'figure.png'}")
        return 0

    return ablate


def _gpus(settings: Settings) -> int:
    """How many GPUs trainings can be spread over."""
    import torch

    return 0 if settings.compute.accelerator == "cpu" else torch.cuda.device_count()
