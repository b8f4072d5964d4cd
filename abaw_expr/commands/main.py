"""The one front door: `python -m abaw_expr COMMAND`, or `abaw-expr COMMAND`.

Heavy modules are imported inside the commands that need them, so that `--help` and `check` answer at once.
"""

import os
import platform
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from types import FrameType

from abaw_expr.commands import console
from abaw_expr.commands.exit_status import COULD_NOT_RUN, INTERRUPTED, OK, SIGNALLED, TERMINATED
from abaw_expr.commands.parsing import HELP, PROGRAM, parse
from abaw_expr.commands.table import commands, find, group_overview, overview
from abaw_expr.errors import StoppedError, Terminated, UserError
from abaw_expr.version import VERSION

if sys.platform != "win32":
    import resource

OPEN_FILES = 10_240
"""At once; no system has a lower ceiling than macOS with this."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    # A first `--` has told torchrun that the flags after it are ours.
    arguments = [argument for argument in given[given[:1] == ["--"] :] if argument != "--debug"]
    debug = "--debug" in given
    _allow_open_files()
    try:
        with _sigterm_raised():
            status = _run(arguments)
            sys.stdout.flush()  # here, where the reader of a pipe may be gone without harm
            return status
    except StoppedError as error:
        console.note(str(error))
        return SIGNALLED + error.signal
    except UserError as error:
        if debug:
            raise
        console.error(error)
        return COULD_NOT_RUN
    except BrokenPipeError:  # the reader of a pipe, such as head, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # at exit, what is left is written too
        return SIGNALLED + signal.SIGPIPE
    except OSError as error:
        if debug:
            raise
        where = f"{error.filename}: " if error.filename else ""
        what = error.strerror or f"{error.args[0] if error.args else error} (is the disk full?)"
        console.error(f"{where}{what}. Nothing was left half-written.")
        return COULD_NOT_RUN
    except MemoryError:
        if debug:
            raise
        console.error("out of memory. Nothing was left half-written. Use fewer --workers, or free memory.")
        return COULD_NOT_RUN
    except KeyboardInterrupt as ended:
        signalled = isinstance(ended, Terminated)
        what, status = ("ended by SIGTERM", TERMINATED) if signalled else ("interrupted", INTERRUPTED)
        console.error(f"{what}. What was finished is kept; run it again, train with --resume, to go on.")
        return status


def _run(words: Sequence[str]) -> int:
    known = commands(main)
    if list(words[:1]) == ["help"]:
        words = [*words[1:], HELP[-1]]
    if not words or words[0] in HELP:
        print(overview(known))
        return OK
    if words[0] == "--version":
        print(f"{PROGRAM} {VERSION}, torch {version('torch')}, Python {platform.python_version()}")
        return OK
    name, rest = find(known, words)
    if name not in known:
        print(group_overview(known, name))
        return OK
    try:
        call = parse(name, known[name], rest)
    except SystemExit as ended:  # a help was shown, or what is wrong with the arguments
        return int(ended.code or OK)
    return call() or OK


@contextmanager
def _sigterm_raised() -> Iterator[None]:
    """SIGTERM cleans up as Ctrl-C does, and a second one changes nothing; `train` keeps it until a step is done."""
    if signal.getsignal(signal.SIGTERM) != signal.SIG_DFL or threading.current_thread() is not threading.main_thread():
        yield  # somebody else's, who knows better
        return

    def stop(number: int, frame: FrameType | None) -> None:
        signal.signal(number, signal.SIG_IGN)
        raise Terminated

    signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _allow_open_files() -> None:
    """Lets this process and its workers keep the files of every recording open; many systems begin with 1,024."""
    if sys.platform == "win32":  # which has no such limit
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))
