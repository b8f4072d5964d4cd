"""The prepared store: what training and prediction read, in files that ordinary tools open.

manifest.json                       written last: its presence means complete; digests of the recording.json files
report.json                         the integrity report
recordings/<recording>/
    recording.json                  what is in it, what made it, digests of its files
    sound.npy                       log-mel float16 [steps, 64], time 0 = first picture (absent: no sound)
    <video>.parquet                 a row a frame: frame, time, label, offset and size of its crop in the tar
    <video>.tar                     the crops' JPEG files as they came, under the organisers' names
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
from abaw_expr.data.store.entries import ManifestEntry, RecordingEntry
from abaw_expr.errors import StoreError, shorten, unreadable
from abaw_expr.files import bytes_digest, check_name, check_shape, digest, file_digest, parse_json, read_json
from abaw_expr.tasks.task import Task

FORMAT = 2
"""Number of this layout; a store with another number must be prepared again."""
MANIFEST = "manifest.json"
RECORDINGS = "recordings"
RECORDING_FILE = "recording.json"
SOUND_FILE = "sound.npy"
MAPPED_BYTES = 2**30
"""Of crops that a process maps into memory. Pages of a map once touched count as the process's own, so that the whole
of a large store would; crops beyond these bytes are read, which takes twice as long."""
_WITHOUT = {
    "train": "Is the release complete?",
    "val": "Is the release complete? Of another data set, prepare it anew with --val-share above 0: a run is validated "
    "on its first store. Only a store that is mixed into another, as STORE=SHARE, needs none.",
    "test": "Add the organisers' list of test videos to the release and run `prepare` again.",
}
"""What to do where a split is empty."""
_AGAIN = "Run `prepare` into a new folder."
_MEND = "Delete its folder and run `prepare` again: it makes what is missing."
_GO_ON = "Run `prepare` to its end; it goes on where it stopped."
_COLUMNS = pa.schema([("time", pa.float64()), ("label", pa.int8()), ("offset", pa.int64()), ("size", pa.int32())])
"""Of a table of frames, as far as they are read again."""


@dataclass(frozen=True)
class Frames:
    """A video's frames in columns; row i is frame i + 1."""

    time: np.ndarray
    """float64, seconds on the video's own clock."""
    label: np.ndarray
    """int8, -1 where not annotated."""
    offset: np.ndarray
    """int64, where the frame's crop begins in the tar."""
    size: np.ndarray
    """int32, bytes of the crop; 0 where the frame has none."""

    def __len__(self) -> int:
        return len(self.time)

    @property
    def has_crop(self) -> np.ndarray:
        return self.size > 0


@dataclass(frozen=True)
class StoredVideo:
    """One video (one person) of a store; its arrays are read when first asked for."""

    name: str
    split: str
    folder: Path
    sound_mean: np.ndarray | None
    """float32 [64], mean log-mel of the recording a band; None without sound."""
    sound_std: np.ndarray | None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Digests of the recording's files, which table and sound are held against when they are opened."""

    @cached_property
    def frames(self) -> Frames:
        """Raises StoreError where the table is damaged."""
        return read_frames(self.folder / f"{self.name}.parquet", self.files.get(f"{self.name}.parquet"))

    @cached_property
    def sound(self) -> np.ndarray | None:
        """Log-mel float16 [steps, 64], mapped from disk; None without sound. Raises StoreError where it is damaged."""
        return None if self.sound_mean is None else read_mel(self.folder / SOUND_FILE, self.files.get(SOUND_FILE))

    @cached_property
    def _tar(self) -> "_Mapped | _Opened":
        return _open_tar(self.folder / f"{self.name}.tar")

    @cached_property
    def _places(self) -> tuple[memoryview, memoryview]:
        """Offsets and sizes; views give plain numbers in a third of the time that arrays take."""
        return self.frames.offset.data, self.frames.size.data

    def jpeg(self, row: int) -> bytearray | None:
        """Bytes of a frame's crop; None where it has none."""
        offset, size = self._places
        return self._tar.read(offset[row], size[row]) if size[row] else None

    def before_crop(self, row: int) -> bytearray:
        """The header in the tar before a frame's crop."""
        return self._tar.read(self._places[0][row] - tarfile.BLOCKSIZE, tarfile.BLOCKSIZE)


class _Mapped:
    """A tar mapped into memory: once its pages are touched, a crop is a copy and no call of the system."""

    bytes_mapped = 0
    """By all of them in this process."""

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
    """An open tar."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file  # closed when this goes
        self._descriptor = file.fileno()

    def read(self, start: int, size: int) -> bytearray:
        data = bytearray(size)
        os.preadv(self._descriptor, (data,), start)
        return data


def _open_tar(path: Path) -> _Mapped | _Opened:
    """Mapped where it fits into what is left of `MAPPED_BYTES`."""
    file = io.FileIO(path)
    length = os.fstat(file.fileno()).st_size
    fits = 0 < length <= MAPPED_BYTES - _Mapped.bytes_mapped
    return _Mapped(file, length) if fits else _Opened(file)


@dataclass(frozen=True)
class Store:
    """A complete store of one task."""

    root: Path
    digest: str
    """Identity of all that training reads, the extras and their shares too."""
    videos: tuple[StoredVideo, ...]
    extras: tuple["Extra", ...] = ()
    """Stores that training draws from too (see `mixture`); validation and prediction do not."""

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
    share: float
    """Share of an epoch's samples that come from it."""


def open_store(root: Path, task: Task) -> Store:
    """Opens a store; raises StoreError where it is incomplete, of another version or of another task, where a recording
    was made anew since, or changed, and the manifest does not fit it."""
    manifest = read_manifest(root, task)
    folders = {name: Path(root) / RECORDINGS / name for name in manifest["recordings"]}
    entries = {name: read_recording(folder, manifest["recordings"][name]) for name, folder in folders.items()}
    if not agrees(manifest, entries):
        remedy = "Run `prepare` again: it makes a new manifest."
        raise StoreError("does not agree with the recordings", path=Path(root) / MANIFEST, remedy=remedy)
    videos = (video for name, entry in entries.items() for video in _videos(folders[name], entry))
    return Store(Path(root), manifest["digest"], tuple(videos))


def agrees(manifest: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether what a manifest says of all recordings is what they say of themselves."""
    videos = {name: video for entry in entries.values() for name, video in entry["videos"].items()}
    whole = digest({name: entry["files"] for name, entry in entries.items()})
    return (manifest["digest"], manifest["videos"]) == (whole, videos)


def read_manifest(root: Path, task: Task) -> dict[str, Any]:
    """What a complete store of this task says of itself; raises StoreError as `open_store` does."""
    if not (Path(root) / MANIFEST).exists() and not (Path(root) / RECORDINGS).is_dir():
        raise StoreError("is not a store", path=root, expected="a folder that `prepare` made", remedy="Check the path.")
    manifest: dict[str, Any] = read_json(Path(root) / MANIFEST, StoreError, _GO_ON, dict)
    for key, expected in (("format", FORMAT), ("task", task.name), ("class_names", list(task.columns))):
        if manifest.get(key) != expected:
            raise StoreError(
                f"the store has another {key.replace('_', ' ')}",
                path=Path(root) / MANIFEST,
                found=manifest.get(key),
                expected=expected,
                remedy=_AGAIN,
            )
    check_shape(manifest, ManifestEntry, StoreError, Path(root) / MANIFEST, _MEND)
    for name in manifest["recordings"]:
        check_name(name, StoreError, Path(root) / MANIFEST)
    return manifest


def read_recording(folder: Path, known: str | None = None) -> dict[str, Any]:
    """What `recording.json` of a folder says (`RecordingEntry`). Raises StoreError where it is damaged, or has another
    digest than the `known` one."""
    path = folder / RECORDING_FILE
    data = _read(path, known, _GO_ON)
    entry: dict[str, Any] = parse_json(data, path, StoreError, _MEND, RecordingEntry)
    for name in (*entry["videos"], *entry["files"], *entry["bytes"]):
        check_name(name, StoreError, path)
    return entry


def read_frames(path: Path, known: str | None = None) -> Frames:
    """A video's frames as `write_frames` wrote them. Raises StoreError where they are damaged, or the file has another
    digest than the `known` one."""
    data = _read(path, known)
    try:
        table = pq.read_table(pa.BufferReader(data)).select(_COLUMNS.names)
    except Exception as error:  # of bytes that are no table, Arrow raises whatever it trips over
        raise StoreError("is no table of frames", path=path, remedy=_MEND) from error
    if table.schema.remove_metadata() != _COLUMNS or any(column.null_count for column in table.columns):
        raise StoreError("has other columns", path=path, found=table.schema.names, remedy=_MEND)
    return Frames(*(column.to_numpy() for column in table.columns))


def read_mel(path: Path, known: str | None = None) -> np.ndarray:
    """Log-mel float16 [steps, 64], mapped from disk; raises StoreError as `read_frames` does."""
    if known is not None:
        _check_digest(path, known, file_digest(path))
    try:
        mel: np.ndarray = np.load(path, mmap_mode="r")
    except OSError as error:
        raise unreadable(StoreError, path, error, _MEND) from error
    except Exception as error:  # of bytes that are no array, NumPy raises whatever it trips over
        raise StoreError("is no array of sound", path=path, remedy=_MEND) from error
    if mel.ndim != 2 or mel.shape[1] != MEL_BANDS or mel.dtype != np.float16:
        found, expected = f"{mel.shape} {mel.dtype}", f"(steps, {MEL_BANDS}) float16"
        raise StoreError("holds another array", path=path, found=found, expected=expected, remedy=_MEND)
    return mel


def _read(path: Path, known: str | None, remedy: str = _MEND) -> bytes:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise unreadable(StoreError, path, error, remedy) from error
    if known is not None:
        _check_digest(path, known, bytes_digest(data), remedy)
    return data


def _check_digest(path: Path, known: str, found: str, remedy: str = _MEND) -> None:
    if known != found:
        raise StoreError("is not the file that `prepare` ended with", path=path, remedy=remedy)


def check_replaceable(folder: Path) -> None:
    """Raises StoreError where a recording's folder is to be replaced that holds anything but what `prepare` makes."""
    names = set(os.listdir(folder)) if folder.is_dir() else set[str]()
    try:
        made = {RECORDING_FILE, *read_recording(folder)["files"]} if names else names
    except StoreError:
        made = {name for name in names if name == SOUND_FILE or name.endswith((".parquet", ".tar"))} | {RECORDING_FILE}
    if names and (RECORDING_FILE not in names or names - made):
        found = shorten(sorted(names - made)) or f"no {RECORDING_FILE}"
        remedy = "Move it elsewhere, or delete it to have the recording made anew."
        raise StoreError("would be replaced, but is not as prepare made it", path=folder, found=found, remedy=remedy)


def write_frames(path: Path, frames: Frames) -> None:
    """Writes a video's frames as Parquet, with the frame number beside them."""
    columns = {"frame": np.arange(1, len(frames) + 1, dtype=np.int32), **asdict(frames)}
    with open(path, "wb") as file:  # pyarrow takes UTF-8 paths only
        pq.write_table(pa.table(columns), file, compression="zstd")


def pack(path: Path, files: Iterable[tuple[str, bytes]]) -> list[tuple[int, int]]:
    """Packs files into a tar without changing them; returns where each one's bytes begin and how many they are.

    Names are ASCII, at most 100 characters. The tar is what `tarfile` would write, at many times its speed.
    """
    places = []
    end = 0
    with open(path, "wb", buffering=2**20) as tar:
        for name, data in files:
            places.append((end + tarfile.BLOCKSIZE, len(data)))
            padding = -len(data) % tarfile.BLOCKSIZE
            end += tar.write(tar_header(name, len(data)) + data + bytes(padding))
        end += tar.write(bytes(2 * tarfile.BLOCKSIZE))
        tar.write(bytes(-end % tarfile.RECORDSIZE))
    return places


_BLANK = tarfile.TarInfo().tobuf(tarfile.USTAR_FORMAT)
"""The header of a nameless, empty file."""
_OWNER, _TIME, _KIND = _BLANK[100:124], _BLANK[136:148], _BLANK[156:]
"""What is the same in every header, around its name, size and sum of bytes (POSIX.1-1988, ustar)."""
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
    sound, files = entry["sound"], entry["files"]
    mean, std = (None if sound is None else np.array(sound[key], np.float32) for key in ("mean", "std"))
    return [StoredVideo(name, video["split"], folder, mean, std, files) for name, video in entry["videos"].items()]
