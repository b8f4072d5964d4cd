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
    missing: Literal["smoothed", "masked"] = "smoothed",
    pictures: Path | None = None,
) -> int:
    """Chooses weights, smoothing and prior correction on validation outputs, exactly.

    Of action units each one's threshold as well. Prior correction is of expressions' classes alone.

    The nested figure is the one to quote: each recording is scored by what the others choose. Where it is too high too,
    as on outputs of the best epoch, that is said; predict with --checkpoint last for validation and test.

    Args:
        outputs: The validation split's outputs tables, one or several, all their branches voting. NAME= gives a
            file's branch another name, where two files have the same.
        out: The decision file (JSON) to write.
        rule: What is best: the highest figure, or the highest mean with its neighbours, a broad optimum.
        missing: Whether a frame whose modality is missing gets, by smoothing, the vote of the frames in its window
            (smoothed) or none (masked).
        leave_out: Of two branches too, try to leave one out (weight 0); of more that is always tried.
        pictures: A folder for pictures (SVG and PNG): weights, smoothing, optimism, confusion.
    """
    from abaw_expr.outputs.joining import read_joined
    from tuning.selection import decide, default_space, search

    check_target(out, *files_of(outputs))
    table = read_joined(outputs, None)
    with console.progress("Scoring candidates") as tell:
        found = search(table, default_space(table, leave_out, missing), rule, tell)
    decision = decide(table, found)
    decision.save(out)
    if pictures is not None:
        from tuning.plots import draw_search

        draw_search(found, list(table.branches), pictures)
    console.print_decision(str(out), decision)
    return OK
