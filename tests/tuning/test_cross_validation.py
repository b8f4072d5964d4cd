"""Folds from the command line: out-of-fold and averaged outputs, kills, the last training, and the submission."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from zipfile import ZipFile

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import open_store
from abaw_expr.data.synthetic.corpus import TEMPLATES
from abaw_expr.errors import RunError
from abaw_expr.files import write_json
from abaw_expr.outputs.decision import untuned
from abaw_expr.outputs.table import Outputs, read_outputs, spread_column
from abaw_expr.settings import DataSettings, OptimiserSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.run import RunFolder
from submissions.ledger import attempts
from tests.helpers.fitting import AUDIO
from tests.helpers.paths import ROOT
from tuning.retrain import plan_retraining

FOLDS = 2


def call(*words: object) -> int:
    return main([str(word) for word in words])


def words_of(store: Path, release: Path, out: Path) -> list[object]:
    base = out.with_suffix(".yaml")
    save_settings(replace(AUDIO, data=replace(AUDIO.data, stride=2.0)), base)
    return [
        "folds",
        store,
        "--out",
        out,
        "--settings",
        base,
        "--folds",
        FOLDS,
        "--template",
        release / TEMPLATES["expr"],
    ]


@pytest.fixture(scope="module")
def made(store: Path, release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a cross-validation that nothing disturbed."""
    out = tmp_path_factory.mktemp("folds") / "out"
    assert call(*words_of(store, release, out)) == 0
    return out


@pytest.mark.slow
def test_every_training_recording_is_predicted_by_the_run_that_did_not_train_on_it(made: Path, store: Path) -> None:
    oof, videos = read_outputs(made / "oof.parquet"), open_store(store, EXPR).split("train")
    assert oof.split == "held-out"
    assert sorted(video.name for video in oof.videos()) == sorted(video.name for video in videos)
    own = [outputs_of(made, fold, "held-out") for fold in range(FOLDS)]
    sides = [{recording_of(video.name) for video in part.videos()} for part in own]
    assert not sides[0] & sides[1]
    known = {video.name: video for part in own for video in part.videos()}
    for video in oof.videos():
        np.testing.assert_array_equal(video.p["audio"], known[video.name].p["audio"])
    assert {source.seen for part in own for source in part.branches.values()} == {()}


@pytest.mark.slow
def test_validation_and_test_have_the_mean_of_all_runs(made: Path) -> None:
    for split in ("val", "test"):
        found = read_outputs(made / f"{split}.parquet")
        own = [outputs_of(made, fold, split) for fold in range(FOLDS)]
        rows = np.stack([part.branch("audio") for part in own])
        np.testing.assert_allclose(found.branch("audio"), rows.mean(axis=0), atol=1e-6)
        np.testing.assert_allclose(found.table[spread_column("audio")], rows.std(axis=0).mean(axis=1), atol=1e-6)
        assert found.branches["audio"].members == tuple(part.branches["audio"].run for part in own)


@pytest.mark.slow
def test_the_table_has_the_scores(made: Path) -> None:
    table = pd.read_csv(made / "table.csv")
    assert [*zip(table["run"], table["split"], strict=True)] == [
        *((f"fold{fold}-seed0", split) for split in ("held-out", "val") for fold in range(FOLDS)),
        ("average", "held-out"),
        ("average", "val"),
    ]
    for split, name in (("held-out", "oof"), ("val", "val")):
        outputs = read_outputs(made / f"{name}.parquet")
        row = table[(table["run"] == "average") & (table["split"] == split)].iloc[0]
        assert row["macro_f1"] == pytest.approx(score(outputs))


def outputs_of(folder: Path, fold: int, split: str) -> Outputs:
    (path,) = (folder / "runs" / f"fold{fold}-seed0" / "outputs").glob(f"{split}*.parquet")
    return read_outputs(path)


def score(outputs: Outputs) -> float:
    """Macro F1 of the labels without tuning, by scikit-learn."""
    decision = untuned(outputs, {"audio": 1})
    predicted, truth = np.concatenate([decision.labels(video) for video in outputs.videos()]), outputs.label()
    known = truth >= 0
    return float(f1_score(truth[known], predicted[known], average="macro", labels=range(8), zero_division=0))


@pytest.mark.slow
def test_a_killed_one_goes_on_to_the_same_bytes(made: Path, store: Path, release: Path, tmp_path: Path) -> None:
    words = words_of(store, release, tmp_path / "out")
    child = subprocess.Popen([sys.executable, "-m", "abaw_expr", *map(str, words)], cwd=ROOT, stderr=subprocess.DEVNULL)
    while not [*(tmp_path / "out" / "runs").glob("*/settings.yaml")]:
        time.sleep(0.02)
        assert child.poll() is None
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(2)  # what it had started ends by itself
    assert call(*words) == 0
    for name in ("oof.parquet", "val.parquet", "test.parquet", "table.csv"):
        assert (tmp_path / "out" / name).read_bytes() == (made / name).read_bytes(), name


@pytest.mark.slow
def test_the_submission_of_the_average_names_all_members(made: Path, release: Path, tmp_path: Path) -> None:
    template, out, book = release / TEMPLATES["expr"], tmp_path / "p.txt", tmp_path / "ledger.db"
    assert call("tune", made / "oof.parquet", "--out", tmp_path / "d.json") == 0
    decided = json.loads((tmp_path / "d.json").read_text())
    members = [*read_outputs(made / "test.parquet").branches["audio"].members]
    assert decided["outputs"]["members"] == {"audio": members}
    assert "caveats" not in decided["estimate"]
    how = ["--template", template, "--decision", tmp_path / "d.json"]
    runs = [made / "runs" / f"fold{fold}-seed0" for fold in range(FOLDS)]
    bundle = ["--bundle", tmp_path / "b.zip", "--runs", *runs]
    assert call("submit", made / "test.parquet", *how, "--out", out, *bundle) == 0
    with ZipFile(tmp_path / "b.zip") as archive:
        manifest = json.loads(archive.read("manifest.json"))
    assert manifest["members_of_averages"] == {"expr": {"audio": members}}
    assert manifest["runs"] == dict(zip(("1", "2"), members, strict=True))
    assert call("ledger", "add", out, *how, "--ledger", book) == 0
    (attempt,) = attempts(book)
    assert next(iter(attempt.decisions.values()))["outputs"]["members"] == {"audio": members}


@pytest.mark.slow
def test_the_last_training_is_on_everything(
    made: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call("retrain", store, "--folds", made, "--run", tmp_path / "final") == 0
    settings = RunFolder(tmp_path / "final").load_settings()
    assert (settings.data.train_on, settings.data.folds, settings.optimiser.epochs) == ("both", 0, 1)
    where = ["--split", "val", "--checkpoint", "last", "--out", tmp_path / "val.parquet"]
    assert call("predict", tmp_path / "final", store, *where) == 0
    seen = read_outputs(tmp_path / "val.parquet").branches["audio"].seen
    assert seen == tuple(sorted({recording_of(video.name) for video in open_store(store, EXPR).split("val")}))
    capsys.readouterr()
    assert call("predict", tmp_path / "final", store, "--split", "held-out", "--out", tmp_path / "h.parquet") == 2
    assert "is no run of a fold, so it held none out" in capsys.readouterr().err


def written(folder: Path, settings: Settings, curves: list[list[float]]) -> None:
    """Runs of folds that somebody else trained."""
    for fold, curve in enumerate(curves):
        root = folder / "runs" / f"fold{fold}-seed0"
        save_settings(replace(settings, data=replace(settings.data, fold=fold)), root / "settings.yaml")
        pd.DataFrame({"epoch": range(1, 1 + len(curve)), "fused_f1": curve}).to_csv(root / "metrics.csv", index=False)
        write_json(root / "manifest.json", {"seconds": 1.0})


def test_the_epochs_are_those_after_which_the_mean_of_the_folds_is_best(tmp_path: Path) -> None:
    settings = Settings(data=DataSettings(folds=2), optimiser=OptimiserSettings(epochs=4))
    written(tmp_path / "constant", settings, [[0.1, 0.9, 0.2, 0.1], [0.1, 0.2, 0.8, 0.1]])
    plan = plan_retraining(tmp_path / "constant")
    assert plan.curve == pytest.approx((0.1, 0.55, 0.5, 0.1))
    assert (plan.runs, plan.settings.optimiser.epochs, plan.settings.data.train_on) == (2, 2, "both")
    one_cycle = replace(settings, optimiser=replace(settings.optimiser, schedule="one-cycle"))
    written(tmp_path / "cycle", one_cycle, [[0.1, 0.9, 0.2, 0.1], [0.1, 0.2, 0.8, 0.1]])
    held_out = plan_retraining(tmp_path / "cycle", calibration=10).settings
    assert (held_out.optimiser.epochs, held_out.data.folds, held_out.data.fold) == (4, 10, 0)


def test_a_folder_without_folds_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds no finished run of folds"):
        plan_retraining(tmp_path)
