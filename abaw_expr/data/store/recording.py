"""Prepares one recording of a release into one folder of the store, whole or not at all.

Shapes: T frames of a video.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import av
import numpy as np

from abaw_expr.data.media.audio_check import audio_check_problems, check_audio, source_problems
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.entropy import Entropies
from abaw_expr.data.media.sources import MediaSource, fingerprint_media, has_face, media_type, read_faces, read_source
from abaw_expr.data.media.voice import voice_probabilities
from abaw_expr.data.media.waveform import to_int16
from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.data.release.crops import CropReport, Crops, crop_problems, is_usable, list_crops, read_crops
from abaw_expr.data.release.frame_times import seconds_of
from abaw_expr.data.release.reader import Annotation, Recording, Video
from abaw_expr.data.store.store import (
    AUDIO_FILE,
    RECORDING_FILE,
    STORE_FORMAT,
    VOICE_FILE,
    WAVEFORM_FILE,
    check_replaceable_recording,
    entropy_file,
    read_recording,
)
from abaw_expr.data.store.tables import label_file, write_frame_table, write_labels
from abaw_expr.data.store.tar import pack
from abaw_expr.errors import StoreError, is_machine_error, shorten
from abaw_expr.files import atomic, digest, file_digest, write_json
from abaw_expr.version import VERSION

_LINES_OFF = range(-1, 3)
"""Label lines minus frames of the video, as they occur everywhere in the real release."""
_READING = 5
"""Increased when the same files are read differently: recordings prepared before are then prepared again."""
_MOST_BEYOND = 1_000
"""Frames by which crop numbers may exceed twice a video's label lines or frames; larger numbers name no frame."""


def prepare_recording(recording: Recording, folder: Path) -> bool:
    """Prepares one recording into `folder`; False where that folder already holds it, made from the same files."""
    crops = {video.name: list_crops(video.crop_folders) for video in recording.videos}
    source = _source(recording, crops)
    if folder.is_dir() and _same(folder, source, crops):
        return False
    check_replaceable_recording(folder)
    with atomic(folder) as temporary:
        temporary.mkdir()
        _fill(recording, crops, temporary, source)
    return True


def _fill(recording: Recording, crops: dict[str, Crops], folder: Path, source: str) -> None:
    read, problems = _read(recording)
    videos: dict[str, Any] = {}
    audio = None
    if read is not None:
        assert recording.path is not None
        problems += source_problems(recording.name, recording.path, read)
        audio = _write_audio(recording.name, read, folder, problems)
        for video in recording.videos:
            videos[video.name] = _write_video(video, crops[video.name], read, folder, problems)
    times = None if read is None else read.times
    files = sorted(folder.iterdir())
    entry = {
        "format": STORE_FORMAT,
        "version": VERSION,
        "recording": recording.name,
        "source": source,
        "pictures": 0 if times is None else len(times),
        "seconds": None if times is None else float(times[-1]),
        "rate": None if times is None or not times[-1] else (len(times) - 1) / float(times[-1]),
        "sound": audio,
        "videos": videos,
        "problems": [asdict(problem) for problem in problems],
        "files": {path.name: file_digest(path) for path in files},
        "bytes": {path.name: path.stat().st_size for path in files},
    }
    origin = {"subject": recording.subject, "generated_from": [*recording.generated_from]}
    write_json(folder / RECORDING_FILE, entry | {name: value for name, value in origin.items() if value})


def _read(recording: Recording) -> tuple[MediaSource | None, list[Problem]]:
    """The source of a recording; None, with the reason, where it has no frame."""
    path, denied = recording.path, False
    if path is None or not path.exists():
        wanted = f"{recording.name} with a video's suffix" if path is None else path.name
        kind, detail = "no video file", f"no file {wanted} in the release"
        remedy = "Add the video to the release and run prepare again."
    else:
        try:
            read = read_source(path)
            framed = any(video.lines for video in recording.videos)
            faceless = any(video.faces is not None for video in recording.videos) and not has_face(path, read)
            if len(read.times) and not (framed and read.kind == "audio") and not faceless:
                return read, []
            what = "video" if framed else read.kind
            detail = "it holds no image that can be a crop" if faceless else "it holds no video frame"
            if read.audio is not None:
                detail += f"; {read.audio.problem}" if read.audio.problem else " to time its labels by"
        except av.FFmpegError as error:
            what, detail, denied = media_type(path), str(error.strerror), error.errno == errno.EACCES
        kind, remedy = f"unreadable {what}", f"Download the {what} again and run prepare again."
        remedy = READ_RIGHT if denied else remedy
    return None, [Problem(kind, video.name, detail, remedy) for video in recording.videos]


def _write_audio(name: str, read: MediaSource, folder: Path, problems: list[Problem]) -> dict[str, Any] | None:
    # torch takes two seconds to import: it is imported only where it is needed
    from abaw_expr.data.media.logmel import log_mel

    audio = read.audio
    if audio is None or not len(audio.samples):
        return None
    voice = voice_probabilities(audio.samples)
    np.save(folder / VOICE_FILE, voice)
    np.save(folder / WAVEFORM_FILE, to_int16(audio.samples))
    check = check_audio(audio.samples, voice)
    problems += audio_check_problems(name, check)
    mel = log_mel(audio.samples)
    np.save(folder / AUDIO_FILE, mel)
    wide = mel.astype(np.float64)
    seconds = len(audio.samples) / SAMPLE_RATE
    statistics = {"mean": wide.mean(axis=0).tolist(), "std": wide.std(axis=0).tolist()}
    return {"seconds": seconds, **asdict(check), **statistics}


def _write_video(
    video: Video, crops: Crops, read: MediaSource, folder: Path, problems: list[Problem]
) -> dict[str, Any]:
    whole = max(len(read.times), video.lines)
    crops, far = _near(crops, whole)
    rows = max(len(read.times), max(crops.files, default=0))
    offset, size = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    report, broken = CropReport(), list[str]()
    has_face_images = video.faces is not None and read.kind == "images"
    usable = read_crops(crops, report)
    if video.faces is not None and has_face_images:
        usable = read_faces(video.faces, report.frames, broken)
    time = seconds_of(np.arange(1, max(rows, video.lines) + 1), read.times)
    entropies = Entropies(time[:rows])
    packed = pack(folder / f"{video.name}.tar", _measured(usable, report.frames, entropies))
    np.save(folder / entropy_file(video.name), entropies.bits)
    for frame, (start, length) in zip(report.frames, packed, strict=True):
        offset[frame - 1], size[frame - 1] = start, length
    write_frame_table(folder / f"{video.name}.parquet", time[:rows], offset, size)
    for task, annotation in video.annotations.items():
        if annotation.has_labels:
            labels = annotation.labels_at(time[: max(rows, annotation.lines)], task)
            write_labels(folder / label_file(video.name, task.name), labels, task)
    if broken:
        detail = f"{len(broken)} unreadable: {shorten(broken)}"
        problems.append(Problem("unreadable crops", video.name, detail, "Unpack the images again."))
    if far:
        detail = f"{len(far)} are numbered far beyond its {whole} frames: {shorten(far)}"
        problems.append(Problem("crops of no frame", video.name, detail, "None needed: they are ignored."))
    problems += crop_problems(video.name, crops, report, 0 if has_face_images else video.lines or len(read.times))
    problems += _video_problems(video, crops, read, len(packed))
    return {
        "splits": {task.name: annotation.split for task, annotation in video.annotations.items()},
        "frames": rows,
        "lines": {task.name: annotation.lines for task, annotation in video.annotations.items()},
        "crops": len(packed),
        "unreadable": [*report.unreadable],
    }


def _measured(
    crops: Iterable[tuple[str, bytes]], frames: list[int], entropies: Entropies
) -> Iterator[tuple[str, bytes]]:
    """Passes crops on; the last of `frames` is the frame of the crop that was read last."""
    for name, data in crops:
        entropies.add(frames[-1], data)
        yield name, data


def _near(crops: Crops, whole: int) -> tuple[Crops, list[str]]:
    """The crops of frames that a video with `whole` label lines or frames can have, and the names of the others."""
    last = 2 * whole + _MOST_BEYOND
    far = [entry.name for frame, entry in crops.files.items() if frame > last]
    return (replace(crops, files={f: e for f, e in crops.files.items() if f <= last}) if far else crops), far


def _video_problems(video: Video, crops: Crops, read: MediaSource, count: int) -> Iterator[Problem]:
    if not count and not crops.unreadable_folders and read.kind != "audio":
        detail = "no folder of crops" if not video.crop_folders else "its folder of crops holds no usable image"
        yield Problem("no crops", video.name, detail, "Add the crops; until then it is predicted from its audio alone.")
    frames, last = len(read.times), max(crops.files, default=0)
    lines = {task.name.upper(): annotation.lines or frames for task, annotation in video.annotations.items()}
    wrong = [name for name, count in lines.items() if count - frames not in _LINES_OFF]
    if not wrong and last > max(frames, *lines.values()):
        wrong = [max(lines, key=lambda name: lines[name])]
    for name in wrong:
        of = f" of {name}" if len(lines) > 1 else ""
        detail = f"{lines[name]} label lines{of}, {frames} frames in the video, crops up to frame {last}"
        yield Problem("count mismatch", video.name, detail, "Check that annotation, crops and video belong together.")


def _source(recording: Recording, crops: dict[str, Crops]) -> str:
    """A hash that changes when anything changes that a recording is made from."""
    people = []
    for video in recording.videos:
        found = crops[video.name]
        sizes = [(frame, _size(entry)) for frame, entry in found.files.items()]
        annotations = {task.name: _identity(annotation) for task, annotation in video.annotations.items()}
        identity = [video.name, annotations, video.faces is not None]
        people.append([*identity, sizes, found.unknown, found.duplicates, found.unreadable_folders])
    origin = [[*recording.generated_from]] if recording.generated_from else []
    return digest([STORE_FORMAT, _READING, recording.path and fingerprint_media(recording.path), people, *origin])


def _identity(annotation: Annotation) -> list[Any]:
    labels = None if annotation.labels is None else annotation.labels.tolist()
    return [annotation.split, labels, [[span.label, span.start, str(span.end)] for span in annotation.spans]]


def _size(entry: os.DirEntry[str]) -> int:
    try:
        return entry.stat().st_size
    except OSError as error:  # a symbolic link without a target
        if is_machine_error(error):
            raise
        return -1


def _same(folder: Path, source: str, crops: dict[str, Crops]) -> bool:
    """Whether a folder is complete and made from the same files. A repaired crop may have its old size, so it is
    read."""
    try:
        entry = read_recording(folder)
        if entry["source"] != source:
            return False
        whole = all((folder / name).stat().st_size == size for name, size in entry["bytes"].items())
        broken = [crops[name].files[frame] for name, video in entry["videos"].items() for frame in video["unreadable"]]
        return whole and not any(map(is_usable, broken))
    except (StoreError, KeyError, OSError) as error:
        if is_machine_error(error):
            raise
        return False
