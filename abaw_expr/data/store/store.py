"""The prepared store, which training and prediction read; ordinary tools open its files.

manifest.json                       written last: its presence means complete; digests of the recording.json files
report.json                         the integrity report
recordings/<recording>/
    recording.json                  content, origin and digests of the other files
    sound.npy                       log-mel float16 [steps, 64], time 0 = first frame (missing: no audio)
    <video>.parquet                 a row a frame: frame, time, label, offset and size of its crop in the tar
    <video>.tar                     the crops' JPEG files as released, under the organisers' names

Shapes: T frames of a video.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.schema import ManifestEntry, RecordingEntry
from abaw_expr.errors import StoreError, shorten, unreadable
from abaw_expr.files import bytes_digest, check_name, check_shape, digest, file_digest, parse_json, read_json
from abaw_expr.tasks.task import EXPR, Task

STORE_FORMAT = 2
"""Version of this layout; a store of another version must be prepared again."""
MANIFEST = "manifest.json"
RECORDINGS = "recordings"
RECORDING_FILE = "recording.json"
AUDIO_FILE = "sound.npy"
MAPPED_BYTES = 2**30
"""Bytes of crops that a process maps into memory. Pages that were read count as the process's memory, so a large store
is not mapped as a whole; crops beyond this limit are read by system calls, which take twice as long."""
_WITHOUT = {
    "train": "Is the release complete?",
    "val": "Is the release complete? Prepare another data set with --val-fraction above 0: a run is validated on its "
    "first store. Only a store that is mixed into another, as STORE=FRACTION, needs no validation video.",
    "test": "Add the organisers' list of test videos to the release and run `prepare` again.",
}
"""Remedies for a split without videos."""
_AGAIN = "Run `prepare` into a new folder."
_REMAKE = "Delete its folder and run `prepare` again: it makes what is missing."
_CONTINUE = "Run `prepare` to its end; it continues where it stopped."
_COLUMNS = pa.schema([("time", pa.float64()), ("label", pa.int8()), ("offset", pa.int64()), ("size", pa.int32())])
"""Columns of a table of frames that are read again."""


@dataclass(frozen=True)
class Frames:
    """A video's frames in columns; row i is frame i + 1."""

    time: np.ndarray
    """float64 [T], seconds on the video's own clock."""
    label: np.ndarray
    """int8 [T], -1 where not annotated."""
    offset: np.ndarray
    """int64 [T], the offset of the frame's crop in the tar."""
    size: np.ndarray
    """int32 [T], bytes of the crop; 0 where the frame has none."""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def has_crop(self) -> np.ndarray:
        """bool [T]."""
        return self.size > 0


@dataclass(frozen=True)
class StoredVideo:
    """One video (one person) of a store; its arrays are read on first use."""

    name: str
    split: str
    folder: Path
    audio_mean: np.ndarray | None
    """float32 [64], mean log-mel of the recording per band; None without audio."""
    audio_std: np.ndarray | None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Digests of the recording's files; table and audio are compared with them when they are opened."""

    @cached_property
    def frames(self) -> Frames:
        """Raises StoreError where the table is damaged."""
        return _read_frame_table(self.folder / f"{self.name}.parquet", self.files.get(f"{self.name}.parquet"))

    @cached_property
    def audio(self) -> np.ndarray | None:
        """Log-mel float16 [steps, 64], mapped from disk; None without audio. Raises StoreError where it is damaged."""
        return None if self.audio_mean is None else _read_audio(self.folder / AUDIO_FILE, self.files.get(AUDIO_FILE))

    @cached_property
    def _tar(self) -> "_Mapped | _Opened":
        return _open_tar(self.folder / f"{self.name}.tar")

    @cached_property
    def _crop_places(self) -> tuple[memoryview, memoryview]:
        """Offsets and sizes; indexing a memoryview takes a third of the time of indexing an array."""
        return self.frames.offset.data, self.frames.size.data

    def jpeg(self, row: int) -> bytearray | None:
        """Bytes of a frame's crop; None where it has none."""
        offset, size = self._crop_places
        return self._tar.read(offset[row], size[row]) if size[row] else None

    def before_crop(self, row: int) -> bytearray:
        """The tar header before a frame's crop."""
        return self._tar.read(self._crop_places[0][row] - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)


class _Mapped:
    """A tar mapped into memory: once its pages were read, reading a crop is a copy without a system call."""

    bytes_mapped = 0
    """The total of this process."""

    def __init__(self, file: io.FileIO, length: int) -> None:
        self._view = memoryview(mmap(file.fileno(), length, access=ACCESS_READ))
        file.close()
        _Mapped.bytes_mapped += length
        finalize(self, _Mapped._unmapped, length)

    def read(self, start: int, size: int) -> bytearray:
        return bytearray(self._view[start : start + size])

    @classmethod
    def _unmapped(cls, length: int) -> None:
        cls.bytes_mapped -= length


class _Opened:
    """A tar read by system calls."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file  # closed with this object
        self._descriptor = file.fileno()

    def read(self, start: int, size: int) -> bytearray:
        data = bytearray(size)
        os.preadv(self._descriptor, (data,), start)
        return data


def _open_tar(path: Path) -> _Mapped | _Opened:
    """Maps the tar if it fits into the rest of `MAPPED_BYTES`."""
    file = io.FileIO(path)
    length = os.fstat(file.fileno()).st_size
    fits = 0 < length <= MAPPED_BYTES - _Mapped.bytes_mapped
    return _Mapped(file, length) if fits else _Opened(file)


@dataclass(frozen=True)
class Store:
    """A complete store of one task."""

    root: Path
    digest: str
    """Identity of everything that training reads, including the extras and their fractions."""
    videos: tuple[StoredVideo, ...]
    extras: tuple["Extra", ...] = ()
    """Stores that training samples from too (see `mixture`); validation and prediction do not."""

    def split(self, name: str) -> tuple[StoredVideo, ...]:
        """The videos of train, val or test. Raises StoreError where there is none."""
        chosen = tuple(video for video in self.videos if video.split == name)
        if not chosen:
            held = shorten(sorted({video.split for video in self.videos})) or "nothing"
            raise StoreError(f"holds no {name} video", path=self.root, found=held, remedy=_WITHOUT.get(name))
        return chosen


@dataclass(frozen=True)
class Extra:
    """A store that another one is mixed with."""

    store: Store
    fraction: float
    """Fraction of an epoch's samples that come from it."""


def open_store(root: Path, task: Task = EXPR) -> Store:
    """Opens a store.

    Raises StoreError where it is incomplete, of another version or task, or where recordings changed after the manifest
    was written.
    """
    manifest = read_manifest(root, task)
    folders = {name: Path(root) / RECORDINGS / name for name in manifest["recordings"]}
    entries = {name: read_recording(folder, manifest["recordings"][name]) for name, folder in folders.items()}
    if not agrees(manifest, entries):
        remedy = "Run `prepare` again: it makes a new manifest."
        raise StoreError("does not match the recordings", path=Path(root) / MANIFEST, remedy=remedy)
    videos = (video for name, entry in entries.items() for video in _videos(folders[name], entry))
    return Store(Path(root), manifest["digest"], tuple(videos))


def agrees(manifest: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a manifest matches the recordings' own entries."""
    videos = {name: video for entry in entries.values() for name, video in entry["videos"].items()}
    whole = digest({name: entry["files"] for name, entry in entries.items()})
    return (manifest["digest"], manifest["videos"]) == (whole, videos)


def read_manifest(root: Path, task: Task) -> dict[str, Any]:
    """The manifest of a complete store of this task; raises StoreError as `open_store` does."""
    if not (Path(root) / MANIFEST).exists() and not (Path(root) / RECORDINGS).is_dir():
        raise StoreError("is not a store", path=root, expected="a folder that `prepare` made", remedy="Check the path.")
    manifest: dict[str, Any] = read_json(Path(root) / MANIFEST, StoreError, _CONTINUE, dict)
    for key, expected in (("format", STORE_FORMAT), ("task", task.name), ("class_names", list(task.columns))):
        if manifest.get(key) != expected:
            raise StoreError(
                f"the store has another {key.replace('_', ' ')}",
                path=Path(root) / MANIFEST,
                found=manifest.get(key),
                expected=expected,
                remedy=_AGAIN,
            )
    check_shape(manifest, ManifestEntry, StoreError, Path(root) / MANIFEST, _REMAKE)
    for name in manifest["recordings"]:
        check_name(name, StoreError, Path(root) / MANIFEST)
    return manifest


def read_recording(folder: Path, known: str | None = None) -> dict[str, Any]:
    """The `recording.json` of a folder (`RecordingEntry`).

    Raises StoreError where it is damaged, or its digest is not the `known` one.
    """
    path = folder / RECORDING_FILE
    data = _read(path, known, _CONTINUE)
    entry: dict[str, Any] = parse_json(data, path, StoreError, _REMAKE, RecordingEntry)
    for name in (*entry["videos"], *entry["files"], *entry["bytes"]):
        check_name(name, StoreError, path)
    return entry


def _read_frame_table(path: Path, known: str | None = None) -> Frames:
    """A video's frames as `write_frame_table` wrote them.

    Raises StoreError where they are damaged, or the file's digest is not the `known` one.
    """
    data = _read(path, known)
    try:
        table = pq.read_table(pa.BufferReader(data)).select(_COLUMNS.names)
    except Exception as error:  # Arrow raises many kinds of errors for bytes that are no table
        raise StoreError("is no table of frames", path=path, remedy=_REMAKE) from error
    if table.schema.remove_metadata() != _COLUMNS or any(column.null_count for column in table.columns):
        raise StoreError("has other columns", path=path, found=table.schema.names, remedy=_REMAKE)
    return Frames(*(column.to_numpy() for column in table.columns))


def _read_audio(path: Path, known: str | None = None) -> np.ndarray:
    """Log-mel float16 [steps, 64], mapped from disk; raises StoreError as `_read_frame_table` does."""
    if known is not None:
        _check_digest(path, known, file_digest(path))
    try:
        mel: np.ndarray = np.load(path, mmap_mode="r")
    except OSError as error:
        raise unreadable(StoreError, path, error, _REMAKE) from error
    except Exception as error:  # NumPy raises many kinds of errors for bytes that are no array
        raise StoreError("is no array of log-mel audio", path=path, remedy=_REMAKE) from error
    if mel.ndim != 2 or mel.shape[1] != MEL_BANDS or mel.dtype != np.float16:
        found, expected = f"{mel.shape} {mel.dtype}", f"(steps, {MEL_BANDS}) float16"
        raise StoreError("holds another array", path=path, found=found, expected=expected, remedy=_REMAKE)
    return mel


def _read(path: Path, known: str | None, remedy: str = _REMAKE) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(StoreError, path, error, remedy) from error
    if known is not None:
        _check_digest(path, known, bytes_digest(data), remedy)
    return data


def _check_digest(path: Path, known: str, found: str, remedy: str = _REMAKE) -> None:
    if known != found:
        raise StoreError("was changed since `prepare` wrote it", path=path, remedy=remedy)


def check_replaceable_recording(folder: Path) -> None:
    """Raises StoreError where a recording's folder would be replaced but holds files that `prepare` did not make."""
    names = set(os.listdir(folder)) if folder.is_dir() else set[str]()
    try:
        made = {RECORDING_FILE, *read_recording(folder)["files"]} if names else names
    except StoreError:
        made = {name for name in names if name == AUDIO_FILE or name.endswith((".parquet", ".tar"))} | {RECORDING_FILE}
    if names and (RECORDING_FILE not in names or names - made):
        found = shorten(sorted(names - made)) or f"no {RECORDING_FILE}"
        remedy = "Move it elsewhere, or delete it to have the recording prepared again."
        raise StoreError(
            "would be replaced, but holds files that prepare did not make", path=folder, found=found, remedy=remedy
        )


def write_frame_table(path: Path, frames: Frames) -> None:
    """Writes a video's frames as Parquet, with the frame numbers."""
    columns = {"frame": np.arange(1, len(frames) + 1, dtype=np.int32), **asdict(frames)}
    with open(path, "wb") as file:  # pyarrow opens UTF-8 paths only
        pq.write_table(pa.table(columns), file, compression="zstd")


def pack(path: Path, files: Iterable[tuple[str, bytes]]) -> list[tuple[int, int]]:
    """Packs files into a tar without changing them; returns each file's offset and size in bytes.

    Names are ASCII, at most 100 characters. The tar is what `tarfile` would write, at many times its speed.
    """
    packed = []
    end = 0
    with open(path, "wb", buffering=2**20) as tar:
        for name, data in files:
            packed.append((end + tarfile.BLOCKSIZE, len(data)))
            padding = -len(data) % tarfile.BLOCKSIZE
            end += tar.write(tar_header(name, len(data)) + data + bytes(padding))
        end += tar.write(bytes(2 * tarfile.BLOCKSIZE))
        tar.write(bytes(-end % tarfile.RECORDSIZE))
    return packed


_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
"""The header of an empty file without a name."""
_OWNER, _TIME, _KIND = _BLANK[100:124], _BLANK[136:148], _BLANK[156:]
"""The constant parts of every header, around its name, size and checksum (POSIX.1-1988, ustar)."""
_BLANK_SUM = int(_BLANK[148:154], 8) - sum(_BLANK[124:136])


def tar_header(name: str, size: int) -> bytes:
    """The tar header of a file."""
    label, length = name.encode("ascii"), b"%011o\0" % size
    assert len(label) <= 100
    checksum = b"%06o\0 " % (_BLANK_SUM + sum(label) + sum(length))
    return b"".join((label.ljust(100, b"\0"), _OWNER, length, _TIME, checksum, _KIND))


def stored_videos(folder: Path) -> list[StoredVideo]:
    """The videos (people) of one recording's folder."""
    return _videos(folder, read_recording(folder))


def _videos(folder: Path, entry: Mapping[str, Any]) -> list[StoredVideo]:
    audio, files = entry["sound"], entry["files"]
    mean, std = (None if audio is None else np.array(audio[key], np.float32) for key in ("mean", "std"))
    return [StoredVideo(name, video["split"], folder, mean, std, files) for name, video in entry["videos"].items()]
