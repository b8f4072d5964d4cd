"""Proportional fusion in log space and the coarse-fine granularity loss (arXiv 2503.11935, equations 6 to 8).

Shapes: N samples, K classes. Log probabilities are normalised: their exponentials sum to 1 over K.
"""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from abaw_expr.settings import QUADRANT_PAIRS, LossSettings


def fuse_log(log_pa: Tensor, log_pv: Tensor, m: int, n: int, has_a: Tensor, has_v: Tensor) -> Tensor:
    """log of P = (m P_a + n P_v) / (m + n), [N, K] (equation 6).

    A missing modality has weight 0: where `has_a` [N] is false, P is P_v, and where `has_v` [N] is false, P is P_a. A
    sample without any modality is fused as if it had both; the caller leaves it out.
    """
    neither = ~(has_a | has_v)
    weights = torch.stack([m * (has_a | neither), n * (has_v | neither)]).to(log_pa.dtype)  # [2, N]
    log_weights = (weights / weights.sum(0)).log()[..., None]  # [2, N, 1]; -inf: weight 0, no gradient
    return torch.logaddexp(log_pa + log_weights[0], log_pv + log_weights[1])


def penalty_table(mu: Sequence[float], quadrants: Sequence[int]) -> Tensor:
    """mu of each (predicted, true) pair of classes, [K, K], symmetric.

    `mu` is in the order of `QUADRANT_PAIRS`. For classes of the same quadrant, or in no quadrant (0), it is 0.
    """
    mu_of = {frozenset(pair): value for pair, value in zip(QUADRANT_PAIRS, mu, strict=True)}
    return torch.tensor([[mu_of.get(frozenset((j, k)), 0.0) for k in quadrants] for j in quadrants])


def weight_table(settings: LossSettings, fractions: Sequence[float]) -> Tensor:
    """The weight of a sample by (favoured, true) class, [K, K]: 1 + mu, and the controls of the paper's loss.

    `fractions` [K] are those of the classes among the samples; weights by class do not change the mean of all weights.
    """
    errors = 1 - torch.eye(len(fractions))
    table = 1 + penalty_table(settings.mu, settings.quadrants) + settings.every_error * errors
    weighed = torch.tensor(weighted_fractions(fractions, settings.class_weight))
    return table * (weighed / torch.tensor(fractions)).nan_to_num(1.0)  # of a class without samples: 0/0


def weighted_fractions(fractions: Sequence[float], power: float) -> list[float]:
    """Fractions of the classes in the loss, [K], if a sample of a class of fraction f has the weight f ** -`power`."""
    weighed = [fraction ** (1 - power) if fraction else 0.0 for fraction in fractions]
    return [fraction / sum(weighed) for fraction in weighed]


def cross_entropy(log_p: Tensor, target: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample (equation 7, before its mean), with `label_smoothing` spread over all classes.

    `log_p` is [N, K], or [..., N, K] of several networks on the same samples, `target` [N]; the result is [..., N].
    """
    true = log_p.gather(-1, target.expand(log_p.shape[:-1])[..., None])[..., 0]
    return -(1 - label_smoothing) * true - label_smoothing * log_p.mean(-1)


def coarse_fine(log_p: Tensor, target: Tensor, weights: Tensor, label_smoothing: float = 0.0) -> Tensor:
    """Cross-entropy of every sample, [N], times 1 + mu of its most probable and its true class (equation 8).

    `log_p` is [N, K], `target` [N], `weights` [K, K] of `weight_table`. No gradient passes through the choice of the
    most probable class. The paper's loss is the mean over samples: it divides by N, not by the sum of weights.
    """
    return weights[log_p.argmax(1), target] * cross_entropy(log_p, target, label_smoothing)


SampleCounts = Mapping[str, Tensor]
"""The number of samples that a loss is averaged over, scalars: with each branch's modality, and with `ANY` modality."""
ANY = "any"


def sample_counts(present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The counts of one batch from the samples that have each modality, [N] by branch; integer scalars."""
    return {name: has.sum() for name, has in present.items()} | {ANY: torch.stack([*present.values()]).any(0).sum()}


class CoarseFineLoss(nn.Module):
    """The loss of a batch, from its branches' log probabilities.

    For two branches: the coarse-fine loss of their fusion, plus `branch_weight` times the mean of the cross-entropies
    of the branches. For one branch: the coarse-fine loss of its output.

    `fractions` [K] are those of the classes among the samples. Each term averages over the samples that have its
    modality; a batch without any has a loss of 0 and no gradient.
    """

    weights: Tensor

    def __init__(self, settings: LossSettings, fractions: Sequence[float]) -> None:
        super().__init__()
        self.settings = settings
        # Not persistent: it follows from the settings, and a checkpoint contains only the network.
        self.register_buffer("weights", weight_table(settings, fractions), persistent=False)

    def forward(
        self,
        log_p: Mapping[str, Tensor],
        present: Mapping[str, Tensor],
        target: Tensor,
        counts: SampleCounts | None = None,
    ) -> Tensor:
        """The loss, a scalar; `log_p[branch]` is [N, K], `present[branch]` bool [N], `target` [N] class indices.

        `counts` are the numbers of samples to divide by if the batch is part of a larger one (on several devices, or
        with accumulated gradients) whose losses are summed.
        """
        present = {name: present[name] for name in log_p}
        counts = sample_counts(present) if counts is None else counts
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
