"""Every task with every kind of branches and every temporal model: it learns, resumes to the bit, and is shared.

Killed and shared are some of them here; `python -m tests.benchmarks.combinations` does it with all.
"""

from pathlib import Path

import pytest
import torch

from abaw_expr.models.network import build_network
from abaw_expr.models.objectives import build_objective
from tests.helpers.combinations import (
    LATE,
    SEQUENCE,
    Combination,
    check_processes,
    check_resume,
    combinations,
    made_up_target,
    some,
)

SAMPLES = 2 * SEQUENCE
SMALL = {"audio": (1, 32, 32), "visual": (3, 32, 32)}


@pytest.mark.slow
@pytest.mark.parametrize("one", combinations(), ids=str)
def test_it_overfits_one_batch_and_gradients_reach_every_parameter(one: Combination) -> None:
    settings = one.settings()
    torch.manual_seed(0)
    network = build_network(settings)
    target, fractions = made_up_target(settings.task_of, SAMPLES)
    objective = build_objective(settings, fractions)
    # The last frame lies beyond the end of its video, and the last but one has no image.
    rows = {"audio": torch.arange(SAMPLES - 1), "visual": torch.arange(SAMPLES - 2)}
    generator = torch.Generator().manual_seed(2)
    inputs = {name: torch.randn(len(own), 1, *SMALL[name], generator=generator) for name, own in rows.items()}
    valid = torch.arange(SAMPLES) < SAMPLES - 1
    optimiser = torch.optim.AdamW(network.parameters(), lr=1e-3)
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


@pytest.mark.slow
@pytest.mark.parametrize("one", some()[1::4], ids=str)
def test_it_resumes_to_the_bit_after_a_kill(one: Combination, store: Path, tmp_path: Path) -> None:
    check_resume(one, store, tmp_path)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(store: Path, tmp_path: Path) -> None:
    check_processes(Combination("va", LATE, "tcn"), store, tmp_path, steps=4)
