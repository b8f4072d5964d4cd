"""The command that turns predictions of one shape into another."""

from pathlib import Path

import tyro

from abaw_expr import console
from abaw_expr.errors import UserError
from abaw_expr.files import check_target

TABLE = ".parquet"
ONE_FILE = (".txt", ".csv")


def convert(source: tyro.conf.Positional[Path], out: Path, template: Path | None = None) -> int:
    """Turns predictions of one shape into another; what is given says which.

    A folder of the 3rd edition becomes one file, and a file becomes such a folder. The answers are carried over as they
    are written: there and back gives the same bytes, with the first file as --template.

    Args:
        source: The predictions: one file of any edition, or the 3rd edition's folder.
        out: What to write: a file (NAME.txt), or a new folder.
        template: The organisers' template, for the order of a file's rows; without it videos are in the order of their
            names.
    """
    from submissions.conversion import to_file, to_folder

    if not source.exists():
        raise UserError("is not there", path=source, remedy="Check the path.")
    check_unused("--template", template, source.is_dir(), "a folder becomes one file")
    if source.is_dir():
        check_target(out, template)
        rows = to_file(source, out, template)
    else:
        if out.suffix in ONE_FILE:
            remedy = f"One file becomes a folder: give --out a name without {out.suffix}."
            raise UserError("is one file already", path=source, remedy=remedy)
        rows = to_folder(source, out)
    console.table(f"Predictions {out}", ("", "count"), [("rows", rows)])
    return 0


def check_unused(flag: str, value: object, of_use: bool, where: str) -> None:
    """Raises UserError for a flag that says nothing here, so that nobody believes it did."""
    if value is not None and not of_use:
        raise UserError(f"{flag} is of no use here", found=value, expected=f"it where {where}")
