"""Whether heads on cached features rank the six penalties as whole trainings do.

    python -m tests.benchmarks.faithful --store STORE --out OUT [--seeds 4] [--epochs 4] [--jobs 2]

Trains whole networks of the recipe `modern` with each of the penalties (the three controls of every search and corners
of [0, 1]^6) over the seeds; hours on a CPU, and what is done already is left as it is. The heads of the runs without
penalties are then trained again with each of the penalties, as a search does. All are judged on all validation frames,
by the cross-entropy of the vote that is trained through, by the area under the ROC curve (the mean over classes, each
against the rest) and by macro F1 with the ratio m:n that is best on them; those of heads are means over several draws.

Held against each other, by Spearman's rank correlation over the penalties and its 95 % bootstrap interval, are the
means over seeds; and those over one half of the seeds with those over the other, as a search on one network and a new
training would be, which also tells what the seeds leave to be ranked; and how far it is just a matter of how large the
penalties are in sum. Exit status 1 where the interval of heads and
whole trainings, by cross-entropy, holds 0.
"""

import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import tyro
from numpy.typing import NDArray
from scipy.stats import bootstrap, spearmanr
from sklearn.metrics import roc_auc_score

from abaw_expr.commands import console
from abaw_expr.data.store.store import open_store
from abaw_expr.outputs.fusion import fuse
from abaw_expr.outputs.table import Outputs, read_outputs
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.task import EXPR
from tests.benchmarks.common import judge, print_facts
from tuning.ablation import AblationRow, job_of, jobs_of
from tuning.features import cached_features
from tuning.jobs import Job, train_jobs
from tuning.penalties import CONTROLS, MU_NAMES, Mu, outputs_of_heads
from tuning.selection import search
from tuning.space import RATIOS_ONLY
from tuning.sweep import cross_entropy

FIGURES = ("cross-entropy", "ROC AUC", "macro F1")
_DESIGN = (1, 1, 0, 1, 1, 1, 0, 0, 0, 1, 0)
DRAWS = 4
INTERVAL = 0.2
"""Seconds between the frames whose features are cached."""

Figures = NDArray[np.float64]
"""[seeds, penalties, 3], the last of `FIGURES`, the cross-entropy with a minus: the higher the better."""


def penalties() -> dict[str, Mu]:
    """The controls, and 11 corners of the cube, whose contrasts are the largest there are.

    With the corner of no penalty they are a design of Plackett and Burman (Biometrika 33(4), 1946): of any two
    coefficients, 0 and 1 meet equally often.
    """
    corners = [tuple(map(float, np.roll(_DESIGN, turn)[: len(MU_NAMES)])) for turn in range(len(_DESIGN))]
    return {**CONTROLS, **{"".join(f"{x:.0f}" for x in corner): corner for corner in corners}}


def judged(outputs: Outputs, settings: Settings) -> tuple[float, float, float]:
    """The `FIGURES` of outputs."""
    best_ratio = float(search(outputs, RATIOS_ONLY).scores.max())
    entropy = cross_entropy(outputs, settings.weights)
    assert entropy is not None
    return -entropy, area_under_curve(outputs), best_ratio


def area_under_curve(outputs: Outputs) -> float:
    """Mean over classes of the area under the curve of hits against false alarms, of equal votes."""
    label, p = outputs.label(), fuse([outputs.branch(name) for name in outputs.branches], (1, 1))
    known = (label >= 0) & ~np.isnan(p[:, 0])
    of_classes = [roc_auc_score(label[known] == place, p[known, place]) for place in range(EXPR.n_columns)]
    return float(np.mean(of_classes))


def correlation(x: NDArray[np.float64], y: NDArray[np.float64]) -> tuple[float, float, float]:
    """Spearman's rank correlation of two figures [n] of the same penalties, and its 95 % interval."""

    def of(x: NDArray[np.float64], y: NDArray[np.float64]) -> float:
        return float(spearmanr(x, y).statistic)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of resamples that hold one point only, which are left out
        found = bootstrap((x, y), of, paired=True, vectorized=False, n_resamples=2000, method="percentile", rng=0)
    low, high = np.nanpercentile(found.bootstrap_distribution, (2.5, 97.5))
    return of(x, y), float(low), float(high)


def whole_figures(jobs: Sequence[Job], settings: Settings) -> list[tuple[float, float, float]]:
    """The figures of whole trainings."""
    return [judged(read_outputs(job.outputs("val"), EXPR), settings) for job in jobs]


def heads_figures(store: Path, out: Path, job: Job, mus: Sequence[Mu]) -> NDArray[np.float64]:
    """The figures of a run with heads that are trained again with each of the penalties, means over draws, [n, 3]."""
    run, cache = job.run, out / "features" / f"{job.name}.pt"
    with console.progress(f"Features of {job.name}") as tell:
        features = cached_features(cache, run, open_store(store, EXPR), INTERVAL, "auto", tell)
    settings = run.load_settings()
    draws = [
        [judged(outputs, settings) for outputs in outputs_of_heads(features, mus, settings, draw)]
        for draw in range(DRAWS)
    ]
    return np.mean(draws, axis=0)


def benchmark(store: Path, out: Path, seeds: int = 4, epochs: int = 4, jobs: int = 2) -> int:
    """Trains what is left to train, prints the figures and the verdict, and returns the exit status.

    Args:
        store: A prepared store.
        out: The folder of the runs, kept.
        seeds: Whole trainings of each, at least 2.
        epochs: Epochs of a training.
        jobs: Trainings at a time.
    """
    mus = penalties()
    rows = tuple(
        AblationRow(f"mu-{i}", name, "V + A", {"loss": dict(zip(MU_NAMES, mu, strict=True))})
        for i, (name, mu) in enumerate(mus.items())
    )
    base = load_settings(recipe("modern"))
    base = replace(base, optimiser=replace(base.optimiser, epochs=epochs))
    with console.progress("Training epochs") as tell:
        train_jobs(jobs_of(rows, base, seeds, out), [str(store)], jobs, 0, tell)
    searched = [job_of(rows[0], base, seed, out) for seed in range(seeds)]
    scores = {
        "heads": np.array([heads_figures(store, out, job, [*mus.values()]) for job in searched]),
        "whole": np.array([whole_figures([job_of(row, base, s, out) for row in rows], base) for s in range(seeds)]),
    }
    print_facts()
    report_figures([*mus], scores, epochs)
    return report_correlations(scores)


def report_figures(names: Sequence[str], scores: dict[str, Figures], epochs: int) -> None:
    """Prints the figures of every penalty, means over seeds."""
    seeds = len(scores["whole"])
    for place, title in enumerate(FIGURES):
        columns = [values[..., place] for values in scores.values()]
        spread = np.ptp(scores["whole"][..., place], axis=0)
        table = [
            (name, *(float(column[:, i].mean()) for column in columns), float(spread[i]))
            for i, name in enumerate(names)
        ]
        heading = (f"{MU_NAMES[0]}..{MU_NAMES[-1]}", *scores, "whole: range over seeds")
        console.table(f"{title} on validation, means over {seeds} seeds of {epochs} epochs", heading, table)


def report_correlations(scores: dict[str, Figures]) -> int:
    """Prints who agrees with whom, and the verdict."""
    half = len(scores["whole"]) // 2
    means = {name: values.mean(axis=0) for name, values in scores.items()}
    one = {name: values[:half].mean(axis=0) for name, values in scores.items()}
    other = {name: values[half:].mean(axis=0) for name, values in scores.items()}
    sums = np.array([[sum(mu)] * len(FIGURES) for mu in penalties().values()])
    pairs = {
        "heads and whole trainings": (means["heads"], means["whole"]),
        "heads on one half of the seeds, whole of the other": (one["heads"], other["whole"]),
        "the other way round": (other["heads"], one["whole"]),
        "whole trainings, one half and the other": (one["whole"], other["whole"]),
        "heads, one half and the other": (one["heads"], other["heads"]),
        "the sum of the six and whole trainings": (sums, means["whole"]),
    }
    low = np.nan
    for place, title in enumerate(FIGURES):
        found = {name: correlation(x[:, place], y[:, place]) for name, (x, y) in pairs.items()}
        console.table(
            f"Rank correlations by {title}", ("", "Spearman", "low", "high"), [(k, *v) for k, v in found.items()]
        )
        low = low if place else found["heads and whole trainings"][1]
    return judge(
        (low > 0, f"by cross-entropy the interval of heads and whole trainings begins at {low:.2f}, required above 0")
    )


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
