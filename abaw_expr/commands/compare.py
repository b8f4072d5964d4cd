"""`compare`: one decision against another on the same recordings."""

from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables
from abaw_expr.commands.exit_status import OK


def compare(outputs: Tables, decision: Path, other_outputs: Tables, other_decision: Path) -> int:
    """Compares two decisions on the same frames by a paired bootstrap over recordings.

        abaw-expr compare --outputs val.parquet --decision decision.json \\
            --other-outputs val.parquet clip_val.parquet \\
            --other-decision ensemble.json

    Args:
        outputs: The outputs tables of the first.
        decision: The decision file of the first.
        other_outputs: The outputs tables of the second; the same where only the decision differs.
        other_decision: The decision file of the second.
    """
    from abaw_expr.outputs.applied import read_decided
    from abaw_expr.outputs.comparison import compare as compare_decisions

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
