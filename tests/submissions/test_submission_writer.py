"""Templates are read as they are, and what is written follows them row by row."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.tasks.task import EXPR
from submissions.checking.checker import check_folder, check_predictions
from submissions.template import Template, read_template
from submissions.writer import VideoLabels, write_per_video, write_predictions
from tests.golden.make_golden import golden_files
from tests.helpers.paths import SUBMISSIONS

HEADER = "image_location,Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other"


def video_labels(labels: dict[int, int]) -> VideoLabels:
    frames = np.array(sorted(labels), np.int32)
    return VideoLabels(frames, np.array([labels[frame] for frame in frames.tolist()], np.int8))


def golden_labels() -> dict[str, VideoLabels]:
    labels = json.loads((SUBMISSIONS / "labels.json").read_text())["expr"]
    return {
        video: video_labels({int(frame): label for frame, label in known.items()}) for video, known in labels.items()
    }


def make_template(folder: Path, *rows: str) -> Template:
    path = folder / "template.txt"
    path.write_text("\n".join([HEADER, *rows]) + "\n")
    return read_template(path)


@pytest.fixture
def golden_template() -> Template:
    return read_template(SUBMISSIONS / "template.txt")


# Templates


def test_template_keeps_rows_videos_and_frames_as_they_stand(tmp_path: Path) -> None:
    template = make_template(tmp_path, "b/00003.jpg,", "a/00001.jpg,", "b/00001.jpg,", "b/123456.jpg,")
    assert template.rows.to_pylist() == ["b/00003.jpg", "a/00001.jpg", "b/00001.jpg", "b/123456.jpg"]
    assert list(template.videos) == ["b", "a"]
    assert template.videos["b"].frames.tolist() == [3, 1, 123456]
    assert template.videos["b"].positions.tolist() == [0, 2, 3]


@pytest.mark.parametrize(
    "content",
    [
        f"{HEADER}\nv/00001.jpg,\nv/00002.jpg,\n",
        f"{HEADER}\nv/00001.jpg,\nv/00002.jpg,",
        f"{HEADER}\nv/00001.jpg,\nv/00002.jpg,\n\n",
        f"\ufeff{HEADER}\r\nv/00001.jpg,\r\nv/00002.jpg,\r\n",
        f"{HEADER}\nv/00001.jpg,0\nv/00002.jpg,0\n",
        f"{HEADER}\nv/00001.jpg,0,0,1\nv/00002.jpg, 7\n",
    ],
    ids=["plain", "no last newline", "blank last line", "mark and CRLF", "example", "example of any kind"],
)
def test_template_spellings_that_mean_the_same(content: str, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_bytes(content.encode())
    assert read_template(path).rows.to_pylist() == ["v/00001.jpg", "v/00002.jpg"]


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ("", r"template\.txt: is empty"),
        ("\n\n", r"template\.txt: is empty"),
        (f"{HEADER}\n", "has a header and no rows"),
        ("v/00001.jpg,\n", r"template\.txt:1: has another header; found 'v/00001.jpg,'; expected image_location,Neu"),
        (f"{HEADER},\nv/00001.jpg,\n", ":1: has another header"),
        (
            f"{HEADER}\nv/00001.jpg,\nv/00002.jpg\n",
            r":3: is not a row of a template; found 'v/00002.jpg'; expected <v",
        ),
        (f"{HEADER}\n00001.jpg,\n", ":2: is not a row"),
        (f"{HEADER}\nv/one.jpg,\n", ":2: is not a row"),
        (f"{HEADER}\nv/\u0661.jpg,\n", ":2: is not a row"),
        (f"{HEADER}\nv/9999999999.jpg,\n", ":2: is not a row"),
        (f"{HEADER}\nv/00001.jpg,\n\nv/00002.jpg,\n", ":3: is not a row of a template; found ''"),
        (
            f"{HEADER}\nv/00002.jpg,\nw/00001.jpg,\nv/00001.jpg,\nv/00002.jpg,\n",
            r":5: lists frame 2 of v twice, on lines 2 and 5; found 'v/00002.jpg'",
        ),
        (f"{HEADER}\nv/00001.jpg,\nv/1.jpg,\n", "lists frame 1 of v twice, on lines 2 and 3; found 'v/1.jpg'"),
    ],
)
def test_template_that_is_none(content: str, match: str, tmp_path: Path) -> None:
    path = tmp_path / "template.txt"
    path.write_text(content)
    with pytest.raises(TemplateError, match=match):
        read_template(path)


def test_template_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r"absent\.txt: cannot be read"):
        read_template(tmp_path / "absent.txt")
    (tmp_path / "utf16.txt").write_text(HEADER, encoding="utf-16")
    with pytest.raises(TemplateError, match="is not UTF-8 text"):
        read_template(tmp_path / "utf16.txt")


# Golden files


def test_golden_files_are_what_their_script_makes() -> None:
    made = golden_files()
    written = {path.relative_to(SUBMISSIONS).as_posix() for path in SUBMISSIONS.rglob("*") if path.is_file()}
    assert made.keys() == written
    for name, text in made.items():
        assert (SUBMISSIONS / name).read_bytes() == text.encode(), name


# Any template and labels

VIDEO = st.from_regex(r"[a-zA-Z0-9_\-]([a-zA-Z0-9_. \-]{0,8}[a-zA-Z0-9_\-])?", fullmatch=True)
KEYS = st.lists(st.tuples(VIDEO, st.integers(1, 10**6)), min_size=1, max_size=30, unique=True)


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(keys=KEYS, data=st.data(), padding=st.integers(1, 6))
def test_written_file_is_clean_and_is_the_plain_text(
    keys: list[tuple[str, int]], data: st.DataObject, padding: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    classes = data.draw(st.lists(st.integers(0, 7), min_size=len(keys), max_size=len(keys)))
    rows = [f"{video}/{frame:0{padding}d}.jpg" for video, frame in keys]
    labels: dict[str, dict[int, int]] = {"not in the template": {1: 0}}
    for (video, frame), label in zip(keys, classes, strict=True):
        labels.setdefault(video, {10**6 + 1: 0})[frame] = label
    template = make_template(folder, *(f"{row}," for row in rows))
    path = folder / "predictions.txt"
    write_predictions(template, {EXPR: {video: video_labels(known) for video, known in labels.items()}}, path)
    expected = HEADER + "\n" + "".join(f"{row},{label}\n" for row, label in zip(rows, classes, strict=True))
    assert path.read_bytes() == expected.encode()
    assert check_predictions(path, template.path) == []


@pytest.mark.slow
@settings(deadline=None, max_examples=50)
@given(
    lengths=st.dictionaries(VIDEO, st.integers(1, 6), min_size=1, max_size=4),
    seed=st.integers(0, 2**32 - 1),
)
def test_written_folder_is_clean_whatever_the_order_of_rows(
    lengths: dict[str, int], seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    generator = np.random.default_rng(seed)
    rows = [f"{video}/{frame:05d}.jpg," for video, length in lengths.items() for frame in range(1, length + 1)]
    template = make_template(folder, *generator.permutation(rows).tolist())
    labels = {
        video: VideoLabels(np.arange(1, length + 1), generator.integers(0, 8, length))
        for video, length in lengths.items()
    }
    write_per_video(template, {EXPR: labels}, folder / "new")
    for video, known in labels.items():
        lines = (folder / "new" / f"{video}.txt").read_text().splitlines()
        assert lines == [EXPR.header, *map(str, known.labels)]
    assert check_folder(folder / "new", template.path) == []


# Refusals


def test_unknown_video_is_refused_and_the_nearest_named(golden_template: Template, tmp_path: Path) -> None:
    labels = golden_labels()
    labels["video7_right"] = labels.pop("video7_left")
    with pytest.raises(
        PredictionsError,
        match=r"template\.txt:13: 1 of 3 videos have no predictions: video7_left\. "
        r"There are predictions for video7_right, which is not in the template and similar to video7_left\.",
    ):
        write_predictions(golden_template, {EXPR: labels}, tmp_path / "predictions.txt")
    assert not list(tmp_path.iterdir())


def test_rows_without_prediction_are_refused_and_counted(golden_template: Template, tmp_path: Path) -> None:
    labels = golden_labels()
    labels["video7"] = video_labels({2: 0, 4: 0})
    with pytest.raises(
        PredictionsError, match=r":21: 2 of 22 rows have no prediction: video7/00001\.jpg, video7/00003\.jpg"
    ):
        write_predictions(golden_template, {EXPR: labels}, tmp_path / "predictions.txt")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("label", [-1, 8])
def test_label_that_is_no_class_is_refused(label: int, golden_template: Template, tmp_path: Path) -> None:
    labels = golden_labels() | {"video7": video_labels({1: 0, 2: label, 3: 0})}
    with pytest.raises(PredictionsError, match=rf":22: 1 of 22 rows have a label.*: video7/00002\.jpg; found {label}"):
        write_per_video(golden_template, {EXPR: labels}, tmp_path / "new")
    assert not list(tmp_path.iterdir())


def test_label_of_a_frame_that_no_row_asks_for_may_be_anything(golden_template: Template, tmp_path: Path) -> None:
    labels = golden_labels()
    labels["video7"] = video_labels({1: 5, 2: 0, 3: 3, 4: -1})
    write_predictions(golden_template, {EXPR: labels}, tmp_path / "predictions.txt")
    assert (
        (tmp_path / "predictions.txt")
        .read_text()
        .endswith("video7/00001.jpg,5\nvideo7/00002.jpg,0\nvideo7/00003.jpg,3\n")
    )


def test_frames_that_a_file_a_video_cannot_express_are_refused(tmp_path: Path) -> None:
    template = make_template(tmp_path, "v/00001.jpg,", "v/00003.jpg,")
    labels = {"v": video_labels({1: 0, 2: 0, 3: 0})}
    with pytest.raises(TemplateError, match=r":2: the frames of v are not 1\.\.2"):
        write_per_video(template, {EXPR: labels}, tmp_path / "new")
    write_predictions(template, {EXPR: labels}, tmp_path / "predictions.txt")
    assert check_predictions(tmp_path / "predictions.txt", template.path) == []


# Whole or not at all


class InterruptedRows:
    """Rows whose reader presses Ctrl-C after the first block."""

    def __init__(self, rows: pa.ChunkedArray) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def iterchunks(self) -> Iterator[pa.Array]:
        yield self.rows.chunk(0)
        raise KeyboardInterrupt


def test_interrupted_write_leaves_the_old_file(golden_template: Template, tmp_path: Path) -> None:
    path = tmp_path / "predictions.txt"
    path.write_text("old")
    template = replace(golden_template, rows=InterruptedRows(golden_template.rows))
    with pytest.raises(KeyboardInterrupt):
        write_predictions(template, {EXPR: golden_labels()}, path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["predictions.txt"]
    assert path.read_text() == "old"


def test_folder_takes_the_place_of_an_older_one_only(golden_template: Template, tmp_path: Path) -> None:
    folder = tmp_path / "submission"
    write_per_video(golden_template, {EXPR: golden_labels()}, folder)
    (folder / "video7.txt").write_text("old")
    write_per_video(golden_template, {EXPR: golden_labels()}, folder)
    assert check_folder(folder, golden_template.path) == []
    (folder / "notes.txt").write_text("keep me")
    with pytest.raises(PredictionsError, match=r"holds other files: notes\.txt"):
        write_per_video(golden_template, {EXPR: golden_labels()}, folder)
    assert (folder / "notes.txt").read_text() == "keep me"
    with pytest.raises(PredictionsError, match=r"other files: notes\.txt"):
        write_per_video(golden_template, {EXPR: golden_labels()}, folder / "notes.txt")
