"""The prepared store, which training and prediction read; ordinary tools open its files.

manifest.json                       written last: its presence means complete; the challenges with the digest of each
report.json                         the integrity report
embeddings/<name>/                  rows of every frame that an encoder made once (`embeddings`)
recordings/<recording>/
    recording.json                  content, origin and digests of the other files
    sound.npy                       log-mel float16 [steps, 64], time 0 = first frame (missing: no audio)
    voice.npy                       probability of a voice float16 [v], step j: 32 j to 32 j + 32 ms (missing: no audio)
    waveform.npy                    samples at 16 kHz, mono, int16 [n], sample 0 at the first frame (missing: no audio)
    <video>.tar                     the crops' JPEG files as released, under the organisers' names
    <video>.entropy.npy             entropy of its crops float32 [e], of one in each 0.4 s, NaN where there is none
    <video>.parquet                 a row a frame: frame, time, offset and size of its crop in the tar
    <video>.<task>.parquet          a row a frame: its labels for one challenge, if it is annotated for that one

It holds media once, and the labels and the split of a video by task: a video may train in one challenge, validate in
another and be a test video in a third. Labels may have more rows than the frames' table, never fewer; the later frames
have no crop, and their time is continued at the mean rate. So what one task reads does not depend on the others.

Shapes: T frames of a video.
"""

import io
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from mmap import ACCESS_READ, mmap
from pathlib import Path
from typing import Any
from weakref import finalize

import numpy as np

from abaw_expr.data.labels import Labels, no_labels
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.release.frame_times import seconds_of
from abaw_expr.data.store.arrays import read_array
from abaw_expr.data.store.embeddings import read_rows
from abaw_expr.data.store.schema import ManifestEntry, RecordingEntry
from abaw_expr.data.store.tables import (
    REMAKE,
    label_file,
    read_frame_table,
    read_known,
    read_labels,
)
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import check_name, check_shape, digest, parse_json, read_json
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import EXPR, Task

STORE_FORMAT = 3
"""Version of this layout; a store of another version must be prepared again."""
MANIFEST = "manifest.json"
RECORDINGS = "recordings"
RECORDING_FILE = "recording.json"
AUDIO_FILE = "sound.npy"
VOICE_FILE = "voice.npy"
WAVEFORM_FILE = "waveform.npy"
_ENTROPY = ".entropy.npy"
"""Ending of the file of a video's entropy."""
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
_AGAIN = "Run `prepare` into a new folder, then delete the old one."
_CONTINUE = "Run `prepare` to its end; it continues where it stopped."


@dataclass(frozen=True)
class Frames:
    """A video's frames in columns, with the labels of one task; row i is frame i + 1."""

    time: np.ndarray
    """float64 [T], seconds on the video's own clock."""
    label: Labels
    """int8 [T] of classes, int8 [T, 12] of action units, float32 [T, 2] of valence and arousal; the ignore value where
    not annotated."""
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
    """One video (one person) of a store, for one task; its arrays are read on first use."""

    name: str
    split: str
    """train, val or test, for the task."""
    folder: Path
    audio_mean: np.ndarray | None
    """float32 [64], mean log-mel of the recording per band; None without audio."""
    audio_std: np.ndarray | None
    files: Mapping[str, str] = field(default_factory=dict, repr=False)
    """Digests of the recording's files; tables and audio are compared with them when they are opened. A table of labels
    that is not among them is not read."""
    task: Task = EXPR
    subject: str | None = None
    """The person in it, where the data set names one."""
    generated_from: tuple[str, ...] = ()
    """Of a generated one, the recordings that its generator learned from."""

    @cached_property
    def frames(self) -> Frames:
        """Raises StoreError where a table is damaged."""
        path = self.folder / f"{self.name}.parquet"
        time, offset, size = read_frame_table(path, self.files.get(path.name))
        label = self._read_labels(len(time))
        more = len(label) - len(time)
        if more:
            time = seconds_of(np.arange(1, len(label) + 1), time)
            offset, size = np.pad(offset, (0, more)), np.pad(size, (0, more))
        return Frames(time, label, offset, size)

    def _read_labels(self, count: int) -> Labels:
        """The labels of `count` frames or more."""
        path = self.folder / label_file(self.name, self.task.name)
        if path.name not in self.files:
            return no_labels(count, self.task)
        label = read_labels(path, self.task, self.files[path.name])
        if len(label) < count:
            raise StoreError("lacks frames", path=path, found=len(label), expected=f"{count} or more", remedy=REMAKE)
        return label

    @cached_property
    def audio(self) -> np.ndarray | None:
        """Log-mel float16 [steps, 64], mapped from disk; None without audio. Raises StoreError where it is damaged."""
        if self.audio_mean is None:
            return None
        return read_array(self.folder / AUDIO_FILE, self.files.get(AUDIO_FILE), np.float16, (MEL_BANDS,))

    @cached_property
    def voice(self) -> np.ndarray | None:
        """The probability of a voice by steps of 32 ms, float16 [v], mapped from disk; None without audio.

        Raises StoreError where it is damaged, or the store was prepared before it had voice activity.
        """
        if self.audio_mean is None:
            return None
        return self._added(VOICE_FILE, np.float16)

    @cached_property
    def entropy(self) -> np.ndarray | None:
        """The entropy of its crops by steps of 0.4 s, float32 [e], NaN where a step has none; None without crops.

        Raises StoreError as `voice` does.
        """
        if not self.frames.has_crop.any():
            return None
        return self._added(entropy_file(self.name), np.float32)

    @cached_property
    def waveform(self) -> np.ndarray | None:
        """Its samples at 16 kHz, int16 [n], mapped from disk; None without audio. Raises StoreError as `voice` does."""
        return None if self.audio_mean is None else self._added(WAVEFORM_FILE, np.int16)

    def embedding(self, name: str) -> np.ndarray:
        """Its embeddings of that name, float16 [t, D], mapped from disk; rows of NaN, and later frames, have none.

        Raises StoreError where there are none, or they are damaged.
        """
        if name not in self._embeddings:
            self._embeddings[name] = read_rows(self.folder, self.name, name)
        return self._embeddings[name]

    @cached_property
    def _embeddings(self) -> dict[str, np.ndarray]:
        return {}

    def _added(self, name: str, dtype: type) -> np.ndarray:
        """An array that earlier stores do not have."""
        path = self.folder / name
        if name not in self.files and not path.exists():
            remedy = "Run `prepare` again: it adds it, and keeps the digests that runs know."
            raise StoreError("was not made: the store is of an earlier version", path=path, remedy=remedy)
        return read_array(path, self.files.get(name), dtype)

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
    """A complete store, for one task: the videos that this task names."""

    root: Path
    digest: str
    """Identity of everything that training for this task reads, including the extras and their fractions."""
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


def open_store(root: Path, task: Task) -> Store:
    """Opens a store for a task: the videos that the task names, with their split in it.

    Raises StoreError where the store is incomplete, of another format or has no annotations of this task, or where
    recordings changed after the manifest was written.
    """
    manifest = read_manifest(root, task)
    folders = {name: Path(root) / RECORDINGS / name for name in manifest["recordings"]}
    entries = {name: read_recording(folder, manifest["recordings"][name]) for name, folder in folders.items()}
    if not agrees(manifest, entries):
        remedy = "Run `prepare` again: it makes a new manifest."
        raise StoreError("does not match the recordings", path=Path(root) / MANIFEST, remedy=remedy)
    videos = (video for name, entry in entries.items() for video in _videos(folders[name], entry, task))
    named = tuple(video for video in videos if task.name in manifest["videos"][video.name]["splits"])
    return Store(Path(root), manifest["tasks"][task.name]["digest"], named)


def agrees(manifest: Mapping[str, Any], entries: Mapping[str, Mapping[str, Any]]) -> bool:
    """Whether a manifest matches the recordings' own entries."""
    columns = {name: entry["columns"] for name, entry in manifest["tasks"].items()}
    return all(manifest.get(key) == value for key, value in summary_of(entries, columns).items())


def summary_of(entries: Mapping[str, Mapping[str, Any]], columns: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The manifest's account of the recordings' entries, given the columns of each task by its name."""
    videos = {name: video for entry in entries.values() for name, video in entry["videos"].items()}
    splits = {name: video["splits"] for name, video in videos.items()}
    return {
        "tasks": {
            name: {"columns": list(names), "digest": _task_digest(entries, name)} for name, names in columns.items()
        },
        "digest": digest([{name: entry["files"] for name, entry in entries.items()}, splits]),
        "videos": videos,
    }


def learned_from(videos: Iterable[StoredVideo]) -> set[str]:
    """The recordings that training on these videos learns from, those behind generated ones among them."""
    return {name for video in videos for name in (recording_of(video.name), *video.generated_from)}


def _task_digest(entries: Mapping[str, Mapping[str, Any]], task: str) -> str:
    """A hash of the media, the labels and the splits of the videos that a task names, and of nothing else."""
    parts = {}
    for name, entry in entries.items():
        splits = {video: v["splits"][task] for video, v in entry["videos"].items() if task in v["splits"]}
        tables = (f"{video}.{ending}" for video in splits for ending in ("tar", "parquet", f"{task}.parquet"))
        used = {AUDIO_FILE, *tables}
        if splits:
            parts[name] = [splits, {file: known for file, known in entry["files"].items() if file in used}]
    return digest(parts)


def read_manifest(root: Path, task: Task | None = None) -> dict[str, Any]:
    """The manifest of a complete store, which has annotations of `task`; raises StoreError as `open_store` does."""
    if not (Path(root) / MANIFEST).exists() and not (Path(root) / RECORDINGS).is_dir():
        raise StoreError("is not a store", path=root, expected="a folder that `prepare` made", remedy="Check the path.")
    manifest: dict[str, Any] = read_json(Path(root) / MANIFEST, StoreError, _CONTINUE, dict)
    check_format(Path(root) / MANIFEST, manifest)
    check_shape(manifest, ManifestEntry, StoreError, Path(root) / MANIFEST, "Run `prepare` again: it makes a new one.")
    for name in manifest["recordings"]:
        check_name(name, StoreError, Path(root) / MANIFEST)
    if task is not None:
        _check_task(Path(root), manifest["tasks"], task)
    return manifest


def check_format(path: Path, content: Mapping[str, Any]) -> None:
    """Raises StoreError where a JSON file of a store says that the store has another format."""
    found = content.get("format")
    if found != STORE_FORMAT:
        raise StoreError("the store has another format", path=path, found=found, expected=STORE_FORMAT, remedy=_AGAIN)


def _check_task(root: Path, tasks: Mapping[str, Mapping[str, Any]], task: Task) -> None:
    name = task.name.upper()
    if task.name not in tasks:
        folders = " or ".join(task.annotation_folders) or "no folder"
        remedy = f"Add this challenge's annotations ({folders}) to the release and run `prepare` again: it adds them."
        found = f"annotations of {' and '.join(known.upper() for known in tasks) or 'nothing'}"
        raise StoreError(f"the store has no annotations of {name}", path=root, found=found, remedy=remedy)
    found, expected = tasks[task.name]["columns"], list(task.columns)
    if found != expected:
        problem = f"the store has other columns of {name}"
        raise StoreError(problem, path=root / MANIFEST, found=found, expected=expected, remedy=_AGAIN)


def read_recording(folder: Path, known: str | None = None) -> dict[str, Any]:
    """The `recording.json` of a folder (`RecordingEntry`).

    Raises StoreError where it is damaged, or its digest is not the `known` one.
    """
    path = folder / RECORDING_FILE
    data = read_known(path, known, _CONTINUE)
    entry: dict[str, Any] = parse_json(data, path, StoreError, REMAKE, RecordingEntry)
    for name in (*entry["videos"], *entry["files"], *entry["bytes"]):
        check_name(name, StoreError, path)
    return entry


def entropy_file(video: str) -> str:
    """The name of the file of the entropy of a video's crops."""
    return f"{video}{_ENTROPY}"


def check_replaceable_recording(folder: Path) -> None:
    """Raises StoreError where a recording's folder would be replaced but holds files that `prepare` did not make."""
    names = set(os.listdir(folder)) if folder.is_dir() else set[str]()
    try:
        made = {RECORDING_FILE, *read_recording(folder)["files"]} if names else names
    except StoreError:
        made = {
            name
            for name in names
            if name in (AUDIO_FILE, VOICE_FILE, WAVEFORM_FILE) or name.endswith((".parquet", ".tar", _ENTROPY))
        } | {RECORDING_FILE}
    if names and (RECORDING_FILE not in names or names - made):
        found = shorten(sorted(names - made)) or f"no {RECORDING_FILE}"
        remedy = "Move it elsewhere, or delete it to have the recording prepared again."
        raise StoreError(
            "would be replaced, but holds files that prepare did not make", path=folder, found=found, remedy=remedy
        )


def stored_videos(folder: Path, task: Task) -> list[StoredVideo]:
    """The videos (people) of one recording's folder; one that the task does not name is a test video without labels."""
    return _videos(folder, read_recording(folder), task)


def _videos(folder: Path, entry: Mapping[str, Any], task: Task) -> list[StoredVideo]:
    audio, files = entry["sound"], entry["files"]
    mean, std = (None if audio is None else np.array(audio[key], np.float32) for key in ("mean", "std"))
    splits = {name: video["splits"].get(task.name, "test") for name, video in entry["videos"].items()}
    origin = entry.get("subject"), tuple(entry.get("generated_from") or ())
    return [StoredVideo(name, split, folder, mean, std, files, task, *origin) for name, split in splits.items()]
