"""Run -> the same run with its classification heads trained again, on its features as its training left them.

Learning the representation and the classifier one after the other is known to serve classes that are seldom seen (Kang
et al., Decoupling, ICLR 2020). It is also what a trial of the penalties does: the network that is written here is worth
what the trial of its penalties was.
"""

import os
from dataclasses import replace
from pathlib import Path

import torch

from abaw_expr.errors import RunError, shorten
from abaw_expr.files import atomic, write_json
from abaw_expr.models.losses import weighed_shares
from abaw_expr.settings import Settings, save_settings, signature
from abaw_expr.tasks.task import Task
from abaw_expr.training.checkpoint import load_checkpoint, save_checkpoint
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import Epoch, RunFolder
from tuning.features import Features, branches, linear_of
from tuning.heads import Heads, repeat_heads, said_of_validation, train_heads
from tuning.selection import search
from tuning.space import RATIOS_ONLY


def refit(run: RunFolder, features: Features, settings: Settings, task: Task, seed: int, out: Path) -> Heads:
    """Writes the run folder `out`: `run` but for its heads, trained on its `features` with the loss of `settings`.

    Its epochs are those of `run`, and its figures in them those of the heads before. Returns the new heads.
    """
    _check_replaceable(out)
    before, trained = run.load_settings(), load_checkpoint(run.last)
    network = load_network(run.last, before, trained, task)
    heads = train_heads(features, [settings.loss.mu], settings.loss, settings.optimiser.weight_decay, seed)
    with torch.no_grad():
        for name, branch in branches(network).items():
            layer = linear_of(branch)
            layer.weight.copy_(heads.weight[name])
            layer.bias.copy_(heads.bias[name][:, 0])
    settings = replace(before, loss=settings.loss)
    decay = settings.optimiser.weight_decay
    heads_of = {name: features.key[name] for name in ("run", "weights", "interval")} | {"decay": decay, "seed": seed}
    identity = signature(settings, str(features.key["store"]), heads=heads_of)
    checkpoint = replace(
        trained,
        signature=identity,
        prior=weighed_shares(features.shares, settings.loss.class_weight),
        network=network.state_dict(),
        average=network.state_dict() if trained.average else {},
    )
    summary = run.read_summary()
    with atomic(out) as folder:
        made = RunFolder(folder)
        folder.mkdir()
        save_settings(settings, made.settings)
        save_checkpoint(made.last, checkpoint)
        save_checkpoint(made.best, replace(checkpoint, average={}, optimiser={}))
        made.write_metrics([Epoch(**row) for row in trained.history], task)
        write_json(made.manifest, summary | {"signature": identity, "heads": heads_of})
    return heads


def _check_replaceable(out: Path) -> None:
    """Raises RunError where a folder is to be replaced that holds anything but a run that was refitted."""
    made = RunFolder(out)
    own = {path.name for path in (made.settings, made.metrics, made.manifest, made.last.parent)}
    if foreign := sorted(set(os.listdir(out)) - own) if out.is_dir() else []:
        remedy = "Move it elsewhere, or name another folder."
        raise RunError("would be replaced, but holds something else", path=out, found=shorten(foreign), remedy=remedy)


def compare_heads(features: Features, heads: Heads, task: Task) -> list[tuple[str, float, float, float | None]]:
    """Macro F1 on the validation frames with a run's own heads and with new ones: equal votes, best ratio, nested."""
    rows = []
    for name, those in (("before", repeat_heads(features.heads, 1)), ("after", heads)):
        (outputs,) = said_of_validation(features, those, task)
        found = search(outputs, RATIOS_ONLY)  # the simplest ratio is its first
        rows.append((name, float(found.figures[0]), float(found.figures.max()), found.nested))
    return rows
