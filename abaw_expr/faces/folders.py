"""The folders of crops of each video: two videos never share one, and files of other origin are never replaced.

<out>/cropped_aligned_found/<video>, <video>_left, <video>_right   the folders that a video may have
<out>/found_faces/<video>.json                                     lists under `frames` the people it has
"""

import os
import unicodedata
from collections.abc import Collection, Mapping
from pathlib import Path

from abaw_expr.data.release.crops import frame_of
from abaw_expr.errors import ReleaseError, UserError, VideoError, shorten
from abaw_expr.faces.choose import CHOICE_SUFFIXES
from abaw_expr.files import read_json
from abaw_expr.tasks.names import recording_of

CROPS = "cropped_aligned_found"
"""The root of crops; its prefix is that of the organisers' roots, and it sorts after them."""
FOUND = "found_faces"


def check_folders(out: Path, people: Mapping[str, Collection[str]]) -> None:
    """Raises ReleaseError where a folder of crops may belong to two videos, of these or of an earlier run.

    `people` are the people (main, left, right) who may be in each video.
    """
    owners: dict[str, str] = {}
    for name in people:
        for folder in sorted({name + CHOICE_SUFFIXES[person] for person in people[name]} | folders_made(out, name)):
            other = owners.setdefault(_plain(folder), name)
            before = [old for old in {folder, recording_of(folder)} - {*people} if folder in folders_made(out, old)]
            for owner in [other, *before]:
                if owner != name:
                    raise ReleaseError(
                        f"the faces of {owner} and of {name} may have the same folder of crops",
                        path=out / CROPS / folder,
                        remedy="Rename one of the two video files, or name another --out for it.",
                    )


def check_output_files(out: Path, video: Path, endings: Collection[str]) -> None:
    """Raises VideoError where an output file is the video itself, or exists although no output of that video was
    written."""
    made = (out / FOUND / f"{video.stem}.json").exists()
    for target in [out / (video.stem + suffix + ending) for suffix in CHOICE_SUFFIXES.values() for ending in endings]:
        if target.exists() and (not made or target.resolve() == video.resolve()):
            problem = "would be overwritten, but was not made by this command"
            raise VideoError(problem, path=target, remedy="Move it elsewhere, or name another --out.")


def folders_made(out: Path, name: str) -> set[str]:
    """The names of the folders of crops that were made for a video, by its JSON file."""
    try:
        metadata = read_json(out / FOUND / f"{name}.json", ReleaseError, "")
    except UserError:
        return set()
    frames = metadata.get("frames") if isinstance(metadata, dict) else None
    return (
        {name + CHOICE_SUFFIXES[person] for person in frames if person in CHOICE_SUFFIXES}
        if isinstance(frames, dict)
        else set()
    )


def check_replaceable_crops(folder: Path, made: bool, frame_count: int) -> None:
    """Raises ReleaseError where a folder to be replaced was not `made` by this project, or holds other files than crops
    of a video of so many frames."""
    if not folder.is_dir():
        return
    others = sorted(name for name in os.listdir(folder) if not made or not 1 <= (frame_of(name) or 0) <= frame_count)
    if others:
        raise ReleaseError(
            "would be replaced, but holds files that this command did not make",
            path=folder,
            found=shorten(others),
            remedy="Move it elsewhere, or name another --out.",
        )


def _plain(name: str) -> str:
    """Names that some file systems take for the same one become equal."""
    return unicodedata.normalize("NFC", name).casefold()
