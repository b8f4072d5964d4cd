"""The commands of the ledger of attempts.

Heavy modules are imported inside the commands, so that `--help` answers at once.
"""

import json
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Union

import tyro
from tyro.conf import Positional

from abaw_expr.commands import console
from abaw_expr.commands.arguments import Flag
from abaw_expr.commands.check import check
from abaw_expr.errors import UserError

if TYPE_CHECKING:
    from submissions.ledger import Agreement, Attempt

LEDGER = Path("ledger.db")


def list_attempts(
    ledger: Path = LEDGER, json_: Annotated[bool, tyro.conf.arg(name="json"), tyro.conf.FlagCreatePairsOff] = False
) -> int:
    """Shows all attempts, and how well validation predicted the official scores.

    The change is from nested, the honest one of the two validation figures, to the official test score.

    Args:
        ledger: The ledger.
        json_: Print JSON instead of tables: all that is known, decisions and hashes too.
    """
    from submissions.ledger import MOST, agreement, attempts, by_challenge, title

    known = attempts(ledger)
    challenges = [(*key, group, agreement(group)) for key, group in by_challenge(known).items()]
    if json_:
        told = [{"edition": edition, "challenge": name, **asdict(found)} for edition, name, _, found in challenges]
        print(json.dumps({"attempts": [asdict(attempt) for attempt in known], "agreement": told}, indent=2))
        return 0
    for edition, name, group, found in challenges:
        columns = ("#", "date, UTC", "tuned", "nested", "test", "change", "note")
        heading = f"{title(name, edition)}: {len(group)} of {MOST} attempts"
        console.table(heading, columns, [_row(attempt) for attempt in group])
        console.OUT.print(_in_words(found))
    if not known:
        console.OUT.print("No attempts yet.")
    return 0


def add(
    predictions: Positional[Path],
    template: Path,
    decision: tuple[Path, ...] = (),
    edition: int | None = None,
    note: str = "",
    unchecked: Flag = False,
    ledger: Path = LEDGER,
) -> int:
    """Records that a file is handed in.

    Checks it first: a file with faults is not recorded. Refuses the sixth attempt at a challenge, and a file that was
    recorded before.

    Exit status: 0 recorded, 1 faults, 2 refused.

    Args:
        predictions: The predictions.txt, or the 3rd edition's folder.
        template: The organisers' template, which also says which challenge it is.
        decision: The decision file that it was made by, for its runs and its tuned and nested figures; of a multi-task
            challenge all three.
        edition: Which ABAW, such as 10; without it the edition of the attempt before. Each has five attempts.
        note: What to remember of this attempt.
        unchecked: Record it whatever its faults: it was handed in already.
        ledger: The ledger; the first attempt starts it.
    """
    from submissions import ledger as book

    if edition is not None and edition < 1:
        raise UserError("--edition cannot be used", found=edition, expected="which ABAW: 1 or more")
    entry = book.new_entry(predictions, template, decision, note, not unchecked)
    if not unchecked and check(predictions, template):
        console.error("not recorded. Mend the file; if it was handed in already, record it with --unchecked.")
        return 1
    added = book.add(ledger, entry, edition)
    place = f"{added.number} of {book.MOST} at {book.title(added.challenge, added.edition)}"
    console.OUT.print(f"Recorded as attempt {added.id}, {place}.", soft_wrap=True)
    return 0


def score(attempt: Positional[int], official: Positional[float], ledger: Path = LEDGER) -> int:
    """Records the official score of an attempt; a second time, corrects it.

    Args:
        attempt: The number that `list` shows.
        official: What the organisers say, such as 0.362.
        ledger: The ledger.
    """
    from submissions.ledger import score as record

    before = record(ledger, attempt, official)
    was = "" if before.score is None else f" (was {before.score:.4f})"
    said = "" if before.nested is None else f"; nested said {before.nested:.4f}"
    console.OUT.print(f"Attempt {attempt}: official score {official:.4f}{was}{said}.", soft_wrap=True)
    return 0


def remove(attempt: Positional[int], ledger: Path = LEDGER) -> int:
    """Takes back an attempt that was recorded but never handed in.

    Args:
        attempt: The number that `list` shows.
        ledger: The ledger.
    """
    from submissions.ledger import remove as take_back

    console.OUT.print(f"Removed attempt {attempt}: {take_back(ledger, attempt).file}.", soft_wrap=True)
    return 0


def _row(attempt: "Attempt") -> tuple[object, ...]:
    change = None if attempt.difference is None else f"{attempt.difference:+.4f}"
    note = (attempt.note or Path(attempt.file).name) + ("" if attempt.checked else " (unchecked)")
    return attempt.id, attempt.date[:10], attempt.tuned, attempt.nested, attempt.score, change, note


def _in_words(found: "Agreement") -> str:
    """How validation predicted the test, and how little that may say."""
    from submissions.ledger import FEWEST

    if found.mean_difference is None:
        return "How validation predicts the test is known once an attempt has both: `ledger score ATTEMPT SCORE`."
    text = f"Test minus nested: {found.mean_difference:+.4f} on average of {found.scored}. "
    if found.rank_correlation is not None:
        few = "of so few it says little"
        return f"{text}Rank correlation (Spearman): {found.rank_correlation:+.2f}; {few}."
    if found.scored < FEWEST:
        return f"{text}Too few for a rank correlation, which takes {FEWEST}."
    return f"{text}No rank correlation: all figures of one kind are equal."


_ACTIONS: dict[str, Callable[..., int]] = {"list": list_attempts, "add": add, "score": score, "remove": remove}
_ACTION: Any = Union[  # noqa: UP007  of a tuple that is made here
    tuple(Annotated[Any, tyro.conf.subcommand(name=name, constructor=each)] for name, each in _ACTIONS.items())
]


def ledger(action: Annotated[_ACTION, tyro.conf.arg(name="")]) -> int:
    """Keeps the attempts: which files were handed in, what was expected of them, how they scored.

    The organisers take five attempts a challenge: the sixth is refused, and so is the same file again.

    Args:
        action: What to do.
    """
    return action
