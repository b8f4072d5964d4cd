"""Where data sets of clips lie after unpacking, and which of several files of a performance is used."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.data.datasets.options import ClipOptions, DatasetKind
from abaw_expr.data.store.store import open_store
from abaw_expr.tasks.task import EXPR
from tests.helpers.damage import write_test_video
from tests.helpers.layouts import LAYOUTS, Layout, prepare_kind, record, sequence
from tests.helpers.tiny import kinds

PERFORMANCE = "01-02-03-01-01-01-04"


def _leave(root: Path) -> None:
    """What systems leave: an empty copy of every file."""
    for path in [path for path in root.rglob("*") if path.is_file()]:
        for folder in ("__MACOSX", "$RECYCLE.BIN", "@eaDir", "#snapshot", "Temporary Items"):
            ghost = root / folder / path.relative_to(root)
            ghost.parent.mkdir(parents=True, exist_ok=True)
            ghost.write_bytes(b"")
        path.with_name(f"._{path.name}").write_bytes(b"")
        path.with_name(f"{path.name}:Zone.Identifier").write_bytes(b"")
    (root / "Thumbs.db").write_bytes(b"")


def _deeper(root: Path) -> None:
    """Every folder at the top is inside one of its name."""
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        inner = folder.with_name("x")
        folder.rename(inner)
        folder.mkdir()
        inner.rename(folder / folder.name)


def _link(root: Path) -> None:
    for folder in [path for path in root.iterdir() if path.is_dir()]:
        elsewhere = root.with_name("elsewhere") / folder.name
        elsewhere.parent.mkdir(exist_ok=True)
        folder.rename(elsewhere)
        folder.symlink_to(elsewhere)


@pytest.mark.slow
@pytest.mark.parametrize("change", [_leave, _deeper, _link])
@pytest.mark.parametrize("layout", [layout for layout in LAYOUTS if layout.kind != "clips"], ids=lambda one: one.name)
def test_every_kind_is_found_as_it_was_unpacked(layout: Layout, change: Callable[[Path], None], tmp_path: Path) -> None:
    layout.write(tmp_path / "set")
    change(tmp_path / "set")
    layout.prepare(tmp_path / "set", tmp_path / "store")
    store = open_store(tmp_path / "store", EXPR)
    assert {video.name: video.frames.label.tolist() for video in store.videos} == layout.labels


def test_crops_of_a_folder_inside_itself_are_found(tmp_path: Path) -> None:
    sequence(tmp_path / "set", "S005", "001", 6, "3")
    sequence(tmp_path / "set", "S006", "001", 6, "5")
    take = tmp_path / "set/cohn-kanade-images/S005/001"
    take.rename(take.with_name("x"))
    take.mkdir()
    take.with_name("x").rename(take / "001")
    prepared = prepare_kind("ck+", tmp_path / "set", tmp_path / "store", ClipOptions(images_are_faces=True))
    assert prepared.crops == 12


def _video(root: Path, modality: str, video: str | None, audio: str | None, suffix: str = "mp4") -> Path:
    path = root / f"Actor_04/{modality}-{PERFORMANCE[3:]}.{suffix}"
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_test_video(path, video, audio, 0.6)


def _both(root: Path) -> None:
    _video(root, "01", "mpeg4", "aac")


def _both_broken(root: Path) -> None:
    path = _video(root, "01", "mpeg4", "aac")
    path.write_bytes(path.read_bytes()[:2000])


def _both_empty(root: Path) -> None:
    _video(root, "01", "mpeg4", "aac").write_bytes(b"")


def _both_silent(root: Path) -> None:
    _video(root, "01", "mpeg4", None)


def _both_noise(root: Path) -> None:
    """A whole header, and nothing that can be decoded."""
    path = _video(root, "01", "mpeg4", "aac")
    data = bytearray(path.read_bytes())
    start, end = data.index(b"mdat") + 4, data.index(b"moov") - 4
    data[start:end] = np.random.default_rng(0).bytes(end - start)
    path.write_bytes(data)


def _images(root: Path) -> None:
    _video(root, "02", "mpeg4", None)


def _audio(root: Path) -> None:
    record(root / f"Actor_04/03-{PERFORMANCE[3:]}.wav")


@pytest.mark.parametrize(
    ("files", "taken", "reported"),
    [
        ([_both, _images, _audio], "01", False),
        ([_both, _audio], "01", False),
        ([_both_broken, _images, _audio], "03", True),
        ([_both_empty, _audio], "03", True),
        ([_both_noise, _audio], "03", True),
        ([_both_silent, _audio], "03", True),
        ([_both_broken, _images], "02", True),
        ([_images, _audio], "03", True),
        ([_audio], "03", False),
        ([_images], "02", False),
    ],
)
def test_the_file_with_most_modalities_is_used(
    files: list[Callable[[Path], None]], taken: str, reported: bool, tmp_path: Path
) -> None:
    for write in files:
        write(tmp_path / "set")
    prepared = prepare_kind("ravdess", tmp_path / "set", tmp_path / "store", ClipOptions(val_fraction=0))
    (video,) = open_store(tmp_path / "store", EXPR).videos
    assert video.name == f"{taken}-{PERFORMANCE[3:]}"
    assert (video.audio is not None) == (taken != "02")
    assert ("performance in several files" in kinds(prepared).get(video.name, [])) == reported


def test_a_copy_of_a_performance_is_reported(tmp_path: Path) -> None:
    kind: DatasetKind = "ravdess"
    _both(tmp_path / "set")
    shutil.copytree(tmp_path / "set/Actor_04", tmp_path / "set/copy")
    prepared = prepare_kind(kind, tmp_path / "set", tmp_path / "store", ClipOptions(val_fraction=0))
    assert prepared.videos == {"expr": {"train": 1}}
