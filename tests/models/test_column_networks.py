"""Branches of one network for each column: what each votes on, and that they have nothing in common."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from abaw_expr.models.branch import Branch
from abaw_expr.models.describe import describe
from abaw_expr.models.links import Votes
from abaw_expr.models.network import Network, build_network
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import BranchSettings, DataSettings, ModelSettings, Settings, StreamSettings
from tests.helpers.networks import batch, everywhere, parameters, run

STREAMS = {"face": StreamSettings("rhcnn", temporal="tcn"), "sound": StreamSettings("mcnn", temporal="tcn")}
PLAIN = ModelSettings(attention=False, dropout=0.0)
WAYS = {
    "of frames": BranchSettings("rhcnn", networks="each"),
    "over time": BranchSettings(streams=STREAMS, join="cross-attention", networks="each"),
}
each_task = pytest.mark.parametrize("task", ["va", "au"])
each_way = pytest.mark.parametrize("way", WAYS)
SAMPLES = 8


def settings_of(task: str, way: str) -> Settings:
    return Settings(task, data=DataSettings(sequence=4), branches={"joint": WAYS[way]}, model=PLAIN)


def built(settings: Settings) -> tuple[Network, dict[str, Branch]]:
    """The network, and those of its branch by their columns."""
    torch.manual_seed(0)
    network = build_network(settings).double()
    return network, network.own_networks()["joint"]


def voted(network: Network, present: dict[str, Tensor] | None = None) -> Votes:
    inputs = {name: x.double() for name, x in batch(SAMPLES).items()}
    read = network.modalities()["joint"]
    given = present or everywhere(SAMPLES)
    return run(network, {name: inputs[name] for name in read}, {name: given[name] for name in read})["joint"]


@each_task
@each_way
def test_each_network_votes_on_its_own_column(task: str, way: str) -> None:
    settings = settings_of(task, way)
    network, own = built(settings)
    columns = settings.task_of.columns
    assert tuple(own) == columns
    votes = voted(network.eval())
    assert votes.value.shape == (SAMPLES, len(columns), *[2] * (task == "au"))
    for number, branch in enumerate(own.values()):
        network.branches["joint"] = branch
        assert torch.equal(voted(network).value, votes.value[:, [number]])
    assert votes.value.flatten(1).std(0).min() > 0


@each_task
@each_way
def test_a_column_moves_its_own_network_alone(task: str, way: str) -> None:
    network, own = built(settings_of(task, way))
    chosen = list(own)[1]
    votes = voted(network)
    votes.value[:, 1].square().sum().backward()
    for column, branch in own.items():
        moved = [parameter.grad is not None and bool(parameter.grad.any()) for parameter in branch.parameters()]
        assert any(moved) == (column == chosen)
    assert len([*network.encoders()]) == len(own) * len(own[chosen].streams)


@each_way
def test_networks_are_built_alike_and_begin_differently(way: str) -> None:
    network, own = built(settings_of("va", way))
    valence, arousal = (dict(branch.named_parameters()) for branch in own.values())
    assert valence.keys() == arousal.keys()
    for name, parameter in valence.items():
        assert parameter.shape == arousal[name].shape
        if parameter.ndim > 1:  # biases and BN may begin with constants
            assert not torch.equal(parameter, arousal[name]), name
    one = build_network(replace(settings_of("va", way), branches={"joint": replace(WAYS[way], networks="one")}))
    (whole,) = one.own_branches().values()
    assert parameters(network) == 2 * (parameters(one) - whole.linear.in_features - 1)


@each_task
@each_way
def test_gradients_reach_every_parameter(task: str, way: str) -> None:
    settings = settings_of(task, way)
    network, own = built(settings)
    present = {"audio": torch.arange(SAMPLES) < 7, "visual": torch.arange(SAMPLES) > 0}
    target = torch.rand(SAMPLES, len(own), generator=torch.Generator().manual_seed(1))
    if task == "au":
        target = (target > 0.5).float()
    loss = build_objective(settings, [0.5] * len(own))({"joint": voted(network, present)}, target)
    loss.backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@each_way
def test_samples_without_a_modality_and_empty_batches_have_no_vote(way: str) -> None:
    network, _ = built(settings_of("va", way))
    nowhere = {name: torch.zeros_like(has) for name, has in everywhere(SAMPLES).items()}
    votes = voted(network, nowhere)
    assert votes.value.shape == (SAMPLES, 2)
    assert not votes.present.any()
    votes.value.sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@each_way
def test_all_networks_are_described(way: str) -> None:
    settings = settings_of("va", way)
    network, _ = built(settings)
    described = describe(settings)
    ((name, rows),) = described["layers"].items()
    assert described["parameters"] == {name: parameters(network)}
    assert {row["name"].split(".")[0] for row in rows} == {"valence", "arousal"}
    plain = describe(replace(settings, branches={"joint": replace(WAYS[way], networks="one")}))["layers"][name]
    assert [row["name"] for row in rows] == [
        f"{column}.{row['name']}" for column in ("valence", "arousal") for row in plain
    ]
