"""RAVDESS: acted speech and song, sound alone or film, told by the file's name.

`03-01-05-01-02-01-12.wav`: modality (01 film with sound, 02 film, 03 sound), channel (01 speech, 02 song), emotion,
intensity, statement, repetition, actor. It has no split of its own.
"""

import re
from collections.abc import Iterator
from pathlib import Path

from abaw_expr.data.datasets.clips import Row, find_files
from abaw_expr.data.sources import SOUND_SUFFIXES
from abaw_expr.errors import ReleaseError
from abaw_expr.spellings import VIDEO_SUFFIXES

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")
"""By their code, from 1."""
_NAME = re.compile(r"0[1-3]-0[12](-\d\d){5}")


def read_rows(root: Path) -> Iterator[Row]:
    """A row a performance; where it is there as film and as sound, the film with sound is taken."""
    seen = set()
    for path in sorted(find_files(root, VIDEO_SUFFIXES + SOUND_SUFFIXES), key=lambda path: path.name):
        if not _NAME.fullmatch(path.stem):
            remedy = "Move out of the folder what is not RAVDESS, or describe the clips in a CSV."
            raise ReleaseError("is not a RAVDESS name", path=path, expected="as 03-01-05-01-02-01-12", remedy=remedy)
        _, performance = path.stem.split("-", 1)
        if performance in seen:
            continue
        seen.add(performance)
        _, code, *_, actor = performance.split("-")
        emotion = EMOTIONS[int(code) - 1] if 1 <= int(code) <= len(EMOTIONS) else code
        yield Row(path, emotion, actor)
