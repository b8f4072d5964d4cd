"""Names that are spelled in more than one way, links, and folders that cannot be read."""

import os
import socket
from collections.abc import Callable
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.data.media.decode import read_times
from abaw_expr.data.media.sources import media_type
from abaw_expr.data.problems import Problem
from abaw_expr.data.release.crops import CropReport, list_crops, read_crops
from abaw_expr.data.release.reader import read_release
from abaw_expr.tasks.names import matched
from tests.data.release.test_reader import minimal, write
from tests.helpers.tiny import annotate, crop

NAMES = st.lists(st.text("aA\u00e9\u00dfs b-_2", min_size=1, max_size=4), unique=True)


def reported(problems: tuple[Problem, ...]) -> list[tuple[str, str]]:
    return [(problem.kind, problem.video) for problem in problems]


@given(NAMES, NAMES)
def test_names_are_matched_one_to_one(wanted: list[str], found: list[str]) -> None:
    pairs = matched(wanted, found)
    assert pairs.keys() <= set(wanted)
    assert set(pairs.values()) <= set(found)
    assert len(set(pairs.values())) == len(pairs)
    assert all(pairs[name] == name for name in set(wanted) & set(found))
    assert {theirs: ours for ours, theirs in pairs.items()} == matched(found, wanted)


@pytest.mark.parametrize(
    ("wanted", "found", "pairs"),
    [
        (["abc"], ["ABC"], {"abc": "ABC"}),
        (["caf\u00e9"], ["cafe\u0301"], {"caf\u00e9": "cafe\u0301"}),
        (["a b"], [" a  b "], {"a b": " a  b "}),
        (["abc"], ["ABC", "Abc"], {}),  # it is unknown which one is meant
        (["abc", "Abc"], ["ABC"], {}),
        (["abc", "ABC"], ["ABC"], {"ABC": "ABC"}),
        (["abc"], ["ABC", "abc"], {"abc": "abc"}),
        (["a-b"], ["a_b"], {}),
    ],
)
def test_names_match_but_for_case_form_and_spaces(wanted: list[str], found: list[str], pairs: dict[str, str]) -> None:
    assert matched(wanted, found) == pairs


def test_files_of_another_spelling_are_found_and_reported(tmp_path: Path) -> None:
    minimal(tmp_path, "abc", "x_left", "x_right", "caf\u00e9")
    write(tmp_path / "Batch1/ABC.MP4", b"")
    write(tmp_path / "Batch1/X.mp4", b"")
    write(tmp_path / "Batch1/cafe\u0301.mp4", b"")
    crop(tmp_path, "Abc", [1], crops="Cropped_Aligned")
    release = read_release(tmp_path)
    files = {video.name: recording.path for recording in release.recordings for video in recording.videos}
    assert {name: path and path.name for name, path in files.items()} == {
        "abc": "ABC.MP4",
        "x_left": "X.mp4",
        "x_right": "X.mp4",
        "caf\u00e9": "cafe\u0301.mp4",
        "val": None,
    }
    folders = {video.name: video.crop_folders for recording in release.recordings for video in recording.videos}
    assert folders["abc"] == (tmp_path / "Cropped_Aligned/Abc",)
    assert release.not_annotated == ()
    assert sorted(reported(release.problems)) == sorted(
        ("name spelled differently", name) for name in ("abc", "abc", "caf\u00e9", "x")
    )
    (composed,) = (problem for problem in release.problems if problem.video == "caf\u00e9")
    assert composed.detail == "its video file is spelled 'Batch1/cafe\\u0301.mp4'"


def test_linked_folders_are_entered_once(tmp_path: Path) -> None:
    """As where the videos lie on another disk; links that lead back are reported, and nothing stops."""
    root, elsewhere = tmp_path / "release", tmp_path / "elsewhere"
    minimal(root, "a", "b")
    write(elsewhere / "batch1/a.mp4", b"")
    write(elsewhere / "batch1/deep/b.mp4", b"")
    crop(elsewhere, "a", [1])
    (root / "batch1").symlink_to(elsewhere / "batch1")
    (root / "once more").symlink_to(elsewhere / "batch1")
    (root / "cropped_aligned").symlink_to(elsewhere / "cropped_aligned")
    (elsewhere / "batch1/deep/up").symlink_to("..")
    (root / "self").symlink_to("self")
    (root / "lost").symlink_to("nowhere")
    release = read_release(root)
    paths = {recording.name: recording.path for recording in release.recordings}
    assert paths == {"a": root / "batch1/a.mp4", "b": root / "batch1/deep/b.mp4", "val": None}
    assert release.recordings[0].videos[0].crop_folders == (root / "cropped_aligned/a",)
    assert sorted(reported(release.problems)) == [
        ("broken link", "lost"),
        ("broken link", "self"),
        ("link loop", "batch1/deep/up"),
    ]


def test_folders_that_cannot_be_read_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    minimal(tmp_path, "a")
    write(tmp_path / "batch1/a.mp4", b"")
    (tmp_path / "batch2").mkdir()
    crop(tmp_path, "a", [1])
    scandir, listdir = os.scandir, os.listdir

    def closed(path: str | Path) -> object:
        if Path(path).name in ("batch2", "cropped_aligned"):
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr("os.scandir", closed)
    monkeypatch.setattr("os.listdir", lambda path: closed(path) and listdir(path))
    release = read_release(tmp_path)
    assert sorted(reported(release.problems)) == [
        ("unreadable folder", "batch2"),
        ("unreadable folder", "cropped_aligned"),
    ]
    assert release.recordings[0].path == tmp_path / "batch1/a.mp4"


def test_files_that_cannot_be_looked_at_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a folder that may be listed and not entered."""
    minimal(tmp_path, "a")
    write(tmp_path / "batch1/a.mp4", b"")

    def closed(look: Callable[..., os.stat_result]) -> Callable[..., os.stat_result]:
        def looked(path: str | Path, **options: bool) -> os.stat_result:
            if Path(path).name == "a.mp4":
                raise PermissionError(13, "Permission denied", str(path))
            return look(path, **options)

        return looked

    monkeypatch.setattr("os.stat", closed(os.stat))
    monkeypatch.setattr("os.lstat", closed(os.lstat))
    release = read_release(tmp_path)
    assert reported(release.problems) == [("unreadable file", "batch1/a.mp4")]
    assert release.recordings[0].path is None


def test_two_files_of_one_name_are_reported(tmp_path: Path) -> None:
    minimal(tmp_path, "a")
    annotate(tmp_path, "a", [0, 1])
    for path in ("batch1/a.mp4", "batch2/a.avi", "batch2/._a.mp4"):
        write(tmp_path / path, b"")
    release = read_release(tmp_path)
    assert reported(release.problems) == [("two video files", "a")]
    assert release.problems[0].detail == "batch2/a.avi has the name of batch1/a.mp4, which is used"
    assert release.not_annotated == ()


def test_what_is_no_file_is_reported_and_never_waited_for(tmp_path: Path) -> None:
    minimal(tmp_path, "a", "b", "c")
    (tmp_path / "batch").mkdir()
    os.mkfifo(tmp_path / "batch/a.mp4")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(tmp_path / "batch/b.mp4"))  # such names are short
    (tmp_path / "batch/c.mp4").symlink_to("/dev/zero")
    release = read_release(tmp_path)
    assert reported(release.problems) == [("irregular file", f"batch/{name}.mp4") for name in "abc"]
    assert {recording.path for recording in release.recordings} == {None}
    for name in "abc":
        assert media_type(tmp_path / f"batch/{name}.mp4") == "video"
        with pytest.raises(av.FFmpegError, match="not a regular file"):
            read_times(tmp_path / f"batch/{name}.mp4")


def test_crops_that_are_no_files_are_reported_and_never_waited_for(tmp_path: Path) -> None:
    crop(tmp_path, "a", [1])
    folder = tmp_path / "cropped_aligned/a"
    os.mkfifo(folder / "00002.jpg")
    (folder / "00003.jpg").symlink_to("/dev/zero")
    (folder / "00004.jpg").mkdir()
    seen = CropReport()
    assert [name for name, _ in read_crops(list_crops((folder,)), seen)] == ["00001.jpg"]
    assert [*seen.unreadable] == [2, 3, 4]
