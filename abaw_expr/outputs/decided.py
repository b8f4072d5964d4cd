"""Tables of outputs with the decision that is applied to them."""

from collections.abc import Sequence
from pathlib import Path

from abaw_expr.errors import DecisionError
from abaw_expr.files import read_json
from abaw_expr.outputs.decision import Decision, equal_weights
from abaw_expr.outputs.joining import read_by_task, read_joined
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.task import Task


def read_decided(outputs: Sequence[Path], decision: Path | None) -> tuple[Outputs, Decision]:
    """Reads tables of any one task as one, and the decision to apply to them; without a file, equal weights.

    Raises OutputsError as `read_joined` does, and DecisionError where the decision does not fit the tables.
    """
    table = read_joined(outputs, None)
    return table, _fitting(table, decision)


def read_all_decided(outputs: Sequence[Path], decisions: Sequence[Path]) -> list[tuple[Outputs, Decision, Path | None]]:
    """Reads tables as one a task, and for each the decision to apply and its file; as `read_decided` for several tasks.

    Raises DecisionError where two decisions are of one task, or one is of another than all tables.
    """
    tables = read_by_task(outputs)
    chosen: dict[Task, Path] = {}
    for path in decisions:
        value = read_json(path, DecisionError, "Name a decision file.")
        named = value.get("task") if isinstance(value, dict) else None
        # Where none is, loading says so.
        task = next((task for task in tables if task.name == named), next(iter(tables)))
        if task in chosen:
            raise DecisionError("is the second decision of its task", path=path, found=named, expected="one each")
        chosen[task] = path
    return [(table, _fitting(table, chosen.get(task)), chosen.get(task)) for task, table in tables.items()]


def _fitting(table: Outputs, path: Path | None) -> Decision:
    if path is None:
        return equal_weights(table)
    decision = Decision.load(path, table.task)
    decision.check(table)
    return decision
