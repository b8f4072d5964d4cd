"""Work shared by processes that end with their parent, whatever ends it."""

import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from multiprocessing.synchronize import Event
from typing import TypeVar

from abaw_expr.errors import StoreError, UserError

Item = TypeVar("Item")
Result = TypeVar("Result")


def processes(asked: int) -> int:
    """How many worker processes `--workers` asks for: 0 is one a core. Raises UserError below 0."""
    if asked < 0:
        raise UserError("--workers cannot be used", found=asked, expected="a count, or 0 for one a core")
    return asked or os.cpu_count() or 1


def share(work: Callable[[Item], Result], items: Sequence[Item], workers: int) -> Iterator[tuple[Item, Result]]:
    """Each item with its result, as they are done; begun in the order of `items`.

    With one worker this process does it. Raises StoreError where a worker process dies.
    """
    if workers <= 1 or len(items) <= 1:
        yield from ((item, work(item)) for item in items)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(items)), context, _in_worker, (stop,)) as pool:
        with _without_interrupts():  # which the workers inherit: Ctrl-C is for this process, which then stops them
            tasks = {pool.submit(work, item): item for item in items}
        try:
            for task in as_completed(tasks):
                yield tasks.pop(task), task.result()
        except BrokenExecutor as error:
            raise StoreError(f"a worker process died ({error})", remedy="Use fewer --workers.") from error
        except BaseException:  # Ctrl-C: what the workers are at is not waited for
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _in_worker(stop: Event) -> None:
    """One thread a process (torch, imported later, obeys the variable); it ends when told to, or with its parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None
    for ending in (stop.wait, parent.join):
        threading.Thread(target=_exit_after, args=(ending,), daemon=True).start()


def _exit_after(ending: Callable[[], object]) -> None:
    ending()
    os._exit(1)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
