"""The losses of all tasks for any number of branches, against torch's own and against their formulas."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor
from torchmetrics.regression import ConcordanceCorrCoef

from abaw_expr.models.links import Votes
from abaw_expr.models.objectives import Objective, build_objective
from abaw_expr.outputs.fusion import fuse
from abaw_expr.settings import BranchSettings, DataSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import TASKS
from tests.helpers.golden_modules import input_field
from tests.helpers.paths import GOLDEN

NAMES = ("first", "second", "third")
WEIGHTS = (2, 5, 1)
NO_MU = {f"mu{pair}": 0.0 for pair in (12, 13, 14, 23, 24, 34)}
FRACTIONS = {
    "expr": [0.3, 0.05, 0.02, 0.02, 0.2, 0.1, 0.01, 0.3],
    "va": [0.1, 0.2],
    "au": [0.1, 0.2, 0.5, 0.9, 0.0, 1.0, *(0.3,) * 6],
}
"""Some units are never or always active."""
each_task = pytest.mark.parametrize("task", TASKS)
any_number = pytest.mark.parametrize("branches", [1, 2, 3])


def named_branches(count: int) -> dict[str, BranchSettings]:
    return {name: BranchSettings("rhcnn", weight=weight) for name, weight in zip(NAMES[:count], WEIGHTS, strict=False)}


def objective(task: str, branches: int, **loss: Any) -> Objective:
    return build_objective(
        Settings(task, branches=named_branches(branches), loss=LossSettings(**loss)), FRACTIONS[task]
    ).double()


@dataclass(frozen=True)
class Samples:
    """Logits [B, C] and presence [B] by branch, and the target."""

    logits: dict[str, Tensor]
    present: dict[str, Tensor]
    target: Tensor

    def part(self, rows: Any) -> "Samples":
        logits, present = ({name: x[rows] for name, x in xs.items()} for xs in (self.logits, self.present))
        return Samples(logits, present, self.target[rows])

    def votes(self, loss: Objective) -> dict[str, Votes]:
        return {name: Votes(loss.link.votes(x[:, None]), self.present[name]) for name, x in self.logits.items()}


def samples(task: str, branches: int, count: int = 24, seed: int = 0) -> Samples:
    """Votes and labels of which some are absent; those of the second sample are all absent."""
    rng, columns = np.random.default_rng(seed), TASKS[task].n_columns
    names = NAMES[:branches]
    logits = {name: torch.from_numpy(2 * rng.normal(size=(count, columns))).requires_grad_() for name in names}
    present = {name: torch.from_numpy(rng.random(count) < 0.7) for name in names}
    for has in present.values():
        has[0], has[1] = True, False
    if task == "expr":
        return Samples(logits, present, torch.from_numpy(rng.integers(-1, columns, count)))
    truth = rng.uniform(-1, 1, (count, columns)) if task == "va" else rng.integers(0, 2, (count, columns))
    target = np.where(rng.random((count, columns)) < 0.3, np.nan, truth)
    return Samples(logits, present, torch.from_numpy(target.astype(np.float32)))


def fused(given: Samples, loss: Objective) -> Tensor:
    """The fused numbers [B, C] as an outputs table has them (in float32), NaN without a vote."""
    rows = [
        loss.link.numbers(vote.value).masked_fill(~vote.present[:, None], torch.nan)
        for vote in given.votes(loss).values()
    ]
    weights = WEIGHTS[: len(rows)]
    total = sum(weight * one.nan_to_num() for weight, one in zip(weights, rows, strict=True)) / sum(
        weight * ~one[:, :1].isnan() for weight, one in zip(weights, rows, strict=True)
    )
    written = fuse([one.detach().numpy() for one in rows], weights)
    np.testing.assert_allclose(total.detach().numpy(), written, atol=1e-6)  # type: ignore[union-attr]
    return torch.as_tensor(total)


def gradients(loss: Tensor, given: Samples) -> list[Tensor]:
    return list(torch.autograd.grad(loss, [*given.logits.values()], retain_graph=True))


def assert_same(found: Tensor, expected: Tensor, given: Samples, atol: float = 1e-10) -> None:
    """The same loss and the same gradients."""
    torch.testing.assert_close(found, expected, rtol=0, atol=atol, check_dtype=False)
    for one, other in zip(gradients(found, given), gradients(expected, given), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=atol)


# Against torch and formulas


@any_number
@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_without_costs_classes_have_the_cross_entropy_of_the_fusion(branches: int, smoothing: float) -> None:
    loss, given = objective("expr", branches, **NO_MU, label_smoothing=smoothing), samples("expr", branches)
    p = fused(given, loss)
    kept = ~p[:, 0].isnan() & (given.target >= 0)
    assert 0 < kept.sum() < len(kept)
    expected = F.cross_entropy(p[kept].log(), given.target[kept], label_smoothing=smoothing)
    assert_same(loss(given.votes(loss), given.target), expected, given)


@any_number
@pytest.mark.parametrize("power", [0.0, 0.5, 1.0])
def test_units_have_the_binary_cross_entropy_of_the_fusion(branches: int, power: float) -> None:
    loss, given = objective("au", branches, class_weight=power), samples("au", branches)
    p, target = fused(given, loss), given.target.double()
    kept = ~p.isnan() & ~target.isnan()
    assert 0 < kept.sum() < kept.numel()
    positive = torch.tensor([((1 - f) / f) ** power if 0 < f < 1 else 1.0 for f in FRACTIONS["au"]])
    weight = torch.where(target == 1, positive.double(), 1.0)  # of float32, as the network is
    expected = F.binary_cross_entropy(p[kept], target[kept], weight=weight[kept])
    assert_same(loss(given.votes(loss), given.target), expected, given)


def lin(x: np.ndarray, y: np.ndarray) -> float:
    """CCC of truth and prediction, with variances over N."""
    cov = ((x - x.mean()) * (y - y.mean())).mean()
    return float(2 * cov / (x.var() + y.var() + (x.mean() - y.mean()) ** 2))


@any_number
@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_values_have_one_minus_the_ccc_of_each_field(branches: int, weight: float) -> None:
    loss, given = objective("va", branches, branch_weight=weight), samples("va", branches)
    rows = [fused(given, loss)]
    rows += [loss.link.numbers(v.value).masked_fill(~v.present[:, None], torch.nan) for v in given.votes(loss).values()]
    losses, truth = [], given.target.double().numpy()
    for one in (row.detach().numpy() for row in rows):
        fields = []
        for field in range(2):
            kept = ~np.isnan(one[:, field]) & ~np.isnan(truth[:, field])
            x, y = truth[kept, field], one[kept, field]
            fields.append(1 - lin(x, y))
            theirs = ConcordanceCorrCoef()
            theirs.set_dtype(torch.float64)
            theirs.update(*(torch.from_numpy(np.tile(part, 500)) for part in (y, x)))  # it divides by n - 1
            assert fields[-1] == pytest.approx(1 - float(theirs.compute()), abs=1e-3)
        losses.append(np.mean(fields))
    expected = losses[0] + (weight * np.mean(losses[1:]) if branches > 1 else 0.0)
    assert loss(given.votes(loss), given.target).item() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_the_gradient_of_ccc_is_that_of_its_formula(weight: float) -> None:
    loss, given = objective("va", 2, branch_weight=weight), samples("va", 2)
    inputs = [*given.logits.values()]

    def value(*logits: Tensor) -> Tensor:
        moved = Samples(dict(zip(given.logits, logits, strict=True)), given.present, given.target)
        found: Tensor = loss(moved.votes(loss), moved.target)
        return found

    assert torch.autograd.gradcheck(value, inputs)


# CCC of stretches

LENGTH = 6
"""Samples of a stretch: 24 are four stretches."""


def of_stretches(branches: int, length: int = LENGTH, **loss: Any) -> Objective:
    settings = Settings(
        "va",
        branches=named_branches(branches),
        data=DataSettings(sequence=length),
        loss=LossSettings(per_stretch=True, **loss),
        optimiser=OptimiserSettings(batch_size=2 * length),
    )
    return build_objective(settings, FRACTIONS["va"]).double()


@pytest.mark.parametrize("length", [300, 7])
def test_ccc_has_the_golden_values(length: int) -> None:
    """Of one field; the other is not annotated."""
    case = json.loads((GOLDEN / "losses.json").read_text())["ccc"][f"T{length}"]
    first, second = (input_field((2, length, 1), number) for number in range(2))
    truth = 0.7 * first
    values = (0.5 * truth + 0.3 * second + 0.1).expand(-1, -1, 2).flatten(0, 1)
    target = torch.cat([truth, torch.full_like(truth, torch.nan)], -1).flatten(0, 1)
    votes = {"first": Votes(values, torch.ones(2 * length, dtype=torch.bool))}
    loss = of_stretches(1, length)
    assert loss(votes, target).item() == pytest.approx(case["loss_population"], abs=1e-12)
    concatenated = loss.of_any_samples(votes, target)
    assert concatenated.item() == pytest.approx(1 - case["ccc_concatenated_population"], abs=1e-12)
    each = [
        loss({"first": Votes(values[rows], votes["first"].present[rows])}, target[rows]).item()
        for rows in torch.arange(2 * length).split(length)
    ]
    assert each == pytest.approx([1 - ccc for ccc in case["ccc_a_window_population"]], abs=1e-12)


@any_number
@pytest.mark.parametrize("weight", [0.0, 0.6])
def test_stretches_have_the_mean_of_their_own_losses(branches: int, weight: float) -> None:
    """Of those with two annotated samples or more, by numpy."""
    loss, given = of_stretches(branches, branch_weight=weight), samples("va", branches)
    given.target[6:11, 0] = torch.nan  # of the second stretch one valence at most
    rows = [fused(given, loss)]
    rows += [loss.link.numbers(v.value).masked_fill(~v.present[:, None], torch.nan) for v in given.votes(loss).values()]
    losses, truth = [], given.target.double().numpy()
    for one in (row.detach().numpy() for row in rows):
        kept = ~np.isnan(one) & ~np.isnan(truth)
        found = [
            1 - lin(truth[own, field], one[own, field])
            for start in range(0, 24, LENGTH)
            for field in range(2)
            if len(own := start + np.flatnonzero(kept[start : start + LENGTH, field])) >= 2
        ]
        assert 4 <= len(found) < 8
        losses.append(np.mean(found))
    expected = losses[0] + (weight * np.mean(losses[1:]) if branches > 1 else 0.0)
    assert loss(given.votes(loss), given.target).item() == pytest.approx(expected, abs=1e-12)


@any_number
@pytest.mark.parametrize("cuts", [(0,), (6,), (18,), (24,), (6, 6, 12)])
def test_parts_of_whole_stretches_add_up_to_the_batch(branches: int, cuts: tuple[int, ...]) -> None:
    """An empty part, and one without a label, too; by the counts alone, without another pass for sums."""
    loss, given = of_stretches(branches, branch_weight=0.4), samples("va", branches)
    given.target[18:] = torch.nan
    assert loss.additive
    parts = [given.part(slice(*pair)) for pair in pairwise([0, *cuts, 24])]
    whole = loss(given.votes(loss), given.target)
    assert whole.item() > 0.1
    assert_same(in_parts(loss, parts), whole, given, 1e-14)


def test_stretches_without_two_annotated_samples_have_no_loss_and_no_gradient() -> None:
    loss, given = of_stretches(2, branch_weight=0.4), samples("va", 2)
    given.target[:] = torch.nan
    given.target[::LENGTH] = 0.5
    for rows in (slice(0, 0), slice(None)):
        part = given.part(rows)
        found = loss(part.votes(loss), part.target)
        assert found.item() == 0
        assert not any(gradient.any() for gradient in gradients(found, given))


def test_the_gradient_of_the_ccc_of_stretches_is_that_of_its_formula() -> None:
    loss, given = of_stretches(2, branch_weight=0.6), samples("va", 2)

    def value(*logits: Tensor) -> Tensor:
        moved = Samples(dict(zip(given.logits, logits, strict=True)), given.present, given.target)
        found: Tensor = loss(moved.votes(loss), moved.target)
        return found

    assert torch.autograd.gradcheck(value, [*given.logits.values()])


# Absence


@each_task
@any_number
def test_an_absent_vote_has_no_weight_and_no_gradient(task: str, branches: int) -> None:
    loss, given = (
        objective(task, branches, branch_weight=0.4, class_weight=0.5 * (task != "va")),
        samples(task, branches),
    )
    before = loss(given.votes(loss), given.target)
    for name, gradient in zip(given.logits, gradients(before, given), strict=True):
        assert not gradient[~given.present[name]].any()
        assert gradient[given.present[name]].any()
    wild = {name: x.detach().clone() for name, x in given.logits.items()}
    for name, x in wild.items():
        x[~given.present[name]] = 50.0
    torch.testing.assert_close(
        loss(Samples(wild, given.present, given.target).votes(loss), given.target), before, rtol=0, atol=1e-14
    )


@each_task
@any_number
def test_what_is_not_annotated_has_no_gradient(task: str, branches: int) -> None:
    loss, given = objective(task, branches, branch_weight=0.4), samples(task, branches)
    silent = given.target < 0 if task == "expr" else given.target.isnan()
    for gradient in gradients(loss(given.votes(loss), given.target), given):
        assert not gradient[silent].any()


@each_task
@any_number
@pytest.mark.parametrize("count", [0, 6])
def test_a_batch_without_labels_has_no_loss_and_no_gradient(task: str, branches: int, count: int) -> None:
    loss, given = objective(task, branches, branch_weight=0.4), samples(task, branches, 6).part(slice(0, count))
    nothing = torch.full_like(given.target, -1 if task == "expr" else torch.nan)
    found = loss(given.votes(loss), nothing)
    assert found.item() == 0
    for gradient in torch.autograd.grad(found, [*given.logits.values()]):
        assert not gradient.any()
        assert gradient.isfinite().all()
    given = samples(task, branches, 6)
    absent = {name: torch.zeros_like(has) for name, has in given.present.items()}
    found = loss(Samples(given.logits, absent, given.target).votes(loss), given.target)
    assert found.item() == 0
    assert not any(gradient.any() for gradient in torch.autograd.grad(found, [*given.logits.values()]))


@each_task
@any_number
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_one_truth_for_all_gives_a_finite_loss(task: str, branches: int, spread: float) -> None:
    """Where prediction does not vary either, CCC is 0/0."""
    loss, given = objective(task, branches, branch_weight=0.4), samples(task, branches)
    logits = {name: (spread * x.detach()).requires_grad_() for name, x in given.logits.items()}
    same = Samples(logits, given.present, torch.zeros_like(given.target))
    found = loss(same.votes(loss), same.target)
    assert found.isfinite()
    assert all(gradient.isfinite().all() for gradient in gradients(found, same))
    if task == "va":
        assert found.item() == pytest.approx(1.4 if branches > 1 else 1.0, abs=1e-6)


# Parts and order


def in_parts(loss: Objective, parts: Sequence[Samples]) -> Tensor:
    """The sum of the losses of parts, which know the counts and sums of all."""
    counted = [loss.counts(part.present, part.target) for part in parts]
    counts = {name: torch.stack([count[name] for count in counted]).sum() for name in counted[0]}
    sums = None
    if not loss.additive:
        with torch.no_grad():
            sums = torch.stack([loss.sums(part.votes(loss), part.target, counts) for part in parts]).sum(0)
        assert loss.value(sums) == pytest.approx(whole_of(loss, parts).item(), abs=1e-12)
    return torch.stack([loss(part.votes(loss), part.target, counts, sums) for part in parts]).sum()


def whole_of(loss: Objective, parts: Sequence[Samples]) -> Tensor:
    def joined(found: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
        return {name: torch.cat([one[name] for one in found]) for name in found[0]}

    one = Samples(
        joined([p.logits for p in parts]), joined([p.present for p in parts]), torch.cat([p.target for p in parts])
    )
    whole: Tensor = loss(one.votes(loss), one.target)
    return whole


@each_task
@any_number
@pytest.mark.parametrize("cuts", [(0,), (1,), (11,), (24,), (5, 5, 13)])
def test_parts_add_up_to_the_batch(task: str, branches: int, cuts: tuple[int, ...]) -> None:
    """An empty part, and one without a vote or a label, too."""
    others = {} if task == "va" else {"class_weight": 0.5}
    loss, given = objective(task, branches, branch_weight=0.4, **others), samples(task, branches)
    ends = [0, *cuts, 24]
    parts = [given.part(slice(*pair)) for pair in pairwise(ends)]
    whole = loss(given.votes(loss), given.target)
    assert whole.item() > 0.1
    assert_same(in_parts(loss, parts), whole, given)


@each_task
@any_number
def test_the_order_of_samples_does_not_matter(task: str, branches: int) -> None:
    loss, given = objective(task, branches, branch_weight=0.4), samples(task, branches)
    turned = given.part(torch.randperm(24, generator=torch.Generator().manual_seed(1)))
    assert_same(loss(turned.votes(loss), turned.target), loss(given.votes(loss), given.target), given, 1e-12)


@each_task
def test_counts_are_of_labels(task: str) -> None:
    loss, given = objective(task, 2), samples(task, 2)
    known = (given.target >= 0)[:, None] if task == "expr" else ~given.target.isnan()
    first, second = given.present.values()
    assert {name: int(count) for name, count in loss.counts(given.present, given.target).items()} == {
        "first": int((known & first[:, None]).sum()),
        "second": int((known & second[:, None]).sum()),
        "any": int((known & (first | second)[:, None]).sum()),
    }


def test_priors_are_the_mean_label_as_the_loss_weighs_it() -> None:
    shares = np.array(FRACTIONS["expr"])
    assert objective("expr", 2, class_weight=0.5).prior == pytest.approx(shares**0.5 / (shares**0.5).sum())
    assert objective("va", 2).prior == FRACTIONS["va"]
    assert objective("au", 2).prior == pytest.approx(FRACTIONS["au"])
    weighed = objective("au", 2, class_weight=1.0).prior
    assert weighed == pytest.approx([0.5, 0.5, 0.5, 0.5, 0.0, 1.0, *(0.5,) * 6])
