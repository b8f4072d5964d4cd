"""The demo on three seeds: is the fusion above both branches, and each branch far above chance?

    python -m tests.benchmarks.demo [FOLDER]

About 10 minutes on 2 cores. Baseline: the better branch alone; ours: the fusion as decided. Exit status 1 when short.
"""

import sys
import tempfile
import time
from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.main import main
from abaw_expr.errors import UserError
from abaw_expr.files import read_json
from abaw_expr.tasks.task import EXPR

SEEDS = (0, 1, 2)
FAR = 2 / EXPR.n_columns
"""Twice the macro F1 that guessing among equally frequent classes has."""


def run(folder: Path, seed: int) -> tuple[list[object], list[object], bool]:
    """A row of each table, and whether the seed holds."""
    out = folder / f"demo-{seed}"
    began = time.perf_counter()
    status = main(["demo", "--out", str(out), "--seed", str(seed)])
    seconds = time.perf_counter() - began
    assert status == 0, f"the demo ended with {status}"
    summary = read_json(out / "summary.json", UserError, "")
    audio, visual, fused = (summary[name]["macro_f1"] for name in ("audio", "visual", "fused"))
    test = [summary[name]["test_macro_f1"] for name in ("audio", "visual", "fused")]
    baseline = max(audio, visual)
    holds = fused > baseline and min(audio, visual) > FAR and summary["check"] == "clean"
    nested = summary["estimate"]["nested_macro_f1"]
    return [seed, audio, visual, baseline, fused, fused / baseline, nested], [seed, *test, round(seconds)], holds


def benchmark(folder: Path) -> int:
    """Runs all seeds, prints the table and the verdict, and returns the exit status."""
    tuned, unseen, verdicts = zip(*(run(folder, seed) for seed in SEEDS), strict=True)
    on_val = ("seed", "audio", "visual", "baseline", "ours", "ratio", "nested")
    on_test = ("seed", "audio", "visual", "ours", "seconds")
    console.table("Macro F1 on validation, which ours is tuned on (chance 0.125)", on_val, tuned)
    console.table("Macro F1 on test, which nothing is chosen by", on_test, unseen)
    console.OUT.print(f"verdict: {'holds' if all(verdicts) else 'SHORT'} on {sum(verdicts)} of {len(SEEDS)} seeds")
    return 0 if all(verdicts) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        sys.exit(benchmark(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(Path(temporary)))
