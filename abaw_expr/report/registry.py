"""The registry of kinds of tasks as the page shows them; a new kind is added here."""

from abaw_expr.report.kind import TaskKind
from abaw_expr.report.kind_classes import ClassKind
from abaw_expr.report.kind_units import UnitKind
from abaw_expr.report.kind_values import ValueKind
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import Task

KINDS: dict[str, type[TaskKind]] = {"classes": ClassKind, "values": ValueKind, "units": UnitKind}
"""By `Task.kind`."""


def kind_of(task: Task) -> TaskKind:
    """How a task is shown."""
    return KINDS[task.kind](metric_of(task))
