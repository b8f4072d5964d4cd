"""The demo on three seeds: is the fusion above both branches, and each branch far above chance?

    python -m tests.benchmarks.demo [--task expr|va|au] [--seeds 0 1 2] [--out FOLDER]

About 10 minutes a task on 2 idle cores. Baseline: the better branch alone; ours: the fusion as decided. For valence and
arousal, and for action units, both are nested estimates, so that the branch alone is tuned too, and torchmetrics
recomputes the score of the branches' fusion from the written table. Exit status 1 when short. A demo that is in FOLDER
already is not made again.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

from abaw_expr.commands import console
from abaw_expr.commands.main import main
from abaw_expr.errors import UserError
from abaw_expr.files import read_json
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, read_outputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import TASKS, Task

FAR = {"expr": 2 / 8, "va": 0.5, "au": 0.6}
"""What is asked of a task: of EXPR twice the macro F1 of guessing, of each branch; of the others of the fusion."""


def run(folder: Path, seed: int, task: Task) -> tuple[list[object], list[object], bool]:
    """A row of each table, and whether the seed holds."""
    out = folder / f"demo-{task.name}-{seed}"
    began = time.perf_counter()
    if not (out / "summary.json").exists():
        status = main(["demo", "--out", str(out), "--seed", str(seed), "--task", task.name])
        assert status == 0, f"the demo ended with {status}"
    seconds = round(time.perf_counter() - began)
    summary, key = read_json(out / "summary.json", UserError, ""), metric_of(task).key
    audio, visual, fused = (summary[name][key] for name in ("audio", "visual", "fused"))
    test = [summary[name][f"test_{key}"] for name in ("audio", "visual", "fused")]
    nested, without = summary["estimate"][f"nested_{key}"], summary["estimate"].get("without", {})
    if task.one_class:
        baseline, ours = max(audio, visual), fused
        holds = min(audio, visual) > FAR[task.name]
    else:
        baseline, ours = max(without.values()), nested
        holds = nested > FAR[task.name] and agrees(out, task, fused)
    holds &= ours > baseline and summary["check"] == "clean"
    return [seed, audio, visual, fused, baseline, ours, ours / baseline, nested], [seed, *test, seconds], holds


def agrees(out: Path, task: Task, score: float) -> bool:
    """Whether torchmetrics gives the same score of the decided fusion on the written table, to 1e-4."""
    outputs, decision = read_outputs(out / "val.parquet", task), Decision.load(out / "decision.json", task)
    rows = np.concatenate([decision.probabilities(video) for video in outputs.videos()])
    referee = concordance(outputs, rows) if task.kind == "values" else unit_f1(outputs, rows, decision.thresholds)
    return abs(referee - score) < 1e-4


def concordance(outputs: Outputs, rows: Any) -> float:
    """The mean CCC of rows [T, 2], by torchmetrics."""
    from torchmetrics.functional import concordance_corrcoef

    found, truth = torch.tensor(rows, dtype=torch.float64), torch.tensor(outputs.label(), dtype=torch.float64)
    pairs = [(found[truth[:, field] > -5, field], truth[truth[:, field] > -5, field]) for field in range(2)]
    # torchmetrics divides by n - 1 in the variances
    return float(np.mean([float(concordance_corrcoef(*pair)) for pair in pairs]))


def unit_f1(outputs: Outputs, rows: Any, thresholds: Any) -> float:
    """The mean F1 of units from rows [T, 12], by torchmetrics."""
    from torchmetrics.functional.classification import binary_f1_score

    truth, cuts = torch.tensor(outputs.label()), torch.tensor(thresholds, dtype=torch.float64)
    active = (torch.tensor(rows, dtype=torch.float64) >= cuts).int()
    scores = [binary_f1_score(active[:, unit], truth[:, unit].int(), ignore_index=-1) for unit in range(truth.shape[1])]
    return float(torch.stack(scores).mean())


def benchmark(folder: Path, task: Task, seeds: list[int]) -> int:
    """Runs all seeds, prints the tables and the verdict, and returns the exit status."""
    tuned, unseen, verdicts = zip(*(run(folder, seed, task) for seed in seeds), strict=True)
    name = metric_of(task).title
    on_val = ("seed", "audio", "visual", "decided", "baseline", "ours", "ratio", "nested")
    on_test = ("seed", "audio", "visual", "decided", "seconds")
    console.table(f"{name} on validation, which the decision is tuned on", on_val, tuned)
    console.table(f"{name} on test, which nothing is chosen by", on_test, unseen)
    console.OUT.print(f"verdict: {'holds' if all(verdicts) else 'SHORT'} on {sum(verdicts)} of {len(seeds)} seeds")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="The demo on several seeds.")
    parser.add_argument("--task", choices=[*TASKS], default="expr")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(given.out or Path(temporary), TASKS[given.task], given.seeds))
