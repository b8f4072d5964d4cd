"""From logits to votes to the numbers of an outputs table, a class a kind of task, and the fusion of votes.

A vote is what views, and then branches, are averaged in. Every kind is fused by arXiv 2503.11935, equation 6,
P = (m P_a + n P_v) / (m + n), for any number of branches.

| kind | vote of a sample | numbers |
|---|---|---|
| classes | log probabilities [C] | their exponentials |
| values | values [C] | the same |
| units | log probabilities of inactive and active [C, 2] | the exponential of active |

Shapes: B samples, V views of a sample, C columns of the task. Votes may have more dimensions before B, of networks that
are trained on the same samples at once.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import reduce
from math import log
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from abaw_expr.tasks.task import Task

_NO_WEIGHT = -1e30
"""The logarithm of weight 0: its exponential is 0, and so is its gradient, where that of two times -inf is NaN."""


class Votes(NamedTuple):
    """The votes of a branch."""

    value: Tensor
    """[B, ...], one of the rows above a sample; any finite numbers where it has no vote."""
    present: Tensor
    """bool [B], the samples that it has a vote for."""


class Link(ABC):
    """How the logits of one task become votes, and votes numbers."""

    event: ClassVar[int] = 1
    """Dimensions of a vote."""

    def __init__(self, task: Task) -> None:
        self.task = task

    @abstractmethod
    def votes(self, logits: Tensor) -> Tensor:
        """Logits [..., B, V, C] to votes [..., B, ...], averaged over views; float32 at least."""

    def votes_of_heads(self, logits: Tensor) -> Tensor:
        """The same of many heads at once, whose logits [C, Q, B, V] have the columns first; to [Q, B, ...]."""
        return self.votes(logits.movedim(0, -1))

    @abstractmethod
    def numbers(self, votes: Tensor) -> Tensor:
        """Votes [B, ...] to the numbers of an outputs table [B, C]."""

    @abstractmethod
    def from_numbers(self, numbers: Tensor) -> Tensor:
        """The votes [B, ...] that give these numbers [B, C]."""

    def fuse(self, votes: Mapping[str, Votes], weights: Mapping[str, int]) -> Votes:
        """The proportional fusion of branches; an absent vote has no weight."""
        present = torch.stack([vote.present for vote in votes.values()])  # [k, B]
        one = next(iter(votes.values())).value
        none = ~present.any(0)  # fused as if all were there: the caller leaves it out
        counted = torch.stack([weights[name] * (vote.present | none) for name, vote in votes.items()]).to(one.dtype)
        fractions = (counted / counted.sum(0)).reshape(*counted.shape, *[1] * self.event)  # [k, B, 1...]
        pairs = [(vote.value, fraction) for vote, fraction in zip(votes.values(), fractions, strict=True)]
        return Votes(reduce(self._add, [self._weighed(*pair) for pair in pairs]), ~none)

    @abstractmethod
    def _weighed(self, value: Tensor, fraction: Tensor) -> Tensor:
        """A vote with a weight in [0, 1]."""

    @abstractmethod
    def _add(self, one: Tensor, other: Tensor) -> Tensor:
        """The sum of two weighed votes."""


class LogLink(Link):
    """Votes that are log probabilities, which are averaged as probabilities."""

    def _weighed(self, value: Tensor, fraction: Tensor) -> Tensor:
        return value + fraction.log().clamp(min=_NO_WEIGHT)

    def _add(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.logaddexp(one, other)


class ClassLink(LogLink):
    """Softmax, averaged over the views."""

    def votes(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(-1, dtype=_at_least_float32(logits))  # under autocast the head gives bfloat16
        return log_p.logsumexp(-2) - log(logits.shape[-2])

    def votes_of_heads(self, logits: Tensor) -> Tensor:
        log_p = logits.log_softmax(0)  # columns first: sums over classes are sums of contiguous vectors
        mean = log_p[..., 0] if logits.shape[-1] == 1 else log_p.logsumexp(-1) - log(logits.shape[-1])
        return mean.movedim(0, -1)

    def numbers(self, votes: Tensor) -> Tensor:
        return votes.exp()

    def from_numbers(self, numbers: Tensor) -> Tensor:
        return _log(numbers)


class UnitLink(LogLink):
    """Sigmoid a unit, averaged over the views: as many softmaxes of two classes as there are units."""

    event = 2

    def votes(self, logits: Tensor) -> Tensor:
        wide = logits.to(_at_least_float32(logits))
        log_p = torch.stack([logsigmoid(-wide), logsigmoid(wide)], dim=-1)  # [..., B, V, C, 2]
        return log_p.logsumexp(-3) - log(logits.shape[-2])

    def numbers(self, votes: Tensor) -> Tensor:
        return votes[..., 1].exp()

    def from_numbers(self, numbers: Tensor) -> Tensor:
        return torch.stack([_log(1 - numbers), _log(numbers)], dim=-1)


class ValueLink(Link):
    """Tanh, stretched to the range of each field."""

    def votes(self, logits: Tensor) -> Tensor:
        return self._stretched(logits.to(_at_least_float32(logits)).tanh()).mean(-2)

    def numbers(self, votes: Tensor) -> Tensor:
        return votes

    def from_numbers(self, numbers: Tensor) -> Tensor:
        return numbers

    def _stretched(self, x: Tensor) -> Tensor:
        ends = [(field.low, field.high) for field in self.task.fields]
        middle, half = (x.new_tensor([(high + sign * low) / 2 for low, high in ends]) for sign in (1, -1))
        return middle + half * x

    def _weighed(self, value: Tensor, fraction: Tensor) -> Tensor:
        return value * fraction

    def _add(self, one: Tensor, other: Tensor) -> Tensor:
        return one + other


LINKS: dict[str, type[Link]] = {"classes": ClassLink, "values": ValueLink, "units": UnitLink}
"""By `Task.kind`."""


def link_of(task: Task) -> Link:
    """The link of a task."""
    return LINKS[task.kind](task)


def _at_least_float32(x: Tensor) -> torch.dtype:
    return torch.promote_types(x.dtype, torch.float32)


def _log(p: Tensor) -> Tensor:
    """The logarithm of probabilities that may have been rounded to 0."""
    return p.clamp(min=torch.finfo(p.dtype).tiny).log()
