"""Processes that are forked from one that has made the slow imports, once for all tests of a worker of pytest.

A fresh process takes seconds to import PyTorch, a small training less. Fresh ones are left to the tests of how the
processes of a run are started.
"""

import multiprocessing
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from abaw_expr.commands.main import main
from tests.helpers.paths import ROOT

_FORKED = multiprocessing.get_context("forkserver")
_FORKED.set_forkserver_preload(
    [
        *("abaw_expr.training.loop", "tuning.penalties", "tuning.heads", "torch._dynamo"),
        *("matplotlib.figure", "matplotlib.backends.backend_agg", "pandas", "pyarrow.dataset", "psycopg"),
    ]
)


class Forked:
    """A function at work in a process of its own; what it prints goes to a file."""

    def __init__(
        self,
        function: Callable[..., int | None],
        *arguments: object,
        printed: Path,
        folder: Path = ROOT,
        variables: Mapping[str, str] | None = None,
    ) -> None:
        self.printed = printed
        settings = (printed, folder, {**os.environ, **(variables or {})})
        self._process = _FORKED.Process(target=_run, args=(function, arguments, *settings))
        self._process.start()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    @property
    def text(self) -> str:
        """What it has printed so far."""
        return self.printed.read_text()

    def poll(self) -> int | None:
        """Its exit status, negative where a signal ended it; None while it runs."""
        return self._process.exitcode

    def wait(self, seconds: float = 300) -> int:
        """Its exit status, when it has ended."""
        self._process.join(seconds)
        status = self._process.exitcode
        if status is None:
            self.kill()
            raise AssertionError(f"has not ended in {seconds} s: {self.text}")
        return status

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


def command(
    arguments: Sequence[object], printed: Path, folder: Path = ROOT, variables: Mapping[str, str] | None = None
) -> Forked:
    """A command line at work in a process of its own."""
    return Forked(main, [str(argument) for argument in arguments], printed=printed, folder=folder, variables=variables)


def _run(
    function: Callable[..., int | None],
    arguments: Sequence[object],
    printed: Path,
    folder: Path,
    variables: Mapping[str, str],
) -> None:
    os.environ.clear()
    os.environ.update(variables)
    os.chdir(folder)
    with open(printed, "wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    torch.set_num_threads(1)
    sys.exit(function(*arguments))


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("localhost", 0))
        port: int = one.getsockname()[1]
        return port


def slurm_tasks(count: int) -> list[dict[str, str]]:
    """The variables that SLURM sets for each task of a step on this machine, and a port where they meet."""
    shared = {
        "SLURM_JOB_ID": "77",
        "SLURM_STEP_ID": "0",
        "SLURM_STEP_NUM_TASKS": str(count),
        "SLURM_STEP_TASKS_PER_NODE": str(count),
        "SLURM_STEP_NODELIST": "localhost",
        "SLURM_NODEID": "0",
        "MASTER_PORT": str(free_port()),
    }
    return [{**shared, "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank)} for rank in range(count)]


def run_tasks(count: int, arguments: Sequence[object], folder: Path, at: Path = ROOT) -> list[str]:
    """Runs a command as that many tasks of SLURM; what each printed, of which all must end well.

    `folder` takes what they print, `at` is where they work.
    """
    tasks = [
        command(arguments, folder / f"task-{rank}.txt", at, variables)
        for rank, variables in enumerate(slurm_tasks(count))
    ]
    assert [task.wait() for task in tasks] == [0] * count, [task.text for task in tasks]
    return [task.text for task in tasks]
