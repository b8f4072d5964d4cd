"""Whether heads on cached features rank the six penalties as other networks do.

    python -m tests.benchmarks.faithful --store STORE --out OUT [--seeds 2] [--epochs 4] [--jobs 2]

Trains whole networks of the recipe `modern` with each of the penalties (the three controls of every search and corners
of [0, 1]^6) over the seeds; hours on a CPU, and what is done already is left as it is. The heads of the runs without
penalties are then trained again with each of the penalties, as a search does, and the heads of every other run with its
own penalties and with none. Figures are macro F1 on all validation frames with the ratio m:n that is best on them;
those of heads are means over several draws. Held against each other, by Spearman's rank correlation and its 95 %
bootstrap interval over the penalties:

- heads and whole trainings, and how well two seeds of whole trainings agree, which bounds what any fidelity can reach;
- heads and what the same penalties bring as heads of the other networks, over no penalties there: whether what a search
  finds on one network holds for networks that it has not seen.

Exit status 1 where the interval of the last holds 0.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from scipy.stats import bootstrap, spearmanr

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

_DESIGN = (1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0)
DRAWS = 4
INTERVAL = 0.2
"""Seconds between the frames whose features are cached."""


def penalties() -> dict[str, Mu]:
    """The controls, and 11 corners of the cube, whose contrasts are the largest there are.

    With the corner of no penalty they are a design of Plackett and Burman (Biometrika 33(4), 1946): of any two
    coefficients, 0 and 1 meet equally often.
    """
    corners = [tuple(map(float, np.roll(_DESIGN, turn)[: len(NAMES)])) for turn in range(len(_DESIGN))]
    return {**CONTROLS, **{"".join(f"{x:.0f}" for x in corner): corner for corner in corners}}


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


def heads_figures(store: Store, out: Path, job: Job, mus: Sequence[Mu]) -> np.ndarray:
    """Macro F1 of a run with heads that are trained again with each of the penalties, means over draws, [n]."""
    run = RunFolder(job.run)
    cache = out / "features" / f"{job.run.name}.pt"
    with console.progress(f"Features of {job.run.name}") as tell:
        features = cached_features(cache, run, store, EXPR, INTERVAL, "auto", tell)
    settings = run.load_settings()
    figures = [
        [tuned(outputs) for outputs in outputs_of_heads(features, mus, settings, EXPR, draw)] for draw in range(DRAWS)
    ]
    return np.mean(figures, axis=0)


def benchmark(store: Path, out: Path, seeds: int = 2, epochs: int = 5, jobs: int = 2) -> int:
    """Trains what is left to train, prints the figures and the verdict, and returns the exit status.

    Args:
        store: A prepared store.
        out: The folder of the runs, kept.
        seeds: Whole trainings of each.
        epochs: Epochs of a training.
        jobs: Trainings at a time.
    """
    mus = penalties()
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
    heads = np.array([heads_figures(opened, out, row[0], [*mus.values()]) for row in ran])
    none = CONTROLS["no penalty"]
    own = [
        [heads_figures(opened, out, job, (none, mu)) for job, mu in zip(row, mus.values(), strict=True)] for row in ran
    ]
    refitted = np.array(own)  # [seeds, n, 2]
    print_facts()
    report_figures(mus, heads, whole, refitted, epochs)
    return report_correlations(heads, whole, refitted[..., 1] - refitted[..., 0])


def report_figures(mus: dict[str, Mu], heads: np.ndarray, whole: np.ndarray, refitted: np.ndarray, epochs: int) -> None:
    """Prints the figures of every penalty, means over seeds."""
    table = [
        (name, heads[:, i].mean(), whole[:, i].mean(), float(np.ptp(whole[:, i])), *refitted[:, i].mean(axis=0))
        for i, name in enumerate(mus)
    ]
    title = f"Macro F1 on validation, ratio tuned, means over {len(whole)} seeds of {epochs} epochs"
    columns = (f"{NAMES[0]}..{NAMES[-1]}", "heads", "whole", "range over seeds", "whole, heads anew: no", "own penalty")
    console.table(title, columns, table)


def report_correlations(heads: np.ndarray, whole: np.ndarray, gains: np.ndarray) -> int:
    """Prints who agrees with whom, and the verdict; all are [seeds, n]."""
    # The networks of the first penalty are those whose heads are searched: theirs is no other network's figure.
    others = heads.mean(axis=0)[1:], gains.mean(axis=0)[1:]
    pairs = {
        "heads, and the same on other networks": others,
        "heads and whole, means over seeds": (heads.mean(axis=0), whole.mean(axis=0)),
    }
    pairs |= {f"heads and whole, seed {seed}": (heads[seed], whole[seed]) for seed in range(len(whole))}
    if len(whole) > 1:
        pairs |= {"whole, seeds 0 and 1": (whole[0], whole[1]), "heads, seeds 0 and 1": (heads[0], heads[1])}
        pairs |= {"gains on other networks, seeds 0 and 1": (gains[0, 1:], gains[1, 1:])}
    found = {name: correlation(*pair) for name, pair in pairs.items()}
    console.table("Rank correlations", ("", "Spearman", "low", "high"), [(k, *v) for k, v in found.items()])
    low = next(iter(found.values()))[1]
    return judge((low > 0, f"the interval of heads and other networks begins at {low:.2f}, required above 0"))


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
