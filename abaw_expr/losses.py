"""Proportional fusion in log space and the coarse-fine granularity loss (arXiv 2503.11935, equations 6 to 8).

Shapes: N samples, K classes. Log probabilities are normalised: their exponentials sum to 1 over K.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abaw_expr.settings import QUADRANT_PAIRS, LossSettings


def fuse_log(log_pa: Tensor, log_pv: Tensor, m: int, n: int, has_a: Tensor, has_v: Tensor) -> Tensor:
    """log of P = (m P_a + n P_v) / (m + n), [N, K] (equation 6).

    A missing modality has no vote: where `has_a` [N] is false, P is P_v, and the other way round. A sample must have at
    least one modality.
    """
    votes = torch.stack([m * has_a, n * has_v]).to(log_pa.dtype)  # [2, N]
    log_weights = (votes / votes.sum(0)).log()[..., None]  # [2, N, 1]; -inf: no vote, no gradient
    return torch.logaddexp(log_pa + log_weights[0], log_pv + log_weights[1])


def penalty_table(mu: Sequence[float], quadrants: Sequence[int]) -> Tensor:
    """mu of each (predicted, true) pair of classes, [K, K], symmetric.

    `mu` is in the order of `QUADRANT_PAIRS`. Classes of one quadrant, and a class in none (0), have no penalty.
    """
    penalty = {frozenset(pair): value for pair, value in zip(QUADRANT_PAIRS, mu, strict=True)}
    return torch.tensor([[penalty.get(frozenset((j, k)), 0.0) for k in quadrants] for j in quadrants])


def cross_entropy(log_p: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample, [N] (equation 7, before its mean), with that share of the target spread evenly."""
    true = log_p.gather(1, target[:, None])[:, 0]
    return -(1 - label_smoothing) * true - label_smoothing * log_p.mean(1)


def coarse_fine_loss(log_p: Tensor, target: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy weighted by 1 + mu of the class that P favours and the true one, divided by N (equation 8).

    `weights` is 1 + `penalty_table`, [K, K]. The favoured class is a constant to the gradient.
    """
    weight = weights[log_p.argmax(1), target]
    return _mean(weight * cross_entropy(log_p, target, label_smoothing))


class CoarseFineLoss(nn.Module):
    """The loss of a batch, from its branches' log probabilities.

    Of two branches: coarse-fine loss of the fusion, plus `branch_weight` times the mean of the branches' own
    cross-entropies. Of one branch: its cross-entropy. A sample counts where it has a modality that is asked for.
    """

    weights: Tensor

    def __init__(self, settings: LossSettings) -> None:
        super().__init__()
        self.settings = settings
        # Not persistent: the settings already say it, and a checkpoint holds the network only.
        self.register_buffer("weights", 1 + penalty_table(settings.mu, settings.quadrants), persistent=False)

    def forward(self, log_p: Mapping[str, Tensor], present: Mapping[str, Tensor], target: Tensor) -> Tensor:
        """`log_p[branch]` is [N, K], `present[branch]` a boolean [N], `target` [N] class indices."""
        own = torch.stack([self._own(log_p[name], present[name], target) for name in log_p]).mean()
        if len(log_p) == 1:
            return own
        return self._fused(log_p, present, target) + self.settings.branch_weight * own

    def _own(self, log_p: Tensor, has: Tensor, target: Tensor) -> Tensor:
        return _mean(cross_entropy(log_p[has], target[has], self.settings.label_smoothing))

    def _fused(self, log_p: Mapping[str, Tensor], present: Mapping[str, Tensor], target: Tensor) -> Tensor:
        rows = present["audio"] | present["visual"]
        (log_pa, log_pv), (has_a, has_v) = ((x["audio"][rows], x["visual"][rows]) for x in (log_p, present))
        log_fused = fuse_log(log_pa, log_pv, self.settings.m, self.settings.n, has_a, has_v)
        return coarse_fine_loss(log_fused, target[rows], self.weights, self.settings.label_smoothing)


def _mean(losses: Tensor) -> Tensor:
    """Mean over samples; 0 of none, so that an empty batch moves nothing."""
    return losses.sum() / max(len(losses), 1)
