"""`ablate`: the paper's table and its controls."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import DEFAULT_RECIPE, require_classes
from abaw_expr.errors import UserError
from abaw_expr.settings import Settings

if TYPE_CHECKING:
    from tuning.ablation import AblationRow, RowResult


def ablate_command(base: Settings) -> Callable[..., int]:
    def ablate(
        store: Path,
        out: Path,
        settings: Path = DEFAULT_RECIPE,
        seeds: int = 5,
        jobs: int = 0,
        rows: tuple[str, ...] = (),
        others: tuple[str, ...] = (),
        generated: tuple[str, ...] = (),
        overrides: Annotated[Settings, tyro.conf.arg(name="")] = base,
    ) -> int:
        """Trains the paper's table and its controls over several seeds, and writes table.md, table.csv, figure.png.

        Run it again to continue: each training is a run of its own under OUT/runs, resumed where it stopped.

        Rows with more data are trained where --others or --generated name it.

            abaw-expr ablate store --out ablation --seeds 3
            abaw-expr ablate store --out mixture --rows av-mixed \\
                --others afew=0.2 ckplus=0.1 --generated generated=0.2

        Args:
            store: The prepared store.
            out: The folder of the ablation.
            settings: The recipe that all rows share; each of its settings can be changed here, as with `train`.
            seeds: Trainings of each row.
            jobs: Trainings at a time; 0: one on each GPU, on a CPU one.
            rows: Only these rows of the table, by name; table.csv has the names.
            others: Stores of other data sets with their fractions, STORE=FRACTION, for the rows with other data.
            generated: Stores of generated clips with their fractions, for the rows with generated clips.
        """
        from tuning import ablation
        from tuning.ablation_report import write_report
        from tuning.jobs import gpus_of, train_jobs

        require_classes(overrides, "ablate")
        for flag, value, least in (("--seeds", seeds, 1), ("--jobs", jobs, 0)):
            if value < least:
                raise UserError(f"{flag} cannot be used", found=value, expected=f"a count of at least {least}")
        data = {"others": others, "generated": generated}
        chosen = _chosen_rows(rows, data)
        gpus = gpus_of(overrides)
        with console.progress("Training epochs") as on_progress:
            train_jobs(
                ablation.jobs_of(chosen, overrides, seeds, out, data),
                [str(store)],
                jobs or gpus or 1,
                gpus,
                on_progress,
            )
        found = ablation.results(out, overrides, chosen, seeds, overrides.task_of, data)
        write_report(found, out)
        _print_table(found, out)
        return 0

    return ablate


def _chosen_rows(names: Sequence[str], data: Mapping[str, tuple[str, ...]]) -> "tuple[AblationRow, ...]":
    """The rows of these names with those that they are compared with; all that the data allow where none is named."""
    from tuning.ablation import ABLATION_ROWS, rows_with, with_needed

    known = {row.name: row for row in ABLATION_ROWS}
    if unknown := sorted(set(names) - set(known)):
        raise UserError("--rows names no row of the table", found=unknown, expected=", ".join(known))
    if lacking := [name for name in names if not all(data[kind] for kind in known[name].data)]:
        raise UserError("--rows needs more data", found=lacking, expected="--others, --generated, or both")
    return with_needed(names) if names else rows_with(data)


def _print_table(found: "Sequence[RowResult]", out: Path) -> None:
    from tuning.ablation_report import cells

    columns = ("row", "", "macro F1, %", "sd", "95 % interval", "nested", "paper")
    short = [cells(result, found) for result in found]
    rows = [[result.row.name, *cell[1:6], cell[-1]] for result, cell in zip(found, short, strict=True)]
    console.table(f"Ablation {out}", columns, rows)
    console.note(f"Table and plot: {out / 'table.md'}, {out / 'figure.png'}")
