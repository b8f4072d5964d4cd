"""Trains classification heads on cached features, for many trials of the six penalties at once.

All trials are trained on the same samples, drawn as in training, and differ only in their penalties. The heads of Q
trials are one matrix, so that a step is one matrix product per branch forward and one backward, for any Q.

Shapes: Q trials, N samples, V views of a sample, K classes.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.optim import AdamW

from abaw_expr.models.losses import cross_entropy, fuse_log, weight_table
from abaw_expr.outputs.table import Outputs, Source, branch_columns
from abaw_expr.settings import LossSettings
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
    """[K Q, width] by branch, classes outermost, so that sums over classes are sums of contiguous vectors."""
    bias: dict[str, Tensor]
    """[K Q, 1] by branch."""

    def log_p(self, features: Mapping[str, Tensor], n_classes: int) -> dict[str, Tensor]:
        """Log probabilities [Q, N, K] by branch, from features [N, V, width]; softmax averaged over the views."""
        result = {}
        for name, x in features.items():
            logits = torch.addmm(self.bias[name], self.weight[name], x.flatten(0, 1).T)
            log_p = logits.view(n_classes, -1, *x.shape[:2]).log_softmax(0)  # [K, Q, N, V]
            mean = log_p[..., 0] if x.shape[1] == 1 else log_p.logsumexp(-1) - math.log(x.shape[1])
            result[name] = mean.movedim(0, -1)
        return result


def repeat_heads(trained: Mapping[str, Mapping[str, Tensor]], trials: int) -> Heads:
    """The heads of a run, `weight` [K, width] and `bias` [K] by branch, repeated for each trial."""
    weight = {name: head["weight"].float().repeat_interleave(trials, 0) for name, head in trained.items()}
    bias = {name: head["bias"].float().repeat_interleave(trials, 0)[:, None] for name, head in trained.items()}
    return Heads(weight, bias)


def stacked_loss(
    log_p: Mapping[str, Tensor], present: Mapping[str, Tensor], target: Tensor, weights: Tensor, settings: LossSettings
) -> Tensor:
    """The `CoarseFineLoss` of each trial, [Q]; `weights` [Q, K, K] has the `weight_table` of each trial.

    `log_p[branch]` is [Q, N, K], `present[branch]` bool [N], `target` [N].
    """
    trial = torch.arange(len(weights))[:, None]
    if len(log_p) == 1:
        ((name, fused),) = log_p.items()
        has = present[name]
    else:
        has_a, has_v = present["audio"], present["visual"]
        fused, has = fuse_log(log_p["audio"], log_p["visual"], settings.m, settings.n, has_a, has_v), has_a | has_v
    weighed = weights[trial, fused.max(-1).indices, target]  # argmax would be ten times slower here
    loss = _mean(weighed * cross_entropy(fused, target, settings.label_smoothing), has)
    if len(log_p) > 1 and settings.branch_weight:
        for name, rows in log_p.items():
            own = _mean(cross_entropy(rows, target, settings.label_smoothing), present[name])
            loss = loss + settings.branch_weight * own / len(log_p)
    return loss


def train_heads(
    features: Features, mus: Sequence[Sequence[float]], settings: LossSettings, weight_decay: float, seed: int
) -> Heads:
    """Trains the heads of one trial for each of `mus`, starting from the heads of the run."""
    heads = repeat_heads(features.heads, len(mus))
    weights = torch.stack([weight_table(settings.with_mu(mu), features.fractions) for mu in mus])
    matrices, biases = [*heads.weight.values()], [*heads.bias.values()]
    for tensor in (*matrices, *biases):
        tensor.requires_grad_()
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimiser = AdamW(groups, lr=LEARNING_RATE)
    rng, ends = np.random.default_rng(seed), features.draw_probabilities.numpy().cumsum()
    for step in range(STEPS):
        drawn = np.searchsorted(ends, rng.random(min(SAMPLES_AT_A_TIME, len(features.train))) * ends[-1], side="right")
        batch = take(features.train, torch.from_numpy(np.sort(drawn)))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / STEPS)
        log_p = heads.log_p(batch.features, weights.shape[-1])
        optimiser.zero_grad(set_to_none=True)
        stacked_loss(log_p, batch.present, batch.label, weights, settings).sum().backward()
        optimiser.step()
    return heads


@torch.inference_mode()
def probabilities(heads: Heads, samples: HeadSamples, n_classes: int) -> dict[str, np.ndarray]:
    """Probabilities float32 [Q, N, K] by branch; a row is all NaN where the sample lacks the modality."""
    found: dict[str, list[Tensor]] = {name: [] for name in samples.features}
    for rows in torch.arange(len(samples)).split(_CHUNK):
        batch = take(samples, rows)
        for name, log_p in heads.log_p(batch.features, n_classes).items():
            found[name].append(log_p.exp().masked_fill(~batch.present[name][:, None], torch.nan))
    return {name: torch.cat(parts, dim=1).numpy() for name, parts in found.items()}


def validation_outputs(features: Features, heads: Heads, task: Task) -> Iterator[Outputs]:
    """The outputs of the heads of each trial on the validation frames."""
    frames = features.frame_table()
    p = probabilities(heads, features.val, task.n_columns)
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
    return HeadSamples(features, present, samples.label[rows])


def _mean(losses: Tensor, has: Tensor) -> Tensor:
    """The mean of losses [Q, N] over the samples of `has` [N], [Q]."""
    return losses.masked_fill(~has, 0.0).sum(-1) / has.sum().clamp(min=1)
