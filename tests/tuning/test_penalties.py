"""The search over the six penalties: its controls, its exact figures, its seed, and its whole trainings."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import f1_score, log_loss

from abaw_expr.commands.main import main
from abaw_expr.errors import UserError
from abaw_expr.files import read_json
from abaw_expr.models.links import link_of
from abaw_expr.outputs.fusion import fuse, ratios
from abaw_expr.settings import LossSettings, Settings
from abaw_expr.settings_file import load_settings
from abaw_expr.tasks.task import EXPR
from tests.helpers.fitting import AUDIO, SETTINGS, fit, opened
from tests.helpers.searching import K, few_steps, made_up, search
from tests.outputs.test_table import make_outputs, make_video
from tuning import heads as module
from tuning.heads import numbers, train_heads
from tuning.penalties import CONTROLS, search_networks
from tuning.study import SAMPLERS, StudyOptions
from tuning.sweep import cross_entropy


@pytest.mark.slow
def test_the_controls_come_first_and_there_are_as_many_trials_as_asked_for(tmp_path: Path) -> None:
    found = search(tmp_path, 7)
    assert [row.name for row in found.rows] == [*CONTROLS, *(f"trial {i}" for i in range(3, 7))]
    assert [row.mu for row in found.controls] == [(0.0,) * 6, LossSettings().mu, (0.5,) * 6]
    assert all(0 <= mu <= 1 for row in found.rows for mu in row.mu)
    assert len({row.mu for row in found.rows}) == 7
    assert found.best.macro_f1 == max(row.macro_f1 or 0 for row in found.rows)
    assert found.nested is not None


@pytest.mark.slow
def test_a_trial_is_worth_its_best_ratio_exactly(tmp_path: Path) -> None:
    found, features = search(tmp_path, 4, batch=4), made_up(200)
    with few_steps():
        heads = train_heads(features, [row.mu for row in found.rows], Settings(), 0)
    p = numbers(heads, features.val, link_of(EXPR))
    truth = features.val.target.numpy()
    for trial, row in enumerate(found.rows):
        f1 = {
            weights: f1_score(
                truth,
                fuse([p["audio"][trial], p["visual"][trial]], weights).argmax(axis=1),
                average="macro",
                labels=range(K),
                zero_division=0,
            )
            for weights in ratios(2)
        }
        assert row.ratio is not None
        assert row.macro_f1 == pytest.approx(max(f1.values()))
        assert f1[row.ratio] == pytest.approx(row.macro_f1)
        assert row.nested is not None
        equal = fuse([p["audio"][trial], p["visual"][trial]], (1, 1)).astype(float)
        expected = log_loss(truth, equal / equal.sum(axis=1, keepdims=True), labels=range(K))
        assert row.cross_entropy == pytest.approx(expected, rel=1e-6)
    assert found.lowest_entropy.cross_entropy == min(row.cross_entropy or 9.0 for row in found.rows)


@pytest.mark.slow
def test_the_seed_makes_the_study(tmp_path: Path) -> None:
    for name in ("one", "two", "other"):
        (tmp_path / name).mkdir()
    one, two, other = (search(tmp_path / name, 14, seed=name == "other") for name in ("one", "two", "other"))
    assert one == two
    assert not {row.mu for row in other.rows[3:]} & {row.mu for row in one.rows[3:]}


@pytest.mark.slow
def test_interrupted_and_asked_for_more_it_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A Ctrl-C in the midst of the second batch, then fewer trials and then all of them."""
    for name in ("whole", "parts"):
        (tmp_path / name).mkdir()
    calls = []

    def interrupted(*arguments: object) -> object:
        calls.append(arguments)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return train_heads(*arguments)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(module, "train_heads", interrupted)
        with pytest.raises(KeyboardInterrupt):
            search(tmp_path / "parts", 8, batch=4)
    assert len(search(tmp_path / "parts", 8, batch=4).rows) == 8
    assert search(tmp_path / "parts", 12, batch=4) == search(tmp_path / "whole", 12, batch=4)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5)])
def test_cross_entropy_is_that_of_scikit_learn_with_the_weights_of_the_loss(m: int, n: int) -> None:
    """Of frames some of which lack a modality, or both, or are not annotated."""
    videos = [make_video(name, 60) for name in ("a", "b_left", "c")]
    p = np.concatenate([fuse([*video.p.values()], (m, n)) for video in videos]).astype(float)
    assert np.isnan(p).any()
    p = np.where(np.isnan(p), 1 / K, p / p.sum(axis=1, keepdims=True))
    truth = np.concatenate([video.label for video in videos])
    expected = log_loss(truth[truth >= 0], p[truth >= 0], labels=range(K))
    found = cross_entropy(make_outputs(videos), {"visual": n, "audio": m})
    assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "tpe"])
def test_other_samplers_by_name(sampler: str, tmp_path: Path) -> None:
    rows = search(tmp_path, 8, sampler=sampler).rows
    assert len({row.mu for row in rows}) == 8


@pytest.mark.slow
def test_whole_trainings_that_fall_behind_are_ended_and_controls_never(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trainings that never were: their F1 is that of their penalties' sum, the larger the worse."""
    from abaw_expr.training import loop

    told: dict[float, int] = {}

    def train(store: object, run: object, settings: Settings, *arguments: Any) -> None:
        on_epoch: Callable[..., None] = arguments[1]
        for epoch in range(1, settings.optimiser.epochs + 1):
            told[sum(settings.loss.mu)] = epoch
            on_epoch(SimpleNamespace(epoch=epoch, score=1 - sum(settings.loss.mu) / 6))

    monkeypatch.setattr(loop, "train", train)
    monkeypatch.setattr(
        "abaw_expr.training.predict.predict", lambda *_: make_outputs([make_video("a", 60), make_video("b", 60)])
    )
    settings = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, epochs=9))
    shared = StudyOptions(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", heartbeat=1)
    found = search_networks(None, opened(store), settings, shared, 5, lambda done, total: None)
    assert len(found.rows) == 8
    assert all(row.macro_f1 is not None for row in found.controls)
    assert all(told[sum(row.mu)] == 9 for row in found.controls)
    pruned = [row for row in found.rows if row.macro_f1 is None]
    assert pruned
    assert all(told[sum(row.mu)] < 9 for row in pruned)
    assert all(row.ratio is None and row.nested is None for row in pruned)


@pytest.mark.slow
def test_the_command_searches_confirms_and_writes_settings(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(module, "STEPS", 20)
    run, out = fit(opened(store), tmp_path / "run", AUDIO), tmp_path / "out"
    command = ["penalties", "--store", str(store), "--run", str(run.root), "--out", str(out), "--trials", "6"]
    command += ["--full", "1", "--batch", "3", "--stride", "1", "--accelerator", "cpu"]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in ("6 trials of the heads", "4 whole trainings", "no penalty", "uniform", "nested", "Tuned scores"):
        assert words in shown
    best = read_json(out / "best.json", UserError, "")
    assert [trial["fidelity"] for trial in best["trials"]] == ["heads"] * 6 + ["full"] * 4
    settings = load_settings(out / "best.yaml")
    assert dict(zip(best["mu"], settings.loss.mu, strict=True)) == best["mu"]
    assert replace(settings, loss=run.load_settings().loss) == run.load_settings()
    assert best["fidelity"] == "full"
    top = min(best["trials"][3:6], key=lambda trial: trial["cross_entropy"])
    assert best["trials"][-1]["mu"] == top["mu"]
    chosen = min(best["trials"][6:], key=lambda trial: trial["cross_entropy"])
    assert [*best["mu"].values()] == chosen["mu"]
    trained = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoints/last.pt")}
    assert len(trained) == 4
    assert main(command) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--trials", "0"], "--trials cannot be used; found 0"),
        (["--batch", "0"], "--batch cannot be used"),
        (["--heartbeat", "0"], "--heartbeat cannot be used"),
        (["--stride", "nan"], "--stride cannot be used"),
    ],
)
def test_flags_out_of_range_are_named(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = ["--store", str(tmp_path / "store"), "--run", str(tmp_path / "run"), "--out", str(tmp_path / "out")]
    assert main(["penalties", *where, *words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()
