"""What moves the weights: optimiser, learning rate over the run, and the moving mean of the weights."""

import copy
import math

import torch
from torch import nn
from torch.optim import SGD, AdamW, Optimizer

from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.network import Branch, Network
from abaw_expr.settings import OptimiserSettings

WARM_UP = 0.3
"""Share of a one-cycle run in which the learning rate rises (D)."""
_START, _END = 1 / 25, 1e-4
"""Shares of the peak learning rate at the start and the end of one cycle (D)."""


def build_optimiser(network: Network, settings: OptimiserSettings) -> Optimizer:
    """The optimiser over four groups: attention and heads, or the rest; weight matrices, or biases and BN."""
    slow = {id(p) for module in network.modules() if isinstance(module, GCSA) for p in module.parameters()}
    slow |= {id(p) for module in network.modules() if isinstance(module, Branch) for p in module.head.parameters()}
    groups = [
        {"params": params, "peak": peak, "lr": peak, "weight_decay": decay}
        for is_slow, peak in ((False, settings.branch_learning_rate), (True, settings.learning_rate))
        for is_matrix, decay in ((True, settings.weight_decay), (False, 0.0))
        if (params := [p for p in network.parameters() if (id(p) in slow, p.ndim > 1) == (is_slow, is_matrix)])
    ]
    if settings.name == "sgd":
        return SGD(groups, momentum=settings.momentum)
    return AdamW(groups)


def set_learning_rates(optimiser: Optimizer, settings: OptimiserSettings, share: float) -> None:
    """Sets every group's learning rate for a point of the run, `share` in [0, 1)."""
    factor = 1.0 if settings.schedule == "constant" else one_cycle(share)
    for group in optimiser.param_groups:
        group["lr"] = group["peak"] * factor


def one_cycle(share: float) -> float:
    """One-cycle schedule as a share of the peak: half a cosine up over the warm-up, half a cosine down after it.

    A function of the run's share rather than of a step count, since epochs need not have equally many steps.
    """
    if share < WARM_UP:
        return _START + (1 - _START) * (1 - math.cos(math.pi * share / WARM_UP)) / 2
    return _END + (1 - _END) * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP))) / 2


class Average:
    """A network whose weights, and BN statistics, are the moving mean of another's over its steps."""

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self._decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, steps: int) -> None:
        """Takes in the weights after a step; `steps` are done. Early in a run the mean forgets its beginning faster."""
        decay = min(self._decay, (1 + steps) / (10 + steps))
        torch._foreach_lerp_(_floats(self.network), _floats(network), 1 - decay)


def _floats(network: nn.Module) -> list[torch.Tensor]:
    return [tensor for tensor in network.state_dict().values() if tensor.is_floating_point()]
