"""The grid of values and action units at the size of the challenge's validation set, against one decision at a time.

    python -m tests.benchmarks.grid --task va
    python -m tests.benchmarks.grid --task au

284,230 frames in 70 videos; a tenth of each branch's rows and one annotation of 50 are missing: the default space of
`tune`, 19 ratios x 11 smoothing windows. The baseline is `Decision.statistics` of some candidates, scaled up; its
statistics must be equal, of units at a drawn threshold. Then the whole command, `abaw-expr tune` on a written table.
"""

import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from abaw_expr.commands import console
from abaw_expr.outputs.table import Outputs, Source, branch_columns, label_columns, write_outputs
from abaw_expr.tasks.metric_units import CUTS, at_cuts
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, VA, Task
from tests.benchmarks.common import judge, print_facts
from tests.helpers.branches import BRANCHES
from tuning.grid import statistics_tensor
from tuning.selection import default_space

SECONDS = {VA: 8.0, AU: 15.0}
GIGABYTES = 1.0
SAMPLE = 16
"""Candidates that the baseline is timed on."""


def random_outputs(task: Task, frames: int, videos: int) -> Outputs:
    """Branches that see a slowly varying truth through noise, 30 frames a second."""
    rng, shape = np.random.default_rng(0), (frames, task.n_columns)
    video = np.sort(np.arange(frames) % videos)
    frame = pd.Series(video).groupby(video).cumcount().to_numpy()
    columns = {"video": pd.Categorical([f"video{v:02d}" for v in video]), "frame": frame + 1, "time": frame / 30}
    columns["crop"] = np.ones(frames, bool)
    truth = np.sin(np.cumsum(0.02 * rng.normal(size=shape), axis=0))
    for noise, name in enumerate(BRANCHES, start=1):
        rows = np.tanh(truth + noise * rng.normal(size=shape))
        rows = (rows if task == VA else (1 + rows) / 2).astype(np.float32)
        rows[rng.random(frames) < 0.1] = np.nan
        columns |= dict(zip(branch_columns(name, task), rows.T, strict=True))
    labels = truth.astype(np.float32) if task == VA else (truth > 0.2).astype(np.int8)
    labels[rng.random(shape) < 0.02] = task.ignore_value
    columns |= dict(zip(label_columns(task), labels.T, strict=True))
    source = Source("random", (0.1,) * task.n_columns)
    return Outputs(task, pd.DataFrame(columns), "val", dict.fromkeys(BRANCHES, source))


def benchmark(task: Task, frames: int, videos: int) -> int:
    """Runs both, prints the table and the verdict, and returns the exit status."""
    outputs, metric, required = random_outputs(task, frames, videos), metric_of(task), SECONDS[task]
    space = default_space(outputs).restricted_to(outputs)
    candidates, parts = space.candidates(), outputs.videos()
    began, worked = time.perf_counter(), time.process_time()
    tensor = statistics_tensor(outputs, space)
    ours, processor = time.perf_counter() - began, time.process_time() - worked
    memory = _gigabytes(resource.RUSAGE_SELF)

    rng, equal, scores = np.random.default_rng(1), [], []
    sample = rng.permutation(len(candidates))[:SAMPLE]
    began, worked = time.perf_counter(), time.process_time()
    for number in sample:
        made, found = candidates[number].decision(outputs), tensor[number]
        if task == AU:
            cuts = rng.integers(0, len(CUTS), len(task.fields))
            made = replace(made, thresholds=tuple(CUTS[cut] for cut in cuts))
            found = at_cuts(found, np.tile(cuts, (len(parts), 1)))
        expected = made.statistics(parts)
        equal.append(np.array_equal(found, expected))
        scores.append([float(metric.score(statistics.sum(axis=0))) for statistics in (found, expected)])
    scale = len(candidates) / SAMPLE
    baseline, decided = (time.perf_counter() - began) * scale, (time.process_time() - worked) * scale
    whole, peak = _command(outputs)

    print_facts()
    title = f"{task.name}: {len(candidates)} candidates on {frames:,} frames of {videos} videos"
    rows = [("wall", baseline, ours, baseline / ours), ("processor", decided, processor, decided / processor)]
    console.table(title, ("seconds", f"baseline ({SAMPLE} candidates, scaled up)", "ours", "ratio"), rows)
    best, expected_best = np.argmax(scores, axis=0).tolist()
    return judge(
        (ours < required, f"{ours:.1f} s, required {required:g}"),
        (all(equal), f"equal statistics of {sum(equal)} of {SAMPLE} candidates"),
        (best == expected_best, "the same candidate is the best of these"),
        (memory < GIGABYTES, f"{memory:.2f} GB, required {GIGABYTES:g}"),
        (whole < required, f"`abaw-expr tune` as a whole {whole:.1f} s, required {required:g}"),
        (peak < GIGABYTES, f"`abaw-expr tune` as a whole {peak:.2f} GB, required {GIGABYTES:g}"),
    )


def _command(outputs: Outputs) -> tuple[float, float]:
    """Seconds and gigabytes of `abaw-expr tune` on these outputs, written to a file before."""
    with tempfile.TemporaryDirectory() as folder:
        table, decision = Path(folder) / "val.parquet", Path(folder) / "decision.json"
        write_outputs(table, outputs)
        run = "import sys; from abaw_expr.commands.main import main; sys.exit(main())"
        began = time.perf_counter()
        command = [sys.executable, "-c", run, "tune", str(table), "--out", str(decision)]
        subprocess.run(command, check=True, capture_output=True)
        return time.perf_counter() - began, _gigabytes(resource.RUSAGE_CHILDREN)


def _gigabytes(whose: int) -> float:
    """The most memory that this process, or the largest of its children, has held so far."""
    return resource.getrusage(whose).ru_maxrss * 1024 / 1e9
