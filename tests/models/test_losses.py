"""Proportional fusion and the coarse-fine loss, against the equations written out."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from abaw_expr.models.links import Votes, link_of
from abaw_expr.models.losses import (
    coarse_fine,
    cross_entropy,
    penalty_table,
    weight_table,
    weighted_fractions,
)
from abaw_expr.models.objectives import Objective, build_objective
from abaw_expr.settings import LossSettings, Settings, two_branches
from abaw_expr.tasks.task import EXPR

MU = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6)
NO_MU = LossSettings(mu12=0, mu13=0, mu14=0, mu23=0, mu24=0, mu34=0)
WEIGHTS = st.integers(1, 5)
SEEDS = st.integers(0, 2**32)
EQUAL = [1 / 8] * 8
SHARES = [0.3, 0.05, 0.02, 0.02, 0.2, 0.1, 0.01, 0.3]


def log_probabilities(samples: int, seed: int = 0, spread: float = 2.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    logits = spread * torch.randn(samples, 8, generator=generator, dtype=torch.float64)
    return logits.log_softmax(1).requires_grad_()


def targets(samples: int) -> Tensor:
    return torch.arange(samples) % 8


def everywhere(samples: int) -> Tensor:
    return torch.ones(samples, dtype=torch.bool)


def objective(loss: LossSettings, fractions: Sequence[float], m: int = 1, n: int = 1) -> Objective:
    """The objective of two branches with these weights."""
    both = two_branches()
    branches = {"audio": replace(both["audio"], weight=m), "visual": replace(both["visual"], weight=n)}
    return build_objective(Settings(branches=branches, loss=loss), fractions)


def votes(log_p: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Votes]:
    return {name: Votes(value, present[name]) for name, value in log_p.items()}


def fuse_log(log_pa: Tensor, log_pv: Tensor, m: int, n: int, has_a: Tensor, has_v: Tensor) -> Tensor:
    """The fusion of two branches' log probabilities."""
    both = {"audio": Votes(log_pa, has_a), "visual": Votes(log_pv, has_v)}
    return link_of(EXPR).fuse(both, {"audio": m, "visual": n}).value


@given(m=WEIGHTS, n=WEIGHTS, seed=SEEDS, spread=st.floats(0.1, 20))
def test_fusion_equals_equation_6(m: int, n: int, seed: int, spread: float) -> None:
    log_pa, log_pv = log_probabilities(5, seed, spread), log_probabilities(5, seed + 1, spread)
    expected = (m * log_pa.exp() + n * log_pv.exp()) / (m + n)
    torch.testing.assert_close(fuse_log(log_pa, log_pv, m, n, everywhere(5), everywhere(5)).exp(), expected)


@given(m=WEIGHTS, n=WEIGHTS, seed=SEEDS)
def test_fusion_of_equal_branches_changes_nothing(m: int, n: int, seed: int) -> None:
    log_p = log_probabilities(5, seed)
    torch.testing.assert_close(fuse_log(log_p, log_p, m, n, everywhere(5), everywhere(5)), log_p)


def test_missing_modality_has_no_vote_and_no_gradient() -> None:
    log_pa, log_pv = log_probabilities(3, 0), log_probabilities(3, 1)
    has_a, has_v = torch.tensor([True, True, False]), torch.tensor([True, False, True])
    fused = fuse_log(log_pa, log_pv, 2, 3, has_a, has_v)
    assert torch.equal(fused[1], log_pa[1])
    assert torch.equal(fused[2], log_pv[2])
    torch.testing.assert_close(fused[0].exp(), 0.4 * log_pa[0].exp() + 0.6 * log_pv[0].exp())
    gradient_a, gradient_v = torch.autograd.grad(fused.sum(), (log_pa, log_pv))
    assert torch.equal(gradient_a[1:], torch.tensor([[1.0], [0.0]], dtype=torch.float64).expand(2, 8))
    assert torch.equal(gradient_v[1:], torch.tensor([[0.0], [1.0]], dtype=torch.float64).expand(2, 8))
    torch.testing.assert_close(gradient_a[0] + gradient_v[0], torch.ones(8, dtype=torch.float64))


def test_extreme_logits_stay_finite() -> None:
    logits_a = torch.tensor([[1e4] + [-1e4] * 7, [-1e4] * 7 + [1e4]], requires_grad=True)
    logits_v = torch.tensor([[1e4] + [-1e4] * 7, [1e4] + [-1e4] * 7], requires_grad=True)
    log_p = {"audio": logits_a.log_softmax(1), "visual": logits_v.log_softmax(1)}
    present = {"audio": everywhere(2), "visual": everywhere(2)}
    loss = objective(NO_MU, EQUAL, m=1, n=3)(votes(log_p, present), torch.tensor([3, 0]))
    loss.backward()
    assert loss.item() == pytest.approx((2e4 - math.log(0.75)) / 2)
    for logits in (logits_a, logits_v):
        assert logits.grad is not None
        assert logits.grad.isfinite().all()
        assert logits.grad[0, 3] < 0  # both branches wrong beyond float32: a clamped probability would learn nothing


def test_penalty_table_of_the_default_quadrants() -> None:
    table = penalty_table(MU, EXPR.quadrants)
    neutral, anger, disgust, fear, happiness, sadness, surprise, other = range(8)
    assert torch.equal(table, table.T)
    assert table.diagonal().count_nonzero() == 0
    assert table[other].count_nonzero() == 0
    same_quadrant = table[[anger, anger, disgust, happiness], [disgust, fear, fear, surprise]]
    assert same_quadrant.count_nonzero() == 0
    pairs = [(happiness, anger), (surprise, sadness), (happiness, neutral), (fear, sadness), (disgust, neutral)]
    penalties = [table[pair].item() for pair in [*pairs, (sadness, neutral)]]
    assert penalties == pytest.approx(MU)


def slow_coarse_fine(p: Tensor, target: Tensor, table: Tensor) -> Tensor:
    """Equation 8, a sample and a class at a time."""
    total = torch.zeros((), dtype=p.dtype)
    for i in range(len(p)):
        mu = table[int(p[i].argmax()), int(target[i])].item()
        for e in range(p.shape[1]):
            total = total + (1 + mu) * float(e == target[i]) * p[i, e].log()
    return -total / len(p)


def test_coarse_fine_loss_equals_equation_8() -> None:
    log_p, target, table = log_probabilities(64), targets(64), penalty_table(MU, EXPR.quadrants).double()
    fast, slow = coarse_fine(log_p, target, 1 + table).mean(), slow_coarse_fine(log_p.exp(), target, table)
    torch.testing.assert_close(fast, slow)
    torch.testing.assert_close(torch.autograd.grad(fast, log_p)[0], torch.autograd.grad(slow, log_p)[0])
    assert fast > F.nll_loss(log_p, target)


def test_penalties_are_divided_by_samples_and_not_by_weights() -> None:
    log_p = torch.tensor([[0.7] + [0.3 / 7] * 7] * 4).log()  # favours Neutral; the truth is Anger
    weights = 1 + penalty_table((0.5,) * 6, EXPR.quadrants)
    assert coarse_fine(log_p, torch.ones(4, dtype=torch.long), weights).mean().item() == pytest.approx(
        -1.5 * math.log(0.3 / 7)
    )


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_penalties_it_is_cross_entropy_of_the_mixture(smoothing: float) -> None:
    log_p = {"audio": log_probabilities(16, 0), "visual": log_probabilities(16, 1)}
    present = {"audio": everywhere(16), "visual": everywhere(16)}
    mixture = (2 * log_p["audio"].exp() + 5 * log_p["visual"].exp()) / 7
    loss = objective(replace(NO_MU, label_smoothing=smoothing), EQUAL, m=2, n=5)
    expected = F.cross_entropy(mixture.log(), targets(16), label_smoothing=smoothing)
    torch.testing.assert_close(loss(votes(log_p, present), targets(16)), expected)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_one_branch_without_penalties_is_its_cross_entropy_over_present_samples(smoothing: float) -> None:
    log_p, present = log_probabilities(8), targets(8) != 3
    loss = objective(replace(NO_MU, label_smoothing=smoothing), EQUAL)
    expected = F.cross_entropy(log_p[present], targets(8)[present], label_smoothing=smoothing)
    torch.testing.assert_close(loss({"visual": Votes(log_p, present)}, targets(8)), expected)
    torch.testing.assert_close(
        cross_entropy(log_p, targets(8))[present].mean(), F.nll_loss(log_p[present], targets(8)[present])
    )


@pytest.mark.parametrize("name", ["audio", "visual"])
def test_one_branch_is_the_fusion_of_itself(name: str) -> None:
    """The same loss as of two branches of which only that one has anything to say."""
    log_p, other, present = log_probabilities(32), log_probabilities(32, 1), targets(32) != 3
    settings = LossSettings(every_error=0.1, class_weight=0.5, label_smoothing=0.1)
    loss, table = objective(settings, SHARES, m=2, n=3), penalty_table(settings.mu, EXPR.quadrants)
    alone = loss({name: Votes(log_p, present)}, targets(32))
    both = {"audio": other, "visual": other} | {name: log_p}
    beside = {"audio": ~everywhere(32), "visual": ~everywhere(32)} | {name: present}
    torch.testing.assert_close(alone, loss(votes(both, beside), targets(32)))
    plain = objective(LossSettings(), EQUAL)({name: Votes(log_p, present)}, targets(32))
    torch.testing.assert_close(plain, slow_coarse_fine(log_p[present].exp(), targets(32)[present], table))
    assert plain > F.nll_loss(log_p[present], targets(32)[present])


def test_branch_weight_adds_the_mean_of_the_branches_own_losses() -> None:
    log_p = {"audio": log_probabilities(8, 0), "visual": log_probabilities(8, 1)}
    present = {"audio": targets(8) < 6, "visual": targets(8) > 1}
    fused, both = (
        objective(LossSettings(branch_weight=weight), EQUAL)(votes(log_p, present), targets(8)) for weight in (0.0, 0.4)
    )
    own = [F.nll_loss(log_p[name][present[name]], targets(8)[present[name]]) for name in log_p]
    torch.testing.assert_close(both - fused, 0.4 * (own[0] + own[1]) / 2)


def test_samples_without_any_modality_do_not_count() -> None:
    log_p = {"audio": log_probabilities(8, 0), "visual": log_probabilities(8, 1)}
    present = {"audio": targets(8) < 3, "visual": targets(8) == 4}
    rows = torch.tensor([0, 1, 2, 4])
    loss = objective(LossSettings(branch_weight=1.0), EQUAL)
    some = {name: Votes(*(part[rows] for part in vote)) for name, vote in votes(log_p, present).items()}
    torch.testing.assert_close(loss(votes(log_p, present), targets(8)), loss(some, targets(8)[rows]))


@pytest.mark.parametrize("branches", [("audio",), ("audio", "visual")])
def test_a_batch_without_any_modality_moves_nothing(branches: tuple[str, ...]) -> None:
    log_p = {name: log_probabilities(4) for name in branches}
    absent = {name: Votes(value, ~everywhere(4)) for name, value in log_p.items()}
    loss = objective(LossSettings(branch_weight=1.0), EQUAL)(absent, targets(4))
    assert loss.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(loss, list(log_p.values())))


# Weights of errors and of classes


def test_every_error_adds_one_penalty_to_every_confusion() -> None:
    uniform = weight_table(replace(NO_MU, every_error=0.3), EXPR.quadrants, EQUAL)
    torch.testing.assert_close(uniform, torch.full((8, 8), 1.3) - 0.3 * torch.eye(8))
    both = weight_table(LossSettings(every_error=0.3), EXPR.quadrants, EQUAL)
    torch.testing.assert_close(both, uniform + penalty_table(LossSettings().mu, EXPR.quadrants))
    log_p = log_probabilities(64)
    right = log_p.argmax(1) == targets(64)
    loss = objective(replace(NO_MU, every_error=0.3), EQUAL)
    found = loss({"audio": Votes(log_p, everywhere(64))}, targets(64))
    expected = sum(
        (1.0 if hit else 1.3) * -row[label] for row, label, hit in zip(log_p, targets(64), right, strict=True)
    )
    torch.testing.assert_close(found, torch.as_tensor(expected) / 64)
    assert 0 < right.sum() < 64


@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_class_weight_is_the_share_to_the_power_of_minus_it(power: float) -> None:
    table = weight_table(replace(NO_MU, class_weight=power), EXPR.quadrants, SHARES)
    raw = torch.tensor(SHARES) ** -power
    scale = (torch.tensor(SHARES) * raw).sum()
    torch.testing.assert_close(table, (raw / scale).expand(8, 8))  # by the true class, whatever is favoured
    assert (torch.tensor(SHARES) * table[0]).sum().item() == pytest.approx(1)  # the mean weight stays 1
    weighed = torch.tensor(weighted_fractions(SHARES, power))
    torch.testing.assert_close(weighed, torch.tensor(SHARES) * table[0])
    if power == 1:
        assert weighed.tolist() == pytest.approx(EQUAL)


def test_class_weight_multiplies_the_penalties() -> None:
    settings = LossSettings(every_error=0.2, class_weight=0.5)
    errors, classes = (
        weight_table(part, EXPR.quadrants, SHARES)
        for part in (replace(settings, class_weight=0), replace(NO_MU, class_weight=0.5))
    )
    torch.testing.assert_close(weight_table(settings, EXPR.quadrants, SHARES), errors * classes)


def test_class_without_samples_has_a_weight_all_the_same() -> None:
    fractions = [0.5, 0.5, 0, 0, 0, 0, 0, 0]
    table = weight_table(replace(NO_MU, class_weight=0.7), EXPR.quadrants, fractions)
    assert torch.equal(table, torch.ones(8, 8))
    assert weighted_fractions(fractions, 0.7) == pytest.approx(fractions)


# Batches in parts


@pytest.mark.parametrize("branches", [("audio",), ("visual",), ("audio", "visual")])
@pytest.mark.parametrize("cut", [0, 1, 5, 12])
def test_losses_and_gradients_of_parts_add_up_to_the_whole(branches: tuple[str, ...], cut: int) -> None:
    log_p = {name: log_probabilities(12, seed) for seed, name in enumerate(branches)}
    present = {"audio": targets(12) < 6, "visual": (targets(12) > 1) & (torch.arange(12) != 9)}
    settings = LossSettings(branch_weight=0.4, every_error=0.1, class_weight=0.5, label_smoothing=0.1)
    loss, said = objective(settings, SHARES), votes(log_p, present)
    counts = loss.counts({name: present[name] for name in branches}, targets(12))
    whole = loss(said, targets(12))
    parts = [
        loss({name: Votes(*(part[rows] for part in vote)) for name, vote in said.items()}, targets(12)[rows], counts)
        for rows in (slice(0, cut), slice(cut, None))
    ]
    torch.testing.assert_close(sum(parts), whole)
    of_whole = torch.autograd.grad(whole, list(log_p.values()))
    of_parts = torch.autograd.grad(sum(parts), list(log_p.values()))
    for actual, expected in zip(of_parts, of_whole, strict=True):
        torch.testing.assert_close(actual, expected)


def test_counts_are_those_of_each_modality_and_of_any() -> None:
    present = {"audio": torch.tensor([True, True, False, False]), "visual": torch.tensor([True, False, False, True])}
    counts = objective(LossSettings(), EQUAL).counts(present, targets(4))
    assert {name: int(count) for name, count in counts.items()} == {"audio": 2, "visual": 2, "any": 3}
