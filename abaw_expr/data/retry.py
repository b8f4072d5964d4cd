"""Whether the machine or the file was to blame: FFmpeg says of both the same, which is looked into before it counts."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import av

from abaw_expr.errors import of_machine

Result = TypeVar("Result")


def retried(path: Path, read: Callable[[], Result]) -> Result:
    """What `read` gives, which reads a media file by FFmpeg.

    Where it fails as if the machine had refused (FFmpeg says EIO of files that end early, too), the file is read
    plainly, whose OSError is the machine's, and then by FFmpeg once more, whose av.FFmpegError is the file's.
    """
    try:
        return read()
    except av.FFmpegError as error:
        if not of_machine(error):
            raise
    read_through(path)
    return read()


def read_through(path: Path, piece: int = 2**20) -> None:
    """Reads a file, or the files of a folder, to the end. Raises OSError, with the path, where the system refuses."""
    try:
        for file in sorted(path.iterdir()) if path.is_dir() else [path]:
            descriptor = os.open(file, os.O_RDONLY)
            try:
                while os.read(descriptor, piece):
                    pass
            finally:
                os.close(descriptor)
    except OSError as error:
        error.filename = error.filename or str(path)
        raise
