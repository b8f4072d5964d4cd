"""Videos -> crops in the release's own layout, so that `prepare` takes them for the organisers'.

<out>/cropped_aligned_found/<video>/00001.jpg   a face, 112 x 112; frames without one are absent
<out>/found_faces/tracks.csv                    who was found and under which name they are kept; to be corrected
<out>/found_faces/<video>.parquet               all detections: corrected choices are obeyed without looking anew
<out>/found_faces/<video>.json                  what the crops were made from
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

from abaw_expr.data.release.crops import has_usable
from abaw_expr.data.release.reader import Release
from abaw_expr.data.workers import share
from abaw_expr.errors import ReleaseError, UserError
from abaw_expr.faces.align import crop
from abaw_expr.faces.choose import (
    IGNORE,
    SUFFIXES,
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
from abaw_expr.faces.folders import CROPS, FOUND, check_folders, check_replaceable, folders_made
from abaw_expr.faces.frames import count_pictures, read_pictures, upright
from abaw_expr.files import IRREGULAR, atomic, check_name, digest, locked, read_json, remove, write_json
from abaw_expr.tasks.names import crop_name, matched, recording_of
from abaw_expr.version import VERSION

TABLE = "tracks.csv"
EVERY = 5
"""Pictures from one in which faces are looked for to the next."""
QUALITY = 95
"""JPEG quality of the crops."""


@dataclass(frozen=True, eq=False)
class Faces:
    """What was found in one video."""

    detections: Detections
    tracks: tuple[Track, ...]
    chosen: Mapping[int, str]
    """The choice for each track, by number."""
    crops: Mapping[str, Path]
    """The folder of crops of each person, by the person's video name."""

    @property
    def cropped(self) -> int:
        """Pictures with somebody's crop."""
        kept = [track.frames for track in self.tracks if self.chosen[track.number] != IGNORE]
        return len(set().union(*(frames.tolist() for frames in kept)))


@dataclass(frozen=True)
class _Job:
    """One video to be looked through."""

    name: str
    path: Path
    wanted: Collection[str] | None
    corrected: Mapping[int, str]
    """What the table says, by track."""

    @property
    def people(self) -> set[str]:
        """Who may be in it, of main, left and right."""
        return {*(SUFFIXES if self.wanted is None else self.wanted), *self.corrected.values()} - {IGNORE}


def extract_faces(
    videos: Mapping[str, Path],
    out: Path,
    every: int = EVERY,
    wanted: Mapping[str, Collection[str]] | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    workers: int = 1,
) -> dict[str, Faces | str]:
    """Finds, follows and crops the faces of videos (by name) into `out`, and keeps the table of choices there.

    Faces are looked for in every `every`-th picture. `wanted` says which people a release has in a video (of main, left
    and right); without it whoever is there is taken. `progress` is told how many pictures have passed, twice a video,
    and about how many there are; with several `workers`, of whole videos. Run again, it does what is left, and obeys a
    table that was corrected. Returns what was found by name; a text says why a video could not be read. Raises
    ReleaseError for a table or a name that cannot be used, where two videos may have one folder of crops or one holds
    what was not made here, and where another process is at it; StoreError where a worker process dies.
    """
    for name, video in videos.items():
        check_name(name, ReleaseError, video)
    with locked(out / FOUND, ReleaseError):
        return _extract_all(videos, out, every, wanted or {}, progress, workers)


def _extract_all(
    videos: Mapping[str, Path],
    out: Path,
    every: int,
    people: Mapping[str, Collection[str]],
    progress: Callable[[int, int], None],
    workers: int,
) -> dict[str, Faces | str]:
    path = out / FOUND / TABLE
    table = read_table(path)
    jobs = [_Job(name, videos[name], people.get(name), choices_in(table.get(name, []))) for name in videos]
    check_folders(out, {job.name: job.people for job in jobs})
    pictures = {name: 2 * count_pictures(video) for name, video in videos.items()}
    total, passed = sum(pictures.values()), 0

    def tell(count: int = 1) -> None:
        nonlocal passed
        passed += count
        progress(passed, max(passed, total))

    alone = min(workers, len(jobs)) <= 1
    found: dict[str, Faces | str] = {}
    for job, faces in share(partial(_faces_of, out, every, tell if alone else _silent), jobs, workers):
        found[job.name] = faces
        if isinstance(faces, Faces):
            table[job.name] = rows_of(job.name, faces.tracks, faces.chosen)
            write_table(path, table)
        if not alone:
            tell(pictures[job.name])
    return {name: found[name] for name in videos}


def videos_without_crops(release: Release) -> tuple[dict[str, Path], dict[str, set[str]]]:
    """The video files of a release in which somebody has no usable crop, by name, and who is wanted in each.

    A root that this module made does not count: what is there is made again only where something changed.
    """
    choice = {suffix: name for name, suffix in SUFFIXES.items()}
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
    """What a video's name adds to that of its recording, which may be written a little otherwise."""
    return "" if matched([video], [recording]) else video.removeprefix(recording_of(video))


def _faces_of(out: Path, every: int, tell: Callable[[], None], job: _Job) -> Faces | str:
    """What was found in a video, or why it could not be read."""
    if not job.path.is_file():
        return IRREGULAR if job.path.exists() else "no such file"
    try:
        return _extract(job, out, every, tell)
    except av.FFmpegError as error:
        return str(error.strerror)


def _silent() -> None:
    """For workers, whose progress is that of whole videos."""


def _extract(job: _Job, out: Path, every: int, tell: Callable[[], None]) -> Faces:
    """One video: detections, unless they are there already; choices, unless they are made already; crops."""
    name, path, corrected = job.name, job.path, job.corrected
    state = path.stat()
    source = [VERSION, path.name, state.st_size, state.st_mtime_ns]
    kept = out / FOUND / f"{name}.parquet"
    detections = load_detections(kept, every, source)
    if detections is None:
        corrected = {}  # of other tracks
        detections = detect(path, every, tell)
        save_detections(kept, detections, source)
    tracks = tracks_of(detections)
    chosen = choose(tracks, detections.width, job.wanted)
    chosen |= {track: choice for track, choice in corrected.items() if track in chosen}
    people = people_of(tracks, chosen)
    made = {"source": source, "every": every, "frames": {person: digest(list(at)) for person, at in people.items()}}
    crops = {name + SUFFIXES[person]: out / CROPS / (name + SUFFIXES[person]) for person in people}
    done = out / FOUND / f"{name}.json"
    if not (_says(done, made) and all(folder.is_dir() for folder in crops.values())):
        before = {folder: out / CROPS / folder for folder in folders_made(out, name)}
        for folder in {**before, **crops}.values():
            check_replaceable(folder, folder.name in before, detections.pictures)
        with ExitStack() as stack:
            targets = [stack.enter_context(atomic(folder)) for folder in crops.values()]
            _write_crops(path, targets, list(people.values()), tell)
            # From here on the folders are of both times; who made them is known whatever happens.
            both = [choice for choice, suffix in SUFFIXES.items() if name + suffix in {*before, *crops}]
            write_json(done, {"frames": dict.fromkeys(both)})
        for gone in before.keys() - crops.keys():
            if before[gone].is_dir():
                remove(before[gone])
        write_json(done, made)
    return Faces(detections, tuple(tracks), chosen, crops)


def _write_crops(
    path: Path, folders: Sequence[Path], places: Sequence[Mapping[int, NDArray[np.float32]]], tell: Callable[[], None]
) -> None:
    """The crops of each person into their folder, by where the face is in which frame."""
    for folder in folders:
        folder.mkdir()
    for number, frame in read_pictures(path) if folders else ():
        tell()
        here = [(folder, place[number]) for folder, place in zip(folders, places, strict=True) if number in place]
        if here:
            picture = Image.fromarray(upright(frame))
            for folder, place in here:
                crop(picture, place[4:].reshape(5, 2)).save(folder / crop_name(number), quality=QUALITY)


def _says(path: Path, value: object) -> bool:
    try:
        return read_json(path, UserError, "") == value
    except UserError:
        return False
