"""The whole way on a small corpus, from the release to a clean submission, by the front door only."""

import json
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import BinaryIO

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
import torch
from sklearn.metrics import f1_score

from abaw_expr.commands.main import main
from abaw_expr.data.synthetic import corpus
from abaw_expr.outputs.table import read_outputs, write_outputs
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import EXPR

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


torch.set_num_threads(1)

RECIPE = """
precision: 32-true
data: {stride: 1.0, val_stride: 1.0, sequence: 4}
loss: {branch_weight: 0.5}
optimiser: {name: adamw, learning_rate: 1.0e-3, epochs: 2, batch_size: 8}
compute: {accelerator: cpu}
"""


@dataclass(frozen=True)
class Way:
    """Every file on the way."""

    release: Path
    template: Path
    store: Path
    recipe: Path
    run: Path
    val: Path
    test: Path
    decision: Path
    predictions: Path
    folder: Path

    @property
    def hidden(self) -> Path:
        return self.release / "hidden_test_labels"


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def way(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Way:
    """Goes the whole way once."""
    root = tmp_path_factory.mktemp("pipeline")
    names = ("store", "tiny.yaml", "run", "val.parquet", "test.parquet", "decision.json", "predictions.txt", "folder")
    template = release / corpus.TEMPLATES[EXPR.name]
    way = Way(release, template, *(root / name for name in names))
    way.recipe.write_text(RECIPE)
    predict = ["predict", "--run", way.run, "--store", way.store, "--stride", 0.5, "--accelerator", "cpu"]
    submit = ["submit", "--outputs", way.test, "--decision", way.decision, "--template", template]
    for command in (
        ["prepare", "--release", release, "--store", way.store, "--workers", 1],
        ["train", "--store", way.store, "--run", way.run, "--settings", way.recipe, "--optimiser.epochs", 1],
        [*predict, "--split", "val", "--out", way.val],
        [*predict, "--split", "test", "--template", template, "--out", way.test],
        ["tune", "--outputs", way.val, "--out", way.decision],
        [*submit, "--out", way.predictions],
        [*submit, "--edition", "per-video", "--out", way.folder],
    ):
        assert call(*command) == 0, command
    return way


def scores(out: Path, *arguments: object) -> dict[str, dict[str, object]]:
    assert call("score", *arguments, "--out", out) == 0
    return json.loads(out.read_text())


def test_the_submission_is_clean(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    for submission in (way.predictions, way.folder):
        assert call("check", submission, "--template", way.template) == 0
        assert capsys.readouterr().out == f"{submission}: clean\n"


def test_the_submission_has_the_rows_of_the_template(way: Way) -> None:
    header, *rows = way.predictions.read_text().splitlines()
    first, *listed = way.template.read_text().splitlines()
    assert header == first
    assert [row.partition(",")[0] + "," for row in rows] == listed
    assert {row.partition(",")[2] for row in rows} <= set("01234567")


def test_the_folder_says_what_the_one_file_says(way: Way) -> None:
    found = []
    for path in sorted(way.folder.iterdir()):
        header, *labels = path.read_text().splitlines()
        assert header == EXPR.header
        found += [f"{frame_name(path.stem, frame)},{label}" for frame, label in enumerate(labels, start=1)]
    assert sorted(found) == sorted(way.predictions.read_text().splitlines()[1:])


def test_a_fault_in_the_folder_is_found(way: Way, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    for path in way.folder.iterdir():
        (folder / path.name).write_text(path.read_text() + "0\n")
    capsys.readouterr()
    assert call("check", folder, "--template", way.template) == 1
    assert "row count" in capsys.readouterr().out


def test_every_stage_says_what_made_it(way: Way) -> None:
    manifest = json.loads((way.run / "manifest.json").read_text())
    assert manifest["store"] == json.loads((way.store / "manifest.json").read_text())["tasks"]["expr"]["digest"]
    assert manifest["epochs"] == len(pd.read_csv(way.run / "metrics.csv")) == 1  # the command line beat the file
    decision = json.loads(way.decision.read_text())
    val, test = read_outputs(way.val), read_outputs(way.test)
    assert (val.split, test.split) == ("val", "test")
    assert val.branches == test.branches
    for name in ("audio", "visual"):
        assert val.branches[name].run == manifest["signature"] == decision["outputs"]["runs"][name]
        assert list(val.branches[name].prior) == decision["branches"][name]["prior"]


def test_validation_scores_as_scikit_learn_says(way: Way, tmp_path: Path) -> None:
    found = scores(tmp_path / "score.json", "--outputs", way.val, "--decision", way.decision)
    confusion = np.array(found["all annotated frames"]["confusion"])
    truth, predicted = np.repeat(np.indices((8, 8)).reshape(2, -1), confusion.ravel(), axis=1)
    expected = f1_score(truth, predicted, labels=range(8), average="macro", zero_division=0)
    assert found["all annotated frames"]["macro_f1"] == pytest.approx(expected)
    assert json.loads(way.decision.read_text())["scores"]["macro_f1"] == pytest.approx(expected)
    files = (way.release / corpus.label_folder(EXPR, "val")).glob("*.txt")
    annotated = [line for path in files for line in path.read_text().split()[1:]]
    assert len(truth) == sum(line != "-1" for line in annotated)


def test_the_submission_scores_as_its_decision_on_the_same_frames(way: Way, tmp_path: Path) -> None:
    """On the labels that the corpus keeps from training, through the file and through the table."""
    by_file = scores(tmp_path / "file.json", "--predictions", way.predictions, "--annotations", way.hidden)
    by_folder = scores(tmp_path / "folder.json", "--predictions", way.folder, "--annotations", way.hidden)
    outputs = read_outputs(way.test)
    truth = {path.stem: np.array(path.read_text().split()[1:], int) for path in way.hidden.iterdir()}
    rows = zip(outputs.table["video"], outputs.table["frame"], strict=True)
    labelled = outputs.table.assign(label=[truth[video][frame - 1] for video, frame in rows])
    write_outputs(tmp_path / "labelled.parquet", replace(outputs, table=labelled))
    by_table = scores(tmp_path / "t.json", "--outputs", tmp_path / "labelled.parquet", "--decision", way.decision)
    assert by_file["all annotated frames"] == by_folder["all annotated frames"] == by_table["all annotated frames"]
    assert by_file["all annotated frames"]["frames"] == sum(int((labels >= 0).sum()) for labels in truth.values())


def test_the_way_can_be_gone_again(way: Way, capsys: pytest.CaptureFixture[str]) -> None:
    """A finished stage is left as it is, or gives the same bytes."""
    kept = {path: path.read_bytes() for path in (way.decision, way.predictions, way.store / "manifest.json")}
    weights = (way.run / "checkpoints" / "last.pt").stat().st_mtime_ns
    assert call("prepare", "--release", way.release, "--store", way.store, "--workers", 1) == 0
    assert call("train", "--store", way.store, "--run", way.run, "--resume") == 0
    assert call("tune", "--outputs", way.val, "--out", way.decision) == 0
    submit = ["submit", "--outputs", way.test, "--decision", way.decision, "--template", way.template]
    assert call(*submit, "--out", way.predictions) == 0
    assert {path: path.read_bytes() for path in kept} == kept
    assert (way.run / "checkpoints" / "last.pt").stat().st_mtime_ns == weights


def test_predictions_appear_whole_or_not_at_all(
    way: Way, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    predict = ["predict", "--run", way.run, "--store", way.store, "--split", "test", "--stride", 5]
    assert call(*predict, "--out", tmp_path) == 2
    assert f"abaw-expr: error: {tmp_path}: is a folder" in capsys.readouterr().err

    def half(table: object, file: BinaryIO, **options: object) -> None:
        file.write(b"PAR1")
        raise KeyboardInterrupt

    monkeypatch.setattr(pq, "write_table", half)
    assert call(*predict, "--out", tmp_path / "outputs.parquet") == 130
    assert list(tmp_path.iterdir()) == []


def test_the_demo_goes_the_whole_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "demo.yaml").write_text(
        RECIPE.replace("epochs: 2", "epochs: 1").replace(", sequence: 4", "")
    )
    small = partial(corpus.CorpusPlan, train_videos=2, val_videos=2, test_videos=1, seconds=4)
    monkeypatch.setattr(corpus, "CorpusPlan", small)
    monkeypatch.setattr("abaw_expr.settings_file.RECIPES", tmp_path / "recipes")
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    monkeypatch.chdir(tmp_path)
    assert call("demo", "--out", "demo", "--seed", 5) == 0  # the folder has the recipe's name
    assert "checked: clean" in capsys.readouterr().out.replace("\n", " ")
    out = tmp_path / "demo"
    summary, decision = (json.loads((out / name).read_text()) for name in ("summary.json", "decision.json"))
    assert summary["check"] == "clean"
    tuned = decision["scores"]
    for name, figure in {**tuned["alone"], "equal": tuned["equal"], "fused": tuned["macro_f1"]}.items():
        assert summary[name]["macro_f1"] == figure
        assert 0 <= summary[name]["macro_f1"] <= 1
    assert json.loads((out / "run" / "manifest.json").read_text())["epochs"] == 1
    template = out / "release" / corpus.TEMPLATES[EXPR.name]
    assert call("check", out / "predictions.txt", "--template", template) == 0
    hidden = ["--annotations", out / "release" / "hidden_test_labels"]
    found = scores(tmp_path / "score.json", "--predictions", out / "predictions.txt", *hidden)
    assert summary["fused"]["test_macro_f1"] == pytest.approx(found["all annotated frames"]["macro_f1"])
    assert call("demo", "--out", "demo") == 2
    assert "demo: is not empty. Name a new folder" in capsys.readouterr().err
