"""Atomic writing of files and folders, folder locks, valid names, JSON, and digests."""

import errno
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import socket
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from itertools import count
from pathlib import Path
from string import hexdigits
from typing import Any

from abaw_expr.errors import UserError, unreadable

LONGEST_NAME = 200
"""Most bytes of a name; file systems allow 255, of which suffixes and unfinished files need some."""
IRREGULAR = "not a regular file"
"""The message for pipes, sockets and devices."""
_UNFINISHED, _LOCK = ".part", ".lock"
_NEW, _OLD, _GONE = "new", "old", "gone"
_TOKEN_LENGTH = 16
"""Characters of the name of a workplace."""
_LOCKS_UNSUPPORTED = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}
"""Errors of flock on a file system without locks, and of NFS for folders."""
_DIGEST_LENGTH = 16
"""Digits of a short hash."""
_MAX_DEPTH = 50
"""The deepest nesting of lists and objects that is accepted in JSON; our files have a few levels."""
_NOT_WRITABLE = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; the file or folder written there replaces `path` only on success.

    If interrupted (Ctrl-C, SIGTERM, an error) it leaves `path` unchanged and removes the temporary file or folder. A
    folder replaces `path` only if that is absent or a folder; of several processes that write the same path, the last
    one wins. The next write of the same path removes the remains of a killed process. A link is followed.
    """
    given, path = path, Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(path) as workplace:
        try:
            yield workplace / _NEW
            if (workplace / _NEW).is_file():
                _sync(workplace / _NEW)
            _replace(workplace, path)
        except OSError as error:
            raise _name_error(error, given, workplace) from error.__cause__


def clean(folder: Path) -> None:
    """Removes the unfinished files of killed processes from a folder; files that are being written stay."""
    for workplaces in folder.glob(f".*{_UNFINISHED}"):
        _remove_stale(workplaces, folder / workplaces.name[1 : -len(_UNFINISHED)])
        with suppress(OSError):
            workplaces.rmdir()


def remove_folder(path: Path) -> None:
    """Removes a folder of this project atomically: it is either complete or absent."""
    with _workplace(path) as workplace:
        os.rename(path, workplace / _GONE)


@contextmanager
def locked(folder: Path, error: type[UserError]) -> Iterator[None]:
    """Makes a folder and locks it for this process; raises `error` where another process has locked it.

    The system releases the lock of a killed process. If nothing can be written, or the file system has no locks, there
    is no lock. Folders that were made for the lock are removed at the end if they are empty.
    """
    new = [made for made in (folder, *folder.parents) if not made.exists()]
    lock = _acquire(folder, error)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                (folder / _LOCK).unlink()
            _release(lock)
        with suppress(OSError):
            for made in new:
                made.rmdir()


def is_locked(folder: Path) -> bool:
    """Whether another process has locked a folder, as far as the file system knows."""
    try:
        lock, state = _lock(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    _release(lock)
    return state is False


def is_passing(name: str) -> bool:
    """Whether a name is that of a lock or an unfinished file of this project, which are removed automatically."""
    return name == _LOCK or (name.startswith(".") and name.endswith(_UNFINISHED))


def check_target(out: Path, *inputs: Path | None) -> None:
    """Makes the parent folder of `out`; raises UserError where `out` is a folder or one of the files `inputs`."""
    if out.is_dir():
        raise UserError("is a folder", path=out, expected="the name of a file to write")
    if any(path is not None and path.resolve() == out.resolve() for path in inputs):
        raise UserError("is read by this command and cannot be its --out", path=out, remedy="Name another file.")
    out.parent.mkdir(parents=True, exist_ok=True)


def check_name(name: str, error: type[UserError], path: Path, line: int | None = None) -> str:
    """Returns a name that was read from a file, after checking it; call this before joining such a name to a path.

    Raises `error`, with the file and line of the name, for a name that is not valid for a file or folder, or that would
    lead to another folder: separators, `.` and `..`, a leading dot (hidden files, and our unfinished ones), control
    characters, characters that UTF-8 cannot encode, more than `LONGEST_NAME` bytes.
    """
    try:
        length = len(name.encode())
    except UnicodeEncodeError:
        length = LONGEST_NAME + 1
    if not 0 < length <= LONGEST_NAME or name[0] == "." or any(c in "/\\" or not c.isprintable() for c in name):
        expected = f"a name of 1 to {LONGEST_NAME} bytes without / and \\, control characters and a first dot"
        raise error("cannot be the name of a file or folder", path=path, line=line, found=name, expected=expected)
    return name


def write_text(path: Path, text: str) -> None:
    """Writes UTF-8 text with \\n as line ending, atomically."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes indented JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, error: type[UserError], remedy: str, shape: Any = object) -> Any:
    """Reads a JSON value and checks it against `shape`, any type that pydantic knows.

    Raises `error` with `remedy` where the file is missing, is not JSON or does not have that shape.
    """
    try:
        return parse_json(Path(path).read_bytes(), path, error, remedy, shape)
    except OSError as problem:
        raise unreadable(error, path, problem, remedy) from problem


def parse_json(data: bytes, path: Path, error: type[UserError], remedy: str, shape: Any = object) -> Any:
    """The value of JSON text that was read from `path`; otherwise as `read_json`."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
        if data.count(b"[") + data.count(b"{") > _MAX_DEPTH and _is_deep(value):
            raise ValueError(f"it is nested more than {_MAX_DEPTH} deep")
        if b"\\u" in data:  # a lone surrogate cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise error(f"is not JSON ({problem})", path=path, remedy=remedy) from problem
    if shape is not object:
        check_shape(value, shape, error, path, remedy)
    return value


def check_shape(value: Any, shape: Any, error: type[UserError], path: Path, remedy: str) -> None:
    """Raises `error`, which names the place and the fault, for a value that does not have that shape."""
    from pydantic import ValidationError

    try:
        _adapter(shape).validate_python(value, strict=True)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        found, reason = None if first["type"] == "missing" else first["input"], first["msg"]
        raise error(f"{where} cannot be used ({reason})", path=path, found=found, remedy=remedy) from problem


@cache
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects are nested too deep to be shown or written again."""
    layer = [value]
    for _ in range(_MAX_DEPTH):
        inside = (item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list))
        layer = [child for children in inside for child in children]
    return bool(layer)


def open_file(path: Path | str) -> int:
    """A descriptor for reading a file. Raises OSError, also for pipes and devices, which could block forever."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, IRREGULAR, str(path))
    return os.open(path, os.O_RDONLY)


def digest(value: Any) -> str:
    """A short hash of any JSON value, the same on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return bytes_digest(canonical.encode(errors="surrogatepass"))  # names need not be UTF-8


def bytes_digest(data: bytes) -> str:
    """A short hash of bytes, equal to the `file_digest` of a file with these bytes."""
    return hashlib.sha256(data).hexdigest()[:_DIGEST_LENGTH]


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes."""
    return sha256(path)[:_DIGEST_LENGTH]


def sha256(path: Path) -> str:
    """The full hash of a file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Writes a file's bytes to the disk before the rename, so that a power cut leaves the old or the new file."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Workplaces: folders `.NAME.part/TOKEN`, each locked by the process that writes NAME there. The token is unique over
# processes, hosts and containers; the lock ends with the process, so that other processes recognise stale workplaces.


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder of this process alone beside `path`."""
    workplaces = path.with_name(f".{path.name}{_UNFINISHED}")
    workplace, lock = _make_workplace(workplaces)
    try:
        _remove_stale(workplaces, path)
        yield workplace
    finally:
        _remove_workplace(workplace, path)
        _release(lock)
        with suppress(OSError):  # not empty: another process writes the same path
            workplaces.rmdir()


def _make_workplace(workplaces: Path) -> tuple[Path, int]:
    while True:
        workplace = workplaces / secrets.token_hex(_TOKEN_LENGTH // 2)
        with suppress(FileExistsError):
            workplaces.mkdir()
        with suppress(FileNotFoundError):  # another process has just removed this folder or its parent
            workplace.mkdir()
            lock, state = _lock(workplace, os.O_RDONLY)
            if state is not False:
                return workplace, lock
            _release(lock)


def _remove_stale(workplaces: Path, path: Path) -> None:
    """Removes the workplaces of processes that have ended; an old folder that one had moved aside is restored."""
    with suppress(OSError):
        for token in os.listdir(workplaces):
            if len(token) == _TOKEN_LENGTH and set(token) <= set(hexdigits):
                lock, free = _lock(workplaces / token, os.O_RDONLY)
                if free:
                    _remove_workplace(workplaces / token, path)
                _release(lock)


def _replace(workplace: Path, path: Path) -> None:
    """Renames the new file or folder to `path`; an existing folder is moved aside first."""
    for number in count():
        try:
            os.replace(workplace / _NEW, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another process has moved it aside
            os.rename(path, workplace / f"{_OLD}{number}")


def _remove_workplace(workplace: Path, path: Path) -> None:
    """Removes a workplace; an old folder in it is restored first if `path` is absent, and kept if that fails."""
    with suppress(OSError):
        aside = sorted(workplace.glob(f"{_OLD}*"), key=lambda old: int(old.name.removeprefix(_OLD)))
        if aside and not os.path.lexists(path):
            os.rename(aside[-1], path)
        shutil.rmtree(workplace, ignore_errors=True)


def _name_error(error: OSError, path: Path, workplace: Path) -> OSError:
    """The error with the given path instead of that of the temporary file; errors of a full disk have no path."""
    if error.filename is not None and not str(error.filename).startswith(str(workplace)):
        return error
    try:
        error.filename, error.filename2 = str(path), None
    except AttributeError:  # the file name of PyAV's errors cannot be set
        return error if error.filename is None else OSError(error.errno, error.strerror, str(path))
    return error


# Locks

_lock_descriptors: set[int] = set()
"""Descriptors of this process's locks. A forked child releases them, so that no lock outlives its process."""


def _release_all() -> None:
    for descriptor in _lock_descriptors.copy():
        _release(descriptor)


os.register_at_fork(after_in_child=_release_all)


def _release(descriptor: int) -> None:
    _lock_descriptors.discard(descriptor)
    os.close(descriptor)


def _lock(path: Path, flags: int) -> tuple[int, bool | None]:
    """An open descriptor of a file or folder, and whether it has the lock: False if another process has it, None if the
    file system has no locks. Raises FileNotFoundError where the path was removed or replaced meanwhile."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    _lock_descriptors.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BlockingIOError:
        return descriptor, False
    except OSError as error:
        if error.errno in _LOCKS_UNSUPPORTED:
            return descriptor, None
        _release(descriptor)
        raise
    return descriptor, True


def _acquire(folder: Path, error: type[UserError]) -> int | None:
    """A descriptor of a folder's lock file, which names the process that has it; None where there can be no lock."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock, state = _lock(folder / _LOCK, os.O_RDWR | os.O_CREAT)
            break
        except FileNotFoundError:  # another process has just released it, and removed the file or the folder
            continue
        except (FileExistsError, NotADirectoryError) as problem:
            if isinstance(problem, FileExistsError) and (folder.is_dir() or not os.path.lexists(folder)):
                continue  # it was just created or removed
            raise error("is not a folder", path=folder, expected="a new folder, or one of this project") from problem
        except OSError as problem:
            if problem.errno in _NOT_WRITABLE:
                return None
            raise
    if state is False:
        found = os.pread(lock, 1000, 0).decode(errors="replace") or None
        _release(lock)
        remedy = "Wait until it has finished or end it, or name another folder."
        raise error("is being written by another process", path=folder, found=found, remedy=remedy)
    with suppress(OSError):  # on a full disk the lock is valid without this text
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode())
    return lock
