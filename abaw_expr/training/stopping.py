"""Stopping by signals: a request to stop is kept until the current step is finished."""

import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from threading import Thread
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)
PARENT = "ABAW_EXPR_PARENT"
"""The environment variable with the process that started this one, and without which it stops."""


class StopRequest:
    """Whether the run was asked to stop."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that asked; 0: none."""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Records SIGTERM (of a scheduler) and SIGINT (Ctrl-C) instead of ending at once; a second Ctrl-C ends at once.

    A second SIGTERM does not: a scheduler sends it to all processes of a job, and the parent process passes it on.
    """
    request = StopRequest()
    if (parent := os.environ.get(PARENT)) == str(os.getppid()):
        Thread(target=_stop_without, args=(int(parent),), daemon=True).start()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def record(number: int, frame: FrameType | None) -> None:
        request.signal = request.signal or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in SIGNALS:
        signal.signal(number, record)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _stop_without(parent: int) -> None:
    """Asks this process to stop as soon as its parent is gone, killed perhaps: else both it and the one that is started
    after it would train the same run."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os.kill(os.getpid(), signal.SIGTERM)
