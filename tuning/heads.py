"""Classification heads trained on cached features, for many trials of the six penalties at once.

All trials see the same draws of the same frames, as training would draw them, and differ in their penalties alone. The
heads of Q trials lie in one matrix, so that a step is one product a branch forward and one back, whatever Q is.

Shapes: Q trials, N samples, V pictures a sample, K classes.
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
from tuning.features import Features, Samples

STEPS = 200
"""Steps from the run's own heads; with `ROWS`, less than 3 passes over 600,000 frames."""
ROWS = 8192
"""Samples a step, or all there are."""
LEARNING_RATE = 1e-2
"""Of the first step; it falls to 0 in a line."""
_CHUNK = 16384
"""Samples in hand at a time where nothing is learnt."""


@dataclass(frozen=True)
class Heads:
    """One head a trial and branch."""

    weight: dict[str, Tensor]
    """[K Q, width] by branch, classes outermost: what is summed over classes is then summed over whole vectors."""
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
    """A run's heads, once for each trial."""
    weight = {name: head["weight"].float().repeat_interleave(trials, 0) for name, head in trained.items()}
    bias = {name: head["bias"].float().repeat_interleave(trials, 0)[:, None] for name, head in trained.items()}
    return Heads(weight, bias)


def stacked_loss(
    log_p: Mapping[str, Tensor], present: Mapping[str, Tensor], target: Tensor, weights: Tensor, settings: LossSettings
) -> Tensor:
    """What `CoarseFineLoss` gives each trial, [Q]; `weights` [Q, K, K] holds each one's `weight_table`.

    `log_p[branch]` is [Q, N, K], `present[branch]` a boolean [N], `target` [N].
    """
    trial = torch.arange(len(weights))[:, None]
    if len(log_p) == 1:
        ((name, fused),) = log_p.items()
        has = present[name]
    else:
        has_a, has_v = present["audio"], present["visual"]
        fused, has = fuse_log(log_p["audio"], log_p["visual"], settings.m, settings.n, has_a, has_v), has_a | has_v
    weighed = weights[trial, fused.max(-1).indices, target]  # max and not argmax, which is ten times slower here
    loss = _mean(weighed * cross_entropy(fused, target, settings.label_smoothing), has)
    if len(log_p) > 1 and settings.branch_weight:
        for name, rows in log_p.items():
            own = _mean(cross_entropy(rows, target, settings.label_smoothing), present[name])
            loss = loss + settings.branch_weight * own / len(log_p)
    return loss


def train_heads(
    features: Features, mus: Sequence[Sequence[float]], settings: LossSettings, weight_decay: float, seed: int
) -> Heads:
    """Trains the heads of as many trials as there are `mus`, from those of the run."""
    heads = repeat_heads(features.heads, len(mus))
    weights = torch.stack([weight_table(settings.with_mu(mu), features.shares) for mu in mus])
    matrices, biases = [*heads.weight.values()], [*heads.bias.values()]
    for tensor in (*matrices, *biases):
        tensor.requires_grad_()
    groups = [{"params": matrices, "weight_decay": weight_decay}, {"params": biases, "weight_decay": 0.0}]
    optimiser = AdamW(groups, lr=LEARNING_RATE)
    rng, ends = np.random.default_rng(seed), features.chances.numpy().cumsum()
    for step in range(STEPS):
        drawn = np.searchsorted(ends, rng.random(min(ROWS, len(features.train))) * ends[-1], side="right")
        batch = take(features.train, torch.from_numpy(np.sort(drawn)))
        for group in optimiser.param_groups:
            group["lr"] = LEARNING_RATE * (1 - step / STEPS)
        log_p = heads.log_p(batch.features, weights.shape[-1])
        optimiser.zero_grad(set_to_none=True)
        stacked_loss(log_p, batch.present, batch.label, weights, settings).sum().backward()
        optimiser.step()
    return heads


@torch.inference_mode()
def probabilities(heads: Heads, samples: Samples, n_classes: int) -> dict[str, np.ndarray]:
    """Probabilities float32 [Q, N, K] by branch; a row is all NaN where the sample lacks the modality."""
    found: dict[str, list[Tensor]] = {name: [] for name in samples.features}
    for rows in torch.arange(len(samples)).split(_CHUNK):
        batch = take(samples, rows)
        for name, log_p in heads.log_p(batch.features, n_classes).items():
            found[name].append(log_p.exp().masked_fill(~batch.present[name][:, None], torch.nan))
    return {name: torch.cat(parts, dim=1).numpy() for name, parts in found.items()}


def said_of_validation(features: Features, heads: Heads, task: Task) -> Iterator[Outputs]:
    """What the heads of each trial say of the validation frames, as a table of outputs."""
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


def take(samples: Samples, rows: Tensor) -> Samples:
    """Some of the samples."""
    features, present = ({name: x[rows] for name, x in part.items()} for part in (samples.features, samples.present))
    return Samples(features, present, samples.label[rows])


def _mean(losses: Tensor, has: Tensor) -> Tensor:
    """Of losses [Q, N], the mean over the samples that have what they are of, [Q]."""
    return losses.masked_fill(~has, 0.0).sum(-1) / has.sum().clamp(min=1)
