"""A release that was renamed, linked, zipped and unpacked by another system, or moved: one store, or one report."""

import json
import os
import shutil
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abaw_expr.data.release.reader import frames_with_crop
from tests.helpers.tiny import ANNOTATIONS, add, add_validation, kinds, run

CAFE = "caf\u00e9 1"
Change = Callable[[Path], None]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A release without any defect, and the digest of its store."""
    root = tmp_path_factory.mktemp("moved") / "release"
    add(root, "a")
    add(root, CAFE)
    add_validation(root)
    assert not run(root, root.parent / "store").problems
    return root, digest(root.parent / "store")


def digest(store: Path) -> str:
    found = json.loads((store / "manifest.json").read_bytes())["digest"]
    assert isinstance(found, str)
    return found


def _deeper(folder: str) -> Change:
    """Puts what a folder holds into one of the same name in it, as unpacking into a folder does."""

    def change(root: Path) -> None:
        outer = root / folder
        inner = outer.with_name("x")
        outer.rename(inner)
        outer.mkdir()
        inner.rename(outer / outer.name)

    return change


def _down(root: Path) -> None:
    inside = root.with_name("x")
    root.rename(inside)
    root.mkdir()
    inside.rename(root / "Aff-Wild2 (1)")


def _link(folder: str) -> Change:
    def change(root: Path) -> None:
        elsewhere = root.with_name("elsewhere") / folder.replace("/", "-")
        elsewhere.parent.mkdir(exist_ok=True)
        (root / folder).rename(elsewhere)
        (root / folder).symlink_to(elsewhere)

    return change


def _rename(old: str, new: str) -> Change:
    def change(root: Path) -> None:
        (root / old).rename(root / new)

    return change


def _of_a_mac(root: Path) -> None:
    """What a Mac's zip leaves elsewhere: a folder of attributes beside everything, and names in decomposed form."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        ghost = root / "__MACOSX" / path.relative_to(root).with_name(f"._{path.name}")
        ghost.parent.mkdir(parents=True, exist_ok=True)
        ghost.write_bytes(b"\0\5\26\7")
    (root / ".DS_Store").write_bytes(b"")
    for path in sorted(root.rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))


def _of_a_share(root: Path) -> None:
    """What Windows, a network drive and a notebook leave in every folder."""
    for folder in [root, *(path for path in root.rglob("*") if path.is_dir())]:
        for name in (
            "Thumbs.db",
            "desktop.ini",
            "._x",
            "@eaDir/a.txt",
            ".ipynb_checkpoints/00001.jpg",
            "$RECYCLE.BIN/x",
        ):
            path = folder / name
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"")


def _zip(root: Path) -> None:
    """Zipped and unpacked, with an entry a file and none a folder."""
    archive = root.with_name("release.zip")
    with zipfile.ZipFile(archive, "w") as zipped:
        for folder, _, files in os.walk(root, followlinks=True):
            for path in (Path(folder) / name for name in sorted(files)):
                zipped.write(path, path.relative_to(root))
    shutil.rmtree(root)
    with zipfile.ZipFile(archive) as zipped:
        zipped.extractall(root)
    archive.unlink()


def _link_files(root: Path) -> None:
    """Every file is a link, as tools that keep large files elsewhere have it."""
    for number, path in enumerate(sorted(path for path in root.rglob("*") if path.is_file())):
        elsewhere = root.with_name("files") / str(number)
        elsewhere.parent.mkdir(exist_ok=True)
        path.rename(elsewhere)
        path.symlink_to(elsewhere)


def _upper(root: Path) -> None:
    for path in (root / "batch1").iterdir():
        path.rename(path.with_name(path.name.upper()))


CHANGES: dict[str, Change] = {
    "one folder deeper": _down,
    "crops inside themselves": _deeper("cropped_aligned"),
    "a video's crops inside themselves": _deeper("cropped_aligned/a"),
    "videos inside themselves": _deeper("batch1"),
    "annotations inside themselves": _deeper(ANNOTATIONS),
    "an edition inside itself": _deeper(ANNOTATIONS.partition("/")[0]),
    "a set inside itself": _deeper(f"{ANNOTATIONS}/Train_Set"),
    "videos elsewhere": _link("batch1"),
    "crops elsewhere": _link("cropped_aligned"),
    "annotations elsewhere": _link(ANNOTATIONS),
    "files elsewhere": _link_files,
    "another batch": _rename("batch1", "videos"),
    "other crops": _rename("cropped_aligned", "Cropped_Aligned_New"),
    "another edition": _rename(ANNOTATIONS.partition("/")[0], "8th ABAW Annotations"),
    "of a Mac": _of_a_mac,
    "of a share": _of_a_share,
    "zipped": _zip,
    "in capitals": _upper,
}
REPORTED = {"name spelled differently"}
"""The reports that a change may cause."""


def changed(whole: tuple[Path, str], folder: Path, *names: str) -> None:
    """Checks the store of a copy of the release to which these changes were made, one after another."""
    root = folder / "release"
    shutil.copytree(whole[0], root)
    for name in names:
        CHANGES[name](root)
    prepared = run(root, folder / "store")
    assert digest(folder / "store") == whole[1]
    assert {kind for found in kinds(prepared).values() for kind in found} <= REPORTED


@pytest.mark.slow
@pytest.mark.parametrize("name", CHANGES)
def test_a_release_that_was_moved_gives_the_same_store(whole: tuple[Path, str], tmp_path: Path, name: str) -> None:
    changed(whole, tmp_path, name)


def test_scores_know_crops_that_were_moved(whole: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "release"
    shutil.copytree(whole[0], root)
    truths = {"a": np.zeros(10, np.int8), CAFE: np.zeros(10, np.int8)}
    expected = [[True] * 2 + [False] * 8] * 2
    for name in ("a video's crops inside themselves", "crops inside themselves", "of a share", "of a Mac"):
        CHANGES[name](root)
        assert [has.tolist() for has in frames_with_crop([root / "cropped_aligned"], truths)] == expected


def test_a_video_and_a_link_to_it_are_one(whole: tuple[Path, str], tmp_path: Path) -> None:
    root = tmp_path / "release"
    shutil.copytree(whole[0], root)
    (root / "test_videos").mkdir()
    (root / "test_videos/a.mp4").symlink_to(root / "batch1/a.mp4")
    assert not run(root, tmp_path / "store").problems


IN_PLACE = sorted(set(CHANGES) - {"one folder deeper", "in capitals"})
"""Changes that may be made in any order, the others last; those by which others find nothing are skipped."""


@pytest.mark.slow
@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.permutations(IN_PLACE), st.integers(2, 5))
def test_several_moves_give_the_same_store(
    whole: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory, order: list[str], count: int
) -> None:
    folder = tmp_path_factory.mktemp("several")
    root = folder / "release"
    shutil.copytree(whole[0], root)
    made = []
    for name in order[:count]:
        try:
            CHANGES[name](root)
            made.append(name)
        except FileNotFoundError:  # a folder that another change had renamed
            continue
    _down(root)
    prepared = run(root, folder / "store")
    assert digest(folder / "store") == whole[1], made
    assert {kind for found in kinds(prepared).values() for kind in found} <= REPORTED
    assert not [path for path in os.listdir(root) if path == "store"]
