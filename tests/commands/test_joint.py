"""A joint branch through the front door: the recipe mecs, its weights, and its vote beside another model's."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw_expr.commands.main import main
from abaw_expr.data.batches.sampling import sample_epoch, usable_frames
from abaw_expr.data.store.store import open_store
from abaw_expr.data.synthetic.corpus import TEMPLATES
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import read_outputs
from abaw_expr.settings_file import load_settings
from abaw_expr.tasks.task import EXPR

pytestmark = pytest.mark.slow  # a training

STRIDE = 1.0
CPU = ("--compute.accelerator", "cpu")


def call(*words: object) -> int:
    return main([str(word) for word in words])


def samples_of_an_epoch(store: Path) -> int:
    settings = load_settings(Path("mecs"))
    frames = usable_frames(open_store(store, EXPR), "train", EXPR, ("audio", "visual"))
    return len(sample_epoch(frames, replace(settings, data=replace(settings.data, stride=STRIDE)), 0))


@pytest.fixture(scope="module")
def made(store: Path, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of the recipe whose epochs end in a batch of one sample, and its outputs with details."""
    root = tmp_path_factory.mktemp("joint")
    words = ["--settings", "mecs", "--optimiser.epochs", 1, "--data.stride", STRIDE, "--data.val-stride", 2]
    batch = samples_of_an_epoch(store) - 1
    assert call("train", store, "--run", root / "run", *words, "--optimiser.batch-size", batch, *CPU) == 0
    for split, more in (("val", []), ("test", ["--template", release / TEMPLATES["expr"]])):
        out = root / f"{split}.parquet"
        predicted = ["predict", root / "run", store, "--split", split, "--checkpoint", "last", "--out", out, *more]
        assert call(*predicted, "--details", root / f"{split}-details.parquet") == 0
    return root


def test_epochs_may_end_in_a_batch_of_one(made: Path, store: Path) -> None:
    (epoch,) = pd.read_csv(made / "run/metrics.csv").itertuples()
    assert epoch.steps == 2, "the second has the last sample alone"
    assert np.isfinite(epoch.train_loss)


@pytest.mark.parametrize("split", ["val", "test"])
def test_details_have_the_weights_of_every_frame(split: str, made: Path, store: Path) -> None:
    details, outputs = pd.read_parquet(made / f"{split}-details.parquet"), read_outputs(made / f"{split}.parquet")
    table = outputs.table
    assert (details["video"].to_numpy() == table["video"].astype(str).to_numpy()).all()
    assert (details["frame"].to_numpy() == table["frame"].to_numpy()).all()
    weights = details[["joint_audio", "joint_visual"]].to_numpy()
    voted = ~np.isnan(outputs.branch("joint")[:, 0])
    np.testing.assert_allclose(weights.sum(axis=1), voted, atol=1e-6)
    assert not weights[~table["crop"].to_numpy(), 1].any()
    both = (weights > 0).all(axis=1)
    said, moved = details["activity_audio"], details["activity_visual"]
    np.testing.assert_allclose(weights[both, 0], (said / (said + moved))[both], rtol=1e-5)
    assert both.any() == (split == "val"), "the test video has no audio"


def test_a_run_without_joined_streams_has_no_details(
    made: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    quick = ["--branches", "audio", "--optimiser.epochs", 1, "--data.stride", 3, "--data.val-stride", 3]
    assert call("train", store, "--run", tmp_path / "run", *quick, *CPU) == 0
    words = ["predict", tmp_path / "run", store, "--split", "val", "--out", tmp_path / "val.parquet"]
    assert call(*words, "--details", tmp_path / "details.parquet") == 2
    assert "the run weighs no streams" in capsys.readouterr().err
    assert call(*words, "--details", tmp_path / "val.parquet") == 2
    assert not (tmp_path / "val.parquet").exists()


def test_tune_fuses_the_joint_vote_with_an_imported_model(made: Path, release: Path, tmp_path: Path) -> None:
    """The other model is right on every frame, so that the decision must take it in."""
    rng = np.random.default_rng(0)
    for split in ("val", "test"):
        table = read_outputs(made / f"{split}.parquet").table
        labels = np.where(table["label"] < 0, 0, table["label"])
        p = 0.05 * rng.random((len(table), EXPR.n_columns)) + 0.6 * np.eye(EXPR.n_columns)[labels]
        rows = pd.DataFrame(p / p.sum(axis=1, keepdims=True), columns=list(EXPR.columns))
        rows.assign(video=table["video"], frame=table["frame"]).to_csv(tmp_path / f"{split}.csv", index=False)
        command = ["import", tmp_path / f"{split}.csv", "--like", made / f"{split}.parquet", "--name", "clip"]
        assert call(*command, "--out", tmp_path / f"{split}.parquet") == 0
    both = [[made / f"{split}.parquet", tmp_path / f"{split}.parquet"] for split in ("val", "test")]
    decision = tmp_path / "decision.json"
    assert call("tune", *both[0], "--out", decision) == 0
    assert set(Decision.load(decision).branches) == {"joint", "clip"}
    assert call("score", "--outputs", *both[0], "--decision", decision) == 0
    submission, template = tmp_path / "predictions.txt", release / TEMPLATES["expr"]
    submit = ["submit", "--outputs", *both[1], "--decision", decision, "--template", template]
    assert call(*submit, "--out", submission) == 0
    assert call("check", submission, "--template", template) == 0
