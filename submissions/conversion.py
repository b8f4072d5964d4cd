"""From the 3rd edition's folder to one file and back: the answers themselves are carried over as they are written."""

from pathlib import Path

import numpy as np
import pyarrow as pa

from abaw_expr.tasks.names import frame_name
from submissions.reader import read_lines, read_numbers, read_rows
from submissions.template import read_template
from submissions.writer import VideoLabels, check_tasks, labels_of_rows, write_files, write_rows


def to_folder(path: Path, folder: Path) -> int:
    """Writes a file of predictions as the 3rd edition's folder, and returns the number of rows.

    Raises:
        PredictionsError: a line cannot be read; or `folder` is there and holds anything but such files.
        TemplateError: the file is not of a challenge that had such a folder, or a video's rows are not the frames 1..n.
    """
    predictions = read_rows(path)
    read_numbers(predictions.rest, predictions.format.fields, path)
    write_files(predictions, predictions.rest, folder)
    return len(predictions.rows)


def to_file(folder: Path, path: Path, template_path: Path | None = None) -> int:
    """Writes the 3rd edition's folder as one file, and returns the number of rows.

    The rows are the template's; without one, those of the videos in the order of their names, frames from 1.

    Raises:
        PredictionsError: a line of the folder cannot be read; the template asks for another challenge; or a row of it
            is not there.
        TemplateError: the template cannot be read.
    """
    task, lines = read_lines(folder)
    for video, own in lines.items():
        read_numbers(own, task.fields, folder / f"{video}.txt")
    answers = pa.chunked_array(list(lines.values()))
    if template_path is None:
        names = [frame_name(video, frame) for video, own in lines.items() for frame in range(1, len(own) + 1)]
        write_rows(task.submission_header, pa.chunked_array([names]), answers, path)
        return len(names)
    template = read_template(template_path)
    check_tasks(template, [task])
    starts = np.cumsum([0, *map(len, lines.values())]).tolist()
    places = {
        video: VideoLabels(np.arange(1, len(own) + 1), np.arange(start, start + len(own)))
        for (video, own), start in zip(lines.items(), starts, strict=False)
    }
    chosen, _ = labels_of_rows(template, places)
    write_rows(template.format.header, template.rows, answers.take(pa.array(chosen)), path)
    return len(chosen)
