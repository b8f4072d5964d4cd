"""DDAMFN: its size beside the official one, official files as its weights, its input, and its own loss."""

import copy
import json
import pickle
import sys
from dataclasses import replace
from functools import cache
from itertools import combinations
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torchvision.transforms.functional import normalize

from abaw_expr.errors import RunError
from abaw_expr.models.encoders.ddamfn import DDAMFN, DualDirectionHeads, attention_diversity
from abaw_expr.models.encoders.weights import key_map, read_tensors
from abaw_expr.models.network import Network, build_network, fold_batch_norm
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import BranchSettings, Settings, StreamSettings
from abaw_expr.training.embedding_source import Source
from abaw_expr.training.initial_weights import load_weights_files
from tests.helpers.golden_modules import cases_of, input_field, left_over
from tests.helpers.networks import PLAIN, everywhere, parameters, run
from tests.helpers.paths import GOLDEN

GOLD = json.loads((GOLDEN / "ddamfn.json").read_text())
TENSORS: list[str] = cases_of("ddamfn")["ddamfn_8"]["tensors"]
"""Name, shape and role of all tensors of the official network of 8 classes."""
NAMING = key_map("ddamfn")
CLASSIFIER = {"fc.weight", "fc.bias"}
DIVERSITY = json.loads((GOLDEN / "losses.json").read_text())["attention_diversity"]


class Layer(nn.Module):
    """A layer of a pickled official network; `networks.DDAM.Layer` while it is pickled."""


def settings(weights: Path | str = "") -> Settings:
    return replace(PLAIN, branches={"visual": BranchSettings("ddamfn", weights=str(weights))})


def network(weights: Path | str = "") -> Network:
    torch.manual_seed(0)
    return build_network(settings(weights))


def of(net: Network) -> DDAMFN:
    (encoder,) = net.encoders()
    assert isinstance(encoder, DDAMFN)
    return encoder


def images(count: int) -> Tensor:
    return 2 * torch.rand(count, *DDAMFN.input_shape, generator=torch.Generator().manual_seed(3)) - 1


@cache
def official() -> dict[str, Tensor]:
    """A state of the official network: random, and positive, as a variance is."""
    generator = torch.Generator().manual_seed(4)
    state = {}
    for name, shape, role in (line.split() for line in TENSORS):
        sizes = [] if shape == "scalar" else [*map(int, shape.split("x"))]
        state[name] = torch.tensor(7) if role == "count" else torch.rand(sizes, generator=generator) + 0.5
    return state


def as_module(state: dict[str, Tensor]) -> nn.Module:
    """A module that has that state."""
    top = Layer()
    for name, tensor in state.items():
        *path, last = name.split(".")
        inner: nn.Module = top
        for part in path:
            if part not in dict(inner.named_children()):
                inner.add_module(part, Layer())
            inner = inner.get_submodule(part)
        if last.startswith(("running", "num")):
            inner.register_buffer(last, tensor)
        else:
            inner.register_parameter(last, nn.Parameter(tensor))
    return top


# Size


def test_it_has_the_official_parameters_less_those_that_never_run() -> None:
    net = network()
    assert parameters(net) == 4_106_512
    left = left_over(of(net), TENSORS, NAMING.official)
    assert {*left} == {*GOLD["never_used"], *CLASSIFIER}
    never = {name: count for name, count in left.items() if name not in CLASSIFIER}
    assert (len(never), len([count for count in never.values() if count]), sum(never.values())) == (221, 110, 81_424)
    assert {name for name in official() if NAMING.is_unused(name)} == {*left}
    assert parameters(as_module(official())) == 4_187_936 == 4_106_512 + sum(never.values())


def test_its_slopes_start_at_a_quarter() -> None:
    slopes = [module for module in of(network()).modules() if isinstance(module, nn.PReLU)]
    assert len(slopes) == 3 + 34  # of the stem and the last 1x1, and one in each bottleneck; a slope a channel
    assert all(module.weight.eq(0.25).all() for module in slopes)
    official = (line.split() for line in TENSORS if line.endswith("slope"))
    assert sum(map(parameters, slopes)) == sum(int(size) for name, size, _ in official if not NAMING.is_unused(name))


# Official files


def test_an_official_backbone_is_its_features(tmp_path: Path) -> None:
    """Its parts have names of their own, in the order of the features; two more belong to face recognition."""
    names = ("conv1", "conv2_dw", "conv_23", "conv_3", "conv_34", "conv_4", "conv_45", "conv_5", "conv_6_sep")
    state = {}
    for key, tensor in official().items():
        if key.startswith("features."):
            _, number, rest = key.split(".", 2)
            state[f"{names[int(number)]}.{rest}"] = tensor
    more = {"conv_6_dw.conv.weight": torch.rand(512, 1, 7, 7), "linear.conv.weight": torch.rand(256, 512, 1, 1)}
    net, path = of(network()), tmp_path / "backbone.pth"
    drawn = {key: tensor.clone() for key, tensor in net.state_dict().items() if key.startswith(("heads", "pool"))}
    torch.save(as_module(state | more).state_dict(), path)
    net.load(read_tensors(path), path)
    for key, tensor in net.state_dict().items():
        assert tensor.equal(drawn[key] if key in drawn else official()[NAMING.official(key)]), key
    assert net.untrained == "the heads"
    with pytest.raises(RunError, match=r"does not have the heads, which would be random.*embed with --run"):
        Source("ddamfn", str(path)).build()
    with pytest.raises(RunError, match=r"does not fit the encoder.*features\.0\.conv\.weight is missing"):
        net.load({key: tensor for key, tensor in state.items() if key != "conv1.conv.weight"}, path)


@pytest.mark.parametrize("form", ["state", "checkpoint", "module", "own"])
def test_an_official_file_is_its_weights(form: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package, module = ModuleType("networks"), ModuleType("networks.DDAM")
    for name, one in (("networks", package), ("networks.DDAM", module)):
        monkeypatch.setitem(sys.modules, name, one)
    monkeypatch.setattr(module, "Layer", Layer, raising=False)
    monkeypatch.setattr(Layer, "__module__", "networks.DDAM")
    state, net = official(), network(tmp_path / "w.pth")
    expected = {key: state[NAMING.official(key)] for key in of(net).state_dict()}
    forms: dict[str, Any] = {
        "state": state,
        "checkpoint": {"iter": 5, "model_state_dict": state, "optimizer_state_dict": {"state": {}}},
        "module": as_module(state),
        "own": expected,
    }
    torch.save(forms[form], tmp_path / "w.pth")
    load_weights_files(net, settings(tmp_path / "w.pth"))
    for key, tensor in of(net).state_dict().items():
        assert tensor.equal(expected[key]), key


RENAMED, SWAPPED = "cat_head1.CoordAtt.conv2.weight", "features.3.model.8.project.bn.bias"


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({RENAMED: None}, f"{RENAMED} is missing"),
        ({RENAMED: None, "cat_head1.CoordAtt.conv4.weight": torch.zeros(1)}, f"{RENAMED} is missing, cat_head1.Coord"),
        ({SWAPPED: torch.zeros(65)}, f"{SWAPPED} has [65], not [64]"),
        ({"features.9.conv.weight": torch.zeros(1)}, "features.9.conv.weight is unknown"),
        ({"cat_head2.CoordAtt.Linear.bn.bias": torch.zeros(1)}, "cat_head2.CoordAtt.Linear.bn.bias is unknown"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(change: dict[str, Tensor | None], found: str, tmp_path: Path) -> None:
    state = {key: tensor for key, tensor in (official() | change).items() if tensor is not None}
    torch.save({"model_state_dict": state}, tmp_path / "w.pth")
    with pytest.raises(RunError, match=r"does not fit the encoder of branches\.visual\.visual") as error:
        load_weights_files(network(), settings(tmp_path / "w.pth"))
    assert str(error.value.found).startswith(found)
    assert error.value.expected == "the 967 tensors of DDAMFN, each of its shape"


# Input and output


def test_it_sees_images_with_the_statistics_of_imagenet() -> None:
    encoder, x = of(network()).eval(), images(2)
    seen = normalize((x + 1) / 2, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    with torch.inference_mode():
        torch.testing.assert_close(encoder(x), encoder.embed(seen))


@pytest.mark.slow
def test_its_features_are_the_mean_of_its_map() -> None:
    """The depthwise convolution of the weighed map; the map has the positions of the weighed one."""
    encoder, given = of(network()).double().eval(), {}
    encoder.heads.register_forward_hook(lambda _, inputs, y: given.update({"before": inputs[0], "weighed": y}))
    x = images(3).double().unsqueeze(1)
    with torch.inference_mode():
        features, maps = encoder.features(x), encoder.maps(x)
        weighed, gates = given["weighed"], [head(given["before"]) for head in encoder.heads]
        torch.testing.assert_close(features[:, 0], encoder.pool(weighed).flatten(1))
        torch.testing.assert_close(weighed, given["before"] * torch.maximum(*gates))
    assert maps.shape == (3, 1, 512, 7, 7)
    torch.testing.assert_close(maps.mean((3, 4)), features)
    assert (gates[0] != gates[1]).any()
    spread = maps[:, 0] - maps[:, 0].mean((2, 3), keepdim=True)
    torch.testing.assert_close(spread, weighed - weighed.mean((2, 3), keepdim=True))
    assert spread.any(1).all()


@pytest.mark.slow
@pytest.mark.parametrize("join", ["concatenation", "dilated"])
def test_a_join_trains_every_layer(join: str) -> None:
    streams = {"audio": StreamSettings("mcnn"), "visual": StreamSettings("ddamfn")}
    net = build_network(replace(PLAIN, branches={"joint": BranchSettings(streams=streams, join=join)}))
    inputs = {encoder.modality: torch.randn(4, 1, *encoder.input_shape) for encoder in net.encoders()}
    objective = build_objective(Settings(), [1 / 8] * 8)
    objective(run(net, inputs, everywhere(4)), torch.arange(4)).backward()
    assert not [name for name, p in net.named_parameters() if p.grad is None or not p.grad.isfinite().all()]


@pytest.mark.slow
def test_folding_batch_norm_changes_nothing() -> None:
    encoder = of(network()).double().eval()
    for module in encoder.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    x = images(2).double()
    with torch.inference_mode():
        before = encoder(x)
        fold_batch_norm(encoder)
        torch.testing.assert_close(encoder(x), before, rtol=1e-9, atol=1e-9)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in encoder.modules())


# Attention diversity


def golden_heads(count: int, dtype: torch.dtype = torch.float64) -> list[Tensor]:
    return [((input_field((4, 512, 7, 7), number) + 1) / 2).to(dtype) for number in range(count)]


@pytest.mark.parametrize(("count", "name"), [(1, "one_head"), (2, "two_heads"), (3, "three_heads")])
def test_attention_diversity_is_that_of_public_code(count: int, name: str) -> None:
    assert attention_diversity(golden_heads(count)).item() == pytest.approx(DIVERSITY[name], rel=0, abs=1e-9)


def test_attention_diversity_is_computed_in_float32() -> None:
    single = attention_diversity(golden_heads(2, torch.float32))
    assert single.item() == pytest.approx(DIVERSITY["two_heads_float32"], abs=1e-5)
    half = golden_heads(2, torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = attention_diversity(half)
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(attention_diversity([head.double() for head in half]).item(), rel=1e-5)


@pytest.mark.parametrize("count", [2, 3])
def test_attention_diversity_of_equal_heads_is_bounded(count: int) -> None:
    """Public code gives 4.5e15, which is no number to train with."""
    head = golden_heads(1)[0].requires_grad_()
    loss = attention_diversity([head] * count)
    assert loss.item() == pytest.approx(1e6 * len([*combinations(range(count), 2)]))
    (gradient,) = torch.autograd.grad(loss, head)
    assert not gradient.any()


@pytest.mark.slow
def test_its_penalty_is_the_diversity_of_the_last_training_pass_once() -> None:
    encoder, gates = of(network()), list[Tensor]()
    assert encoder.penalty() is None
    for head in encoder.heads:
        head.register_forward_hook(lambda _, __, y: gates.append(y))
    encoder(images(4))
    encoder(images(3))
    penalty = encoder.penalty()
    assert penalty is not None
    assert penalty.shape == ()
    torch.testing.assert_close(penalty, 1 / (gates[2] - gates[3]).square().mean())
    assert encoder.penalty() is None
    penalty.backward()
    assert all(p.grad is not None and p.grad.any() for name, p in encoder.heads.named_parameters() if "along" in name)
    for unseen in (images(0), images(2)):  # a process may have no samples; and prediction has no loss
        encoder(images(2))
        encoder.train(not len(unseen))(unseen)
        assert encoder.penalty() is None


@pytest.mark.slow
def test_a_copy_has_no_gates_of_a_pass() -> None:
    encoder = of(network())
    encoder(images(2))
    copies = [copy.deepcopy(encoder), pickle.loads(pickle.dumps(encoder))]
    assert [one.penalty() for one in copies] == [None, None]
    assert encoder.penalty() is not None
    for one in copies:
        one(images(2))
        assert one.penalty() is not None


@pytest.mark.slow
def test_compiled_heads_have_their_penalty() -> None:
    torch.manual_seed(0)
    heads, x = DualDirectionHeads(16), torch.randn(3, 16, 7, 7)
    twin = copy.deepcopy(heads)
    heads.compile(backend="aot_eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(heads(x), twin(x))
    found, expected = heads.diversity(), twin.diversity()
    assert found is not None
    assert expected is not None
    torch.testing.assert_close(found, expected)
    found.backward()
    expected.backward()
    for own, other in zip(heads.parameters(), twin.parameters(), strict=True):
        assert own.grad is not None
        torch.testing.assert_close(own.grad, other.grad)
