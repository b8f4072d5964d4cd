"""Files that are written whole or not at all, folders that one process writes, names, JSON, and digests."""

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
"""Bytes of a name out of a file; file systems take 255, and endings and unfinished files need some of them."""
IRREGULAR = "not a regular file"
"""What is said of pipes, sockets and devices, which folders may hold as well."""
_UNFINISHED, _LOCK = ".part", ".lock"
_NEW, _OLD, _GONE = "new", "old", "gone"
_TOKEN = 16
"""Letters of a workplace's name."""
_NO_LOCKS = {errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOSYS, errno.EBADF, errno.EINVAL}
"""What flock says on a file system without locks, and NFS of folders."""
_SHORT = 16
"""Digits of a short hash."""
_DEEPEST = 50
"""Lists and objects in each other that JSON may have; ours have a few."""
_CLOSED = {errno.EACCES, errno.EPERM, errno.EROFS}


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there takes the place of `path` on success only.

    Interrupted (Ctrl-C, SIGTERM, an error) it leaves `path` as it was and removes the temporary file or folder. A
    folder takes the place of `path` only if that is absent or a folder; of several processes that write the same path
    the last one wins. What a killed process left goes with the next write of the same path. A link is followed.
    """
    shown, path = path, Path(os.path.realpath(path))
    path.parent.mkdir(parents=True, exist_ok=True)
    with _workplace(path) as own:
        try:
            yield own / _NEW
            if (own / _NEW).is_file():
                _sync(own / _NEW)
            _put(own, path)
        except OSError as error:
            raise _named(error, shown, own) from error.__cause__


def clean(folder: Path) -> None:
    """Removes from a folder what killed processes left half-made there; what is still being written stays."""
    for workplaces in folder.glob(f".*{_UNFINISHED}"):
        _clear(workplaces, folder / workplaces.name[1 : -len(_UNFINISHED)])
        with suppress(OSError):
            workplaces.rmdir()


def remove(path: Path) -> None:
    """Removes a folder that this project made: at one moment it is there whole, at the next it is gone."""
    with _workplace(path) as own:
        os.rename(path, own / _GONE)


@contextmanager
def locked(folder: Path, error: type[UserError]) -> Iterator[None]:
    """Holds a folder, which is made, for this process; raises `error` where another process holds it.

    The system lets go of what a killed process held. Where nothing can be written, or the file system knows no locks,
    nothing is held. Folders that were made for this, and are empty at the end, go again.
    """
    new = [made for made in (folder, *folder.parents) if not made.exists()]
    lock = _hold(folder, error)
    try:
        yield
    finally:
        if lock is not None:
            with suppress(OSError):
                (folder / _LOCK).unlink()
            _let_go(lock)
        with suppress(OSError):
            for made in new:
                made.rmdir()


def is_passing(name: str) -> bool:
    """Whether a file or folder of that name is a lock or an unfinished file of this project, which goes by itself."""
    return name == _LOCK or (name.startswith(".") and name.endswith(_UNFINISHED))


def check_target(out: Path, *inputs: Path | None) -> None:
    """Makes the folder of `out`; raises UserError, before the work, for a folder or a file that the command reads."""
    if out.is_dir():
        raise UserError("is a folder", path=out, expected="the name of a file to write")
    if any(path is not None and path.resolve() == out.resolve() for path in inputs):
        raise UserError("is read by this command and cannot be its --out", path=out, remedy="Name another file.")
    out.parent.mkdir(parents=True, exist_ok=True)


def check_name(name: str, error: type[UserError], path: Path, line: int | None = None) -> str:
    """Returns a name out of a file, which may now be joined to a path; every such name passes here first.

    Raises `error`, with the file and line that say the name, where a folder or file could not be called that, or where
    it would lie elsewhere: separators, `.` and `..`, a dot at the beginning (files that the system hides, and our own
    unfinished ones), control characters, what UTF-8 cannot write, more than `LONGEST_NAME` bytes.
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
    """Writes UTF-8 text with plain newlines, whole or not at all."""
    with atomic(path) as temporary:
        temporary.write_bytes(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes readable JSON, whole or not at all."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path, error: type[UserError], remedy: str, shape: Any = object) -> Any:
    """Reads JSON as `write_json` writes it; raises `error` with `remedy` where the file is missing, is not JSON or does
    not have that shape, any type that pydantic knows."""
    try:
        return parse_json(Path(path).read_bytes(), path, error, remedy, shape)
    except OSError as problem:
        raise unreadable(error, path, problem, remedy) from problem


def parse_json(data: bytes, path: Path, error: type[UserError], remedy: str, shape: Any = object) -> Any:
    """The value of JSON that was read from `path`; otherwise as `read_json`."""
    try:
        value = json.loads(data.decode("utf-8-sig"))
        if data.count(b"[") + data.count(b"{") > _DEEPEST and _is_deep(value):
            raise ValueError(f"it is nested more than {_DEEPEST} deep")
        if b"\\u" in data:  # half of a pair that makes one letter cannot be written again
            json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as problem:
        raise error(f"is not JSON ({problem})", path=path, remedy=remedy) from problem
    if shape is not object:
        check_shape(value, shape, error, path, remedy)
    return value


def check_shape(value: Any, shape: Any, error: type[UserError], path: Path, remedy: str) -> None:
    """Raises `error`, which says what is wrong where in a file, for a value that is not of that shape."""
    from pydantic import ValidationError

    try:
        _adapter(shape).validate_python(value, strict=True)
    except ValidationError as problem:
        first = problem.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        found, said = None if first["type"] == "missing" else first["input"], first["msg"]
        raise error(f"{where} cannot be used ({said})", path=path, found=found, remedy=remedy) from problem


@cache
def _adapter(shape: Any) -> Any:
    from pydantic import TypeAdapter

    return TypeAdapter(shape)


def _is_deep(value: Any) -> bool:
    """Whether lists and objects lie in each other deeper than can be shown or written again."""
    layer = [value]
    for _ in range(_DEEPEST):
        inside = (item.values() if isinstance(item, dict) else item for item in layer if isinstance(item, dict | list))
        layer = [child for children in inside for child in children]
    return bool(layer)


def open_file(path: Path | str) -> int:
    """A descriptor to read a file by. Raises OSError, also for what could be waited for forever: pipes and devices."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError(errno.EINVAL, IRREGULAR, str(path))
    return os.open(path, os.O_RDONLY)


def digest(value: Any) -> str:
    """A short hash of any JSON value; the same value gives the same hash on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return bytes_digest(canonical.encode(errors="surrogatepass"))  # names need not be UTF-8


def bytes_digest(data: bytes) -> str:
    """A short hash of bytes, that of a file that holds them."""
    return hashlib.sha256(data).hexdigest()[:_SHORT]


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes."""
    return sha256(path)[:_SHORT]


def sha256(path: Path) -> str:
    """The whole hash of a file's bytes, as `sha256sum` prints it."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sync(path: Path) -> None:
    """Puts a file's bytes on the disk before its name changes, so that a power cut leaves the old or the new."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# Workplaces: `.NAME.part/TOKEN`, each locked by the process that writes NAME there. Its name is nobody else's, whatever
# the process's number, host or container; its lock ends with the process, so that others know what was left behind.


@contextmanager
def _workplace(path: Path) -> Iterator[Path]:
    """A folder of this process alone beside `path`."""
    workplaces = path.with_name(f".{path.name}{_UNFINISHED}")
    own, lock = _settle(workplaces)
    try:
        _clear(workplaces, path)
        yield own
    finally:
        _leave(own, path)
        _let_go(lock)
        with suppress(OSError):  # somebody else writes there too
            workplaces.rmdir()


def _settle(workplaces: Path) -> tuple[Path, int]:
    while True:
        own = workplaces / secrets.token_hex(_TOKEN // 2)
        with suppress(FileExistsError):
            workplaces.mkdir()
        with suppress(FileNotFoundError):  # another process has just left, and removed the folder or this one in it
            own.mkdir()
            lock, state = _lock(own, os.O_RDONLY)
            if state is not False:
                return own, lock
            _let_go(lock)


def _clear(workplaces: Path, path: Path) -> None:
    """Removes the workplaces of processes that are no more; what one had put aside goes back."""
    with suppress(OSError):
        for token in os.listdir(workplaces):
            if len(token) == _TOKEN and set(token) <= set(hexdigits):
                lock, free = _lock(workplaces / token, os.O_RDONLY)
                if free:
                    _leave(workplaces / token, path)
                _let_go(lock)


def _put(own: Path, path: Path) -> None:
    """Puts what is new in its place; a folder that is there is put aside first."""
    for number in count():
        try:
            os.replace(own / _NEW, path)
            return
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                raise
        with suppress(FileNotFoundError):  # another process puts it aside
            os.rename(path, own / f"{_OLD}{number}")


def _leave(own: Path, path: Path) -> None:
    """Removes a workplace; what was put aside goes back where nothing took its place, and stays if that fails."""
    with suppress(OSError):
        aside = sorted(own.glob(f"{_OLD}*"), key=lambda old: int(old.name.removeprefix(_OLD)))
        if aside and not os.path.lexists(path):
            os.rename(aside[-1], path)
        shutil.rmtree(own, ignore_errors=True)


def _named(error: OSError, path: Path, own: Path) -> OSError:
    """The error with the name of what was to be written, not of the temporary file; a full disk names nothing."""
    if error.filename is not None and not str(error.filename).startswith(str(own)):
        return error
    try:
        error.filename, error.filename2 = str(path), None
    except AttributeError:  # av's errors cannot be told another name
        return error if error.filename is None else OSError(error.errno, error.strerror, str(path))
    return error


# Locks

_held: set[int] = set()
"""Descriptors of this process's locks. A child that is forked lets go of them: it must not outlive its parent's."""


def _let_go_all() -> None:
    for descriptor in _held.copy():
        _let_go(descriptor)


os.register_at_fork(after_in_child=_let_go_all)


def _let_go(descriptor: int) -> None:
    _held.discard(descriptor)
    os.close(descriptor)


def _lock(path: Path, flags: int) -> tuple[int, bool | None]:
    """An open descriptor of a file or folder, and whether it holds the lock: False where another process has it, None
    where the file system has no locks. Raises FileNotFoundError where the path is gone, or another's by now."""
    descriptor = os.open(path, flags | os.O_CLOEXEC, 0o666)
    _held.add(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if not os.path.samestat(os.fstat(descriptor), os.stat(path)):
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path))
    except BlockingIOError:
        return descriptor, False
    except OSError as error:
        if error.errno in _NO_LOCKS:
            return descriptor, None
        _let_go(descriptor)
        raise
    return descriptor, True


def _hold(folder: Path, error: type[UserError]) -> int | None:
    """A descriptor of a folder's lock, which says who has it; None where there cannot be one."""
    while True:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock, state = _lock(folder / _LOCK, os.O_RDWR | os.O_CREAT)
            break
        except FileNotFoundError:  # another process has just let go of it, and removed the file or the folder
            continue
        except (FileExistsError, NotADirectoryError) as problem:
            if isinstance(problem, FileExistsError) and (folder.is_dir() or not os.path.lexists(folder)):
                continue  # it came or went just now
            raise error("is not a folder", path=folder, expected="a new folder, or one to go on with") from problem
        except OSError as problem:
            if problem.errno in _CLOSED:
                return None
            raise
    if state is False:
        found = os.pread(lock, 1000, 0).decode(errors="replace") or None
        _let_go(lock)
        remedy = "Wait until it is done or end it, or name another folder."
        raise error("is being written by another process", path=folder, found=found, remedy=remedy)
    with suppress(OSError):  # a full disk: the lock holds all the same
        os.ftruncate(lock, 0)
        os.write(lock, f"process {os.getpid()} on {socket.gethostname()}, since {time.ctime()}".encode())
    return lock
