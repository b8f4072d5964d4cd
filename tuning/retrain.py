"""The last training: on train and validation together, as cross-validation found it good.

No recording is left to choose by, so everything is fixed before: the settings are those of the folds' runs, and so are
the epochs.

Shapes: M runs, E epochs.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd

from abaw_expr.errors import RunError
from abaw_expr.settings import Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.training.run import RunFolder

_ENDS_AT_LAST = ("one-cycle",)
"""Schedules whose learning rate falls to nothing in the last epoch, so that no earlier epoch can be the last."""


@dataclass(frozen=True)
class Retraining:
    """What folds say of the last training."""

    settings: Settings
    runs: int
    curve: tuple[float, ...]
    """[E], the mean score of the runs on their held-out folds after each epoch."""


def plan_retraining(folder: Path, calibration: int = 0) -> Retraining:
    """The settings of the last training, from the folder of `folds`.

    Its epochs are those of the folds' runs where the schedule ends there; otherwise those after which the mean over all
    runs of the held-out score was highest. With `calibration`, one part of so many is held out, for `tune`. Raises
    RunError where the folder has no finished runs of folds.
    """
    runs = [RunFolder(path.parent) for path in sorted(folder.glob("runs/*/manifest.json"))]
    settings = [run.load_settings() for run in runs]
    if not runs or not all(one.data.folds for one in settings):
        raise RunError("holds no finished run of folds", path=folder, remedy="Name the --out of `abaw-expr folds`.")
    base = min(settings, key=lambda one: (one.seed, one.data.fold))
    curve = np.mean(_curves(runs, base), axis=0)
    epochs = base.optimiser.epochs if base.optimiser.schedule in _ENDS_AT_LAST else int(curve.argmax()) + 1
    data = replace(base.data, train_on="both", folds=calibration, fold=0)
    final = replace(base, data=data, optimiser=replace(base.optimiser, epochs=epochs))
    return Retraining(final, len(runs), tuple(curve.tolist()))


def _curves(runs: Sequence[RunFolder], base: Settings) -> np.ndarray:
    """The held-out score of each run after each epoch, [M, E]."""
    name = f"fused_{metric_of(base.task_of).short}"
    return np.stack([pd.read_csv(run.metrics)[name].to_numpy(float) for run in runs])
