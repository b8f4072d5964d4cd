"""Frozen encoders: what stands still, what is released when, and that resuming and sharing change nothing of it."""

import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from abaw_expr.data.store.store import Store
from abaw_expr.errors import SettingsError, StoppedError
from abaw_expr.models.network import Network, build_network
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import BranchSettings, OptimiserSettings, Settings, StreamSettings
from abaw_expr.training.checkpoint import load_checkpoint, save_tensors
from abaw_expr.training.freezing import released, set_trained
from abaw_expr.training.initial_weights import pretrained_encoders
from abaw_expr.training.optimiser import build_optimiser
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import (
    AUDIO,
    STEPS,
    assert_same_run,
    fit,
    in_processes,
    metrics,
    next_second,
    opened,
    scalars,
    send_at,
)
from tests.helpers.networks import batch, encoder, everywhere, run, statistics

pytestmark = pytest.mark.slow  # trainings, and processes

PREFIX = "branches.audio.streams.audio.encoder."
PARTS = ("temporal", "spatial", "local", "join", "attention")
"""The parts of MCNN from input to output."""


def frozen(release: tuple[int, ...] = (), weights: str = "w.pt") -> BranchSettings:
    return BranchSettings("mcnn", weights=weights, freeze=True, release=release)


def with_audio(settings: Settings, audio: BranchSettings) -> Settings:
    return replace(settings, branches=settings.branches | {"audio": audio})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of weights of MCNN, whose BN has seen something."""
    torch.manual_seed(5)
    net = encoder("mcnn")
    net.train()(torch.randn(4, *net.input_shape))
    path = tmp_path_factory.mktemp("weights") / "mcnn.pt"
    save_tensors(path, net.state_dict())
    return path


# What is trained


def trained(network: Network) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in network.named_parameters()}


@pytest.mark.parametrize(
    ("release", "parts"),
    [
        ((), [[]] * 4),
        ((1,), [PARTS] * 4),
        ((3,), [[], [], PARTS, PARTS]),
        ((2, 4), [[], PARTS[-1:], PARTS[-1:], PARTS]),
        ((1, 2, 3, 4), [PARTS[-1:], PARTS[-2:], PARTS[-3:], PARTS]),
        ((1, 2, 3, 4, 5, 6, 7, 8), [PARTS[-1:], PARTS[-2:], PARTS[-3:], PARTS[-4:]]),
        ((1, 2, 3, 4, 5, 6, 7, 80), [PARTS[-1:], PARTS[-2:], PARTS[-3:], PARTS[-4:], PARTS, PARTS, PARTS]),
    ],
)
def test_parts_are_released_from_the_last_on(release: tuple[int, ...], parts: Sequence[Sequence[str]]) -> None:
    settings = with_audio(Settings(), frozen(release))
    network = build_network(settings)
    assert all(trained(network).values())
    before: Sequence[str] = PARTS
    for epoch, expected in enumerate(parts, start=1):
        network.train()
        assert set_trained(network, settings, epoch) == (expected != before)
        before = expected
        for name, is_trained in trained(network).items():
            within = name.startswith(PREFIX)
            assert is_trained == (not within or name.removeprefix(PREFIX).split(".")[0] in expected), (epoch, name)
        for name, module in network.named_modules():
            if name.startswith(PREFIX):
                assert module.training == (name.removeprefix(PREFIX).split(".")[0] in expected), (epoch, name)
            elif not PREFIX.startswith(f"{name}."):
                assert module.training, name


def test_the_last_release_is_of_the_whole_encoder() -> None:
    net = encoder("mcnn")
    assert [released(net, (2, 3), epoch) for epoch in (1, 2, 3)] == [[], [net.attention], [net]]


def test_gradients_reach_all_but_what_is_frozen() -> None:
    settings = with_audio(Settings(), frozen((2, 3)))
    network = build_network(settings)
    set_trained(network, settings, 2)
    before = statistics(network.get_submodule(f"{PREFIX}join"))
    build_objective(settings, [1 / 8] * 8)(run(network, batch(8), everywhere(8)), torch.arange(8)).backward()
    for name, parameter in network.named_parameters():
        is_frozen = name.startswith(PREFIX) and ".attention." not in name
        assert (parameter.grad is None) == is_frozen, name
    assert all(map(torch.equal, statistics(network.get_submodule(f"{PREFIX}join")), before))


def test_a_batch_without_the_frozen_modality_runs_backwards() -> None:
    """As a process may have it."""
    settings = Settings(branches={"audio": frozen()})
    network = build_network(settings)
    set_trained(network, settings, 1)
    votes = run(network, {"audio": batch(4)["audio"]}, {"audio": torch.zeros(4, dtype=torch.bool)})
    build_objective(settings, [1 / 8] * 8)(votes, torch.arange(4)).backward()
    assert all((parameter.grad is None) != parameter.requires_grad for parameter in network.parameters())


# Runs


def within(weights: dict[str, Tensor], part: str = "") -> dict[str, Tensor]:
    """The tensors of the encoder, or of a part of it, by their own names."""
    own = {key.removeprefix(PREFIX): tensor for key, tensor in weights.items() if key.startswith(PREFIX + part)}
    assert own
    return own


def test_a_frozen_encoder_stays_as_it_was_loaded(corpus: Store, weights: Path, tmp_path: Path) -> None:
    """Its EMA, too; the head learns."""
    made = fit(corpus, tmp_path / "run", with_audio(STEPS, frozen(weights=str(weights))))
    last, lent = load_checkpoint(made.last), torch.load(weights)
    for found in (last.network, last.ema):
        assert within(found).keys() == lent.keys()
        assert all(torch.equal(tensor, lent[key]) for key, tensor in within(found).items())
    torch.manual_seed(STEPS.seed)
    head = "branches.audio.head.1.weight"
    assert not torch.equal(last.network[head], build_network(STEPS).state_dict()[head])
    assert len(last.optimiser["state"]) == 2, "of the head alone"


RELEASED = replace(STEPS, optimiser=replace(STEPS.optimiser, epochs=3, batch_size=8, pretrained_learning_rate=1e-4))
"""Of three epochs; the last part of the encoder trains in the second, and all of it in the third."""


@pytest.fixture(scope="module")
def settings(weights: Path) -> Settings:
    return with_audio(RELEASED, frozen((2, 3), str(weights)))


@pytest.fixture(scope="module")
def whole(corpus: Store, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(corpus, tmp_path_factory.mktemp("freezing") / "whole", settings)


def test_what_is_released_learns(corpus: Store, settings: Settings, weights: Path, tmp_path: Path) -> None:
    ends: list[dict[str, Tensor]] = []
    path = tmp_path / "run"
    fit(corpus, path, settings, on_epoch=lambda _: ends.append(load_checkpoint(RunFolder(path).last).network))
    lent = torch.load(weights)
    for epoch, (network, moving) in enumerate(zip(ends, ((), ("attention",), PARTS), strict=True), start=1):
        for part in PARTS:
            own = within(network, part)
            stays = [torch.equal(tensor, lent[key]) for key, tensor in own.items()]
            assert not any(stays) if part in moving else all(stays), (epoch, part)


def test_a_run_with_releases_resumes_to_the_bit(
    whole: RunFolder, corpus: Store, settings: Settings, tmp_path: Path
) -> None:
    """From within every epoch: frozen, released in part, and released."""
    ends = metrics(whole)["steps"].cumsum().tolist()
    for number, at in enumerate((1, ends[0] + 1, ends[2] - 1)):
        with pytest.raises(StoppedError):
            fit(corpus, tmp_path / "run", settings, number > 0, progress=send_at(at, signal.SIGTERM))
        next_second()
    assert_same_run(whole, fit(corpus, tmp_path / "run", settings, resume=True))


def test_two_processes_learn_what_one_does(store: Path, settings: Settings, tmp_path: Path) -> None:
    """What is released later is shared, too."""
    plain = OptimiserSettings("sgd", 1e-4, 1e-3, epochs=3, batch_size=8)
    model = replace(settings.model, dropout=0.0)
    shared = replace(settings, precision="64-true", optimiser=plain, model=model)
    one, two = fit(opened(store), tmp_path / "one", shared), RunFolder(tmp_path / "two")
    done = in_processes(2, [store], two, shared)
    assert done.returncode == 0, done.stderr
    expected, found = (np.array(scalars(each)) for each in (one, two))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    alone, together = (load_checkpoint(each.last).network for each in (one, two))
    lent = torch.load(settings.branches["audio"].weights)
    for key, tensor in within(alone).items():
        moved, apart = (tensor - lent[key]).double().norm(), (tensor - within(together)[key]).double().norm()
        assert apart <= 1e-5 * moved + 1e-15, key  # BN takes away what a bias adds just before it


def test_a_frozen_encoder_may_begin_with_another_run(
    whole: RunFolder, corpus: Store, settings: Settings, tmp_path: Path
) -> None:
    kept = with_audio(replace(AUDIO, seed=3), frozen(weights=""))
    made = fit(corpus, tmp_path / "run", kept, initial_weights=[whole.root])
    lent, found = within(load_checkpoint(whole.best).network), within(load_checkpoint(made.last).network)
    assert all(torch.equal(tensor, lent[key]) for key, tensor in found.items())


def test_an_encoder_that_is_drawn_from_the_seed_is_not_frozen(corpus: Store, tmp_path: Path) -> None:
    told = (
        r"a frozen encoder has random weights; found 'branches\.audio\.audio without weights'; "
        r"expected weights of a file or a run\. Name a file as its weights"
    )
    with pytest.raises(SettingsError, match=told):
        fit(corpus, tmp_path / "run", with_audio(AUDIO, frozen(weights="")))
    streams = {"face": StreamSettings("rhcnn", freeze=True), "sound": StreamSettings("mcnn")}
    joint = replace(AUDIO, branches={"joint": BranchSettings(streams=streams)})
    with pytest.raises(SettingsError, match=r"random weights; found 'branches\.joint\.face without weights'"):
        fit(corpus, tmp_path / "joint", joint)


# Learning rates


def test_encoders_of_files_have_a_learning_rate_of_their_own() -> None:
    audio, chosen = BranchSettings("mcnn", weights="w.pt"), OptimiserSettings("adam", 1e-4, 1e-3, 1e-5)
    settings = with_audio(Settings(optimiser=chosen), audio)
    network = build_network(settings)
    pretrained = pretrained_encoders(network, settings)
    assert pretrained == [next(network.encoders())]
    rates: dict[int, float] = {}
    for group in build_optimiser(network, chosen, pretrained).param_groups:
        assert not rates.keys() & {*map(id, group["params"])}
        rates |= {id(parameter): group["lr"] for parameter in group["params"]}
    for name, parameter in network.named_parameters():
        is_slow = ".head." in name or ".attention." in name
        assert rates[id(parameter)] == (1e-4 if is_slow else 1e-5 if name.startswith(PREFIX) else 1e-3), name
    off = replace(chosen, pretrained_learning_rate=0.0)
    groups = [build_optimiser(network, off, own).param_groups for own in (pretrained, ())]
    assert [[group["lr"] for group in one] for one in groups] == [[1e-3, 1e-3, 1e-4, 1e-4]] * 2
