"""The commands that train classification heads again: for the penalties that are searched, and once for a run.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Stores, require, require_classes, require_counts, require_seconds

if TYPE_CHECKING:
    from abaw_expr.training.run import RunFolder
    from tuning.penalties import PenaltySearch
    from tuning.study import StudyOptions

BEST_RUN = "best-run"


def penalties(
    store: Stores,
    run: Path,
    out: Path,
    trials: int = 200,
    full: int = 0,
    sampler: Literal["tpe", "cmaes", "random", "qmc"] = "tpe",
    batch: int = 16,
    seed: int = 0,
    storage: str | None = None,
    heartbeat: int = 10,
    stride: float = 0.2,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
) -> int:
    """Searches the six misclassification costs mu of the coarse-fine loss.

    Every trial trains the classification heads of a run again, on its cached features, in a second or two. best-run
    is the run with the heads of the best trial by macro F1, for `predict`. best.yaml, for `train --settings`, has
    the costs with the lowest cross-entropy, by which heads and whole trainings agree; with --full, the best of
    whole trainings.

    No costs, the default ones and a uniform one are always tried. Run it again to continue. Other settings are
    searched by `sweep`.

    Several workers share a search: start the same command on each, with one --storage and a folder that all can
    write. A worker may be killed; another then repeats its trials.

        abaw-expr penalties store --run runs/first --out penalties

    Args:
        store: The store, or stores with their fractions, that the run was trained on.
        run: The trained run whose heads are trained again, and whose settings all trials share.
        out: The folder of the search: features, study, runs, best-run, best.yaml, best.json, plots.
        trials: Trials of the heads, with the three controls; 0: none.
        full: Whole trainings beside those of the three controls; 0: none at all.
        sampler: Bayesian (tpe), CMA-ES (cmaes), random, or a low-discrepancy sequence (qmc).
        batch: Trials of the heads that are trained at once.
        seed: Seed of the sampler and of the trainings; one worker with the same seed makes the same study.
        storage: URL of the study's database, such as postgresql+psycopg://user:password@machine/database; without
            it an SQLite file in the folder.
        heartbeat: Seconds between heartbeats of a worker; after three missed ones its trials are marked as failed.
        stride: Seconds between the frames whose features are cached; 0: every frame.
        accelerator: Device of the networks; auto takes a GPU if there is one.
    """
    from abaw_expr.training.run import RunFolder
    from tuning.study import StudyOptions

    require_counts(0, trials=trials, full=full, seed=seed)
    require_counts(1, batch=batch, heartbeat=heartbeat)
    require_seconds("stride", stride)
    url = storage or f"sqlite:///{out.resolve() / 'study.db'}"
    shared = StudyOptions(out, url, sampler, seed, heartbeat, stride, accelerator)
    searches = _search(store, RunFolder(run), shared, trials, full, batch)
    _report(searches, RunFolder(run), out)
    return 0


def _search(
    store: Stores, run: "RunFolder", shared: "StudyOptions", trials: int, full: int, batch: int
) -> "list[PenaltySearch]":
    """The search with heads, and that of whole trainings, as far as they are asked for."""
    from abaw_expr.data.store.mixture import open_mixture
    from tuning.features import cached_features
    from tuning.penalties import search_heads, search_networks
    from tuning.refit import refit

    require(trials or full, "trials", trials, "trials of the heads, or --full")
    settings, found = run.load_settings(), []
    require_classes(settings, "penalties")
    opened = open_mixture(store, settings.task_of)
    shared.out.mkdir(parents=True, exist_ok=True)
    if trials:
        with console.progress("Caching features") as on_progress:
            features = cached_features(
                shared.out / "features.pt", run, opened, shared.stride, shared.accelerator, on_progress
            )
        with console.progress("Trials of the heads") as on_progress:
            found.append(search_heads(features, settings, shared, trials, batch, on_progress))
        best = replace(settings, loss=settings.loss.with_mu(found[0].best.mu))
        refit(run, features, best, shared.seed, shared.out / BEST_RUN)
    if full:
        with console.progress("Training epochs") as on_progress:
            found.append(search_networks(found[0] if found else None, opened, settings, shared, full, on_progress))
    return found


def _report(searches: "list[PenaltySearch]", run: "RunFolder", out: Path) -> None:
    """Writes, prints and draws what was found."""
    from tuning.penalties import AXES, SCORE, save_best
    from tuning.sweep_plots import draw_sweep

    chosen = save_best(out, run.load_settings(), searches)
    for search in searches:
        _print(search)
        draw_sweep(search.points, AXES, SCORE, out, f"-{search.best.fidelity}")
    if searches[0].best.fidelity == "heads":
        console.note(f"Predict with the heads of the best macro F1: --run {out / BEST_RUN}")
    console.note(f"For a new training, with the lowest cross-entropy ({chosen.name}): --settings {out / 'best.yaml'}")


def _print(search: "PenaltySearch") -> None:
    """The controls and the best of a search, of whole trainings all."""
    from tuning.penalties import MU_NAMES

    best, confident, full = search.best, search.lowest_entropy, search.best.fidelity == "full"
    shown = search.rows if full else dict.fromkeys((*search.controls, best, confident))
    rows = [
        (
            row.name,
            " ".join(f"{mu:.2f}".lstrip("0")[:3] for mu in row.mu),  # .25, 1.0: the table fits 80 columns
            "-" if row.ratio is None else ":".join(map(str, row.ratio)),
            "pruned" if row.cross_entropy is None else f"{row.cross_entropy:.4f}{'*' if row is confident else ' '}",
            "pruned" if row.macro_f1 is None else f"{row.macro_f1:.4f}{'*' if row is best else ' '}",
            row.nested,
        )
        for row in shown
    ]
    what = "whole trainings" if full else "trials of the heads"
    others = "  ".join(name.removeprefix("mu") for name in MU_NAMES[1:])
    console.table(
        f"{len(search.rows)} {what}: cross-entropy and macro F1 on validation (* best)",
        ("", f"{MU_NAMES[0]} {others}", "m:n", "entropy", "tuned", "nested"),
        rows,
    )
    console.OUT.print(
        f"Tuned scores are too high: on these frames the ratio is the best of 19 and the trial the best of "
        f"{len(search.rows)}. Nested: each recording is scored with the ratio that the others choose.\n"
        f"With the trial chosen by the others too, the search scores {console.show(search.nested)}: quote that.",
        soft_wrap=True,
    )
