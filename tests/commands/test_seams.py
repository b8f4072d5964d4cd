"""What `train` says of tasks, encoders, temporal models and stores that do not go together."""

import json
import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import MANIFEST
from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.outputs.table import read_outputs
from abaw_expr.settings_file import load_settings
from abaw_expr.tasks.task import VA
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import scalars

QUICK = ("--optimiser.epochs", "1", "--data.stride", "2", "--data.val-stride", "2", "--compute.accelerator", "cpu")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.replace("'", "").split())


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            ("--branches.audio.encoder", "mcn"),
            f"the encoder is unknown; found mcn; expected {' or '.join(ENCODERS)} or timm:NAME or ",
        ),
        (("--branches.audio.temporal", "lstn", "--data.sequence", "4"), "the temporal model is unknown; found lstn"),
        (("--branches.audio.temporal", "lstm"), "data.sequence cannot be used; found 1; expected 2 frames or more"),
        (("--task", "vae"), "the task is unknown; found vae; expected expr or va or au"),
        (("--branches", "sound"), "the branch is unknown; found sound; expected audio or visual"),
        (("--task", "au", "--data.balance", "0.5"), "frames cannot be drawn by units; found data.balance 0.5"),
        (("--task", "va", "--loss.class-weight", "1"), "values have no weights; found loss.class-weight 1"),
        (("--data.sequence", "4", "--data.hop", "5"), "data.hop cannot be used; found 5"),
        (("--branches.audio.weights", "none.pt"), "none.pt: cannot be read (No such file or directory)"),
    ],
)
def test_what_does_not_exist_is_named_before_anything_is_written(
    flags: Sequence[str], message: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    assert main(["train", str(store), "--run", str(run), *flags, *QUICK]) == 2
    assert message in said(capsys)
    assert not (run / "checkpoints" / "last.pt").exists()


def test_a_store_without_the_task_is_told(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(store, tmp_path / "store")
    manifest = tmp_path / "store" / MANIFEST
    values = json.loads(manifest.read_bytes())
    manifest.write_text(json.dumps(values | {"tasks": {"expr": values["tasks"]["expr"]}}))
    assert main(["train", str(tmp_path / "store"), "--run", str(tmp_path / "run"), "--task", "va"]) == 2
    assert "has no annotations of VA; found annotations of EXPR" in said(capsys)


@pytest.mark.slow
def test_a_stretch_may_be_longer_than_every_video(store: Path, tmp_path: Path) -> None:
    flags = ["--branches", "audio", "--branches.audio.temporal", "lstm", "--data.sequence", "64", "--data.hop", "32"]
    words = ["train", str(store), "--run", str(tmp_path / "run"), "--optimiser.batch-size", "64", *flags, *QUICK]
    assert main(words) == 0
    assert all(loss > 0 for _, loss in scalars(RunFolder(tmp_path / "run")))
    out = str(tmp_path / "val.parquet")
    assert main(["predict", str(tmp_path / "run"), str(store), "--split", "val", "--out", out]) == 0


@pytest.mark.slow
def test_training_on_at_the_ratio_of_a_decision_and_in_another_task(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, val, decision = tmp_path / "run", tmp_path / "val.parquet", tmp_path / "decision.json"
    assert main(["train", str(store), "--run", str(run), *QUICK]) == 0
    assert main(["predict", str(run), str(store), "--split", "val", "--checkpoint", "last", "--out", str(val)]) == 0
    assert main(["tune", str(val), "--out", str(decision)]) == 0
    value = json.loads(decision.read_bytes())
    value["branches"]["audio"]["weight"], value["branches"]["visual"]["weight"] = 2, 3
    decision.write_text(json.dumps(value))
    more = ["train", str(store), "--run", str(tmp_path / "more"), "--initial-weights", str(run), *QUICK]
    assert main([*more, "--decision", str(decision)]) == 0
    settings = load_settings(tmp_path / "more" / "settings.yaml")
    assert settings.weights == {"audio": 2, "visual": 3}
    assert yaml.safe_load((tmp_path / "more" / "settings.yaml").read_text())["branches"]["audio"]["weight"] == 2
    capsys.readouterr()
    other = ["train", str(store), "--run", str(tmp_path / "va"), "--task", "va", "--initial-weights", str(run), *QUICK]
    assert main(other) == 0, "the linear layers have other columns and start from the seed"


@pytest.mark.slow
def test_recordings_that_another_task_trained_on_are_named(
    release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A video trains in EXPR and validates in VA: weights that were trained for EXPR have seen it."""
    root, store = tmp_path / "release", tmp_path / "store"
    shutil.copytree(release, root)
    folder = root / "6th_ABAW_Annotations" / VA.annotation_folders[0]
    moved = sorted((folder / "Train_Set").glob("*.txt"))[0]
    moved.rename(folder / "Validation_Set" / moved.name)
    assert main(["prepare", str(root), str(store), "--workers", "1"]) == 0
    first, second, val = tmp_path / "expr", tmp_path / "va", tmp_path / "val.parquet"
    assert main(["train", str(store), "--run", str(first), "--branches", "audio", *QUICK]) == 0
    capsys.readouterr()
    words = ["--task", "va", "--branches", "audio", "--initial-weights", str(first)]
    assert main(["train", str(store), "--run", str(second), *words, *QUICK]) == 0
    told = said(capsys)
    assert "the initial weights were trained on 1 recordings that this task validates or tests on" in told
    assert moved.stem in told
    predict = ["predict", str(second), str(store), "--split", "val", "--checkpoint", "last", "--out", str(val)]
    assert main(predict) == 0
    assert read_outputs(val, VA).branches["audio"].seen == (moved.stem,)
