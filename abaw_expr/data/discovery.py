"""Finds videos, crops, annotations and lists in a folder, at any depth, and matches names that are spelled differently.

Every command and data set uses this one walk. Files and folders of operating systems are ignored. Symbolic links are
followed, and each folder is entered once. A folder whose only content is a folder of its own name, as archives unpack,
counts as that inner folder. No file is opened.
"""

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from abaw_expr.data.problems import READ_RIGHT, Problem
from abaw_expr.errors import ReleaseError, UserError, is_machine_error
from abaw_expr.files import IRREGULAR, check_name
from abaw_expr.tasks.names import VIDEO_SUFFIXES, matched, recording_of
from abaw_expr.tasks.task import TASKS, Task

_CROP_ROOTS = "cropped_aligned*"
_TWO_FILES = "two video files"
"""The kind of problem where a second file has the name of a video."""
_RENAME = "Rename one of them."
_LEFTOVERS = {
    *("__macosx", "temporary items", "network trash folder"),
    *("$recycle.bin", "recycler", "system volume information", "found.000", "lost+found"),
    *("@eadir", "@tmp", "#recycle", "@recycle", "#snapshot", "@recently-snapshot"),
    *("thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r"),
}
"""Names that operating systems and disks leave in folders, besides those that begin with a dot."""
_ORIGIN = ":zone.identifier"
"""The ending of files in which Windows notes that another file was downloaded."""


@dataclass
class Found:
    """What was found in a release."""

    annotations: dict[Task, list[Path]] = field(default_factory=lambda: {task: [] for task in TASKS.values()})
    """The annotation folders of each challenge."""
    crops: list[dict[str, Path]] = field(default_factory=list)
    """Of each root of crops, its folders by name."""
    test_lists: dict[Task, list[Path]] = field(default_factory=lambda: {task: [] for task in TASKS.values()})
    """The lists of test videos of each challenge."""
    videos: dict[str, Path] = field(default_factory=dict)
    """By name without suffix."""
    problems: list[Problem] = field(default_factory=list)


class VideoFile(NamedTuple):
    """The video file of a video."""

    name: str
    """Its name, spelled as the video's name is."""
    path: Path | None
    """None if there is no such file."""


def is_leftover(name: str) -> bool:
    """Whether a file or folder belongs to an operating system: it is ignored and not reported."""
    plain = name.casefold()
    return plain.startswith(".") or plain in _LEFTOVERS or plain.endswith(_ORIGIN)


def innermost(folder: Path) -> Path:
    """The folder, or the folder of the same name that is its only content, as archives unpack."""
    while True:
        inner = folder / folder.name
        try:
            if not inner.is_dir() or _leads_back(inner):
                return folder
            if any(name != folder.name and not is_leftover(name) for name in os.listdir(folder)):
                return folder
        except OSError as error:
            if is_machine_error(error):
                raise
            return folder
        folder = inner


def walk_folders(root: Path, problems: list[Problem]) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Every folder under a root, top down, with the sorted names of its folders and files; each folder once.

    Names that the caller removes from the list of folders are not entered. Defects are added to `problems`.
    """

    def closed(error: OSError) -> None:
        if is_machine_error(error):
            raise error
        problems.append(_unreadable_folder(Path(error.filename), root, error))

    visited = {_identity(root)}
    for folder, subfolders, files in os.walk(root, onerror=closed, followlinks=True):
        here = Path(folder)
        names = [name for name in sorted(subfolders) if not is_leftover(name)]
        subfolders[:] = [name for name in names if _is_new(here / name, root, visited, problems)]
        whole = []
        for name in sorted(name for name in files if not is_leftover(name)):
            missing = _file_problem(here / name, root)
            if missing is None:
                whole.append(name)
            else:
                problems.append(missing)
        yield here, subfolders, whole


def discover(root: Path) -> Found:
    """Searches a release, of any of the challenges, without entering folders of crops, which hold millions of
    files."""
    found = Found()
    for here, subfolders, files in walk_folders(root, found.problems):
        for name in _take_crop_roots(subfolders):
            found.crops += crop_folders(here / name, root, found.problems)
        for task in TASKS.values():
            folders = [here / name for name in subfolders if name in task.annotation_folders]
            found.annotations[task] += [folder for folder in folders if innermost(folder) == folder]
            found.test_lists[task] += [here / name for name in files if fnmatch(name.lower(), task.test_list)]
        for name in files:
            _add_video_file(here / name, root, found.videos, found.problems)
    return found


def find_video_files(folder: Path) -> tuple[dict[str, Path], list[Problem]]:
    """The video files at any depth of a folder, by name without suffix, and the defects found there."""
    video_files, problems = dict[str, Path](), list[Problem]()
    if not folder.is_dir():
        return video_files, problems
    for here, subfolders, files in walk_folders(folder, problems):
        _take_crop_roots(subfolders)
        for name in files:
            _add_video_file(here / name, folder, video_files, problems)
    return video_files, problems


def video_files_by_name(paths: Iterable[Path], but: str = "") -> tuple[dict[str, Path], list[Problem]]:
    """The given files, and the video files at any depth of given folders, by name without suffix; and the defects.

    In folders, files that end in `but` are ignored. Raises UserError where a folder holds no video file, or two files
    have one name.
    """
    files, problems = dict[str, Path](), list[Problem]()
    for path in paths:
        found = {path.stem: path}
        if path.is_dir():
            inside, wrong = find_video_files(path)
            found = {name: file for name, file in inside.items() if not but or not file.name.endswith(but)}
            if twice := [problem.detail for problem in wrong if problem.kind == _TWO_FILES]:
                raise UserError("holds two video files of one name", path=path, found=twice[0], remedy=_RENAME)
            problems += wrong
            if not found:
                raise UserError("holds no videos", path=path, expected=f"files that end in {', '.join(VIDEO_SUFFIXES)}")
        for name, file in found.items():
            other = files.setdefault(name, file)
            if other != file:
                raise UserError("two video files have one name", found=f"{other} and {file}", remedy=_RENAME)
    return files, problems


def video_files_of(
    videos: Iterable[str], video_files: Mapping[str, Path], root: Path, problems: list[Problem]
) -> dict[str, VideoFile]:
    """The video file of each video. A file whose name is spelled differently is reported.

    `<id>_left` and `<id>_right` have the file of `<id>`, unless they have one of their own.
    """
    names = list(videos)
    matches = matched({alias for name in names for alias in (name, recording_of(name))}, video_files)
    found = {name: name if name in matches else recording_of(name) for name in names}
    otherwise = sorted(alias for alias in set(found.values()) if matches.get(alias, alias) != alias)
    problems += [_spelling_problem(alias, "video file", video_files[matches[alias]], root) for alias in otherwise]
    return {name: VideoFile(alias, video_files.get(matches.get(alias, alias))) for name, alias in found.items()}


def crops_of(
    videos: Iterable[str], crops: Iterable[Mapping[str, Path]], root: Path, problems: list[Problem]
) -> dict[str, tuple[Path, ...]]:
    """The folders of crops of each video, one per root that has any. A folder whose name is spelled differently is
    reported."""
    found: dict[str, tuple[Path, ...]] = dict.fromkeys(videos, ())
    for folders in crops:
        for name, matches in sorted(matched(found, folders).items()):
            found[name] += (folders[matches],)
            if name != matches:
                problems.append(_spelling_problem(name, "folder of crops", folders[matches], root))
    return found


def _spelling_problem(name: str, what: str, path: Path, root: Path) -> Problem:
    """The report of a file or folder that was matched to `name` although it is spelled differently."""
    detail = f"its {what} is spelled {_relative(path, root)!a}"
    return Problem("name spelled differently", name, detail, "None needed: it is used for this video.")


def _take_crop_roots(subfolders: list[str]) -> list[str]:
    """Removes the roots of crops from a list of folder names, and returns them."""
    roots = [name for name in subfolders if fnmatch(name.lower(), _CROP_ROOTS)]
    subfolders[:] = [name for name in subfolders if name not in roots]
    return roots


def _add_video_file(path: Path, root: Path, video_files: dict[str, Path], problems: list[Problem]) -> None:
    if path.suffix.lower() not in VIDEO_SUFFIXES:
        return
    try:
        check_name(path.stem, ReleaseError, path)
    except ReleaseError as error:  # no other file can name it
        detail, remedy = f"{_relative(path, root)!a} {error.problem}", "None needed: it is ignored."
        problems.append(Problem("impossible name", _relative(path, root), detail, remedy))
        return
    taken = video_files.setdefault(path.stem, path)
    if taken != path and not os.path.samefile(taken, path):
        detail = f"{_relative(path, root)} has the name of {_relative(taken, root)}, which is used"
        problems.append(Problem(_TWO_FILES, path.stem, detail, "Keep the right one of the two, and run again."))


def crop_folders(crops: Path, root: Path, problems: list[Problem]) -> list[dict[str, Path]]:
    """The folders, by name, of a root of crops and of each root inside it."""
    folders: dict[str, Path] = {}
    roots = [folders]
    try:
        names = sorted(os.listdir(crops))
    except OSError as error:
        if is_machine_error(error):
            raise
        problems.append(_unreadable_folder(crops, root, error))
        return []
    for path in (crops / name for name in names if not is_leftover(name)):
        if _is_folder(path):
            if _leads_back(path):
                problems.append(_link_loop(path, root))
            elif fnmatch(path.name.lower(), _CROP_ROOTS):
                roots += crop_folders(path, root, problems)
            else:
                folders[path.name] = innermost(path)
        elif path.is_symlink():
            problems.append(_broken_link(path, root))
    return roots


def _is_folder(path: Path) -> bool:
    """Whether a path is a folder; a symbolic link without a target, or to itself, is none."""
    try:
        return stat.S_ISDIR(path.stat().st_mode)
    except OSError as error:
        if is_machine_error(error):
            raise
        return False


def _is_new(folder: Path, root: Path, visited: set[tuple[int, int]], problems: list[Problem]) -> bool:
    """Whether a folder was not entered by another name before; a link to a folder above itself is reported."""
    try:
        identity = _identity(folder)
    except OSError:
        return True  # entering it reports the error
    if identity not in visited:
        visited.add(identity)
        return True
    if _leads_back(folder):
        problems.append(_link_loop(folder, root))
    return False


def _leads_back(path: Path) -> bool:
    return path.is_symlink() and path.parent.resolve().is_relative_to(path.resolve())


def _file_problem(path: Path, root: Path) -> Problem | None:
    """The report of a path that is no regular file and does not lead to one; None of a file."""
    try:
        if stat.S_ISREG(path.stat().st_mode):
            return None
    except OSError as error:
        if is_machine_error(error):
            raise
        if os.path.islink(path):
            return _broken_link(path, root)
        return Problem("unreadable file", _relative(path, root), str(error.strerror), READ_RIGHT)
    return Problem("irregular file", _relative(path, root), IRREGULAR, "None needed: it is ignored.")


def _unreadable_folder(path: Path, root: Path, error: OSError) -> Problem:
    return Problem("unreadable folder", _relative(path, root), str(error.strerror), READ_RIGHT)


def _link_loop(path: Path, root: Path) -> Problem:
    detail = f"a link to {os.readlink(path)}, a folder that contains it"
    return Problem("link loop", _relative(path, root), detail, "None needed: it is ignored.")


def _broken_link(path: Path, root: Path) -> Problem:
    remedy = "Restore its target, or remove the link, and run prepare again."
    return Problem("broken link", _relative(path, root), f"a link to {os.readlink(path)}, which does not exist", remedy)


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _relative(path: Path, root: Path) -> str:
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
