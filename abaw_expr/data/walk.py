"""Where things lie in a folder: the one walk that every command and data set takes, and names written otherwise.

What systems leave behind is not there. Folders may be links; one that leads back above itself is entered once. A folder
that holds nothing but one of its own name, as unpacking makes it, is that one. Nothing is opened here.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.errors import ReleaseError, of_machine
from abaw_expr.files import IRREGULAR, check_name
from abaw_expr.tasks.names import VIDEO_SUFFIXES, matched, recording_of
from abaw_expr.tasks.task import Task

CROP_ROOTS = "cropped_aligned*"
_LEFTOVERS = {
    *("__macosx", "temporary items", "network trash folder"),
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    *("@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
"""What systems leave in folders, besides what begins with a dot: of macOS, of disks, of stores on a network; files."""
_ORIGIN = ":zone.identifier"
"""How files end by which Windows says of others that they were downloaded."""


@dataclass
class Found:
    """What a walk through a release meets."""

    annotations: list[Path] = field(default_factory=list)
    crops: list[dict[str, Path]] = field(default_factory=list)
    """Of each root of crops, its folders by name."""
    test_lists: list[Path] = field(default_factory=list)
    videos: dict[str, Path] = field(default_factory=dict)
    """By name without ending."""
    problems: list[Problem] = field(default_factory=list)


class Film(NamedTuple):
    """The file that shows a video."""

    name: str
    """What it is called, as the video is written."""
    path: Path | None
    """None where there is none."""


def is_leftover(name: str) -> bool:
    """Whether a file or folder is of the system and not of the user: it is never entered or told."""
    plain = name.casefold()
    return plain.startswith(".") or plain in _LEFTOVERS or plain.endswith(_ORIGIN)


def innermost(folder: Path) -> Path:
    """The folder, or the one of the same name that is all it holds, which unpacking into a folder makes."""
    while True:
        inner = folder / folder.name
        try:
            if not inner.is_dir() or _leads_back(inner):
                return folder
            if any(name != folder.name and not is_leftover(name) for name in os.listdir(folder)):
                return folder
        except OSError as error:
            if of_machine(error):
                raise
            return folder
        folder = inner


def tour(root: Path, problems: list[Problem]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder under a root, from above, with the names of its folders and files in order; each once.

    Names that the caller takes out of the folders are not entered. What is wrong goes to `problems`.
    """

    def closed(error: OSError) -> None:
        if of_machine(error):
            raise error
        problems.append(_closed(Path(error.filename), root, error))

    entered = {_identity(root)}
    for folder, subfolders, files in os.walk(root, onerror=closed, followlinks=True):
        here = Path(folder)
        names = [name for name in sorted(subfolders) if not is_leftover(name)]
        subfolders[:] = [name for name in names if _is_new(here / name, root, entered, problems)]
        whole = []
        for name in sorted(name for name in files if not is_leftover(name)):
            missing = _no_file(here / name, root)
            if missing is None:
                whole.append(name)
            else:
                problems.append(missing)
        yield here, subfolders, whole


def walk(root: Path, task: Task) -> Found:
    """Looks through the release without entering folders of crops, which hold millions of files."""
    found = Found()
    for here, subfolders, files in tour(root, found.problems):
        for name in _take_crop_roots(subfolders):
            found.crops += crop_folders(here / name, root, found.problems)
        annotations = [here / name for name in subfolders if name in task.annotation_folders]
        found.annotations += [folder for folder in annotations if innermost(folder) == folder]
        for name in files:
            _meet_film(here / name, root, found.videos, found.problems)
            if fnmatch(name.lower(), task.test_list):
                found.test_lists.append(here / name)
    return found


def find_films(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """The video files at any depth of a folder, by name without ending, as of a release, and what is wrong there."""
    films, problems = dict[str, Path](), list[Problem]()
    if not folder.is_dir():
        return films, problems
    for here, subfolders, files in tour(folder, problems):
        _take_crop_roots(subfolders)
        for name in files:
            _meet_film(here / name, folder, films, problems)
    return films, problems


def films_of(videos: Iterable[str], films: Mapping[str, Path], root: Path, problems: list[Problem]) -> dict[str, Film]:
    """The film of each video; told where it is written otherwise.

    `<id>_left` and `<id>_right` are in the film of `<id>`, if they have none themselves.
    """
    names = list(videos)
    meant = matched({alias for name in names for alias in (name, recording_of(name))}, films)
    found = {name: name if name in meant else recording_of(name) for name in names}
    otherwise = sorted(alias for alias in set(found.values()) if meant.get(alias, alias) != alias)
    problems += [misspelt(alias, "video file", films[meant[alias]], root) for alias in otherwise]
    return {name: Film(alias, films.get(meant.get(alias, alias))) for name, alias in found.items()}


def crops_of(
    videos: Iterable[str], crops: Iterable[Mapping[str, Path]], root: Path, problems: list[Problem]
) -> dict[str, tuple[Path, ...]]:
    """The folders of crops of each video, of every root that has one; told where they are written otherwise."""
    found: dict[str, tuple[Path, ...]] = dict.fromkeys(videos, ())
    for folders in crops:
        for name, meant in sorted(matched(found, folders).items()):
            found[name] += (folders[meant],)
            if name != meant:
                problems.append(misspelt(name, "folder of crops", folders[meant], root))
    return found


def misspelt(name: str, what: str, path: Path, root: Path) -> Problem:
    """What is told where a file or folder was matched that is not written as `name` is."""
    detail = f"its {what} is written {_place(path, root)!a}"
    return Problem("name written otherwise", name, detail, "None needed: it is taken for this video's.")


def _take_crop_roots(subfolders: list[str]) -> list[str]:
    """Takes the roots of crops out of names of folders, and returns them."""
    roots = [name for name in subfolders if fnmatch(name.lower(), CROP_ROOTS)]
    subfolders[:] = [name for name in subfolders if name not in roots]
    return roots


def _meet_film(path: Path, root: Path, films: dict[str, Path], problems: list[Problem]) -> None:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return
    try:
        check_name(path.stem, ReleaseError, path)
    except ReleaseError as error:  # nothing that is used can name it
        detail, remedy = f"{_place(path, root)!a} {error.problem}", "None needed: it is left out."
        problems.append(Problem("impossible name", _place(path, root), detail, remedy))
        return
    taken = films.setdefault(path.stem, path)
    if taken != path and not os.path.samefile(taken, path):
        detail = f"{_place(path, root)} has the name of {_place(taken, root)}, which is taken"
        problems.append(Problem("two video files", path.stem, detail, "Leave the right one of the two, and run again."))


def crop_folders(crops: Path, root: Path, problems: list[Problem]) -> list[dict[str, Path]]:
    """The folders by name of a root of crops, and of roots inside it."""
    folders: dict[str, Path] = {}
    roots = [folders]
    try:
        names = sorted(os.listdir(crops))
    except OSError as error:
        if of_machine(error):
            raise
        problems.append(_closed(crops, root, error))
        return []
    for path in (crops / name for name in names if not is_leftover(name)):
        if _is_folder(path):
            if _leads_back(path):
                problems.append(_loop(path, root))
            elif fnmatch(path.name.lower(), CROP_ROOTS):
                roots += crop_folders(path, root, problems)
            else:
                folders[path.name] = innermost(path)
        elif path.is_symlink():
            problems.append(_broken(path, root))
    return roots


def _is_folder(path: Path) -> bool:
    """Whether a folder is there; a link that leads nowhere, or to itself, is none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if of_machine(error):
            raise
        return False


def _is_new(folder: Path, root: Path, entered: set[tuple[int, int]], problems: list[Problem]) -> bool:
    """Whether a folder was not met before by another name; told where it leads back above itself."""
    try:
        identity = _identity(folder)
    except OSError:
        return True  # entering it will tell
    if identity not in entered:
        entered.add(identity)
        return True
    if _leads_back(folder):
        problems.append(_loop(folder, root))
    return False


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _no_file(path: Path, root: Path) -> Problem | None:
    """What is to be told where nothing can be read, by a link or else; None of a file."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return None
    except OSError as error:
        if of_machine(error):
            raise
        if os.path.islink(path):
            return _broken(path, root)
        return Problem("unreadable file", _place(path, root), str(error.strerror), READ_RIGHT)
    return Problem("irregular file", _place(path, root), IRREGULAR, "None needed: it is left out.")


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
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
