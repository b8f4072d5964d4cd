"""CK+: image sequences from a neutral face to the peak of an expression; no audio.

`cohn-kanade-images/S005/001/S005_001_00000001.png` and on, `Emotion/S005/001/S005_001_00000011_emotion.txt` with one
number. It has no split of its own.

Also its copies as single faces, the last three images of each coded sequence cut to 48 x 48 pixels and sorted into a
folder a class: `CK+48/anger/S010_004_00000017.png`.
"""

import math
import re
from collections.abc import Iterator
from pathlib import Path

from abaw_expr.data.datasets.clips import ClipRow, folders_in
from abaw_expr.data.discovery import innermost, is_leftover
from abaw_expr.data.media.sources import NOMINAL_RATE, list_images
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.reader import read_text_lines
from abaw_expr.errors import ReleaseError

_IMAGES = "cohn-kanade-images"
"""The folder of all sequences."""
EMOTIONS = ("neutral", "anger", "contempt", "disgust", "fear", "happy", "sadness", "surprise")
"""By their number, from 0."""
_NEUTRAL_FRACTION, _CLASS_FRACTION = 1 / 5, 1 / 3
"""Fractions of a sequence that are neutral, at its start, and have its class, at its end; one image at least. Images
between them are not annotated (D)."""


_FACE = re.compile(r"(S\d{3})_\d{3}_\d{8}\.png", re.IGNORECASE)
"""A face of a copy, with its subject."""


def read_rows(root: Path, problems: list[Problem]) -> Iterator[ClipRow]:
    """The neutral images of every sequence, and those of its class where its emotion is coded; of a copy its faces."""
    if faces := _faces(root):
        for path in faces:
            yield ClipRow(path, path.parent.name, path.name[:4].upper())
        return
    images, emotions = (_folder(root, name, problems) for name in (_IMAGES, "Emotion"))
    for folder in _takes(images):
        subject, take = folder.parts[-2:]
        name, count = f"{subject}_{take}", len(list_images(folder))
        if not count:
            yield ClipRow(folder, "", subject, name=name)  # reported as unreadable when it is prepared
            continue
        code = _emotion(emotions / subject / take)
        if code is not None and code[0] == 0:
            yield ClipRow(folder, EMOTIONS[0], subject, name=name, source=(code[1], 1))
            continue
        first = max(1, math.floor(count * _NEUTRAL_FRACTION))
        yield ClipRow(folder, EMOTIONS[0], subject, end=_before(first), name=name)
        if code is not None and count > first:
            last = max(1, math.floor(count * _CLASS_FRACTION))
            yield ClipRow(
                folder, EMOTIONS[code[0]], subject, start=_before(count - last), name=name, source=(code[1], 1)
            )


def _faces(root: Path) -> list[Path]:
    """The single faces of a copy; none where there is a folder of sequences."""
    found = list[Path]()
    for here, folders, files in folders_in(root, []):
        if _IMAGES in folders:
            return []
        found += [here / name for name in files if _FACE.fullmatch(name)]
    return sorted(found)


def _takes(images: Path) -> list[Path]:
    folders = (folder for folder in images.glob("*/*/") if not any(map(is_leftover, folder.parts[-2:])))
    return sorted(folders)


def _before(image: int) -> float:
    """Seconds halfway between an image, counted from 0, and the one before it."""
    return (image - 0.5) / NOMINAL_RATE


def _emotion(folder: Path) -> tuple[int, Path] | None:
    """The number in a sequence's one file, and the file; None where it is not coded."""
    for path in sorted(folder.glob("[!.]*_emotion.txt")):
        text = "".join(read_text_lines(path)).strip()
        for number in range(len(EMOTIONS)):
            if _is(text, number):
                return number, path
        expected = f"a number from 0 to {len(EMOTIONS) - 1}, such as 3.0000000e+00"
        raise ReleaseError("has an unknown class", path=path, line=1, found=text, expected=expected)
    return None


def _is(text: str, number: int) -> bool:
    try:
        return float(text) == number
    except ValueError:
        return False


def _folder(root: Path, name: str, problems: list[Problem]) -> Path:
    found = [here / name for here, folders, _ in folders_in(root, problems) if name in folders]
    found = [folder for folder in found if innermost(folder) == folder]
    if len(found) != 1:
        remedy = "Unpack the images and the emotion labels under one folder, and name that folder."
        raise ReleaseError(f"holds {len(found)} folders {name}", path=root, expected="one, at any depth", remedy=remedy)
    return found[0]
