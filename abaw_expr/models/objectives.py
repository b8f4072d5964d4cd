"""Objectives: the loss of a batch from the votes of its branches, a class a kind of task, for any number of branches.

Every loss is that of the fused votes, plus `loss.branch_weight` times the mean of the branches' own losses where there
are several. A vote that is absent, and a label that is not annotated, have no part in it.

Shapes: N samples, S stretches of T samples, K classes, F fields (values or units), k branches. Votes may have more
dimensions before N, of networks that are trained on the same samples at once; losses then have these dimensions.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Self

import torch
from torch import Tensor, nn

from abaw_expr.models.links import Votes, link_of
from abaw_expr.models.losses import (
    active_weights,
    coarse_fine,
    concordance,
    cross_entropy,
    value_moments,
    weight_table,
    weighted_fractions,
)
from abaw_expr.settings import LossSettings, Settings

Present = Mapping[str, Tensor]
"""bool [N] by branch."""
SampleCounts = Mapping[str, Tensor]
"""The number of labels that a loss is averaged over, scalars: with each branch's vote, and with `ANY` vote."""
ANY = "any"


class Objective(nn.Module, ABC):
    """The loss of one task.

    A batch may come in parts (on several devices, or one after another): the losses of the parts add up to that of the
    batch, and so do their gradients, given what the parts have in common: `counts`, and of an objective that is not
    additive the `sums` of all parts.
    """

    additive: ClassVar[bool] = True
    """Whether the loss is a mean over samples."""

    def __init__(self, settings: Settings, fractions: Sequence[float]) -> None:
        """`fractions` is the mean label in the samples by column: fractions of classes or active frames, or values."""
        super().__init__()
        self.settings, self.weights, self.link = settings.loss, settings.weights, link_of(settings.task_of)
        self.prior = self._prior(fractions)

    def forward(
        self, votes: Mapping[str, Votes], target: Tensor, counts: SampleCounts | None = None, sums: Tensor | None = None
    ) -> Tensor:
        """The loss of this part of a batch, a scalar [...]; `target` is [N] or [N, F] as `Batch` has it.

        Without `counts` and `sums` the part is the batch.
        """
        return self.sums(votes, target, counts)

    def counts(self, present: Present, target: Tensor) -> dict[str, Tensor]:
        """The counts of labels of one part, integer scalars; they are added over parts."""
        known = self.known(target).unsqueeze(-1).flatten(1)  # [N, 1] or [N, F], of no samples too
        counted = {name: (known & has[:, None]).sum() for name, has in present.items()}
        return counted | {ANY: (known & torch.stack([*present.values()]).any(0)[:, None]).sum()}

    @abstractmethod
    def sums(self, votes: Mapping[str, Votes], target: Tensor, counts: SampleCounts | None = None) -> Tensor:
        """What of a part of a batch is added over parts, for `value`: any shape."""

    def value(self, sums: Tensor) -> float:
        """The loss from the sums of all parts."""
        return float(sums)

    @property
    def of_any_samples(self) -> "Objective":
        """The objective of samples that are no stretches, such as the validation frames of a run."""
        return self

    @abstractmethod
    def known(self, target: Tensor) -> Tensor:
        """Which labels are annotated, bool, of the shape of the target."""

    @abstractmethod
    def _prior(self, fractions: Sequence[float]) -> list[float]:
        """The mean label as the loss weighs the samples."""


class MeanObjective(Objective):
    """A loss that is a mean, of parts of a batch by the counts of the whole."""

    def sums(self, votes: Mapping[str, Votes], target: Tensor, counts: SampleCounts | None = None) -> Tensor:
        counts = self.counts({name: vote.present for name, vote in votes.items()}, target) if counts is None else counts
        if len(votes) == 1:
            ((name, only),) = votes.items()
            return self._mean(only, target, counts[name])
        weighed = votes if self.settings.branch_weight else {}
        own = [self._mean(vote, target, counts[name], own=True) for name, vote in weighed.items()]
        loss = self._mean(self.link.fuse(votes, self.weights), target, counts[ANY])
        return loss + self.settings.branch_weight * torch.stack(own).mean(0) if own else loss

    @abstractmethod
    def _mean(self, vote: Votes, target: Tensor, count: Tensor, own: bool = False) -> Tensor:
        """The sum of this part's losses over the count of all parts, [...]: of the fused votes, or a branch's own."""


class LabelObjective(MeanObjective):
    """A loss that is a mean over labels."""

    def _mean(self, vote: Votes, target: Tensor, count: Tensor, own: bool = False) -> Tensor:
        losses = (self._own if own else self._fused)(vote.value, target)  # [..., *target.shape]
        kept = self.known(target) & vote.present.reshape(-1, *[1] * (target.ndim - 1))
        return losses.masked_fill(~kept, 0.0).flatten(-target.ndim).sum(-1) / count.clamp(min=1)

    @abstractmethod
    def _fused(self, votes: Tensor, target: Tensor) -> Tensor:
        """The loss of each label for the fused votes."""

    @abstractmethod
    def _own(self, votes: Tensor, target: Tensor) -> Tensor:
        """The loss of each label for a branch's own votes."""


class CoarseFine(LabelObjective):
    """Classes: the coarse-fine granularity loss; of the branches' own votes cross-entropy. `target` is int64 [N]."""

    table: Tensor

    def __init__(self, settings: Settings, fractions: Sequence[float]) -> None:
        super().__init__(settings, fractions)
        table = weight_table(settings.loss, settings.task_of.quadrants, fractions)
        # Not persistent: it follows from the settings, and a checkpoint contains only the network.
        self.register_buffer("table", table, persistent=False)

    def with_costs(self, losses: Sequence[LossSettings], fractions: Sequence[float]) -> Self:
        """This objective for many networks at once, each with the costs of one of these losses: it is [Q]."""
        quadrants = self.link.task.quadrants
        self.table = torch.stack([weight_table(loss, quadrants, fractions) for loss in losses])  # [Q, K, K]
        return self

    def known(self, target: Tensor) -> Tensor:
        return target >= 0

    def _prior(self, fractions: Sequence[float]) -> list[float]:
        return weighted_fractions(fractions, self.settings.class_weight)

    def _fused(self, votes: Tensor, target: Tensor) -> Tensor:
        return coarse_fine(votes, target.clamp(min=0), self.table, self.settings.label_smoothing)

    def _own(self, votes: Tensor, target: Tensor) -> Tensor:
        return cross_entropy(votes, target.clamp(min=0), self.settings.label_smoothing)


class UnitEntropy(LabelObjective):
    """Action units: binary cross-entropy, a mean over all annotated labels, active ones weighed by their rarity.

    `target` is float [N, F]: 0, 1, or NaN where not annotated.
    """

    positive: Tensor

    def __init__(self, settings: Settings, fractions: Sequence[float]) -> None:
        super().__init__(settings, fractions)
        weights = torch.tensor(active_weights(fractions, settings.loss.class_weight))
        self.register_buffer("positive", weights, persistent=False)

    def known(self, target: Tensor) -> Tensor:
        return ~target.isnan()

    def _prior(self, fractions: Sequence[float]) -> list[float]:
        pairs = zip(fractions, active_weights(fractions, self.settings.class_weight), strict=True)
        return [active * weight / (active * weight + 1 - active) for active, weight in pairs]

    def _fused(self, votes: Tensor, target: Tensor) -> Tensor:
        inactive, active = votes.unbind(-1)  # log probabilities, [N, F] each
        return -torch.where(target > 0.5, self.positive * active, inactive)  # NaN > 0.5 is false

    def _own(self, votes: Tensor, target: Tensor) -> Tensor:
        return self._fused(votes, target)


class Concordance(Objective):
    """Values: 1 - CCC over the samples of a batch, a mean over the fields that have an annotated sample.

    `target` is float [N, F], NaN where not annotated. The sums are the moments of every branch and of the fusion,
    [k + 1, ..., F, 6]; of one branch [1, ..., F, 6].
    """

    additive = False

    def forward(
        self, votes: Mapping[str, Votes], target: Tensor, counts: SampleCounts | None = None, sums: Tensor | None = None
    ) -> Tensor:
        own = self.sums(votes, target)
        if sums is None or counts is None:
            return self._loss(own)
        # The loss is a function of sums over parts, so its gradient by a part is that by the sums, times theirs by it.
        whole = sums.detach().requires_grad_()
        loss = self._loss(whole)
        (slope,) = torch.autograd.grad(loss, whole)
        part = own[-1, :, 0].sum().detach() / counts[ANY].clamp(min=1)
        return (slope * (own - own.detach())).sum() + loss.detach() * part

    def sums(self, votes: Mapping[str, Votes], target: Tensor, counts: SampleCounts | None = None) -> Tensor:
        several = [*votes.values()] if len(votes) > 1 else []
        known = self.known(target)
        return torch.stack(
            [
                value_moments(vote.value, target, known & vote.present[:, None])
                for vote in (*several, self.link.fuse(votes, self.weights))
            ]
        )

    def value(self, sums: Tensor) -> float:
        return float(self._loss(sums))

    def known(self, target: Tensor) -> Tensor:
        return ~target.isnan()

    def _prior(self, fractions: Sequence[float]) -> list[float]:
        return [*fractions]

    def _loss(self, sums: Tensor) -> Tensor:
        ccc, known = concordance(sums)  # [k + 1, ..., F] each
        losses = (1 - ccc).masked_fill(~known, 0.0).sum(-1) / known.sum(-1).clamp(min=1)
        return losses[-1] + (self.settings.branch_weight * losses[:-1].mean(0) if len(losses) > 1 else 0.0)


class StretchConcordance(MeanObjective):
    """Values: 1 - CCC over each stretch of `data.sequence` samples, a mean over the stretches of all fields.

    A stretch has no part in a field of which fewer than two of its samples are annotated. `target` is float [S T, F],
    NaN where not annotated.
    """

    def __init__(self, settings: Settings, fractions: Sequence[float]) -> None:
        super().__init__(settings, fractions)
        self._whole, self._length = Concordance(settings, fractions), settings.data.sequence

    @property
    def of_any_samples(self) -> Objective:
        return self._whole

    def counts(self, present: Present, target: Tensor) -> dict[str, Tensor]:
        """The counts of stretches of all fields."""
        voted = {**present, ANY: torch.stack([*present.values()]).any(0)}
        kept = {name: self._stretches(self.known(target) & has[:, None]) for name, has in voted.items()}
        return {name: (one.sum(1) >= _LEAST_ANNOTATED).sum() for name, one in kept.items()}

    def known(self, target: Tensor) -> Tensor:
        return self._whole.known(target)

    def _prior(self, fractions: Sequence[float]) -> list[float]:
        return [*fractions]

    def _mean(self, vote: Votes, target: Tensor, count: Tensor, own: bool = False) -> Tensor:
        kept = self.known(target) & vote.present[:, None]
        moments = value_moments(*map(self._stretches, (vote.value, target, kept)))  # [..., S, F, 6]
        losses = (1 - concordance(moments)[0]).masked_fill(moments[..., 0] < _LEAST_ANNOTATED, 0.0)
        return losses.flatten(-2).sum(-1) / count.clamp(min=1)

    def _stretches(self, x: Tensor) -> Tensor:
        """[..., S T, F] to [..., S, T, F]."""
        return x.unflatten(-2, (-1, self._length))


_LEAST_ANNOTATED = 2
"""A single sample has no variance, so its CCC is 0 whatever the prediction."""

OBJECTIVES: dict[str, type[Objective]] = {"classes": CoarseFine, "values": Concordance, "units": UnitEntropy}
"""By `Task.kind`."""


def build_objective(settings: Settings, fractions: Sequence[float]) -> Objective:
    """The objective of the settings' task; `fractions` is the mean label of the samples by column."""
    kind = StretchConcordance if settings.loss.per_stretch else OBJECTIVES[settings.task_of.kind]
    return kind(settings, fractions)
