"""The ledger: which files a team handed in, what it expected of them, and what the organisers said.

An SQLite file of one table, a row an attempt. The organisers take at most five attempts a challenge, and handing in the
same file again wastes one. Both rules stand in the table itself, so that no other program can break them either: an
attempt has a number from 1 to 5, unique in its challenge and edition, and its file's hash is unique. A writer takes the
file for itself before it reads it, so of two at the same time the second sees what the first wrote. A transaction that
a killed process left half done is undone by whoever opens the file next.
"""

import json
import math
import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import sha256 as hash_of
from pathlib import Path
from typing import Any

from abaw_expr.errors import DecisionError, LedgerError, TemplateError, unreadable
from abaw_expr.files import read_json, sha256
from submissions.formats import MULTI_TASK, recognise

MOST = 5
"""Attempts that the organisers take of a team in a challenge."""
FEWEST = 3
"""Attempts that a rank correlation is told of."""
APPLICATION, FORMAT = 0x41424157, 1
"""What the file's header says: whose it is ("ABAW"), and the version of its table."""
PATIENCE = 10.0
"""Seconds that a command waits for another that writes."""
LONGEST = 10_000
"""Characters of line 1 that are looked at."""

TABLE = f"""
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    edition INTEGER NOT NULL CHECK (typeof(edition) = 'integer' AND edition >= 0),
    challenge TEXT NOT NULL CHECK (typeof(challenge) = 'text' AND challenge <> '' AND challenge = lower(challenge)),
    number INTEGER NOT NULL CHECK (typeof(number) = 'integer' AND number BETWEEN 1 AND {MOST}),
    date TEXT NOT NULL,
    file TEXT NOT NULL,
    sha256 TEXT NOT NULL UNIQUE
        CHECK (typeof(sha256) = 'text' AND length(sha256) = 64 AND sha256 NOT GLOB '*[^0-9a-f]*'),
    checked INTEGER NOT NULL CHECK (checked IN (0, 1)),
    decisions TEXT NOT NULL,
    runs TEXT NOT NULL,
    tuned REAL CHECK (tuned IS NULL OR typeof(tuned) = 'real'),
    nested REAL CHECK (nested IS NULL OR typeof(nested) = 'real'),
    note TEXT NOT NULL,
    score REAL CHECK (score IS NULL OR typeof(score) = 'real' AND abs(score) <= {len(MULTI_TASK.tasks)}),
    UNIQUE (edition, challenge, number)
)"""
AS_JSON = ("decisions", "runs")
"""Columns that hold JSON."""
PROBLEMS = {
    sqlite3.SQLITE_NOTADB: ("is not a ledger", "Name the ledger, or a new file."),
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Take a copy of it from before."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Name a file in a folder that is there and that you can write to."),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Make file and folder writable, or name another ledger."),
    sqlite3.SQLITE_BUSY: ("is locked by another program", "Run the command again when that is done."),
    sqlite3.SQLITE_FULL: ("has no room on the disk", "Make room and run the command again."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written to its end", "Is the disk full?"),
}
"""What SQLite's primary result codes mean for a team, and what to do."""


@dataclass(frozen=True)
class Entry:
    """What is handed in, and what it is expected to reach."""

    challenge: str
    file: str
    """The predictions file, as it was named."""
    sha256: str
    """Its hash; of a folder that of its listing."""
    checked: bool
    """Whether it was checked, and clean."""
    note: str
    decisions: Mapping[str, Mapping[str, Any]]
    """The content of the decision files, by their names."""
    runs: Mapping[str, Mapping[str, str]]
    """The signature of the run of each challenge's branches, as the decisions name them."""
    tuned: float | None
    """The validation figure that the decision was chosen by; the sum of several."""
    nested: float | None
    """The honest estimate of it."""


@dataclass(frozen=True, kw_only=True)
class Attempt(Entry):
    """A row of the ledger."""

    id: int
    edition: int
    """Of ABAW; 0 where nobody said it."""
    number: int
    """1 to 5 in its challenge and edition."""
    date: str
    """When it was recorded, UTC."""
    score: float | None
    """The organisers' figure on the test set."""

    @property
    def difference(self) -> float | None:
        """By how much the test went beyond the nested figure; None where one of the two is not known."""
        return None if self.score is None or self.nested is None else self.score - self.nested


def new_entry(predictions: Path, template: Path, decisions: Sequence[Path], note: str, checked: bool) -> Entry:
    """Reads what the ledger keeps of a submission; the challenge is that of the template's header.

    Raises:
        TemplateError: the template cannot be read, or its header is no challenge's.
        DecisionError: a decision cannot be read or is none, or they are not those of the challenge.
    """
    challenge = task_of_columns(template)
    contents = {str(path): _read_decision(path) for path in decisions}
    found, expected = sorted(each["task"] for each in contents.values()), sorted(_tasks(challenge))
    if contents and found != expected:
        problem = f"the decisions are not those of the template's challenge, {challenge}"
        raise DecisionError(problem, path=template, found=", ".join(found), expected=", ".join(expected))
    figures = [_figures(each) for each in contents.values()]
    return Entry(
        challenge=challenge,
        file=str(predictions),
        sha256=fingerprint(predictions),
        checked=checked,
        note=note,
        decisions=contents,
        runs={each["task"]: (each.get("outputs") or {}).get("runs") or {} for each in contents.values()},
        tuned=_sum([tuned for tuned, _ in figures]),
        nested=_sum([nested for _, nested in figures]),
    )


def fingerprint(predictions: Path) -> str:
    """The SHA-256 of a file; of a folder that of its listing, which `sha256sum *` prints in the C locale."""
    if not predictions.is_dir():
        return sha256(predictions)
    listing = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(predictions.iterdir()))
    return hash_of(listing.encode()).hexdigest()


def task_of_columns(template: Path) -> str:
    """The challenge that a template's header stands for. Raises TemplateError where there is none."""
    try:
        with open(template, encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(LONGEST).rstrip()
    except OSError as problem:
        raise unreadable(TemplateError, template, problem) from problem
    known = recognise(header)
    if known is None:
        remedy = "Take the organisers' file as it is."
        raise TemplateError("has a header of no challenge", path=template, line=1, found=header, remedy=remedy)
    return known.name


def attempts(ledger: Path) -> list[Attempt]:
    """All attempts, the earliest first. Raises LedgerError where there is no ledger."""
    with _transaction(ledger) as database:
        return _rows(database)


def add(ledger: Path, entry: Entry, edition: int | None = None) -> Attempt:
    """Records an attempt, and starts the ledger if it is not there. Without an edition it is that of the last attempt.

    Raises LedgerError where the file was handed in already, where the challenge has five attempts, or where the ledger
    cannot be written.
    """
    with _transaction(ledger, write=True, create=True) as database:
        known = _rows(database)
        for earlier in known:
            if earlier.sha256 == entry.sha256:
                problem = f"is the file of attempt {earlier.id}, of {earlier.date}"
                remedy = "It would give the same score again, and one attempt less."
                raise LedgerError(problem, path=entry.file, remedy=remedy)
        if edition is None:
            edition = known[-1].edition if known else 0
        taken = {earlier.number for earlier in by_challenge(known).get((edition, entry.challenge), ())}
        number = min(set(range(1, MOST + 1)) - taken, default=None)
        if number is None:
            raise LedgerError(
                f"holds {MOST} attempts at {title(entry.challenge, edition)}, as many as the organisers take",
                path=ledger,
                remedy="Is it another edition's? Give --edition. Was one of them never handed in? `ledger remove` it.",
            )
        date = datetime.now(UTC).isoformat(timespec="seconds")
        row = {**asdict(entry), "edition": edition, "number": number, "date": date, "score": None}
        stored = row | {name: json.dumps(row[name], ensure_ascii=False) for name in AS_JSON}
        places = ", ".join(f":{name}" for name in stored)
        cursor = database.execute(f"INSERT INTO attempts ({', '.join(stored)}) VALUES ({places})", stored)
        assert cursor.lastrowid is not None
        return Attempt(**row, id=cursor.lastrowid)


def score(ledger: Path, number: int, value: float) -> Attempt:
    """Records the official score of the attempt with that id; returns the attempt as it was before.

    Raises LedgerError where there is no such attempt, or where no official figure can be that.
    """
    with _transaction(ledger, write=True) as database:
        before = _find(database, ledger, number)
        highest = len(_tasks(before.challenge))
        if not -highest <= value <= highest:
            expected = f"a number up to {highest}: 0.362, not 36.2"
            raise LedgerError("this is no official score", found=value, expected=expected)
        database.execute("UPDATE attempts SET score = ? WHERE id = ?", (value, number))
        return before


def remove(ledger: Path, number: int) -> Attempt:
    """Takes back an attempt that was recorded and never handed in; returns it.

    Raises LedgerError where there is no such attempt, or where the organisers scored it.
    """
    with _transaction(ledger, write=True) as database:
        found = _find(database, ledger, number)
        if found.score is not None:
            raise LedgerError(f"attempt {number} has an official score: it was handed in", path=ledger)
        database.execute("DELETE FROM attempts WHERE id = ?", (number,))
        return found


def title(challenge: str, edition: int) -> str:
    """A challenge in words."""
    return f"{challenge}, edition {edition}" if edition else challenge


@dataclass(frozen=True)
class Agreement:
    """How validation predicted the test, over attempts at one challenge that have both figures."""

    scored: int
    """How many have both."""
    mean_difference: float | None
    """Official score minus nested figure, on average."""
    rank_correlation: float | None
    """Spearman's, of nested figures and official scores; None of fewer than 3, or where one of the two never varies."""


def by_challenge(known: Sequence[Attempt]) -> dict[tuple[int, str], list[Attempt]]:
    """Attempts by edition and challenge."""
    groups: dict[tuple[int, str], list[Attempt]] = {}
    for attempt in known:
        groups.setdefault((attempt.edition, attempt.challenge), []).append(attempt)
    return groups


def agreement(known: Sequence[Attempt]) -> Agreement:
    """What the attempts at one challenge tell of the nested figure."""
    both = [attempt for attempt in known if attempt.difference is not None]
    if not both:
        return Agreement(0, None, None)
    mean = math.fsum(attempt.difference or 0 for attempt in both) / len(both)
    nested, official = [attempt.nested for attempt in both], [attempt.score for attempt in both]
    if len(both) < FEWEST or 1 in (len(set(nested)), len(set(official))):
        return Agreement(len(both), mean, None)
    from scipy.stats import spearmanr  # half a second, which the other commands do without

    return Agreement(len(both), mean, float(spearmanr(nested, official).statistic))


@contextmanager
def _transaction(ledger: Path, write: bool = False, create: bool = False) -> Iterator[sqlite3.Connection]:
    """Everything or nothing of what is done inside; a writer has the ledger for itself from the start.

    Raises LedgerError where the file is not there, is no ledger, or SQLite cannot use it.
    """
    if not (create or ledger.exists()):
        raise LedgerError("is not there", path=ledger, remedy="`ledger add` starts it, --ledger names another.")
    # A reader opens it for writing too, to undo what a killed writer left; a file that it may only read is no problem.
    address = f"{ledger.resolve().as_uri()}?mode=rw{'c' * create}"
    try:
        with closing(sqlite3.connect(address, timeout=PATIENCE, isolation_level=None, uri=True)) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            _check_format(database, ledger, create)
            with database:
                yield database
    except sqlite3.DatabaseError as problem:
        what, remedy = PROBLEMS.get(problem.sqlite_errorcode & 0xFF, ("cannot be used", None))
        raise LedgerError(f"{what} ({problem})", path=ledger, remedy=remedy) from problem


def _check_format(database: sqlite3.Connection, ledger: Path, create: bool) -> None:
    """Raises LedgerError where the file is something else; an empty one becomes a ledger."""
    application, version, tables = (
        database.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if create and (application, version, tables) == (0, 0, 0):
        database.execute(TABLE)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {FORMAT}")
    elif not tables:
        raise LedgerError("is empty", path=ledger, remedy="`ledger add` makes it a ledger.")
    elif application != APPLICATION:
        raise LedgerError("is a database, but not a ledger", path=ledger, remedy="Name the ledger, or a new file.")
    elif version != FORMAT:
        remedy = "A newer abaw-expr wrote it: use that one."
        raise LedgerError("has another format", path=ledger, found=version, expected=FORMAT, remedy=remedy)


def _rows(database: sqlite3.Connection) -> list[Attempt]:
    names = [field.name for field in fields(Attempt)]
    rows = (dict(row) for row in database.execute(f"SELECT {', '.join(names)} FROM attempts ORDER BY id"))
    decoded = (row | {name: json.loads(row[name]) for name in AS_JSON} for row in rows)
    return [Attempt(**row | {"checked": bool(row["checked"])}) for row in decoded]


def _find(database: sqlite3.Connection, ledger: Path, number: int) -> Attempt:
    known = {attempt.id: attempt for attempt in _rows(database)}
    if number not in known:
        expected = ", ".join(map(str, known)) or "none: the ledger is empty"
        raise LedgerError("has no such attempt", path=ledger, found=number, expected=expected)
    return known[number]


def _tasks(challenge: str) -> set[str]:
    """What is predicted for a challenge; the official score of several is the sum of theirs."""
    return {task.name for task in MULTI_TASK.tasks} if challenge == MULTI_TASK.name else {challenge}


def _read_decision(path: Path) -> dict[str, Any]:
    remedy = "Name the decision.json that `tune` wrote."
    value = read_json(path, DecisionError, remedy)
    told = ("outputs", "figures", "estimate")
    named = isinstance(value, dict) and isinstance(value.get("task"), str)
    whole = named and all(isinstance(value.get(part) or {}, dict) for part in told)
    if not (whole and all(isinstance(figure, float | int | None) for figure in _figures(value))):
        raise DecisionError("is not a decision", path=path, remedy=remedy)
    return value


def _figures(decision: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The tuned and the nested figure, whatever the challenge calls its metric; None of what was not tuned."""
    figures, estimate = decision.get("figures") or {}, decision.get("estimate") or {}
    nested = next((name for name in estimate if name.startswith("nested_")), "")
    return figures.get(nested.removeprefix("nested_")), estimate.get(nested)


def _sum(figures: Sequence[float | None]) -> float | None:
    """None where one is not known, or there is none."""
    known = [figure for figure in figures if figure is not None]
    return math.fsum(known) if known and len(known) == len(figures) else None
