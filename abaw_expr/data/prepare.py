"""Release -> store, recording by recording, in several processes.

A recording's folder appears whole or not at all, so a run that was killed goes on where it stopped and ends with the
same bytes. What is wrong with the release is gathered in an integrity report; only what would make labels or row
counts wrong stops the run.
"""

import multiprocessing
import os
import shutil
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import BrokenExecutor, Executor, ProcessPoolExecutor, as_completed
from dataclasses import asdict, dataclass
from pathlib import Path

from abaw_expr.data.recording import Problem, prepare_recording
from abaw_expr.data.release import Recording, Release, read_release
from abaw_expr.data.store import FORMAT, MANIFEST, read_recording
from abaw_expr.errors import StoreError
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

    Raises ReleaseError for annotations or lists that cannot be used, StoreError where a worker process dies.
    """
    release = read_release(release_root, task)
    folders = Path(store_root) / "recordings"
    _clean(folders)
    (Path(store_root) / MANIFEST).unlink(missing_ok=True)
    made: list[bool] = []
    for fresh in _run(release.recordings, folders, workers):
        made.append(fresh)
        progress(len(made), len(release.recordings))
    return _finish(release, Path(store_root), task, sum(made))


def _run(recordings: tuple[Recording, ...], folders: Path, workers: int) -> Iterator[bool]:
    """Whether each recording was made, as they are done."""
    if workers <= 1:
        yield from (prepare_recording(recording, folders / recording.name) for recording in recordings)
        return
    with _pool(min(workers, len(recordings))) as pool:
        tasks = [pool.submit(prepare_recording, recording, folders / recording.name) for recording in recordings]
        try:
            for task in as_completed(tasks):
                yield task.result()
        except BrokenExecutor as error:
            raise StoreError(f"a worker process died ({error})", path=folders, remedy="Use fewer --workers.") from error
        finally:
            pool.shutdown(cancel_futures=True)


def _pool(workers: int) -> Executor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(workers, mp_context=context, initializer=_in_worker)


def _in_worker() -> None:
    """One thread a process (torch, imported later, obeys the variable), and none that outlives a killed parent."""
    os.environ["OMP_NUM_THREADS"] = "1"
    parent = multiprocessing.parent_process()
    assert parent is not None

    def follow() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()


def _clean(folders: Path) -> None:
    """Removes what killed runs left half-made."""
    for leftover in folders.glob(".*.part"):
        shutil.rmtree(leftover, ignore_errors=True)


def _finish(release: Release, store_root: Path, task: Task, made: int) -> Prepared:
    """Writes the integrity report and, last, the manifest."""
    entries = {r.name: read_recording(store_root / "recordings" / r.name) for r in release.recordings}
    problems = [Problem(**problem) for entry in entries.values() for problem in entry["problems"]]
    for name in release.not_annotated:
        detail = "no annotation and not in the list of test videos"
        problems.append(Problem("not annotated", name, detail, "None needed: other challenges' videos are left out."))
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
