"""Ten runs killed by SIGKILL at a random step and resumed: do they end as the undisturbed run does, bit for bit?

    python -m tests.benchmarks.resume [STORE]

About 10 minutes on 2 busy cores. Without a store it makes up a small one. Both branches, a moving mean of the weights,
two worker processes, a checkpoint after every step. Exit status 1 when short.
"""

import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.settings import ModelSettings
from abaw_expr.settings_file import save_settings
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import corpus, judge, print_facts
from tests.helpers.fitting import STEPS, assert_same_run, metrics, scalars

REPETITIONS = 10
SETTINGS = replace(STEPS, model=ModelSettings())


def start(arguments: Sequence[str]) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "abaw_expr", "train", *arguments]
    return subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def finish(arguments: Sequence[str]) -> None:
    """Trains to the end."""
    process = start(arguments)
    _, problems = process.communicate()
    assert process.returncode == 0, problems.decode()


def kill_at(arguments: Sequence[str], run: RunFolder, saves: int) -> None:
    """Trains and kills it after so many checkpoints, or a few more."""
    process = start(arguments)
    seen: set[int] = set()
    while len(seen) < saves and process.poll() is None:
        if run.last.exists():
            seen.add(run.last.stat().st_mtime_ns)
        time.sleep(random.uniform(0.001, 0.02))
    process.kill()
    process.communicate()
    assert process.returncode == -signal.SIGKILL, f"it ended with {process.returncode} before it was killed"


def difference(whole: RunFolder, resumed: RunFolder) -> str:
    """What differs, or that nothing does."""
    try:
        assert_same_run(whole, resumed)
        assert scalars(whole) == scalars(resumed), "the losses in TensorBoard"
    except AssertionError as error:
        return " ".join(str(error).split())[:80] or "weights"
    return "none"


def benchmark(store: Path, folder: Path) -> int:
    """Runs all repetitions, prints a row each and the verdict, and returns the exit status."""
    recipe, whole, killed = folder / "settings.yaml", RunFolder(folder / "whole"), RunFolder(folder / "killed")
    save_settings(SETTINGS, recipe)
    common = ["--store", str(store), "--settings", str(recipe), "--compute.workers", "2"]
    finish([*common, "--run", str(whole.root)])
    steps, rows = int(metrics(whole)["steps"].sum()), []
    for number in range(1, REPETITIONS + 1):
        shutil.rmtree(killed.root, ignore_errors=True)
        arguments = [*common, "--run", str(killed.root), "--compute.save-every", "0"]
        kill_at(arguments, killed, random.randint(1, steps))
        at = load_checkpoint(killed.last)
        done = sum(epoch["steps"] for epoch in at.history) + at.step
        finish([*arguments, "--resume"])
        rows.append((number, len(at.history) + 1, done, difference(whole, killed)))
        console.note("killed in epoch {1} after {2} steps: difference {3}".format(*rows[-1]))
    columns = ("kill", "in epoch", f"steps saved, of {steps}", "difference at the end")
    console.table("Weights, moving mean, optimiser, metrics and losses against the undisturbed run", columns, rows)
    same = sum(row[-1] == "none" for row in rows)
    return judge((same == REPETITIONS, f"{same} of {REPETITIONS} resumed runs are the undisturbed run, bit for bit"))


if __name__ == "__main__":
    print_facts()
    named = Path(sys.argv[1]) if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory() as temporary, corpus(named, CorpusPlan(2, 2, 1, 6)) as opened:
        sys.exit(benchmark(opened.root, Path(temporary)))
