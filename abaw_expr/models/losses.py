"""Proportional fusion in log space and the coarse-fine granularity loss (arXiv 2503.11935, equations 6 to 8).

Shapes: N samples, K classes. Log probabilities are normalised: their exponentials sum to 1 over K.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abaw_expr.settings import QUADRANT_PAIRS, LossSettings


def fuse_log(log_pa: Tensor, log_pv: Tensor, m: int, n: int, has_a: Tensor, has_v: Tensor) -> Tensor:
    """log of P = (m P_a + n P_v) / (m + n), [N, K] (equation 6).

    A missing modality has no vote: where `has_a` [N] is false, P is P_v, and the other way round. A sample without any
    is fused as one that has both, for its caller to leave out.
    """
    neither = ~(has_a | has_v)
    votes = torch.stack([m * (has_a | neither), n * (has_v | neither)]).to(log_pa.dtype)  # [2, N]
    log_weights = (votes / votes.sum(0)).log()[..., None]  # [2, N, 1]; -inf: no vote, no gradient
    return torch.logaddexp(log_pa + log_weights[0], log_pv + log_weights[1])


def penalty_table(mu: Sequence[float], quadrants: Sequence[int]) -> Tensor:
    """mu of each (predicted, true) pair of classes, [K, K], symmetric.

    `mu` is in the order of `QUADRANT_PAIRS`. Classes of one quadrant, and a class in none (0), have no penalty.
    """
    penalty = {frozenset(pair): value for pair, value in zip(QUADRANT_PAIRS, mu, strict=True)}
    return torch.tensor([[penalty.get(frozenset((j, k)), 0.0) for k in quadrants] for j in quadrants])


def weight_table(settings: LossSettings, shares: Sequence[float]) -> Tensor:
    """The weight of a sample by (favoured, true) class, [K, K]: 1 + mu, and what the controls of the paper's loss add.

    `shares` are those of the classes among the samples; weights by class leave the mean of all weights as it was.
    """
    errors = 1 - torch.eye(len(shares))
    table = 1 + penalty_table(settings.mu, settings.quadrants) + settings.every_error * errors
    weighed = torch.tensor(weighed_shares(shares, settings.class_weight))
    return table * (weighed / torch.tensor(shares)).nan_to_num(1.0)  # of a class without samples: 0/0


def weighed_shares(shares: Sequence[float], power: float) -> list[float]:
    """Shares of the classes in the loss where a sample weighs its class's share to the power of minus `power`."""
    weighed = [share ** (1 - power) if share else 0.0 for share in shares]
    return [share / sum(weighed) for share in weighed]


def cross_entropy(log_p: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample (equation 7, before its mean), with that share of the target spread evenly.

    `log_p` is [N, K], or [..., N, K] of several networks on the same samples; the result has one dimension less.
    """
    true = log_p.gather(-1, target.expand(log_p.shape[:-1])[..., None])[..., 0]
    return -(1 - label_smoothing) * true - label_smoothing * log_p.mean(-1)


def coarse_fine(log_p: Tensor, target: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample, [N], weighted by 1 + mu of the class that P favours and the true one (equation 8).

    `weights` is [K, K], of `weight_table`. The favoured class is a constant to the gradient. The paper's loss is the
    mean over samples: it divides by N, not by the sum of weights.
    """
    return weights[log_p.argmax(1), target] * cross_entropy(log_p, target, label_smoothing)


Counts = Mapping[str, Tensor]
"""How many samples a loss is the mean over: those of each branch's modality, and under `ANY` those that have one."""
ANY = "any"


def counts_of(present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counts of one batch, whole numbers of no dimension."""
    return {name: has.sum() for name, has in present.items()} | {ANY: torch.stack([*present.values()]).any(0).sum()}


class CoarseFineLoss(nn.Module):
    """The loss of a batch, from its branches' log probabilities.

    Of two branches: coarse-fine loss of the fusion, plus `branch_weight` times the mean of the branches' own
    cross-entropies. Of one branch: coarse-fine loss of what it says alone, of which it is the fusion.

    `shares` are those of the classes among the samples. A sample counts where it has a modality that is asked for; a
    batch without any has a loss of 0 and moves nothing.
    """

    weights: Tensor

    def __init__(self, settings: LossSettings, shares: Sequence[float]) -> None:
        super().__init__()
        self.settings = settings
        # Not persistent: the settings already say it, and a checkpoint holds the network only.
        self.register_buffer("weights", weight_table(settings, shares), persistent=False)

    def forward(
        self,
        log_p: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        target: Tensor,
        counts: Counts | None = None,
    ) -> Tensor:
        """`log_p[branch]` is [N, K], `present[branch]` a boolean [N], `target` [N] class indices.

        `counts` are the samples to divide by, where the batch is a part of a larger one (of several devices, or of
        accumulated gradients) whose parts' losses are to be summed.
        """
        present = {name: present[name] for name in log_p}
        counts = counts_of(present) if counts is None else counts
        if len(log_p) == 1:
            ((name, only),) = log_p.items()
            return self._mean(self._coarse_fine(only, target), present[name], counts[name])
        own = torch.stack(
            [
                self._mean(cross_entropy(log_p[name], target, self.settings.label_smoothing), has, counts[name])
                for name, has in present.items()
            ]
        )
        has_a, has_v = present["audio"], present["visual"]
        fused = fuse_log(log_p["audio"], log_p["visual"], self.settings.m, self.settings.n, has_a, has_v)
        coarse = self._mean(self._coarse_fine(fused, target), has_a | has_v, counts[ANY])
        return coarse + self.settings.branch_weight * own.mean()

    def _coarse_fine(self, log_p: Tensor, target: Tensor) -> Tensor:
        return coarse_fine(log_p, target, self.weights, self.settings.label_smoothing)

    def _mean(self, losses: Tensor, has: Tensor, count: Tensor) -> Tensor:
        return losses.masked_fill(~has, 0.0).sum() / count.clamp(min=1)
