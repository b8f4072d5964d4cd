"""The one front door: `python -m abaw_expr COMMAND`, or `abaw-expr COMMAND`.

Heavy modules are imported inside the commands that need them, so that `--help` and `check` answer at once.
"""

import os
import resource
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

from abaw_expr.commands import console
from abaw_expr.commands.ablate import ablate_command
from abaw_expr.commands.arguments import base_settings
from abaw_expr.commands.check import check
from abaw_expr.commands.compare import compare
from abaw_expr.commands.convert import convert
from abaw_expr.commands.describe import describe
from abaw_expr.commands.exit_status import COULD_NOT_RUN, INTERRUPTED, OK, SIGNALLED, TERMINATED
from abaw_expr.commands.faces import faces
from abaw_expr.commands.importing import import_outputs
from abaw_expr.commands.infer import infer
from abaw_expr.commands.ledger import ledger
from abaw_expr.commands.penalties import penalties_command
from abaw_expr.commands.predict import predict
from abaw_expr.commands.prepare import prepare
from abaw_expr.commands.refit import refit_command
from abaw_expr.commands.score import score
from abaw_expr.commands.submit import submit
from abaw_expr.commands.train import train_command
from abaw_expr.commands.tune import tune
from abaw_expr.errors import StoppedError, Terminated, UserError
from abaw_expr.settings import Settings
from abaw_expr.tasks.task import EXPR

OPEN_FILES = 10_240
"""At once; no system has a lower ceiling than macOS with this."""
ABOUT = """From the ABAW expression challenge's release to a checked submission file.

The way: prepare, train, predict, tune, score, submit, check.

`demo` walks all of it on made-up data. Each command has its own --help.

Exit status: 0 done, 1 done and faults found, 2 could not run.

--debug shows the traceback of an error."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    # A first `--` has told torchrun that the flags after it are ours.
    arguments = [argument for argument in given[given[:1] == ["--"] :] if argument != "--debug"]
    debug = "--debug" in given
    _allow_open_files()
    try:
        with _sigterm_raised():
            return _run(arguments)
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
        console.error("out of memory. Nothing was left half-written. Use fewer --workers, or end what else runs there.")
        return COULD_NOT_RUN
    except KeyboardInterrupt as ended:
        signalled = isinstance(ended, Terminated)
        what, status = ("ended by SIGTERM", TERMINATED) if signalled else ("interrupted", INTERRUPTED)
        console.error(f"{what}. What was finished is kept; run it again, train with --resume, to go on.")
        return status


def _run(arguments: Sequence[str]) -> int:
    commands = _commands(arguments)
    return tyro.extras.subcommand_cli_from_dict(commands, prog="abaw-expr", description=ABOUT, args=arguments) or OK


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
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    allowed = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < allowed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (allowed, hard))


def _commands(arguments: Sequence[str]) -> dict[str, Callable[..., Any]]:
    """The commands by name; `train` shows the values of the settings file that the arguments name."""
    base = base_settings(arguments) if arguments[:1] in (["train"], ["ablate"]) else Settings()
    return {
        "demo": demo,
        "faces": faces,
        "prepare": prepare,
        "train": train_command(base, arguments, EXPR),
        "predict": predict,
        "infer": infer,
        "import": import_outputs,
        "tune": tune,
        "score": score,
        "compare": compare,
        "submit": submit,
        "check": check,
        "convert": convert,
        "ledger": ledger,
        "ablate": ablate_command(base, EXPR),
        "penalties": penalties_command(EXPR),
        "refit": refit_command(EXPR),
        "describe": describe,
    }


def demo(out: Path, seed: int = 0) -> int:
    """Walks the whole way on a made-up corpus: films it, then runs every command.

    Ends with macro F1 of sound, picture and both, and a checked submission file.

    Args:
        out: A new folder: release, store, run, outputs, decision, predictions.txt, summary.json.
        seed: Seed of the corpus and of training.
    """
    from abaw_expr.commands.demo import run

    return run(out, seed, EXPR, main)
