"""A new encoder, and a new task, are one entry of a registry: everything else takes them as they come."""

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from abaw_expr.commands.main import main
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.outputs.table import read_outputs
from abaw_expr.tasks.task import TASKS, Field, Task
from tests.helpers.tiny import small_release

QUICK = ["--optimiser.epochs", "1", "--data.stride", "1", "--data.val-stride", "1", "--compute.accelerator", "cpu"]


class Toy(Encoder):
    """The mean colour of 8 x 8 patches, and a linear map that keeps the weights it was built with."""

    modality, width, input_shape = "visual", 6, (3, 112, 112)

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.mix = nn.AvgPool2d(14), nn.Conv2d(3, self.width, 1)
        with torch.no_grad():
            self.mix.weight.fill_(0.25)

    def forward(self, x: Tensor) -> Tensor:
        return self.mix(self.pool(x))


TOY_TASK = Task(
    name="smile",
    kind="classes",
    columns=("Still", "Smiling"),
    fields=(Field("smile", low=0, high=1, ignore_value=-1),),
    annotation_folders=("Smile_Challenge",),
    test_list="smile_*_test_set_release.txt",
    quadrants=(0, 0),
)


def call(words: Sequence[object]) -> None:
    assert main([str(word) for word in words]) == 0, words[0]


def the_whole_way(store: Path, out: Path, flags: Sequence[object], recipe: Path) -> None:
    """Trains, predicts, trains the heads again and describes."""
    call(["train", store, "--run", out / "run", "--settings", recipe, *flags, *QUICK])
    call(["predict", out / "run", store, "--split", "val", "--checkpoint", "last", "--out", out / "val.parquet"])
    call(["refit", store, "--run", out / "run", "--out", out / "refit", "--stride", "1"])
    call(["describe", recipe])


@pytest.mark.slow
def test_an_encoder_is_one_entry(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ENCODERS, "toy", lambda settings: Toy())
    recipe = tmp_path / "toy.yaml"
    recipe.write_text("branches: {colour: {encoder: toy}}\n")
    the_whole_way(store, tmp_path, [], recipe)
    outputs = read_outputs(tmp_path / "val.parquet")
    assert list(outputs.branches) == ["colour"]
    assert outputs.branches_with_rows() == ["colour"]


@pytest.mark.slow
def test_a_task_is_one_entry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    release, store = tmp_path / "release", tmp_path / "store"
    small_release(release)  # the corpus is annotated for the organisers' tasks
    monkeypatch.setitem(TASKS, TOY_TASK.name, TOY_TASK)
    for path in (release / "6th_ABAW_Annotations/EXPR_Recognition_Challenge").rglob("*.txt"):
        _, *lines = path.read_text().split()
        smiles = [line if line == "-1" else str(int(line == "4")) for line in lines]  # Happiness
        target = release / "6th_ABAW_Annotations/Smile_Challenge" / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text("\n".join([TOY_TASK.header, *smiles]) + "\n")
    call(["prepare", release, store, "--workers", "1"])
    recipe = tmp_path / "smile.yaml"
    recipe.write_text("task: smile\nbranches: {visual: {encoder: rhcnn}}\nmodel: {attention: false}\n")
    the_whole_way(store, tmp_path, [], recipe)
    outputs = read_outputs(tmp_path / "val.parquet", None)
    assert outputs.task == TOY_TASK
    call(["tune", tmp_path / "val.parquet", "--out", tmp_path / "decision.json"])
    assert json.loads((tmp_path / "decision.json").read_text())["task"] == "smile"
    call(["score", tmp_path / "val.parquet", "--decision", tmp_path / "decision.json"])
    shown = ["--decision", tmp_path / "decision.json", "--store", tmp_path / "store", "--out", tmp_path / "page.html"]
    call(["report", tmp_path / "val.parquet", *shown])
    assert "SMILE: where it fails" in (tmp_path / "page.html").read_text()
