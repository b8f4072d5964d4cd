"""Every task with every kind of branches and every temporal model: it learns, resumes to the bit, and is shared.

Killed and shared are some of them here; `python -m tests.benchmarks.combinations` does it with all.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from abaw_expr.models import batch_norm
from abaw_expr.models.batch_norm import SharedBatchNorm, share_batch_norm
from abaw_expr.models.network import build_network
from abaw_expr.models.objectives import build_objective
from tests.helpers.combinations import (
    LATE,
    SEQUENCE,
    Combination,
    check_processes,
    check_resume,
    combinations,
    large,
    made_up_target,
    some,
)

SAMPLES = 2 * SEQUENCE


@pytest.mark.slow
@pytest.mark.parametrize("one", [*combinations(), *large()], ids=str)
def test_it_overfits_one_batch_and_gradients_reach_every_parameter(one: Combination) -> None:
    settings = one.settings()
    torch.manual_seed(0)
    network = build_network(settings)
    target, fractions = made_up_target(settings.task_of, SAMPLES)
    objective = build_objective(settings, fractions)
    # The last frame lies beyond the end of its video, and the last but one has no image.
    rows = {name: torch.arange(SAMPLES - (2 if name == "visual" else 1)) for name in one.views}
    generator = torch.Generator().manual_seed(2)
    inputs = {name: torch.randn(len(own), 1, *one.views[name], generator=generator) for name, own in rows.items()}
    valid = torch.arange(SAMPLES) < SAMPLES - 1
    rate = 1e-3 if settings.task_of.kind == "values" else 4e-3  # tanh saturates at the larger one
    optimiser = torch.optim.AdamW(network.parameters(), lr=rate)
    losses: list[float] = []
    while not losses or (losses[-1] > 0.1 * losses[0] and len(losses) < 400):
        optimiser.zero_grad()
        loss = objective(network(inputs, rows, {}, valid), target)
        loss.backward()
        if not losses:
            untouched = [
                name for name, p in network.named_parameters() if p.grad is None or not bool(p.grad.abs().sum() > 0)
            ]
            assert not untouched
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] <= 0.1 * losses[0], f"{losses[0]:.3f} became {losses[-1]:.3f}"


class Told(torch.autograd.Function):
    """The sum over a single process, which tells when it is asked for, forwards and backwards."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, name: str, told: list[str]) -> Tensor:
        ctx.name, ctx.told = name, told
        told.append(f"forwards {name}")
        return x.clone()

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None]:
        ctx.told.append(f"backwards {ctx.name}")
        return gradient, None, None


@pytest.mark.parametrize("one", [*combinations(), *large()], ids=str)
def test_a_process_without_samples_meets_the_others_in_every_sum(
    one: Combination, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose part of a batch lacks a modality, or is empty, sums what the others do, in their order.

    Else they wait for each other for ever.
    """
    settings = one.settings()
    network = build_network(settings)
    share_batch_norm(network, torch.device("cpu"))
    told: list[str] = []
    norms = {name: module for name, module in network.named_modules() if isinstance(module, SharedBatchNorm)}
    here = [""]
    for name, norm in norms.items():
        norm.register_forward_pre_hook(lambda module, given, name=name: here.__setitem__(0, name))
    monkeypatch.setattr(batch_norm, "all_reduce", lambda x: Told.apply(x, here[0], told))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    expected: list[str] = []
    for samples, audio, visual in ((SAMPLES, 2, 3), (SAMPLES, 0, 3), (SAMPLES, 2, 0), (SAMPLES, 0, 0), (0, 0, 0)):
        target, fractions = made_up_target(settings.task_of, SAMPLES)
        rows = {name: torch.arange(visual if name == "visual" else audio) for name in one.views}
        inputs = {modality: torch.randn(len(own), 1, *one.views[modality]) for modality, own in rows.items()}
        votes = network(inputs, rows, {}, torch.ones(samples, dtype=torch.bool))
        build_objective(settings, fractions)(votes, target[:samples]).backward()
        expected = expected or told.copy()
        assert told == expected
        told.clear()
    assert set(norms) == {line.split()[1] for line in expected}


@pytest.mark.slow
@pytest.mark.parametrize("one", some()[1::15], ids=str)
def test_it_resumes_to_the_bit_after_a_kill(one: Combination, store: Path, tmp_path: Path) -> None:
    check_resume(one, store, tmp_path)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(store: Path, tmp_path: Path) -> None:
    check_processes(Combination("va", LATE, "tcn"), store, tmp_path, steps=4)
