"""`demo`: the whole way on a synthetic corpus, by the same commands that a team types."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from abaw_expr.commands import console
from abaw_expr.errors import UserError
from abaw_expr.files import write_json
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import TASKS, Task

_ROWS = {"audio": "audio", "visual": "visual", "equal": "fused 1:1", "fused": "fused, as decided"}
"""The scores of the last table, and of `summary.json`."""
DemoTask = Literal["expr", "va", "au"]
_OF_TASK: Mapping[str, Sequence[object]] = {
    "expr": (),
    "va": ("--task", "va", "--optimiser.batch-size", 32),
    "au": ("--task", "au", "--loss.class-weight", 0.5),
}
"""What a task trains with beside the recipe `demo`: CCC needs batches in which values vary."""


def demo_command(command: Callable[[Sequence[str]], int]) -> Callable[..., int]:
    """The demo; `command` runs one command line and returns its exit status."""

    def demo(out: Path, seed: int = 0, task: DemoTask = "expr") -> int:
        """Runs the whole way on a synthetic corpus, from its release to a checked submission.

        It makes the corpus's videos, runs the commands of the way, and ends with the organisers' score of audio, visual
        and both.

            abaw-expr demo demo
            abaw-expr demo demo-va --task va

        Args:
            out: A new folder for release, store, run, outputs, decision, predictions.txt, summary.json.
            seed: Seed of the corpus and of training.
            task: expr, expressions; va, valence and arousal; au, action units.
        """
        from abaw_expr.data.synthetic.corpus import CorpusPlan, write_release

        if out.exists() and any(out.iterdir()):
            raise UserError("is not empty", path=out, remedy="Name a new folder for the demo.")
        with console.progress("Making the corpus") as on_progress:
            write_release(out / "release", CorpusPlan(), seed, on_progress)
        for step in _steps(out, seed, TASKS[task]):
            words = [str(word) for word in step]
            console.ERR.print("\n$ abaw-expr", *words, soft_wrap=True)  # to be copied
            status = command(words)
            if status:
                return status
        _summarise(out, seed, TASKS[task])
        return 0

    return demo


def _steps(out: Path, seed: int, task: Task) -> list[list[object]]:
    from abaw_expr.data.synthetic.corpus import TEMPLATES

    store, trained, decision = out / "store", out / "run", out / "decision.json"
    last = ["predict", "--run", trained, "--store", store, "--checkpoint", "last"]  # the best is chosen on validation
    val, test, predictions = out / "val.parquet", out / "test.parquet", out / "predictions.txt"
    template = out / "release" / TEMPLATES[task.name]
    return [
        ["prepare", "--release", out / "release", "--store", store],
        ["train", "--store", store, "--run", trained, "--settings", "demo", "--seed", seed, *_OF_TASK[task.name]],
        [*last, "--split", "val", "--out", val],
        [*last, "--split", "test", "--template", template, "--out", test],
        ["tune", "--outputs", val, "--out", decision],
        ["submit", "--outputs", test, "--decision", decision, "--template", template, "--out", predictions],
        ["check", predictions, "--template", template],
    ]


def _summarise(out: Path, seed: int, task: Task) -> None:
    """What sound, picture and both give on validation, and on the test labels that nothing was chosen by."""
    from abaw_expr.data.release.reader import read_annotation_folder
    from abaw_expr.data.synthetic.corpus import label_folder
    from abaw_expr.outputs.decision import Decision, scores
    from abaw_expr.outputs.table import read_outputs

    decision = Decision.load(out / "decision.json", task)
    truths = read_annotation_folder(out / "release" / label_folder(task, "test"), task)
    test = [
        replace(video, label=truths[video.name][video.frame - 1])
        for video in read_outputs(out / "test.parquet", task).videos()
    ]
    on_val, on_test = (_flat(found, task) for found in (decision.scores or {}, scores(decision, test)))
    metric = metric_of(task)
    chance = f" (chance: {1 / task.n_columns:g})" if task.one_class else ""
    console.table(
        f"{metric.title}{chance}",
        ("", "validation", "test"),
        [(label, on_val[name], on_test[name]) for name, label in _ROWS.items()],
    )
    console.OUT.print(f"Decision: {decision}", soft_wrap=True)
    console.OUT.print(f"Submission: {out / 'predictions.txt'}, checked: clean", soft_wrap=True)
    summary = {name: {metric.key: on_val[name], f"test_{metric.key}": on_test[name]} for name in _ROWS}
    write_json(
        out / "summary.json",
        {
            "task": task.name,
            "seed": seed,
            **summary,
            "estimate": decision.estimate,
            "decision": str(decision),
            "check": "clean",
        },
    )


def _flat(scores: Mapping[str, Any], task: Task) -> dict[str, float | None]:
    return {**scores["alone"], "equal": scores["equal"], "fused": scores[metric_of(task).key]}
