"""Whose folder of crops is whose: two videos never share one, and what this project did not make is never replaced.

<out>/cropped_aligned_found/<video>, <video>_left, <video>_right   may become a video's folders of crops
<out>/found_faces/<video>.json                                     says under `frames` of which people there are some
"""

import os
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from abaw_expr.data.release.crops import frame_of
from abaw_expr.errors import ReleaseError, UserError, VideoError, shorten
from abaw_expr.faces.choose import SUFFIXES
from abaw_expr.files import read_json
from abaw_expr.tasks.names import recording_of

CROPS = "cropped_aligned_found"
"""The root of crops, found by its beginning like the organisers' roots and after them."""
FOUND = "found_faces"


def check_folders(out: Path, people: Mapping[str, Collection[str]]) -> None:
    """Raises ReleaseError where a folder of crops may be that of two videos: of these, or of one seen before.

    `people` are those (main, left, right) who may be in each video.
    """
    owners: dict[str, str] = {}
    for name in people:
        for folder in sorted({name + SUFFIXES[person] for person in people[name]} | folders_made(out, name)):
            other = owners.setdefault(_plain(folder), name)
            before = [old for old in {folder, recording_of(folder)} - {*people} if folder in folders_made(out, old)]
            for owner in [other, *before]:
                if owner != name:
                    raise ReleaseError(
                        f"the faces of {owner} and of {name} may belong into one folder of crops",
                        path=out / CROPS / folder,
                        remedy="Rename one of the two video files, or name another --out for it.",
                    )


def check_answers(out: Path, video: Path, endings: Collection[str]) -> None:
    """Raises VideoError where a file that is to be written of a video's people is the video itself, or is there though
    nothing was ever written of that video."""
    made = (out / FOUND / f"{video.stem}.json").exists()
    for target in [out / (video.stem + suffix + ending) for suffix in SUFFIXES.values() for ending in endings]:
        if target.exists() and (not made or target.resolve() == video.resolve()):
            problem = "would be written over, and was not made by this command"
            raise VideoError(problem, path=target, remedy="Move it elsewhere, or name another --out.")


def folders_made(out: Path, name: str) -> set[str]:
    """The names of the folders of crops that were made for a video, as its file says."""
    try:
        said = read_json(out / FOUND / f"{name}.json", ReleaseError, "")
    except UserError:
        return set()
    frames = said.get("frames") if isinstance(said, dict) else None
    return {name + SUFFIXES[person] for person in frames if person in SUFFIXES} if isinstance(frames, dict) else set()


def check_replaceable(folder: Path, made: bool, pictures: int) -> None:
    """Raises ReleaseError where a folder is to be replaced that was not `made` by this project, or holds anything but
    crops of a video of so many pictures."""
    if not folder.is_dir():
        return
    strangers = sorted(name for name in os.listdir(folder) if not made or not 1 <= (frame_of(name) or 0) <= pictures)
    if strangers:
        raise ReleaseError(
            "would be replaced, but holds what this command did not make",
            path=folder,
            found=shorten(strangers),
            remedy="Move it elsewhere, or name another --out.",
        )


def _plain(name: str) -> str:
    """The same for names that some file systems take for one."""
    return unicodedata.normalize("NFC", name).casefold()
