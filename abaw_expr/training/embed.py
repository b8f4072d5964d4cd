"""Makes embeddings: a row of every frame of a store by one encoder, once.

Recordings are done one by one, by several processes; each is written whole or not at all, so that a run that was
stopped goes on where it was.

Shapes: T frames of a video, k of them that the encoder sees, D features.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from lightning_fabric import Fabric

from abaw_expr.data.batches.audio_chunks import cut_for_prediction
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.batches.loading import load, split_segments
from abaw_expr.data.batches.windows import Windows, modalities
from abaw_expr.data.store.embeddings import (
    MANIFEST,
    Manifest,
    embeddings_folder,
    is_made,
    read_manifest,
    write_entry,
    write_manifest,
)
from abaw_expr.data.store.store import RECORDINGS, StoredVideo, read_recording, stored_videos
from abaw_expr.data.store.store import read_manifest as read_store_manifest
from abaw_expr.data.store.tables import label_file
from abaw_expr.data.workers import OnProgress, parallel_map
from abaw_expr.errors import SettingsError, StoreError
from abaw_expr.files import atomic, clean, digest, locked
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.network import fold_batch_norm
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.task import EXPR, TASKS
from abaw_expr.training.embedding_source import Source

_IMAGES = 16
"""Images in a pass of an encoder: more need more memory, and are slower on a CPU."""
_DATA = DataSettings(sequence=2)
"""Neighbouring frames share a pass over their sound, with context around it."""


@dataclass(frozen=True)
class Job:
    """What every process needs to know."""

    root: Path
    name: str
    source: Source
    identity: str
    """The digest of the encoder and its weights."""
    stride: float
    accelerator: Literal["auto", "cpu", "cuda"]
    made: str
    """The digest of what makes the rows."""


def embed(
    root: Path,
    source: Source,
    name: str,
    stride: float = 0.0,
    workers: int = 1,
    accelerator: Literal["auto", "cpu", "cuda"] = "auto",
    on_progress: OnProgress = lambda done, total: None,
) -> Manifest:
    """Makes the embeddings `name` in the store at `root`, or what is missing of them, and returns their manifest.

    The encoder sees a frame every `stride` seconds (0: every frame); the frames between have the row of the nearest.
    `on_progress(frames done, frames in all)`. Raises StoreError where the embeddings of that name were made otherwise
    and where another process makes them; SettingsError and RunError where the encoder cannot be built.
    """
    store, folder = read_store_manifest(root), embeddings_folder(root, name)
    own = source.made()
    encoder = _built(source, digest(own))
    if encoder.modality.startswith("embedding"):
        raise SettingsError("embeddings are made by an encoder", found=source.encoder)
    made = own | {"front_end": {**encoder.front_end}, "stride": stride}
    if (folder / MANIFEST).exists() and read_manifest(root, name).made != made:
        remedy = "Give these another --name, or delete that folder."
        found, expected = str(read_manifest(root, name).made), str(made)
        raise StoreError("were made otherwise", path=folder, found=found, expected=expected, remedy=remedy)
    folder.mkdir(parents=True, exist_ok=True)
    with locked(folder, StoreError):
        clean(folder)
        job = Job(root, name, source, digest(own), stride, accelerator, digest(made))
        sizes = {recording: _frames(root / RECORDINGS / recording) for recording in store["recordings"]}
        done, largest_first = 0, sorted(sizes, key=lambda recording: -sizes[recording])
        for recording, _ in parallel_map(partial(_embed_recording, job), largest_first, workers):
            done += sizes[recording]
            on_progress(done, sum(sizes.values()))
        return write_manifest(folder, made, encoder.width, [*sizes])


def _frames(folder: Path) -> int:
    return 1 + sum(video["frames"] for video in read_recording(folder)["videos"].values())


def _embed_recording(job: Job, recording: str) -> None:
    """Makes the rows of one recording, unless they are there."""
    stored, folder = job.root / RECORDINGS / recording, embeddings_folder(job.root, job.name) / recording
    entry = read_recording(stored)
    labels = {label_file(video, task) for video in entry["videos"] for task in TASKS}
    source = digest([job.made, {name: known for name, known in entry["files"].items() if name not in labels}])
    if is_made(folder, source):
        return
    with atomic(folder) as temporary:
        temporary.mkdir()
        videos = stored_videos(stored, EXPR)
        for video in videos:
            _write_rows(job, video, temporary / f"{video.name}.npy")
        write_entry(temporary, source, [video.name for video in videos])


@torch.inference_mode()
def _write_rows(job: Job, video: StoredVideo, path: Path) -> None:
    """Writes the rows of a video, float16 [T, D]; memory holds one batch of them."""
    fabric, encoder = _ready(job.source, job.identity, job.accelerator)
    index = FrameIndex([video], EXPR)
    has = index.has[encoder.modality]
    out = np.lib.format.open_memmap(path, "w+", np.float16, (len(index), encoder.width))
    out[:] = np.nan
    indices = index.at_stride(has, job.stride)
    for frames, rows in _rows(fabric, encoder, index, indices):
        out[frames] = rows
    if job.stride:
        _repeat(out, index.time, np.flatnonzero(has), indices)
    out.flush()


def _rows(
    fabric: Fabric, encoder: Encoder, index: FrameIndex, indices: np.ndarray
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The rows of frames, [k] and float32 [k, D], batch by batch."""
    cuts = {} if encoder.window is None else {encoder.modality: cut_for_prediction(_DATA, encoder.window)}
    windows = Windows(index, modalities([encoder.modality], _DATA, cuts))
    for raw in load(windows, split_segments(windows, index, indices), 0):
        part = windows.on(fabric.device, raw).parts[encoder.modality]
        known = raw.index[part.rows.cpu()].numpy()  # without those that are damaged
        size = len(known) if part.windows is not None else _IMAGES
        for start in range(0, len(known), max(size, 1)):
            some = slice(start, start + size)
            x = part.x[some] if part.windows is None else part.x
            yield known[some], encoder.features(x, part.windows).mean(1).float().cpu().numpy()


def _repeat(out: np.ndarray, time: np.ndarray, frames: np.ndarray, seen: np.ndarray) -> None:
    """Gives frames [n] the row of the nearest frame that the encoder saw, of [k]."""
    known = seen[~np.isnan(out[seen, 0])]
    if not len(known):
        return
    after = np.searchsorted(time[known], time[frames]).clip(0, len(known) - 1)
    near = np.stack([known[np.maximum(after - 1, 0)], known[after]])
    nearest = np.abs(time[near] - time[frames]).argmin(0)
    for start in range(0, len(frames), 4096):
        some = slice(start, start + 4096)
        out[frames[some]] = out[near[nearest[some], np.arange(len(frames))[some]]]


@lru_cache(maxsize=1)
def _built(source: Source, identity: str) -> Encoder:
    """The encoder, built once; the file of its weights may change, which its identity tells."""
    return source.build()


@lru_cache(maxsize=1)
def _ready(source: Source, identity: str, accelerator: str) -> tuple[Fabric, Encoder]:
    """The device, and the encoder on it, of this process."""
    fabric = Fabric(accelerator=accelerator, devices=1)
    encoder = _built(source, identity)
    fold_batch_norm(encoder)
    fabric.to_device(encoder)
    return fabric, encoder
