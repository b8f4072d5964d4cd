"""The exact grid at the size of the challenge's validation set, against the same by pandas and scikit-learn.

    python -m tests.benchmarks.grid [--task expr]

Classes, as follows; `--task va` and `--task au` are values and action units (`grid_fields.py`).

284,230 frames in 70 videos with random probabilities: 19 ratios x 8 smoothing windows x 4 corrections. The baseline
smooths by pandas' rolling means on the clock, fuses, and scores by scikit-learn; it is timed on some of the candidates,
drawn alike from all windows, and its counts must be equal. Exit status 1 when short.
"""

import argparse
import resource
import sys
import time

import numpy as np
import pandas as pd
from sklearn.metrics import confusion_matrix, f1_score

from abaw_expr.commands import console
from abaw_expr.outputs.table import Outputs, Source, branch_columns
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.statistics import resample
from abaw_expr.tasks.task import EXPR, TASKS
from tests.benchmarks import grid_fields
from tests.benchmarks.common import judge, print_facts
from tests.helpers.branches import BRANCHES
from tuning.grid import statistics_tensor
from tuning.space import NO_SMOOTHING, Candidate, Smoothing, Space

VIDEOS, FRAMES = 70, 284_230
SPACE = Space(smoothing=(NO_SMOOTHING, *(Smoothing(s) for s in (0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0))), tau=(0.0, 1.0))
SECONDS, GIGABYTES, RATIO, BOOTSTRAP = 6.0, 1.0, 20.0, 5.0
SAMPLE = 32
"""Candidates that the baseline is timed on."""
PRIOR = (0.3, 0.02, 0.02, 0.03, 0.13, 0.1, 0.04, 0.36)


def random_outputs() -> Outputs:
    """Random probabilities and labels of the validation set's size, 30 frames a second."""
    rng = np.random.default_rng(0)
    video = np.sort(np.arange(FRAMES) % VIDEOS)
    frame = pd.Series(video).groupby(video).cumcount().to_numpy()
    columns = {"video": pd.Categorical([f"video{v:02d}" for v in video]), "frame": frame + 1, "time": frame / 30}
    columns["crop"] = np.ones(FRAMES, bool)
    for name in BRANCHES:
        p = rng.dirichlet(np.ones(EXPR.n_columns), FRAMES).astype(np.float32)
        columns |= dict(zip(branch_columns(name, EXPR), p.T, strict=True))
    columns["label"] = rng.integers(0, EXPR.n_columns, FRAMES).astype(np.int8)
    return Outputs(EXPR, pd.DataFrame(columns), "val", dict.fromkeys(BRANCHES, Source("random", PRIOR)))


def by_pandas(outputs: Outputs, candidate: Candidate) -> np.ndarray:
    """The classes that a candidate gives, as one would write it down first."""
    table, fused = outputs.table, 0
    clock = pd.to_timedelta(table["time"], unit="s")
    seconds = candidate.smoothing.seconds
    for name, weight, tau in zip(BRANCHES, candidate.weights, candidate.tau, strict=True):
        p = table[branch_columns(name, EXPR)]
        if seconds:
            width = pd.Timedelta(seconds=seconds + 2e-6)
            by_video = p.astype(float).set_index(clock).groupby(table["video"].to_numpy(), observed=True)
            p = by_video.rolling(width, center=True, closed="both").mean()
        corrected = p.to_numpy() * np.array(PRIOR) ** -tau if tau else p.to_numpy()
        corrected = corrected / corrected.sum(axis=1, keepdims=True) if tau else corrected
        fused = fused + corrected.astype(np.float32) * np.float32(weight / sum(candidate.weights))
    return np.asarray(fused).argmax(axis=1)


def benchmark() -> int:
    """Runs both, prints the tables and the verdict, and returns the exit status."""
    outputs = random_outputs()
    before = _gigabytes()
    began = time.perf_counter()
    tensor = statistics_tensor(outputs, SPACE)
    ours, memory = time.perf_counter() - began, _gigabytes()
    began = time.perf_counter()
    resampled = resample(tensor, macro_f1, seed=0)
    bootstrap = time.perf_counter() - began
    candidates = SPACE.candidates()
    assert resampled.shape == (1000, len(candidates))

    truth = outputs.table["label"].to_numpy()
    chosen = np.random.default_rng(1).permutation(len(candidates))[:SAMPLE]
    equal, began = [], time.perf_counter()
    decided = [(number, by_pandas(outputs, candidates[number])) for number in chosen]
    scores = [f1_score(truth, labels, average="macro") for _, labels in decided]
    baseline = (time.perf_counter() - began) / SAMPLE * len(candidates)
    for (number, labels), score in zip(decided, scores, strict=True):
        counts = tensor[number].sum(axis=0)
        equal.append(np.array_equal(counts, confusion_matrix(truth, labels)) and np.isclose(score, macro_f1(counts)))

    print_facts()
    console.table(
        f"{len(candidates)} candidates on {FRAMES:,} frames of {VIDEOS} videos",
        ("", "baseline, s", "ours, s", "ratio"),
        [(f"grid (baseline: {SAMPLE} candidates, scaled up)", baseline, ours, baseline / ours)],
    )
    rows = [("memory at most, GB", memory), ("of that before the grid, GB", before), ("1,000 resamples, s", bootstrap)]
    console.table("And", ("", "value"), rows)
    return judge(
        (ours < SECONDS, f"{ours:.1f} s, required {SECONDS:g}"),
        (memory < GIGABYTES, f"{memory:.2f} GB, required {GIGABYTES:g}"),
        (
            baseline / ours >= RATIO,
            f"{baseline / ours:.0f} times as fast as pandas and scikit-learn, required {RATIO:g}",
        ),
        (all(equal), f"equal confusion counts on {sum(equal)} of {SAMPLE} candidates"),
        (bootstrap < BOOTSTRAP, f"1,000 resamples of all candidates in {bootstrap:.1f} s, required {BOOTSTRAP:g}"),
    )


def _gigabytes() -> float:
    """The most memory that this process has held so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The exact grid against a baseline.")
    parser.add_argument("--task", choices=[*TASKS], default=EXPR.name)
    task = TASKS[parser.parse_args().task]
    sys.exit(benchmark() if task == EXPR else grid_fields.benchmark(task, FRAMES, VIDEOS))
