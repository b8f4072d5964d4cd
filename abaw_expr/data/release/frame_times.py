"""Times of video frames, from the clocks of their files.

Shapes: T frames of a video, n frames of its file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.discovery import find_video_files, video_files_of
from abaw_expr.data.media.decode import read_times
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError, UserError, shorten

Times = NDArray[np.float64]


def times_of(
    frames: Mapping[str, NDArray[np.integer]],
    folder: Path,
    on_problem: Callable[[Problem], object] = lambda problem: None,
) -> dict[str, Times]:
    """The times float64 [T], in seconds, of each video's frames [T], from its file at any depth of a folder.

    Frames count from 1. `on_problem` is called with each defect of the folder. Raises ReleaseError where a file is
    missing or cannot be read.
    """
    video_files, problems = find_video_files(folder)
    matched = video_files_of(frames, video_files, folder, problems)
    file_of = {video: video_file.path for video, video_file in matched.items()}
    for problem in problems:
        on_problem(problem)
    missing = sorted(video for video, file in file_of.items() if file is None)
    if missing:
        raise ReleaseError("lacks video files", path=folder, found=f"{len(missing)} missing: {shorten(missing)}")
    clocks = {file: _read_times(file) for file in set(file_of.values()) if file is not None}
    return {video: seconds_of(frames[video], clocks[file]) for video, file in file_of.items() if file is not None}


def seconds_of(frames: NDArray[np.integer], times: Times) -> Times:
    """Times [T] of frames [T] from the times [n] of their file's frames; after the last one at the file's mean rate."""
    last = len(times)
    step = times[-1] / max(last - 1, 1)
    return times[np.minimum(frames, last) - 1] + step * np.maximum(frames - last, 0)


def _read_times(path: Path) -> Times:
    try:
        times = read_times(path)
    except av.FFmpegError as error:
        raise ReleaseError(f"is not a readable video ({error.strerror})", path=path) from error
    if not len(times):
        raise ReleaseError("holds no video frames", path=path)
    return times


def times_of_frames(
    frames: Mapping[str, NDArray],
    videos: Path | None,
    rate: float | None,
    on_problem: Callable[[Problem], object] = lambda problem: None,
) -> Mapping[str, NDArray]:
    """The times [T], in seconds, of each video's frames [T]: from its file in a folder of videos, or at one rate.

    Raises UserError where neither is given, and ReleaseError as `times_of` does.
    """
    if videos is not None:
        return times_of(frames, videos, on_problem)
    if rate is None or not 0 < rate < float("inf"):
        expected = "frames a second, or --videos with the folder of the video files"
        raise UserError("--rate cannot be used", found=rate, expected=expected)
    return {video: (numbers - 1) / rate for video, numbers in frames.items()}
