"""A study on storage that several workers share, each trial of it evaluated once, whoever dies on the way.

A study has numbered slots, one for each trial that is wanted. A row in Optuna's storage is an attempt at a slot: it
waits, is run by the worker that pops it (of several, the storage lets one), and succeeds or fails. While a worker lives
it beats for its attempts; where the beat stops they fail, and whoever comes by next puts new attempts in their slots,
with the same parameters. Of two attempts at one slot the earlier counts, so workers need no lock among them.

Optuna's own retrying (`RetryHeartbeatStaleTrialCallback`, before 4.9 `RetryFailedTrialCallback`) works within
`Study.optimize`, a trial at a time; batches are asked for and told, and then beating is left to the caller.
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
from threading import Event, Thread
from typing import Any

import optuna
from optuna.distributions import BaseDistribution
from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler, QMCSampler, RandomSampler, TPESampler
from optuna.storages import RDBStorage, fail_stale_trials
from optuna.trial import FrozenTrial, Trial, TrialState

from abaw_expr.errors import UserError

SLOT, WORKER = "slot", "worker"
_MISSED = 3
"""Beats missed, one after the other, until a worker is taken for dead."""
_LIVE = (TrialState.WAITING, TrialState.RUNNING, TrialState.COMPLETE, TrialState.PRUNED)
_DONE = (TrialState.COMPLETE, TrialState.PRUNED)
_PATIENCE = 60
"""Seconds to wait for a lock on an SQLite file."""
_OPENING = 5
"""Attempts to open a storage: where several workers make its tables at once, all but one fail the first time."""

SAMPLERS: Mapping[str, Callable[[int, int], BaseSampler]] = {
    "tpe": lambda seed, slot: TPESampler(seed=_mixed(seed, slot), multivariate=True, constant_liar=True),
    "random": lambda seed, slot: RandomSampler(seed=_mixed(seed, slot)),
    "qmc": lambda seed, slot: QMCSampler(
        scramble=True,
        seed=seed,  # one sequence, whose points the storage deals out
        independent_sampler=RandomSampler(seed=_mixed(seed, slot)),
        warn_independent_sampling=False,
    ),
}
"""Where points come from, by name. Seed and slot decide what they draw."""


@dataclass(frozen=True)
class Result:
    """What an attempt came to."""

    value: float | None
    """The figure to be as high as can be; None: pruned."""
    attributes: Mapping[str, Any] = field(default_factory=dict)
    """What else is to be kept, as JSON values."""


class SharedStudy:
    """A study of `total` slots. Raises UserError where the storage cannot be had.

    `planned` are the parameters of the first slots; those of the others come from the sampler. `heartbeat` is in
    seconds.
    """

    def __init__(
        self,
        url: str,
        name: str,
        space: Mapping[str, BaseDistribution],
        total: int,
        planned: Sequence[Mapping[str, float]],
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
        evaluate: Callable[[Sequence[Trial]], Sequence[Result]],
        progress: Callable[[int, int], None] = lambda done, total: None,
    ) -> None:
        """Takes part until every slot is done: takes up to `size` trials, evaluates them together, tells their results.

        Where the others have all that is left, it waits for them, and takes over from those that die. What `evaluate`
        raises is raised, and its trials are free for others at once.
        """
        while True:
            progress(len(self.done()), self.total)
            trials = self._take(size)
            if trials:
                self._evaluate(trials, evaluate)
            elif len(self.done()) == self.total:
                self._sweep()
                return
            else:
                time.sleep(self._heartbeat)

    def done(self) -> dict[int, FrozenTrial]:
        """The trial of every slot that is done, in the order of slots."""
        found: dict[int, FrozenTrial] = {}
        for trial in self._trials(_DONE):
            if trial.user_attrs[SLOT] < self.total:
                found.setdefault(trial.user_attrs[SLOT], trial)
        return dict(sorted(found.items()))

    def _evaluate(self, trials: Sequence[Trial], evaluate: Callable[[Sequence[Trial]], Sequence[Result]]) -> None:
        try:
            with self._beating(trials):
                results = evaluate(trials)
        except BaseException:
            for trial in trials:
                self._fail(trial._trial_id)
            raise
        for trial, result in zip(trials, results, strict=True):
            with _unless_ended():  # given up for dead in the meantime, it is another worker's now
                for key, value in result.attributes.items():
                    trial.set_user_attr(key, value)
                state = TrialState.PRUNED if result.value is None else TrialState.COMPLETE
                self._study.tell(trial, result.value, state, skip_if_finished=True)

    def _fail(self, trial: int) -> None:
        """Fails an attempt, by its key in the storage."""
        with _unless_ended():
            self._storage.set_trial_state_values(trial, TrialState.FAIL)

    def _take(self, size: int) -> list[Trial]:
        """Up to `size` trials that are this worker's to run; none where others have all that is left.

        They go up to a multiple of `size`: whoever is left with part of a batch asks for the next one when he knows as
        much as if he had had all of it.
        """
        self._bury()
        while slots := self._open_slots(size):
            asked = [trial for slot in slots for trial in self._ask(slot)]
            live = self._trials(_LIVE)
            taken = []
            for trial in asked:
                if _counts(trial, live):
                    taken.append(trial)
                else:
                    self._fail(trial._trial_id)
            if taken:
                return taken
        return []

    def _bury(self) -> None:
        """Fails the attempts of workers that are dead."""
        with _quiet():
            fail_stale_trials(self._study)
        # Optuna overlooks those that died before their first beat.
        before = datetime.now() - timedelta(seconds=_MISSED * self._heartbeat)
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
            if WORKER not in trial.user_attrs and trial.datetime_start and trial.datetime_start < before:
                self._fail(trial._trial_id)

    def _sweep(self) -> None:
        """Fails what waits or runs for slots that are done: a dead worker's, or one that its own worker fails too."""
        for trial in self._study.get_trials(deepcopy=False, states=(TrialState.WAITING, TrialState.RUNNING)):
            if trial.user_attrs.get(SLOT, 0) < self.total:
                self._fail(trial._trial_id)

    def _open_slots(self, size: int) -> list[int]:
        """The first slots that nobody runs, up to a multiple of `size`; each now has an attempt that waits.

        What was tried before is tried again with the same parameters.
        """
        attempts = self._trials((*_LIVE, TrialState.FAIL))
        taken = {t.user_attrs[SLOT] for t in attempts if t.state in _LIVE and t.state != TrialState.WAITING}
        waiting = {t.user_attrs[SLOT] for t in attempts if t.state == TrialState.WAITING} - taken
        left = [slot for slot in range(self.total) if slot not in taken]
        slots = [slot for slot in left if slot // size == left[0] // size]
        whole = [trial for trial in attempts if len(trial.params) == len(self._space)]
        had = {trial.user_attrs[SLOT]: trial.params for trial in reversed(whole)}
        for slot in slots:
            if slot not in waiting:
                params = self._planned[slot] if slot < len(self._planned) else had.get(slot, {})
                self._study.enqueue_trial(dict(params), user_attrs={SLOT: slot})
        return slots

    def _ask(self, slot: int) -> list[Trial]:
        """Pops a waiting trial, and signs it; none where it was failed meanwhile by others, who had done it all."""
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
    def _beating(self, trials: Sequence[Trial]) -> Iterator[None]:
        """Shows that this worker lives, from a thread of its own."""
        over = Event()

        def beat() -> None:
            while not over.wait(self._heartbeat):
                for trial in trials:
                    with suppress(optuna.exceptions.StorageInternalError):  # the next beat may get through
                        self._storage.record_heartbeat(trial._trial_id)

        thread = Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


def _counts(trial: Trial, live: Sequence[FrozenTrial]) -> bool:
    """Whether this attempt is the first of its slot; it has none where another worker popped what waited."""
    slot = trial.user_attrs.get(SLOT)
    first = next((other for other in live if other.user_attrs[SLOT] == slot), None)
    return first is not None and first.number == trial.number


class _Journalled(sqlite3.Connection):
    """With a log ahead of the file: a commit waits for no disk, and a power cut costs the last commits only."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.execute("pragma journal_mode=wal")
        self.execute("pragma synchronous=normal")


def _open(url: str, heartbeat: int) -> RDBStorage:
    """The storage. Raises UserError where it cannot be had."""
    from sqlalchemy.engine import make_url
    from sqlalchemy.exc import ArgumentError, SQLAlchemyError

    remedy = "Name a database as SQLAlchemy does, for example postgresql+psycopg://user:password@machine/database."
    try:
        shown = make_url(url).render_as_string(hide_password=True)
    except ArgumentError as problem:
        raise UserError("--storage is not the URL of a database", found=url, remedy=remedy) from problem
    options: dict[str, Any] = {"pool_pre_ping": True}
    if shown.startswith("sqlite"):
        options = {"connect_args": {"timeout": _PATIENCE, "factory": _Journalled}}
    for attempt in range(_OPENING):
        try:
            return RDBStorage(
                url, engine_kwargs=options, heartbeat_interval=heartbeat, grace_period=_MISSED * heartbeat
            )
        except ImportError as problem:
            remedy = "For PostgreSQL: pip install psycopg[binary]."
            raise UserError("the storage's driver is not installed", found=shown, remedy=remedy) from problem
        except (SQLAlchemyError, RuntimeError) as problem:
            if attempt + 1 == _OPENING:
                reason = str(getattr(problem, "orig", None) or problem).strip().splitlines()[0]
                raise UserError(f"the storage cannot be used ({reason})", found=shown, remedy=remedy) from problem
            time.sleep(0.2 * (attempt + 1))
    raise AssertionError


def _unless_ended() -> suppress:
    """Lets be what is said of a trial that another worker has ended: who looks first may speak second."""
    return suppress(optuna.exceptions.UpdateFinishedTrialError)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's remark that heartbeats are an experiment, and left to who asks and tells."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Heartbeat of storage")
        yield


def _mixed(seed: int, slot: int) -> int:
    """One seed out of two numbers."""
    return (seed * 1_000_003 + slot) % 2**32
