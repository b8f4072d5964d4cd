"""RAVDESS: acted speech and song, as audio or video, described by the file's name.

`03-01-05-01-02-01-12.wav`: modality (01 video with audio, 02 video, 03 audio), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor. It has no split of its own.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from abaw_expr.data.datasets.clips import ClipRow, find_files
from abaw_expr.data.media.sources import AUDIO_SUFFIXES, decodable_streams
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import VIDEO_SUFFIXES

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""By their code, from 1."""
_NAME = re.compile(r"0[1-3]-0[12](-\d\d){5}")


def read_rows(root: Path, problems: list[Problem]) -> Iterator[ClipRow]:
    """A row a performance, with the file of it that has most modalities."""
    performances: dict[str, list[Path]] = defaultdict(list)
    for path in find_files(root, VIDEO_SUFFIXES + AUDIO_SUFFIXES, problems):
        if not _NAME.fullmatch(path.stem):
            remedy = "Move other files out of the folder, or describe the clips in a CSV file."
            raise ReleaseError("is not a RAVDESS name", path=path, expected="as 03-01-05-01-02-01-12", remedy=remedy)
        performances[path.stem.split("-", 1)[1]].append(path)
    for performance, paths in sorted(performances.items()):
        _, code, *_, actor = performance.split("-")
        emotion = EMOTIONS[int(code) - 1] if 1 <= int(code) <= len(EMOTIONS) else code
        yield ClipRow(_best(sorted(paths, key=lambda path: path.name), problems), emotion, actor)


def _best(paths: Sequence[Path], problems: list[Problem]) -> Path:
    """The file with audio and video, else with audio, else with video; the first of equal ones.

    Reported where that is not the video with audio, which comes first by name.
    """
    if len(paths) == 1:
        return paths[0]
    best, best_worth = paths[0], -1
    for path in paths:
        streams = decodable_streams(path)
        worth = ("video" in streams) + 2 * ("audio" in streams)
        if worth > best_worth:
            best, best_worth = path, worth
        if worth == 3:
            break
    if best != paths[0] or best_worth < 3:
        detail = f"of {', '.join(path.name for path in paths)}, {best.name} is used"
        remedy = "None needed: it has most modalities; download the video with audio (01) again if there is one."
        problems.append(Problem("performance in several files", best.stem, detail, remedy))
    return best
