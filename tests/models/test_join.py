"""Joins of features and of feature maps: weights, samples that lack a stream, and what is refused."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from abaw_expr.errors import SettingsError
from abaw_expr.models.cross_modal_attention import CrossModalAttention
from abaw_expr.models.describe import describe
from abaw_expr.models.join import JOINS, CrossAttention, Dilated, equal_weights, key_frame_weights
from abaw_expr.models.network import build_network
from abaw_expr.settings import BranchSettings, DataSettings, ModelSettings, Settings, StreamSettings

WIDTHS = {"sound": (6, 5, 2), "face": (4, 7, 7)}
"""Channels and positions of the maps."""


def dilated() -> Dilated:
    torch.manual_seed(0)
    return Dilated([channels for channels, *_ in WIDTHS.values()], ModelSettings()).double()


def maps(samples: int) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    return {
        name: torch.rand(samples, *shape, generator=generator, dtype=torch.float64) for name, shape in WIDTHS.items()
    }


def joined(*streams: StreamSettings, join: str, temporal: str = "none", key_frames: bool = False) -> Settings:
    named = dict(zip(WIDTHS, streams, strict=True))
    branch = BranchSettings(streams=named, join=join, temporal=temporal, key_frames=key_frames)
    return Settings(branches={"joint": branch}, data=DataSettings(sequence=2))


PRESENT = torch.tensor([[True, True], [True, False], [False, True], [False, False], [True, True]])


EQUAL = equal_weights(PRESENT)


def test_streams_weigh_the_same_and_absent_ones_nothing() -> None:
    expected = [[0.5, 0.5], [1, 0], [0, 1], [0, 0], [0.5, 0.5]]
    assert torch.equal(EQUAL, torch.tensor(expected))


def test_key_frames_weigh_streams_by_their_activity() -> None:
    """w_a = s / (s + e), w_v = e / (s + e); 0 of an absent stream; the same where nothing is said or moves."""
    activity = torch.tensor([[0.9, 0.3], [0.0, 0.7], [0.8, 0.0], [0.4, 0.4], [0.0, 0.0]])
    expected = [[0.75, 0.25], [1, 0], [0, 1], [0, 0], [0.5, 0.5]]
    torch.testing.assert_close(key_frame_weights(activity, PRESENT), torch.tensor(expected))


@given(st.lists(st.tuples(*[st.floats(0, 1, width=32)] * 2, st.booleans(), st.booleans()), min_size=1, max_size=9))
def test_weights_sum_to_one_over_the_streams_that_a_sample_has(rows: list[tuple[float, float, bool, bool]]) -> None:
    activity, present = torch.tensor([row[:2] for row in rows]), torch.tensor([row[2:] for row in rows])
    weights = key_frame_weights(activity, present)
    torch.testing.assert_close(weights.sum(1), present.any(1).float())
    assert not weights[~present].any()
    assert (weights >= 0).all()


@pytest.mark.parametrize("training", [True, False])
def test_what_a_sample_lacks_changes_nothing(training: bool) -> None:
    """Whatever stands in the place of an absent map; and a sample without any has no part in BN and gets zeros."""
    net, given = dilated().train(training), maps(5)
    twin, other = copy.deepcopy(net), {name: x.clone() for name, x in given.items()}
    other["sound"][[2, 3]], other["face"][[1, 3]] = 100.0, -100.0
    y = net(given, EQUAL)
    assert torch.equal(y, twin(other, EQUAL))
    assert not y[3].any()
    without = copy.deepcopy(dilated()).train(training)
    kept = torch.tensor([0, 1, 2, 4])
    torch.testing.assert_close(without({name: x[kept] for name, x in given.items()}, EQUAL[kept]), y[kept])
    for name, buffer in without.named_buffers():
        torch.testing.assert_close(buffer, dict(net.named_buffers())[name])


def test_the_maps_are_narrowed_pooled_weighed_and_fused() -> None:
    net, given = dilated().eval(), maps(2)
    sound, face = (narrow(x) for narrow, x in zip(net.narrow, given.values(), strict=True))
    pooled = torch.nn.functional.adaptive_avg_pool2d(sound, 7)
    expected = net.fusion(torch.cat([pooled / 2, face / 2], 1)).mean((2, 3))
    torch.testing.assert_close(net(given, EQUAL[[0, 4]]), expected)
    alone = net.fusion(torch.cat([0 * pooled, face], 1)).mean((2, 3))
    torch.testing.assert_close(net(given, EQUAL[[2, 2]]), alone)


# Cross-modal attention


def cross_attention(dropout: float = 0.0) -> CrossAttention:
    torch.manual_seed(0)
    return CrossAttention([6, 4], ModelSettings(dropout=dropout)).double()


def features(samples: int, present: Tensor) -> dict[str, Tensor]:
    """Features [B, D] by stream, 0 where a sample lacks it."""
    means = {name: x.mean((2, 3)) for name, x in maps(samples).items()}
    return {name: x * has[:, None] for (name, x), has in zip(means.items(), present.T, strict=True)}


def attended_by_hand(net: CrossModalAttention, x: list[Tensor], present: list[bool]) -> Tensor:
    """The attention of one sample, whose streams have the features x, by its formula: head by head, query by query."""
    projected = [linear(one).reshape(2, 3, 16) for linear, one in zip(net.project, x, strict=True)]
    rows = []
    for head in range(2):
        (queries, keys, values) = ([one[head, part] for one in projected] for part in range(3))
        values = [value * has for value, has in zip(values, present, strict=True)]
        for query, own in zip(queries, values, strict=True):
            scores = [
                (query @ key / 4).exp() if has else torch.tensor(0.0) for key, has in zip(keys, present, strict=True)
            ]
            whole = sum(scores) if any(present) else torch.tensor(1.0)
            rows.append(sum(score / whole * value for score, value in zip(scores, values, strict=True)) + own)
    return net.norm(net.mix(torch.cat(rows)))


def test_streams_attend_to_the_streams_that_a_sample_has() -> None:
    net = cross_attention()
    given = features(5, PRESENT)
    y = net(given, EQUAL)
    assert y.shape == (5, net.width) == (5, 6 + 64)
    assert torch.equal(y[:, :6], given["sound"])
    for sample, present in enumerate(PRESENT.tolist()):
        expected = attended_by_hand(net.attention, [x[sample] for x in given.values()], present)
        torch.testing.assert_close(y[sample, 6:], expected, rtol=0, atol=1e-12)


def test_what_stands_for_an_absent_stream_is_neither_key_nor_value() -> None:
    net, present = cross_attention().attention, PRESENT
    x = [*features(5, torch.ones_like(PRESENT)).values()]
    wild = [torch.where(has[:, None], one, 100.0) for one, has in zip(x, present.T, strict=True)]
    (attention, value), (other, of_wild) = net.attend(x, present), net.attend(wild, present)
    assert torch.equal(value, of_wild)
    assert not value[3].any()
    queries = present[:, None, :, None].expand_as(attention)
    torch.testing.assert_close(attention[queries], other[queries], rtol=0, atol=0)
    assert not attention[1, :, :, 1].any()
    assert not attention[2, :, :, 0].any()


def test_the_gradient_of_the_attention_is_finite_whatever_is_absent() -> None:
    net = cross_attention(dropout=0.3)
    given = {name: x.requires_grad_() for name, x in features(5, PRESENT).items()}
    net(given, EQUAL).square().sum().backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name
    assert all(x.grad is not None and x.grad.isfinite().all() for x in given.values())


@pytest.mark.parametrize("name", JOINS)
def test_every_join_is_described(name: str) -> None:
    settings = joined(StreamSettings("mcnn"), StreamSettings("rhcnn"), join=name)
    described = describe(settings)
    assert described["parameters"]["joint"] == sum(p.numel() for p in build_network(settings).parameters())
    (row,) = (layer for layer in described["layers"]["joint"] if layer["name"] == "join")
    assert bool(row["multiply_adds"]) == bool(row["parameters"])


def test_a_temporal_model_before_a_join_of_maps_is_refused() -> None:
    over_time = joined(StreamSettings("mcnn", temporal="lstm"), StreamSettings("rhcnn"), join="dilated")
    told = r"the join dilated is of feature maps; found 'temporal lstm of sound'; expected none\. Set .* of the branch"
    with pytest.raises(SettingsError, match=told):
        build_network(over_time)
    with pytest.raises(SettingsError, match=r"key frames weigh the feature maps .* found 'the join concatenation'"):
        build_network(joined(StreamSettings("mcnn"), StreamSettings("rhcnn"), join="concatenation", key_frames=True))
    with pytest.raises(SettingsError, match=r"key frames weigh the feature maps .* found 'one stream'"):
        build_network(Settings(branches={"audio": BranchSettings("mcnn", key_frames=True)}))
    behind = joined(StreamSettings("mcnn"), StreamSettings("rhcnn"), join="dilated", temporal="lstm")
    assert build_network(behind), "behind the join it is fine"
