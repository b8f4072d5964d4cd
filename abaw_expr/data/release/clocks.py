"""When the frames of videos are shown, off the clocks of their files.

Shapes: T frames of a video, n pictures of its file.
"""

from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.media.decode import read_times
from abaw_expr.data.problems import Problem
from abaw_expr.data.walk import films_of, find_films
from abaw_expr.errors import ReleaseError, UserError, shorten

Times = NDArray[np.float64]


def times_of(
    frames: Mapping[str, NDArray[np.integer]], folder: Path, tell: Callable[[Problem], object] = lambda problem: None
) -> dict[str, Times]:
    """The seconds of each video's frames, [T], off its file at any depth of a folder.

    What is wrong there is told one by one. Raises ReleaseError where a file is absent or cannot be read.
    """
    films, problems = find_films(folder)
    file_of = {video: film.path for video, film in films_of(frames, films, folder, problems).items()}
    for problem in problems:
        tell(problem)
    missing = sorted(video for video, file in file_of.items() if file is None)
    if missing:
        raise ReleaseError("lacks video files", path=folder, found=f"{len(missing)} missing: {shorten(missing)}")
    clocks = {file: _read(file) for file in set(file_of.values()) if file is not None}
    return {video: seconds_of(frames[video], clocks[file]) for video, file in file_of.items() if file is not None}


def seconds_of(frames: NDArray[np.integer], pictures: Times) -> Times:
    """When frames [T] are shown, from the times of a file's pictures [n]; at its mean rate beyond the last."""
    last = len(pictures)
    step = pictures[-1] / max(last - 1, 1)
    return pictures[np.minimum(frames, last) - 1] + step * np.maximum(frames - last, 0)


def _read(path: Path) -> Times:
    try:
        pictures = read_times(path)
    except av.FFmpegError as error:
        raise ReleaseError(f"is not a readable video ({error.strerror})", path=path) from error
    if not len(pictures):
        raise ReleaseError("holds no pictures", path=path)
    return pictures


def times_of_frames(
    frames: Mapping[str, NDArray],
    videos: Path | None,
    rate: float | None,
    tell: Callable[[Problem], object] = lambda problem: None,
) -> Mapping[str, NDArray]:
    """The seconds of each video's frames, [T], off the clock of its file in a folder of videos, or at one rate.

    Raises UserError where there is neither, and ReleaseError as `times_of` does.
    """
    if videos is not None:
        return times_of(frames, videos, tell)
    if rate is None or not 0 < rate < float("inf"):
        expected = "frames a second, or --videos with the folder of the video files"
        raise UserError("--rate cannot be used", found=rate, expected=expected)
    return {video: (numbers - 1) / rate for video, numbers in frames.items()}
