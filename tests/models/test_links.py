"""From logits to votes to numbers and back, and fusion as that of outputs tables is, for every kind of task."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from abaw_expr.models.links import Votes, link_of
from abaw_expr.outputs.fusion import fuse
from abaw_expr.tasks.task import TASKS, VA, Field, Task

WIDE = replace(VA, name="wide", fields=(Field("valence", -1, 1, -5, False), Field("arousal", 0, 10, -5, False)))
"""Values with ranges that differ."""
ALL = [*TASKS.values(), WIDE]
each_task = pytest.mark.parametrize("task", ALL, ids=lambda task: task.name)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return 2 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def of_one_view(task: Task, logits: Tensor) -> Tensor:
    """The numbers [..., C] of logits [..., C]."""
    if task.kind == "classes":
        return logits.exp() / logits.exp().sum(-1, keepdim=True)
    if task.kind == "units":
        return 1 / (1 + (-logits).exp())
    low, high = (torch.tensor([getattr(field, end) for field in task.fields]) for end in ("low", "high"))
    return low + (high - low) * (logits.tanh() + 1) / 2


@each_task
@pytest.mark.parametrize("views", [1, 3])
def test_numbers_are_the_mean_of_those_of_the_views(task: Task, views: int) -> None:
    link, logits = link_of(task), normal(6, views, task.n_columns)
    votes = link.votes(logits)
    assert votes.ndim == 1 + link.event
    torch.testing.assert_close(link.numbers(votes), of_one_view(task, logits).mean(1), rtol=0, atol=1e-12)


@each_task
def test_votes_and_numbers_lead_to_each_other(task: Task) -> None:
    link = link_of(task)
    votes = link.votes(normal(6, 2, task.n_columns))
    numbers = link.numbers(votes)
    torch.testing.assert_close(link.from_numbers(numbers), votes, rtol=0, atol=1e-12)
    torch.testing.assert_close(link.numbers(link.from_numbers(numbers)), numbers, rtol=0, atol=1e-12)


@each_task
def test_numbers_rounded_to_the_ends_give_finite_votes(task: Task) -> None:
    link, ends = link_of(task), torch.tensor([0.0, 1.0]).repeat(1, 6)[:, : task.n_columns]
    votes = link.from_numbers(ends)
    assert votes.isfinite().all()
    torch.testing.assert_close(link.numbers(votes), ends, rtol=0, atol=1e-30)


@each_task
@pytest.mark.parametrize("views", [1, 3])
def test_votes_of_many_heads_are_those_of_each(task: Task, views: int) -> None:
    link, logits = link_of(task), normal(task.n_columns, 4, 5, views)  # [C, Q, B, V]
    found = link.votes_of_heads(logits)
    for head in range(4):
        torch.testing.assert_close(found[head], link.votes(logits[:, head].movedim(0, -1)), rtol=0, atol=1e-12)


@each_task
def test_half_precision_votes_are_float32(task: Task) -> None:
    assert link_of(task).votes(normal(3, 2, task.n_columns).bfloat16()).dtype == torch.float32


def rows_of(task: Task, branches: int, seed: int, absent: float) -> list[Tensor]:
    """Numbers [B, C] of each branch; rows of NaN where it has no vote."""
    link, rng = link_of(task), np.random.default_rng(seed)
    rows = [link.numbers(link.votes(normal(24, 1, task.n_columns, seed=seed + one))) for one in range(branches)]
    return [numbers.masked_fill(torch.from_numpy(rng.random(24) < absent)[:, None], torch.nan) for numbers in rows]


@each_task
@given(
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    seed=st.integers(0, 2**32),
    absent=st.sampled_from([0.0, 0.3, 0.7, 1.0]),
)
def test_fusion_is_that_of_outputs_tables(task: Task, weights: list[int], seed: int, absent: float) -> None:
    link, rows = link_of(task), rows_of(task, len(weights), seed, absent)
    expected = fuse([one.numpy() for one in rows], weights)
    names = [f"b{number}" for number in range(len(weights))]
    votes = {
        name: Votes(link.from_numbers(one.nan_to_num(0.3)), ~one[:, 0].isnan())
        for name, one in zip(names, rows, strict=True)
    }
    fused = link.fuse(votes, dict(zip(names, weights, strict=True)))
    assert fused.present.numpy().tolist() == (~np.isnan(expected[:, 0])).tolist()
    assert fused.value.isfinite().all(), "of rows without a vote too"
    found = link.numbers(fused.value).masked_fill(~fused.present[:, None], torch.nan)
    np.testing.assert_allclose(found.numpy(), expected, rtol=0, atol=2e-6 * max(field.high for field in task.fields))


@each_task
def test_an_absent_vote_has_no_gradient(task: Task) -> None:
    link = link_of(task)
    values = [link.votes(normal(3, 1, task.n_columns, seed=seed)).requires_grad_() for seed in range(2)]
    present = [torch.tensor([True, True, False]), torch.tensor([True, False, True])]
    votes = {name: Votes(*vote) for name, vote in zip("ab", zip(values, present, strict=True), strict=True)}
    fused = link.fuse(votes, {"a": 2, "b": 3}).value
    assert torch.equal(fused[1], values[0][1])
    assert torch.equal(fused[2], values[1][2])
    first, second = torch.autograd.grad(fused.sum(), values)
    for gradient, absent, alone in ((first, 2, 1), (second, 1, 2)):
        assert not gradient[absent].any()
        assert torch.equal(gradient[alone], torch.ones_like(gradient[alone]))


@each_task
@pytest.mark.parametrize("alone", range(4))
def test_one_vote_of_many_is_the_fusion_and_has_all_of_the_gradient(task: Task, alone: int) -> None:
    link = link_of(task)
    values = [link.votes(normal(2, 1, task.n_columns, seed=seed)).requires_grad_() for seed in range(4)]
    votes = {str(place): Votes(value, torch.tensor([place == alone] * 2)) for place, value in enumerate(values)}
    fused = link.fuse(votes, dict.fromkeys(votes, 3)).value
    assert torch.equal(fused, values[alone])
    for place, gradient in enumerate(torch.autograd.grad(fused.sum(), values)):
        assert torch.equal(gradient, torch.full_like(gradient, place == alone))
