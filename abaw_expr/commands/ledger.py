"""The commands of the ledger of attempts.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag, Json, Predictions
from abaw_expr.commands.check import check
from abaw_expr.errors import UserError

if TYPE_CHECKING:
    from submissions.ledger import Attempt

LEDGER = Path("ledger.db")
Number = Annotated[int, tyro.conf.Positional, tyro.conf.arg(metavar="ATTEMPT")]


def list_attempts(ledger: Path = LEDGER, json_: Json = False) -> int:
    """Lists all attempts, and how well validation predicted the official scores.

    The change is the official test score minus the nested estimate.

    Args:
        ledger: The ledger file.
        json_: Print JSON instead of tables, with decisions and hashes.
    """
    from submissions.ledger import MAX_ATTEMPTS, agreement, attempts, by_challenge, title

    known = attempts(ledger)
    challenges = [(*key, group, agreement(group)) for key, group in by_challenge(known).items()]
    if json_:
        told = [{"edition": edition, "challenge": name, **asdict(found)} for edition, name, _, found in challenges]
        print(json.dumps({"attempts": [asdict(attempt) for attempt in known], "agreement": told}, indent=2))
        return 0
    for edition, name, group, found in challenges:
        columns = ("#", "date, UTC", "tuned", "nested", "test", "change", "note")
        heading = f"{title(name, edition)}: {len(group)} of {MAX_ATTEMPTS} attempts"
        console.table(heading, columns, [_row(attempt) for attempt in group])
        console.OUT.print(found.in_words())
    if not known:
        console.OUT.print("No attempts yet.")
    return 0


def add(
    predictions: Predictions,
    template: Path,
    decision: tuple[Path, ...] = (),
    edition: int | None = None,
    note: str = "",
    unchecked: Flag = False,
    ledger: Path = LEDGER,
) -> int:
    """Records that a file is submitted.

    It checks the file first and does not record one with faults. It refuses the sixth attempt at a challenge, and a
    file that is already recorded.

        abaw-expr ledger add predictions.txt --template template.txt \\
            --decision decision.json --edition 10 --note "first"

    Exit status: 0 recorded, 1 faults, 2 refused.

    Args:
        predictions: The predictions.txt, or the 3rd edition's folder.
        template: The organisers' template, which also names the challenge.
        decision: The decision file of the predictions, for its runs and its tuned and nested scores; for a multi-task
            challenge all three.
        edition: The edition of ABAW, such as 10; without it that of the attempt before. Each has five attempts.
        note: A note on this attempt.
        unchecked: Record it despite faults: it is submitted already.
        ledger: The ledger file; the first attempt creates it.
    """
    from submissions import ledger as book

    if edition is not None and edition < 1:
        raise UserError("--edition cannot be used", found=edition, expected="which ABAW: 1 or more")
    entry = book.new_entry(predictions, template, decision, note, not unchecked)
    if not unchecked and check(predictions, template):
        console.error("not recorded. Correct the file; if it is submitted already, record it with --unchecked.")
        return 1
    added = book.add(ledger, entry, edition)
    place = f"{added.number} of {book.MAX_ATTEMPTS} at {book.title(added.challenge, added.edition)}"
    console.OUT.print(f"Recorded as attempt {added.id}, {place}.", soft_wrap=True)
    return 0


def score(
    attempt: Number,
    official: Annotated[float, tyro.conf.Positional, tyro.conf.arg(metavar="SCORE")],
    ledger: Path = LEDGER,
) -> int:
    """Records the official score of an attempt; a second time, corrects it.

        abaw-expr ledger score 1 0.362

    Args:
        attempt: The number that `ledger list` shows.
        official: The organisers' score, such as 0.362.
        ledger: The ledger file.
    """
    from submissions.ledger import score as record

    before = record(ledger, attempt, official)
    was = "" if before.score is None else f" (was {before.score:.4f})"
    said = "" if before.nested is None else f"; nested said {before.nested:.4f}"
    console.OUT.print(f"Attempt {attempt}: official score {official:.4f}{was}{said}.", soft_wrap=True)
    return 0


def remove(attempt: Number, ledger: Path = LEDGER) -> int:
    """Removes an attempt that was recorded but never submitted.

    Args:
        attempt: The number that `ledger list` shows.
        ledger: The ledger file.
    """
    from submissions.ledger import remove as take_back

    console.OUT.print(f"Removed attempt {attempt}: {take_back(ledger, attempt).file}.", soft_wrap=True)
    return 0


def _row(attempt: "Attempt") -> tuple[object, ...]:
    change = None if attempt.difference is None else f"{attempt.difference:+.4f}"
    return attempt.id, attempt.date[:10], attempt.tuned, attempt.nested, attempt.score, change, attempt.shown_note
