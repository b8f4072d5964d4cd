"""The ledger: the files that a team submitted, their expected scores, and the official scores.

An SQLite file of one table, one row per attempt. The organisers accept at most five attempts per challenge, and the
same file again would waste one. The table itself enforces both rules, also against other programs: an attempt has a
number from 1 to 5, unique in its challenge and edition, and the hash of its file is unique. A writer locks the file
before it reads it, so of two concurrent writers the second sees the changes of the first. SQLite rolls back the
unfinished transaction of a killed process when the file is opened next.
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

MAX_ATTEMPTS = 5
"""Attempts of a team at a challenge that the organisers accept."""
MIN_ATTEMPTS = 3
"""The least number of attempts for a rank correlation."""
APPLICATION, LEDGER_FORMAT = 0x41424157, 1
"""The application id in the file's header ("ABAW"), and the version of its table."""
LOCK_TIMEOUT = 10.0
"""Seconds that a command waits for another that writes."""
MAX_HEADER = 10_000
"""Characters of line 1 that are read."""

_SCHEMA = f"""
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    edition INTEGER NOT NULL CHECK (typeof(edition) = 'integer' AND edition >= 0),
    challenge TEXT NOT NULL CHECK (typeof(challenge) = 'text' AND challenge <> '' AND challenge = lower(challenge)),
    number INTEGER NOT NULL CHECK (typeof(number) = 'integer' AND number BETWEEN 1 AND {MAX_ATTEMPTS}),
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
    sqlite3.SQLITE_CORRUPT: ("is damaged", "Use an earlier copy of it."),
    sqlite3.SQLITE_CANTOPEN: ("cannot be opened", "Name a file in an existing folder that you can write to."),
    sqlite3.SQLITE_READONLY: ("cannot be written", "Make file and folder writable, or name another ledger."),
    sqlite3.SQLITE_BUSY: ("is locked by another program", "Run the command again when that program has finished."),
    sqlite3.SQLITE_FULL: ("cannot be written: the disk is full", "Free space and run the command again."),
    sqlite3.SQLITE_IOERR: ("cannot be read or written completely", "Check whether the disk is full."),
}
"""The problem and its remedy by SQLite's primary result code."""


@dataclass(frozen=True)
class Entry:
    """A submission and its expected score."""

    challenge: str
    file: str
    """The path of the predictions, as given."""
    sha256: str
    """The hash of the file, or of the folder's listing."""
    checked: bool
    """Whether it was checked and is clean."""
    note: str
    decisions: Mapping[str, Mapping[str, Any]]
    """The content of the decision files, by path."""
    runs: Mapping[str, Mapping[str, str]]
    """By task and branch, the signature of the run in the decision."""
    tuned: float | None
    """The validation score that the decision was chosen by; the sum over several decisions."""
    nested: float | None
    """The nested estimate of this score."""


@dataclass(frozen=True, kw_only=True)
class Attempt(Entry):
    """A row of the ledger."""

    id: int
    edition: int
    """The edition of ABAW; 0 where it is not known."""
    number: int
    """From 1 to 5 in its challenge and edition."""
    date: str
    """The time at which it was recorded, UTC."""
    score: float | None
    """The organisers' score on the test set."""

    @property
    def difference(self) -> float | None:
        """The official score minus the nested score; None where one of them is not known."""
        return None if self.score is None or self.nested is None else self.score - self.nested

    @property
    def shown_note(self) -> str:
        """The note, or the name of the file, and whether it was not checked."""
        return (self.note or Path(self.file).name) + ("" if self.checked else " (unchecked)")


def new_entry(predictions: Path, template: Path, decisions: Sequence[Path], note: str, checked: bool) -> Entry:
    """Reads the entry of a submission for the ledger; the challenge is that of the template's header.

    Raises:
        TemplateError: the template cannot be read, or its header is not that of a challenge.
        DecisionError: a file is not a decision, or the decisions are not those of the challenge.
    """
    challenge = challenge_of(template)
    contents = {str(path): _read_decision(path) for path in decisions}
    found, expected = sorted(each["task"] for each in contents.values()), sorted(_tasks(challenge))
    if contents and found != expected:
        problem = f"the decisions are not those of the template's challenge, {challenge}"
        raise DecisionError(problem, path=template, found=", ".join(found), expected=", ".join(expected))
    scores = [_scores(each) for each in contents.values()]
    return Entry(
        challenge=challenge,
        file=str(predictions),
        sha256=rows_fingerprint(predictions),
        checked=checked,
        note=note,
        decisions=contents,
        runs={each["task"]: (each.get("outputs") or {}).get("runs") or {} for each in contents.values()},
        tuned=_sum([tuned for tuned, _ in scores]),
        nested=_sum([nested for _, nested in scores]),
    )


def rows_fingerprint(predictions: Path) -> str:
    """The SHA-256 of a file, or of a folder's listing as `sha256sum *` prints it in the C locale."""
    if not predictions.is_dir():
        return sha256(predictions)
    listing = "".join(f"{sha256(path)}  {path.name}\n" for path in sorted(predictions.iterdir()))
    return hash_of(listing.encode()).hexdigest()


def challenge_of(template: Path) -> str:
    """The challenge of a template's header. Raises TemplateError where there is none."""
    try:
        with open(template, encoding="utf-8-sig", errors="replace") as file:
            header = file.readline(MAX_HEADER).rstrip()
    except OSError as problem:
        raise unreadable(TemplateError, template, problem) from problem
    known = recognise(header)
    if known is None:
        remedy = "Use the organisers' file without changes."
        message = "has a header that is not that of a challenge"
        raise TemplateError(message, path=template, line=1, found=header, remedy=remedy)
    return known.name


def attempts(ledger: Path) -> list[Attempt]:
    """All attempts, the earliest first. Raises LedgerError where there is no ledger."""
    with _transaction(ledger) as database:
        return _rows(database)


def add(ledger: Path, entry: Entry, edition: int | None = None) -> Attempt:
    """Records an attempt, and creates the ledger if necessary; the default edition is that of the last attempt.

    Raises LedgerError where the file was submitted before, the challenge already has five attempts, or the ledger
    cannot be written.
    """
    with _transaction(ledger, write=True, create=True) as database:
        known = _rows(database)
        for earlier in known:
            if earlier.sha256 == entry.sha256:
                problem = f"is the file of attempt {earlier.id}, of {earlier.date}"
                remedy = "It would get the same score again and use up an attempt."
                raise LedgerError(problem, path=entry.file, remedy=remedy)
        if edition is None:
            edition = known[-1].edition if known else 0
        taken = {earlier.number for earlier in by_challenge(known).get((edition, entry.challenge), ())}
        number = min(set(range(1, MAX_ATTEMPTS + 1)) - taken, default=None)
        if number is None:
            raise LedgerError(
                f"holds {MAX_ATTEMPTS} attempts at {title(entry.challenge, edition)}, the organisers' limit",
                path=ledger,
                remedy="If it is of another edition, give --edition. If one was never submitted, `ledger remove` it.",
            )
        date = datetime.now(UTC).isoformat(timespec="seconds")
        row = {**asdict(entry), "edition": edition, "number": number, "date": date, "score": None}
        stored = row | {name: json.dumps(row[name], ensure_ascii=False) for name in AS_JSON}
        values = ", ".join(f":{name}" for name in stored)
        cursor = database.execute(f"INSERT INTO attempts ({', '.join(stored)}) VALUES ({values})", stored)
        assert cursor.lastrowid is not None
        return Attempt(**row, id=cursor.lastrowid)


def score(ledger: Path, number: int, value: float) -> Attempt:
    """Records the official score of the attempt with the id `number`; returns the attempt as it was before.

    Raises LedgerError where there is no such attempt, or the score is out of range.
    """
    with _transaction(ledger, write=True) as database:
        before = _find(database, ledger, number)
        highest = len(_tasks(before.challenge))
        if not -highest <= value <= highest:
            expected = f"a number up to {highest}: 0.362, not 36.2"
            raise LedgerError("this is not an official score", found=value, expected=expected)
        database.execute("UPDATE attempts SET score = ? WHERE id = ?", (value, number))
        return before


def remove(ledger: Path, number: int) -> Attempt:
    """Removes an attempt that was recorded and never submitted, by its id; returns it.

    Raises LedgerError where there is no such attempt, or it has an official score.
    """
    with _transaction(ledger, write=True) as database:
        found = _find(database, ledger, number)
        if found.score is not None:
            raise LedgerError(f"attempt {number} has an official score, so it was submitted", path=ledger)
        database.execute("DELETE FROM attempts WHERE id = ?", (number,))
        return found


def title(challenge: str, edition: int) -> str:
    """The name of a challenge with its edition."""
    return f"{challenge}, edition {edition}" if edition else challenge


@dataclass(frozen=True)
class Agreement:
    """The agreement of nested and official scores, over the attempts at one challenge that have both."""

    scored: int
    """Number of attempts with both scores."""
    mean_difference: float | None
    """Mean of official score minus nested score."""
    rank_correlation: float | None
    """Spearman's, of nested and official scores; None with fewer than 3 attempts, or where one of them is constant."""

    def in_words(self) -> str:
        """How validation predicted the test, and how little that may say."""
        if self.mean_difference is None:
            return "How validation predicts the test is known once an attempt has both: `ledger score ATTEMPT SCORE`."
        text = f"Test minus nested: {self.mean_difference:+.4f} on average of {self.scored}. "
        if self.rank_correlation is not None:
            few = "of so few it says little"
            return f"{text}Rank correlation (Spearman): {self.rank_correlation:+.2f}; {few}."
        if self.scored < MIN_ATTEMPTS:
            return f"{text}Too few for a rank correlation, which takes {MIN_ATTEMPTS}."
        return f"{text}No rank correlation: all scores of one kind are equal."


def by_challenge(known: Sequence[Attempt]) -> dict[tuple[int, str], list[Attempt]]:
    """Attempts by edition and challenge."""
    groups: dict[tuple[int, str], list[Attempt]] = {}
    for attempt in known:
        groups.setdefault((attempt.edition, attempt.challenge), []).append(attempt)
    return groups


def agreement(known: Sequence[Attempt]) -> Agreement:
    """The agreement of nested and official scores over attempts at one challenge."""
    both = [attempt for attempt in known if attempt.difference is not None]
    if not both:
        return Agreement(0, None, None)
    mean = math.fsum(attempt.difference or 0 for attempt in both) / len(both)
    nested, official = [attempt.nested for attempt in both], [attempt.score for attempt in both]
    if len(both) < MIN_ATTEMPTS or 1 in (len(set(nested)), len(set(official))):
        return Agreement(len(both), mean, None)
    from scipy.stats import spearmanr  # takes half a second to import, and other commands do not need it

    return Agreement(len(both), mean, float(spearmanr(nested, official).statistic))


@contextmanager
def _transaction(ledger: Path, write: bool = False, create: bool = False) -> Iterator[sqlite3.Connection]:
    """A transaction; a writer locks the ledger from its start.

    Raises LedgerError where the file does not exist, is not a ledger, or SQLite cannot use it.
    """
    if not (create or ledger.exists()):
        raise LedgerError("does not exist", path=ledger, remedy="`ledger add` creates it, --ledger names another.")
    # Readers also open it for writing, to roll back the transaction of a killed writer; a read-only file works too.
    address = f"{ledger.resolve().as_uri()}?mode=rw{'c' * create}"
    try:
        with closing(sqlite3.connect(address, timeout=LOCK_TIMEOUT, isolation_level=None, uri=True)) as database:
            database.row_factory = sqlite3.Row
            database.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            _check_format(database, ledger, create)
            with database:
                yield database
    except sqlite3.DatabaseError as problem:
        what, remedy = PROBLEMS.get(problem.sqlite_errorcode & 0xFF, ("cannot be used", None))
        raise LedgerError(f"{what} ({problem})", path=ledger, remedy=remedy) from problem


def _check_format(database: sqlite3.Connection, ledger: Path, create: bool) -> None:
    """Raises LedgerError where the file is not a ledger; with `create`, an empty file becomes one."""
    application, version, tables = (
        database.execute(query).fetchone()[0]
        for query in ("PRAGMA application_id", "PRAGMA user_version", "SELECT count(*) FROM sqlite_master")
    )
    if create and (application, version, tables) == (0, 0, 0):
        database.execute(_SCHEMA)
        database.execute(f"PRAGMA application_id = {APPLICATION}")
        database.execute(f"PRAGMA user_version = {LEDGER_FORMAT}")
    elif not tables:
        raise LedgerError("is empty", path=ledger, remedy="`ledger add` makes it a ledger.")
    elif application != APPLICATION:
        raise LedgerError("is a database, but not a ledger", path=ledger, remedy="Name the ledger, or a new file.")
    elif version != LEDGER_FORMAT:
        remedy = "Use the newer version of abaw-expr that wrote it."
        raise LedgerError("has another format", path=ledger, found=version, expected=LEDGER_FORMAT, remedy=remedy)


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
    """The tasks of a challenge; the official score is the sum of their scores."""
    return {task.name for task in MULTI_TASK.tasks} if challenge == MULTI_TASK.name else {challenge}


def _read_decision(path: Path) -> dict[str, Any]:
    remedy = "Name the decision.json that `tune` wrote."
    value = read_json(path, DecisionError, remedy)
    optional = ("outputs", "scores", "estimate")
    named = isinstance(value, dict) and isinstance(value.get("task"), str)
    whole = named and all(isinstance(value.get(part) or {}, dict) for part in optional)
    if not (whole and all(isinstance(score, float | int | None) for score in _scores(value))):
        raise DecisionError("is not a decision", path=path, remedy=remedy)
    return value


def _scores(decision: Mapping[str, Any]) -> tuple[float | None, float | None]:
    """The tuned and the nested score of any metric; None where nothing was tuned."""
    scores, estimate = decision.get("scores") or {}, decision.get("estimate") or {}
    nested = next((name for name in estimate if name.startswith("nested_")), "")
    return scores.get(nested.removeprefix("nested_")), estimate.get(nested)


def _sum(scores: Sequence[float | None]) -> float | None:
    """The sum of scores; None where one is not known, or there is none."""
    known = [score for score in scores if score is not None]
    return math.fsum(known) if known and len(known) == len(scores) else None
