"""`compare`: one decision against another on the same recordings, or runs beside each other."""

from collections.abc import Sequence
from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError

_USAGE = "--outputs --decision --other-outputs --other-decision, or --runs RUN RUN"


def compare(
    outputs: Tables = (),
    decision: Path | None = None,
    other_outputs: Tables = (),
    other_decision: Path | None = None,
    runs: tuple[Path, ...] = (),
) -> int:
    """Compares two decisions on the same frames by a paired bootstrap over recordings, or runs by settings and scores.

        abaw-expr compare --outputs val.parquet --decision decision.json \\
            --other-outputs val.parquet clip_val.parquet \\
            --other-decision ensemble.json
        abaw-expr compare --runs runs/first runs/second

    Args:
        outputs: The outputs tables of the first.
        decision: The decision file of the first.
        other_outputs: The outputs tables of the second; the same where only the decision differs.
        other_decision: The decision file of the second.
        runs: Run folders: the settings that differ, the score of each best epoch, and each column's.
    """
    tables = outputs and other_outputs
    if runs and not (outputs or other_outputs or decision or other_decision):
        return _compare_runs(runs)
    if runs or not tables or decision is None or other_decision is None:
        raise UserError("compare needs two decisions with their outputs, or runs", expected=_USAGE)
    return _compare_decisions((outputs, decision), (other_outputs, other_decision))


def _compare_decisions(one: tuple[Sequence[Path], Path], other: tuple[Sequence[Path], Path]) -> int:
    from abaw_expr.outputs.applied import read_decided
    from abaw_expr.outputs.comparison import compare as compare_decisions

    (outputs, decision), (other_outputs, other_decision) = one, other
    first, second = read_decided(outputs, decision), read_decided(other_outputs, other_decision)
    console.applied(decision, *first)
    console.applied(other_decision, *second)
    found = compare_decisions(first, second)
    rows = [(str(decision), *found.first), (str(other_decision), *found.second), ("difference", *found.difference)]
    metric = found.metric
    console.table(f"{metric.title} on {found.recordings} recordings", ("", metric.name, "95 % from", "to"), rows)
    undecided = "The interval of the difference contains 0: no difference is shown."
    console.OUT.print(f"The {found.better} is better." if found.better else undecided)
    return OK


def _compare_runs(folders: Sequence[Path]) -> int:
    """Prints runs beside each other. Raises UserError for fewer than two, or of different tasks."""
    from abaw_expr.tasks.registry import metric_of
    from abaw_expr.training.runs import best_scores, named_runs

    runs = named_runs(folders)
    tasks = {run.settings.task for run in runs}
    if len(runs) < 2 or len(tasks) > 1:
        found = f"{len(runs)} runs of the tasks {', '.join(sorted(tasks))}"
        raise UserError("runs cannot be compared", found=found, expected="two or more runs of one task")
    console.print_runs(runs)
    metric = metric_of(runs[0].settings.task_of)
    console.table(f"{metric.title} of the best epoch", ("", *(run.name for run in runs)), best_scores(runs))
    console.note(
        "Validation chose these epochs, so their scores are too high. To compare what they give: predict with "
        "--checkpoint last, tune, and compare the decisions."
    )
    return OK
