"""Models over time: against values of public code, from the past only, and blind beyond the end of a video."""

import copy

import pytest
import torch
from torch import Tensor

from abaw_expr.models.temporal import TCN, TEMPORALS, TCNBlock, Temporal
from tests.helpers.networks import parameters

each_model = pytest.mark.parametrize("name", TEMPORALS)
INPUTS = 16


# Sizes


def test_an_lstm_of_512_features_has_788480_parameters() -> None:
    lstm = TEMPORALS["lstm"](512, 0.1)
    assert parameters(lstm) == 788_480
    assert lstm.width == 256


@pytest.mark.parametrize(("inputs", "stack"), [(512, 2_215_296), (128, 139_104)])
def test_a_tcn_narrows_to_a_quarter_and_normalises(inputs: int, stack: int) -> None:
    tcn = TCN(inputs, 0.1)
    assert tcn.width == inputs // 4
    assert [block.conv1.out_channels for block in tcn.stack if isinstance(block, TCNBlock)] == [
        inputs // 2,
        inputs // 2,
        inputs // 4,
        inputs // 4,
    ]
    assert parameters(tcn) == stack + 2 * tcn.width


def test_a_bilstm_is_torchs_of_both_directions() -> None:
    torch.manual_seed(0)
    own, referee = TEMPORALS["bilstm"](INPUTS, 0.1), torch.nn.LSTM(INPUTS, 128, batch_first=True, bidirectional=True)
    lent = {
        key.partition("lstm.")[2] + ("_reverse" if key.startswith("back") else ""): tensor
        for key, tensor in own.state_dict().items()
    }
    referee.load_state_dict(lent)
    x = torch.randn(3, 12, INPUTS)
    torch.testing.assert_close(own(x, torch.ones(3, 12, dtype=torch.bool)), referee(x)[0])


@each_model
def test_it_runs_under_autocast_on_any_cpu(name: str) -> None:
    """oneDNN has no LSTM in bfloat16 for CPUs without units for it."""
    net, x = TEMPORALS[name](INPUTS, 0.0), torch.randn(2, 12, INPUTS).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        y = net(x, torch.ones(2, 12, dtype=torch.bool))
    y.float().sum().backward()
    assert y.isfinite().all()


# Time


def model(name: str) -> Temporal:
    """A model in float64, that has normalised something if it does."""
    torch.manual_seed(0)
    made = TEMPORALS[name](INPUTS, 0.1).double()
    with torch.no_grad():
        made(features(3, 20), torch.ones(3, 20, dtype=torch.bool))
    return made


def features(stretches: int, frames: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(stretches, frames, INPUTS, generator=generator, dtype=torch.float64)


def seeded(net: Temporal, x: Tensor, valid: Tensor) -> Tensor:
    """What it gives with the same dropout each time."""
    torch.manual_seed(7)
    y: Tensor = net(x, valid)
    return y


@each_model
@pytest.mark.parametrize("frame", [0, 7, 19])
def test_a_frame_depends_on_itself_and_those_that_it_may_see(name: str, frame: int) -> None:
    net, x = model(name).eval(), features(2, 20).requires_grad_()
    y = net(x, torch.ones(2, 20, dtype=torch.bool))
    assert y.shape == (2, 20, net.width)
    (gradient,) = torch.autograd.grad(y[0, frame].sum(), x)
    assert gradient[0, : frame + 1].flatten(1).any(1).all()
    assert gradient[0, frame + 1 :].any(1).tolist() == [not net.causal] * (19 - frame)
    assert not gradient[1].any(), "nor on another stretch"


def test_a_frame_of_a_tcn_sees_121_frames() -> None:
    net, x = model("tcn").eval(), features(1, 200).requires_grad_()
    y = net(x, torch.ones(1, 200, dtype=torch.bool))
    (gradient,) = torch.autograd.grad(y[0, 150].sum(), x)
    seen = gradient[0].any(1).nonzero().flatten()
    assert (int(seen.min()), int(seen.max())) == (150 - 120, 150)


VALID = torch.arange(12) < torch.tensor([[12], [5], [1]])
"""bool [3, 12]: a whole stretch, and two short ones."""


@each_model
@pytest.mark.parametrize("training", [True, False])
def test_frames_beyond_the_end_change_nothing(name: str, training: bool) -> None:
    net, x = model(name).train(training), features(3, 12)
    twin = copy.deepcopy(net)
    other = torch.where(VALID[..., None], x, 100.0)
    x.requires_grad_()
    y, changed = seeded(net, x, VALID), seeded(twin, other, VALID)
    assert torch.equal(y[VALID], changed[VALID])
    for (key, buffer), of_twin in zip(net.named_buffers(), twin.buffers(), strict=True):
        assert torch.equal(buffer, of_twin), key
    (gradient,) = torch.autograd.grad(y[VALID].square().sum(), x)
    assert not gradient[~VALID].any()
    assert gradient[VALID].any(1).all()


@each_model
def test_a_short_stretch_is_as_if_it_were_cut(name: str) -> None:
    net, x = model(name).eval(), features(3, 12)
    y = net(x, VALID)
    for place, frames in enumerate((12, 5, 1)):
        cut = net(x[[place], :frames], VALID[[place], :frames])
        torch.testing.assert_close(y[place, :frames], cut[0], rtol=0, atol=1e-12)


@each_model
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(("stretches", "known"), [(0, 0), (2, 0), (1, 1)])
def test_few_or_no_frames_work(name: str, training: bool, stretches: int, known: int) -> None:
    """No stretch, none with a valid frame, and one with a single frame, of which there is no variance."""
    net = model(name).train(training)
    before = {key: buffer.clone() for key, buffer in net.named_buffers()}
    valid = (torch.arange(12) < known).expand(stretches, 12)
    x = features(stretches, 12).requires_grad_()
    y = net(x, valid)
    assert y.shape == (stretches, 12, net.width)
    assert y.isfinite().all()
    y[valid].sum().backward()
    assert x.grad is not None, "an encoder before it would not run backwards, and other processes wait for its BN"
    for key, parameter in net.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key
        assert known or not parameter.grad.any(), key
    for key, buffer in net.named_buffers():
        assert torch.equal(buffer, before[key]), "nothing to learn a mean and a variance from"
