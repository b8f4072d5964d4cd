"""Reads a whole store and compares it with its own manifest and entries."""

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.entropy import Entropies
from abaw_expr.data.media.logmel import HOP, MEL_BANDS
from abaw_expr.data.media.voice import VOICE_SAMPLES
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.crops import jpeg_shape
from abaw_expr.data.store.embeddings import EMBEDDINGS, read_rows
from abaw_expr.data.store.embeddings import read_manifest as read_embeddings
from abaw_expr.data.store.store import (
    AUDIO_FILE,
    MANIFEST,
    RECORDING_FILE,
    RECORDINGS,
    VOICE_FILE,
    WAVEFORM_FILE,
    StoredVideo,
    agrees,
    entropy_file,
    read_manifest,
    read_recording,
)
from abaw_expr.data.store.tables import label_file, read_labels
from abaw_expr.data.store.tar import tar_header
from abaw_expr.data.workers import OnProgress, parallel_map
from abaw_expr.errors import StoreError, is_machine_error, shorten
from abaw_expr.files import file_digest
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import TASKS


def verify(root: Path, decode: bool, workers: int, on_progress: OnProgress) -> tuple[Problem, ...]:
    """The damage of a store, one problem a recording.

    It compares the digests of all files, the position of every crop in its tar and the length of the audio; with
    `decode` it decodes every crop as well. `on_progress(megabytes done, megabytes in all)` is called after each
    recording. Raises StoreError for a store that is incomplete or of another format, and where a worker process dies.
    """
    root = Path(root)
    manifest = read_manifest(root)
    recordings = manifest["recordings"]
    sizes = {name: _megabytes(root / RECORDINGS / name) for name in recordings}
    largest_first = sorted(recordings.items(), key=lambda item: -sizes[item[0]])
    problems: list[Problem] = []
    done = 0
    for (name, _), damage in parallel_map(partial(_check, root / RECORDINGS, decode), largest_first, workers):
        if damage:
            remedy = "Delete this folder and run prepare again: it makes what is missing."
            problems.append(Problem("damaged recording", f"{RECORDINGS}/{name}", shorten(damage), remedy))
        done += sizes[name]
        on_progress(done, sum(sizes.values()))
    problems += _damaged_embeddings(root)
    if not problems and not _manifest_agrees(root, manifest):
        remedy = "Run prepare again: it makes a new manifest."
        problems.append(Problem("damaged manifest", MANIFEST, "it does not match the recordings", remedy))
    return tuple(sorted(problems, key=lambda problem: problem.video))


def _damaged_embeddings(root: Path) -> Iterator[Problem]:
    """The damage of embeddings, a problem each; those that were never finished have no manifest, and none."""
    for path in sorted((root / EMBEDDINGS).glob(f"*/{MANIFEST}")):
        name, damage = path.parent.name, list[str]()
        try:
            for video in read_embeddings(root, name).files:
                recording, _, one = video.partition("/")
                read_rows(root / RECORDINGS / recording, one, name)
        except StoreError as error:
            damage.append(f"{Path(error.path or path).name} {error.problem}")
        if damage:
            remedy = "Delete this folder and make the embeddings again."
            yield Problem("damaged embeddings", f"{EMBEDDINGS}/{name}", shorten(damage), remedy)


def _check(folders: Path, decode: bool, recording: tuple[str, str]) -> list[str]:
    """The damage of one recording, given its name and the digest of its recording.json."""
    name, expected = recording
    folder = folders / name
    try:
        damage = list(_damaged_files(folder, expected))
        return damage or list(_damaged_content(folder, decode))
    except StoreError as error:
        return [f"{Path(error.path or folder).name} {error.problem}"]
    except OSError as error:
        if is_machine_error(error):
            raise
        return [str(error)]


def _damaged_files(folder: Path, expected: str) -> Iterator[str]:
    entry = read_recording(folder)
    if file_digest(folder / RECORDING_FILE) != expected:
        yield f"{RECORDING_FILE} was changed"
        return  # its entries for the other files cannot be trusted
    there = set(os.listdir(folder)) - {RECORDING_FILE}
    yield from (f"{name} was not made by prepare" for name in sorted(there - entry["files"].keys()))
    for name, known in entry["files"].items():
        if name not in there:
            yield f"{name} is missing"
        elif file_digest(folder / name) != known:
            size = (folder / name).stat().st_size
            yield f"{name} was changed (it has {size:,} bytes, and had {entry['bytes'][name]:,})"


def _damaged_content(folder: Path, decode: bool) -> Iterator[str]:
    """Contradictions between the contents of undamaged files."""
    entry = read_recording(folder)
    if entry["sound"] is not None:
        yield from _damaged_audio(folder, entry["sound"]["seconds"])
    for name, counts in entry["videos"].items():
        video = StoredVideo(name, "", folder, None, None)  # without labels
        rows = np.flatnonzero(video.frames.has_crop).tolist()
        if (len(video.frames), len(rows)) != (counts["frames"], counts["crops"]):
            detail = f"{len(video.frames)} frames, {len(rows)} crops"
            yield f"{name}.parquet has {detail}, where {counts['frames']} and {counts['crops']} are expected"
        yield from _damaged_entropy(folder / entropy_file(name), video.frames.time)
        yield from _damaged_labels(folder, name, counts)
        yield from (f"{name}.tar: {what}" for row in rows if (what := _damaged_crop(video, row, decode)))


def _damaged_labels(folder: Path, video: str, counts: dict[str, Any]) -> Iterator[str]:
    for task in TASKS.values():
        path = folder / label_file(video, task.name)
        if path.exists():
            rows = len(read_labels(path, task))
            expected = max(counts["frames"], counts["lines"].get(task.name, 0))
            if rows != expected:
                yield f"{path.name} has {rows} frames, where {expected} are expected"


def _damaged_audio(folder: Path, seconds: float) -> Iterator[str]:
    samples = round(seconds * SAMPLE_RATE)
    yield from _other_array(folder / AUDIO_FILE, (1 + samples // HOP, MEL_BANDS), np.float16)
    for name, length, dtype in (
        (VOICE_FILE, -(-samples // VOICE_SAMPLES), np.float16),
        (WAVEFORM_FILE, samples, np.int16),
    ):
        if (folder / name).exists():  # stores of before have none
            yield from _other_array(folder / name, (length,), dtype)


def _damaged_entropy(path: Path, time: np.ndarray) -> Iterator[str]:
    if path.exists():  # stores of before have none
        yield from _other_array(path, Entropies(time).bits.shape, np.float32)


def _other_array(path: Path, shape: tuple[int, ...], dtype: type) -> Iterator[str]:
    array = np.load(path, mmap_mode="r")
    if array.shape != shape or array.dtype != dtype:
        yield f"{path.name} has {array.shape} {array.dtype}, where {shape} {np.dtype(dtype)} is expected"


def _damaged_crop(video: StoredVideo, row: int, decode: bool) -> str | None:
    name, size = crop_name(row + 1), int(video.frames.size[row])
    if video.before_crop(row) != tar_header(name, size):
        return f"{name} is not where the table says it is"
    data = video.jpeg(row)
    if data is None or jpeg_shape(data) is None:
        return f"{name} is no image"
    if decode:
        from abaw_expr.data.store.stored_crops import decode_crop

        if decode_crop(video, row) is None:
            return f"{name} cannot be decoded"
    return None


def _manifest_agrees(root: Path, manifest: dict[str, Any]) -> bool:
    return agrees(manifest, {name: read_recording(root / RECORDINGS / name) for name in manifest["recordings"]})


def _megabytes(folder: Path) -> int:
    try:
        with os.scandir(folder) as entries:
            return 1 + sum(entry.stat().st_size for entry in entries) // 10**6
    except OSError:  # checking the folder reports it
        return 1
