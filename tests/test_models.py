"""The networks: parameter counts of the tables, attention against its formula, missing modalities, learning."""

import copy
import json
import math
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from abaw_expr.errors import SettingsError
from abaw_expr.losses import CoarseFineLoss
from abaw_expr.models.describe import describe
from abaw_expr.models.gcsa import GCSA
from abaw_expr.models.network import ENCODERS, Branch, Network, build_network
from abaw_expr.models.rhcnn import RHBlock
from abaw_expr.settings import LossSettings, ModelSettings

BRANCHES = ("audio", "visual")
# The encoders are convolutional and pool globally: small inputs run the same code in a tenth of the time.
SMALL = {"audio": (1, 48, 32), "visual": (3, 48, 48)}

MCNN_TABLE = [
    ("temporal", "2 x ConvBlock", [64, 46, 16], 14_880, (11 * 184 * 64 + 7 * 32 * 2 * 92 * 32) * 32),
    ("spatial", "2 x ConvBlock", [64, 46, 16], 10_720, (9 * 184 * 64 + 5 * 32 * 2 * 92 * 32) * 32),
    ("local", "2 x ConvBlock", [64, 46, 16], 51_680, (9 * 184 * 64 + 25 * 32 * 2 * 92 * 32) * 32),
    ("join", "ConvBlock", [128, 23, 8], 24_832, 192 * 128 * 46 * 16),
    ("attention", "GCSA", [128, 23, 8], 410_240, 25 * 128**2 * 23 * 8),
    ("head", "Dropout, Linear", [8], 1_032, 128 * 8),
]
RHCNN_TABLE = [
    ("stem1", "Conv2dNormActivation", [32, 56, 56], 928, 9 * 3 * 32 * 56 * 56),
    ("stem2", "Conv2dNormActivation", [64, 28, 28], 18_560, 9 * 32 * 64 * 28 * 28),
    ("stage1", "2 x RHBlock", [64, 28, 28], 11_456, 2 * (64 + 9 + 32 + 64) * 32 * 28 * 28),
    ("stage2", "2 x RHBlock", [128, 14, 14], 47_744, (64 * 4 + 9 + 64 + 128 + 128 + 128 + 9 + 64 + 128) * 64 * 14 * 14),
    (
        "stage3",
        "2 x RHBlock",
        [256, 7, 7],
        185_600,
        (128 * 4 + 9 + 128 + 256 + 256 + 256 + 9 + 128 + 256) * 128 * 7 * 7,
    ),
    ("attention", "GCSA", [256, 7, 7], 1_639_680, 25 * 256**2 * 7 * 7),
    ("head", "Dropout, Linear", [8], 2_056, 256 * 8),
]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small tensors: threads would wait for each other longer than they work."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def batch(samples: int, seed: int = 0) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(samples, *shape, generator=generator) for name, shape in SMALL.items()}


def everywhere(samples: int) -> dict[str, Tensor]:
    return {name: torch.ones(samples, dtype=torch.bool) for name in BRANCHES}


def network(seed: int = 0, branches: tuple[str, ...] = BRANCHES) -> Network:
    torch.manual_seed(seed)
    return build_network(ModelSettings(branches=branches, dropout=0.0), n_classes=8)


def branch(name: str) -> Branch:
    built = network(branches=(name,)).branches[name]
    assert isinstance(built, Branch)
    return built


def parameters(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def statistics(module: nn.Module) -> list[Tensor]:
    return [buffer.clone() for buffer in module.buffers()]


def test_description_is_the_tables() -> None:
    described = json.loads(json.dumps(describe(ModelSettings())))
    assert described["parameters"] == {"mcnn": 513_384, "rhcnn": 1_906_024}
    for name, table in (("mcnn", MCNN_TABLE), ("rhcnn", RHCNN_TABLE)):
        assert [tuple(layer.values()) for layer in described["layers"][name]] == table
        assert list(described["layers"][name][0]) == ["name", "kind", "output", "parameters", "multiply_adds"]
        assert described["multiply_adds"][name] == sum(row[4] for row in table)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ModelSettings(attention=False), {"mcnn": 103_144, "rhcnn": 266_344}),
        (ModelSettings(attention_groups=4), {"mcnn": 103_144 + 109_184, "rhcnn": 266_344 + 435_456}),
        (ModelSettings(mixing_groups=4, branches=("visual",)), {"rhcnn": 1_906_024 - 145_920}),
        (ModelSettings(branches=("audio",)), {"mcnn": 513_384}),
    ],
)
def test_parameters_of_the_ablations(settings: ModelSettings, expected: dict[str, int]) -> None:
    assert describe(settings)["parameters"] == expected
    assert parameters(build_network(settings, n_classes=8)) == sum(expected.values())


@pytest.mark.parametrize(
    ("channels", "groups", "expected"),
    [(64, 1, 102_720), (128, 1, 410_240), (256, 1, 1_639_680), (128, 4, 109_184), (256, 4, 435_456)],
)
def test_parameters_of_the_attention(channels: int, groups: int, expected: int) -> None:
    assert parameters(GCSA(channels, groups)) == expected


@pytest.mark.parametrize(("channels", "groups"), [(6, 1), (8, 4)])
def test_attention_refuses_channels_it_cannot_split(channels: int, groups: int) -> None:
    with pytest.raises(SettingsError, match="does not fit the channels") as error:
        GCSA(channels, groups)
    assert (error.value.found, error.value.expected) == (channels, f"a multiple of {4 * groups}")


def normalise_by_hand(x: Tensor, norm: nn.BatchNorm2d, training: bool) -> Tensor:
    assert norm.running_mean is not None
    assert norm.running_var is not None
    mean, variance = norm.running_mean, norm.running_var
    if training:
        mean, variance = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
    scale = norm.weight / (variance + norm.eps).sqrt()
    return (x - mean[:, None, None]) * scale[:, None, None] + norm.bias[:, None, None]


def attention_by_hand(gcsa: GCSA, x: Tensor, groups: int) -> Tensor:
    """Equations 3 to 5 in plain operations, the channel MLP on channels that were permuted to the end."""
    weights = dict(gcsa.named_parameters())
    first, second = gcsa.spatial[1], gcsa.spatial[4]
    assert isinstance(first, nn.BatchNorm2d)
    assert isinstance(second, nn.BatchNorm2d)
    b, c, h, w = x.shape
    hidden = (x.permute(0, 2, 3, 1) @ weights["channel.0.weight"][:, :, 0, 0].T + weights["channel.0.bias"]).clamp(
        min=0
    )
    mlp = hidden @ weights["channel.2.weight"][:, :, 0, 0].T + weights["channel.2.bias"]
    x = x / (1 + (-mlp.permute(0, 3, 1, 2)).exp())
    x = x.reshape(b, 4, c // 4, h, w).transpose(1, 2).reshape(b, c, h, w)
    y = F.conv2d(x, weights["spatial.0.weight"], weights["spatial.0.bias"], padding=3, groups=groups)
    y = normalise_by_hand(y, first, gcsa.training).clamp(min=0)
    y = F.conv2d(y, weights["spatial.3.weight"], weights["spatial.3.bias"], padding=3, groups=groups)
    return x / (1 + (-normalise_by_hand(y, second, gcsa.training)).exp())


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("groups", [1, 4])
def test_attention_equals_its_formula(groups: int, training: bool) -> None:
    torch.manual_seed(0)
    gcsa = GCSA(16, groups).double()
    for tensor in (*gcsa.parameters(), *gcsa.buffers()):
        if tensor.is_floating_point():
            tensor.data.uniform_(0.1, 0.5)
    gcsa.train(training)
    x = torch.randn(3, 16, 9, 5, dtype=torch.float64, requires_grad=True)
    expected = attention_by_hand(gcsa, x, groups)
    actual = gcsa(x)
    torch.testing.assert_close(actual, expected)
    seed = torch.randn_like(x)
    torch.testing.assert_close(*(torch.autograd.grad(y, x, seed)[0] for y in (actual, expected)))


@pytest.mark.parametrize("name", BRANCHES)
@pytest.mark.parametrize("views", [1, 2])
def test_branch_outputs_of_full_size(name: str, views: int) -> None:
    encoder = ENCODERS[name]
    output = branch(name).eval()(torch.randn(2, views, *encoder.input_shape))
    assert output.features.shape == (2, views, encoder.width)
    assert output.log_p.shape == (2, 8)
    torch.testing.assert_close(output.log_p.exp().sum(1), torch.ones(2))


def test_views_are_averaged_as_probabilities() -> None:
    visual = branch("visual").eval()
    pictures = torch.randn(2, 3, *SMALL["visual"])
    each = torch.stack([visual(pictures[:, view]).log_p.exp() for view in range(3)])
    torch.testing.assert_close(visual(pictures).log_p.exp(), each.mean(0))


@pytest.mark.parametrize("branches", [BRANCHES, ("audio",), ("visual",)])
def test_gradient_reaches_every_parameter(branches: tuple[str, ...]) -> None:
    net, present = network(branches=branches), everywhere(8)
    loss = CoarseFineLoss(LossSettings())
    loss(net(batch(8), present), present, torch.arange(8)).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        # BN takes away what a bias adds just before it.
        assert parameter.grad.any() or name.endswith(("spatial.0.bias", "spatial.3.bias")), name


def test_missing_modality_is_seen_by_nothing() -> None:
    net, loss, target = network(), CoarseFineLoss(LossSettings()), torch.arange(6)
    inputs, present = batch(6), everywhere(6)
    present["visual"] = torch.tensor([True, False, True, True, False, True])
    kept = inputs["visual"][present["visual"]]
    inputs["visual"][~present["visual"]] = 1e6
    twin = copy.deepcopy(net)
    for x in inputs.values():
        x.requires_grad_()

    log_p = net(inputs, present)
    loss(log_p, present, target).backward()
    expected = twin.branches["visual"](kept).log_p
    torch.testing.assert_close(log_p["visual"][present["visual"]], expected)
    torch.testing.assert_close(log_p["visual"][~present["visual"]], torch.full((2, 8), -math.log(8)))
    for actual, of_present in zip(statistics(net.branches["visual"]), statistics(twin.branches["visual"]), strict=True):
        torch.testing.assert_close(actual, of_present)
    gradient = inputs["visual"].grad
    assert gradient is not None
    assert gradient.flatten(1).any(1).equal(present["visual"])


@pytest.mark.parametrize("name", BRANCHES)
def test_batch_with_one_present_sample_trains(name: str) -> None:
    net, present = network(branches=(name,)), torch.arange(4) == 2
    log_p = net(batch(4), {name: present})
    CoarseFineLoss(LossSettings())(log_p, {name: present}, torch.arange(4)).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_batch_without_a_modality_skips_its_branch() -> None:
    net, present = network(), everywhere(4)
    present["audio"] = ~present["audio"]
    before = statistics(net.branches["audio"])
    CoarseFineLoss(LossSettings())(net(batch(4), present), present, torch.arange(4)).backward()
    assert all(map(torch.equal, statistics(net.branches["audio"]), before))
    for name, moves in (("audio", False), ("visual", True)):
        gradients = [p.grad for p in net.branches[name].parameters() if p.grad is not None]
        assert len(gradients) == len(list(net.branches[name].parameters()))
        assert any(bool(gradient.any()) for gradient in gradients) == moves


def test_permuting_the_batch_permutes_the_output() -> None:
    net, order = network().eval(), torch.tensor([2, 0, 3, 1])
    log_p = net(batch(4), everywhere(4))
    permuted = net({name: x[order] for name, x in batch(4).items()}, everywhere(4))
    for name in BRANCHES:
        torch.testing.assert_close(permuted[name], log_p[name][order])


def test_grouped_blocks_exchange_channels_by_the_shuffle_alone() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(RHBlock(16, 16, groups=4), RHBlock(16, 16, groups=4)).eval()
    x = torch.randn(8, 16, 6, 6)
    changed = x.clone()
    changed[:, 0] += 1
    differs = [(depth(x) != depth(changed)).any(3).any(2).any(0) for depth in (blocks[0], blocks)]
    assert differs[0].nonzero().flatten().tolist() == [0, 4, 8, 12]  # one group of 4, spread over the next 4 groups
    assert differs[1].all()


def test_same_seed_same_network() -> None:
    first, again, other = (network(seed)(batch(4), everywhere(4)) for seed in (0, 0, 1))
    for name in BRANCHES:
        assert torch.equal(first[name], again[name])
        assert not torch.allclose(first[name], other[name])


def test_bfloat16_keeps_probabilities_in_float32() -> None:
    with torch.autocast("cpu", torch.bfloat16):
        present = everywhere(4) | {"visual": torch.arange(4) > 0}
        log_p = network()(batch(4), present)
    for name in BRANCHES:
        assert log_p[name].dtype == torch.float32
        torch.testing.assert_close(log_p[name].exp().sum(1), torch.ones(4))


def test_initial_loss_is_that_of_guessing() -> None:
    net, present, target = network(), everywhere(32), torch.arange(32) % 8
    log_p = net(batch(32), present)
    losses = [F.nll_loss(log_p[name], target) for name in BRANCHES]
    assert [loss.item() for loss in losses] == pytest.approx([math.log(8)] * 2, abs=0.15)


@pytest.mark.parametrize("name", BRANCHES)
def test_one_batch_is_learnt_by_heart(name: str) -> None:
    net, present, target = network(branches=(name,)), everywhere(16), torch.arange(16) % 8
    optimiser, loss = torch.optim.Adam(net.parameters(), lr=1e-2), CoarseFineLoss(LossSettings())
    for _ in range(20):
        current = loss(net(batch(16), present), present, target)
        optimiser.zero_grad()
        current.backward()
        optimiser.step()
    assert current.item() < 0.05
