"""The command that brings in what other models say, and the one that compares."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr import console
from abaw_expr.cli_training import Flag
from abaw_expr.errors import UserError
from abaw_expr.files import check_target
from abaw_expr.tasks import EXPR

if TYPE_CHECKING:
    from abaw_expr.fusion import Decision
    from abaw_expr.outputs import Outputs
    from abaw_expr.scoring import Counts

Tables = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[NAME=]FILE [[NAME=]FILE ...]")]


def import_outputs(
    source: tyro.conf.Positional[Path],
    like: Path,
    name: str,
    out: Path,
    logits: Flag = False,
    incomplete: Flag = False,
    prior: tuple[float, ...] | None = None,
) -> int:
    """Turns another model's probabilities into an outputs table, checked row by row.

    `tune`, `score` and `submit` then take it beside your runs: --outputs val.parquet clip.parquet.

    Args:
        source: A CSV or Parquet file with video and frame (or image_location) and a column a class, under the
            classes' names; or a folder of VIDEO.npz with probabilities or logits, classes and, if not 1 to the end,
            frame.
        like: The outputs table that it is to vote beside: it gives rows, times and labels.
        name: What the branch is to be called.
        out: The Parquet file to write.
        logits: The numbers are logits, not probabilities.
        incomplete: Whole videos may be missing; the branch has no vote in them.
        prior: The share of each class in the model's training, in the task's order; even where not given, and then
            nothing is corrected.
    """
    from abaw_expr.importing import import_branch
    from abaw_expr.outputs import read_outputs, write_outputs

    check_target(out, source, like)
    imported = import_branch(source, name, read_outputs(like, EXPR), logits, prior, incomplete)
    write_outputs(out, imported.outputs)
    rows = [("rows of the table", imported.used + imported.silent), ("rows with numbers", imported.used)]
    rows += [("rows without: no vote", imported.silent), ("rows of other frames, left out", imported.beyond)]
    console.table(f"Outputs {out}, branch {name}", ("", "count"), rows)
    return 0


def compare(outputs: Tables, decision: Path, other_outputs: Tables, other_decision: Path) -> int:
    """Says by how much one decision beats another on the same frames, and how sure that is.

    A paired bootstrap: each resample draws the same recordings for both.

    Args:
        outputs: The outputs tables of the first.
        decision: The decision file of the first.
        other_outputs: The outputs tables of the second; the same where only the decision differs.
        other_decision: The decision file of the second.
    """
    from abaw_expr.scoring import bootstrap_difference, bootstrap_interval, macro_f1

    first, names = _by_recording(outputs, decision)
    second, other_names = _by_recording(other_outputs, other_decision)
    if names != other_names or (first.sum(axis=(1, 2)) != second.sum(axis=(1, 2))).any():
        remedy = "Compare outputs of the same split."
        raise UserError("the two are not of the same annotated frames", path=other_outputs[0], remedy=remedy)
    if len(first) < 2:
        raise UserError("there is nothing to resample", found="1 recording", expected="at least 2")
    rows: list[tuple[str, float, float, float]] = []
    for path, counts in ((decision, first), (other_decision, second)):
        rows.append((str(path), float(macro_f1(counts.sum(axis=0))), *bootstrap_interval(counts, seed=0)))
    rows.append(("difference", *bootstrap_difference(first, second, seed=0)))
    console.table(f"Macro F1 on {len(first)} recordings", ("", "macro F1", "95 % from", "to"), rows)
    _, _, low, high = rows[-1]
    verdict = "The interval of the difference holds 0: no difference is shown." if low <= 0 <= high else None
    console.OUT.print(verdict or f"The {'first' if low > 0 else 'second'} is better.")
    return 0


def files_of(outputs: Sequence[Path]) -> list[Path]:
    """The files that `[NAME=]FILE` flags name."""
    from abaw_expr.outputs import split_name

    return [split_name(file)[1] for file in outputs]


def read_decided(outputs: Sequence[Path], decision: Path) -> "tuple[Outputs, Decision]":
    """Outputs tables as one, and the decision to apply to them, which fits."""
    from abaw_expr.fusion import Decision
    from abaw_expr.outputs import read_joined

    chosen, table = Decision.load(decision, EXPR), read_joined(outputs, EXPR)
    chosen.check(table)
    return table, chosen


def _by_recording(outputs: Sequence[Path], decision: Path) -> "tuple[Counts, list[str]]":
    """Confusion counts a recording, [R, C, C], and the videos."""
    from abaw_expr.scoring import sum_recordings

    table, chosen = read_decided(outputs, decision)
    videos = table.videos()
    names = [video.name for video in videos]
    return sum_recordings(names, chosen.confusions(videos)), names
