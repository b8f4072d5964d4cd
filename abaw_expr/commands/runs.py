"""`runs`: the runs of a folder in a list."""

from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.commands.exit_status import OK


def runs(folder: Path = Path("runs")) -> int:
    """Lists the runs of a folder, at any depth: state, best score, device, duration, and the settings that differ.

        abaw-expr runs runs

    Args:
        folder: The folder with the runs.
    """
    from abaw_expr.training.runs import find_runs

    console.print_runs(find_runs(folder))
    return OK
