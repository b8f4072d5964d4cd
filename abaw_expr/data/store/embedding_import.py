"""Imports a team's own embeddings into a store.

Shapes: T frames of a video, D features.
"""

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw_expr.data.store.embedding_files import VideoRows, video_readers
from abaw_expr.data.store.embeddings import MANIFEST, Manifest, embeddings_folder, write_entry, write_manifest
from abaw_expr.data.store.store import RECORDINGS, read_manifest, stored_videos
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import atomic, clean, locked
from abaw_expr.tasks.task import EXPR


@dataclass(frozen=True)
class ImportedRows:
    """What an import made."""

    manifest: Manifest
    frames: int
    """Frames with a row."""
    without: int
    """Frames without."""
    missing: tuple[str, ...]
    """Videos of the store that the source has not."""


def import_embeddings(
    root: Path, source: Path, name: str, incomplete: bool, on_progress: OnProgress = lambda done, total: None
) -> ImportedRows:
    """Makes the embeddings `name` of a store from a team's files (`embedding_files`).

    `incomplete`: videos may be missing, and have no rows then. `on_progress(videos done, videos in all)`. Raises
    StoreError where the store has embeddings of that name, a file cannot be used (it names file and row), videos are
    missing or unknown, or files differ in their number of features.
    """
    store, folder = read_manifest(root), embeddings_folder(root, name)
    if (folder / MANIFEST).exists():
        remedy = "Give these another --name, or delete that folder."
        raise StoreError(f"has embeddings {name} already", path=folder, remedy=remedy)
    recordings = {one: stored_videos(root / RECORDINGS / one, EXPR) for one in store["recordings"]}
    videos = {video.name: video for own in recordings.values() for video in own}
    readers = video_readers(source)
    missing = _compare(source, readers.keys(), videos.keys(), incomplete)
    folder.mkdir(parents=True, exist_ok=True)
    first: VideoRows | None = None
    known = done = 0
    with locked(folder, StoreError):
        clean(folder)
        for recording, own in sorted(recordings.items(), key=lambda item: all(v.name in missing for v in item[1])):
            with atomic(folder / recording) as temporary:
                temporary.mkdir()
                for video in sorted(own, key=lambda one: one.name in missing):  # the width is that of the first
                    times = video.frames.time
                    given = readers[video.name]() if video.name in readers else None
                    first = first or given
                    assert first is not None
                    rows = _rows(given, first, times)
                    known += int((~np.isnan(rows[:, 0])).sum())
                    np.save(temporary / f"{video.name}.npy", rows)
                    done += 1
                    on_progress(done, len(videos))
                write_entry(temporary, "imported", [video.name for video in own])
        assert first is not None
        # The same name in another store stands for the same encoder: a run is told if it is another name.
        made = {"encoder": f"imported as {name}"}
        manifest = write_manifest(folder, made, first.values.shape[1], [*recordings])
    return ImportedRows(manifest, known, sum(len(video.frames) for video in videos.values()) - known, missing)


def _compare(source: Path, found: Collection[str], videos: Collection[str], incomplete: bool) -> tuple[str, ...]:
    """The videos of the store that a source lacks.

    Raises StoreError for unknown ones, and for missing ones that may not be missing.
    """
    unknown, missing = sorted({*found} - {*videos}), sorted({*videos} - {*found})
    if unknown or len(missing) == len(videos):
        remedy = "Files, or the column video, have the names of the store's videos."
        problem = f"has {len(unknown)} videos that the store has not"
        raise StoreError(problem, path=source, found=shorten(unknown) or "no video", remedy=remedy)
    if missing and not incomplete:
        remedy = "Add them, or give --incomplete: they have no embedding then."
        problem = f"lacks {len(missing)} videos of the store"
        raise StoreError(problem, path=source, found=shorten(missing), remedy=remedy)
    return tuple(missing)


def _rows(given: VideoRows | None, first: VideoRows, times: np.ndarray) -> np.ndarray:
    """The rows of a video's frames, float16 [T, D], with as many features as the first."""
    width = first.values.shape[1]
    if given is None:
        return np.full((len(times), width), np.nan, np.float16)
    if given.values.shape[1] != width:
        found, expected = given.values.shape[1], f"{width}, as in {first.path.name}"
        raise StoreError("has another number of features", path=given.path, found=found, expected=expected)
    return given.on_clock(times)
