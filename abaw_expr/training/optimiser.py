"""The optimiser, its learning rate schedule, and the EMA of the weights.

Shapes: parameters have the shapes of their layers; matrices have two dimensions or more.
"""

import copy
import math
from collections.abc import Collection, Sequence

import torch
from torch import nn
from torch.optim import SGD, Adam, AdamW, Optimizer

from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.network import Network
from abaw_expr.settings import OptimiserSettings

WARM_UP = 0.3
"""Fraction of a one-cycle run in which the learning rate rises (D)."""
_START, _END = 1 / 25, 1e-4
"""Learning rates at the start (of a warm-up by epochs, too) and the end of one cycle, as fractions of the peak (D)."""
WARM_UP_EPOCHS, PATIENCE, REDUCTION = 5, 5, 0.1
"""Of the schedule plateau (arXiv 2503.10523, D): epochs in which the learning rate rises, epochs without a better score
that leave it as it is, and the factor by which one more lowers it."""


def build_optimiser(network: Network, settings: OptimiserSettings, pretrained: Collection[Encoder] = ()) -> Optimizer:
    """The optimiser over groups by learning rate, and of weight matrices, or biases and BN.

    Attention, heads and what is between encoders and heads have one learning rate, the rest of the encoders another;
    those that are `pretrained` a third, if the settings have one for them.
    """
    rates = [settings.branch_learning_rate, settings.learning_rate, settings.pretrained_learning_rate]
    kind_of = dict.fromkeys(map(id, network.parameters()), 1)
    for encoder in network.encoders():
        kind = 2 if settings.pretrained_learning_rate and encoder in pretrained else 0
        kind_of |= dict.fromkeys(map(id, encoder.parameters()), kind)
        kind_of |= dict.fromkeys(map(id, encoder.attention_parameters()), 1)
    groups = [
        {"params": params, "peak": peak, "lr": peak, "weight_decay": decay}
        for kind, peak in enumerate(rates)
        for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0))
        if (params := [p for p in network.parameters() if (kind_of[id(p)], p.ndim > 1) == (kind, is_matrix)])
    ]
    if settings.name == "sgd":
        return SGD(groups, momentum=settings.momentum)
    return Adam(groups) if settings.name == "adam" else AdamW(groups)


def set_learning_rates(
    optimiser: Optimizer, settings: OptimiserSettings, epochs: float, scores: Sequence[float] = ()
) -> None:
    """Sets the learning rate of every group for the next step.

    `epochs` is how many are done, in parts, and `scores` are the validation scores of the whole ones: the rate is a
    function of the run's history alone, so a resumed run has the same.
    """
    factor = {
        "constant": lambda: 1.0,
        "one-cycle": lambda: one_cycle(epochs / settings.epochs),
        "plateau": lambda: plateau(epochs, scores),
    }[settings.schedule]()
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def one_cycle(fraction: float) -> float:
    """One-cycle schedule as a fraction of the peak: half a cosine up over the warm-up, half a cosine down after it.

    A function of the fraction of the run rather than of the step, since epochs may have different numbers of steps.
    """
    if fraction < WARM_UP:
        return _START + (1 - _START) * (1 - math.cos(math.pi * fraction / WARM_UP)) / 2
    return _END + (1 - _END) * (1 + math.cos(math.pi * (fraction - WARM_UP) / (1 - WARM_UP))) / 2


def plateau(epochs: float, scores: Sequence[float]) -> float:
    """Linear warm-up by epochs, then lower each time the validation score stays on a plateau: a fraction of the peak.

    As torch's ReduceLROnPlateau does it with `mode="max"` and `threshold=0`, which sees the scores after the warm-up.
    """
    if epochs < WARM_UP_EPOCHS:
        return _START + (1 - _START) * epochs / WARM_UP_EPOCHS
    factor, best, waited = 1.0, -math.inf, 0
    for score in scores[WARM_UP_EPOCHS:]:
        best, waited = (score, 0) if score > best else (best, waited + 1)
        if waited > PATIENCE:
            factor, waited = factor * REDUCTION, 0
    return factor


class EMA:
    """A network whose weights and BN statistics are the exponential moving average of another network's."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        """Adds the weights after step `steps`, counted from 1. The decay is smaller early in a run."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(_floats(self.network), _floats(network), 1 - decay)


def _floats(network: nn.Module) -> list[torch.Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
