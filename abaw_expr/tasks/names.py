"""Names that are spelled in more than one way: in another case or Unicode form, with folders or a suffix."""

import unicodedata
from collections import defaultdict
from collections.abc import Iterable

VIDEO_SUFFIXES = (
    *(".mp4", ".avi", ".mkv", ".mov", ".webm", ".m4v", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts", ".wmv", ".flv"),
    ".3gp",
)


def matched(wanted: Iterable[str], found: Iterable[str]) -> dict[str, str]:
    """The found name that matches each wanted one.

    It is the same name, or else the only one that differs in case, Unicode form or spaces alone.
    """
    wanted, found = set(wanted), set(found)
    similar: dict[str, tuple[list[str], list[str]]] = defaultdict(lambda: ([], []))
    for side, names in enumerate((wanted - found, found - wanted)):
        for name in names:
            similar[_normalised(name)][side].append(name)
    pairs = {name: name for name in wanted & found}
    return pairs | {left[0]: right[0] for left, right in similar.values() if len(left) == len(right) == 1}


def meant_names(found: Iterable[str], names: Iterable[str]) -> dict[str, str]:
    """The name of `names` that each found one means, of those that mean one: `cropped_aligned/12.mp4` means `12`.

    Where two found names could mean the same one, the one spelled like it counts, else none.
    """
    found, known = set(found), set(names)
    bare: dict[str, list[str]] = defaultdict(list)
    for name in found - known:
        bare[_bare(name)].append(name)
    pairs = {name: name for name in found & known}
    others = matched(known - found, bare)
    return pairs | {bare[meant][0]: name for name, meant in others.items() if len(bare[meant]) == 1}


def _bare(name: str) -> str:
    """A name without folders of either system, a video's suffix and spaces around it."""
    last = name.replace("\\", "/").strip().strip("/").rpartition("/")[2].strip()
    ending = next((suffix for suffix in VIDEO_SUFFIXES if last.lower().endswith(suffix)), "")
    return last[: len(last) - len(ending)]


def _normalised(name: str) -> str:
    return " ".join(unicodedata.normalize("NFC", name).casefold().split())


PERSON_SUFFIXES = ("_left", "_right")


def recording_of(video: str) -> str:
    """The recording that a video belongs to: `<id>_left` and `<id>_right` are two people in one video, `<id>`.

    Only a final `_left` or `_right` is stripped; endings such as `-2` and `_3` belong to the id.
    """
    for suffix in PERSON_SUFFIXES:
        if video.endswith(suffix):
            return video.removesuffix(suffix)
    return video


def frame_name(video: str, frame: int) -> str:
    """The image location of a frame in a template, `<video>/00001.jpg`; frames count from 1."""
    return f"{video}/{crop_name(frame)}"


def crop_name(frame: int) -> str:
    """The file name of a frame's crop, with at least five digits; frames count from 1."""
    return f"{frame:05d}.jpg"
