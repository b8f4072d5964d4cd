"""Where things lie in a release: a walk over its folders, and names that are written in more than one way.

Folders may be links; one that leads back above itself is entered once. Nothing is opened here.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path

from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.errors import ReleaseError, of_machine
from abaw_expr.files import check_name
from abaw_expr.spellings import VIDEO_SUFFIXES
from abaw_expr.tasks import Challenge, recording_of

CROP_ROOTS = "cropped_aligned*"


@dataclass
class Found:
    """What a walk through the release meets."""

    annotations: list[Path] = field(default_factory=list)
    crops: list[dict[str, Path]] = field(default_factory=list)
    """Of each root of crops, its folders by name."""
    test_lists: list[Path] = field(default_factory=list)
    videos: dict[str, Path] = field(default_factory=dict)
    """By name without ending."""
    problems: list[Problem] = field(default_factory=list)


def walk(root: Path, task: Challenge) -> Found:
    """Looks through the release without entering folders of crops, which hold millions of files."""
    found = Found()

    def closed(error: OSError) -> None:
        if of_machine(error):
            raise error
        found.problems.append(_closed(Path(error.filename), root, error))

    entered = {_identity(root)}
    for folder, subfolders, files in os.walk(root, onerror=closed, followlinks=True):
        here = Path(folder)
        subfolders[:] = [name for name in sorted(subfolders) if _is_new(here / name, root, entered, found)]
        for name in [name for name in subfolders if fnmatch(name.lower(), CROP_ROOTS)]:
            subfolders.remove(name)
            found.crops.append(_crop_folders(here / name, root, found))
        found.annotations += [here / name for name in subfolders if name in task.annotation_folders]
        for name in sorted(files):
            _meet(here / name, root, task, found)
    return found


def find_films(folder: Path) -> dict[str, Path]:
    """The video files at any depth of a folder, by name without ending."""
    return {path.stem: path for path in sorted(folder.rglob("*")) if path.suffix.lower() in VIDEO_SUFFIXES}


def film_of(video: str, films: Mapping[str, Path]) -> Path | None:
    """A video's file: `<id>_left` and `<id>_right` are in that of `<id>`, if they have none themselves."""
    return films.get(video) or films.get(recording_of(video))


def misspelt(name: str, what: str, path: Path, root: Path) -> Problem:
    """What is told where a file or folder was matched that is not written as `name` is."""
    detail = f"its {what} is written {_place(path, root)!a}"
    return Problem("name written otherwise", name, detail, "None needed: it is taken for this video's.")


def _meet(path: Path, root: Path, task: Challenge, found: Found) -> None:
    if path.name.startswith("."):  # what an operating system leaves behind
        return
    if path.is_symlink() and not os.path.exists(path):
        found.problems.append(_broken(path, root))
    elif path.suffix.lower() in VIDEO_SUFFIXES:
        try:
            check_name(path.stem, ReleaseError, path)
        except ReleaseError as error:  # nothing that is used can name it
            detail, remedy = f"{_place(path, root)!a} {error.problem}", "None needed: it is left out."
            found.problems.append(Problem("impossible name", _place(path, root), detail, remedy))
            return
        taken = found.videos.setdefault(path.stem, path)
        if taken != path:
            detail = f"{_place(path, root)} has the name of {_place(taken, root)}, which is taken"
            remedy = "Leave the right one of the two, and run prepare again."
            found.problems.append(Problem("two video files", path.stem, detail, remedy))
    elif fnmatch(path.name.lower(), task.test_list):
        found.test_lists.append(path)


def _crop_folders(crops: Path, root: Path, found: Found) -> dict[str, Path]:
    """The folders of a root of crops by name."""
    folders = {}
    try:
        names = sorted(os.listdir(crops))
    except OSError as error:
        if of_machine(error):
            raise
        found.problems.append(_closed(crops, root, error))
        return {}
    for path in (crops / name for name in names):
        if os.path.isdir(path):  # False, where pathlib's raises, for a link to itself
            if _leads_back(path):
                found.problems.append(_loop(path, root))
            else:
                folders[path.name] = path
        elif path.is_symlink():
            found.problems.append(_broken(path, root))
    return folders


def _is_new(folder: Path, root: Path, entered: set[tuple[int, int]], found: Found) -> bool:
    """Whether a folder was not met before by another name; told where it leads back above itself."""
    try:
        identity = _identity(folder)
    except OSError:
        return True  # entering it will tell
    if identity not in entered:
        entered.add(identity)
        return True
    if _leads_back(folder):
        found.problems.append(_loop(folder, root))
    return False


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _closed(path: Path, root: Path, error: OSError) -> Problem:
    return Problem("unreadable folder", _place(path, root), str(error.strerror), READ_RIGHT)


def _loop(path: Path, root: Path) -> Problem:
    detail = f"a link to {os.readlink(path)}, a folder that it lies in"
    return Problem("link loop", _place(path, root), detail, "None needed: it is left out.")


def _broken(path: Path, root: Path) -> Problem:
    remedy = "Bring back what it leads to, or remove the link, and run prepare again."
    return Problem("broken link", _place(path, root), f"a link to {os.readlink(path)}, which leads nowhere", remedy)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _place(path: Path, root: Path) -> str:
    return str(path.relative_to(root))
