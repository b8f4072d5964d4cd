"""Worker processes, which end whenever their parent process ends."""

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

OnProgress = Callable[[int, int], None]
"""Called with the work done and the whole work, in units that the function names."""
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


def processes(asked: int) -> int:
    """The number of worker processes for `--workers`: 0 is one a core. Raises UserError below 0."""
    if asked < 0:
        raise UserError("--workers cannot be used", found=asked, expected="a count, or 0 for one a core")
    return asked or os.cpu_count() or 1


def parallel_map(
    work: Callable[[_Item], _Result], items: Sequence[_Item], workers: int
) -> Iterator[tuple[_Item, _Result]]:
    """Yields each item with its result, in the order of completion; items are started in their order.

    With one worker this process does the work. Raises StoreError where a worker process dies.
    """
    if workers <= 1 or len(items) <= 1:
        yield from ((item, work(item)) for item in items)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(items)), context, _in_worker, (stop,)) as pool:
        with _without_interrupts():  # inherited by the workers: Ctrl-C reaches this process only, which then stops them
            tasks = {pool.submit(work, item): item for item in items}
        try:
            for task in as_completed(tasks):
                yield tasks.pop(task), task.result()
        except BrokenExecutor as error:
            raise StoreError(f"a worker process died ({error})", remedy="Use fewer --workers.") from error
        except BaseException:  # Ctrl-C: unfinished work is not waited for
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _in_worker(stop: Event) -> None:
    """Limits a worker to one thread (torch is imported later) and ends it when told to, or with its parent."""
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
