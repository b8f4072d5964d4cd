"""The ledger: five attempts a challenge and no file twice, whoever writes and whatever befalls them."""

import hashlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import IO, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from abaw_expr.errors import LedgerError
from abaw_expr.tasks.task import EXPR, VA
from submissions import ledger
from submissions.formats import MULTI_TASK
from submissions.ledger import Attempt, Entry, agreement
from tests.commands.test_main import ROOT, Files, call, fails, files

__all__ = ["files"]  # the fixture, so that it is found here too

ROWS = 40


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, where ledger.db is."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def write_template(header: str = EXPR.submission_header) -> Path:
    path = Path("template.txt")
    path.write_text("\n".join([header, *(f"v/{i + 1:05d}.jpg," for i in range(ROWS))]) + "\n")
    return path


def write_file(seed: int) -> Path:
    """A clean predictions.txt; another seed, another file."""
    labels = np.random.default_rng(seed).integers(0, 8, ROWS)
    path = Path(f"p{seed}.txt")
    path.write_text(write_template().read_text().replace(",\n", ",{}\n").format(*labels))
    return path


def write_decision(nested: float, name: str = "decision.json", **more: object) -> Path:
    path = Path(name)
    values = {"task": "expr", "branches": {}, "scores": {"macro_f1": nested + 0.05}}
    path.write_text(json.dumps(values | {"estimate": {"nested_macro_f1": nested}} | more))
    return path


def add(seed: int, *more: object) -> int:
    return call("ledger", "add", write_file(seed), "--template", "template.txt", *more)


def listed(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    capsys.readouterr()
    assert call("ledger", "list", "--json") == 0
    return json.loads(capsys.readouterr().out)


# Help, and what is loaded


@pytest.mark.parametrize(
    ("action", "words"),
    [
        ("", ["list", "add", "score", "remove", "sixth is refused"]),
        ("list", ["--ledger", "--json"]),
        (
            "add",
            ["PREDICTIONS", "--template", "--decision", "--edition", "--note", "--unchecked", "0 recorded, 1 faults"],
        ),
        ("score", ["ATTEMPT SCORE", "--ledger"]),
        ("remove", ["ATTEMPT", "--ledger"]),
    ],
)
def test_help(action: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert call("ledger", *action.split(), "--help") == 0
    text = capsys.readouterr().out
    for word in (f"usage: abaw-expr ledger {action}".strip(), *words):
        assert word in text


def test_the_ledger_is_opened_at_once() -> None:
    assert add(1) == 0
    code = """
import sys
from abaw_expr.commands.main import main
for command in (["list"], ["list", "--json"], ["score", "1", "0.3"]):
    assert main(["ledger", *command]) == 0
    heavy = {"torch", "pandas", "pyarrow", "scipy"} & set(sys.modules)
    assert not heavy, (command, heavy)
"""
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# What is kept


def test_an_attempt_is_kept_with_all_that_explains_it(
    files: Files, capsys: pytest.CaptureFixture[str], here: Path
) -> None:
    command = ["ledger", "add", files.predictions, "--template", files.template, "--decision", files.decision]
    assert call(*command, "--edition", 10, "--note", "first, of the paper's settings") == 0
    assert "Recorded as attempt 1, 1 of 5 at expr, edition 10." in capsys.readouterr().out
    assert call("ledger", "score", 1, 0.36) == 0
    decision = json.loads(files.decision.read_text())
    (attempt,) = listed(capsys)["attempts"]
    assert len(attempt.pop("date")) == len("2026-03-01T23:40:00+00:00")
    assert attempt == {
        "id": 1,
        "edition": 10,
        "challenge": "expr",
        "number": 1,
        "file": str(files.predictions),
        "sha256": hashlib.sha256(files.predictions.read_bytes()).hexdigest(),
        "checked": True,
        "note": "first, of the paper's settings",
        "decisions": {str(files.decision): decision},
        "runs": {"expr": {"audio": "run", "visual": "run"}},
        "tuned": decision["scores"]["macro_f1"],
        "nested": decision["estimate"]["nested_macro_f1"],
        "score": 0.36,
    }
    assert [path.name for path in here.iterdir()] == ["ledger.db"]


def test_an_attempt_needs_no_decision(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1) == 0
    (attempt,) = listed(capsys)["attempts"]
    names = ("decisions", "runs", "tuned", "nested", "score", "edition", "note")
    assert [attempt[name] for name in names] == [{}, {}, None, None, None, 0, ""]


def test_a_folder_of_the_3rd_edition_is_one_file(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["submit", "--outputs", files.test, "--decision", files.decision, "--template", files.template]
    assert call(*command, "--edition", "per-video", "--out", tmp_path / "folder") == 0
    (tmp_path / "folder").rename(tmp_path / "other")  # its name is no part of it
    assert call(*command, "--edition", "per-video", "--out", tmp_path / "folder") == 0
    assert call("ledger", "add", tmp_path / "folder", "--template", files.template) == 0
    listing = subprocess.check_output("LC_ALL=C; sha256sum *", shell=True, cwd=tmp_path / "folder")
    (attempt,) = listed(capsys)["attempts"]
    assert attempt["sha256"] == hashlib.sha256(listing).hexdigest()
    assert "is the file of attempt 1" in twice(capsys, tmp_path / "other", files.template)


def twice(capsys: pytest.CaptureFixture[str], predictions: Path, template: Path) -> str:
    assert call("ledger", "add", predictions, "--template", template) == 2
    return capsys.readouterr().err


def test_a_file_with_faults_is_not_handed_in(capsys: pytest.CaptureFixture[str]) -> None:
    faulty = write_file(1)
    faulty.write_text(faulty.read_text().replace("v/00002.jpg", "v/2.jpg"))
    command = ["ledger", "add", faulty, "--template", "template.txt"]
    assert call(*command) == 1
    captured = capsys.readouterr()
    assert f"{faulty}:3: row name" in captured.out
    assert "not recorded" in captured.err
    assert not Path("ledger.db").exists()
    assert call(*command, "--unchecked") == 0
    (attempt,) = listed(capsys)["attempts"]
    assert attempt["checked"] is False
    assert call("ledger", "list") == 0
    assert "p1.txt (unchecked)" in capsys.readouterr().out


# Five attempts a challenge, no file twice


def test_the_sixth_attempt_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        assert add(seed) == 0
    assert add(5) == 2
    text = capsys.readouterr().err
    assert "ledger.db: holds 5 attempts at expr, the organisers' limit." in text
    assert [attempt["number"] for attempt in listed(capsys)["attempts"]] == [1, 2, 3, 4, 5]
    assert add(5, "--edition", 10) == 0
    assert add(6) == 0, "without --edition it is that of the attempt before"
    found = [(attempt["edition"], attempt["number"]) for attempt in listed(capsys)["attempts"]]
    assert found == [*((0, number) for number in range(1, 6)), (10, 1), (10, 2)]


def test_a_file_is_not_handed_in_twice(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (1, 2):
        assert add(seed) == 0
    Path("p1.txt").rename("again.txt")
    for more in ([], ["--edition", 10], ["--unchecked"]):
        assert call("ledger", "add", "again.txt", "--template", "template.txt", *more) == 2
        assert "again.txt: is the file of attempt 1, of 20" in capsys.readouterr().err
    assert len(listed(capsys)["attempts"]) == 2


@pytest.mark.parametrize(
    ("header", "name"),
    [
        (VA.submission_header, "va"),
        (MULTI_TASK.header, "multi-task"),
        ("image_location,Fearfully_Surprised,Happily_Surprised", "compound"),
    ],
)
def test_challenges_count_apart(header: str, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        assert add(seed) == 0
    Path("other.txt").write_text("of another challenge")
    command = ["ledger", "add", "other.txt", "--template", write_template(header), "--unchecked"]
    assert call(*command) == 0
    assert f"Recorded as attempt 6, 1 of 5 at {name}." in capsys.readouterr().out


def test_a_decision_of_another_challenge_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    decision = write_decision(0.4, task="va")
    text = fails(capsys, "ledger", "add", write_file(1), "--template", "template.txt", "--decision", decision)
    assert text.endswith("the decisions are not those of the template's challenge, expr; found 'va'; expected expr.")
    for value in ("[]", "{}", '{"task": "expr", "estimate": 0.4}', '{"task": "expr", "outputs": ["run"]}'):
        decision.write_text(value)
        text = fails(capsys, "ledger", "add", "p1.txt", "--template", "template.txt", "--decision", decision)
        assert "decision.json: is not a decision" in text
    text = fails(capsys, "ledger", "add", write_file(1), "--template", "p1.txt.none")
    assert "p1.txt.none: cannot be read" in text
    Path("template.txt").write_text("path,label\n")
    text = fails(capsys, "ledger", "add", "p1.txt", "--template", "template.txt")
    assert "template.txt:1: has a header that is not that of a challenge; found 'path,label'" in text
    assert "--edition cannot be used" in fails(
        capsys, "ledger", "add", "p1.txt", "--template", "template.txt", "--edition", 0
    )
    assert not Path("ledger.db").exists()


def test_an_attempt_that_never_was_is_taken_back(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(5):
        assert add(seed) == 0
    assert call("ledger", "score", 3, 0.3) == 0
    text = fails(capsys, "ledger", "remove", 3)
    assert "attempt 3 has an official score, so it was submitted" in text
    assert call("ledger", "remove", 2) == 0
    assert "has no such attempt; found 2; expected 1, 3, 4, 5" in fails(capsys, "ledger", "remove", 2)
    assert add(5) == 0
    found = [(attempt["id"], attempt["number"]) for attempt in listed(capsys)["attempts"]]
    assert found == [(1, 1), (3, 3), (4, 4), (5, 5), (6, 2)], "an attempt's id is never given again"


TAKEN_OR_NO_HASH = ("0" * 64, "A" * 64, "a" * 63, "", None, b"a" * 64, "x" * 64)


def stored(**changes: object) -> dict[str, object]:
    row = {"edition": 0, "challenge": "expr", "number": 1, "date": "", "file": "", "sha256": "a" * 64, "checked": 1}
    return {**row, "runs": "{}", "decisions": "{}", "note": "", **changes}


def insert(database: sqlite3.Connection, row: dict[str, object]) -> None:
    places = ", ".join("?" * len(row))
    database.execute(f"INSERT INTO attempts ({', '.join(row)}) VALUES ({places})", list(row.values()))


@pytest.mark.slow
@pytest.mark.parametrize(
    "changes",
    [
        *({"number": number} for number in (0, 1, 5, 6, -1, 1.5, 4.999, None, "x", "1 ", b"1")),
        *({"number": 5, "challenge": name} for name in ("EXPR", "", None, b"expr")),
        *({"number": 5, "edition": edition} for edition in (None, -1, 0.5, "none")),
        *(
            {"sha256": text, "challenge": "va"}
            for text in ("0" * 64, "A" * 64, "a" * 63, "", None, b"a" * 64, "x" * 64)
        ),
        *({"challenge": "va", "score": score} for score in (36.2, -3.5, "0.3x", b"1")),
    ],
)
def test_no_other_program_breaks_the_rules(changes: dict[str, object]) -> None:
    for seed in range(5):
        assert add(seed) == 0
    with closing(sqlite3.connect("ledger.db")) as database, database:
        database.execute("UPDATE attempts SET sha256 = ? WHERE id = 1", ("0" * 64,))
        with pytest.raises(sqlite3.IntegrityError):
            insert(database, stored(**changes))
        insert(database, stored(challenge="va"))
        assert database.execute("SELECT count(*) FROM attempts").fetchone() == (6,)


# Official scores, and how validation predicted them


def test_figures_that_are_no_numbers_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1, "--decision", write_decision(0.4, estimate={"nested_macro_f1": "high"})) == 2
    assert "decision.json: is not a decision" in capsys.readouterr().err
    assert add(1, "--decision", write_decision(0.4, estimate={"nested_macro_f1": None})) == 0
    (attempt,) = listed(capsys)["attempts"]
    assert (attempt["tuned"], attempt["nested"]) == (pytest.approx(0.45), None)


def test_the_metric_may_have_any_name(capsys: pytest.CaptureFixture[str]) -> None:
    write_template(VA.submission_header)
    Path("va.txt").touch()
    decision = write_decision(0, task="va", scores={"mean_ccc": 0.5}, estimate={"nested_mean_ccc": 0.45})
    command = ["ledger", "add", "va.txt", "--template", "template.txt", "--unchecked", "--decision", decision]
    assert call(*command) == 0
    (attempt,) = listed(capsys)["attempts"]
    assert (attempt["challenge"], attempt["tuned"], attempt["nested"]) == ("va", 0.5, 0.45)


def test_several_tasks_are_one_sum(capsys: pytest.CaptureFixture[str]) -> None:
    write_template(MULTI_TASK.header)
    Path("all.txt").touch()
    decisions = [
        write_decision(0.45, "va.json", task="va", scores={"mean_ccc": 0.5}, estimate={"nested_mean_ccc": 0.45}),
        write_decision(0.35, "expr.json", outputs={"runs": {"visual": "abc"}}),
        write_decision(0.25, "au.json", task="au"),
    ]
    command = ["ledger", "add", "all.txt", "--template", "template.txt", "--unchecked", "--decision"]
    text = fails(capsys, *command, *decisions[:2])
    assert "the decisions are not those of the template's challenge, multi-task; found 'expr, va'; expected" in text
    assert call(*command, *decisions) == 0
    assert call("ledger", "score", 1, 1.0) == 0
    found = listed(capsys)
    (attempt,) = found["attempts"]
    assert (attempt["tuned"], attempt["nested"]) == (pytest.approx(0.5 + 0.4 + 0.3), pytest.approx(1.05))
    assert attempt["runs"] == {"va": {}, "expr": {"visual": "abc"}, "au": {}}
    assert list(attempt["decisions"]) == ["va.json", "expr.json", "au.json"]
    assert found["agreement"][0]["mean_difference"] == pytest.approx(-0.05)


def test_scores_are_what_organisers_can_say(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1, "--decision", write_decision(0.35)) == 0
    for wrong in ("36.2", "nan", "inf", "-1.01", "1.01"):
        assert "this is not an official score" in fails(capsys, "ledger", "score", 1, wrong)
    assert "has no such attempt; found 7; expected 1" in fails(capsys, "ledger", "score", 7, 0.3)
    assert call("ledger", "score", 1, 0.3) == 0
    assert capsys.readouterr().out == "Attempt 1: official score 0.3000; nested said 0.3500.\n"
    assert call("ledger", "score", 1, -0.25) == 0
    assert capsys.readouterr().out == "Attempt 1: official score -0.2500 (was 0.3000); nested said 0.3500.\n"
    Path("other.txt").touch()
    assert call("ledger", "add", "other.txt", "--template", write_template(MULTI_TASK.header), "--unchecked") == 0
    assert call("ledger", "score", 2, 1.3) == 0, "the sum of three scores"
    assert [attempt["score"] for attempt in listed(capsys)["attempts"]] == [-0.25, 1.3]


def test_how_validation_predicted_the_test(capsys: pytest.CaptureFixture[str]) -> None:
    nested, official = [0.30, 0.40, 0.35, 0.50], [0.28, 0.33, 0.34, 0.36]
    said = [
        "once an attempt has both",
        "-0.0200 on average of 1. Too few for a rank correlation, which takes 3.",
        "-0.0450 on average of 2. Too few",
        "-0.0333 on average of 3. Rank correlation (Spearman): +0.50; of so few it says little.",
        "-0.0600 on average of 4. Rank correlation (Spearman): +0.80",
    ]
    for seed, figure in enumerate(nested):
        assert add(seed, "--decision", write_decision(figure)) == 0
    assert add(9) == 0  # one of which nothing is known
    for count, text in enumerate(said):
        assert call("ledger", "list") == 0
        assert text in " ".join(capsys.readouterr().out.split())
        (found,) = listed(capsys)["agreement"]
        assert found["scored"] == count
        if count:
            differences = np.subtract(official[:count], nested[:count])
            assert found["mean_difference"] == pytest.approx(differences.mean(), abs=1e-12)
        if count >= 3:
            first, second = (np.argsort(np.argsort(values[:count])) for values in (nested, official))
            assert found["rank_correlation"] == pytest.approx(np.corrcoef(first, second)[0, 1])
        else:
            assert found["rank_correlation"] is None
        if count < 4:
            assert call("ledger", "score", count + 1, official[count]) == 0


def test_equal_figures_have_no_ranks(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(3):
        assert add(seed, "--decision", write_decision(0.4)) == 0
        assert call("ledger", "score", seed + 1, 0.3 + seed / 100) == 0
    capsys.readouterr()
    assert call("ledger", "list") == 0
    assert "No rank correlation: all scores of one kind are equal." in " ".join(capsys.readouterr().out.split())


def test_the_table_fits_a_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    note = "a long note about all that was tried in the night before the deadline, and-one-long-word-without-any-space"
    for seed in range(5):
        assert add(seed, "--note", note, "--edition", 10, "--decision", write_decision(0.4)) == 0
    assert call("ledger", "score", 2, 0.3) == 0
    capsys.readouterr()
    assert call("ledger", "list") == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    assert "expr, edition 10: 5 of 5 attempts" in lines
    (row,) = [line for line in lines if line.split()[:1] == ["2"]]
    assert row.split()[2:6] == ["0.4500", "0.4000", "0.3000", "-0.1000"]
    assert len(lines) < 50


def test_an_empty_ledger_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1) == 0
    assert call("ledger", "remove", 1) == 0
    capsys.readouterr()
    assert call("ledger", "list") == 0
    assert capsys.readouterr().out == "No attempts yet.\n"
    assert "none: the ledger is empty" in fails(capsys, "ledger", "score", 1, 0.3)


# Files that are no ledger, and places where none can be


def test_what_is_no_ledger_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    Path("notes.txt").write_text("what else we should try\n" * 100)
    with closing(sqlite3.connect("study.db")) as database, database:
        database.execute("CREATE TABLE studies (id INTEGER)")
    said = {"notes.txt": "is not a ledger (file is not a database)", "study.db": "is a database, but not a ledger"}
    for name, problem in said.items():
        before = Path(name).read_bytes()
        for command in (["list"], ["score", 1, 0.3], ["add", write_file(1), "--template", "template.txt"]):
            capsys.readouterr()
            assert call("ledger", *command, "--ledger", name) == 2
            assert f"{name}: {problem}" in capsys.readouterr().err
        assert Path(name).read_bytes() == before


def test_a_ledger_of_a_newer_version_is_left_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1) == 0
    with closing(sqlite3.connect("ledger.db")) as database:
        assert database.execute("PRAGMA user_version").fetchone() == (1,)
        database.execute("PRAGMA user_version = 2")
    for command in (["list"], ["score", 1, 0.3], ["remove", 1]):
        text = fails(capsys, "ledger", *command)
        assert "ledger.db: has another format; found 2; expected 1. Use the newer version" in text
    assert add(2) == 2


def test_places_without_a_ledger(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in (["list"], ["score", 1, 0.3], ["remove", 1]):
        assert "ledger.db: does not exist. `ledger add` creates it" in fails(capsys, "ledger", *command)
        assert not Path("ledger.db").exists()
    Path("empty.db").touch()
    assert "empty.db: is empty. `ledger add` makes it a ledger." in fails(
        capsys, "ledger", "list", "--ledger", "empty.db"
    )
    assert f"{tmp_path}: cannot be opened" in fails(capsys, "ledger", "list", "--ledger", tmp_path)
    assert add(1, "--ledger", "none/ledger.db") == 2
    assert "none/ledger.db: cannot be opened" in capsys.readouterr().err
    assert add(1, "--ledger", "empty.db") == 0
    assert add(1, "--ledger", "a # name ? with % all.db") == 0
    assert Path("a # name ? with % all.db").exists()


@contextmanager
def unprivileged() -> Iterator[None]:
    """As nobody, where we are root, to whom nothing is forbidden."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_ledger_that_may_only_be_read(capsys: pytest.CaptureFixture[str]) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as name:
        book, folder = Path(name) / "ledger.db", Path(name)
        assert add(1, "--ledger", book) == 0
        assert call("ledger", "list", "--ledger", book) == 0  # loads what nobody may not be allowed to read
        book.chmod(0o444)
        folder.chmod(0o555)
        capsys.readouterr()
        with unprivileged():
            assert call("ledger", "list", "--ledger", book) == 0
            assert "p1.txt" in capsys.readouterr().out
            text = fails(capsys, "ledger", "score", 1, 0.3, "--ledger", book)
            assert f"{book}: cannot be written" in text
            with pytest.raises(LedgerError, match=r"new\.db: cannot be opened"):
                ledger.add(folder / "new.db", entry(2))
        folder.chmod(0o755)


def test_a_locked_ledger_is_not_waited_for_for_ever(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert add(1) == 0
    monkeypatch.setattr(ledger, "LOCK_TIMEOUT", 0.05)
    with closing(sqlite3.connect("ledger.db", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        assert call("ledger", "list") == 0, "who writes does not keep others from reading"
        assert "ledger.db: is locked by another program" in fails(capsys, "ledger", "score", 1, 0.3)
        other.execute("ROLLBACK")
        other.execute("BEGIN EXCLUSIVE")
        assert "is locked by another program" in fails(capsys, "ledger", "list")
    assert call("ledger", "score", 1, 0.3) == 0


def test_a_full_disk_leaves_the_ledger_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    assert add(1) == 0
    before = Path("ledger.db").read_bytes()
    large = write_decision(0.4, mu={"x": "y" * 10**6})
    command = ["ledger", "add", write_file(2), "--template", "template.txt", "--decision", large, "--unchecked"]
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2 * len(before), hard))  # as a full disk: the write fails midway
        text = fails(
            capsys, "ledger", "add", "p2.txt", "--template", "template.txt", "--decision", large, "--unchecked"
        )
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert "ledger.db: " in text
    assert "disk" in text
    assert len(listed(capsys)["attempts"]) == 1
    assert call(*command) == 0


# Two at once, and killed

DYING = """
import os, signal, sqlite3, sys
from abaw_expr.commands.main import main

class Dying(sqlite3.Connection):
    def __exit__(self, *error):
        os.kill(os.getpid(), signal.SIGKILL)

connect = sqlite3.connect
sqlite3.connect = lambda *arguments, **named: connect(*arguments, factory=Dying, **named)
main(sys.argv[1:])
"""


def test_a_process_killed_before_its_commit_leaves_the_ledger_as_it_was(capsys: pytest.CaptureFixture[str]) -> None:
    for seed in range(2):
        assert add(seed) == 0
    before, size = listed(capsys), Path("ledger.db").stat().st_size
    large = write_decision(0.4, mu={"x": "y" * 10**7})  # beyond SQLite's cache, so that it writes before the commit
    command = ["ledger", "add", write_file(2), "--template", "template.txt", "--decision", large]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", DYING, *map(str, command)], env=environment, stdout=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL
    assert Path("ledger.db-journal").exists()
    assert Path("ledger.db").stat().st_size > size + 10**6, "the file is half written"
    assert listed(capsys) == before
    assert Path("ledger.db").stat().st_size == size
    assert call(*command) == 0
    assert len(listed(capsys)["attempts"]) == 3


WAITING = """
import sys, time
from abaw_expr.commands import console
from abaw_expr.commands.main import main
from submissions import ledger

add, rows = ledger.add, ledger._rows

def add_when_told(*arguments):
    print("ready", flush=True)
    sys.stdin.readline()
    return add(*arguments)

def rows_slowly(database):
    found = rows(database)
    time.sleep(0.01)  # time enough for the other to write between this one's reading and writing
    return found

ledger.add, ledger._rows = add_when_told, rows_slowly
console.OUT.quiet = True
command = ["ledger", "add", sys.argv[2], "--template", "template.txt", "--unchecked", "--ledger"]
for number in range(int(sys.argv[1])):
    print(main([*command, f"{number}.db"]), flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize(("earlier", "rounds", "statuses"), [(4, 20, ["0", "2"]), (0, 5, ["0", "0"])])
def test_of_two_fifth_attempts_at_once_one_is_the_fifth(earlier: int, rounds: int, statuses: list[str]) -> None:
    """And two first ones make one ledger."""
    for number, seed in product(range(rounds), range(earlier)):
        ledger.add(Path(f"{number}.db"), entry(seed))
    pair = [_waiting(rounds, write_file(seed)) for seed in (5, 6)]
    for _ in range(rounds):
        assert [_line(process) for process in pair] == ["ready", "ready"]
        for process in pair:
            _stream(process.stdin).write("now\n")
            _stream(process.stdin).flush()
        assert sorted(_line(process) for process in pair) == statuses
    errors = [process.communicate()[1] for process in pair]
    assert "".join(errors).count("holds 5 attempts at expr") == rounds * statuses.count("2")
    for number in range(rounds):
        numbers = [attempt.number for attempt in ledger.attempts(Path(f"{number}.db"))]
        assert numbers == list(range(1, earlier + 1 + statuses.count("0")))


def _waiting(rounds: int, predictions: Path) -> "subprocess.Popen[str]":
    """A process that records the file in one ledger after another, each when it is told so."""
    command = [sys.executable, "-c", WAITING, str(rounds), str(predictions)]
    environment, pipe = os.environ | {"PYTHONPATH": str(ROOT)}, subprocess.PIPE
    return subprocess.Popen(command, env=environment, stdin=pipe, stdout=pipe, stderr=pipe, text=True)


def _line(process: "subprocess.Popen[str]") -> str:
    return _stream(process.stdout).readline().strip()


def _stream(stream: IO[str] | None) -> IO[str]:
    assert stream is not None
    return stream


# Whatever the order


def entry(content: int, challenge: str = "expr", nested: float | None = None) -> Entry:
    digest = hashlib.sha256(str(content).encode()).hexdigest()
    return Entry(challenge, f"{content}.txt", digest, True, "", {}, {}, nested, nested)


class Team(RuleBasedStateMachine):
    """Any sequence of adding, scoring and taking back, beside a list that follows the rules."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.db"
        self.model: list[Attempt] = []
        self.ids = 0

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(content=st.integers(0, 30), challenge=st.sampled_from(["expr", "va"]), edition=st.sampled_from([None, 8, 10]))
    def add(self, content: int, challenge: str, edition: int | None) -> None:
        new = entry(content, challenge)
        expected = edition if edition is not None else self.model[-1].edition if self.model else 0
        taken = [old.number for old in self.model if (old.edition, old.challenge) == (expected, challenge)]
        if len(taken) == 5 or new.sha256 in [old.sha256 for old in self.model]:
            with pytest.raises(LedgerError):
                ledger.add(self.path, new, edition)
            return
        added = ledger.add(self.path, new, edition)
        self.ids += 1
        assert (added.id, added.edition) == (self.ids, expected)
        assert added.number not in taken
        self.model.append(added)

    @precondition(lambda self: self.model)
    @rule(data=st.data(), score=st.floats(allow_nan=True, width=32))
    def score(self, data: st.DataObject, score: float) -> None:
        place = data.draw(st.integers(0, len(self.model) - 1))
        old = self.model[place]
        if -1 <= score <= 1:
            assert ledger.score(self.path, old.id, score) == old
            self.model[place] = replace(old, score=score)
        else:
            with pytest.raises(LedgerError):
                ledger.score(self.path, old.id, score)

    @precondition(lambda self: self.model)
    @rule(data=st.data())
    def remove(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.model))
        if old.score is not None:
            with pytest.raises(LedgerError):
                ledger.remove(self.path, old.id)
            return
        ledger.remove(self.path, old.id)
        self.model.remove(old)

    @precondition(lambda self: self.path.exists())
    @invariant()
    def holds_what_was_put_in(self) -> None:
        found = ledger.attempts(self.path)
        assert found == self.model
        for attempts in ledger.by_challenge(found).values():
            assert len(attempts) <= 5
            assert {attempt.number for attempt in attempts} <= set(range(1, 6))


TestTeam = pytest.mark.slow(Team.TestCase)
TestTeam.settings = settings(
    max_examples=10, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)


def test_agreement_of_nothing() -> None:
    assert agreement([]) == ledger.Agreement(0, None, None)
