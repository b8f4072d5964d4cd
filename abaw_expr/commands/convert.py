"""The command that turns predictions of one shape into another."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import tyro

from abaw_expr.commands import console
from abaw_expr.errors import UserError
from abaw_expr.files import check_target
from abaw_expr.tasks.task import TASKS, Task

if TYPE_CHECKING:
    from abaw_expr.outputs.importing import Given
    from submissions.writer import Predictions

TABLE = ".parquet"
ONE_FILE = (".txt", ".csv")
BRANCH = "predictions"
"""What the branch of a table is called; NAME=FILE gives it another name."""


def convert(
    source: tyro.conf.Positional[Path],
    out: Path,
    template: Path | None = None,
    like: Path | None = None,
    videos: Path | None = None,
    rate: float | None = None,
    task: Literal["expr", "va", "au"] | None = None,
) -> int:
    """Turns predictions of one shape into another; what is given, and the name of --out, say which.

    To one file or a folder: the 3rd edition's folder becomes one file, and one file becomes such a folder. The answers
    are carried over as they are written: there and back gives the same bytes, with the first file as --template.

    To an outputs table, NAME.parquet, which `tune`, `score` and `submit` take: a branch that is sure of its class and
    units, or has these values. --like, --videos or --rate says when frames are shown.

    Args:
        source: The predictions: one file of any edition, or the 3rd edition's folder.
        out: What to write: NAME.parquet, an outputs table; else of a folder one file, of a file a new folder.
        template: For one file: the organisers' template, whose order it gets; else videos are in the order of names.
        like: For a table: the outputs table that it is to vote beside: it gives rows, times and labels.
        videos: For a table, without --like: the folder of the video files, at any depth, for each frame's time.
        rate: For a table, without --like and --videos: frames a second of all videos.
        task: For a table of a multi-task file, without --like: which of its answers.
    """
    if not source.exists():
        raise UserError("is not there", path=source, remedy="Check the path.")
    to_table = out.suffix == TABLE
    times = {"--like": like, "--videos": videos, "--rate": rate}
    _refuse_unused({**times, "--task": task}, to_table, f"--out ends in {TABLE}")
    _refuse_unused({"--template": template}, source.is_dir() and not to_table, "a folder becomes one file")
    if to_table:
        if list(times.values()).count(None) != len(times) - 1:
            raise UserError(f"convert needs one of {', '.join(times)}, to know when frames are shown")
        rows = _to_table(source, out, like, videos, rate, task)
    else:
        rows = [("rows", _to_text(source, out, template))]
    console.table(f"Predictions {out}", ("", "count"), rows)
    return 0


def _refuse_unused(flags: Mapping[str, object], of_use: bool, where: str) -> None:
    """Raises UserError for flags that say nothing here, so that nobody believes they did."""
    given = [name for name, value in flags.items() if value is not None]
    if given and not of_use:
        raise UserError("a flag is of no use here", found=", ".join(given), expected=f"it only where {where}")


def _to_text(source: Path, out: Path, template: Path | None) -> int:
    """Writes a folder as one file, or a file as a folder, and returns the number of rows."""
    from submissions.conversion import to_file, to_folder

    if source.is_dir():
        check_target(out, template)
        return to_file(source, out, template)
    if out.suffix in ONE_FILE:
        remedy = f"It becomes a folder, or a table: give --out a name without {out.suffix}."
        raise UserError("is one file already", path=source, remedy=remedy)
    return to_folder(source, out)


def _to_table(
    source: Path, out: Path, like: Path | None, videos: Path | None, rate: float | None, task: str | None
) -> list[tuple[str, int]]:
    """Writes the outputs table, and returns how its rows met the predictions."""
    from abaw_expr.data.release.clocks import times_of_frames
    from abaw_expr.outputs.importing import frames_of, join_branch
    from abaw_expr.outputs.table import read_outputs, write_outputs
    from abaw_expr.tasks.registry import metric_of
    from submissions.reader import read_any

    check_target(out, source, like)
    rows_of = None if like is None else read_outputs(like, None)
    named = next((known for known in TASKS if known.name == task), None)
    wanted, labels = read_any(source, named if rows_of is None else rows_of.task)
    if rows_of is None:
        frames = {video: own.frames for video, own in labels.items()}
        rows_of = frames_of(wanted, "test", frames, times_of_frames(frames, videos, rate, console.tell))
    joined = join_branch(_given(source, wanted, labels), source, BRANCH, rows_of, metric_of(wanted).unknown_prior, True)
    write_outputs(out, joined.outputs)
    rows = [("rows of the table", joined.used + joined.silent), ("rows with predictions", joined.used)]
    return [*rows, ("rows without: no vote", joined.silent), ("rows of other frames, left out", joined.beyond)]


def _given(source: Path, task: Task, labels: "Predictions") -> "Given":
    """Predictions as rows of a branch: 1 for the class and 0 for the others, 0 or 1 a unit, or the values."""
    import numpy as np

    from abaw_expr.outputs.importing import Given
    from abaw_expr.tasks.registry import metric_of

    numbers = np.concatenate([own.labels for own in labels.values()])
    rows = metric_of(task).from_labels(numbers)
    names: Any = np.repeat(np.array(list(labels), object), [len(own.frames) for own in labels.values()])
    frames = np.concatenate([own.frames for own in labels.values()]).astype(np.float64)
    return Given(names, frames, rows, logits=False, where=lambda row: (source, row + 1))
