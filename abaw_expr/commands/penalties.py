"""The commands that train classification heads again: for the penalties that are searched, and once for a run.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Stores, require, require_counts, require_seconds
from abaw_expr.tasks.task import Task

if TYPE_CHECKING:
    from abaw_expr.training.run import RunFolder
    from tuning.penalties import Search, Shared

BEST_RUN = "best-run"


def penalties_command(task: Task) -> Callable[..., int]:
    def penalties(
        store: Stores,
        run: Path,
        out: Path,
        trials: int = 200,
        full: int = 0,
        sampler: Literal["tpe", "random", "qmc"] = "tpe",
        batch: int = 16,
        seed: int = 0,
        storage: str | None = None,
        heartbeat: int = 10,
        interval: float = 0.2,
        accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    ) -> int:
        """Searches the six penalties mu of the coarse-fine loss, and writes best-run, to predict with, and best.yaml.

        Every trial trains the classification heads of a run again, on its cached features, which takes a second or
        two; best-run is the run with the heads of the best trial, by macro F1. best.yaml, settings for `train`, has the
        penalties with the lowest cross-entropy, by which a new training agrees; with --full, that of whole trainings.

        No penalties, the default ones and a uniform one are always tried. Run again, it does what is left to do.

        Several workers share a search: the same command on each, with one --storage and a folder that all can write. A
        worker may be killed; another then repeats what it had in hand.

        Args:
            store: The store, or stores with their shares, that the run was trained on.
            run: The trained run whose heads are trained again, and whose settings all trials share.
            out: The folder of the search: features, study, runs, best-run, best.yaml, best.json, pictures.
            trials: Trials of the heads in all, the three controls among them; 0: none.
            full: Whole trainings beside those of the three controls; 0: none at all.
            sampler: Where points come from: Bayesian (TPE), random, or a low-discrepancy sequence.
            batch: Trials of the heads that are asked for, and trained, at once.
            seed: Seed of points and draws; one worker with the same seed makes the same study.
            storage: URL of the study's database, such as postgresql+psycopg://user:password@machine/database; without
                it an SQLite file in the folder.
            heartbeat: Seconds between a worker's signs of life; after three without one it is taken for dead.
            interval: Seconds between the frames whose features are cached; 0: every frame.
            accelerator: Device of the networks; auto takes a GPU where there is one.
        """
        from abaw_expr.training.run import RunFolder
        from tuning.penalties import Shared

        require_counts(0, trials=trials, full=full, seed=seed)
        require_counts(1, batch=batch, heartbeat=heartbeat)
        require_seconds("interval", interval)
        url = storage or f"sqlite:///{out.resolve() / 'study.db'}"
        shared = Shared(out, url, sampler, seed, heartbeat, interval, accelerator)
        searches = _search(store, RunFolder(run), task, shared, trials, full, batch)
        _report(searches, RunFolder(run), out)
        return 0

    return penalties


def _search(
    store: Stores, run: "RunFolder", task: Task, shared: "Shared", trials: int, full: int, batch: int
) -> "list[Search]":
    """The search with heads, and that of whole trainings, as far as they are asked for."""
    from abaw_expr.data.store.mixture import open_mixture
    from tuning.features import cached_features
    from tuning.penalties import confirm, search_heads
    from tuning.refit import refit

    require(trials or full, "trials", trials, "trials of the heads, or --full")
    opened, settings, found = open_mixture(store, task), run.load_settings(), []
    shared.out.mkdir(parents=True, exist_ok=True)
    if trials:
        with console.progress("Caching features") as tell:
            features = cached_features(
                shared.out / "features.pt", run, opened, task, shared.interval, shared.accelerator, tell
            )
        with console.progress("Trials of the heads") as tell:
            found.append(search_heads(features, settings, task, shared, trials, batch, tell))
        best = replace(settings, loss=settings.loss.with_mu(found[0].best.mu))
        refit(run, features, best, task, shared.seed, shared.out / BEST_RUN)
    if full:
        with console.progress("Training steps") as tell:
            found.append(confirm(found[0] if found else None, opened, settings, task, shared, full, tell))
    return found


def _report(searches: "list[Search]", run: "RunFolder", out: Path) -> None:
    """Writes, prints and draws what was found."""
    from tuning.penalties import save_best
    from tuning.penalty_plots import draw_penalties

    chosen = save_best(out, run.load_settings(), searches)
    for search in searches:
        _print(search)
        draw_penalties(search, out)
    if searches[0].best.fidelity == "heads":
        console.note(f"Predict with the heads of the best macro F1: --run {out / BEST_RUN}")
    console.note(f"Train anew with the lowest cross-entropy ({chosen.name}): --settings {out / 'best.yaml'}")


def _print(search: "Search") -> None:
    """The controls and the best of a search, of whole trainings all."""
    from tuning.penalties import NAMES

    best, surest, full = search.best, search.surest, search.best.fidelity == "full"
    shown = search.rows if full else dict.fromkeys((*search.controls, best, surest))
    rows = [
        (
            row.name,
            " ".join(f"{mu:.2f}".lstrip("0")[:3] for mu in row.mu),  # .25, 1.0: the table fits 80 columns
            "-" if row.ratio is None else ":".join(map(str, row.ratio)),
            "pruned" if row.cross_entropy is None else f"{row.cross_entropy:.4f}{'*' if row is surest else ' '}",
            "pruned" if row.macro_f1 is None else f"{row.macro_f1:.4f}{'*' if row is best else ' '}",
            row.nested,
        )
        for row in shown
    ]
    what = "whole trainings" if full else "trials of the heads"
    others = "  ".join(name.removeprefix("mu") for name in NAMES[1:])
    console.table(
        f"{len(search.rows)} {what}: cross-entropy and macro F1 on validation (* best)",
        ("", f"{NAMES[0]} {others}", "m:n", "entropy", "tuned", "nested"),
        rows,
    )
    console.OUT.print(
        f"Tuned figures flatter: the ratio is the best of 19 on these very frames, and the best trial the best of "
        f"{len(search.rows)}. Nested, the other recordings choose the ratio by which a recording is decided.\n"
        f"Where they choose the trial too, the search as a whole is worth {console.show(search.nested)}: quote that.",
        soft_wrap=True,
    )
