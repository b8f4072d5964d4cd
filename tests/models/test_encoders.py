"""What is asked of every encoder, over the registry: another encoder is tested by being in it."""

import copy
import math
from dataclasses import replace
from typing import Literal

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

from abaw_expr.errors import SettingsError
from abaw_expr.models.describe import describe
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.mecs import MECS
from abaw_expr.models.encoders.registry import ATTENTIONS, ENCODERS, NO_ATTENTION
from abaw_expr.models.network import build_network
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import BranchSettings, ModelSettings, Settings
from abaw_expr.tasks.task import TASKS
from tests.helpers.branches import BRANCHES
from tests.helpers.networks import PLAIN, batch, encoder, everywhere, network, parameters, run, values

LOSS = build_objective(Settings(), [1 / 8] * 8)


def takes_attention(name: str) -> bool:
    """Whether attention can be put on an encoder of the registry."""
    with torch.device("meta"):
        return bool(ENCODERS[name](PLAIN.model).places)


ATTENDED = [*filter(takes_attention, ENCODERS)]
NOT_ATTENDED = [name for name in ENCODERS if name not in ATTENDED]


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("views", [1, 2])
def test_features_of_full_size(name: str, views: int) -> None:
    net = encoder(name).eval()
    assert net.features(torch.randn(2, views, *net.input_shape)).shape == (2, views, net.width)


@pytest.mark.parametrize("name", ENCODERS)
def test_stages_are_all_of_it_once(name: str) -> None:
    net = encoder(name, attention=NO_ATTENTION)
    own = [id(p) for stage in net.stages() for p in stage.parameters()]
    assert len(own) == len({*own})
    assert {*own} == {id(p) for p in net.parameters()}


@pytest.mark.parametrize("name", ENCODERS)
def test_a_copy_after_a_training_pass_has_its_weights(name: str) -> None:
    """As the EMA copies a network."""
    net = encoder(name)
    net.features(torch.randn(2, 1, *net.input_shape))
    twin = copy.deepcopy(net)
    assert twin.state_dict().keys() == net.state_dict().keys()
    assert all(tensor.equal(net.state_dict()[key]) for key, tensor in twin.state_dict().items())


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_is_described(name: str) -> None:
    described = describe(Settings(branches={"one": BranchSettings(name)}))
    (total,) = described["parameters"].values()
    assert total == parameters(build_network(Settings(branches={"one": BranchSettings(name)})))
    assert sum(row["parameters"] for row in described["layers"][name]) == total
    assert all(row["multiply_adds"] for row in described["layers"][name])


@pytest.mark.parametrize("place", ["last", "middle"])
@pytest.mark.parametrize("attention", [*ATTENTIONS, NO_ATTENTION])
@pytest.mark.parametrize("name", ATTENDED)
def test_every_attention_is_where_it_is_wanted(name: str, attention: str, place: Literal["last", "middle"]) -> None:
    model = replace(PLAIN.model, attention_place=place)
    net, plain = encoder(name, model, attention), encoder(name, model, NO_ATTENTION)
    own = list(net.attention_parameters())
    assert net.features(torch.randn(2, 1, *net.input_shape)).shape == (2, 1, net.width)
    assert parameters(net) == parameters(plain) + sum(p.numel() for p in own)
    if attention == NO_ATTENTION:
        assert not own
        return
    at = place if place in net.places else "last"
    assert sum(p.numel() for p in own) == parameters(ATTENTIONS[attention](net.places[at], model))
    net.features(torch.randn(2, 1, *net.input_shape)).square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("name", NOT_ATTENDED)
def test_an_encoder_that_takes_no_attention_has_none(name: str) -> None:
    assert not [*encoder(name, ModelSettings(attention=True)).attention_parameters()]
    with pytest.raises(SettingsError, match=f"the encoder {name} takes no attention; found 'gcsa'"):
        encoder(name, attention="gcsa")


def test_an_attention_may_differ_from_branch_to_branch() -> None:
    branches = {"audio": BranchSettings("mcnn"), "visual": BranchSettings("rhcnn", "mecs")}
    audio, visual = build_network(Settings(branches=branches)).encoders()
    assert isinstance(audio.attention, GCSA)
    assert isinstance(visual.attention, MECS)
    off = replace(Settings(branches=branches), model=ModelSettings(attention=False))
    assert [type(one.attention) for one in build_network(off).encoders()] == [type(None), MECS]


@pytest.mark.parametrize(
    ("encoder_name", "attention", "told"),
    [
        ("rhcnn", "mesc", "the attention is unknown.*found 'mesc'; expected gcsa or mecs or none.*Did you mean mecs"),
        ("bare", "mecs", "the encoder bare takes no attention; found 'mecs'"),
    ],
)
def test_an_attention_that_there_is_not_is_refused(
    encoder_name: str, attention: str, told: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Bare(Encoder):
        modality, width, input_shape = "visual", 3, (3, 112, 112)

    monkeypatch.setitem(ENCODERS, "bare", lambda settings: Bare())
    with pytest.raises(SettingsError, match=told):
        build_network(Settings(branches={"face": BranchSettings(encoder_name, attention)}))
    assert build_network(Settings(branches={"face": BranchSettings("bare")})), "attention is not asked for by name"


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("views", [1, 2])
def test_branch_outputs_of_full_size(name: str, views: int) -> None:
    net = network(branches=(name,)).eval()
    (own,) = net.encoders()
    log_p = values(net, {name: torch.randn(2, views, *own.input_shape)}, {name: everywhere(2)[name]})[name]
    assert log_p.shape == (2, 8)
    torch.testing.assert_close(log_p.exp().sum(1), torch.ones(2))


@pytest.mark.parametrize("branches", [BRANCHES, *((name,) for name in BRANCHES)])
def test_gradient_reaches_every_parameter(branches: tuple[str, ...]) -> None:
    net, present = network(branches=branches), {name: everywhere(8)[name] for name in branches}
    LOSS(run(net, batch(8), present), torch.arange(8)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # BN takes away what a bias adds just before it.
        assert parameter.grad.any() or name.endswith(("spatial.0.bias", "spatial.3.bias")), name


@pytest.mark.parametrize("name", BRANCHES)
def test_batch_with_one_present_sample_trains(name: str) -> None:
    net, present = network(branches=(name,)), torch.arange(4) == 2
    LOSS(run(net, batch(4), {name: present}), torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


@pytest.mark.parametrize("task", TASKS)
def test_permuting_the_batch_permutes_the_output(task: str) -> None:
    net, order = network(settings=replace(PLAIN, task=task)).eval(), torch.tensor([2, 0, 3, 1])
    log_p = values(net, batch(4), everywhere(4))
    permuted = values(net, {name: x[order] for name, x in batch(4).items()}, everywhere(4))
    for name in BRANCHES:
        torch.testing.assert_close(permuted[name], log_p[name][order])


def test_same_seed_same_network() -> None:
    first, again, other = (values(network(seed), batch(4), everywhere(4)) for seed in (0, 0, 1))
    for name in BRANCHES:
        assert torch.equal(first[name], again[name])
        assert not torch.allclose(first[name], other[name])


def test_bfloat16_keeps_probabilities_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        present = everywhere(4) | {"visual": torch.arange(4) > 0}
        log_p = values(network(), batch(4), present)
    for name in BRANCHES:
        assert log_p[name].dtype == torch.float32
        torch.testing.assert_close(log_p[name].exp().sum(1), torch.ones(4))


def test_initial_loss_is_that_of_guessing() -> None:
    net, present, target = network(), everywhere(32), torch.arange(32) % 8
    log_p = values(net, batch(32), present)
    losses = [F.nll_loss(log_p[name], target) for name in BRANCHES]
    assert [loss.item() for loss in losses] == pytest.approx([math.log(8)] * 2, abs=0.15)


@pytest.mark.slow
@pytest.mark.parametrize("name", BRANCHES)
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    net, present, target = network(branches=(name,)), {name: everywhere(16)[name]}, torch.arange(16) % 8
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    for _ in range(20):
        current = LOSS(run(net, batch(16), present), target)
        optimiser.zero_grad()
        current.backward()
        optimiser.step()
    assert current.item() < 0.05
