"""Whether heads on cached features rank the six penalties as whole trainings do.

    python -m tests.benchmarks.faithful --store STORE --out OUT [--points 12] [--seeds 2] [--epochs 5] [--jobs 2]

Trains whole networks of the recipe `modern` with each of the penalties (the three controls of every search, and points
that fill [0, 1]^6 evenly) over the seeds; hours on a CPU, and what is done already is left as it is. The heads of the
runs without penalties are then trained again with the same penalties. Held against each other are the macro F1 of both
on all validation frames, with the ratio m:n that is best on them, by Spearman's rank correlation and its 95 % bootstrap
interval over the penalties. How well two seeds of whole trainings agree bounds what any fidelity can reach. Exit status
1 where the interval holds 0: heads are then not shown to rank penalties.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from scipy.stats import bootstrap, spearmanr
from scipy.stats.qmc import Sobol

from abaw_expr import console
from abaw_expr.data.store import Store, open_store
from abaw_expr.outputs import Outputs, read_outputs
from abaw_expr.settings import load_settings, recipe
from abaw_expr.tasks import EXPR
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import judge, print_facts
from tuning.ablation import Job, Row, train_rows
from tuning.features import cached_features
from tuning.penalties import CONTROLS, NAMES, Mu, outputs_of_heads
from tuning.selection import search
from tuning.space import RATIOS_ONLY

INTERVAL = 0.2
"""Seconds between the frames whose features are cached."""


def penalties(count: int) -> dict[str, Mu]:
    """The controls, and points that fill the cube."""
    drawn = Sobol(len(NAMES), rng=0).random_base2(6)[: count - len(CONTROLS)]
    return {**CONTROLS, **{f"point {i}": tuple(point) for i, point in enumerate(drawn.round(3).tolist())}}


def tuned(outputs: Outputs) -> float:
    """Macro F1 with the best ratio."""
    return float(search(outputs, RATIOS_ONLY).figures.max())


def correlation(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Spearman's rank correlation of two figures [n] of the same penalties, and its 95 % interval."""

    def of(x: np.ndarray, y: np.ndarray) -> float:
        return float(spearmanr(x, y).statistic)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that hold one point only, which are left out
        found = bootstrap((x, y), of, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0)
    low, high = np.nanpercentile(found.bootstrap_distribution, (2.5, 97.5))
    return of(x, y), float(low), float(high)


def whole_figures(jobs: Sequence[Job]) -> np.ndarray:
    """Macro F1 of whole trainings, [n]."""
    return np.array([tuned(read_outputs(job.outputs, EXPR)) for job in jobs])


def heads_figures(store: Store, out: Path, seed: int, run: RunFolder, mus: Sequence[Mu]) -> np.ndarray:
    """Macro F1 of the heads of a run, trained with each of the penalties, [n]."""
    with console.progress("Caching features") as tell:
        features = cached_features(out / f"features-{seed}.pt", run, store, EXPR, INTERVAL, "auto", tell)
    return np.array([tuned(outputs) for outputs in outputs_of_heads(features, mus, run.load_settings(), EXPR, seed)])


def benchmark(store: Path, out: Path, points: int = 12, seeds: int = 2, epochs: int = 5, jobs: int = 2) -> int:
    """Trains what is left to train, prints the figures and the verdict, and returns the exit status.

    Args:
        store: A prepared store.
        out: The folder of the runs, kept.
        points: Penalties, the controls among them.
        seeds: Whole trainings of each.
        epochs: Epochs of a training.
        jobs: Trainings at a time.
    """
    mus = penalties(points)
    rows = tuple(
        Row(f"mu-{i}", name, "V + A", {"loss": dict(zip(NAMES, mu, strict=True))})
        for i, (name, mu) in enumerate(mus.items())
    )
    base = load_settings(recipe("modern"))
    base = replace(base, optimiser=replace(base.optimiser, epochs=epochs))
    with console.progress("Training epochs") as tell:
        train_rows(store, out, base, rows, seeds, jobs, 0, tell)
    opened, ran = open_store(store, EXPR), [[Job(row, seed, out) for row in rows] for seed in range(seeds)]
    whole = np.array([whole_figures(row) for row in ran])
    heads = np.array(
        [heads_figures(opened, out, seed, RunFolder(row[0].run), [*mus.values()]) for seed, row in enumerate(ran)]
    )
    print_facts()
    table = [
        (name, *(f"{value:.2f}" for value in mu), heads[:, i].mean(), whole[:, i].mean(), float(np.ptp(whole[:, i])))
        for i, (name, mu) in enumerate(mus.items())
    ]
    title = f"Macro F1 on validation, ratio tuned, means over {seeds} seeds of {epochs} epochs"
    console.table(title, ("", *NAMES, "heads", "whole", "range over seeds"), table)
    pairs = {"heads and whole, means over seeds": (heads.mean(axis=0), whole.mean(axis=0))}
    pairs |= {f"heads and whole, seed {seed}": (heads[seed], whole[seed]) for seed in range(seeds)}
    if seeds > 1:
        pairs |= {"whole, seeds 0 and 1": (whole[0], whole[1]), "heads, seeds 0 and 1": (heads[0], heads[1])}
    found = {name: correlation(*pair) for name, pair in pairs.items()}
    console.table(
        f"Rank correlation over {points} penalties",
        ("", "Spearman", "low", "high"),
        [(k, *v) for k, v in found.items()],
    )
    low = next(iter(found.values()))[1]
    return judge((low > 0, f"the interval of heads and whole begins at {low:.2f}, required above 0"))


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
