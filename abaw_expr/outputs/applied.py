"""Reads tables of outputs together with the decision to apply to them."""

from collections.abc import Sequence
from pathlib import Path

from abaw_expr.errors import DecisionError
from abaw_expr.files import read_json
from abaw_expr.outputs.decision import Decision, equal_weights
from abaw_expr.outputs.joining import read_by_task, read_joined
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.task import Task


def read_decided(outputs: Sequence[Path], decision: Path | None) -> tuple[Outputs, Decision]:
    """Reads tables of one task, any task, as one table, and the decision to apply; without a file, equal weights.

    Raises OutputsError as `read_joined` does, and DecisionError where the decision does not fit the tables.
    """
    table = read_joined(outputs, None)
    return table, _load_for(table, decision)


def read_all_decided(outputs: Sequence[Path], decisions: Sequence[Path]) -> list[tuple[Outputs, Decision, Path | None]]:
    """`read_decided` for several tasks: for each task one table, the decision to apply, and the decision's file.

    Raises DecisionError where two decisions have the same task, or one has a task that no table has.
    """
    tables = read_by_task(outputs)
    chosen: dict[Task, Path] = {}
    for path in decisions:
        value = read_json(path, DecisionError, "Name a decision file.")
        named = value.get("task") if isinstance(value, dict) else None
        # If no table has the task, loading the decision raises the error.
        task = next((task for task in tables if task.name == named), next(iter(tables)))
        if task in chosen:
            problem = "is a second decision for the same task"
            raise DecisionError(problem, path=path, found=named, expected="one decision per task")
        chosen[task] = path
    return [(table, _load_for(table, chosen.get(task)), chosen.get(task)) for task, table in tables.items()]


def note_on(path: Path | None, outputs: Outputs, decision: Decision) -> str | None:
    """A note for the user that a decision is not tuned, or was tuned on other outputs; None otherwise."""
    if path is None:
        return f"No --decision: all branches have the same vote, nothing is tuned ({decision})."
    return mismatch_note(path, decision.source_mismatches(outputs.branches))


def mismatch_note(path: Path | None, mismatches: Sequence[str]) -> str | None:
    """The warning that a decision was tuned on other outputs; None without a mismatch."""
    if not mismatches:
        return None
    return (
        f"Warning: {path} was tuned on other outputs: {'; '.join(mismatches)}. Its weights, smoothing and prior "
        "correction may not fit these. Tune again on the validation outputs of the same run."
    )


def _load_for(table: Outputs, path: Path | None) -> Decision:
    """The decision in a file, checked against the table; without a file, equal weights."""
    if path is None:
        return equal_weights(table)
    decision = Decision.load(path, table.task)
    decision.check(table)
    return decision
