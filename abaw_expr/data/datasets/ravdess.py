"""RAVDESS: acted speech and song, sound alone or film, told by the file's name.

`03-01-05-01-02-01-12.wav`: modality (01 film with sound, 02 film, 03 sound), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor. It has no split of its own.
"""

import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

from abaw_expr.data.datasets.clips import Row, find_files
from abaw_expr.data.media.sources import SOUND_SUFFIXES, held_in
from abaw_expr.data.problems import Problem
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import VIDEO_SUFFIXES

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""By their code, from 1."""
_NAME = re.compile(r"0[1-3]-0[12](-\d\d){5}")


def read_rows(root: Path, problems: list[Problem]) -> Iterator[Row]:
    """A row a performance; of several files of one, that which can teach most is taken."""
    performances: dict[str, list[Path]] = defaultdict(list)
    for path in find_files(root, VIDEO_SUFFIXES + SOUND_SUFFIXES, problems):
        if not _NAME.fullmatch(path.stem):
            remedy = "Move out of the folder what is not RAVDESS, or describe the clips in a CSV."
            raise ReleaseError("is not a RAVDESS name", path=path, expected="as 03-01-05-01-02-01-12", remedy=remedy)
        performances[path.stem.split("-", 1)[1]].append(path)
    for performance, paths in sorted(performances.items()):
        _, code, *_, actor = performance.split("-")
        emotion = EMOTIONS[int(code) - 1] if 1 <= int(code) <= len(EMOTIONS) else code
        yield Row(_best(sorted(paths, key=lambda path: path.name), problems), emotion, actor)


def _best(paths: Sequence[Path], problems: list[Problem]) -> Path:
    """The file with sound and pictures, else with sound, else with pictures; the first of equal ones.

    Told where that is not the film with sound, which comes first by name.
    """
    if len(paths) == 1:
        return paths[0]
    best, most = paths[0], -1
    for path in paths:
        held = held_in(path)
        worth = ("pictures" in held) + 2 * ("sound" in held)
        if worth > most:
            best, most = path, worth
        if worth == 3:
            break
    if best != paths[0] or most < 3:
        detail = f"of {', '.join(path.name for path in paths)} it is {best.name} that is taken"
        remedy = "None needed: it can teach most; download the film with sound (01) again if it is there."
        problems.append(Problem("performance in several files", best.stem, detail, remedy))
    return best
