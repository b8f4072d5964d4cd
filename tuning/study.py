"""A study in a storage that several workers share; each trial is evaluated once, even if workers die.

A study has numbered slots, one for each requested trial. A row in Optuna's storage is an attempt at a slot: it waits,
is run by the worker that pops it (the storage gives it to only one), and succeeds or fails. A worker sends heartbeats
for its attempts while it runs; attempts whose heartbeat stops are marked as failed, and the next worker enqueues new
attempts at their slots, with the same parameters. Of two attempts at one slot the earlier counts, so workers need no
lock.

Optuna's own retrying (`RetryHeartbeatStaleTrialCallback`, before 4.9 `RetryFailedTrialCallback`) works only within
`Study.optimize`, one trial at a time; with `ask` and `tell`, which batches need, the caller must send the heartbeats.
"""

import os
import socket
import sqlite3
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from threading import Event, Thread
from typing import Any, Literal

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, CmaEsSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import UserError

SLOT, WORKER = "slot", "worker"
_MISSED = 3
"""Consecutive missed heartbeats after which a worker counts as dead."""
_LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_LOCK_TIMEOUT = 60
"""Seconds to wait for a lock on an SQLite file."""
_OPEN_ATTEMPTS = 5
"""Attempts to open a storage: if several workers create its tables at once, all but one fail the first time."""

SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, slot: TPESampler(seed=_mixed(seed, slot), multivariate=True, constant_liar=True),
    "cmaes": lambda seed, slot: CmaEsSampler(
        seed=_mixed(seed, slot),
        independent_sampler=RandomSampler(seed=_mixed(seed, slot)),  # of the first trials, and of choices
        warn_independent_sampling=False,
    ),
    "random": lambda seed, slot: RandomSampler(seed=_mixed(seed, slot)),
    "qmc": lambda seed, slot: QMCSampler(
        scramble=True,
        seed=seed,  # one sequence, whose points the storage distributes
        independent_sampler=RandomSampler(seed=_mixed(seed, slot)),
        warn_independent_sampling=False,
    ),
}
"""The samplers by name. Their points depend on seed and slot."""


@dataclass(frozen=True)
class TrialResult:
    """The result of an attempt."""

    value: float | None
    """The score to maximise; None: pruned."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """Further values to store, as JSON values."""


@dataclass(frozen=True)
class StudyOptions:
    """The options of a search and the location of its files."""

    out: Path
    """The folder of features and runs, which are too large for the storage."""
    storage: str
    """URL of the database."""
    sampler: str = "tpe"
    seed: int = 0
    heartbeat: int = 10
    """Seconds."""
    stride: float = 0.2
    """Seconds between the frames that networks are run on; 0: every frame."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"


class SharedStudy:
    """A study of `total` slots. Raises UserError where the storage cannot be opened.

    `planned` are the parameters of the first slots; those of the others come from the sampler. `heartbeat` is the time
    between heartbeats in seconds.
    """

    def __init__(
        self,
        url: str,
        name: str,
        space: Mapping[str, BaseDistribution],
        total: int,
        planned: Sequence[Mapping[str, Any]],
        sampler: str,
        seed: int,
        heartbeat: int,
        pruner: BasePruner | None = None,
    ) -> None:
        self._space, self._planned, self.total = dict(space), planned, max(total, len(planned))
        self._sampler, self._seed, self._heartbeat = sampler, seed, heartbeat
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        with _quiet():
            self._storage = _open(url, heartbeat)
            self._study = optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True, pruner=pruner
            )

    def work(
        self,
        size: int,
        evaluate: Callable[[Sequence[Trial]], Sequence[TrialResult]],
        on_progress: OnProgress = lambda done, total: None,
    ) -> None:
        """Works until every slot is done: takes up to `size` trials, evaluates them together and stores their results.

        If other workers run all remaining slots, it waits for them, and takes the slots of those that die. If
        `evaluate` raises, its trials are marked as failed and the error is raised. `on_progress(slots done, slots)`.
        """
        while True:
            on_progress(len(self.done()), self.total)
            trials = self._take(size)
            if trials:
                self._evaluate(trials, evaluate)
            elif len(self.done()) == self.total:
                self._sweep()
                return
            else:
                time.sleep(self._heartbeat)

    def done(self) -> dict[int, FrozenTrial]:
        """The trials of the finished slots, in the order of slots."""
        found: dict[int, FrozenTrial] = {}
        for trial in self._trials(_DONE):
            if trial.user_attrs[SLOT] < self.total:
                found.setdefault(trial.user_attrs[SLOT], trial)
        return dict(sorted(found.items()))

    def _evaluate(self, trials: Sequence[Trial], evaluate: Callable[[Sequence[Trial]], Sequence[TrialResult]]) -> None:
        try:
            with self._heartbeats(trials):
                results = evaluate(trials)
        except BaseException:
            for trial in trials:
                self._mark_failed(trial._trial_id)
            raise
        for trial, result in zip(trials, results, strict=True):
            with _unless_ended():  # the attempt may have been marked as failed, and its slot given to another worker
                for key, value in result.attributes.items():
                    trial.set_user_attr(key, value)
                state = TrialState.PRUNED if result.value is None else TrialState.COMPLETE
                self._study.tell(trial, result.value, state, skip_if_finished=True)

    def _mark_failed(self, trial: int) -> None:
        """Marks an attempt as failed, by its key in the storage."""
        with _unless_ended():
            self._storage.set_trial_state_values(trial, TrialState.FAIL)

    def _take(self, size: int) -> list[Trial]:
        """Up to `size` trials that this worker has to run; none where other workers run all remaining slots.

        Batches end at multiples of `size`: so the next batch is sampled with the same results known, even if a worker
        runs only part of a batch.
        """
        self._mark_stale_failed()
        while slots := self._open_slots(size):
            asked = [trial for slot in slots for trial in self._ask(slot)]
            live = self._trials(_LIVE)
            taken = []
            for trial in asked:
                if _is_first(trial, live):
                    taken.append(trial)
                else:
                    self._mark_failed(trial._trial_id)
            if taken:
                return taken
        return []

    def _mark_stale_failed(self) -> None:
        """Marks the attempts of dead workers as failed."""
        with _quiet():
            fail_stale_trials(self._study)
        # Optuna does not find those without any heartbeat.
        before = datetime.now() - timedelta(seconds=_MISSED * self._heartbeat)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER not in trial.user_attrs and trial.datetime_start and trial.datetime_start < before:
                self._mark_failed(trial._trial_id)

    def _sweep(self) -> None:
        """Marks attempts as failed that wait or run for finished slots: of dead workers, or superseded ones."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
            if trial.user_attrs.get(SLOT, 0) < self.total:
                self._mark_failed(trial._trial_id)

    def _open_slots(self, size: int) -> list[int]:
        """The first slots that no worker runs, up to a multiple of `size`; each gets an attempt that waits.

        Slots with failed attempts get the same parameters again.
        """
        attempts = self._trials((*_LIVE, TrialState.FAIL))
        taken = {t.user_attrs[SLOT] for t in attempts if t.state in _LIVE and t.state != TrialState.WAITING}
        waiting = {t.user_attrs[SLOT] for t in attempts if t.state == TrialState.WAITING} - taken
        left = [slot for slot in range(self.total) if slot not in taken]
        slots = [slot for slot in left if slot // size == left[0] // size]
        sampled = [trial for trial in attempts if len(trial.params) == len(self._space)]
        before = {trial.user_attrs[SLOT]: trial.params for trial in reversed(sampled)}
        for slot in slots:
            if slot not in waiting:
                params = self._planned[slot] if slot < len(self._planned) else before.get(slot, {})
                self._study.enqueue_trial(dict(params), user_attrs={SLOT: slot})
        return slots

    def _ask(self, slot: int) -> list[Trial]:
        """Pops a waiting trial and marks it with this worker; none where others have marked it as failed meanwhile."""
        with _unless_ended(), _quiet():
            self._study.sampler = SAMPLERS[self._sampler](self._seed, slot)
            trial = self._study.ask(self._space)
            self._storage.record_heartbeat(trial._trial_id)
            trial.set_user_attr(WORKER, f"{socket.gethostname()}:{os.getpid()}")
            return [trial]
        return []

    def _trials(self, states: Sequence[TrialState]) -> list[FrozenTrial]:
        """The attempts in one of these states, the earliest first."""
        return [t for t in self._study.get_trials(deepcopy=False, states=tuple(states)) if SLOT in t.user_attrs]

    @contextmanager
    def _heartbeats(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Sends heartbeats for these trials from a thread."""
        finished = Event()

        def send() -> None:
            while not finished.wait(self._heartbeat):
                for trial in trials:
                    with suppress(optuna.exceptions.StorageInternalError):  # the next heartbeat may succeed
                        self._storage.record_heartbeat(trial._trial_id)

        thread = Thread(target=send, daemon=True)
        thread.start()
        try:
            yield
        finally:
            finished.set()
            thread.join()


def _is_first(trial: Trial, live: Sequence[FrozenTrial]) -> bool:
    """Whether this attempt is the first of its slot; it has no slot where another worker popped the waiting one."""
    slot = trial.user_attrs.get(SLOT)
    first = next((other for other in live if other.user_attrs[SLOT] == slot), None)
    return first is not None and first.number == trial.number


class _WalConnection(sqlite3.Connection):
    """SQLite with a write-ahead log: commits do not wait for the disk, and a power cut loses only the last commits."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("pragma journal_mode=wal")
        self.execute("pragma synchronous=normal")


def _open(url: str, heartbeat: int) -> RDBStorage:
    """Opens the storage. Raises UserError where that is not possible."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    remedy = "Name a database as SQLAlchemy does, for example postgresql+psycopg://user:password@machine/database."
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError as problem:
        raise UserError("--storage is not the URL of a database", found=url, remedy=remedy) from problem
    options: dict[str, Any] = {"pool_pre_ping": True}
    if shown.startswith("sqlite"):
        options = {"connect_args": {"timeout": _LOCK_TIMEOUT, "factory": _WalConnection}}
    for attempt in range(_OPEN_ATTEMPTS):
        try:
            return RDBStorage(
                url, engine_kwargs=options, heartbeat_interval=heartbeat, grace_period=_MISSED * heartbeat
            )
        except ImportError as problem:
            remedy = "For PostgreSQL: pip install psycopg[binary]."
            raise UserError("the storage's driver is not installed", found=shown, remedy=remedy) from problem
        except (SQLAlchemyError, RuntimeError) as problem:
            if attempt + 1 == _OPEN_ATTEMPTS:
                reason = str(getattr(problem, "orig", None) or problem).strip().splitlines()[0]
                raise UserError(f"the storage cannot be used ({reason})", found=shown, remedy=remedy) from problem
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


def _unless_ended() -> suppress:
    """Ignores Optuna's error for a trial that another worker has already ended."""
    return suppress(optuna.exceptions.UpdateFinishedTrialError)


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppresses Optuna's warnings that heartbeats are experimental, and not sent by `ask` and `tell`."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


def _mixed(seed: int, slot: int) -> int:
    """One seed from two numbers."""
    return (seed * 1_000_003 + slot) % 2**32
