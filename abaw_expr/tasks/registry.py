"""The metric of every kind of task: another kind is one more entry here."""

from functools import cache

from abaw_expr.tasks.classes import ClassMetric
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.task import Task
from abaw_expr.tasks.units import UnitMetric
from abaw_expr.tasks.values import ValueMetric

METRICS: dict[str, type[Metric]] = {"classes": ClassMetric, "values": ValueMetric, "units": UnitMetric}
"""By `Task.kind`."""


@cache
def metric_of(task: Task) -> Metric:
    """The metric of a task."""
    return METRICS[task.kind](task)
