"""The coarse-fine granularity loss (arXiv 2503.11935, equations 7 and 8) and the concordance of values, as functions.

Shapes: N samples, K classes, F fields; `...` are networks on the same samples, trained at once.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from abaw_expr.settings import QUADRANT_PAIRS, LossSettings


def penalty_table(mu: Sequence[float], quadrants: Sequence[int]) -> Tensor:
    """mu of each (predicted, true) pair of classes, [K, K], symmetric.

    `mu` is in the order of `QUADRANT_PAIRS`. For classes of the same quadrant, or in no quadrant (0), it is 0.
    """
    mu_of = {frozenset(pair): value for pair, value in zip(QUADRANT_PAIRS, mu, strict=True)}
    return torch.tensor([[mu_of.get(frozenset((j, k)), 0.0) for k in quadrants] for j in quadrants])


def weight_table(settings: LossSettings, quadrants: Sequence[int], fractions: Sequence[float]) -> Tensor:
    """The weight of a sample by (favoured, true) class, [K, K]: 1 + mu, and the controls of the paper's loss.

    `quadrants` [K] are those of the task, unless the settings have some. `fractions` [K] are those of the classes among
    the samples; weights by class do not change the mean of all weights.
    """
    errors = 1 - torch.eye(len(fractions))
    table = 1 + penalty_table(settings.mu, settings.quadrants or quadrants) + settings.every_error * errors
    weighed = torch.tensor(weighted_fractions(fractions, settings.class_weight))
    return table * (weighed / torch.tensor(fractions)).nan_to_num(1.0)  # of a class without samples: 0/0


def weighted_fractions(fractions: Sequence[float], power: float) -> list[float]:
    """Fractions of the classes in the loss, [K], if a sample of a class of fraction f has the weight f ** -`power`."""
    weighed = [fraction ** (1 - power) if fraction else 0.0 for fraction in fractions]
    return [fraction / sum(weighed) for fraction in weighed]


def active_weights(fractions: Sequence[float], power: float) -> list[float]:
    """The weight of a unit's active frames, of which it has that fraction: (inactive / active) ** `power`; [K].

    It is 1 for a unit that is always or never active: nothing can be balanced.
    """
    return [((1 - active) / active) ** power if 0 < active < 1 else 1.0 for active in fractions]


def cross_entropy(log_p: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample (equation 7, before its mean), with `label_smoothing` spread over all classes.

    `log_p` is [..., N, K], `target` [N]; the result is [..., N].
    """
    true = log_p.gather(-1, target.expand(log_p.shape[:-1])[..., None])[..., 0]
    return -(1 - label_smoothing) * true - label_smoothing * log_p.mean(-1)


def coarse_fine(log_p: Tensor, target: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample, [..., N], times 1 + mu of its most probable and its true class (equation 8).

    `log_p` is [..., N, K], `target` [N], `weights` [..., K, K] of `weight_table`. No gradient passes through the choice
    of the most probable class. The paper's loss is the mean over samples: it divides by N, not by the sum of weights.
    """
    favoured = log_p.max(-1).indices  # ten times faster than argmax where there are many networks
    pairs = favoured * log_p.shape[-1] + target
    return weights.flatten(-2).gather(-1, pairs) * cross_entropy(log_p, target, label_smoothing)


def value_moments(values: Tensor, target: Tensor, kept: Tensor) -> Tensor:
    """Count and sums of x, y, x^2, y^2, xy of truth x and prediction y over kept samples: [..., N, F] to [..., F, 6].

    `target` and `kept` are [N, F], or as `values` are. In float64, since a small batch has small variances.
    """
    x, y = (torch.where(kept, one, 0).double() for one in (target, values))
    return torch.stack(torch.broadcast_tensors(kept.double(), x, y, x * x, y * y, x * y), dim=-1).sum(-3)


def concordance(moments: Tensor) -> tuple[Tensor, Tensor]:
    """CCC of each field with variances over N (Lin, Biometrics 1989), and whether it has samples: [..., 6] to [...].

    It is 0 where truth or prediction does not vary.
    """
    n, x, y, xx, yy, xy = moments.unbind(-1)
    count = n.clamp(min=1)
    mean_x, mean_y = x / count, y / count
    spread = xx / count - mean_x**2 + yy / count - mean_y**2 + (mean_x - mean_y) ** 2
    return 2 * (xy / count - mean_x * mean_y) / spread.clamp(min=_LEAST_SPREAD), n > 0


_LEAST_SPREAD = 1e-12
"""Where truth and prediction are one constant, their concordance is 0/0."""
