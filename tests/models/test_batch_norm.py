"""Batch normalisation over two processes equals torch's own on the joined batch."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, distributed, multiprocessing, nn

from abaw_expr.models.batch_norm import SharedBatchNorm, share_batch_norm
from abaw_expr.models.network import Network, build_network
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import ModelSettings, Settings

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


torch.set_num_threads(1)

CHANNELS = 3
SHARES = {"uneven": (5, 2), "one empty": (0, 6), "the other empty": (6, 0), "one each": (1, 1), "one in all": (0, 1)}
"""Samples of the first and the second process."""
HEARD = {"both": (3, 2), "first deaf": (0, 4), "second deaf": (4, 0)}
"""Samples with sound in the two processes' halves of a batch of 8."""
CPU = torch.device("cpu")
AUDIO = Settings(model=ModelSettings(dropout=0.0)).only(("audio",))


def norm() -> nn.BatchNorm2d:
    """A BN that has seen something, with weights of its own."""
    torch.manual_seed(0)
    made = nn.BatchNorm2d(CHANNELS, eps=1e-3, momentum=0.2)
    for tensor in (made.weight, made.bias, made.running_mean, made.running_var):
        assert tensor is not None
        tensor.data.uniform_(0.5, 1.5)
    return made


def samples(shares: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """The joined batch, far from a mean of 0, and the gradient of its output."""
    generator = torch.Generator().manual_seed(sum(shares))
    x, gradient = (torch.randn(sum(shares), CHANNELS, 4, 5, generator=generator) for _ in range(2))
    return 3 * x + 20, gradient


def network() -> Network:
    torch.manual_seed(0)
    return build_network(AUDIO)


def presence(heard: tuple[int, int]) -> Tensor:
    """bool [8]: the first samples of each half have sound."""
    return torch.cat([torch.arange(4) < count for count in heard])


def learn(net: Network, process: int | None, heard: tuple[int, int]) -> dict[str, Any]:
    """Loss, gradients and statistics of a step on one half of the batch, or on all of it."""
    half = slice(None) if process is None else slice(4 * process, 4 * process + 4)
    present, sound = presence(heard), torch.randn(8, 1, 48, 32, generator=torch.Generator().manual_seed(1))
    objective = build_objective(AUDIO, [1 / 8] * 8)
    counts = objective.counts({"audio": present}, torch.arange(8))
    rows = present[half].nonzero().flatten()
    votes = net({"audio": sound[half][rows, None]}, {"audio": rows}, {}, torch.ones_like(present[half]))
    loss = objective(votes, torch.arange(8)[half], counts)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in net.named_parameters()}
    return {"loss": loss.detach(), "gradients": gradients, "buffers": dict(net.named_buffers())}


def take_part(process: int, folder: Path) -> None:
    """What each of two processes does: its share of every case, saved for the test to compare."""
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=process, world_size=2)
    found: dict[str, Any] = {}
    for case, shares in SHARES.items():
        x, gradient = (whole.split(shares)[process].requires_grad_() for whole in samples(shares))
        shared = SharedBatchNorm(CHANNELS, eps=1e-3, momentum=0.2)
        shared.load_state_dict(norm().state_dict())
        output = shared(x)
        output.backward(gradient.detach())
        found[case] = {
            "output": output.detach(),
            "x": x.grad,
            "weight": shared.weight.grad,
            "bias": shared.bias.grad,
            "state": shared.state_dict(),
        }
    for case, heard in HEARD.items():
        net = network()
        share_batch_norm(net, CPU)
        found[case] = learn(net, process, heard)
    torch.save(found, folder / f"{process}.pt")
    distributed.destroy_process_group()


@pytest.fixture(scope="module")
def halves(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What the two processes found."""
    folder = tmp_path_factory.mktemp("norm")
    multiprocessing.spawn(take_part, (folder,), nprocs=2)
    return [torch.load(folder / f"{process}.pt", weights_only=True) for process in range(2)]


@pytest.mark.parametrize("case", SHARES)
def test_two_processes_normalise_as_one_does_the_joined_batch(halves: list[dict[str, Any]], case: str) -> None:
    first, second = (half[case] for half in halves)
    x, gradient = samples(SHARES[case])
    one = norm()
    output = one(x.requires_grad_())
    output.backward(gradient)
    torch.testing.assert_close(torch.cat([first["output"], second["output"]]), output.detach(), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(torch.cat([first["x"], second["x"]]), x.grad, atol=1e-5, rtol=1e-4)
    for name, parameter in one.named_parameters():
        torch.testing.assert_close(first[name] + second[name], parameter.grad, atol=1e-4, rtol=1e-4)
    for half in (first, second):
        assert half["state"].keys() == one.state_dict().keys()
        for name, buffer in one.named_buffers():
            torch.testing.assert_close(half["state"][name], buffer, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("case", HEARD)
def test_two_halves_of_a_network_learn_as_the_whole_does(halves: list[dict[str, Any]], case: str) -> None:
    """Losses and gradients add up, and statistics are the whole batch's, even where one half has nothing to hear."""
    first, second = (half[case] for half in halves)
    whole = learn(network(), None, HEARD[case])
    torch.testing.assert_close(first["loss"] + second["loss"], whole["loss"])
    assert first["gradients"].keys() == whole["gradients"].keys()
    for name, gradient in whole["gradients"].items():
        torch.testing.assert_close(
            first["gradients"][name] + second["gradients"][name], gradient, atol=1e-4, rtol=1e-3, msg=name
        )
    for name, buffer in whole["buffers"].items():
        for half in (first, second):
            torch.testing.assert_close(half["buffers"][name], buffer, atol=1e-5, rtol=1e-4, msg=name)


def test_prediction_needs_no_company() -> None:
    shared, one = SharedBatchNorm(CHANNELS, eps=1e-3, momentum=0.2).eval(), norm().eval()
    shared.load_state_dict(one.state_dict())
    x, _ = samples((2, 2))
    assert torch.equal(shared(x), one(x))


def test_every_norm_of_a_network_is_shared_and_keeps_what_it_has() -> None:
    plain = network()
    with torch.no_grad():
        next(plain.encoders())(torch.randn(2, 1, 48, 32))
    shared = copy.deepcopy(plain)
    share_batch_norm(shared, CPU)
    norms = {name for name, module in plain.named_modules() if type(module) is nn.BatchNorm2d}
    assert len(norms) == 9
    assert {name for name, module in shared.named_modules() if type(module) is SharedBatchNorm} == norms
    assert not any(type(module) is nn.BatchNorm2d for module in shared.modules())
    assert [name for name, _ in shared.named_parameters()] == [name for name, _ in plain.named_parameters()]
    for name, tensor in plain.state_dict().items():
        assert torch.equal(shared.state_dict()[name], tensor)
