"""What moves the weights: parameter groups, the learning rate over the run, gradients in parts, the moving mean."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abaw_expr.data.batches.sampling import sample_epoch, usable_frames
from abaw_expr.data.store.store import open_store
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.network import build_network
from abaw_expr.settings import ComputeSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.optimiser import EMA, build_optimiser, one_cycle, set_learning_rates
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import AUDIO, STEPS, fit, metrics, opened, scalars

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


def test_one_cycle_goes_up_and_down_by_half_cosines() -> None:
    fractions = [0.0, 0.075, 0.15, 0.3, 0.65, 1.0]
    quarter = (1 - 2**-0.5) / 2  # of half a cosine, a quarter of the way
    expected = [0.04, 0.04 + 0.96 * quarter, 0.52, 1.0, 0.50005, 1e-4]
    assert [one_cycle(fraction) for fraction in fractions] == pytest.approx(expected)


def test_learning_rates_follow_the_schedule_from_their_own_peaks() -> None:
    chosen = OptimiserSettings("sgd", 1e-4, 1e-3, schedule="one-cycle")
    optimiser = build_optimiser(build_network(Settings()), chosen)
    set_learning_rates(optimiser, chosen, 0.15)
    assert {round(group["lr"], 9) for group in optimiser.param_groups} == {5.2e-5, 5.2e-4}
    set_learning_rates(optimiser, replace(chosen, schedule="constant"), 0.15)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-4, 1e-3}


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_parameter_is_in_the_group_it_belongs_to(name: str) -> None:
    network = build_network(Settings())
    chosen = OptimiserSettings(name, 1e-4, 1e-3, momentum=0.9, weight_decay=0.05)  # type: ignore[arg-type]
    found: dict[int, tuple[float, float]] = {}
    for group in build_optimiser(network, chosen).param_groups:
        assert name == "adamw" or group["momentum"] == 0.9
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group["lr"], group["weight_decay"]
    attention = [prefix for prefix, module in network.named_modules() if isinstance(module, GCSA)]
    assert len(attention) == 2
    for path, parameter in network.named_parameters():
        owner = network.get_submodule(path.rpartition(".")[0])
        slow = ".head." in path or any(path.startswith(f"{prefix}.") for prefix in attention)
        decays = path.endswith(".weight") and not isinstance(owner, nn.BatchNorm2d)
        assert found.pop(id(parameter)) == (1e-4 if slow else 1e-3, 0.05 if decays else 0.0), path
    assert not found


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The sound branch over two epochs of several steps, with a moving mean of its weights."""
    return fit(opened(store), tmp_path_factory.mktemp("optimiser") / "run", STEPS)


def test_metrics_tell_the_learning_rate_of_the_last_step(run: RunFolder, store: Path) -> None:
    frames = usable_frames(opened(store), "train", EXPR, ["audio"])
    assert len(metrics(run)) == STEPS.optimiser.epochs
    for epoch, rate in enumerate(metrics(run)["learning_rate"]):
        steps = math.ceil(len(sample_epoch(frames, STEPS, epoch + 1)) / 4)
        assert metrics(run)["steps"][epoch] == steps
        assert rate == pytest.approx(1e-3 * one_cycle((epoch + (steps - 1) / steps) / 2))


# The moving mean


def test_the_moving_mean_is_as_its_formula_says() -> None:
    network = nn.Sequential(nn.Linear(3, 2), nn.BatchNorm1d(2))
    ema = EMA(network, 0.7)
    expected = {name: value.double() for name, value in network.state_dict().items() if value.is_floating_point()}
    rng = np.random.default_rng(0)
    for steps in range(1, 40):
        with torch.no_grad():
            for value in expected:
                network.state_dict()[value].copy_(torch.from_numpy(rng.normal(size=expected[value].shape)))
        ema.update(network, steps)
        decay = min(0.7, (1 + steps) / (10 + steps))
        for name in expected:
            expected[name] = decay * expected[name] + (1 - decay) * network.state_dict()[name].double()
    for name, value in expected.items():
        assert torch.allclose(ema.network.state_dict()[name].double(), value, atol=1e-6), name
    assert not any(parameter.requires_grad for parameter in ema.network.parameters())


def test_a_run_is_judged_by_its_moving_mean(store: Path, tmp_path: Path) -> None:
    one = replace(STEPS, optimiser=replace(STEPS.optimiser, epochs=1))
    run = fit(opened(store), tmp_path / "run", one)
    last, best = load_checkpoint(run.last), load_checkpoint(run.best)
    weight = "branches.audio.head.1.weight"
    assert torch.equal(best.network[weight], last.ema[weight])
    assert not torch.equal(best.network[weight], last.network[weight])
    plain = fit(opened(store), tmp_path / "plain", replace(one, optimiser=replace(one.optimiser, ema_decay=0.0)))
    assert torch.equal(load_checkpoint(plain.last).network[weight], last.network[weight]), "the mean moves nothing"
    assert metrics(plain)["val_loss"][0] != metrics(run)["val_loss"][0]


# Gradients in parts


def _frozen(self: nn.BatchNorm2d, x: Tensor) -> Tensor:
    return nn.functional.batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


@pytest.mark.parametrize(("task", "sequence", "per_stretch"), [("expr", 2, False), ("va", 8, True)])
def test_a_batch_in_parts_moves_the_weights_as_the_whole_does(
    task: str, sequence: int, per_stretch: bool, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nn.BatchNorm2d, "forward", _frozen)  # its statistics are those of a part
    settings = replace(
        AUDIO,
        task=task,
        model=replace(AUDIO.model, dropout=0.0),
        data=replace(AUDIO.data, stride=0.3, sequence=sequence),  # groups overlap, and some are drawn twice
        loss=LossSettings(per_stretch=per_stretch),
        optimiser=OptimiserSettings("sgd", 1e-3, 1e-3, epochs=1, batch_size=16),
    )
    whole = fit(open_store(store, settings.task_of), tmp_path / "whole", settings)
    parts = fit(
        open_store(store, settings.task_of),
        tmp_path / "parts",
        replace(settings, compute=ComputeSettings("cpu", micro_batch=max(4, sequence))),
    )
    expected = [loss for _, loss in scalars(whole)]
    assert len(expected) == 4
    assert [loss for _, loss in scalars(parts)] == pytest.approx(expected, rel=1e-5)
    torch.manual_seed(settings.seed)
    one, other = load_checkpoint(whole.last).network, load_checkpoint(parts.last).network
    largest = 0.0
    for name, before in build_network(settings).state_dict().items():
        moved, apart = (one[name] - before).float().norm(), (one[name] - other[name]).float().norm()
        assert apart <= 1e-3 * moved + 1e-7, name
        largest = max(largest, float(moved))
    assert largest > 1e-4
