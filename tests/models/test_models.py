"""The networks: parameters of the tables, attention by its formula, windows of one pass, missing modalities."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from abaw_expr.errors import SettingsError
from abaw_expr.models.describe import describe
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW, window_maps, window_means
from abaw_expr.models.encoders.rhcnn import RHBlock
from abaw_expr.models.network import Network, build_network, fold_batch_norm
from abaw_expr.models.objectives import build_objective
from abaw_expr.settings import BranchSettings, ModelSettings, Settings
from tests.helpers.branches import BRANCHES
from tests.helpers.networks import SMALL, batch, encoder, everywhere, network, parameters, run, statistics, values

LOSS = build_objective(Settings(), [1 / 8] * 8)

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


def test_description_is_the_tables() -> None:
    described = json.loads(json.dumps(describe(Settings())))
    assert described["parameters"] == {"mcnn": 513_384, "rhcnn": 1_906_024}
    for name, table in (("mcnn", MCNN_TABLE), ("rhcnn", RHCNN_TABLE)):
        assert [tuple(layer.values()) for layer in described["layers"][name]] == table
        assert list(described["layers"][name][0]) == ["name", "kind", "output", "parameters", "multiply_adds"]
        assert described["multiply_adds"][name] == sum(row[4] for row in table)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (Settings(model=ModelSettings(attention=False)), {"mcnn": 103_144, "rhcnn": 266_344}),
        (
            Settings(model=ModelSettings(attention_groups=4)),
            {"mcnn": 103_144 + 109_184, "rhcnn": 266_344 + 435_456},
        ),
        (Settings(model=ModelSettings(mixing_groups=4)).only(("visual",)), {"rhcnn": 1_906_024 - 145_920}),
        (Settings().only(("audio",)), {"mcnn": 513_384}),
    ],
)
def test_parameters_of_the_ablations(settings: Settings, expected: dict[str, int]) -> None:
    assert describe(settings)["parameters"] == expected
    assert parameters(build_network(settings)) == sum(expected.values())


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


def test_views_are_averaged_as_probabilities() -> None:
    net = network(branches=("visual",)).eval()
    pictures = torch.randn(2, 3, *SMALL["visual"])
    each = torch.stack([visual(net, pictures[:, [view]]).exp() for view in range(3)])
    torch.testing.assert_close(visual(net, pictures).exp(), each.mean(0))


def visual(net: Network, pictures: Tensor) -> Tensor:
    """The log probabilities [B, 8] of the visual branch of pictures [B, V, 3, H, W]."""
    every = torch.ones(len(pictures), dtype=torch.bool)
    return net({"visual": pictures}, {"visual": every.nonzero().flatten()}, {}, every)["visual"].value


@pytest.mark.parametrize(("name", "shape"), [("mcnn", (2, 128, 23, 8)), ("rhcnn", (2, 256, 7, 7))])
def test_feature_maps_have_the_tables_size(name: str, shape: tuple[int, ...]) -> None:
    net = encoder(name).eval()
    assert net(torch.randn(2, *net.input_shape)).shape == shape
    assert AUDIO_WINDOW.steps // AUDIO_WINDOW.stride == 23


# Windows of one pass over a stretch of sound

ROWS = AUDIO_WINDOW.steps // AUDIO_WINDOW.stride


def maps_of(chunks: int, rows: int, width: int = 3, bands: int = 2) -> Tensor:
    """Feature maps [G, width, rows, bands]."""
    return torch.randn(chunks, width, rows, bands, generator=torch.Generator().manual_seed(rows), dtype=torch.float64)


def means_of(maps: Tensor, windows: Tensor) -> Tensor:
    return window_means(maps, windows, AUDIO_WINDOW)


def test_mean_of_a_chunk_of_one_window_is_the_plain_mean() -> None:
    maps, windows = maps_of(4, ROWS), torch.stack([torch.tensor([2, 0, 3, 1, 2]), torch.zeros(5, dtype=torch.int64)], 1)
    torch.testing.assert_close(means_of(maps, windows), maps.mean(dim=(2, 3))[windows[:, 0]])


@given(extra=st.integers(0, 40), windows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 40)), max_size=6))
def test_mean_of_whole_rows_is_their_mean(extra: int, windows: list[tuple[int, int]]) -> None:
    maps = maps_of(3, ROWS + extra)
    places = [(chunk, min(row, extra)) for chunk, row in windows]
    steps = torch.tensor([(chunk, AUDIO_WINDOW.stride * row) for chunk, row in places], dtype=torch.int64).reshape(
        -1, 2
    )
    explicit = [maps[chunk, :, row : row + ROWS].mean(dim=(1, 2)) for chunk, row in places]
    expected = torch.stack(explicit) if explicit else maps.new_empty(0, 3)
    torch.testing.assert_close(means_of(maps, steps), expected)


@given(row=st.integers(0, 9), step=st.integers(0, AUDIO_WINDOW.stride))
def test_mean_between_whole_rows_is_linear(row: int, step: int) -> None:
    maps = maps_of(1, ROWS + 10)
    begins = AUDIO_WINDOW.stride * row + torch.tensor([0, step, AUDIO_WINDOW.stride])
    before, between, after = means_of(maps, torch.stack([torch.zeros(3, dtype=torch.int64), begins], 1))
    torch.testing.assert_close(between, before + step / AUDIO_WINDOW.stride * (after - before))


def test_running_sums_keep_their_digits_over_a_long_chunk() -> None:
    """Windows far into a chunk of bfloat16 maps: sums in that type would have lost them."""
    maps = (maps_of(1, 2000).abs() + 1).bfloat16()
    means = means_of(maps, torch.tensor([[0, AUDIO_WINDOW.stride * (2000 - ROWS)]]))
    assert means.dtype == torch.float32
    torch.testing.assert_close(means[0], maps[0, :, -ROWS:].float().mean(dim=(1, 2)), atol=1e-3, rtol=0)


def test_gradient_of_a_mean_is_shared_by_its_rows() -> None:
    maps = maps_of(1, ROWS + 3).requires_grad_()
    (gradient,) = torch.autograd.grad(means_of(maps, torch.tensor([[0, 2]])).sum(), maps)
    share = torch.zeros(ROWS + 3, dtype=torch.float64)
    share[0], share[1:ROWS], share[ROWS] = 0.75, 1, 0.25
    torch.testing.assert_close(gradient[0], (share / ROWS / 2)[None, :, None].expand(3, -1, 2))


@given(windows=st.lists(st.tuples(st.integers(0, 2), st.integers(0, 8 * 9)), max_size=6))
def test_the_map_of_a_window_has_its_mean_and_lies_between_whole_rows(windows: list[tuple[int, int]]) -> None:
    maps = maps_of(3, ROWS + 9)
    given = torch.tensor(windows, dtype=torch.int64).reshape(-1, 2)
    found = window_maps(maps, given, AUDIO_WINDOW)
    assert found.shape == (len(windows), 3, ROWS, 2)
    torch.testing.assert_close(found.mean((2, 3)), means_of(maps, given))
    for own, (chunk, step) in zip(found, windows, strict=True):
        row, left = divmod(step, AUDIO_WINDOW.stride)
        before, after = (maps[chunk, :, start : start + ROWS] for start in (row, row + (left > 0)))
        torch.testing.assert_close(own, torch.lerp(before, after, left / AUDIO_WINDOW.stride))


def audio(dtype: torch.dtype, attention: bool = True) -> Network:
    """A network of a sound branch whose BN has seen something, ready to predict."""
    settings = Settings(model=ModelSettings(attention=attention, dropout=0.0))
    built = network(branches=("audio",), settings=settings)
    (own,) = built.encoders()
    with torch.no_grad():
        own(torch.randn(4, *own.input_shape))
        # That windows differ by more than the tolerance.
        built.own_branches()["audio"].head.get_parameter("1.weight").mul_(30)
    return built.to(dtype).eval()


def heard(net: Network, x: Tensor, windows: Tensor | None = None) -> Tensor:
    """The log probabilities [B, 8] of the audio branch: of plain samples [B, 1, 1, T, 64], or of windows of chunks."""
    samples = len(x) if windows is None else len(windows)
    every, given = torch.ones(samples, dtype=torch.bool), {} if windows is None else {"audio": windows}
    return net({"audio": x}, {"audio": every.nonzero().flatten()}, given, every)["audio"].value


def sound(steps: int, dtype: torch.dtype) -> Tensor:
    return torch.randn(1, 1, steps, 64, generator=torch.Generator().manual_seed(1)).to(dtype)


@pytest.mark.parametrize("attention", [True, False])
def test_chunk_of_one_window_is_the_window(attention: bool) -> None:
    net, x, window = audio(torch.float64, attention), sound(AUDIO_WINDOW.steps, torch.float64), torch.tensor([[0, 0]])
    (own,) = net.encoders()
    with torch.inference_mode():
        torch.testing.assert_close(own.features(x, window), own.features(x[:, None]))
        torch.testing.assert_close(heard(net, x, window), heard(net, x[:, None]))


@pytest.mark.slow
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_probabilities_inside_a_chunk_are_those_of_any_longer_one(dtype: torch.dtype, close: float) -> None:
    net, x = audio(dtype), sound(1600, dtype)
    begin, steps = 20 * AUDIO_WINDOW.stride, AUDIO_WINDOW.steps + 2 * AUDIO_WINDOW.context + 15 * AUDIO_WINDOW.stride
    starts = begin + AUDIO_WINDOW.context + torch.tensor([0, 1, 7, 8, 60, 15 * AUDIO_WINDOW.stride])
    windows = torch.stack([torch.zeros_like(starts), starts], 1)
    with torch.inference_mode():
        long = heard(net, x, windows)
        short = heard(net, x[:, :, begin : begin + steps], windows - torch.tensor([0, begin]))
    torch.testing.assert_close(short, long, rtol=0, atol=close)
    assert long.std(0).max() > 100 * close


@pytest.mark.slow
@pytest.mark.parametrize("step", [0, 3, 7])
@pytest.mark.parametrize(("dtype", "close"), [(torch.float32, 1e-5), (torch.float64, 1e-12)])
def test_sound_beyond_the_context_of_a_window_changes_nothing(dtype: torch.dtype, close: float, step: int) -> None:
    net, x = audio(dtype), sound(800, dtype)
    start = 30 * AUDIO_WINDOW.stride + step
    own, window = (
        slice(start - AUDIO_WINDOW.context, start + AUDIO_WINDOW.steps + AUDIO_WINDOW.context),
        torch.tensor([[0, start]]),
    )
    outside, inside = torch.randn_like(x), x.clone()
    outside[:, :, own] = x[:, :, own]
    inside[:, :, start + AUDIO_WINDOW.steps : start + AUDIO_WINDOW.steps + AUDIO_WINDOW.stride] += 1
    with torch.inference_mode():
        plain, without, within = (heard(net, sounds, window) for sounds in (x, outside, inside))
    torch.testing.assert_close(without, plain, rtol=0, atol=close)
    assert (within - plain).abs().max() > 100 * close  # what is nearer does


# One network of both branches


def test_network_puts_each_answer_in_the_row_of_its_sample() -> None:
    """Windows of one chunk beside pictures, both for some of the samples only."""
    net = network().eval()
    sounds, pictures = sound(AUDIO_WINDOW.steps + 64, torch.float32), batch(2)["visual"]
    rows = {"audio": torch.tensor([0, 3, 4]), "visual": torch.tensor([1, 3])}
    windows = torch.tensor([[0, 0], [0, 11], [0, 64]])
    votes = net({"audio": sounds, "visual": pictures}, rows, {"audio": windows}, torch.ones(5, dtype=torch.bool))
    alone = {name: network(branches=(name,)).eval() for name in BRANCHES}
    for name, one in alone.items():
        one.branches[name] = net.branches[name]
    torch.testing.assert_close(votes["audio"].value[rows["audio"]], heard(alone["audio"], sounds, windows))
    torch.testing.assert_close(votes["visual"].value[rows["visual"]], visual(alone["visual"], pictures))
    uniform = torch.full((8,), -math.log(8))
    for name, absent in (("audio", [1, 2]), ("visual", [0, 2, 4])):
        assert votes[name].value.shape == (5, 8)
        assert all(torch.equal(votes[name].value[row], uniform) for row in absent)
        assert votes[name].present.nonzero().flatten().equal(rows[name])


def test_an_empty_batch_moves_nothing() -> None:
    net, nothing = network(), {name: x[:0] for name, x in batch(1).items()}
    before = statistics(net)
    votes = run(net, nothing, everywhere(0))
    assert [vote.value.shape for vote in votes.values()] == [(0, 8)] * 2
    LOSS(votes, torch.arange(0)).backward()
    assert all(parameter.grad is not None and not parameter.grad.any() for parameter in net.parameters())
    assert all(map(torch.equal, statistics(net), before))


def test_missing_modality_is_seen_by_nothing() -> None:
    net, target = network(), torch.arange(6)
    inputs, present = batch(6), everywhere(6)
    present["visual"] = torch.tensor([True, False, True, True, False, True])
    kept = inputs["visual"][present["visual"]]
    inputs["visual"][~present["visual"]] = 1e6
    twin = copy.deepcopy(net)
    for x in inputs.values():
        x.requires_grad_()

    votes = run(net, inputs, present)
    LOSS(votes, target).backward()
    alone = network(branches=("visual",))
    alone.branches["visual"] = twin.branches["visual"]
    log_p = votes["visual"].value
    torch.testing.assert_close(log_p[present["visual"]], visual(alone, kept))
    torch.testing.assert_close(log_p[~present["visual"]], torch.full((2, 8), -math.log(8)))
    assert votes["visual"].present.equal(present["visual"])
    for actual, of_present in zip(statistics(net.branches["visual"]), statistics(twin.branches["visual"]), strict=True):
        torch.testing.assert_close(actual, of_present)
    gradient = inputs["visual"].grad
    assert gradient is not None
    assert gradient.flatten(1).any(1).equal(present["visual"])


def test_batch_without_a_modality_skips_its_branch() -> None:
    net, present = network(), everywhere(4)
    present["audio"] = ~present["audio"]
    before = statistics(net.branches["audio"])
    LOSS(run(net, batch(4), present), torch.arange(4)).backward()
    assert all(map(torch.equal, statistics(net.branches["audio"]), before))
    for name, moves in (("audio", False), ("visual", True)):
        gradients = [p.grad for p in net.branches[name].parameters() if p.grad is not None]
        assert len(gradients) == len(list(net.branches[name].parameters()))
        assert any(bool(gradient.any()) for gradient in gradients) == moves


def test_grouped_blocks_exchange_channels_by_the_shuffle_alone() -> None:
    torch.manual_seed(0)
    blocks = nn.Sequential(RHBlock(16, 16, groups=4), RHBlock(16, 16, groups=4)).eval()
    x = torch.randn(8, 16, 6, 6)
    changed = x.clone()
    changed[:, 0] += 1
    differs = [(depth(x) != depth(changed)).any(3).any(2).any(0) for depth in (blocks[0], blocks)]
    assert differs[0].nonzero().flatten().tolist() == [0, 4, 8, 12]  # one group of 4, spread over the next 4 groups
    assert differs[1].all()


def test_folding_batch_norm_changes_nothing_but_the_layers() -> None:
    net = network(settings=Settings()).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    sizes = {"audio": (1, 184, 64), "visual": (3, 112, 112)}
    inputs = {name: torch.randn(3, 1, *size).double() for name, size in sizes.items()}
    with torch.inference_mode():
        before = values(net, inputs, everywhere(3))
        fold_batch_norm(net)
        after = values(net, inputs, everywhere(3))
    assert not any(isinstance(module, nn.BatchNorm2d) for module in net.modules())
    assert before.keys() == after.keys() == sizes.keys()
    for name, one in before.items():
        torch.testing.assert_close(one, after[name], rtol=0, atol=1e-10)


def test_a_branch_with_a_reserved_name_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"a branch or stream has a reserved name; found .*keys"):
        build_network(Settings(branches={"keys": BranchSettings("mcnn")}))
