"""Median-enhanced attention and dilated fusion, beyond what the golden values say."""

import pytest
import torch
from torch import nn

from abaw_expr.errors import SettingsError
from abaw_expr.models.dilated_fusion import DilatedFusion
from abaw_expr.models.encoders.mecs import MECS
from tests.helpers.networks import parameters


@pytest.mark.parametrize(("channels", "expected"), [(64, 13_328), (128, 38_944), (256, 127_040)])
def test_parameters_of_mecs(channels: int, expected: int) -> None:
    assert parameters(MECS(channels)) == expected == 1.5 * channels**2 + 112.25 * channels


def test_fusion_of_256_weighted_channels_to_128_has_1035776_parameters() -> None:
    assert parameters(DilatedFusion(256, 128)) == 1_035_776 == 63 * 128**2 + 28 * 128


def test_channels_that_have_no_quarter_are_refused() -> None:
    with pytest.raises(SettingsError, match=r"does not fit the channels.*found 6; expected a multiple of 4"):
        MECS(6)


@pytest.mark.parametrize("order", ["parallel", "sequential"])
def test_a_gate_is_made_of_mean_maximum_and_the_lower_median(order: str) -> None:
    """With strips that give 1 and a point that is the identity, what comes out is the map times its gates."""
    torch.manual_seed(0)
    net, x = MECS(8, order).double(), torch.rand(2, 8, 3, 4, dtype=torch.float64)  # type: ignore[arg-type]
    with torch.no_grad():
        net.point.weight.copy_(torch.eye(8)[..., None, None])
        assert net.point.bias is not None
        net.point.bias.zero_()
        for strip in (net.window, *net.along_w, *net.along_h):
            assert isinstance(strip, nn.Conv2d)
            assert strip.bias is not None
            strip.weight.zero_()
            strip.bias.fill_(1 / 3 if strip in {*net.along_h} and order == "sequential" else 1 / 6)
        y = nn.functional.gelu(x)
        ordered = y.flatten(2).sort(-1).values
        pools = ordered.mean(2), ordered[..., -1], ordered[..., 5]  # of 12 positions the lower middle is number 5
        gate = sum(net.channel(pool[..., None, None]).sigmoid() for pool in pools)
        torch.testing.assert_close(net(x), y * gate, rtol=0, atol=1e-12)


@pytest.mark.parametrize("build", [lambda: MECS(8), lambda: DilatedFusion(8, 8)], ids=["mecs", "fusion"])
def test_one_picture_and_none_train(build: type[nn.Module]) -> None:
    for pictures in (3, 1, 0):
        net, x = build(), torch.rand(pictures, 8, 7, 7, requires_grad=True)
        net(x).sum().backward()
        assert x.grad is not None
        for name, parameter in net.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name


@pytest.mark.parametrize("squared", [True, False])
def test_the_larger_gate_counts(squared: bool) -> None:
    """Without gates of pictures it is that of positions, which is 1/2 where its weights are 0."""
    torch.manual_seed(0)
    net, x = DilatedFusion(4, 4, squared=squared).double().eval(), torch.rand(2, 4, 7, 7, dtype=torch.float64)
    with torch.no_grad():
        net.position_gate.weight.zero_()
        net.picture_gate.weight.fill_(-1)
        whole = net.whole(x.mean((2, 3)))[..., None, None].expand(-1, -1, 7, 7)
        c = torch.cat([*(conv(x) for conv in net.local), whole], 1)
        torch.testing.assert_close(net(x), net.out(c * c / 2 if squared else c / 2))
        net.picture_gate.weight.fill_(1)
        a = c.mean((2, 3)).sum(1)
        assert (a > 0.5).all()
        torch.testing.assert_close(net(x), net.out(a[:, None, None, None] * (c * c if squared else c)))
