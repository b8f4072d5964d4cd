"""Prepares a store from a release, recording by recording, in several processes.

A recording's folder is written whole or not at all: a killed run continues where it stopped and ends with the same
bytes. Defects of the release are collected in an integrity report; only defects that would make labels or row counts
wrong stop the run.
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import Recording, Release, Video, read_release
from abaw_expr.data.store.embeddings import EMBEDDINGS
from abaw_expr.data.store.recording import prepare_recording
from abaw_expr.data.store.store import (
    MANIFEST,
    RECORDING_FILE,
    RECORDINGS,
    STORE_FORMAT,
    check_format,
    read_recording,
    summary_of,
)
from abaw_expr.data.workers import OnProgress, parallel_map
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import clean, file_digest, is_passing, locked, read_json, write_json
from abaw_expr.tasks.task import Task
from abaw_expr.version import VERSION

REPORT = "report.json"


@dataclass(frozen=True)
class Prepared:
    """The result of a run of `prepare`."""

    problems: tuple[Problem, ...]
    left_out: tuple[str, ...]
    """Videos that could not be prepared; each is named in `problems`."""
    videos: dict[str, dict[str, int]]
    """The number of videos in the store, by the name of the task and by split."""
    frames: int
    """Of the video files and the crops."""
    crops: int
    made: int
    """Recordings prepared by this run."""
    kept: int
    """Recordings that were in the store already."""


def prepare(
    release_root: Path,
    store_root: Path,
    workers: int,
    on_progress: OnProgress,
    read: Callable[[Path], Release] = read_release,
) -> Prepared:
    """Makes or completes a store of all challenges of a release.

    `on_progress(frames done, frames in all)` is called after every recording. `read` reads the data set at
    `release_root`. An existing manifest stays until the new one replaces it; until then `open_store` detects recordings
    that do not match it.

    Raises ReleaseError for annotations or lists that cannot be used, and StoreError where a worker process dies,
    another process prepares the store, or `store_root` is neither a store of this format nor a new folder.
    """
    root = Path(store_root)
    _check_store(root)
    with locked(root, StoreError):
        return _prepare_all(read(release_root), root, workers, on_progress)


def _prepare_all(release: Release, root: Path, workers: int, on_progress: OnProgress) -> Prepared:
    folders = root / RECORDINGS
    clean(folders)
    sizes = {recording.name: _frames(recording) for recording in release.recordings}
    largest_first = sorted(release.recordings, key=lambda recording: -sizes[recording.name])
    done = made = 0
    try:
        for recording, fresh in parallel_map(partial(_prepare, folders), largest_first, workers):
            made += fresh
            done += sizes[recording.name]
            on_progress(done, sum(sizes.values()))
    finally:
        clean(folders)  # a stop by Ctrl-C may leave temporary files of worker processes
    return _finish(release, root, made)


def _prepare(folders: Path, recording: Recording) -> bool:
    return prepare_recording(recording, folders / recording.name)


def _frames(recording: Recording) -> int:
    """The approximate number of frames of a recording, for its duration: its label lines, or its crops."""
    return 1 + sum(video.lines or _crops(video) for video in recording.videos)


def _crops(video: Video) -> int:
    count = 0
    for folder in video.crop_folders:
        with suppress(OSError):  # preparing the video reports it
            count += len(os.listdir(folder))
    return count


def _check_store(root: Path) -> None:
    """Refuses a folder that is neither a store of this format nor new, such as a release or a run."""
    if root.exists() and not root.is_dir():
        raise StoreError("is not a folder", path=root, expected="a new folder, or a store to continue")
    names = {entry.name for entry in root.iterdir()} if root.exists() else set()
    strangers = sorted(name for name in names - {MANIFEST, REPORT, RECORDINGS, EMBEDDINGS} if not is_passing(name))
    if strangers:
        remedy = "Name a new folder, or a store to continue."
        raise StoreError("is not a store", path=root, found=shorten(strangers), remedy=remedy)
    files = (root / MANIFEST, *root.glob(f"{RECORDINGS}/[!.]*/{RECORDING_FILE}"))
    contents = ((path, _content(path)) for path in files)
    first = next((file for file in contents if "format" in file[1]), None)  # the others are of the same format
    if first is not None:
        check_format(*first)


def _content(path: Path) -> dict[str, Any]:
    """The content of a JSON file of the store; empty where it cannot be read, since it is then made again."""
    try:
        content: dict[str, Any] = read_json(path, StoreError, "", dict)
    except StoreError:
        return {}
    return content


def _not_annotated(release: Release) -> Iterator[Problem]:
    detail, remedy = "no annotation and not in a list of test videos", "None needed: another challenge's video."
    if release.without_test_list:
        detail = "no annotation, and the release has no list of test videos"
        if len(release.tasks) > 1:
            detail += f" of {' and '.join(task.name.upper() for task in release.without_test_list)}"
        remedy = "If it is a test video, add the organisers' list and run prepare again."
    for name in release.not_annotated:
        yield Problem("not annotated", name, detail, remedy)


def _finish(release: Release, store_root: Path, made: int) -> Prepared:
    """Writes the integrity report and, last, the manifest."""
    entries = {r.name: read_recording(store_root / RECORDINGS / r.name) for r in release.recordings}
    problems = [Problem(**problem) for entry in entries.values() for problem in entry["problems"]]
    problems += [*release.problems, *_not_annotated(release)]
    problems.sort(key=lambda problem: problem.remedy.startswith("None needed"))  # defects that need work come first
    whole = {name: entry for name, entry in entries.items() if entry["videos"]}
    summary = summary_of(whole, {task.name: task.columns for task in release.tasks})
    videos = summary["videos"]
    left_out = sorted(v.name for r in release.recordings for v in r.videos if v.name not in videos)
    prepared = Prepared(
        problems=tuple(problems),
        left_out=tuple(left_out),
        videos={task.name: _counts(videos.values(), task) for task in release.tasks},
        frames=sum(video["frames"] for video in videos.values()),
        crops=sum(video["crops"] for video in videos.values()),
        made=made,
        kept=len(release.recordings) - made,
    )
    report = {key: value for key, value in asdict(prepared).items() if key not in ("made", "kept")}
    report["recordings"] = {name: _row(entry) for name, entry in whole.items()}
    write_json(store_root / REPORT, report)
    manifest = {
        "format": STORE_FORMAT,
        "version": VERSION,
        "recordings": {name: file_digest(store_root / RECORDINGS / name / RECORDING_FILE) for name in whole},
        **summary,
    }
    write_json(store_root / MANIFEST, manifest)
    return prepared


def _counts(videos: Iterable[dict[str, Any]], task: Task) -> dict[str, int]:
    """The number of videos of a task by split."""
    return dict(Counter(video["splits"][task.name] for video in videos if task.name in video["splits"]))


def _row(entry: dict[str, Any]) -> dict[str, Any]:
    """A recording's row in the report: its length, and what its audio is like."""
    audio = entry["sound"] or {}
    measured = {f"sound_{key}": value for key, value in audio.items() if key not in ("mean", "std")}
    return {"picture_seconds": entry["seconds"], "rate": entry["rate"], **measured}
