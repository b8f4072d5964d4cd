"""Opens media files with FFmpeg by their content: FFmpeg never sees a file's name, and no suffix decides anything."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition

from abaw_expr.errors import is_machine_error
from abaw_expr.files import open_file

_INVALID = av.error.tag_to_code(b"INDA")
"""FFmpeg's error number for invalid data."""


class _Nameless:
    """A file's bytes without its name: FFmpeg interprets some names as patterns, protocols or formats."""

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
    """Opens a file with FFmpeg, whatever its name.

    Raises av.FFmpegError for a file that cannot be decoded and OSError for an error of the machine, on opening and
    while the file is read. The bytes are read by this process, so an error number of FFmpeg's own (a header that asks
    for too much memory, an early end) is a fault of the file.
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
        if is_machine_error(error) != own:
            raise
        if own:
            raise av.InvalidDataError(_INVALID, str(error.strerror)) from error
        raise av.InvalidDataError(error.errno or _INVALID, error.strerror or str(error)) from error


def error_text(error: Exception) -> str:
    """FFmpeg's error in words; some decoders return numbers of their own."""
    text = str(getattr(error, "strerror", error))
    return "damaged data" if text.startswith("Error number") else text


def video_stream(container: InputContainer) -> av.VideoStream | None:
    """The first video stream, cover images of audio files excepted."""
    return next((s for s in container.streams.video if not s.disposition & Disposition.attached_pic), None)


def can_decode(stream: av.VideoStream | av.AudioStream) -> bool:
    """Whether there is a decoder for a stream: damaged headers name codecs that do not exist."""
    return getattr(stream, "codec_context", None) is not None


def starts_decodable(container: InputContainer, stream: av.VideoStream | av.AudioStream, packets: int = 50) -> bool:
    """Whether anything can be decoded of the first `packets` packets of a stream."""
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
    """The packets of a stream that hold data, as far as the file can be read."""

    def __init__(self, container: InputContainer, stream: av.VideoStream | av.AudioStream) -> None:
        self._packets = container.demux(stream)
        self.cut: str | None = None
        """The error that ended reading before the end of the file, or None."""

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
            self.cut = error_text(error)
        except IndexError:  # raised by PyAV at the end of a file whose streams begin in the middle
            return
