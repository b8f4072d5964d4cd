"""One recording of a release -> one folder of the store, whole or not at all."""

import hashlib
import io
import os
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from PIL import Image, UnidentifiedImageError

from abaw_expr.data.media import SAMPLE_RATE, Sound, read_sound, read_times
from abaw_expr.data.release import Recording, Video, list_crops
from abaw_expr.data.store import FORMAT, Frames, pack, read_recording, write_frames
from abaw_expr.errors import StoreError, shorten
from abaw_expr.files import atomic, digest, file_digest, write_json
from abaw_expr.version import VERSION

LINES_OFF = range(-1, 3)
"""Label lines minus pictures of the video that the real release shows everywhere."""
SOUND_SHORT = 1.0
"""Seconds by which sound may end before the picture without being reported."""


@dataclass(frozen=True)
class Problem:
    """One defect of the release, told once."""

    kind: str
    video: str
    detail: str
    remedy: str


def prepare_recording(recording: Recording, folder: Path) -> bool:
    """Prepares one recording into `folder`; False where that folder already holds it, made from the same files."""
    source = _source(recording)
    if folder.is_dir() and _same(folder, source):
        return False
    with atomic(folder) as temporary:
        temporary.mkdir()
        _fill(recording, temporary, source)
    return True


def _fill(recording: Recording, folder: Path, source: str) -> None:
    times, problems = _clock(recording)
    videos: dict[str, Any] = {}
    sound = None
    if times is not None:
        sound = _write_sound(recording, folder, float(times[-1]), problems)
        for video in recording.videos:
            videos[video.name] = _write_video(video, times, folder, problems)
    entry = {
        "format": FORMAT,
        "version": VERSION,
        "recording": recording.name,
        "source": source,
        "pictures": 0 if times is None else len(times),
        "rate": None if times is None or len(times) < 2 else (len(times) - 1) / float(times[-1]),
        "sound": sound,
        "videos": videos,
        "problems": [asdict(problem) for problem in problems],
        "files": {path.name: file_digest(path) for path in sorted(folder.iterdir())},
    }
    write_json(folder / "recording.json", entry)


def _clock(recording: Recording) -> tuple[np.ndarray | None, list[Problem]]:
    """When each picture is shown; None with the reason where that cannot be known."""
    if recording.path is None:
        kind, detail = "no video file", f"no file {recording.name} with a video's ending in the release"
        remedy = "Add the video to the release and run prepare again."
    else:
        kind, remedy = "unreadable video", "Download the video again and run prepare again."
        try:
            times = read_times(recording.path)
            if len(times):
                return times, []
            detail = "it holds no picture"
        except av.FFmpegError as error:
            detail = str(error.strerror)
    return None, [Problem(kind, video.name, detail, remedy) for video in recording.videos]


def _write_sound(recording: Recording, folder: Path, end: float, problems: list[Problem]) -> dict[str, Any] | None:
    # torch takes two seconds to import: only here, where it is needed
    from abaw_expr.data.logmel import log_mel

    assert recording.path is not None
    sound = read_sound(recording.path)
    problems += _sound_problems(recording.name, sound, end)
    if sound is None or not len(sound.samples):
        return None
    mel = log_mel(sound.samples)
    np.save(folder / "sound.npy", mel)
    wide = mel.astype(np.float64)
    seconds = len(sound.samples) / SAMPLE_RATE
    return {"seconds": seconds, "mean": wide.mean(axis=0).tolist(), "std": wide.std(axis=0).tolist()}


def _sound_problems(name: str, sound: Sound | None, end: float) -> Iterator[Problem]:
    if sound is None:
        yield Problem("no sound", name, "the video has no sound", "None needed: the picture decides alone.")
        return
    if sound.problem is not None:
        yield Problem("damaged sound", name, sound.problem, "Download the video again; until then the picture decides.")
    seconds = len(sound.samples) / SAMPLE_RATE
    if seconds < end - SOUND_SHORT:
        detail = f"sound ends at {seconds:.1f} s, the picture at {end:.1f} s"
        yield Problem("short sound", name, detail, "None needed: the picture decides alone after that.")


def _write_video(video: Video, times: np.ndarray, folder: Path, problems: list[Problem]) -> dict[str, Any]:
    crops, strangers = list_crops(video.crop_folders)
    lines = 0 if video.labels is None else len(video.labels)
    rows = max(len(times), lines, max(crops, default=0))
    offset, size = np.zeros(rows, np.int64), np.zeros(rows, np.int32)
    unreadable: list[str] = []
    good = _good_crops(crops, unreadable)
    numbers: list[int] = []
    places = pack(folder / f"{video.name}.tar", _numbered(good, numbers))
    for frame, place in zip(numbers, places, strict=True):
        offset[frame - 1], size[frame - 1] = place
    label = np.full(rows, -1, np.int8)
    if video.labels is not None:
        label[:lines] = video.labels
    write_frames(folder / f"{video.name}.parquet", Frames(_extended(times, rows), label, offset, size))
    problems += _video_problems(video, len(times), rows, len(numbers), unreadable, strangers)
    return {"split": video.split, "frames": rows, "lines": lines, "crops": len(numbers)}


def _good_crops(crops: dict[int, os.DirEntry[str]], unreadable: list[str]) -> Iterator[tuple[int, str, bytes]]:
    """(frame, file name, bytes) of every crop that is a whole JPEG; the others' names go to `unreadable`."""
    for frame, entry in crops.items():
        try:
            data = Path(entry.path).read_bytes()
        except OSError:
            data = b""
        if _is_jpeg(data):
            yield frame, entry.name, data
        else:
            unreadable.append(entry.name)


def _numbered(crops: Iterable[tuple[int, str, bytes]], numbers: list[int]) -> Iterator[tuple[str, bytes]]:
    for frame, name, data in crops:
        numbers.append(frame)
        yield name, data


def _is_jpeg(data: bytes) -> bool:
    """Whether bytes begin and end as a JPEG does; cheap, since nothing is decoded."""
    try:
        with Image.open(io.BytesIO(data), formats=["JPEG"]):
            return b"\xff\xd9" in data[-64:]
    except (UnidentifiedImageError, Image.DecompressionBombError, OSError, SyntaxError):
        return False


def _video_problems(
    video: Video, pictures: int, rows: int, crops: int, unreadable: list[str], strangers: list[str]
) -> Iterator[Problem]:
    name = video.name
    if unreadable:
        detail = f"{len(unreadable)} unreadable: {shorten(unreadable)}"
        yield Problem("unreadable crops", name, detail, "Unpack the crops again; until then these frames have none.")
    if strangers:
        detail = f"{len(strangers)} files are not named like 00001.jpg: {shorten(strangers)}"
        yield Problem("unknown files", name, detail, "None needed: they are left out.")
    if not crops:
        detail = "no folder of crops" if not video.crop_folders else "its folder of crops holds no usable picture"
        yield Problem("no crops", name, detail, "Add the crops; until then the sound decides alone.")
    lines = pictures if video.labels is None else len(video.labels)
    if lines - pictures not in LINES_OFF or rows > max(lines, pictures):
        detail = f"{lines} label lines, {pictures} pictures in the video, crops up to frame {rows}"
        yield Problem("count mismatch", name, detail, "Check that annotation, crops and video belong together.")


def _extended(times: np.ndarray, rows: int) -> np.ndarray:
    """Times of `rows` frames: beyond the video's last picture they go on at its average rate."""
    extra = rows - len(times)
    if extra <= 0:
        return times
    step = float(times[-1]) / (len(times) - 1) if len(times) > 1 else 0.0
    return np.concatenate([times, times[-1] + step * np.arange(1, extra + 1)])


def _source(recording: Recording) -> str:
    """A hash that changes when anything that a recording is made from changes."""
    people = []
    for video in recording.videos:
        crops, _ = list_crops(video.crop_folders)
        sizes = [(frame, entry.stat().st_size) for frame, entry in crops.items()]
        people.append([video.name, video.split, None if video.labels is None else video.labels.tolist(), sizes])
    path = recording.path
    return digest([FORMAT, path and [path.name, path.stat().st_size, _ends(path)], people])


def _ends(path: Path, count: int = 2**16) -> str:
    """A hash of a file's first and last bytes: a download that reserves its space has its size before its bytes."""
    with open(path, "rb") as file:
        first = file.read(count)
        file.seek(max(path.stat().st_size - count, 0))
        return hashlib.sha256(first + file.read()).hexdigest()


def _same(folder: Path, source: str) -> bool:
    try:
        return read_recording(folder)["source"] == source
    except (StoreError, KeyError):
        return False
