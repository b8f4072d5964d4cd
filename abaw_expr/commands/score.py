"""`score`: the metric, as the organisers compute it."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables, files_of
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError
from abaw_expr.files import check_target, write_json

if TYPE_CHECKING:
    from abaw_expr.tasks.report import Report


def score(
    outputs: Tables = (),
    decision: Path | None = None,
    predictions: Path | None = None,
    annotations: Path | None = None,
    crops: tuple[Path, ...] = (),
    out: Path | None = None,
) -> int:
    """Scores outputs or predictions as the organisers do, over all annotated frames.

    Expressions: macro F1. Valence and arousal: the mean of both CCC. Action units: the mean of their F1. Frames that
    have a crop are also scored separately, where that is known.

        abaw-expr score val.parquet --decision decision.json
        abaw-expr score predictions.txt --annotations Validation_Set

    Args:
        outputs: Outputs tables with labels, as given to `tune`.
        decision: The decision file to apply; without it all branches have equal weights.
        predictions: A predictions.txt, or the 3rd edition's folder.
        annotations: The folder of annotation files to score the predictions against.
        crops: With --predictions: the folders of crops, to score frames with a crop too.
        out: Write all scores to this JSON file.
    """
    if out is not None:
        check_target(out, *files_of(outputs), decision, predictions)
    if outputs and not (predictions or annotations or crops):
        found = _score_outputs(outputs, decision)
    elif predictions and annotations and not (outputs or decision):
        found = _score_predictions(predictions, annotations, crops)
    else:
        raise UserError("score needs --outputs [--decision], or --predictions with --annotations [--crops]")
    for number, (name, report) in enumerate(found.items()):
        console.print_report(name, report, detailed=number == 0)
    if out is not None:
        write_json(out, {name: report.to_json() for name, report in found.items()})
    return OK


def _score_outputs(outputs: Sequence[Path], decision: Path | None) -> "dict[str, Report]":
    from abaw_expr.outputs.applied import read_decided

    table, chosen = read_decided(outputs, decision)
    console.applied(decision, table, chosen)
    return chosen.reports(table)


def _score_predictions(predictions: Path, annotations: Path, crops: Sequence[Path]) -> "dict[str, Report]":
    from abaw_expr.data.release.reader import frames_with_crop, read_annotation_folder, task_of_folder
    from abaw_expr.tasks.registry import metric_of
    from submissions.reader import align, read_predictions

    task = task_of_folder(annotations)
    truths = read_annotation_folder(annotations, task)
    _, known = read_predictions(predictions, task)
    predicted = [align(known, video, len(truth)) for video, truth in truths.items()]
    has_crop = frames_with_crop(crops, truths) if crops else None
    return metric_of(task).reports(list(truths), list(truths.values()), predicted, has_crop)
