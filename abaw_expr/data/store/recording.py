"""One recording of a release -> one folder of the store, whole or not at all."""

import errno
import os
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from abaw_expr.data.media.audio_check import check_sound, sound_check_problems, source_problems
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.sources import Source, fingerprint, media_type, read_faces, read_source
from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.data.release.clocks import seconds_of
from abaw_expr.data.release.crops import Crops, Seen, crop_problems, is_usable, list_crops, read_crops
from abaw_expr.data.release.reader import Recording, Video
from abaw_expr.data.store.store import (
    FORMAT,
    RECORDING_FILE,
    Frames,
    check_replaceable,
    pack,
    read_recording,
    write_frames,
)
from abaw_expr.errors import StoreError, of_machine, shorten
from abaw_expr.files import atomic, digest, file_digest, write_json
from abaw_expr.version import VERSION

LINES_OFF = range(-1, 3)
"""Label lines minus pictures of the video that the real release shows everywhere."""
READING = 2
"""Raised when the same files are read otherwise: recordings that were made before are made again."""
MOST_BEYOND = 1_000
"""Frames by which crops may go beyond twice a video's label lines and pictures; a higher number is none of a frame."""


def prepare_recording(recording: Recording, folder: Path) -> bool:
    """Prepares one recording into `folder`; False where that folder already holds it, made from the same files."""
    crops = {video.name: list_crops(video.crop_folders) for video in recording.videos}
    source = _source(recording, crops)
    if folder.is_dir() and _same(folder, source, crops):
        return False
    check_replaceable(folder)
    with atomic(folder) as temporary:
        temporary.mkdir()
        _fill(recording, crops, temporary, source)
    return True


def _fill(recording: Recording, crops: dict[str, Crops], folder: Path, source: str) -> None:
    read, problems = _read(recording)
    videos: dict[str, Any] = {}
    sound = None
    if read is not None:
        assert recording.path is not None
        problems += source_problems(recording.name, recording.path, read)
        sound = _write_sound(recording.name, read, folder, problems)
        for video in recording.videos:
            videos[video.name] = _write_video(video, crops[video.name], read, folder, problems)
    times = None if read is None else read.times
    files = sorted(folder.iterdir())
    entry = {
        "format": FORMAT,
        "version": VERSION,
        "recording": recording.name,
        "source": source,
        "pictures": 0 if times is None else len(times),
        "seconds": None if times is None else float(times[-1]),
        "rate": None if times is None or not times[-1] else (len(times) - 1) / float(times[-1]),
        "sound": sound,
        "videos": videos,
        "problems": [asdict(problem) for problem in problems],
        "files": {path.name: file_digest(path) for path in files},
        "bytes": {path.name: path.stat().st_size for path in files},
    }
    write_json(folder / RECORDING_FILE, entry)


def _read(recording: Recording) -> tuple[Source | None, list[Problem]]:
    """What a recording is made from; None with the reason where it has no frame."""
    path, closed = recording.path, False
    if path is None or not path.exists():
        wanted = f"{recording.name} with a video's ending" if path is None else path.name
        kind, detail = "no video file", f"no file {wanted} in the release"
        remedy = "Add the video to the release and run prepare again."
    else:
        try:
            read = read_source(path)
            framed = any(video.labels is not None for video in recording.videos)
            if len(read.times) and not (framed and read.kind == "sound"):
                return read, []
            what, detail = "video" if framed else read.kind, "it holds no picture"
            if read.sound is not None:
                detail += f"; {read.sound.problem}" if read.sound.problem else ", which would time its labels"
        except av.FFmpegError as error:
            what, detail, closed = media_type(path), str(error.strerror), error.errno == errno.EACCES
        kind, remedy = f"unreadable {what}", f"Download the {what} again and run prepare again."
        remedy = READ_RIGHT if closed else remedy
    return None, [Problem(kind, video.name, detail, remedy) for video in recording.videos]


def _write_sound(name: str, read: Source, folder: Path, problems: list[Problem]) -> dict[str, Any] | None:
    # torch takes two seconds to import: only here, where it is needed
    from abaw_expr.data.media.logmel import log_mel

    sound = read.sound
    if sound is None or not len(sound.samples):
        return None
    check = check_sound(sound.samples)
    problems += sound_check_problems(name, check)
    mel = log_mel(sound.samples)
    np.save(folder / "sound.npy", mel)
    wide = mel.astype(np.float64)
    seconds = len(sound.samples) / SAMPLE_RATE
    statistics = {"mean": wide.mean(axis=0).tolist(), "std": wide.std(axis=0).tolist()}
    return {"seconds": seconds, **asdict(check), **statistics}


def _write_video(video: Video, crops: Crops, read: Source, folder: Path, problems: list[Problem]) -> dict[str, Any]:
    whole = max(len(read.times), video.lines)
    crops, far = _near(crops, whole)
    rows = max(whole, max(crops.files, default=0))
    offset, size = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    seen, spoilt = Seen(), list[str]()
    pictured = video.faces is not None and read.kind == "pictures"
    good = read_faces(video.faces, seen.frames, spoilt) if video.faces and pictured else read_crops(crops, seen)
    places = pack(folder / f"{video.name}.tar", good)
    for frame, place in zip(seen.frames, places, strict=True):
        offset[frame - 1], size[frame - 1] = place
    time = seconds_of(np.arange(1, rows + 1), read.times)
    write_frames(folder / f"{video.name}.parquet", Frames(time, video.labels_at(time), offset, size))
    if spoilt:
        detail = f"{len(spoilt)} unreadable: {shorten(spoilt)}"
        problems.append(Problem("unreadable crops", video.name, detail, "Unpack the pictures again."))
    if far:
        detail = f"{len(far)} are numbered far beyond its {whole} frames: {shorten(far)}"
        problems.append(Problem("crops of no frame", video.name, detail, "None needed: they are left out."))
    problems += crop_problems(video.name, crops, seen, 0 if pictured else video.lines or len(read.times))
    problems += _video_problems(video, crops, read, rows, len(places))
    counts = {"frames": rows, "lines": video.lines, "crops": len(places)}
    return {"split": video.split, **counts, "unreadable": [*seen.unreadable]}


def _near(crops: Crops, whole: int) -> tuple[Crops, list[str]]:
    """Crops of frames that may be there in a video with `whole` label lines or pictures, and names of the others."""
    last = 2 * whole + MOST_BEYOND
    far = [entry.name for frame, entry in crops.files.items() if frame > last]
    return (replace(crops, files={f: e for f, e in crops.files.items() if f <= last}) if far else crops), far


def _video_problems(video: Video, crops: Crops, read: Source, rows: int, count: int) -> Iterator[Problem]:
    pictures = len(read.times)
    if not count and not crops.closed and read.kind != "sound":
        detail = "no folder of crops" if not video.crop_folders else "its folder of crops holds no usable picture"
        yield Problem("no crops", video.name, detail, "Add the crops; until then the sound decides alone.")
    lines = video.lines or pictures
    if lines - pictures not in LINES_OFF or rows > max(lines, pictures):
        last = max(crops.files, default=0)
        detail = f"{lines} label lines, {pictures} pictures in the video, crops up to frame {last}"
        yield Problem("count mismatch", video.name, detail, "Check that annotation, crops and video belong together.")


def _source(recording: Recording, crops: dict[str, Crops]) -> str:
    """A hash that changes when anything that a recording is made from changes."""
    people = []
    for video in recording.videos:
        found = crops[video.name]
        sizes = [(frame, _size(entry)) for frame, entry in found.files.items()]
        labels = None if video.labels is None else video.labels.tolist()
        spans = [[span.label, span.start, str(span.end)] for span in video.spans]
        said = [video.name, video.split, labels, spans, video.faces is not None]
        people.append([*said, sizes, found.strangers, found.doubled, found.closed])
    return digest([FORMAT, READING, recording.path and fingerprint(recording.path), people])


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:  # a link that leads nowhere
        if of_machine(error):
            raise
        return -1


def _same(folder: Path, source: str, crops: dict[str, Crops]) -> bool:
    """Whether a folder is whole, and made from the same files: a crop that was mended may have its old size."""
    try:
        entry = read_recording(folder)
        if entry["source"] != source:
            return False
        whole = all((folder / name).stat().st_size == size for name, size in entry["bytes"].items())
        broken = [crops[name].files[frame] for name, video in entry["videos"].items() for frame in video["unreadable"]]
        return whole and not any(map(is_usable, broken))
    except (StoreError, KeyError, OSError) as error:
        if of_machine(error):
            raise
        return False
