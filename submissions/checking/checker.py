"""Finds every fault of a submission before the organisers do.

The checker shares nothing with the template reader and the writer, on purpose: its modules read templates and rows with
code of their own, so that a bug in the others cannot hide itself here. It also stays off NumPy, so that a check answers
at once.

Findings are grouped by kind, and one cause gives one fault: a row that is spelled wrongly is not missing as well, and a
missing row does not put the rows after it out of order. Warnings are findings that may be right.
"""

from pathlib import Path

from abaw_expr.errors import TemplateError
from submissions.checking.faults import Fault
from submissions.checking.file import check_file
from submissions.checking.folder import check_files
from submissions.checking.template import read_template
from submissions.formats import PER_VIDEO


def check_predictions(path: Path | str, template_path: Path | str) -> list[Fault]:
    """All findings of a `predictions.txt` against the organisers' template, in the order of their first lines.

    The template's header says which format it is.

    Raises:
        PredictionsError: the file cannot be read, is empty, or is no text.
        TemplateError: so is the template, or it is not one.
    """
    template, warnings = read_template(Path(template_path))
    return check_file(Path(path), template) + warnings


def check_folder(folder: Path | str, template_path: Path | str) -> list[Fault]:
    """All findings of the 3rd edition's folder (one `<video>.txt` a video: the header, then a frame's numbers a line).

    Raises:
        PredictionsError: the folder or a file of it cannot be read, or a file is empty or no text.
        TemplateError: the template cannot be read, is not one, or is of a format that has no such folder.
    """
    template, warnings = read_template(Path(template_path))
    form = next((form for form in PER_VIDEO if form.tasks == template.form.tasks), None)
    if form is None:
        remedy = "Check the one file that this challenge asks for."
        raise TemplateError(f"is of {template.form.name}, which has no folder", path=template_path, remedy=remedy)
    return check_files(Path(folder), form, template.counts()) + warnings
