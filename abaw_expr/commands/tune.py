"""`tune`: validation outputs to a decision."""

from pathlib import Path
from typing import Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, Tables, files_of
from abaw_expr.commands.exit_status import OK
from abaw_expr.files import check_target


def tune(
    outputs: Tables,
    out: Path,
    rule: Literal["best", "plateau"] = "best",
    leave_out: Flag = False,
    refine: Flag = False,
    missing: Literal["smoothed", "masked"] = "smoothed",
    plots: Path | None = None,
) -> int:
    """Chooses weights, smoothing, prior correction and thresholds on validation outputs: a decision.

    Several tables make an ensemble: all their branches vote, with weights. Tables of the same branches and other
    videos, such as of folds, are put together. The search is exhaustive. Prior correction is for classes only,
    thresholds are for action units only.

    The nested estimate is the score to quote: cross-validation in which each recording is scored with what the other
    recordings choose. It is too high as well on outputs of the best epoch, which validation chose; then a warning says
    so. The out-of-fold outputs of `folds` are of all training recordings, and need no such warning.

        abaw-expr tune val.parquet --out decision.json --plots plots
        abaw-expr tune val.parquet second=other.parquet --out decision.json
        abaw-expr tune fold1.parquet fold2.parquet --out decision.json

    Args:
        outputs: Outputs tables of the validation split. NAME= renames the branches of a file, where two files have the
            same branches.
        out: The decision file (JSON) to write.
        rule: best: the candidate with the highest score; plateau: the highest mean over a candidate and its neighbours.
        missing: The vote of a branch on a frame without its modality: that of the smoothing window (smoothed), or none
            (masked).
        leave_out: Also try weight 0 for each of two branches; with more branches it is always tried.
        refine: Also try a temperature for each branch, a branch that decides alone where it is sure, and a factor for
            a class; one of them is kept where the nested estimate says that it pays.
        plots: A folder for plots (SVG and PNG) of weights, smoothing, optimism, confusion.
    """
    from abaw_expr.outputs.joining import read_joined
    from tuning.selection import decide, default_space, search

    check_target(out, *files_of(outputs))
    table = read_joined(outputs, None)
    with console.progress("Scoring candidates") as on_progress:
        found = search(table, default_space(table, leave_out, missing), rule, on_progress)
    decision = decide(table, found)
    if refine:
        from tuning import refinements

        with console.progress("Refining") as on_progress:
            decision = refinements.refine(table, found, decision, on_progress)
    decision.save(out)
    if plots is not None:
        from tuning.plots import draw_search

        draw_search(found, list(table.branches), plots)
    console.print_decision(str(out), decision)
    return OK
