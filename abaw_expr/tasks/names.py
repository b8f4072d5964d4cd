"""Names that are written in more than one way: in another case or Unicode form, with folders or a file's ending."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    ".3gp",
)


def matched(wanted: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """The found name that each wanted one means.

    It is the same; else the only one left that differs in case, in Unicode form or in spaces alone.
    """
    ours, theirs = set(wanted), set(found)
    alike: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((ours - theirs, theirs - ours)):
        for name in names:
            alike[_plain(name)][side].append(name)
    pairs = {name: name for name in ours & theirs}
    return pairs | {left[0]: right[0] for left, right in alike.values() if len(left) == len(right) == 1}


def meant_names(found: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """Which of the `names` each found one means, of those that mean one: `cropped_aligned/12.mp4` means `12`.

    Where two found ones could mean the same name, the one that is written as it counts, else none does.
    """
    found, known = set(found), set(names)
    bare: dict[str, list[str]] = defaultdict(list)
    for name in found - known:
        bare[_bare(name)].append(name)
    pairs = {name: name for name in found & known}
    others = matched(known - found, bare)
    return pairs | {bare[meant][0]: name for name, meant in others.items() if len(bare[meant]) == 1}


def _bare(name: str) -> str:
    """A name without folders of either system, a video's ending and spaces around it."""
    last = name.replace("\\", "/").strip().strip("/").rpartition("/")[2].strip()
    ending = next((suffix for suffix in VIDEO_SUFFIXES if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(ending)]


def _plain(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


PERSON_SUFFIXES = ("_left", "_right")


def recording_of(video: str) -> str:
    """The recording a video name belongs to: `<id>_left` and `<id>_right` are two people in the one video `<id>`.

    Only a final `_left` or `_right` is stripped; endings such as `-2` and `_3` belong to the id.
    """
    for suffix in PERSON_SUFFIXES:
        if video.endswith(suffix):
            return video.removesuffix(suffix)
    return video


def frame_name(video: str, frame: int) -> str:
    """A frame's row name in a template, `<video>/00001.jpg`; frames count from 1."""
    return f"{video}/{crop_name(frame)}"


def crop_name(frame: int) -> str:
    """The file name of a frame's crop, five digits at least; frames count from 1."""
    return f"{frame:05d}.jpg"
