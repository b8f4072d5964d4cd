"""The whole way on a made-up corpus, by the same commands that a team types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from abaw_expr.commands import console
from abaw_expr.data.release.reader import read_annotation_folder
from abaw_expr.data.synthetic.corpus import LABEL_FOLDERS, TEMPLATE, Plan, write_release
from abaw_expr.errors import UserError
from abaw_expr.files import write_json
from abaw_expr.outputs.decision import Decision, figures
from abaw_expr.outputs.table import read_outputs
from abaw_expr.tasks.task import Task

ROWS = {"audio": "audio", "visual": "visual", "equal": "fused 1:1", "fused": "fused, as decided"}
"""The figures of the last table, and of `summary.json`."""


def run(out: Path, seed: int, task: Task, command: Callable[[Sequence[str]], int]) -> int:
    """Fills `out` and returns the exit status; `command` runs one command line.

    Raises UserError where `out` is not empty.
    """
    if out.exists() and any(out.iterdir()):
        raise UserError("is not empty", path=out, remedy="Name a new folder for the demo.")
    with console.progress("Filming the corpus") as tell:
        write_release(out / "release", Plan(), seed, tell)
    for step in _steps(out, seed):
        words = [str(word) for word in step]
        console.note("\n$ abaw-expr " + " ".join(words))
        status = command(words)
        if status:
            return status
    _summarise(out, seed, task)
    return 0


def _steps(out: Path, seed: int) -> list[list[object]]:
    store, trained, decision = out / "store", out / "run", out / "decision.json"
    last = ["predict", "--run", trained, "--store", store, "--checkpoint", "last"]  # the best is chosen on validation
    val, test, predictions = out / "val.parquet", out / "test.parquet", out / "predictions.txt"
    template = out / "release" / TEMPLATE
    return [
        ["prepare", "--release", out / "release", "--store", store],
        ["train", "--store", store, "--run", trained, "--settings", "demo", "--seed", seed],
        [*last, "--split", "val", "--out", val],
        [*last, "--split", "test", "--template", template, "--out", test],
        ["tune", "--outputs", val, "--out", decision],
        ["submit", "--outputs", test, "--decision", decision, "--template", template, "--out", predictions],
        ["check", predictions, "--template", template],
    ]


def _summarise(out: Path, seed: int, task: Task) -> None:
    """What sound, picture and both give on validation, and on the test labels that nothing was chosen by."""
    decision = Decision.load(out / "decision.json", task)
    truths = read_annotation_folder(out / "release" / LABEL_FOLDERS["test"], task)
    test = [
        replace(video, label=truths[video.name][video.frame - 1])
        for video in read_outputs(out / "test.parquet", task).videos()
    ]
    on_val, on_test = _flat(decision.figures or {}), _flat(figures(decision, test))
    console.table(
        "Macro F1 (chance: 0.125)",
        ("", "validation", "test"),
        [(label, on_val[name], on_test[name]) for name, label in ROWS.items()],
    )
    console.OUT.print(f"Decision: {decision}", soft_wrap=True)
    console.OUT.print(f"Submission: {out / 'predictions.txt'}, checked: clean", soft_wrap=True)
    summary = {name: {"macro_f1": on_val[name], "test_macro_f1": on_test[name]} for name in ROWS}
    write_json(
        out / "summary.json",
        {"seed": seed, **summary, "estimate": decision.estimate, "decision": str(decision), "check": "clean"},
    )


def _flat(figures: Mapping[str, Any]) -> dict[str, float | None]:
    return {**figures["alone"], "equal": figures["equal"], "fused": figures["macro_f1"]}
