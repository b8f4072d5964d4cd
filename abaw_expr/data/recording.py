"""One recording of a release -> one folder of the store, whole or not at all."""

import os
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import av
import numpy as np

from abaw_expr.data.clocks import seconds_of
from abaw_expr.data.crops import Crops, Seen, crop_problems, jpeg_shape, list_crops, read_crop, read_crops
from abaw_expr.data.media import SAMPLE_RATE, Sound
from abaw_expr.data.problems import Problem
from abaw_expr.data.release import Recording, Video
from abaw_expr.data.retry import read_through, retried
from abaw_expr.data.soundcheck import check_sound, sound_check_problems
from abaw_expr.data.sources import fingerprint, kind_of, read_faces, read_sound, read_times
from abaw_expr.data.store import FORMAT, RECORDING_FILE, Frames, check_replaceable, pack, read_recording, write_frames
from abaw_expr.errors import StoreError, of_machine, shorten
from abaw_expr.files import atomic, digest, file_digest, write_json
from abaw_expr.version import VERSION

LINES_OFF = range(-1, 3)
"""Label lines minus pictures of the video that the real release shows everywhere."""
SOUND_OFF = 1.0
"""Seconds by which sound may end before or after the picture without being reported."""


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
    times, problems = _clock(recording)
    videos: dict[str, Any] = {}
    sound = None
    if times is not None:
        sound = _write_sound(recording, folder, float(times[-1]), problems)
        for video in recording.videos:
            videos[video.name] = _write_video(video, crops[video.name], times, folder, problems)
    files = sorted(folder.iterdir())
    entry = {
        "format": FORMAT,
        "version": VERSION,
        "recording": recording.name,
        "source": source,
        "pictures": 0 if times is None else len(times),
        "seconds": None if times is None else float(times[-1]),
        "rate": None if times is None or len(times) < 2 else (len(times) - 1) / float(times[-1]),
        "sound": sound,
        "videos": videos,
        "problems": [asdict(problem) for problem in problems],
        "files": {path.name: file_digest(path) for path in files},
        "bytes": {path.name: path.stat().st_size for path in files},
    }
    write_json(folder / RECORDING_FILE, entry)


def _clock(recording: Recording) -> tuple[np.ndarray | None, list[Problem]]:
    """When each picture is shown; None with the reason where that cannot be known."""
    path = recording.path
    if path is None or not path.exists():
        wanted = f"{recording.name} with a video's ending" if path is None else path.name
        kind, detail = "no video file", f"no file {wanted} in the release"
        remedy = "Add the video to the release and run prepare again."
    else:
        what = kind_of(path)
        kind, remedy = f"unreadable {what}", f"Download the {what} again and run prepare again."
        try:
            times = retried(path, lambda: read_times(path))
            if len(times):
                return times, []
            detail = "it holds no picture"
        except av.FFmpegError as error:
            detail = str(error.strerror)
    return None, [Problem(kind, video.name, detail, remedy) for video in recording.videos]


def _write_sound(recording: Recording, folder: Path, end: float, problems: list[Problem]) -> dict[str, Any] | None:
    # torch takes two seconds to import: only here, where it is needed
    from abaw_expr.data.logmel import log_mel

    path = recording.path
    assert path is not None
    sound = retried(path, lambda: read_sound(path))
    if sound is not None and sound.problem is not None:
        read_through(path)
    if kind_of(path) != "pictures":  # which never have any
        problems += _sound_problems(recording.name, sound, end)
    if sound is None or not len(sound.samples):
        return None
    check = check_sound(sound.samples)
    problems += sound_check_problems(recording.name, check)
    mel = log_mel(sound.samples)
    np.save(folder / "sound.npy", mel)
    wide = mel.astype(np.float64)
    seconds = len(sound.samples) / SAMPLE_RATE
    statistics = {"mean": wide.mean(axis=0).tolist(), "std": wide.std(axis=0).tolist()}
    return {"seconds": seconds, **asdict(check), **statistics}


def _sound_problems(name: str, sound: Sound | None, end: float) -> Iterator[Problem]:
    if sound is None:
        yield Problem("no sound", name, "the video has no sound", "None needed: the picture decides alone.")
        return
    if sound.streams > 1:
        remedy = "None needed if that is the right one; else leave only the right one in the file."
        yield Problem("several sounds", name, f"{sound.streams} streams of sound, the first is taken", remedy)
    if sound.problem is not None:
        yield Problem("damaged sound", name, sound.problem, "Download the video again; until then the picture decides.")
    seconds = len(sound.samples) / SAMPLE_RATE
    detail = f"sound ends at {seconds:.1f} s, the picture at {end:.1f} s"
    if seconds < end - SOUND_OFF:
        yield Problem("short sound", name, detail, "None needed: the picture decides alone after that.")
    elif seconds > end + SOUND_OFF:
        yield Problem("long sound", name, detail, "None needed: what is heard after the last picture is not asked for.")


def _write_video(
    video: Video, crops: Crops, times: np.ndarray, folder: Path, problems: list[Problem]
) -> dict[str, Any]:
    rows = max(len(times), video.lines, max(crops.files, default=0))
    offset, size = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    seen, spoilt = Seen(), list[str]()
    good = read_crops(crops, seen) if video.faces is None else read_faces(video.faces, seen.frames, spoilt)
    places = pack(folder / f"{video.name}.tar", good)
    for frame, place in zip(seen.frames, places, strict=True):
        offset[frame - 1], size[frame - 1] = place
    time = seconds_of(np.arange(1, rows + 1), times)
    write_frames(folder / f"{video.name}.parquet", Frames(time, video.labels_at(time), offset, size))
    if spoilt:
        detail = f"{len(spoilt)} unreadable: {shorten(spoilt)}"
        problems.append(Problem("unreadable crops", video.name, detail, "Unpack the pictures again."))
    problems += crop_problems(video.name, crops, seen)
    problems += _video_problems(video, crops, len(times), rows, len(places))
    counts = {"frames": rows, "lines": video.lines, "crops": len(places)}
    return {"split": video.split, **counts, "unreadable": [*seen.unreadable]}


def _video_problems(video: Video, crops: Crops, pictures: int, rows: int, count: int) -> Iterator[Problem]:
    if not count and not crops.closed and video.filmed:
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
    return digest([FORMAT, recording.path and fingerprint(recording.path), people])


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
        return whole and not any(jpeg_shape(read_crop(crop.path)) for crop in broken)
    except (StoreError, KeyError, OSError) as error:
        if of_machine(error):
            raise
        return False
