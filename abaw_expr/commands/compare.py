"""`compare`: one decision against another on the same recordings."""

from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.errors import UserError

if TYPE_CHECKING:
    from abaw_expr.outputs.decision import Decision
    from abaw_expr.outputs.table import Outputs
    from abaw_expr.tasks.statistics import Statistics
from abaw_expr.commands.arguments import Tables


def compare(outputs: Tables, decision: Path, other_outputs: Tables, other_decision: Path) -> int:
    """Says by how much one decision beats another on the same frames, and how sure that is.

    A paired bootstrap: each resample draws the same recordings for both.

    Args:
        outputs: The outputs tables of the first.
        decision: The decision file of the first.
        other_outputs: The outputs tables of the second; the same where only the decision differs.
        other_decision: The decision file of the second.
    """
    from abaw_expr.outputs.comparison import check_same_annotations
    from abaw_expr.outputs.decided import read_decided
    from abaw_expr.tasks.statistics import bootstrap_difference, bootstrap_interval

    table, chosen = read_decided(outputs, decision)
    console.applied(decision, table, chosen)
    other, other_chosen = read_decided(other_outputs, other_decision)
    console.applied(other_decision, other, other_chosen)
    check_same_annotations(table, other)
    metric, first, second = chosen.metric, _by_recording(table, chosen), _by_recording(other, other_chosen)
    if len(first) < 2:
        raise UserError("there is nothing to resample", found="1 recording", expected="at least 2")
    score = metric.score
    rows: list[tuple[str, float, float, float]] = []
    for path, counts in ((decision, first), (other_decision, second)):
        interval = bootstrap_interval(counts, score, seed=0)
        rows.append((str(path), float(score(counts.sum(axis=0))), *interval))
    rows.append(("difference", *bootstrap_difference(first, second, score, seed=0)))
    console.table(f"{metric.title} on {len(first)} recordings", ("", metric.name, "95 % from", "to"), rows)
    _, _, low, high = rows[-1]
    verdict = "The interval of the difference holds 0: no difference is shown." if low <= 0 <= high else None
    console.OUT.print(verdict or f"The {'first' if low > 0 else 'second'} is better.")
    return 0


def _by_recording(table: "Outputs", decision: "Decision") -> "Statistics":
    """Statistics a recording, [R, F, K]."""
    from abaw_expr.tasks.statistics import sum_recordings

    videos = table.videos()
    return sum_recordings([video.name for video in videos], decision.statistics(videos))
