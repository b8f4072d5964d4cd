"""A training run: repeatable, refusing what is not its own, and telling what it did."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError, StoreError
from abaw_expr.files import read_json
from abaw_expr.settings import ComputeSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.loop import train
from abaw_expr.training.run import Epoch, RunFolder, RunStart
from abaw_expr.training.signature import signature
from tests.helpers.fitting import AUDIO, SETTINGS, assert_same_run, fit, metrics

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


@pytest.fixture(scope="module")
def run(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Both branches, three epochs, undisturbed."""
    return fit(corpus, tmp_path_factory.mktemp("training") / "run")


@pytest.fixture(scope="module")
def audio(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(corpus, tmp_path_factory.mktemp("training") / "audio", AUDIO)


# What a run leaves


def test_metrics_have_a_row_an_epoch(run: RunFolder) -> None:
    table = metrics(run)
    assert table["epoch"].tolist() == [1, 2, 3]
    scores = table[["audio_f1", "visual_f1", "fused_f1"]]
    assert ((scores >= 0) & (scores <= 1)).all(axis=None)
    assert (table[["train_loss", "val_loss", "seconds"]] > 0).all(axis=None)
    assert table["waiting"].between(0, 1).all()
    history = [Epoch(**row) for row in load_checkpoint(run.last).history]
    pd.testing.assert_frame_equal(table, pd.DataFrame([epoch.row() for epoch in history]))
    classes = table[[f"f1_{name}" for name in EXPR.columns]]
    assert ((classes >= 0) & (classes <= 1)).all(axis=None)


def test_loss_goes_down(run: RunFolder) -> None:
    loss = metrics(run)["train_loss"]
    assert loss.iloc[-1] < loss.iloc[0]


def test_best_and_last_checkpoint(run: RunFolder, corpus: Store) -> None:
    table, last, best = metrics(run), load_checkpoint(run.last), load_checkpoint(run.best)
    assert len(last.history) == 3
    assert len(best.history) == table["epoch"][table["fused_f1"] == table["fused_f1"].max()].max()
    assert (last.step, best.step) == (0, 0)
    assert last.signature == best.signature == signature(SETTINGS, corpus.digest)
    assert last.optimiser
    assert not best.optimiser


def test_the_manifest_comes_last_and_sums_up(run: RunFolder, corpus: Store) -> None:
    manifest = read_json(run.manifest, RunError, "")
    assert manifest["epochs"] == 3
    assert manifest["signature"] == signature(SETTINGS, corpus.digest)
    assert manifest["store"] == corpus.digest
    best = metrics(run).set_index("epoch").loc[len(load_checkpoint(run.best).history)]
    assert manifest["best"]["metric"] == "f1"
    assert manifest["best"]["scores"] == {name: best[f"{name}_f1"] for name in ("audio", "visual", "fused")}
    assert manifest["best"]["columns"] == {name: best[f"f1_{name}"] for name in EXPR.columns}
    others = [path for path in run.root.rglob("*") if path.is_file() and path != run.manifest]
    names = {path.name for path in others if path.parent != run.events}
    assert names == {"settings.yaml", "metrics.csv", "last.pt", "best.pt", "curves.png"}
    assert run.manifest.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in others)


def test_a_run_that_goes_on_is_not_complete(corpus: Store, tmp_path: Path) -> None:
    seen: list[bool] = []
    run = fit(corpus, tmp_path / "run", AUDIO, on_epoch=lambda epoch: seen.append(RunFolder(tmp_path / "run").complete))
    assert seen == [False]
    assert run.complete


@pytest.mark.parametrize("branch", ["audio", "visual"])
def test_one_branch_alone(branch: str, corpus: Store, tmp_path: Path) -> None:
    run = fit(corpus, tmp_path / "run", replace(SETTINGS.only((branch,)), optimiser=AUDIO.optimiser))
    table, other = metrics(run), {"audio": "visual", "visual": "audio"}[branch]
    assert f"{other}_f1" not in table
    assert table["fused_f1"].equals(table[f"{branch}_f1"])
    assert {name.split(".")[1] for name in load_checkpoint(run.last).network} == {branch}


def test_the_settings_of_a_run_are_written_resolved(run: RunFolder) -> None:
    assert run.load_settings() == SETTINGS


# Repeatable


def test_a_seed_makes_two_runs_identical(run: RunFolder, corpus: Store, tmp_path: Path) -> None:
    torch.rand(5)  # whatever the global state, the seed decides
    assert_same_run(run, fit(corpus, tmp_path / "twin"))


def test_another_seed_makes_another_run(audio: RunFolder, corpus: Store, tmp_path: Path) -> None:
    other = load_checkpoint(fit(corpus, tmp_path / "run", replace(AUDIO, seed=1)).last)
    weight = "branches.audio.head.1.weight"
    assert not torch.equal(other.network[weight], load_checkpoint(audio.last).network[weight])


def test_worker_processes_change_nothing(audio: RunFolder, corpus: Store, tmp_path: Path) -> None:
    assert_same_run(audio, fit(corpus, tmp_path / "run", replace(AUDIO, compute=ComputeSettings("cpu", workers=1))))


def test_a_complete_run_is_left_as_it_is(run: RunFolder, corpus: Store) -> None:
    files = sorted(path for path in run.root.rglob("*") if path.is_file())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    epochs: list[Epoch] = []
    fit(corpus, run.root, resume=True, on_epoch=epochs.append)
    assert epochs == []
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


def test_a_run_says_what_it_is_about_to_do(corpus: Store, tmp_path: Path) -> None:
    told: list[RunStart] = []
    epochs: list[Epoch] = []
    train(corpus, RunFolder(tmp_path), AUDIO, False, epochs.append, on_start=told.append)
    (start,) = told
    assert (start.device, start.processes, start.precision) == ("cpu", 1, "32-true")
    assert (start.train_videos, start.val_videos) == (len(corpus.split("train")), len(corpus.split("val")))
    assert (start.epochs, start.epochs_done, start.steps_done) == (1, 0, 0)
    assert start.val_samples > 0
    assert start.steps == epochs[0].steps == -(-start.train_samples // 16)
    train(corpus, RunFolder(tmp_path), AUDIO, True, on_start=told.append)
    assert len(told) == 1  # a finished run does nothing


# Refusals


def test_a_folder_with_a_run_needs_resume(audio: RunFolder, corpus: Store) -> None:
    with pytest.raises(RunError, match=f"{audio.root}: holds a run already.*--resume"):
        fit(corpus, audio.root, AUDIO)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (replace(AUDIO, seed=1), "seed: 0 -> 1"),
        (replace(AUDIO, optimiser=replace(AUDIO.optimiser, batch_size=8)), "optimiser.batch-size: 16 -> 8"),
        (
            replace(AUDIO, branches={"audio": replace(AUDIO.branches["audio"], weight=2)}),
            "branches.audio.weight: 1 -> 2",
        ),
        (
            replace(SETTINGS.only(("visual",)), optimiser=AUDIO.optimiser),
            "branches: audio -> visual",
        ),
        (replace(AUDIO, compute=ComputeSettings("cpu", workers=1, micro_batch=8)), "compute.micro-batch: 0 -> 8"),
    ],
    ids=["seed", "batch size", "weight", "branches", "micro-batch"],
)
def test_resuming_with_other_settings_names_them(other: Settings, named: str, audio: RunFolder, corpus: Store) -> None:
    with pytest.raises(RunError, match=r"settings\.yaml: holds a run of other settings") as error:
        fit(corpus, audio.root, other, resume=True)
    assert error.value.found == named
    assert f"`train --run {audio.root} --resume` without these flags continues that run" in str(error.value)
    assert f"`--initial-weights {audio.root}`" in str(error.value)


def test_resuming_on_another_store_is_refused(audio: RunFolder, corpus: Store) -> None:
    with pytest.raises(RunError, match=r"last\.pt: is of another run or another store"):
        fit(replace(corpus, digest="another"), audio.root, AUDIO, resume=True)


def test_resuming_elsewhere_is_no_other_run(audio: RunFolder, corpus: Store) -> None:
    before = audio.last.read_bytes(), audio.metrics.read_bytes()
    fit(corpus, audio.root, replace(AUDIO, compute=ComputeSettings("auto", workers=3)), resume=True)
    assert (audio.last.read_bytes(), audio.metrics.read_bytes()) == before, "it is complete and left as it is"


def test_a_validation_loss_that_is_no_number_ends_the_run(corpus: Store, tmp_path: Path) -> None:
    # With one step an epoch the training loss is the initial one; only validation sees what the step did.
    wild = OptimiserSettings("sgd", 1e30, 1e30, epochs=1, batch_size=1000)
    with pytest.raises(RunError, match=r"the validation loss of epoch 1 is (nan|inf).*Lower the learning rate"):
        fit(corpus, tmp_path / "run", replace(AUDIO, optimiser=wild))
    assert not RunFolder(tmp_path / "run").complete
    assert not RunFolder(tmp_path / "run").last.exists()


def test_a_store_without_validation_frames_is_refused(corpus: Store, tmp_path: Path) -> None:
    message = r"holds no val video; found 'train'\..*--val-fraction above 0.*STORE=FRACTION"
    with pytest.raises(StoreError, match=message):
        fit(replace(corpus, videos=corpus.split("train")), tmp_path / "a", AUDIO)
    unlabelled = tuple(replace(video, split="val") for video in corpus.split("test"))
    with pytest.raises(StoreError, match="has no annotated val frame with audio input"):
        fit(replace(corpus, videos=corpus.split("train") + unlabelled), tmp_path / "b", AUDIO)
