"""Trains classification heads on cached features, for many trials of the six penalties at once.

All trials are trained on the same samples, drawn as in training, and differ only in their penalties. The heads of Q
trials are one matrix, so that a step is one matrix product per branch forward and one backward, for any Q.

Shapes: Q trials, N samples, V views of a sample, C columns of the task.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from abaw_expr.models.links import Link, Votes, link_of
from abaw_expr.models.objectives import CoarseFine, Objective, build_objective
from abaw_expr.outputs.table import Outputs, Source, branch_columns
from abaw_expr.settings import Settings
from abaw_expr.tasks.task import Task
from tuning.features import Features, HeadSamples

STEPS = 200
"""Steps, starting from the run's heads; with `SAMPLES_AT_A_TIME`, less than 3 passes over 600,000 frames."""
SAMPLES_AT_A_TIME = 8192
"""Samples per step; all samples where there are fewer."""
LEARNING_RATE = 1e-2
"""Of the first step; it decreases linearly to 0."""
_CHUNK = 16384
"""Samples at a time in prediction."""


@dataclass(frozen=True)
class Heads:
    """One head for each trial and branch."""

    weight: dict[str, Tensor]
    """[C Q, width] by branch, columns outermost, so that sums over classes are sums of contiguous vectors."""
    bias: dict[str, Tensor]
    """[C Q, 1] by branch."""

    def votes(self, samples: HeadSamples, link: Link) -> dict[str, Votes]:
        """The votes of the samples by branch, with values [Q, N, ...]; averaged over the views."""
        result = {}
        for name, x in samples.features.items():
            logits = torch.addmm(self.bias[name], self.weight[name], x.flatten(0, 1).T)
            stacked = logits.view(link.task.n_columns, -1, *x.shape[:2])  # [C, Q, N, V]
            result[name] = Votes(link.votes_of_heads(stacked), samples.present[name])
        return result


def repeat_heads(trained: Mapping[str, Mapping[str, Tensor]], trials: int) -> Heads:
    """The heads of a run, `weight` [C, width] and `bias` [C] by branch, repeated for each trial."""
    weight = {name: head["weight"].float().repeat_interleave(trials, 0) for name, head in trained.items()}
    bias = {name: head["bias"].float().repeat_interleave(trials, 0)[:, None] for name, head in trained.items()}
    return Heads(weight, bias)


def objective_of(features: Features, settings: Settings, mus: Sequence[Sequence[float]]) -> Objective:
    """The objective of all trials at once, [Q], of classes each with the costs of one of `mus`; others have none."""
    objective = build_objective(settings, features.fractions).of_any_samples
    if isinstance(objective, CoarseFine):
        objective.with_costs([settings.loss.with_mu(mu) for mu in mus], features.fractions)
    return objective


def train_heads(features: Features, mus: Sequence[Sequence[float]], settings: Settings, seed: int) -> Heads:
    """Trains the heads of one trial for each of `mus`, starting from the heads of the run."""
    heads, objective = repeat_heads(features.heads, len(mus)), objective_of(features, settings, mus)
    matrices, biases = [*heads.weight.values()], [*heads.bias.values()]
    for tensor in (*matrices, *biases):
        tensor.requires_grad_()
    decay = settings.optimiser.weight_decay
    optimiser = AdamW([{"params": matrices, "weight_decay": decay}, {"params": biases, "weight_decay": 0.0}])
    rng, ends = np.random.default_rng(seed), features.draw_probabilities.numpy().cumsum()
    for step in range(STEPS):
        drawn = np.searchsorted(ends, rng.random(min(SAMPLES_AT_A_TIME, len(features.train))) * ends[-1], side="right")
        batch = take(features.train, torch.from_numpy(np.sort(drawn)))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / STEPS)
        optimiser.zero_grad(set_to_none=True)
        objective(heads.votes(batch, objective.link), batch.target).sum().backward()
        optimiser.step()
    return heads


@torch.inference_mode()
def numbers(heads: Heads, samples: HeadSamples, link: Link) -> dict[str, np.ndarray]:
    """The numbers float32 [Q, N, C] by branch; a row is all NaN where the sample lacks the modality."""
    found: dict[str, list[Tensor]] = {name: [] for name in samples.features}
    for rows in torch.arange(len(samples)).split(_CHUNK):
        for name, vote in heads.votes(take(samples, rows), link).items():
            found[name].append(link.numbers(vote.value).masked_fill(~vote.present[:, None], torch.nan))
    return {name: torch.cat(parts, dim=1).numpy() for name, parts in found.items()}


def validation_outputs(features: Features, heads: Heads, task: Task) -> Iterator[Outputs]:
    """The outputs of the heads of each trial on the validation frames."""
    frames = features.frame_table(task)
    p = numbers(heads, features.val, link_of(task))
    for trial in range(len(next(iter(p.values())))):
        columns = {
            column: values
            for name, rows in p.items()
            for column, values in zip(branch_columns(name, task), rows[trial].T, strict=True)
        }
        sources = dict.fromkeys(p, Source("", tuple(features.prior)))
        yield Outputs(task, frames.assign(**columns), "val", sources)


def take(samples: HeadSamples, rows: Tensor) -> HeadSamples:
    """The samples at the indices `rows` [N]."""
    features, present = ({name: x[rows] for name, x in part.items()} for part in (samples.features, samples.present))
    return HeadSamples(features, present, samples.target[rows])
