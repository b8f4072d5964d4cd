"""Files as FFmpeg reads them, by what is in them: names and endings of files decide nothing, FFmpeg never sees them."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from abaw_expr.errors import of_machine
from abaw_expr.files import open_file

INVALID = av.error.tag_to_code(b"INDA")
"""FFmpeg's number for data that are invalid."""


class _Nameless:
    """A file's bytes and nothing else: FFmpeg takes some names for patterns, protocols or formats."""

    def __init__(self, file: int) -> None:
        self._file = file

    def read(self, count: int) -> bytes:
        return os.read(self._file, count)

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return os.lseek(self._file, offset, whence)

    def tell(self) -> int:
        return os.lseek(self._file, 0, os.SEEK_CUR)


@contextmanager
def open_media(path: Path) -> Iterator[InputContainer]:
    """Opens a file for FFmpeg, whatever it is called.

    Raises av.FFmpegError for what the file is and OSError for what the machine refuses, then and while it is read: the
    bytes are read by us, so that an error number of FFmpeg's own (a header that asks for too much memory, an end that
    comes early) is the file's.
    """
    try:
        descriptor = open_file(path)
        try:
            with av.open(_Nameless(descriptor), metadata_errors="replace") as container:
                assert isinstance(container, InputContainer)
                yield container
        finally:
            os.close(descriptor)
    except (av.FFmpegError, OSError) as error:
        own = isinstance(error, av.FFmpegError)
        if of_machine(error) != own:
            raise
        if own:
            raise av.InvalidDataError(INVALID, str(error.strerror)) from error
        raise av.InvalidDataError(error.errno or INVALID, error.strerror or str(error)) from error


def reason(error: Exception) -> str:
    """What FFmpeg says was wrong, in words: some decoders give numbers of their own."""
    said = str(getattr(error, "strerror", error))
    return "damaged data" if said.startswith("Error number") else said


def picture_stream(container: InputContainer) -> av.VideoStream | None:
    """The first stream of moving pictures; a cover picture of a piece of music is none."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def can_decode(stream: av.VideoStream | av.AudioStream) -> bool:
    """Whether there is a decoder: damage makes codecs of streams that nobody knows."""
    return getattr(stream, "codec_context", None) is not None


def begins(container: InputContainer, stream: av.VideoStream | av.AudioStream, packets: int = 50) -> bool:
    """Whether something of a stream can be decoded, within so many packets from its beginning."""
    if not can_decode(stream):
        return False
    container.seek(0)
    for packet, _ in zip(Packets(container, stream), range(packets), strict=False):
        try:
            if packet.decode():
                return True
        except av.FFmpegError:
            continue
    return False


class Packets:
    """The packets of a stream that hold something, as far as the file can be read."""

    def __init__(self, container: InputContainer, stream: av.VideoStream | av.AudioStream) -> None:
        self._packets = container.demux(stream)
        self.cut: str | None = None
        """Why reading ended before the file did, or None."""

    def __iter__(self) -> Iterator[av.Packet]:
        """Raises av.FFmpegError where there is no packet before the damage."""
        count = 0
        try:
            for packet in self._packets:
                if packet.size:
                    count += 1
                    yield packet
        except av.FFmpegError as error:
            if not count:
                raise
            self.cut = reason(error)
        except IndexError:  # PyAV at the end, of a file where streams begin in the middle
            return
