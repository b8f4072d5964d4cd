"""Trains the classification heads of a run again, with its encoders as they are, and writes the result as a new run.

Training the classifier after the representation is known to improve rare classes (Kang et al., Decoupling, ICLR 2020).
The trials of the penalties do the same, so the network that is written has the score of the trial of its penalties.

Shapes: C columns of the task.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch

from abaw_expr.errors import RunError, shorten
from abaw_expr.files import atomic, write_json
from abaw_expr.settings import Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint, save_checkpoint
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import Epoch, RunFolder
from abaw_expr.training.signature import signature
from tuning.features import Features
from tuning.heads import Heads, objective_of, repeat_heads, train_heads, validation_outputs
from tuning.selection import search
from tuning.space import RATIOS_ONLY


def refit(run: RunFolder, features: Features, settings: Settings, seed: int, out: Path) -> Heads:
    """Writes `run` with new heads, trained on its `features` with the loss of `settings`, as the run folder `out`.

    What else `settings` say is left aside, but for the weights of branches that the run has too. The rows of its epochs
    are those of `run`, so their scores are those of the old heads. Returns the new heads.
    """
    _check_replaceable(out)
    before, trained = run.load_settings(), load_checkpoint(run.last)
    settings = with_loss(before, settings)
    network = load_network(run.last, before, trained)
    heads = train_heads(features, [settings.loss.mu], settings, seed)
    with torch.no_grad():
        for name, branch in network.own_branches().items():
            layer = branch.linear
            layer.weight.copy_(heads.weight[name])
            layer.bias.copy_(heads.bias[name][:, 0])
    objective = objective_of(features, settings, [settings.loss.mu])
    decay = settings.optimiser.weight_decay
    heads_of = {name: features.key[name] for name in ("run", "weights", "interval")} | {"decay": decay, "seed": seed}
    identity = signature(settings, str(features.key["store"]), heads=heads_of, weights=run.weights_digests())
    checkpoint = replace(
        trained,
        signature=identity,
        prior=objective.prior,
        network=network.state_dict(),
        ema=network.state_dict() if trained.ema else {},
    )
    summary = run.read_summary()
    with atomic(out) as folder:
        made = RunFolder(folder)
        folder.mkdir()
        save_settings(settings, made.settings)
        if digests := run.weights_digests():
            write_json(made.weights, digests)
        save_checkpoint(made.last, checkpoint)
        save_checkpoint(made.best, replace(checkpoint, ema={}, optimiser={}))
        made.write_metrics([Epoch(**row) for row in trained.history])
        write_json(made.manifest, summary | {"signature": identity, "heads": heads_of})
    return heads


def with_loss(run: Settings, wanted: Settings) -> Settings:
    """The settings of a run with the loss of others, and with their weights of the branches that both have."""
    branches = {name: replace(one, weight=wanted.weights.get(name, one.weight)) for name, one in run.branches.items()}
    return replace(run, loss=wanted.loss, branches=branches)


def _check_replaceable(out: Path) -> None:
    """Raises RunError where the folder to replace has other files than those of a refitted run."""
    made = RunFolder(out)
    own = {path.name for path in (made.settings, made.metrics, made.manifest, made.last.parent)}
    if others := sorted(set(os.listdir(out)) - own) if out.is_dir() else []:
        remedy = "Move them elsewhere, or name another folder."
        raise RunError("would be replaced, but holds other files", path=out, found=shorten(others), remedy=remedy)


def compare_heads(features: Features, heads: Heads, task: Task) -> list[tuple[str, float, float, float | None]]:
    """The score on the validation frames with the old and the new heads: with equal weights, the best ratio, nested."""
    rows = []
    for name, compared in (("before", repeat_heads(features.heads, 1)), ("after", heads)):
        (outputs,) = validation_outputs(features, compared, task)
        found = search(outputs, RATIOS_ONLY)  # its first ratio is 1:1
        rows.append((name, float(found.scores[0]), float(found.scores.max()), found.nested))
    return rows
