"""What moves the weights: parameter groups, the learning rate over the run, gradients in parts, the moving mean."""

import math
import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from abaw_expr.data.batches.sampling import sample_epoch, usable_frames
from abaw_expr.data.store.store import open_store
from abaw_expr.errors import StoppedError
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.network import build_network
from abaw_expr.settings import ComputeSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training import optimiser as module
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.optimiser import (
    EMA,
    PATIENCE,
    REDUCTION,
    WARM_UP_EPOCHS,
    build_optimiser,
    one_cycle,
    plateau,
    set_learning_rates,
)
from abaw_expr.training.run import Epoch, RunFolder
from tests.helpers.fitting import (
    AUDIO,
    STEPS,
    assert_same_run,
    fit,
    metrics,
    next_second,
    opened,
    scalars,
    send_at,
)

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


def test_one_cycle_goes_up_and_down_by_half_cosines() -> None:
    fractions = [0.0, 0.075, 0.15, 0.3, 0.65, 1.0]
    quarter = (1 - 2**-0.5) / 2  # of half a cosine, a quarter of the way
    expected = [0.04, 0.04 + 0.96 * quarter, 0.52, 1.0, 0.50005, 1e-4]
    assert [one_cycle(fraction) for fraction in fractions] == pytest.approx(expected)


def test_learning_rates_follow_the_schedule_from_their_own_peaks() -> None:
    chosen = OptimiserSettings("sgd", 1e-4, 1e-3, schedule="one-cycle")
    optimiser = build_optimiser(build_network(Settings()), chosen)
    set_learning_rates(optimiser, chosen, 0.15 * chosen.epochs)
    assert {round(group["lr"], 9) for group in optimiser.param_groups} == {5.2e-5, 5.2e-4}
    set_learning_rates(optimiser, replace(chosen, schedule="constant"), 0.15 * chosen.epochs)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-4, 1e-3}
    set_learning_rates(optimiser, replace(chosen, schedule="plateau"), 12.5, [0.0] * 12)
    assert {round(group["lr"], 9) for group in optimiser.param_groups} == {1e-5, 1e-4}


def test_a_plateau_begins_with_a_linear_warm_up() -> None:
    found = [plateau(epochs, [0.5] * int(epochs)) for epochs in (0, 1, 2.5, 4, 5, 5.5)]
    assert found == pytest.approx([0.04, 0.232, 0.52, 0.808, 1, 1])


SCORES = {
    "ever better": [n / 40 for n in range(40)],
    "never better": [0.3] * 40,
    "worse and worse": [-n / 40 for n in range(40)],
    "the warm-up was better": [0.9] * 5 + [0.1] * 20,
    "better at the last moment": [0.0] * 5 + [*[0.1] * 6, 0.2, *[0.2] * 5, 0.3, *[0.3] * 9],
    "at random": np.random.default_rng(0).random(40).tolist(),
}


@pytest.mark.parametrize("scores", SCORES.values(), ids=SCORES)
def test_a_plateau_lowers_the_rate_as_torch_does(scores: list[float]) -> None:
    given = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(given, "max", REDUCTION, PATIENCE, threshold=0, eps=0)
    rates = []
    for score in scores[WARM_UP_EPOCHS:]:
        theirs.step(score)
        rates.append(given.param_groups[0]["lr"])
    ours = [plateau(done + 0.5, scores[:done]) for done in range(WARM_UP_EPOCHS + 1, len(scores) + 1)]
    assert ours == pytest.approx(rates, rel=1e-12)


def test_the_rates_of_a_plateau() -> None:
    """By hand: 1 for the first score and the 5 that are no better, then a tenth of that, again for 6 epochs."""
    scores = [0.5] * 5 + [0.4] * 14
    rates = [plateau(done, scores[:done]) for done in range(5, 20)]
    assert rates == pytest.approx([1] * 7 + [0.1] * 6 + [0.01] * 2)


def test_a_run_on_a_plateau_resumes_to_the_bit(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Within the warm-up, before the rate is lowered, and after it."""
    monkeypatch.setattr(module, "WARM_UP_EPOCHS", 1)
    monkeypatch.setattr(module, "PATIENCE", 0)
    monkeypatch.setattr(Epoch, "score", property(lambda epoch: -epoch.epoch))
    chosen = replace(STEPS.optimiser, name="adam", schedule="plateau", epochs=4, batch_size=8)
    settings = replace(STEPS, optimiser=chosen)
    whole, stopped = fit(opened(store), tmp_path / "whole", settings), tmp_path / "stopped"
    ends = metrics(whole)["steps"].cumsum().tolist()
    for number, at in enumerate((1, ends[2] - 1, ends[3] - 1)):
        with pytest.raises(StoppedError):
            fit(opened(store), stopped, settings, resume=number > 0, progress=send_at(at, signal.SIGTERM))
        next_second()
    assert_same_run(whole, fit(opened(store), stopped, settings, resume=True))
    assert metrics(whole)["learning_rate"][1:].tolist() == pytest.approx([1e-3, 1e-3, 1e-4])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw"])
def test_every_parameter_is_in_the_group_it_belongs_to(name: str) -> None:
    network = build_network(Settings())
    chosen = OptimiserSettings(name, 1e-4, 1e-3, momentum=0.9, weight_decay=0.05)  # type: ignore[arg-type]
    found: dict[int, tuple[float, float]] = {}
    for group in build_optimiser(network, chosen).param_groups:
        assert group.get("momentum", 0.9) == 0.9
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


def test_adam_has_the_decay_in_its_gradient() -> None:
    """As torch.optim.Adam, where AdamW takes it off the weights."""
    network = build_network(Settings().only(("audio",)))
    first = build_optimiser(network, OptimiserSettings("adam", weight_decay=0.05))
    assert type(first) is torch.optim.Adam
    assert type(build_optimiser(network, OptimiserSettings("adamw"))) is torch.optim.AdamW


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
