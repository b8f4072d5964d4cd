"""What `submit --bundle` does beside writing the submission."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.errors import UserError
from abaw_expr.files import check_target
from abaw_expr.version import VERSION

if TYPE_CHECKING:
    from abaw_expr.outputs.table import Outputs
    from submissions.bundle import BundledRun


def runs_to_bundle(
    bundle: Path | None, runs: Sequence[Path], tables: "Sequence[Outputs]", others: Sequence[Path]
) -> "list[BundledRun]":
    """The runs whose settings go into the bundle; refuses, before anything is written, what cannot be bundled."""
    if bundle is None:
        if runs:
            raise UserError("--runs are for the bundle", remedy="Give --bundle too.")
        return []
    from submissions.bundle import read_runs

    check_target(bundle, *others)
    return read_runs(runs, tables)


def bundle_submission(
    bundle: Path,
    predictions: Path,
    template: Path,
    decisions: Sequence[Path],
    tables: "Sequence[Outputs]",
    runs: "Sequence[BundledRun]",
    options: Mapping[str, str | None],
) -> int:
    """Writes the bundle of a submission, prints the checker's verdict, and returns the exit status."""
    from submissions.bundle import signatures, write_bundle
    from submissions.checking.checker import check_submission

    verdict = check_submission(predictions, template)
    shown = verdict.under_names({predictions: "predictions.txt", template: "template.txt"})
    write_bundle(bundle, predictions, template, decisions, tables, shown.to_json(), runs, options, VERSION)
    lacking = signatures(tables) - {run.signature for run in runs}
    if lacking and all(run.signature for run in runs):
        console.note(f"The bundle has no settings of {', '.join(sorted(lacking))}; --runs FOLDER adds those of a run.")
    result = "clean" if verdict.clean else "faults; `abaw-expr check` names them"
    console.OUT.print(f"Bundle {bundle}, checked: {result}", soft_wrap=True)
    return 0 if verdict.clean else 1
