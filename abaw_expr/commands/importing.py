"""The command that brings in what other models say, and the one that compares."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag
from abaw_expr.errors import UserError, shorten
from abaw_expr.files import check_target

if TYPE_CHECKING:
    from abaw_expr.outputs.importing import Imported
    from abaw_expr.outputs.table import Outputs


def import_outputs(
    source: tyro.conf.Positional[Path],
    name: str,
    out: Path,
    like: Path | None = None,
    annotations: Path | None = None,
    template: Path | None = None,
    task: Literal["expr", "va", "au", "compound"] | None = None,
    videos: Path | None = None,
    rate: float | None = None,
    logits: Flag = False,
    incomplete: Flag = False,
    prior: tuple[float, ...] | None = None,
) -> int:
    """Turns another model's numbers into an outputs table, checked row by row.

    `tune`, `score` and `submit` then take it, alone or beside other tables: --outputs val.parquet clip.parquet.

    Which frames, and which challenge, say --like, --annotations or --template: classes of expressions or compound
    expressions, valence and arousal, or action units.

    Args:
        source: A CSV or Parquet file with video and frame (or image_location) and a column a class, under the
            classes' names; or a folder of VIDEO.npz with probabilities or logits, classes and, if not 1 to the end,
            frame. For action units a column a unit (AU1) with its probability; for valence and arousal their values,
            in an NPZ under `values`.
        name: What the branch is to be called.
        out: The Parquet file to write.
        like: The outputs table that it is to vote beside: it gives rows, times and labels.
        annotations: Without --like: the folder of annotation files, whose lines are the rows, with their labels.
        template: Without --like: the organisers' template, whose rows are the rows.
        task: Which task's numbers these are; needed where a template asks for several.
        videos: Without --like: the folder of the video files, at any depth, for each frame's time.
        rate: Without --like and --videos: frames a second of all videos. Smoothing is in seconds.
        logits: The numbers are logits, not probabilities.
        incomplete: Whole videos may be missing; the branch has no vote in them.
        prior: What the model's training saw on average: the share of each class, in the task's order (even where not
            given, and then nothing is corrected), or of each unit's active frames, or mean valence and arousal.
    """
    from abaw_expr.outputs.importing import import_branch
    from abaw_expr.outputs.table import read_outputs, write_outputs

    check_target(out, source, like, template)
    if [like, annotations, template].count(None) != 2:
        raise UserError("import needs one of --like, --annotations and --template, to know the frames")
    rows_of = read_outputs(like, None) if like else _frames(annotations, template, task, videos, rate)
    if task not in (None, rows_of.task.name):
        where = like or annotations
        raise UserError("is of another task", path=where, found=rows_of.task.name, expected=task)
    imported = import_branch(source, name, rows_of, logits, prior, incomplete)
    write_outputs(out, imported.outputs)
    _report(f"Outputs {out}, branch {name}, {rows_of.task.name}", imported)
    return 0


def _report(title: str, imported: "Imported") -> None:
    """Says how the rows of a source met those of the table."""
    rows = [("rows of the table", imported.used + imported.silent), ("rows with numbers", imported.used)]
    rows += [("rows without: no vote", imported.silent), ("rows of other frames, left out", imported.beyond)]
    rows += [("rows made to sum to 1, as they were rounded", imported.scaled)] if imported.scaled else []
    console.table(title, ("", "count"), rows)
    if imported.spelt:
        names = [f"{theirs} for {ours}" for theirs, ours in imported.spelt.items()]
        console.note(f"{len(names)} videos are written otherwise, and were understood: {shorten(names)}.")
    if imported.strangers:
        count = len(imported.strangers)
        console.note(f"{count} videos are not in the table, and were left out: {shorten(imported.strangers)}.")


def _frames(
    annotations: Path | None, template: Path | None, name: str | None, videos: Path | None, rate: float | None
) -> "Outputs":
    """The frames of annotations or of a template, with their times."""
    import numpy as np

    from abaw_expr.data.release.clocks import times_of_frames
    from abaw_expr.data.release.reader import read_annotation_folder, task_of_folder
    from abaw_expr.outputs.importing import frames_of
    from submissions.template import read_template

    if annotations is not None:
        known = task_of_folder(annotations)
        labels = read_annotation_folder(annotations, known)
        frames = {video: np.arange(1, len(lines) + 1) for video, lines in labels.items()}
        return frames_of(known, "val", frames, times_of_frames(frames, videos, rate, console.tell), labels)
    assert template is not None
    rows = read_template(template)
    tasks = [task for task in rows.format.tasks if name in (None, task.name)]
    if len(tasks) != 1:
        names = ", ".join(task.name for task in rows.format.tasks)
        raise UserError("which --task is meant?", path=template, found=name, expected=f"one of {names}")
    frames = {video: np.sort(own.frames) for video, own in rows.videos.items()}
    return frames_of(tasks[0], "test", frames, times_of_frames(frames, videos, rate, console.tell))
