"""Stopping in good order: a request to end is kept until the step under way is done."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody has asked the run to end."""

    def __init__(self) -> None:
        self.signal = 0
        """The number of the signal that asked; 0: nobody has."""


@contextmanager
def stop_on_signals() -> Iterator[StopRequest]:
    """Notes SIGTERM (a scheduler's) and SIGINT (Ctrl-C) instead of dying of them; a second Ctrl-C is obeyed at once.

    A second SIGTERM is not: a scheduler tells all processes of a job, and the one that started this one tells it again.
    """
    request = StopRequest()
    before = {number: signal.getsignal(number) for number in SIGNALS}

    def note(number: int, frame: FrameType | None) -> None:
        request.signal = request.signal or number
        signal.signal(signal.SIGINT, before[signal.SIGINT])

    for number in SIGNALS:
        signal.signal(number, note)
    try:
        yield request
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
