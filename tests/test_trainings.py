"""Trials of the penalties that train networks on: where they begin, and what judges them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pytest
import torch
from optuna.distributions import FloatDistribution
from sklearn.metrics import log_loss

from abaw_expr.cli import main
from abaw_expr.data.store import Store
from abaw_expr.errors import RunError, UserError
from abaw_expr.files import read_json
from abaw_expr.fusion import Decision, Vote, fuse, ratios
from abaw_expr.outputs import Outputs, VideoOutputs
from abaw_expr.scoring import confusion, macro_f1
from abaw_expr.settings import LossSettings
from abaw_expr.tasks import BRANCHES, EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder
from tests.fitting import AUDIO, fit, opened
from tests.test_outputs import make_outputs, make_video
from tuning import trainings
from tuning.penalties import CONTROLS, FURTHER, NAMES, Shared, cross_entropies, result_of, search_of

K = EXPR.n_classes
RECORDINGS = ("a", "b", "c_left", "c_right", "d")


def random_outputs(seed: int) -> Outputs:
    return make_outputs([make_video(name, 40 + 5 * i, seed) for i, name in enumerate(RECORDINGS)])


def voted(video: VideoOutputs, weights: tuple[int, ...]) -> np.ndarray:
    """The fused rows of a video, all classes alike where nothing votes."""
    p = fuse([*video.p.values()], weights).astype(float)
    return np.where(np.isnan(p), 1 / K, p / p.sum(axis=1, keepdims=True))


def expected_loss(videos: Sequence[VideoOutputs], weights: tuple[int, ...]) -> float:
    """By scikit-learn, over the annotated frames."""
    truth = np.concatenate([video.label for video in videos])
    p = np.concatenate([voted(video, weights) for video in videos])
    return float(log_loss(truth[truth >= 0], p[truth >= 0], labels=range(K)))


def counted(videos: Sequence[VideoOutputs], weights: tuple[int, ...]) -> np.ndarray:
    """Confusion counts of a decision with these weights."""
    votes = {name: Vote((1 / K,) * K, weight, 0.0) for name, weight in zip(BRANCHES, weights, strict=True)}
    return np.sum([confusion(video.label, Decision(votes).labels(video), K) for video in videos], axis=0)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5)])
def test_cross_entropy_is_that_of_scikit_learn(m: int, n: int) -> None:
    outputs = random_outputs(0)
    found = cross_entropies(outputs, LossSettings(m=m, n=n, mu13=1.0))
    assert found.shape == (4, 2), "two people of one recording are one"
    assert found[:, 1].sum() == sum((video.label >= 0).sum() for video in outputs.videos())
    assert found[:, 0].sum() / found[:, 1].sum() == pytest.approx(expected_loss(outputs.videos(), (m, n)), rel=1e-6)


def test_cross_entropy_of_one_branch_and_of_a_class_it_rules_out() -> None:
    p = np.full((2, K), 1 / K, np.float32)
    p[1], p[1, 3] = 0, 1
    video = replace(make_video("a", 2, branches=("visual",)), p={"visual": p}, label=np.array([5, 5], np.int8))
    ((total, frames),) = cross_entropies(make_outputs([video]), LossSettings())
    assert frames == 2
    assert np.log(K) + 80 < total < np.inf


def test_the_nested_figure_chooses_penalties_by_cross_entropy_and_ratios_by_f1() -> None:
    tried = [random_outputs(seed) for seed in range(6)]
    study = optuna.create_study(direction="maximize")
    space: dict[str, optuna.distributions.BaseDistribution] = {name: FloatDistribution(0, 1) for name in NAMES}
    for place, outputs in enumerate(tried):
        study.enqueue_trial(dict.fromkeys(NAMES, place / 6))
        trial = study.ask(space)
        result = result_of(FURTHER, outputs, LossSettings())
        assert result.value is not None
        for key, value in result.attributes.items():
            trial.set_user_attr(key, value)
        study.tell(trial, result.value)
    found = search_of(FURTHER, dict(enumerate(study.trials)))
    assert found.best.cross_entropy == min(row.cross_entropy or 9.0 for row in found.rows)
    assert [row.name for row in found.rows] == [*CONTROLS, "trial 3", "trial 4", "trial 5"]
    assert [-row.worth for row in found.rows] == [row.cross_entropy for row in found.rows]

    total = np.zeros((K, K), np.int64)
    for name in "abcd":
        others = [[video for video in outputs.videos() if video.name[0] != name] for outputs in tried]
        chosen = int(np.argmin([expected_loss(videos, (1, 1)) for videos in others]))
        figures = [float(macro_f1(counted(others[chosen], weights))) for weights in ratios(2)]
        best = ratios(2)[int(np.argmax(figures))]
        total += counted([video for video in tried[chosen].videos() if video.name[0] == name], best)
    assert found.nested == pytest.approx(float(macro_f1(total)))


@pytest.fixture(scope="module")
def corpus(store: Path) -> Store:
    return opened(store)


@pytest.fixture(scope="module")
def run(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(corpus, tmp_path_factory.mktemp("further") / "run", AUDIO)


def test_further_begins_every_trial_with_the_last_weights_of_the_run(
    corpus: Store, run: RunFolder, tmp_path: Path
) -> None:
    shared = Shared(tmp_path, f"sqlite:///{tmp_path / 'study.db'}", heartbeat=1, interval=1.0, accelerator="cpu")
    those = trainings.further(run, corpus, EXPR, shared)
    found = those.search(None, 1, lambda done, total: None)
    assert len(found.rows) == len({row.mu for row in found.rows}) == 4
    assert found.best.cross_entropy == min(row.cross_entropy or 9.0 for row in found.rows)
    last, seen = load_checkpoint(run.last).network, set()
    for row in found.rows:
        trained = those.run(row.mu)
        begun = torch.load(trained.begun_with, weights_only=True)
        assert all(begun[name].equal(tensor) for name, tensor in last.items())
        settings = trained.load_settings()
        assert settings.loss == AUDIO.loss.with_mu(row.mu)
        assert (settings.optimiser.epochs, settings.seed) == (1, AUDIO.seed + 1)
        assert settings.optimiser.learning_rate == pytest.approx(0.3 * AUDIO.optimiser.learning_rate)
        seen.add(float(load_checkpoint(trained.last).network["branches.audio.head.1.weight"].sum()))
    assert len(seen) > 1


def test_the_command_goes_on_with_the_best_of_the_heads(
    store: Path, run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    command = ["penalties", "--store", str(store), "--run", str(run.root), "--out", str(out), "--trials", "5"]
    command += ["--further", "2", "--interval", "1", "--accelerator", "cpu"]
    assert main(command) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "5 networks trained an epoch more" in shown
    assert "by cross-entropy, the best of 5" in shown
    best = read_json(out / "best.json", UserError, "")
    assert [trial["fidelity"] for trial in best["trials"]] == ["heads"] * 5 + ["further"] * 5
    heads = sorted(best["trials"][3:5], key=lambda trial: -trial["macro_f1"])
    assert [trial["mu"] for trial in best["trials"][-2:]] == [trial["mu"] for trial in heads]
    lowest = min(best["trials"][5:], key=lambda trial: trial["cross_entropy"])
    assert [*best["mu"].values()] == lowest["mu"]
    assert best["fidelity"] == "further"
    assert not list(out.glob("*further*.png"))


def test_a_run_that_is_not_complete_is_not_trained_further(
    corpus: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = fit(corpus, tmp_path / "run", replace(AUDIO, seed=3))
    run.manifest.unlink()
    with pytest.raises(RunError, match=r"run: is not complete\. Train it to its end first"):
        trainings.further(run, corpus, EXPR, Shared(tmp_path, "sqlite://"))
