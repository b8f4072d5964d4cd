"""What a user can cause. Our own bugs are asserts; these are the user's data, files and settings.

An error states the value found, the value expected, where, and what to do. The command line prints it as one
paragraph and exits with `exit_status`.
"""

import errno
from collections.abc import Sequence
from pathlib import Path

_MACHINE = {
    *(errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR, errno.EIO, errno.ESTALE, errno.EBUSY),
    *(errno.ETIMEDOUT, errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.ENODEV, errno.ENXIO, errno.EHOSTDOWN),
}
"""What a system says when it cannot serve anybody just then, whatever the file is."""


class UserError(Exception):
    """Input that cannot be used. `str()` of it is one readable paragraph."""

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


class StoppedError(UserError):
    """A signal ended a run; its state is saved."""

    def __init__(self, run: Path, number: int) -> None:
        super().__init__("was stopped; its state is saved", path=run, remedy="Go on with it by --resume.")
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
    """A video of one's own cannot be answered for."""


class LedgerError(UserError):
    """The ledger of attempts cannot be used, or refuses an attempt."""


class Terminated(KeyboardInterrupt):
    """SIGTERM, as Ctrl-C: what is under way is ended in good order."""


def unreadable(kind: type[UserError], path: Path, problem: OSError, remedy: str | None = None) -> UserError:
    """The error of a file that the system does not let us read; without a better remedy the path is to be checked.

    Raises `problem` itself where it is the machine's, so that nobody takes it for the file's.
    """
    if of_machine(problem):
        if problem.filename is None:
            problem.filename = str(path)
        raise problem
    if remedy is None and isinstance(problem, FileNotFoundError):
        remedy = "Check the path."
    return kind(f"cannot be read ({problem.strerror or problem})", path=path, remedy=remedy)


def of_machine(error: BaseException) -> bool:
    """Whether the machine refused (no file handles, no memory, a failing disk), and the file may be as good as ever.

    Such an error ends a command; it is never written down as a defect of a file. True of MemoryError and of errors
    with such a number; av's errors are told apart where media files are opened (`abaw_expr.data.media.containers`),
    since FFmpeg says EIO of files that end early too.
    """
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _MACHINE


def shorten(names: Sequence[str], most: int = 5) -> str:
    """A list of names for a message: the first few, and how many more there are."""
    shown = ", ".join(names[:most])
    return f"{shown} and {len(names) - most} more" if len(names) > most else shown


def _cut(text: str, most: int = 160) -> str:
    """A value in a message, cut to a readable length."""
    return text if len(text) <= most else text[: most - 3] + "..."
