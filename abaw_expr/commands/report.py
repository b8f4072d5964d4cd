"""`report`: one HTML file out of whatever there is to look at.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Tables, files_of, require
from abaw_expr.commands.exit_status import OK
from abaw_expr.errors import UserError
from abaw_expr.files import check_target

if TYPE_CHECKING:
    from abaw_expr.outputs.decision import Decision
    from abaw_expr.outputs.table import Outputs
    from abaw_expr.report.blocks import Part
    from abaw_expr.report.packing import Pack


def report(
    out: Path,
    outputs: Tables = (),
    decision: tuple[Path, ...] = (),
    store: Path | None = None,
    runs: tuple[Path, ...] = (),
    ledger: Path | None = None,
    sweep: Path | None = None,
    folds: Path | None = None,
    title: str = "ABAW report",
) -> int:
    """Writes one HTML file to look at and to send: it needs no network, no server and no other file.

    Everything but --out is optional; each part appears where its input is given. Of outputs it shows the metric with
    its interval, confusion, reliability, and the recordings by how much they cost the metric, each with a timeline; of
    a store thumbnails and audio on these timelines; of runs learning curves; of a ledger validation against test.

        abaw-expr report val.parquet --decision decision.json --store store \\
            --out report.html
        abaw-expr report --runs runs --sweep sweep --out trainings.html

    Args:
        out: The HTML file to write.
        outputs: Outputs tables with annotations, as given to `tune`; of several tasks, a part for each.
        decision: The decision file of each task; without outputs, what it holds is shown.
        store: The prepared store that the outputs were predicted from.
        runs: Run folders, or folders of them.
        ledger: The ledger file.
        sweep: The folder of a finished `sweep`.
        folds: The folder of a finished `folds`.
        title: The title of the page.
    """
    from abaw_expr.report.packing import Pack
    from abaw_expr.report.page import write_page

    check_target(out, *files_of(outputs), *decision, ledger)
    require(title.strip(), "title", title, "a text")
    pack = Pack()
    sections: list[Part] = []
    if outputs:
        sections += _outputs(outputs, decision, store, pack)
    else:
        sections += [_decision(path) for path in decision]
    sections += _others(store, runs, ledger, sweep, folds)
    if not sections:
        expected = "--outputs, --decision, --store, --runs, --ledger, --sweep or --folds"
        raise UserError("report needs something to show", expected=expected)
    write_page(out, title, sections, pack)
    size = out.stat().st_size / 1e6
    console.OUT.print(f"{out}: {len(sections)} parts, {size:.1f} MB. Open it in a browser.", soft_wrap=True)
    return OK


def _outputs(outputs: Sequence[Path], decisions: Sequence[Path], store: Path | None, pack: "Pack") -> "list[Part]":
    """The parts of each task: result, recordings, scores around the decision, members."""
    from abaw_expr.outputs.applied import read_all_decided

    found: list[Part] = []
    for table, chosen, path in read_all_decided(outputs, decisions):
        console.applied(path, table, chosen)
        found += _task(table, chosen, path, store, pack)
    return found


def _task(
    table: "Outputs", chosen: "Decision", path: Path | None, store: Path | None, pack: "Pack"
) -> "Iterator[Part]":
    from abaw_expr.data.store.store import open_store
    from abaw_expr.report.media import Media
    from abaw_expr.report.result import task_sections
    from abaw_expr.report.scored import Scored
    from tuning.landscape import landscape_section, members_section

    with console.progress("Deciding videos") as on_progress:
        scored = Scored.of(table, chosen, path, on_progress)
    media = None if store is None else Media.of(open_store(store, table.task))
    with console.progress("Drawing timelines") as on_progress:
        yield from task_sections(scored, media, pack, on_progress)
    with console.progress("Scoring around the decision") as on_progress:
        yield landscape_section(table, chosen, on_progress)
    if path is not None:
        yield members_section(chosen, path.name)


def _decision(path: Path) -> "Part":
    """What a decision alone says. Raises DecisionError where it is of a task whose classes it does not name."""
    from abaw_expr.errors import DecisionError
    from abaw_expr.files import read_json
    from abaw_expr.outputs.decision import Decision
    from abaw_expr.tasks.task import TASKS
    from tuning.landscape import members_section

    value = read_json(path, DecisionError, "Name a decision file.")
    name = value.get("task") if isinstance(value, dict) else None
    if not isinstance(name, str) or name not in TASKS:
        remedy = "Give the outputs too: --outputs."
        raise DecisionError("cannot be shown alone", path=path, found=name, expected=", ".join(TASKS), remedy=remedy)
    return members_section(Decision.load(path, TASKS[name]), path.name)


def _others(
    store: Path | None, runs: Sequence[Path], ledger: Path | None, sweep: Path | None, folds: Path | None
) -> "Iterator[Part]":
    """The parts that need no outputs."""
    if runs:
        from abaw_expr.training.curves_section import runs_sections
        from abaw_expr.training.runs import named_runs

        yield from runs_sections(named_runs(runs))
    if sweep is not None:
        from tuning.sweep_section import sweep_section

        yield sweep_section(sweep)
    if folds is not None:
        from tuning.sweep_section import folds_section

        yield folds_section(folds)
    if ledger is not None:
        yield from _ledger(ledger)
    if store is not None:
        from abaw_expr.report.store_section import store_section

        yield store_section(store)


def _ledger(ledger: Path) -> "Iterator[Part]":
    """The attempts at each challenge."""
    from abaw_expr.report.attempts import Submission, attempts_section
    from submissions.ledger import agreement, attempts, by_challenge, title

    for (edition, challenge), group in by_challenge(attempts(ledger)).items():
        rows = [Submission(one.id, one.date[:10], one.tuned, one.nested, one.score, one.shown_note) for one in group]
        yield attempts_section(title(challenge, edition), rows, agreement(group).in_words())
