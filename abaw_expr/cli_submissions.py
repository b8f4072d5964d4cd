"""The commands that write a submission and check it.

Heavy modules are imported inside the commands, so that `check` answers at once.
"""

from pathlib import Path
from typing import Literal

import tyro

from abaw_expr import console
from abaw_expr.cli_import import Tables, files_of, read_decided
from abaw_expr.errors import UserError
from abaw_expr.files import check_target
from abaw_expr.tasks import EXPR


def submit(
    outputs: Tables,
    decision: Path,
    template: Path,
    out: Path,
    edition: Literal["one-file", "per-video"] = "one-file",
) -> int:
    """Writes the submission: the template's rows, in its order, with a class each.

    Args:
        outputs: The test set's outputs tables, as `tune` was given those of validation.
        decision: The decision file to apply.
        template: The organisers' template.
        out: The file to write, or the folder with --edition per-video.
        edition: one-file is predictions.txt (5th edition on); per-video is the 3rd edition's file a video.
    """
    from submissions.template import read_template
    from submissions.writer import VideoLabels, write_per_video, write_predictions

    if edition == "one-file":
        check_target(out, *files_of(outputs), decision, template)
    (table, chosen), rows = read_decided(outputs, decision), read_template(template)
    labels = {video.name: VideoLabels(video.frame, chosen.labels(video)) for video in table.videos()}
    write = write_predictions if edition == "one-file" else write_per_video
    write(rows, {EXPR: labels}, out)
    console.table(f"Submission {out}", ("", "count"), [("videos", len(rows.videos)), ("rows", len(rows.rows))])
    console.note("Check it before you hand it in: abaw-expr check")
    return 0


def check(predictions: tyro.conf.Positional[Path], template: Path) -> int:
    """Finds every fault of a submission at once, with line numbers.

    Exit status: 0 clean, 1 faults, 2 could not run.

    Args:
        predictions: The predictions.txt, or the 3rd edition's folder.
        template: The organisers' template.
    """
    from submissions.checker import check_folder, check_predictions

    if predictions.exists() and template.exists() and predictions.samefile(template):
        raise UserError("is named as predictions and as template", path=template, remedy="Name the organisers' file.")
    faults = (check_folder if predictions.is_dir() else check_predictions)(predictions, template, EXPR)
    for fault in faults:
        console.OUT.print(str(fault), soft_wrap=True)
    count = len(faults)
    verdict = f"{count} kind{'s' * (count > 1)} of fault" if faults else "clean"
    console.OUT.print(f"{predictions}: {verdict}", soft_wrap=True)
    return 1 if faults else 0
