"""Cached features are what a run's heads see, and stacked heads learn what each would learn alone."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from torch import Tensor, nn

from abaw_expr.errors import RunError
from abaw_expr.models.links import Votes, link_of
from abaw_expr.models.objectives import CoarseFine, build_objective
from abaw_expr.settings import DataSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.predict import Wanted, predict
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import SETTINGS, fit, opened
from tests.helpers.searching import SHARES, WIDTHS, made_up
from tuning import heads as module
from tuning.features import Features, cached_features
from tuning.heads import Heads, numbers, objective_of, repeat_heads, train_heads
from tuning.penalties import CONTROLS

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


K = EXPR.n_columns
LINK = link_of(EXPR)
ONCE = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, epochs=1))
MUS = st.lists(st.tuples(*[st.floats(0, 1)] * 6), min_size=1, max_size=4)


def log_probabilities(trials: int, samples: int, seed: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = 2 * torch.randn(2, trials, samples, K, generator=generator, dtype=torch.float64)
    audio, visual = logits.log_softmax(-1).unbind()
    return {"audio": audio.requires_grad_(), "visual": visual.requires_grad_()}


@examples(max_examples=30)
@given(
    mus=MUS,
    m=st.integers(1, 5),
    n=st.integers(1, 5),
    smoothing=st.sampled_from([0.0, 0.1]),
    branch_weight=st.sampled_from([0.0, 0.5]),
    class_weight=st.sampled_from([0.0, 1.0]),
    branches=st.sampled_from([("audio", "visual"), ("visual",)]),
    seed=st.integers(0, 2**32),
)
def test_the_stacked_loss_is_each_trials_own(
    mus: list[tuple[float, ...]],
    m: int,
    n: int,
    smoothing: float,
    branch_weight: float,
    class_weight: float,
    branches: tuple[str, ...],
    seed: int,
) -> None:
    loss = LossSettings(label_smoothing=smoothing, branch_weight=branch_weight, class_weight=class_weight)
    weights = {"audio": m, "visual": n}
    weighed = {name: replace(one, weight=weights[name]) for name, one in Settings().branches.items()}
    settings = Settings(branches=weighed, loss=loss).only(branches)
    all_log_p = log_probabilities(len(mus), 12, seed)
    log_p = {name: all_log_p[name] for name in branches}
    present = {"audio": torch.arange(12) % 3 != 0, "visual": torch.arange(12) % 4 != 1}
    target = torch.arange(12) % K
    objective = objective_of(made_up(2), settings, mus).double()
    assert isinstance(objective, CoarseFine)
    assert objective.table.shape == (len(mus), K, K)
    stacked = objective({name: Votes(rows, present[name]) for name, rows in log_p.items()}, target)
    gradients = torch.autograd.grad(stacked.sum(), [*log_p.values()])
    for trial, mu in enumerate(mus):
        own = {name: rows[trial].detach().requires_grad_() for name, rows in log_p.items()}
        one_alone = build_objective(replace(settings, loss=loss.with_mu(mu)), SHARES).double()
        alone_loss = one_alone({name: Votes(rows, present[name]) for name, rows in own.items()}, target)
        torch.testing.assert_close(stacked[trial], alone_loss)
        for stack, alone in zip(gradients, torch.autograd.grad(alone_loss, [*own.values()]), strict=True):
            torch.testing.assert_close(stack[trial], alone)


@pytest.mark.parametrize("views", [1, 3])
def test_heads_are_linear_layers_whose_softmax_is_averaged_over_views(views: int) -> None:
    features = made_up(10, views=views, missing=0)
    votes = repeat_heads(features.heads, 2).votes(features.val, LINK)
    assert features.heads.keys() == WIDTHS.keys()
    for name, head in features.heads.items():
        layer = nn.Linear(WIDTHS[name], K)
        layer.load_state_dict(head)
        expected = layer(features.val.features[name]).softmax(-1).mean(1).log()
        for trial in range(2):
            torch.testing.assert_close(votes[name].value[trial], expected)
        assert torch.equal(votes[name].present, features.val.present[name])


def test_training_is_that_of_linear_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Against layers, loss and optimiser as training has them, a trial at a time."""
    monkeypatch.setattr(module, "STEPS", 20)
    monkeypatch.setattr(module, "SAMPLES_AT_A_TIME", 32)
    features = made_up(100, views=2)
    loss, optimiser = LossSettings(label_smoothing=0.1, branch_weight=0.5), OptimiserSettings(weight_decay=0.05)
    settings = Settings(loss=loss, optimiser=optimiser)
    mus = [*CONTROLS.values(), (1.0,) * 6]
    heads = train_heads(features, mus, settings, seed=3)
    for trial, mu in enumerate(mus):
        alone = train_alone(features, replace(settings, loss=loss.with_mu(mu)), 0.05, seed=3)
        assert alone.keys() == WIDTHS.keys()
        for name, layer in alone.items():
            torch.testing.assert_close(heads.weight[name].view(K, len(mus), -1)[:, trial], layer.weight)
            torch.testing.assert_close(heads.bias[name].view(K, len(mus))[:, trial], layer.bias)


def train_alone(features: Features, settings: Settings, decay: float, seed: int) -> dict[str, nn.Linear]:
    layers = {name: nn.Linear(width, K) for name, width in WIDTHS.items()}
    for name, layer in layers.items():
        layer.load_state_dict(features.heads[name])
    groups = [
        {"params": [layer.weight for layer in layers.values()], "weight_decay": decay},
        {"params": [layer.bias for layer in layers.values()], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, lr=module.LEARNING_RATE)
    criterion, rng = build_objective(settings, SHARES), np.random.default_rng(seed)
    ends, train = features.draw_probabilities.numpy().cumsum(), features.train
    for step in range(module.STEPS):
        rows = torch.from_numpy(np.searchsorted(ends, rng.random(module.SAMPLES_AT_A_TIME) * ends[-1], side="right"))
        for group in optimiser.param_groups:
            group["lr"] = module.LEARNING_RATE * (1 - step / module.STEPS)
        log_p = {
            name: layer(train.features[name][rows]).log_softmax(-1).logsumexp(1)
            - math.log(train.features[name].shape[1])
            for name, layer in layers.items()
        }
        optimiser.zero_grad()
        votes = {name: Votes(own, train.present[name][rows]) for name, own in log_p.items()}
        criterion(votes, train.target[rows]).backward()
        optimiser.step()
    return layers


def test_trained_heads_know_more_than_those_they_began_from() -> None:
    features = made_up(400, missing=0.0)
    before = numbers(repeat_heads(features.heads, 1), features.val, LINK)
    after = numbers(train_heads(features, [(0.0,) * 6], Settings(), 0), features.val, LINK)
    truth = features.val.target.numpy()
    for p, least, most in ((before, 0.0, 0.3), (after, 0.5, 1.0)):
        fused = p["audio"][0] + p["visual"][0]
        assert least <= (fused.argmax(1) == truth).mean() <= most


def test_a_missing_modality_has_no_probabilities() -> None:
    features = made_up(50)
    found = numbers(repeat_heads(features.heads, 3), features.val, LINK)
    assert found.keys() == WIDTHS.keys()
    for name, p in found.items():
        absent = ~features.val.present[name].numpy()
        assert absent.any()
        assert np.isnan(p[:, absent]).all()
        np.testing.assert_allclose(p[:, ~absent].sum(-1), 1, rtol=1e-5)


# The cache


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    settings = replace(ONCE, data=DataSettings(stride=1.0, val_stride=1.0, balance=0.5, frames_per_sample=2))
    return fit(opened(store), tmp_path_factory.mktemp("heads") / "run", settings)


def cache(path: Path, run: RunFolder, store: Path, interval: float = 1.0) -> Features:
    return cached_features(path, run, opened(store), interval, "cpu", lambda done, total: None)


def test_the_runs_heads_on_its_features_say_what_the_run_says(run: RunFolder, store: Path, tmp_path: Path) -> None:
    features = cache(tmp_path / "features.pt", run, store)
    p = numbers(repeat_heads(features.heads, 1), features.val, LINK)
    frames = features.frame_table(EXPR)
    assert features.val.features["visual"].shape == (len(frames), 2, 256)
    assert features.val.features["audio"].shape == (len(frames), 1, 128)
    videos = {video.name: video for video in opened(store).split("val")}
    parts = frames.groupby("video", observed=True)
    wanted = [Wanted(videos[str(name)], part["frame"].to_numpy()) for name, part in parts]
    outputs = predict(run, opened(store), "val", wanted, 0, "cpu", "last", lambda done, total: None)
    assert {source.prior for source in outputs.branches.values()} == {tuple(features.prior)}
    for column in ("video", "frame", "time", "crop", "label"):
        assert outputs.table[column].tolist() == frames[column].tolist()
    for name in WIDTHS:
        np.testing.assert_allclose(p[name][0], outputs.branch(name), atol=1e-5)
    np.testing.assert_allclose(features.draw_probabilities.sum(), 1)


def test_a_cache_is_made_once_and_anew_where_it_is_stale(run: RunFolder, store: Path, tmp_path: Path) -> None:
    path = tmp_path / "features.pt"
    first = cache(path, run, store)
    made = path.stat().st_mtime_ns
    assert torch.equal(cache(path, run, store).val.target, first.val.target)
    assert path.stat().st_mtime_ns == made
    assert len(cache(path, run, store, interval=2.0).val) < len(first.val)
    assert path.stat().st_mtime_ns > made
    path.write_bytes(b"half a cache")
    assert len(cache(path, run, store).val) == len(first.val)
    assert [file.name for file in tmp_path.iterdir()] == ["features.pt"]


def test_a_run_of_another_store_is_refused(run: RunFolder, store: Path, tmp_path: Path) -> None:
    other = replace(opened(store), digest="another")
    with pytest.raises(RunError, match="trained on another store"):
        cached_features(tmp_path / "x.pt", run, other, 1.0, "cpu", lambda done, total: None)
    assert not (tmp_path / "x.pt").exists()


def test_a_run_of_one_branch_has_features_of_one(store: Path, tmp_path: Path) -> None:
    settings = ONCE.only(("audio",))
    run = fit(opened(store), tmp_path / "run", settings)
    features = cache(tmp_path / "features.pt", run, store)
    heads: Heads = train_heads(features, [(0.5,) * 6], settings, 0)
    assert list(numbers(heads, features.val, LINK)) == ["audio"]
