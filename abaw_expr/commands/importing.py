"""`import`: another model's outputs as an outputs table."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, Source
from abaw_expr.errors import UserError
from abaw_expr.files import check_target

if TYPE_CHECKING:
    from abaw_expr.outputs.table import Outputs


def import_outputs(
    source: Source,
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
    """Turns another model's outputs into an outputs table, checked row by row.

    `tune`, `score` and `submit` take the table alone, or beside others as an ensemble. The rows and the task come from
    --like, --annotations or --template. `import --embeddings --help` is about embeddings.

        abaw-expr import clip_val.csv --name clip --like val.parquet \\
            --out clip_val.parquet
        abaw-expr import va_val.csv --name clip --annotations Validation_Set \\
            --videos release --out va_val.parquet
        abaw-expr tune val.parquet clip_val.parquet --out decision.json

    Args:
        source: A CSV or Parquet file with the columns video and frame (or image_location) and one a class, under the
            classes' names; or a folder of VIDEO.npz with probabilities or logits, classes and, if not 1 to the end,
            frame. For action units a column a unit (AU1) with its probability; for valence and arousal their values, in
            an NPZ under `values`.
        name: The name of the branch.
        out: The Parquet file to write.
        like: The outputs table beside which it will vote: it gives rows, times and labels.
        annotations: Without --like: the folder of annotation files, whose lines give rows and labels.
        template: Without --like: the organisers' template, which gives the rows.
        task: The task of these outputs; needed where a template asks for several.
        videos: Without --like: the folder of the video files, at any depth, for each frame's time.
        rate: Without --like and --videos: frames a second of all videos. Smoothing is in seconds.
        logits: The numbers are logits, not probabilities.
        incomplete: Whole videos may be missing; the branch has no vote in them.
        prior: The model's training prior: the fraction of each class in the task's order (without it uniform, and no
            prior correction), or of each unit's active frames, or mean valence and arousal.
    """
    from abaw_expr.outputs.importing import import_branch
    from abaw_expr.outputs.table import read_outputs, write_outputs

    check_target(out, source, like, template)
    if [like, annotations, template].count(None) != 2:
        raise UserError("import needs one of --like, --annotations and --template, for its rows")
    rows_of = read_outputs(like, None) if like else _frames(annotations, template, task, videos, rate)
    if task not in (None, rows_of.task.name):
        where = like or annotations
        raise UserError("is of another task", path=where, found=rows_of.task.name, expected=task)
    imported = import_branch(source, name, rows_of, logits, prior, incomplete)
    write_outputs(out, imported.outputs)
    console.imported(f"Outputs {out}, branch {name}, {rows_of.task.name}", imported)
    return 0


def _frames(
    annotations: Path | None, template: Path | None, name: str | None, videos: Path | None, rate: float | None
) -> "Outputs":
    """The frames of annotations or of a template, with their times."""
    import numpy as np

    from abaw_expr.data.release.frame_times import times_of_frames
    from abaw_expr.data.release.reader import read_annotation_folder, task_of_folder
    from abaw_expr.outputs.importing import frames_of
    from submissions.template import read_template

    if annotations is not None:
        known = task_of_folder(annotations)
        labels = read_annotation_folder(annotations, known)
        frames = {video: np.arange(1, len(lines) + 1) for video, lines in labels.items()}
        return frames_of(known, "val", frames, times_of_frames(frames, videos, rate, console.problem_note), labels)
    assert template is not None
    rows = read_template(template)
    tasks = [task for task in rows.format.tasks if name in (None, task.name)]
    if len(tasks) != 1:
        names = ", ".join(task.name for task in rows.format.tasks)
        raise UserError("has no such single task: give --task", path=template, found=name, expected=f"one of {names}")
    frames = {video: np.sort(own.frames) for video, own in rows.videos.items()}
    return frames_of(tasks[0], "test", frames, times_of_frames(frames, videos, rate, console.problem_note))
