"""The first seeded steps of a recipe, and what the network then predicts, so that a changed training can prove itself.

    python -m tests.helpers.first_steps

writes the golden file anew, which only a change of what is computed may need.
"""

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from abaw_expr.outputs.table import read_outputs
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import scalars
from tests.helpers.paths import GOLDEN as GOLDEN_FOLDER
from tests.helpers.same_numbers import call
from tests.helpers.tiny import small_release

GOLDEN = GOLDEN_FOLDER / "first_steps.json"
RECIPES = ("modern", "paper")
STEPS = 10
SHORT = [
    *("--precision", "64-true", "--compute.accelerator", "cpu", "--optimiser.epochs", "1"),
    *("--optimiser.batch-size", "4", "--data.stride", "0.35", "--data.val-stride", "3"),
    *("--optimiser.learning-rate", "2e-6", "--optimiser.branch-learning-rate", "2e-6"),
]
"""Flags of a training of one epoch, in float64 and at small learning rates.

Spectrograms are float32 all the same, and processors round them otherwise. At the recipes' rates that grows a
millionfold in 30 steps; at these to a part in a million, while what the steps learn moves the losses by 500.
"""
EVERY = 25
"""Rows of the outputs table from one that is kept to the next."""


def first_steps(recipe: str, store: Path, out: Path) -> dict[str, Any]:
    """The losses of the first steps of a recipe, and some rows of its validation outputs: probabilities [k, 16]."""
    run, val = out / "run", out / "val.parquet"
    call("train", "--store", store, "--run", run, "--settings", recipe, *SHORT)
    predict = ["predict", "--run", run, "--store", store, "--checkpoint", "last", "--accelerator", "cpu"]
    call(*predict, "--split", "val", "--out", val)
    outputs = read_outputs(val)
    rows = np.concatenate([outputs.branch(name) for name in outputs.branches], axis=1)[::EVERY]
    losses = [loss for _, loss in scalars(RunFolder(run))]
    assert len(losses) >= STEPS
    return {"losses": losses[:STEPS], "rows": np.where(np.isnan(rows), -1.0, rows).tolist()}


def write_golden(root: Path) -> None:
    """Writes the golden file; `root` is an empty folder."""
    small_release(root / "release")
    call("prepare", "--release", root / "release", "--store", root / "store", "--workers", "1")
    numbers = {recipe: first_steps(recipe, root / "store", root / recipe) for recipe in RECIPES}
    GOLDEN.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_golden(Path(folder))
    sys.exit(0)
