"""What a tiny corpus gives through the command line, as numbers, so that a change of the code's form can prove itself.

    python -m tests.helpers.same_numbers

writes the golden file anew, which only a change of what is computed may need.
"""

import hashlib
import json
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from abaw_expr.commands.main import main
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs, write_outputs
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from abaw_expr.training.run import RunFolder
from tests.helpers.challenges import make_rows, make_table, make_truth
from tests.helpers.fitting import TIMINGS, scalars
from tests.helpers.paths import GOLDEN as GOLDEN_FOLDER
from tests.helpers.tiny import small_release

GOLDEN = GOLDEN_FOLDER / "same_numbers.json"
SEEDS = {"modern": 8, "paper": 7}
"""Of each recipe, one with which no favoured class is so uncertain that rounding changes it, and with it the loss."""
QUICK = [
    *("--precision", "32-true", "--compute.accelerator", "cpu", "--optimiser.epochs", "2"),
    *("--optimiser.batch-size", "4", "--data.stride", "1.5", "--data.val-stride", "1.5"),
    *("--optimiser.learning-rate", "1e-5", "--optimiser.branch-learning-rate", "1e-5"),
]
"""Flags of a training of 2 epochs of a few steps each, at rates at which rounding does not grow from step to step."""
EVERY = 40
"""Rows of an outputs table from one that is kept to the next."""
LENGTHS = {"1-30-1280x720": 60, "v2_left": 50, "v2_right": 40, "v3": 45}
STILL = 5
"""Frames in a row with the same annotation."""
TABLES: dict[str, tuple[Task, Sequence[str]]] = {
    "va": (VA, ("audio", "visual")),
    "au": (AU, ("audio", "visual")),
    "expr": (EXPR, ("audio", "visual", "clip")),
}
OF_THIS_CODE = ("version", "outputs")
"""What a decision says of the code and of the run that made its tables, and not of what was decided."""


def call(*words: object) -> None:
    """Runs one command line, which has to go well."""
    status = main([str(word) for word in words])
    assert status == 0, f"{words[0]} ended with {status}"


def trained(recipe: str, store: Path, template: Path, out: Path) -> dict[str, Any]:
    """The numbers of a short training by a shipped recipe, of its outputs, and of what is decided on them.

    Not of a submission: where classes are as close as after so few steps, rounding chooses between them.
    """
    run, val, test = out / "run", out / "val.parquet", out / "test.parquet"
    call("train", "--store", store, "--run", run, "--settings", recipe, "--seed", SEEDS[recipe], *QUICK)
    predict = ["predict", "--run", run, "--store", store, "--checkpoint", "last", "--accelerator", "cpu"]
    call(*predict, "--split", "val", "--out", val)
    call(*predict, "--split", "test", "--template", template, "--out", test)
    return {
        "losses": [loss for _, loss in scalars(RunFolder(run))],
        "epochs": pd.read_csv(run / "metrics.csv").drop(columns=TIMINGS).to_dict("list"),
        "val": sample(val),
        "test": sample(test),
        "decision": decided(val, out / "decision.json"),
    }


def made_up(name: str, out: Path) -> dict[str, Any]:
    """What is decided on a table of made-up outputs, and the digest of the submission that is made of them."""
    task, branches = TABLES[name]
    table, decision, template, predictions = (
        out / file for file in ("val.parquet", "decision.json", "template.txt", "predictions.txt")
    )
    write_outputs(table, weak_table(task, branches))
    rows = [f"{frame_name(video, frame)}," for video in reversed(LENGTHS) for frame in range(1, LENGTHS[video] + 1)]
    template.write_text("\n".join([task.submission_header, *rows]) + "\n")
    found = decided(table, decision)
    call("submit", "--outputs", table, "--decision", decision, "--template", template, "--out", predictions)
    call("check", predictions, "--template", template)
    return {"decision": found, "submission": hashlib.sha256(predictions.read_bytes()).hexdigest()}


def decided(table: Path, decision: Path) -> dict[str, Any]:
    """What is decided on a table."""
    call("tune", "--outputs", table, "--out", decision, "--leave-out")
    return {key: value for key, value in json.loads(decision.read_text()).items() if key not in OF_THIS_CODE}


def weak_table(task: Task, branches: Sequence[str]) -> Outputs:
    """Outputs that know a truth, which seldom changes, too little: there is something to smooth, weigh and correct."""
    rng, videos = np.random.default_rng(7), []
    priors = {branch: rng.dirichlet(np.ones(task.n_columns)) for branch in branches}
    for name, length in LENGTHS.items():
        truth = np.repeat(make_truth(task, length // STILL, rng), STILL, axis=0)
        other = make_truth(task, length, rng)
        p = {branch: (make_rows(task, truth, rng) + 2 * make_rows(task, other, rng)) / 3 for branch in branches}
        if task.one_class:
            p = {branch: leaning(rows, priors[branch]) for branch, rows in p.items()}
        p[branches[0]][rng.random(length) < 0.2] = np.nan
        frame, crop = np.arange(1, length + 1, dtype=np.int32), rng.random(length) < 0.9
        label = truth[:, 0] if task.one_class else truth
        videos.append(VideoOutputs(name, frame, frame / 10, crop, p, label))
    table = make_table(task, videos)
    if not task.one_class:
        return table
    return replace(table, branches={name: Source("run", tuple(prior.tolist())) for name, prior in priors.items()})


def leaning(rows: NDArray[np.float32], prior: NDArray[np.float64]) -> NDArray[np.float32]:
    """Probabilities [T, C] that lean to the classes that training saw often."""
    weighed = rows * prior**0.5
    return (weighed / weighed.sum(axis=1, keepdims=True)).astype(np.float32)


def sample(outputs: Path) -> list[list[object]]:
    """Some rows of an outputs table, in the order of its columns; None where a branch has no vote."""
    rows: list[list[object]] = json.loads(
        pd.read_parquet(outputs)[::EVERY].to_json(orient="values", double_precision=10)
    )
    return rows


def rounded(value: object) -> object:
    """Nested numbers with seven digits, as a float32 has them."""
    if isinstance(value, dict):
        return {key: rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [rounded(one) for one in value]
    return float(f"{value:.7g}") if isinstance(value, float) else value


def write_golden(root: Path) -> None:
    """Writes the golden file; `root` is an empty folder."""
    from abaw_expr.data.synthetic.corpus import TEMPLATES

    small_release(root / "release")
    call("prepare", "--release", root / "release", "--store", root / "store", "--workers", "1")
    template = root / "release" / TEMPLATES[EXPR.name]
    numbers = {recipe: trained(recipe, root / "store", template, root / recipe) for recipe in SEEDS}
    numbers |= {name: made_up(name, root / name) for name in TABLES}
    GOLDEN.write_text(json.dumps(rounded(numbers), indent=1) + "\n")


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        write_golden(Path(folder))
    sys.exit(0)
