"""Files that are written whole or not at all, JSON, and digests."""

import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from abaw_expr.errors import UserError, unreadable

LONGEST_NAME = 200
"""Bytes of a name out of a file; file systems take 255, and endings and unfinished files need some of them."""


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`; what is written there takes the place of `path` on success only.

    Interrupted (Ctrl-C, an error) it leaves `path` as it was and removes the temporary file or folder. A folder
    takes the place of `path` only if that is absent or a folder.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    # absolute, since libraries take what has a colon for the address of something else
    temporary = path.absolute().with_name(f".{path.name}.{os.getpid()}.part")
    _remove(temporary)
    try:
        yield temporary
        if temporary.is_dir() and path.is_dir():
            _remove(path)
        elif temporary.is_file():
            _sync(temporary)
        os.replace(temporary, path)
    except OSError as error:  # name what was to be written, not the temporary file; a full disk names nothing
        error.filename, error.filename2 = str(path), None
        raise
    finally:
        _remove(temporary)


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


def read_json(path: Path, error: type[UserError], remedy: str) -> Any:
    """Reads JSON; raises `error` with `remedy` where the file is missing or is not JSON."""
    try:
        return json.loads(Path(path).read_bytes())
    except OSError as problem:
        raise unreadable(error, path, problem, remedy) from problem
    except ValueError as problem:
        raise error(f"is not JSON ({problem})", path=path, remedy=remedy) from problem


def digest(value: Any) -> str:
    """A short hash of any JSON value; the same value gives the same hash on every machine."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """A short hash of a file's bytes."""
    return sha256(path)[:16]


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


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
