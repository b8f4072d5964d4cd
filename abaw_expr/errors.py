"""Errors in the user's data, files and settings. Errors in our own code are asserts.

An error states the value found, the value expected, the place, and the remedy. The command line prints it as one
paragraph.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

_MACHINE_ERRNOS = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.EBUSY),
    *(errno.ETIMEDOUT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN),
}
"""Error numbers of the machine's state, independent of the file."""


class UserError(Exception):
    """Input that cannot be used. Its `str()` is one readable paragraph."""

    def __init__(
        self,
        problem: str,
        *,
        path: Path | str | None = None,
        line: int | None = None,
        found: object = None,
        expected: object = None,
        remedy: str | None = None,
    ) -> None:
        self.problem, self.path, self.line = problem, path, line
        self.found, self.expected, self.remedy = found, expected, remedy
        super().__init__(problem)

    def __str__(self) -> str:
        where = "" if self.path is None else f"{self.path}:{self.line}: " if self.line else f"{self.path}: "
        parts = [where + self.problem]
        if self.found is not None:
            parts.append(f"found {_cut(repr(self.found) if isinstance(self.found, str) else str(self.found))}")
        if self.expected is not None:
            parts.append(f"expected {_cut(str(self.expected))}")
        text = "; ".join(parts) + "."
        return f"{text} {self.remedy}" if self.remedy else text


class ReleaseError(UserError):
    """The organisers' release (annotations, crops, videos, lists, templates) cannot be used."""


class StoreError(UserError):
    """The prepared store cannot be used."""


class SettingsError(UserError):
    """A settings file or a flag cannot be used."""


class RunError(UserError):
    """A run folder or a checkpoint cannot be used."""


class BusyError(RunError):
    """Another process trains into a run folder."""


class DivergedError(RunError):
    """A training whose loss or weights are no longer finite numbers."""


class StoppedError(UserError):
    """A signal stopped a run; its state is saved."""

    def __init__(self, run: Path, number: int, remedy: str = "Resume it with --resume.") -> None:
        super().__init__("was stopped; its state is saved", path=run, remedy=remedy)
        self.signal = number


class OutputsError(UserError):
    """A table of branch outputs cannot be used."""


class DecisionError(UserError):
    """A decision file cannot be used."""


class TemplateError(UserError):
    """A submission template cannot be used."""


class PredictionsError(UserError):
    """A predictions file cannot be used, or cannot be written."""


class VideoError(UserError):
    """A user's video cannot be used for inference."""


class LedgerError(UserError):
    """The ledger of attempts cannot be used, or does not accept an attempt."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, treated as Ctrl-C: the program cleans up and ends."""


def unreadable(kind: type[UserError], path: Path, problem: OSError, remedy: str | None = None) -> UserError:
    """The error of class `kind` for a file that cannot be read; the default remedy for a missing file is its path.

    Raises `problem` itself where the machine is the cause (`is_machine_error`), so that it is not taken for a fault of
    the file.
    """
    if is_machine_error(problem):
        if problem.filename is None:
            problem.filename = str(path)
        raise problem
    if remedy is None and isinstance(problem, FileNotFoundError):
        remedy = "Check the path."
    return kind(f"cannot be read ({problem.strerror or problem})", path=path, remedy=remedy)


def is_machine_error(error: BaseException) -> bool:
    """Whether the machine is the cause of an error (no file handles, no memory, a failing disk), not the file.

    Such an error ends a command; it is never recorded as a defect of a file. True for MemoryError and for errors with
    such a number. PyAV's errors are distinguished where media files are opened (`abaw_expr.data.media.containers`),
    since FFmpeg also reports EIO for truncated files.
    """
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE_ERRNOS


def shorten(names: Sequence[str], most: int = 5) -> str:
    """A list of names for a message: the first few, and the number of others."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _cut(text: str, most: int = 160) -> str:
    """A value in a message, cut to a readable length."""
    return text if len(text) <= most else text[: most - 3] + "..."
