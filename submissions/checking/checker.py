"""Finds all faults of a submission before it is submitted.

The checker deliberately shares no code with the template reader and the writer: its modules read templates and rows
with their own code, so that a bug there cannot hide here. It does not import NumPy, so that it starts fast.

Findings are grouped by kind, and one cause gives one fault: a misspelled row is not also a missing row, and the rows
after a missing row are not out of order. Warnings are findings that may be correct.
"""

from pathlib import Path

from abaw_expr.errors import TemplateError
from submissions.checking.expected_rows import read_checked_template
from submissions.checking.faults import Fault, Verdict
from submissions.checking.file import check_file
from submissions.checking.folder import check_files
from submissions.formats import PER_VIDEO


def check_submission(path: Path, template_path: Path) -> Verdict:
    """The verdict on a `predictions.txt`, or on the 3rd edition's folder.

    Raises PredictionsError and TemplateError as `check_predictions` and `check_folder` do.
    """
    return Verdict(path, (check_folder if path.is_dir() else check_predictions)(path, template_path))


def check_predictions(path: Path | str, template_path: Path | str) -> list[Fault]:
    """All findings of a `predictions.txt` against the organisers' template, in the order of their first lines.

    The format is that of the template's header.

    Raises:
        PredictionsError: the file cannot be read, is empty, or is not text.
        TemplateError: the template cannot be read, is empty, not text, or not a template.
    """
    template, warnings = read_checked_template(Path(template_path))
    return check_file(Path(path), template) + warnings


def check_folder(folder: Path | str, template_path: Path | str) -> list[Fault]:
    """All findings of the 3rd edition's folder (one `<video>.txt` per video: the header, then one line per frame).

    Raises:
        PredictionsError: the folder or a file of it cannot be read, or a file is empty or not text.
        TemplateError: the template cannot be read, is not a template, or its format has no such folder.
    """
    template, warnings = read_checked_template(Path(template_path))
    form = next((form for form in PER_VIDEO if form.tasks == template.form.tasks), None)
    if form is None:
        remedy = "Check one file: the submissions of this challenge have no folder."
        raise TemplateError(f"is of {template.form.name}, which has no folder", path=template_path, remedy=remedy)
    return check_files(Path(folder), form, template.counts()) + warnings
