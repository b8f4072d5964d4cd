"""Do two revisions train the main system to the same bits?

    python -m tests.benchmarks.same_steps BEFORE AFTER

Checks out both, prepares the small synthetic release with each, trains `modern` and `paper` for some 20 steps, and
compares the loss of every step, metrics.csv, the weights and the validation outputs, to the bit. About 2 minutes on 2
idle cores; `same_numbers` compares all commands in an hour. Exit status 1 on any difference.
"""

import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pandas as pd
import torch

from abaw_expr.commands import console
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import judge
from tests.benchmarks.same_numbers import call, checked_out, git
from tests.helpers.fitting import TIMINGS, scalars
from tests.helpers.tiny import small_release

RECIPES = ("modern", "paper")
SHORT = "--precision 32-true --optimiser.epochs 2 --optimiser.batch-size 8 --data.stride 0.2 --data.val-stride 1"


def make(commit: str, out: Path) -> None:
    """Trains and predicts with the tree of a commit."""
    with checked_out(commit) as tree:
        call(tree, out, ["prepare", "--release", "../release", "--store", "store", "--workers", "1"])
        for recipe in RECIPES:
            call(tree, out, f"train --store store --run {recipe} --settings {recipe} {SHORT}".split())
            predict = f"predict --run {recipe} --store store --split val --checkpoint last --out {recipe}.parquet"
            call(tree, out, predict.split())


def compared(old: Path, new: Path, recipe: str) -> dict[str, bool]:
    """What of a recipe's training is the same, by name."""
    runs = [RunFolder(folder / recipe) for folder in (old, new)]
    losses = [scalars(run) for run in runs]
    weights = [torch.load(run.last, weights_only=True)["network"].values() for run in runs]
    tables = [pd.read_csv(run.metrics).drop(columns=TIMINGS) for run in runs]
    outputs = [pd.read_parquet(folder / f"{recipe}.parquet") for folder in (old, new)]
    return {
        f"{len(losses[0])} losses": losses[0] == losses[1],
        "metrics": tables[0].equals(tables[1]),
        f"{len(weights[0])} weights": all(torch.equal(*pair) for pair in zip(*weights, strict=True)),
        f"{len(outputs[0])} rows of outputs": outputs[0].equals(outputs[1]),
    }


def benchmark(before: str, after: str, folder: Path) -> int:
    """Runs both and returns the exit status."""
    commits = [git("rev-parse", "--verify", f"{revision}^{{commit}}") for revision in (before, after)]
    small_release(folder / "release")
    folders = [folder / "before", folder / "after"]
    for each in folders:
        each.mkdir()
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, commits, folders))
    found = {recipe: compared(folders[0], folders[1], recipe) for recipe in RECIPES}
    rows = [
        (recipe, name, "same" if same else "differ") for recipe, parts in found.items() for name, same in parts.items()
    ]
    console.table(f"{before} and {after}", ("recipe", "", ""), rows)
    return judge(*((all(parts.values()), f"{recipe}: the same to the bit") for recipe, parts in found.items()))


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(sys.argv[1], sys.argv[2], Path(temporary)))
