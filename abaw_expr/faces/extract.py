"""Extracts face crops from videos in the release's own layout, so that `prepare` reads them like the organisers'.

<out>/cropped_aligned_found/<video>/00001.jpg   a face, 112 x 112; frames without one are absent
<out>/found_faces/tracks.csv                    the tracks, and the choice of a person for each; to be corrected
<out>/found_faces/<video>.parquet               all detections, so that corrected choices need no new search
<out>/found_faces/<video>.json                  what the crops were made from

Shapes: [14] is a box and five landmarks.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from abaw_expr.data.media.images import JPEG_QUALITY
from abaw_expr.data.release.crops import has_usable
from abaw_expr.data.release.reader import Release
from abaw_expr.data.workers import OnProgress, parallel_map
from abaw_expr.errors import ReleaseError, UserError
from abaw_expr.faces.align import crop
from abaw_expr.faces.choose import (
    CHOICE_SUFFIXES,
    IGNORE,
    Track,
    choices_in,
    choose,
    people_of,
    read_table,
    rows_of,
    tracks_of,
    write_table,
)
from abaw_expr.faces.detect import detect
from abaw_expr.faces.detections import Detections, load_detections, save_detections
from abaw_expr.faces.folders import CROPS, FOUND, check_folders, check_replaceable_crops, folders_made
from abaw_expr.faces.frames import count_frames, read_frames, upright
from abaw_expr.files import IRREGULAR, atomic, check_name, digest, locked, read_json, remove_folder, write_json
from abaw_expr.tasks.names import crop_name, matched, recording_of
from abaw_expr.version import VERSION

TRACKS_TABLE = "tracks.csv"
_EVERY = 5
"""Frames from one that is searched to the next."""


@dataclass(frozen=True, eq=False)
class Faces:
    """The faces of one video."""

    detections: Detections
    tracks: tuple[Track, ...]
    choices: Mapping[int, str]
    """The choice for each track, by number."""
    crops: Mapping[str, Path]
    """The folder of crops of each person, by the person's video name."""

    @property
    def cropped(self) -> int:
        """The number of frames with a crop."""
        kept = [track.frames for track in self.tracks if self.choices[track.number] != IGNORE]
        return len(set().union(*(frames.tolist() for frames in kept)))


@dataclass(frozen=True)
class _Job:
    """One video to be searched."""

    name: str
    path: Path
    wanted: Collection[str] | None
    corrected: Mapping[int, str]
    """The table's choices, by track."""

    @property
    def people(self) -> set[str]:
        """The people who may be in it, of main, left and right."""
        return {*(CHOICE_SUFFIXES if self.wanted is None else self.wanted), *self.corrected.values()} - {IGNORE}


def extract_faces(
    videos: Mapping[str, Path],
    out: Path,
    every: int = _EVERY,
    wanted: Mapping[str, Collection[str]] | None = None,
    on_progress: OnProgress = lambda done, total: None,
    workers: int = 1,
) -> dict[str, Faces | str]:
    """Detects, tracks and crops the faces of videos (by name) into `out`, and writes the table of choices there.

    Every `every`-th frame is searched. `wanted` are the people that a release has in each video (of main, left and
    right); without it they are chosen by size and time. `on_progress(frames done, frames in all)` counts every frame
    twice, with several `workers` whole videos at a time. A second run does what is left, and follows a corrected table.

    Returns the faces by video name, or the reason why a video could not be read. Raises ReleaseError for a table or
    name that cannot be used, where two videos may have one folder of crops, where such a folder holds other files, and
    where another process works in `out`; StoreError where a worker process dies.
    """
    for name, video in videos.items():
        check_name(name, ReleaseError, video)
    with locked(out / FOUND, ReleaseError):
        return _extract_all(videos, out, every, wanted or {}, on_progress, workers)


def _extract_all(
    videos: Mapping[str, Path],
    out: Path,
    every: int,
    people: Mapping[str, Collection[str]],
    on_progress: OnProgress,
    workers: int,
) -> dict[str, Faces | str]:
    path = out / FOUND / TRACKS_TABLE
    table = read_table(path)
    jobs = [_Job(name, videos[name], people.get(name), choices_in(table.get(name, []))) for name in videos]
    check_folders(out, {job.name: job.people for job in jobs})
    frame_counts = {name: 2 * count_frames(video) for name, video in videos.items()}
    total, passed = sum(frame_counts.values()), 0

    def on_frame(count: int = 1) -> None:
        nonlocal passed
        passed += count
        on_progress(passed, max(passed, total))

    alone = min(workers, len(jobs)) <= 1
    found: dict[str, Faces | str] = {}
    for job, faces in parallel_map(partial(_faces_of, out, every, on_frame if alone else _no_progress), jobs, workers):
        found[job.name] = faces
        if isinstance(faces, Faces):
            table[job.name] = rows_of(job.name, faces.tracks, faces.choices)
            write_table(path, table)
        if not alone:
            on_frame(frame_counts[job.name])
    return {name: found[name] for name in videos}


def videos_without_crops(release: Release) -> tuple[dict[str, Path], dict[str, set[str]]]:
    """The video files of a release in which somebody has no usable crop, by name, and the people wanted in each.

    Crops that this module made do not count: they are made again if something changed.
    """
    choice = {suffix: name for name, suffix in CHOICE_SUFFIXES.items()}
    videos, wanted = {}, {}
    for recording in release.recordings:
        given = [tuple(f for f in video.crop_folders if f.parent.name != CROPS) for video in recording.videos]
        whole = all(map(has_usable, given))
        if recording.path is not None and not whole:
            videos[recording.name] = recording.path
            names = [video.name for video in recording.videos]
            wanted[recording.name] = {choice[_suffix(name, recording.name)] for name in names}
    return videos, wanted


def _suffix(video: str, recording: str) -> str:
    """The suffix of a video's name after that of its recording, which may be spelled differently."""
    return "" if matched([video], [recording]) else video.removeprefix(recording_of(video))


def _faces_of(out: Path, every: int, on_frame: Callable[[], None], job: _Job) -> Faces | str:
    """The faces of a video, or the reason why it could not be read."""
    if not job.path.is_file():
        return IRREGULAR if job.path.exists() else "no such file"
    try:
        return _extract(job, out, every, on_frame)
    except av.FFmpegError as error:
        return str(error.strerror)


def _no_progress() -> None:
    """For workers: progress is counted in whole videos."""


def _extract(job: _Job, out: Path, every: int, on_frame: Callable[[], None]) -> Faces:
    """Processes one video: detections, unless they are stored; choices, unless they are corrected; crops."""
    name, path, corrected = job.name, job.path, job.corrected
    state = path.stat()
    source = [VERSION, path.name, state.st_size, state.st_mtime_ns]
    kept = out / FOUND / f"{name}.parquet"
    detections = load_detections(kept, every, source)
    if detections is None:
        corrected = {}  # the choices were of other tracks
        detections = detect(path, every, on_frame)
        save_detections(kept, detections, source)
    tracks = tracks_of(detections)
    choices = choose(tracks, detections.width, job.wanted)
    choices |= {track: choice for track, choice in corrected.items() if track in choices}
    people = people_of(tracks, choices)
    made = {"source": source, "every": every, "frames": {person: digest(list(at)) for person, at in people.items()}}
    crops = {name + CHOICE_SUFFIXES[person]: out / CROPS / (name + CHOICE_SUFFIXES[person]) for person in people}
    done = out / FOUND / f"{name}.json"
    if not (_is_current(done, made) and all(folder.is_dir() for folder in crops.values())):
        before = {folder: out / CROPS / folder for folder in folders_made(out, name)}
        for folder in {**before, **crops}.values():
            check_replaceable_crops(folder, folder.name in before, detections.frame_count)
        with ExitStack() as stack:
            targets = [stack.enter_context(atomic(folder)) for folder in crops.values()]
            _write_crops(path, targets, list(people.values()), on_frame)
            # Until the second write, the folders are a mixture of old and new; this records them as made here.
            both = [choice for choice, suffix in CHOICE_SUFFIXES.items() if name + suffix in {*before, *crops}]
            write_json(done, {"frames": dict.fromkeys(both)})
        for gone in before.keys() - crops.keys():
            if before[gone].is_dir():
                remove_folder(before[gone])
        write_json(done, made)
    return Faces(detections, tuple(tracks), choices, crops)


def _write_crops(
    path: Path,
    folders: Sequence[Path],
    positions: Sequence[Mapping[int, NDArray[np.float32]]],
    on_frame: Callable[[], None],
) -> None:
    """Writes the crops of each person into their folder, by the box and landmarks [14] of each frame."""
    for folder in folders:
        folder.mkdir()
    for number, frame in read_frames(path) if folders else ():
        on_frame()
        present = [(folder, at[number]) for folder, at in zip(folders, positions, strict=True) if number in at]
        if present:
            image = Image.fromarray(upright(frame))
            for folder, position in present:
                crop(image, position[4:].reshape(5, 2)).save(folder / crop_name(number), quality=JPEG_QUALITY)


def _is_current(path: Path, value: object) -> bool:
    try:
        return read_json(path, UserError, "") == value
    except UserError:
        return False
