"""Converts predictions to another format: the 3rd edition's folder, one file, a branch of an outputs table.

Between folder and file the text of the predictions is copied unchanged.

Shapes: N predicted frames, C numbers of a row.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from abaw_expr.outputs.importing import Imported, SourceRows, join_branch
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.registry import metric_of
from submissions.reader import read_numbers, read_prediction_rows, read_video_files
from submissions.template import read_template
from submissions.writer import Predictions, VideoLabels, check_tasks, labels_of_rows, write_files, write_rows


def to_folder(path: Path, folder: Path) -> int:
    """Writes a file of predictions as the 3rd edition's folder, and returns the number of rows.

    Raises:
        PredictionsError: a line cannot be read; or `folder` exists and has other files than those of such a folder.
        TemplateError: the file's challenge had no such folder, or a video's rows are not the frames 1..n.
    """
    predictions = read_prediction_rows(path)
    read_numbers(predictions.rest, predictions.format.fields, path)
    write_files(predictions, predictions.rest, folder)
    return len(predictions.rows)


def to_file(folder: Path, path: Path, template_path: Path | None = None) -> int:
    """Writes the 3rd edition's folder as one file, and returns the number of rows.

    The rows are those of the template; without one, the videos are in the order of their names, with frames from 1.

    Raises:
        PredictionsError: a line of the folder cannot be read; the template is of another challenge; or a row of the
            template is missing.
        TemplateError: the template cannot be read.
    """
    task, lines = read_video_files(folder)
    for video, text in lines.items():
        read_numbers(text, task.fields, folder / f"{video}.txt")
    texts = pa.chunked_array(list(lines.values()))
    if template_path is None:
        names = [frame_name(video, frame) for video, text in lines.items() for frame in range(1, len(text) + 1)]
        write_rows(task.submission_header, pa.chunked_array([names]), texts, path)
        return len(names)
    template = read_template(template_path)
    check_tasks(template, [task])
    starts = np.cumsum([0, *map(len, lines.values())]).tolist()
    indices = {
        video: VideoLabels(np.arange(1, len(text) + 1), np.arange(start, start + len(text)))
        for (video, text), start in zip(lines.items(), starts, strict=False)
    }
    chosen, _ = labels_of_rows(template, indices)
    write_rows(template.format.header, template.rows, texts.take(pa.array(chosen)), path)
    return len(chosen)


def to_branch(path: Path, predictions: Predictions, name: str, rows: Outputs) -> Imported:
    """Makes predictions a branch of an outputs table with these rows.

    The branch has probability 1 for its class and active units and 0 for the others, or the predicted values. Videos
    without predictions have no rows of the branch.

    Raises OutputsError as `join_branch` does; it names `path`, the file of the predictions.
    """
    metric = metric_of(rows.task)
    p = metric.from_labels(np.concatenate([own.labels for own in predictions.values()]))
    names: Any = np.repeat(np.array(list(predictions), object), [len(own.frames) for own in predictions.values()])
    frames = np.concatenate([own.frames for own in predictions.values()]).astype(np.float64)
    given = SourceRows(names, frames, p, logits=False, where=lambda row: (path, row + 1))
    return join_branch(given, path, name, rows, metric.unknown_prior, incomplete=True)
