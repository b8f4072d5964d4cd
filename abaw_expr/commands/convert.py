"""`convert`: predictions to another format."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Source
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError
from abaw_expr.files import check_target
from abaw_expr.tasks.task import TASKS

if TYPE_CHECKING:
    from abaw_expr.outputs.importing import Imported

_TABLE = ".parquet"
ONE_FILE = (".txt", ".csv")
BRANCH = "predictions"
"""What the branch of a table is called; NAME=FILE gives it another name."""


def convert(
    source: Source,
    out: Path,
    template: Path | None = None,
    like: Path | None = None,
    videos: Path | None = None,
    rate: float | None = None,
    task: Literal["expr", "va", "au"] | None = None,
) -> int:
    """Converts predictions to another format; the source and the name of --out decide to which.

    A folder of the 3rd edition becomes one file, and one file becomes such a folder. Predictions keep their bytes:
    there and back gives the same file, with the first file as --template.

    With --out NAME.parquet they become an outputs table for `tune`, `score` and `submit`: one branch with probability 1
    for its class and active units, or with these values. --like, --videos or --rate gives the times of its frames.

        abaw-expr convert predictions.txt --out folder
        abaw-expr convert folder --out predictions.txt --template template.txt
        abaw-expr convert predictions.txt --out theirs.parquet --like test.parquet

    Args:
        source: One file of any edition, or the 3rd edition's folder.
        out: What to write: NAME.parquet, an outputs table; else one file of a folder, or a new folder of a file.
        template: For one file: the organisers' template, whose order it gets; otherwise videos are sorted by name.
        like: For a table: the outputs table beside which it will vote: it gives rows, times and labels.
        videos: For a table, without --like: the folder of the video files, at any depth, for each frame's time.
        rate: For a table, without --like and --videos: frames a second of all videos.
        task: For a table from a multi-task file, without --like: the task to take.
    """
    if not source.exists():
        raise UserError("is not there", path=source, remedy="Check the path.")
    to_table = out.suffix == _TABLE
    times = {"--like": like, "--videos": videos, "--rate": rate}
    _refuse_unused({**times, "--task": task}, to_table, f"--out ends in {_TABLE}")
    _refuse_unused({"--template": template}, source.is_dir() and not to_table, "a folder becomes one file")
    if to_table:
        if list(times.values()).count(None) != len(times) - 1:
            raise UserError(f"convert needs one of {', '.join(times)}, for the times of the frames")
        console.imported(f"Outputs {out}", _to_table(source, out, like, videos, rate, task))
    else:
        console.table(f"Predictions {out}", ("", "count"), [("rows", _to_text(source, out, template))])
    return OK


def _refuse_unused(flags: Mapping[str, object], of_use: bool, where: str) -> None:
    """Raises UserError for flags that have no effect here."""
    given = [name for name, value in flags.items() if value is not None]
    if given and not of_use:
        raise UserError("a flag has no effect here", found=", ".join(given), expected=f"it only where {where}")


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
) -> "Imported":
    """Writes the outputs table, and returns how its rows met the predictions."""
    from abaw_expr.data.release.frame_times import times_of_frames
    from abaw_expr.outputs.importing import frames_of
    from abaw_expr.outputs.table import read_outputs, write_outputs
    from submissions.conversion import to_branch
    from submissions.reader import read_predictions

    check_target(out, source, like)
    rows_of = None if like is None else read_outputs(like, None)
    named = TASKS.get(task or "")
    wanted, labels = read_predictions(source, named if rows_of is None else rows_of.task)
    if rows_of is None:
        frames = {video: own.frames for video, own in labels.items()}
        rows_of = frames_of(wanted, "test", frames, times_of_frames(frames, videos, rate, console.problem_note))
    joined = to_branch(source, labels, BRANCH, rows_of)
    write_outputs(out, joined.outputs)
    return joined
