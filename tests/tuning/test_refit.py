"""Heads that are trained again: a run with them says what they said on its features, and is else what it was."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw_expr.commands.main import main
from abaw_expr.outputs.table import Outputs
from abaw_expr.settings import BranchSettings, LossSettings, Settings
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.predict import Wanted, predict
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import SETTINGS, STEPS, fit, opened
from tuning import heads as module
from tuning.features import cached_features
from tuning.heads import repeat_heads, train_heads, validation_outputs
from tuning.refit import refit
from tuning.selection import search
from tuning.space import RATIOS_ONLY

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


MU = (0.9, 0.1, 0.0, 0.7, 0.3, 1.0)
ONCE = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, epochs=1, ema_decay=0.5))


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """A run that keeps a moving mean of its weights."""
    return fit(opened(store), tmp_path_factory.mktemp("refit") / "run", ONCE)


def predicted(run: Path, store: Path, videos: dict[str, np.ndarray]) -> Outputs:
    """What a run says of these frames of validation videos."""
    wanted = [Wanted(video, videos[video.name]) for video in opened(store).split("val")]
    return predict(RunFolder(run), opened(store), "val", wanted, 0, "cpu", "best", lambda done, total: None)


def test_the_run_says_what_the_heads_said(run: RunFolder, store: Path, tmp_path: Path) -> None:
    features = cached_features(tmp_path / "f.pt", run, opened(store), 1.0, "cpu", lambda done, total: None)
    settings = replace(ONCE, loss=replace(LossSettings(class_weight=0.5), label_smoothing=0.1).with_mu(MU))
    (said,) = validation_outputs(features, refit(run, features, settings, 3, tmp_path / "new"), EXPR)
    frames = features.frame_table(EXPR)
    videos = {str(name): part["frame"].to_numpy() for name, part in frames.groupby("video", observed=True)}
    outputs = predicted(tmp_path / "new", store, videos)
    for name in said.branches:
        np.testing.assert_allclose(outputs.branch(name), said.branch(name), atol=1e-5)
    (prior,) = {source.prior for source in outputs.branches.values()}
    weighed = np.sqrt(features.fractions) * (np.array(features.fractions) > 0)
    np.testing.assert_allclose(prior, weighed / weighed.sum())


def test_all_but_the_heads_and_the_loss_is_as_it_was(run: RunFolder, store: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()}
    settings = tmp_path / "best.yaml"
    save_settings(replace(STEPS, loss=STEPS.loss.with_mu(MU)), settings)
    new = RunFolder(tmp_path / "new")
    words = ["--store", str(store), "--run", str(run.root), "--out", str(new.root), "--accelerator", "cpu"]
    assert main(["refit", *words, "--settings", str(settings)]) == 0
    assert {path: path.read_bytes() for path in run.root.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["best.yaml", "new"]  # the features are gone
    assert new.load_settings() == replace(run.load_settings(), loss=STEPS.loss.with_mu(MU))
    assert new.metrics.read_bytes() == run.metrics.read_bytes()
    old, made = load_checkpoint(run.last), load_checkpoint(new.last)
    assert made.network.keys() == old.ema.keys()
    changed = {name for name, tensor in made.network.items() if not torch.equal(tensor, old.ema[name])}
    assert changed == {f"branches.{name}.head.1.{part}" for name in ("audio", "visual") for part in ("weight", "bias")}
    assert all(torch.equal(tensor, made.network[name]) for name, tensor in made.ema.items())


def test_the_weights_of_the_loss_go_with_it_and_nothing_else(run: RunFolder, store: Path, tmp_path: Path) -> None:
    """Settings of other branches, of which one is the run's too, with another decay."""
    features = cached_features(tmp_path / "f.pt", run, opened(store), 1.0, "cpu", lambda done, total: None)
    own = run.load_settings()
    other = {"visual": replace(own.branches["visual"], weight=4), "third": BranchSettings("mcnn")}
    settings = Settings(loss=LossSettings(label_smoothing=0.1).with_mu(MU), branches=other)
    expected = replace(own, loss=settings.loss, branches=own.branches | {"visual": other["visual"]})
    heads = refit(run, features, settings, 3, tmp_path / "new")
    assert RunFolder(tmp_path / "new").load_settings() == expected
    same = train_heads(features, [MU], expected, 3)
    assert all(torch.equal(heads.weight[name], same.weight[name]) for name in ("audio", "visual"))


def test_it_is_complete_and_is_not_trained_on(run: RunFolder, store: Path, tmp_path: Path) -> None:
    new = RunFolder(tmp_path / "new")
    words = ["--store", str(store), "--run", str(run.root), "--out", str(new.root), "--accelerator", "cpu"]
    assert main(["refit", *words]) == 0
    before = {path: path.read_bytes() for path in new.root.rglob("*") if path.is_file()}
    assert main(["train", "--store", str(store), "--run", str(new.root), "--resume"]) == 0
    assert {path: path.read_bytes() for path in new.root.rglob("*") if path.is_file()} == before


def test_the_command_tells_what_it_brought(
    run: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--store", str(store), "--run", str(run.root), "--out", str(tmp_path / "new"), "--accelerator", "cpu"]
    assert main(["refit", *words, "--stride", "1"]) == 0
    shown = capsys.readouterr().out
    features = cached_features(tmp_path / "f.pt", run, opened(store), 1.0, "cpu", lambda done, total: None)
    (said,) = validation_outputs(features, repeat_heads(features.heads, 1), EXPR)
    scores = search(said, RATIOS_ONLY).scores
    (line,) = [line.split() for line in shown.splitlines() if line.split()[:1] == ["before"]]
    assert line[1:3] == [f"{scores[0]:.4f}", f"{scores.max():.4f}"]
    assert main(["refit", *words]) == 2
    assert "--out cannot be used" in capsys.readouterr().err


def test_a_run_that_is_not_done_is_refused(
    run: RunFolder, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begun = RunFolder(tmp_path / "begun")
    begun.last.parent.mkdir(parents=True)
    begun.settings.write_bytes(run.settings.read_bytes())
    begun.last.write_bytes(run.last.read_bytes())
    words = ["--store", str(store), "--run", str(begun.root), "--out", str(tmp_path / "new"), "--accelerator", "cpu"]
    assert main(["refit", *words]) == 2
    assert "Train it to its end first." in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "new").exists()
    assert main(["penalties", *words]) == 2
    assert "Train it to its end first." in " ".join(capsys.readouterr().err.split())
    assert not [*(tmp_path / "new").iterdir()]  # before any trial


def test_the_search_writes_its_best_trial_as_a_run(
    run: RunFolder, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STEPS", 20)
    out = tmp_path / "out"
    words = ["--store", str(store), "--run", str(run.root), "--out", str(out), "--trials", "5", "--seed", "4"]
    assert main(["penalties", *words, "--accelerator", "cpu"]) == 0
    best, made = load_settings(out / "best.yaml"), RunFolder(out / "best-run")
    assert made.load_settings() == best
    features = cached_features(out / "features.pt", run, opened(store), 0.2, "cpu", lambda done, total: None)
    heads = train_heads(features, [best.loss.mu], best, 4)
    weights = load_checkpoint(made.best).network
    for name in heads.weight:
        torch.testing.assert_close(weights[f"branches.{name}.head.1.weight"], heads.weight[name].detach())
        torch.testing.assert_close(weights[f"branches.{name}.head.1.bias"], heads.bias[name][:, 0].detach())
