"""The reader of the organisers' release: every edition's layout, and what is refused by file and line."""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.data.release.crops import list_crops
from abaw_expr.data.release.reader import Annotation, Release, Video, read_annotation, read_release, read_test_list
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import EXPR, VA, Task
from tests.helpers.tiny import ANNOTATIONS, annotate, crop

EDITIONS = (
    "Third ABAW Annotations/EXPR_Classification_Challenge",
    "5th_ABAW_Annotations/EXPR_Classification_Challenge",
    "6th ABAW Annotations/EXPR_Recognition_Challenge",
    "6th_ABAW_Annotations/EXPR_Recognition_Challenge",
    "8th_ABAW_Annotations/EXPR_Recognition_Challenge",
    "ABAW Annotations/EXPR_Recognition_Challenge",
)
LISTS = "names_of_videos_in_each_test_set"
SEVEN_CLASSES = "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise"
MARK = b"\xef\xbb\xbf"


def write(path: Path, data: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return path


def minimal(root: Path, *train: str) -> None:
    """A release with these training videos and one validation video, `val`, without any video file."""
    for name in train:
        annotate(root, name, [0, 1])
    annotate(root, "val", [2], f"{ANNOTATIONS}/Validation_Set")


def named(videos: Iterable[Video]) -> Iterator[tuple[Video, Task, Annotation]]:
    """Each video with each challenge that names it, and its part in that."""
    return ((video, task, annotation) for video in videos for task, annotation in video.annotations.items())


def people(release: Release) -> dict[str, list[str]]:
    """Names of the videos by recording."""
    return {recording.name: [video.name for video in recording.videos] for recording in release.recordings}


@pytest.mark.parametrize("edition", EDITIONS)
def test_annotations_of_every_edition(tmp_path: Path, edition: str) -> None:
    annotate(tmp_path, "a", [0, -1, 7], f"{edition}/Train_Set")
    annotate(tmp_path, "b", [3, 3], f"{edition}/Validation_Set")
    tasks = Path(edition).parent
    annotate(tmp_path, "a", ["0.1,0.2", "-5,-1"], f"{tasks}/VA_Estimation_Challenge/Validation_Set", VA)
    annotate(tmp_path, "c", ["0,0"], f"{tasks}/VA_Estimation_Challenge/Train_Set", VA)
    release = read_release(tmp_path)
    assert release.tasks == (EXPR, VA)
    videos = [video for recording in release.recordings for video in recording.videos]
    splits = {video.name: {task.name: one.split for task, one in video.annotations.items()} for video in videos}
    assert splits == {"a": {"expr": "train", "va": "val"}, "b": {"expr": "val"}, "c": {"va": "train"}}
    labels = {(video.name, task): one.labels_at(np.arange(one.lines), task) for video, task, one in named(videos)}
    assert {name: one.tolist() for (name, task), one in labels.items() if task == EXPR} == {
        "a": [0, -1, 7],
        "b": [3, 3],
    }
    assert labels["a", VA].tolist() == np.array([[0.1, 0.2], [-5, -1]], np.float32).tolist()
    assert labels["c", VA].tolist() == [[0, 0]]
    assert (labels["a", EXPR].dtype, labels["a", VA].dtype) == (np.int8, np.float32)


@pytest.mark.parametrize("edition", ["Classification", "Recognition"])
def test_listed_videos_are_the_test_split(tmp_path: Path, edition: str) -> None:
    minimal(tmp_path, "a")
    file = tmp_path / LISTS / f"Expression_{edition}_Challenge_test_set_release.txt"
    write(file, MARK + b"14-30-1920x1080\r\n122-60_right")
    write(tmp_path / LISTS / "Valence_Arousal_Estimation_Challenge_test_set_release.txt", b"other")
    crop(tmp_path, "122-60_right", [1])
    videos = [video for recording in read_release(tmp_path).recordings for video in recording.videos]
    listed = [video for video in videos if video.annotations[EXPR].split == "test"]
    assert [video.name for video in listed] == ["122-60_right", "14-30-1920x1080"]
    assert all(video.annotations[EXPR].labels is None for video in listed)
    assert listed[0].crop_folders == (tmp_path / "cropped_aligned/122-60_right",)


def test_list_keeps_the_order_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "list.txt", MARK + b"b\r\na\nc-2\r\n")
    assert read_test_list(path) == ["b", "a", "c-2"]


@pytest.mark.parametrize(
    ("data", "line", "found"),
    [(b"a\n\nb\n", 2, "''"), (b"a\nb/00001.jpg\n", 2, "b/00001.jpg"), (b"a,\nb\n", 1, "a,")],
)
def test_list_with_an_unknown_line_is_refused(tmp_path: Path, data: bytes, line: int, found: str) -> None:
    path = write(tmp_path / "list.txt", data)
    with pytest.raises(ReleaseError, match=rf"list\.txt:{line}: has an unknown line; found '?{re.escape(found)}"):
        read_test_list(path)


def test_list_that_repeats_a_video_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match=r"more than once: b\."):
        read_test_list(write(tmp_path / "list.txt", b"a\nb\nb\n"))


def test_roots_of_crops_are_merged(tmp_path: Path) -> None:
    minimal(tmp_path, "a", "b")
    crop(tmp_path, "a", [1, 2])
    crop(tmp_path, "a", [2, 10], crops="later/cropped_aligned_new_50_vids", data=b"second root")
    crop(tmp_path, "b", [3], crops="later/cropped_aligned_new_50_vids")
    a, b, val = read_release(tmp_path).recordings
    crops = list_crops(a.videos[0].crop_folders)
    assert {frame: Path(entry.path).relative_to(tmp_path).parts[-3] for frame, entry in crops.files.items()} == {
        1: "cropped_aligned",
        2: "cropped_aligned",
        10: "cropped_aligned_new_50_vids",
    }
    assert (crops.unknown, crops.duplicates) == ([], ["00002.jpg"])
    assert list(list_crops(b.videos[0].crop_folders).files) == [3]
    assert val.videos[0].crop_folders == ()


def test_files_that_are_no_crops_are_listed_apart(tmp_path: Path) -> None:
    unknown = ["00000.jpg", "notes.txt", "1a.jpg", "-0001.jpg", "20231105093000.jpg"]
    unknown += ["\u0663.jpg"]  # a number, in another script
    leftovers = ["Thumbs.db", ".DS_Store", "._00001.jpg", "desktop.ini"]
    for name in ("00001.jpg", "123456.jpg", "7.JPEG", "00002.png", *unknown, *leftovers):
        write(tmp_path / name, b"")
    crops = list_crops((tmp_path,))
    assert list(crops.files) == [1, 2, 7, 123456]
    assert crops.unknown == sorted(unknown)
    assert crops.duplicates == []


def test_the_usual_name_of_a_frame_wins(tmp_path: Path) -> None:
    for name in ("000003.jpg", "00003.jpg", "3.jpg", "4.jpg", "04.jpg"):
        write(tmp_path / name, b"")
    crops = list_crops((tmp_path,))
    assert {frame: entry.name for frame, entry in crops.files.items()} == {3: "00003.jpg", 4: "04.jpg"}
    assert crops.duplicates == ["000003.jpg", "3.jpg", "4.jpg"]


def test_videos_lie_in_any_batch_folder(tmp_path: Path) -> None:
    places = {"a": "batch1/a.mp4", "b": "batch2/b.avi", "c": "new_vids/c.mp4", "d": "videos/batch3/d.AVI"}
    minimal(tmp_path, *places, "e")
    for place in [*places.values(), "batch1/stranger.mp4"]:
        write(tmp_path / place, b"")
    release = read_release(tmp_path)
    found = {recording.name: recording.path for recording in release.recordings}
    assert found == {**{name: tmp_path / place for name, place in places.items()}, "e": None, "val": None}
    assert release.not_annotated == ("stranger",)


@pytest.mark.parametrize(
    ("videos", "names", "expected"),
    [
        (["x"], ["x_left", "x_right"], {"x": ["x_left", "x_right"]}),
        (["x"], ["x", "x_right"], {"x": ["x", "x_right"]}),
        (["x-2", "x_3"], ["x-2", "x_3", "x_3_left"], {"x-2": ["x-2"], "x_3": ["x_3", "x_3_left"]}),
        (["x_left_2"], ["x_left_2", "x_left_2_right"], {"x_left_2": ["x_left_2", "x_left_2_right"]}),
        ([], ["x_left", "x_right"], {"x": ["x_left", "x_right"]}),
        (["x_left"], ["x_left"], {"x_left": ["x_left"]}),
    ],
)
def test_people_fraction_their_recording(
    tmp_path: Path, videos: list[str], names: list[str], expected: dict[str, list[str]]
) -> None:
    minimal(tmp_path, *names)
    for video in videos:
        write(tmp_path / f"batch1/{video}.mp4", b"")
    assert people(read_release(tmp_path)) == {**expected, "val": ["val"]}


def test_pair_split_over_train_and_validation_is_one_recording(tmp_path: Path) -> None:
    minimal(tmp_path, "x_left")
    annotate(tmp_path, "x_right", [4], f"{ANNOTATIONS}/Validation_Set")
    (pair,) = (recording for recording in read_release(tmp_path).recordings if recording.name == "x")
    assert [(video.name, video.annotations[EXPR].split) for video in pair.videos] == [
        ("x_left", "train"),
        ("x_right", "val"),
    ]


@given(st.text("ab-_23", max_size=8).filter(lambda name: not name.endswith(("_left", "_right"))))
def test_only_a_final_person_is_stripped(name: str) -> None:
    for suffix in ("", "_left", "_right"):
        assert recording_of(name + suffix) == name
    for suffix in ("-2", "_3", "_leftover", "_left-2"):
        assert recording_of(name + suffix) == name + suffix


@given(
    st.lists(st.tuples(st.integers(-1, 7), st.sampled_from(["\n", "\r\n"])), min_size=1, max_size=40),
    st.booleans(),
    st.booleans(),
    st.sampled_from(["\n", "\r\n"]),
)
def test_marks_and_line_endings_do_not_change_labels(
    tmp_path_factory: pytest.TempPathFactory,
    lines: list[tuple[int, str]],
    mark: bool,
    last_newline: bool,
    header_end: str,
) -> None:
    text = EXPR.header + header_end + "".join(f"{label}{end}" for label, end in lines)
    text = text if last_newline else text.rstrip("\r\n")
    path = tmp_path_factory.getbasetemp() / "mixture.txt"
    path.write_bytes(MARK * mark + text.encode())
    assert read_annotation(path, EXPR).tolist() == [label for label, _ in lines]


@pytest.mark.parametrize(
    "header",
    [
        SEVEN_CLASSES,
        f'"{EXPR.header}"',
        EXPR.header.replace(",", ", "),
        EXPR.header + ",",
        EXPR.header.lower(),
        "Neutral,Happiness,Sadness,Surprise,Fear,Disgust,Anger,Other",
        "valence,arousal",
        "0",
        "",
    ],
)
def test_wrong_header_is_refused(tmp_path: Path, header: str) -> None:
    path = write(tmp_path / "a.txt", f"{header}\n0\n1\n".encode())
    message = f"{path}:1: has a wrong header; found {header!r}; expected {EXPR.header}."
    with pytest.raises(ReleaseError, match=re.escape(message)):
        read_annotation(path, EXPR)


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("8", "has a label outside its range"),
        ("-2", "has a label outside its range"),
        ("-5", "has a label outside its range"),
        ("x", "has an unknown line"),
        ("3.0", "has an unknown line"),
        ("1,2", "has an unknown line"),
        ("1_0", "has an unknown line"),
        ("0_1", "has an unknown line"),
        ("\u0663", "has an unknown line"),
        ("+1", "has an unknown line"),
        ("", "has an unknown line"),
    ],
)
def test_wrong_label_is_refused_by_file_and_line(tmp_path: Path, line: str, problem: str) -> None:
    path = write(tmp_path / "a.txt", f"{EXPR.header}\n0\n{line}\n1\n".encode())
    message = f"{path}:3: {problem}; found {line!r}; expected an integer from 0 to 7, or -1 where not annotated."
    with pytest.raises(ReleaseError, match=re.escape(message)):
        read_annotation(path, EXPR)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", f"a.txt: is empty; expected {EXPR.header}"),
        (MARK, f"a.txt: is empty; expected {EXPR.header}"),
        (EXPR.header.encode(), "a.txt:1: has a header and no label"),
        (EXPR.header.encode() + b"\r\n", "a.txt:1: has a header and no label"),
        (EXPR.header.encode() + b"\n\xff\xfe\n", "a.txt: is not a text file"),
    ],
)
def test_file_without_labels_is_refused(tmp_path: Path, data: bytes, message: str) -> None:
    minimal(tmp_path)
    write(tmp_path / ANNOTATIONS / "Train_Set/a.txt", data)
    with pytest.raises(ReleaseError, match=re.escape(message)):
        read_release(tmp_path)


def test_release_without_annotations_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ReleaseError, match="is not a folder"):
        read_release(tmp_path / "none")
    with pytest.raises(
        ReleaseError,
        match=r"holds no annotation folder; expected EXPR_Classification_Challenge or EXPR_.*VA_Estima.* or AU_Det",
    ):
        read_release(tmp_path)
    annotate(tmp_path, "a", [0])
    with pytest.raises(ReleaseError, match="Validation_Set: holds no annotation"):
        read_release(tmp_path)


def test_two_editions_at_once_are_refused(tmp_path: Path) -> None:
    minimal(tmp_path, "a")
    annotate(tmp_path, "a", [0], f"{EDITIONS[1]}/Train_Set")
    with pytest.raises(ReleaseError, match=r"more than one annotation folder.*5th_ABAW.*6th_ABAW"):
        read_release(tmp_path)


def test_two_annotations_of_one_name_are_refused(tmp_path: Path) -> None:
    minimal(tmp_path, "caf\u00e9")
    annotate(tmp_path, "cafe\u0301", [0])
    with pytest.raises(ReleaseError, match="has the name of another file"):
        read_release(tmp_path)


def test_an_annotation_that_is_no_file_is_refused(tmp_path: Path) -> None:
    minimal(tmp_path, "a")
    os.mkfifo(tmp_path / ANNOTATIONS / "Train_Set/b.txt")
    with pytest.raises(ReleaseError, match=r"b\.txt: cannot be read \(not a regular file\)"):
        read_release(tmp_path)


def test_video_of_two_splits_is_refused(tmp_path: Path) -> None:
    minimal(tmp_path, "val")
    with pytest.raises(ReleaseError, match="val is named as a train video and as a val video"):
        read_release(tmp_path)
