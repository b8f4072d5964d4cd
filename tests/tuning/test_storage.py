"""Studies that several workers share, and workers that are killed."""

import os
import pwd
import shutil
import signal
import sqlite3
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path
from typing import Any
from unittest.mock import patch

import optuna
import pytest
from optuna.storages import RDBStorage
from optuna.trial import TrialState
from sqlalchemy.exc import SQLAlchemyError

from abaw_expr.errors import UserError
from tests.helpers.commands import Forked
from tests.helpers.searching import GO, READY, search, worker
from tuning.penalties import CONTROLS
from tuning.study import SLOT, WORKER

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


TRIALS = 24
PATIENCE = 120
"""Seconds that a test waits for what takes a few on a free machine."""


@pytest.fixture(scope="module")
def postgresql() -> Iterator[str]:
    """The URL of a server of its own, by a socket in its folder, run by a user without privileges."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin")) or [Path(p).parent for p in [shutil.which("initdb")] if p]
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian: apt-get install postgresql)")
    pytest.importorskip("psycopg", reason="PostgreSQL's driver is not installed (pip install psycopg[binary])")
    programs = found[-1]
    folder = Path(tempfile.mkdtemp(prefix="abaw-"))  # pytest's own folders are shut to other users
    options: dict[str, Any] = {"cwd": folder, "stdout": subprocess.DEVNULL}
    if os.getuid() == 0:  # as whom the server refuses to run
        names = {entry.pw_name for entry in pwd.getpwall()}
        user = pwd.getpwnam("postgres" if "postgres" in names else "nobody")
        os.chown(folder, user.pw_uid, user.pw_gid)
        options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}
    data = folder / "data"
    try:
        initialise = f"{programs / 'initdb'} -D {data} -U abaw -A trust --no-sync --locale=C -E UTF8".split()
        subprocess.run(initialise, check=True, **options)
        switches = [word for setting in ("listen_addresses=", "fsync=off") for word in ("-c", setting)]
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-k", folder, *switches], stderr=subprocess.DEVNULL, **options
        )
        try:
            wait_for(lambda: subprocess.run([programs / "pg_isready", "-q", "-h", folder]).returncode == 0)
            yield f"postgresql+psycopg://abaw@/postgres?host={folder}"
        finally:
            server.send_signal(signal.SIGINT)
            server.wait()
    finally:
        shutil.rmtree(folder)


def wait_for(holds: Callable[[], object]) -> None:
    end = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < end, "waited too long"
        time.sleep(0.02)


def start(url: str, out: Path, number: int = 0) -> Forked:
    return Forked(worker, url, out, TRIALS, printed=out / f"worker-{number}.txt")


def only_study(url: str) -> optuna.Study:
    """The study that the workers make; whoever looks while they make its tables may be refused."""

    def names() -> list[str]:
        with suppress(SQLAlchemyError):
            return optuna.get_all_study_names(storage=url)
        return []

    wait_for(names)
    (name,) = names()
    return optuna.load_study(study_name=name, storage=url)


def running(study: optuna.Study) -> dict[int, list[optuna.trial.FrozenTrial]]:
    """The trials under way, by the number of their process."""
    found: dict[int, list[optuna.trial.FrozenTrial]] = {}
    for trial in study.get_trials(states=(TrialState.RUNNING,)):
        if {SLOT, WORKER} <= trial.user_attrs.keys():  # who finds nothing waiting has one of no slot for a moment
            found.setdefault(int(trial.user_attrs[WORKER].rpartition(":")[2]), []).append(trial)
    return found


def kill_in_mid_trial(study: optuna.Study, worker: Forked) -> list[optuna.trial.FrozenTrial]:
    """Kills a worker that has trials under way, held so that they cannot end meanwhile; returns those trials."""
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if worker.pid in running(study):
            worker.send_signal(signal.SIGSTOP)
            if held := running(study).get(worker.pid):
                worker.kill()
                worker.wait()
                return held
            worker.send_signal(signal.SIGCONT)
        time.sleep(0.01)
    raise AssertionError("the worker had no trial under way")


def check_every_slot_once(study: optuna.Study, orphans: list[optuna.trial.FrozenTrial]) -> None:
    """Every slot is complete once, and what the dead worker had in hand was done by another, with its parameters."""
    trials = study.get_trials()
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    assert Counter(trial.user_attrs[SLOT] for trial in complete) == dict.fromkeys(range(TRIALS), 1)
    assert {trial.state for trial in trials} <= {TrialState.COMPLETE, TrialState.FAIL}
    by_slot = {trial.user_attrs[SLOT]: trial for trial in complete}
    for orphan in orphans:
        assert trials[orphan.number].state == TrialState.FAIL
        again = by_slot[orphan.user_attrs[SLOT]]
        assert again.user_attrs[WORKER] != orphan.user_attrs[WORKER]
        if again.number > orphan.number:  # else the orphan was a second attempt, which never counted
            assert again.params == orphan.params


def test_three_workers_on_postgresql_of_which_one_is_killed(postgresql: str, tmp_path: Path) -> None:
    workers = [start(postgresql, tmp_path, number) for number in range(3)]
    try:
        wait_for(lambda: len([*tmp_path.glob(f"{READY}-*")]) == len(workers))
        (tmp_path / GO).touch()
        study = only_study(postgresql)
        orphans = kill_in_mid_trial(study, workers[0])
        assert [worker.wait(PATIENCE) for worker in workers[1:]] == [0, 0]
    finally:
        for worker in workers:
            worker.kill()
    check_every_slot_once(study, orphans)
    signed = {trial.user_attrs[WORKER] for trial in study.get_trials(states=(TrialState.COMPLETE,))}
    assert len(signed) >= 2
    found = search(tmp_path, TRIALS, postgresql)  # nothing is left to do: what it finds is what they made
    assert len(found.rows) == TRIALS
    assert [row.mu for row in found.controls] == [*CONTROLS.values()]
    assert len(study.get_trials()) == len(only_study(postgresql).get_trials())


def test_a_study_that_was_killed_is_finished_and_keeps_what_was_done(tmp_path: Path) -> None:
    """What it draws next may differ: what the dead worker had in hand is missed only after its grace."""
    killed = tmp_path
    url = f"sqlite:///{killed / 'study.db'}"
    one = start(url, killed)
    (killed / GO).touch()
    study = only_study(url)
    wait_for(lambda: len(study.get_trials(states=(TrialState.COMPLETE,))) > len(CONTROLS))
    orphans = kill_in_mid_trial(study, one)
    before = {t.number: (t.params, t.value) for t in study.get_trials(states=(TrialState.COMPLETE,))}
    found = search(killed, TRIALS)
    check_every_slot_once(study, orphans)
    assert len(found.rows) == TRIALS
    after = {t.number: (t.params, t.value) for t in study.get_trials(states=(TrialState.COMPLETE,))}
    assert before.items() <= after.items()


def test_what_a_dead_worker_left_for_slots_that_are_done_does_not_run_for_ever(tmp_path: Path) -> None:
    """It may die between asking and signing, with a trial that belongs to no slot, or with a second one for a slot."""
    search(tmp_path, 4)
    study = only_study(f"sqlite:///{tmp_path / 'study.db'}")
    study.enqueue_trial({}, user_attrs={SLOT: 3})
    study.enqueue_trial({}, user_attrs={SLOT: 3})
    for _ in range(3):
        study.ask()  # the third is of no slot
    study.enqueue_trial({}, user_attrs={SLOT: 2})  # nobody's
    study.enqueue_trial({}, user_attrs={SLOT: 4})  # of a worker that wants more trials
    found = search(tmp_path, 4)
    states = [trial.state for trial in study.get_trials()]
    assert states == [TrialState.COMPLETE] * 4 + [TrialState.FAIL] * 4 + [TrialState.WAITING]
    assert len(found.rows) == 4


@pytest.mark.parametrize("word", ["_set_trial_param", "set_trial_user_attr", "record_heartbeat", "COMPLETE", "FAIL"])
def test_a_trial_that_another_worker_fails_between_a_look_and_a_word_is_tried_again(word: str, tmp_path: Path) -> None:
    """Two workers bury the same dead one, or a slow worker is given up: the second to speak finds the trial ended."""
    search(tmp_path, 4)
    study = only_study(f"sqlite:///{tmp_path / 'study.db'}")
    study.ask()  # by one that died before it signed, long ago
    with closing(sqlite3.connect(tmp_path / "study.db")) as database, database:
        database.execute("update trials set datetime_start = '2020-01-01 00:00:00.000000' where state = 'RUNNING'")
    method = word if word.islower() else "set_trial_state_values"
    says, fails = getattr(RDBStorage, method), RDBStorage.set_trial_state_values
    overtaken: list[int] = []

    def late(storage: RDBStorage, trial_id: int, *said: Any, **named: Any) -> Any:
        states = [value for value in (*said, *named.values()) if isinstance(value, TrialState)]
        if not overtaken and (word.islower() or [state.name for state in states] == [word]):
            overtaken.append(trial_id)
            fails(storage, trial_id, TrialState.FAIL)
        return says(storage, trial_id, *said, **named)

    with patch.object(RDBStorage, method, late):
        found = search(tmp_path, 6)
    assert len(overtaken) == 1
    assert study._storage.get_trial(overtaken[0]).state == TrialState.FAIL
    assert len(found.rows) == 6
    states = Counter(trial.state for trial in study.get_trials())
    assert states == {TrialState.COMPLETE: 6, TrialState.FAIL: 1 if word == "FAIL" else 2}


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nonsense", "--storage is not the URL of a database; found 'nonsense'"),
        ("postgresql+psycopg://me:secret@localhost:1/none", "the storage cannot be used"),
        ("oracle+cx_oracle://me:secret@localhost/none", "driver is not installed"),
    ],
)
def test_a_storage_that_cannot_be_had_is_said_without_its_password(url: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message) as error:
        search(tmp_path, 4, url)
    assert "secret" not in str(error.value)
