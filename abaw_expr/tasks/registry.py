"""The registry of metrics by kind of task; a new kind is added here."""

from functools import cache

from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.metric_classes import ClassMetric
from abaw_expr.tasks.metric_units import UnitMetric
from abaw_expr.tasks.metric_values import ValueMetric
from abaw_expr.tasks.task import Task

METRICS: dict[str, type[Metric]] = {"classes": ClassMetric, "values": ValueMetric, "units": UnitMetric}
"""By `Task.kind`."""


@cache
def metric_of(task: Task) -> Metric:
    """The metric of a task."""
    return METRICS[task.kind](task)
