"""Release -> store, recording by recording, in several processes.

A recording's folder appears whole or not at all, so a run that was killed goes on where it stopped and ends with the
same bytes. What is wrong with the release is gathered in an integrity report; only what would make labels or row
counts wrong stops the run.
"""

import multiprocessing
import os
import shutil
import signal
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from multiprocessing.synchronize import Event
from pathlib import Path

from abaw_expr.data.recording import Problem, prepare_recording
from abaw_expr.data.release import Recording, Release, read_release
from abaw_expr.data.store import FORMAT, MANIFEST, RECORDINGS, read_recording
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import digest, write_json
from abaw_expr.tasks import Task
from abaw_expr.version import VERSION

REPORT = "report.json"


@dataclass(frozen=True)
class Prepared:
    """What a run of `prepare` did."""

    problems: tuple[Problem, ...]
    left_out: tuple[str, ...]
    """Videos that could not be prepared; each is named in `problems`."""
    videos: dict[str, int]
    """How many videos the store holds, by split."""
    frames: int
    crops: int
    made: int
    """Recordings made by this run."""
    kept: int
    """Recordings that were there already."""


def prepare(
    release_root: Path, store_root: Path, task: Task, workers: int, progress: Callable[[int, int], None]
) -> Prepared:
    """Makes or completes a store; `progress(done, total)` is told after every recording.

    Raises ReleaseError for annotations or lists that cannot be used, StoreError where a worker process dies or
    `store_root` holds anything but a store.
    """
    folders = Path(store_root) / RECORDINGS
    _check_store(Path(store_root))
    release = read_release(release_root, task)
    _clean(folders)
    (Path(store_root) / MANIFEST).unlink(missing_ok=True)
    made: list[bool] = []
    try:
        for fresh in _run(release.recordings, folders, workers):
            made.append(fresh)
            progress(len(made), len(release.recordings))
    finally:
        _clean(folders)  # after Ctrl-C worker processes may have left something
    return _finish(release, Path(store_root), task, sum(made))


def _run(recordings: tuple[Recording, ...], folders: Path, workers: int) -> Iterator[bool]:
    """Whether each recording was made, as they are done."""
    if workers <= 1:
        yield from (prepare_recording(recording, folders / recording.name) for recording in recordings)
        return
    context = multiprocessing.get_context("spawn")
    stop = context.Event()
    with ProcessPoolExecutor(min(workers, len(recordings)), context, _in_worker, (stop,)) as pool:
        with _without_interrupts():  # which the workers inherit: Ctrl-C is for this process, which then stops them
            tasks = [pool.submit(prepare_recording, recording, folders / recording.name) for recording in recordings]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenExecutor as error:
            raise StoreError(f"a worker process died ({error})", path=folders, remedy="Use fewer --workers.") from error
        except BaseException:  # Ctrl-C: what the workers are at is not waited for
            stop.set()
            raise
        finally:
            pool.shutdown(cancel_futures=True)


def _in_worker(stop: Event) -> None:
    """One thread a process (torch, imported later, obeys the variable); it ends when told to, or with its parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None
    for ending in (stop.wait, parent.join):
        threading.Thread(target=_exit_after, args=(ending,), daemon=True).start()


def _exit_after(ending: Callable[[], object]) -> None:
    ending()
    os._exit(1)


@contextmanager
def _without_interrupts() -> Iterator[None]:
    previous = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)


def _check_store(root: Path) -> None:
    """Refuses a folder that is something else: the release, a run, somebody's papers."""
    if root.exists() and not root.is_dir():
        raise StoreError("is not a folder", path=root, expected="a new folder, or a store to go on with")
    strangers = (
        sorted({entry.name for entry in root.iterdir()} - {MANIFEST, REPORT, RECORDINGS}) if root.exists() else []
    )
    if strangers:
        remedy = "Name a new folder, or a store to go on with."
        raise StoreError("is not a store", path=root, found=shorten(strangers), remedy=remedy)


def _clean(folders: Path) -> None:
    """Removes what killed runs left half-made."""
    for leftover in folders.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)


def _not_annotated(release: Release) -> Iterator[Problem]:
    detail, remedy = "no annotation and not in the list of test videos", "None needed: another challenge's video."
    if not release.has_test_list:
        detail = "no annotation, and the release has no list of test videos"
        remedy = "If it is a test video, add the organisers' list and run prepare again."
    for name in release.not_annotated:
        yield Problem("not annotated", name, detail, remedy)


def _finish(release: Release, store_root: Path, task: Task, made: int) -> Prepared:
    """Writes the integrity report and, last, the manifest."""
    entries = {r.name: read_recording(store_root / RECORDINGS / r.name) for r in release.recordings}
    problems = [Problem(**problem) for entry in entries.values() for problem in entry["problems"]]
    problems += _not_annotated(release)
    problems.sort(key=lambda problem: problem.remedy.startswith("None needed"))  # what asks for work comes first
    whole = {name: entry for name, entry in entries.items() if entry["videos"]}
    videos = {name: video for entry in whole.values() for name, video in entry["videos"].items()}
    left_out = sorted(v.name for r in release.recordings for v in r.videos if v.name not in videos)
    prepared = Prepared(
        problems=tuple(problems),
        left_out=tuple(left_out),
        videos=dict(Counter(video["split"] for video in videos.values())),
        frames=sum(video["frames"] for video in videos.values()),
        crops=sum(video["crops"] for video in videos.values()),
        made=made,
        kept=len(release.recordings) - made,
    )
    report = {key: value for key, value in asdict(prepared).items() if key not in ("made", "kept")}
    write_json(store_root / REPORT, report)
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "task": task.name,
        "class_names": list(task.class_names),
        "digest": digest({name: entry["files"] for name, entry in whole.items()}),
        "recordings": list(whole),
        "videos": videos,
    }
    write_json(store_root / MANIFEST, manifest)
    return prepared
