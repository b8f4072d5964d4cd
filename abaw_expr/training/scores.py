"""The scores of a run on validation frames, and what can be balanced for its task.

Shapes: n validation frames, C columns of the task, F its fields.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.errors import SettingsError
from abaw_expr.outputs.fusion import fuse
from abaw_expr.outputs.style import FUSED
from abaw_expr.settings import Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Statistics
from abaw_expr.tasks.task import Task


def scores_of(
    task: Task, weights: Mapping[str, int], p: Mapping[str, NDArray[np.floating]], truth: NDArray[Any]
) -> tuple[dict[str, float], dict[str, float]]:
    """The score of each branch and, as `FUSED`, of their fusion; and the fusion's score by column.

    `p` is [n, C] by branch, a row all NaN where it has no vote; `truth` is [n] or [n, F].
    """
    metric = metric_of(task)
    fused = fuse([*p.values()], [weights[name] for name in p])  # [n, C]
    counts = {name: _statistics(task, truth, rows) for name, rows in [*p.items(), (FUSED, fused)]}
    scores = {name: float(metric.score(one)) for name, one in counts.items()}
    return scores, dict(zip(task.columns, metric.by_column(counts[FUSED]).tolist(), strict=True))


def _statistics(task: Task, truth: NDArray[Any], rows: NDArray[np.floating]) -> Statistics:
    """The statistics of a branch on the frames that it has a vote for."""
    metric, has = metric_of(task), ~np.isnan(rows[:, 0])
    return metric.count(truth[has], metric.decide(rows[has]))


def check_balance(settings: Settings) -> None:
    """Raises SettingsError where a setting that balances training has no meaning for the task."""
    metric = metric_of(settings.task_of)
    if settings.data.balance and not metric.has_strata:
        remedy = f"Balance {metric.columns_are} by loss.class-weight."
        found = f"data.balance {settings.data.balance:g}"
        raise SettingsError(f"frames cannot be drawn by {metric.columns_are}", found=found, expected="0", remedy=remedy)
    if settings.loss.class_weight and settings.task_of.kind == "values":
        found = f"loss.class-weight {settings.loss.class_weight:g}"
        raise SettingsError("values have no weights", found=found, expected="0", remedy="Balance them by data.balance.")
