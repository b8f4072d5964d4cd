"""Every edition's format: what is written, filled, refused, and read back."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task
from submissions.formats import FORMATS, MULTI_TASK, Format, recognise
from submissions.reader import read_predictions
from submissions.template import Template, read_template
from submissions.writer import VideoLabels, write_per_video, write_predictions
from tests.golden.make_golden import ANSWERS
from tests.helpers.paths import SUBMISSIONS

COMPOUND = recognise("image_location,Fearfully_Surprised,Happily_Surprised,Sadly_Angry")
assert COMPOUND is not None
ANY_FORMAT = (*FORMATS, COMPOUND)
Labels = dict[Task, dict[str, VideoLabels]]


def video_labels(labels: dict[int, Any]) -> VideoLabels:
    frames = sorted(labels)
    return VideoLabels(np.array(frames), np.array([labels[frame] for frame in frames]))


def golden_labels(folder: Path, known: Format) -> Labels:
    labels = json.loads((folder / "labels.json").read_text())
    return {
        challenge: {
            video: video_labels({int(frame): label for frame, label in own.items()})
            for video, own in labels[challenge.name].items()
        }
        for challenge in known.tasks
    }


def make_template(folder: Path, known: Format, *rows: str) -> Template:
    path = folder / "template.txt"
    path.write_text("".join(f"{line}\n" for line in (known.header, *(f"{row}," for row in rows))))
    return read_template(path)


def constant(challenge: Task, frames: list[int], label: object) -> Labels:
    return {challenge: {"v": VideoLabels(np.array(frames), np.array([label] * len(frames)))}}


# Golden files


@pytest.mark.parametrize("template", ["template.txt", "example.txt"])
@pytest.mark.parametrize("folder", ANSWERS)
def test_golden_file_is_written(folder: str, template: str, tmp_path: Path) -> None:
    read = read_template(SUBMISSIONS / folder / template)
    write_predictions(read, golden_labels(SUBMISSIONS / folder, read.format), tmp_path / "p.txt")
    assert (tmp_path / "p.txt").read_bytes() == (SUBMISSIONS / folder / "predictions.txt").read_bytes()


@pytest.mark.parametrize("folder", [folder for folder in ANSWERS if (SUBMISSIONS / folder / "per_video").is_dir()])
def test_golden_folder_is_written_and_read(folder: str, tmp_path: Path) -> None:
    read = read_template(SUBMISSIONS / folder / "template.txt")
    labels, (challenge,) = golden_labels(SUBMISSIONS / folder, read.format), read.format.tasks
    write_per_video(read, labels, tmp_path / "new")
    written = {path.name: path.read_bytes() for path in (tmp_path / "new").iterdir()}
    assert written == {path.name: path.read_bytes() for path in (SUBMISSIONS / folder / "per_video").iterdir()}
    one_file = read_predictions(SUBMISSIONS / folder / "predictions.txt", challenge)[1]
    assert plain(read_predictions(SUBMISSIONS / folder / "per_video", challenge)[1]) == plain(one_file)


@pytest.mark.parametrize("folder", ANSWERS)
def test_golden_file_is_read(folder: str) -> None:
    read = read_template(SUBMISSIONS / folder / "template.txt")
    golden = golden_labels(SUBMISSIONS / folder, read.format)
    assert golden.keys() == set(read.format.tasks)
    for challenge, labels in golden.items():
        expected = {
            video: {frame: label for frame, label in own.items() if frame in read.videos[video].frames}
            for video, own in plain(labels).items()
        }
        assert plain(read_predictions(SUBMISSIONS / folder / "predictions.txt", challenge)[1]) == expected


def plain(labels: dict[str, VideoLabels]) -> dict[str, dict[int, Any]]:
    """Labels by frame by video."""
    return {
        name: dict(zip(video.frames.tolist(), video.labels.tolist(), strict=True)) for name, video in labels.items()
    }


# Any template and labels

VIDEO = st.from_regex(r"[a-zA-Z0-9_\-ü]([a-zA-Z0-9_. \-]{0,8}[a-zA-Z0-9_\-])?", fullmatch=True)
KEYS = st.lists(st.tuples(VIDEO, st.integers(1, 10**6)), min_size=1, max_size=20, unique=True)


def numbers(challenge: Task) -> st.SearchStrategy[Any]:
    """Any answer for a frame: a class, or a number a field."""
    fields = [
        st.integers(field.low, field.high) if field.whole else st.floats(field.low, field.high)
        for field in challenge.fields
    ]
    return fields[0] if len(fields) == 1 else st.tuples(*fields).map(list)


@pytest.mark.slow
@settings(max_examples=40)
@pytest.mark.parametrize("known", ANY_FORMAT, ids=lambda known: known.name)
@given(keys=KEYS, data=st.data())
def test_what_is_written_is_read(
    known: Format, keys: list[tuple[str, int]], data: st.DataObject, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.getbasetemp()
    template = make_template(folder, known, *(f"{video}/{frame:05d}.jpg" for video, frame in keys))
    wanted: dict[Task, dict[str, dict[int, Any]]] = {challenge: {} for challenge in known.tasks}
    for challenge in known.tasks:
        for video, frame in keys:
            wanted[challenge].setdefault(video, {})[frame] = data.draw(numbers(challenge))
    labels = {
        challenge: {video: video_labels(own) for video, own in by_video.items()}
        for challenge, by_video in wanted.items()
    }
    assert write_predictions(template, labels, folder / "p.txt") == {}
    for challenge, by_video in wanted.items():
        read = read_predictions(folder / "p.txt", challenge)[1]
        assert read.keys() == by_video.keys()
        for video, own in by_video.items():
            assert read[video].frames.tolist() == sorted(own)
            expected = np.array([own[frame] for frame in sorted(own)])
            assert read[video].labels.shape == expected.shape
            np.testing.assert_allclose(read[video].labels, expected, rtol=0, atol=5.0001e-5 if challenge == VA else 0)
    again = read_template(folder / "p.txt")
    assert again.rows.to_pylist() == [f"{video}/{frame:05d}.jpg" for video, frame in keys]


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0.0, "0.0000"),
        (-0.0, "0.0000"),
        (-4.9e-5, "0.0000"),
        (1e-300, "0.0000"),
        (np.float32(0.1), "0.1000"),
        (-0.12345, "-0.1234"),
        (1.0, "1.0000"),
        (-1.0, "-1.0000"),
    ],
)
def test_numbers_are_plain(value: float, text: str, tmp_path: Path) -> None:
    template = make_template(tmp_path, FORMATS[1], "v/00001.jpg")
    write_predictions(template, constant(VA, [1], [value, value]), tmp_path / "p.txt")
    assert (tmp_path / "p.txt").read_text() == f"image_location,valence,arousal\nv/00001.jpg,{text},{text}\n"


# Refusals


@pytest.mark.parametrize(
    ("challenge", "label", "message"),
    [
        (VA, [0.5, 1.0001], r"not a number from -1 to 1: v/00002\.jpg; found \[0\.5 +1\.0001\]\. Only that can be"),
        (VA, [np.nan, 0], "not a number from -1 to 1"),
        (VA, [0, -np.inf], "not a number from -1 to 1"),
        (VA, [-5.0, -5.0], "not a number from -1 to 1"),
        (AU, [0] * 11 + [2], "not an integer from 0 to 1"),
        (AU, [-1] * 12, "not an integer from 0 to 1"),
    ],
)
def test_label_out_of_range_is_refused_not_clipped(
    challenge: Task, label: list[float], message: str, tmp_path: Path
) -> None:
    known = next(known for known in FORMATS if known.tasks == (challenge,))
    template = make_template(tmp_path, known, "v/00001.jpg", "v/00002.jpg")
    labels = {challenge: {"v": VideoLabels(np.array([1, 2]), np.array([[0] * len(label), label]))}}
    with pytest.raises(PredictionsError, match=rf"template\.txt:3: 1 of 2 rows have a label that is {message}"):
        write_predictions(template, labels, tmp_path / "p.txt")
    assert not (tmp_path / "p.txt").exists()


@pytest.mark.parametrize("known", ANY_FORMAT, ids=lambda known: known.name)
def test_labels_of_another_challenge_are_refused(known: Format, tmp_path: Path) -> None:
    template = make_template(tmp_path, known, "v/00001.jpg")
    other = VA if EXPR in known.tasks else EXPR
    labels = constant(other, [1], [0.0, 0.0] if other == VA else 0)
    expected = re.escape(known.tasks[0].name)
    with pytest.raises(
        PredictionsError,
        match=rf"template\.txt:1: the template is of another.*; found '{other.name} \(.*expected {expected}",
    ):
        write_predictions(template, labels, tmp_path / "p.txt")


def test_compound_classes_in_another_order_are_another_challenge(tmp_path: Path) -> None:
    swapped = recognise("image_location,Happily_Surprised,Fearfully_Surprised,Sadly_Angry")
    assert COMPOUND is not None
    assert swapped is not None
    template = make_template(tmp_path, swapped, "v/00001.jpg")
    with pytest.raises(PredictionsError, match=r"found 'compound \(Fearfully.*expected compound \(Happily"):
        write_predictions(template, constant(COMPOUND.tasks[0], [1], 0), tmp_path / "p.txt")


def test_template_of_another_challenge_is_refused(tmp_path: Path) -> None:
    make_template(tmp_path, FORMATS[1], "v/00001.jpg")
    with pytest.raises(TemplateError, match=r":1: has another header; found 'image_location,valence.*; expected image"):
        read_template(tmp_path / "template.txt", EXPR)


@pytest.mark.parametrize("challenge", TASKS.values(), ids=lambda challenge: challenge.name)
def test_multi_task_template_asks_for_each_of_its_challenges(challenge: Task) -> None:
    assert read_template(SUBMISSIONS / "multi-task" / "template.txt", challenge).format == MULTI_TASK


@pytest.mark.parametrize("name", ["multi-task", "compound"])
def test_other_editions_have_no_folder(name: str, tmp_path: Path) -> None:
    template = read_template(SUBMISSIONS / name / "template.txt")
    labels = golden_labels(SUBMISSIONS / name, template.format)
    with pytest.raises(TemplateError, match=rf":1: {name} has no files per video\. Submit one predictions\.txt"):
        write_per_video(template, labels, tmp_path / "new")


@pytest.mark.parametrize(
    ("known", "answer", "message"),
    [
        (FORMATS[1], "0.5", "expected 2 numbers: valence -1..1, arousal -1..1"),
        (FORMATS[1], "0.5,1.01", "found '0.5,1.01'"),
        (FORMATS[1], "0.5,nan", "found '0.5,nan'"),
        (FORMATS[1], "0.5,1e-3", "found '0.5,1e-3'"),
        (FORMATS[2], ",".join("0" * 11), "expected 12 numbers: AU1 0..1"),
        (FORMATS[2], ",".join(["0"] * 11 + ["0.0"]), "found '0,0,"),
        (MULTI_TASK, ",".join(["0"] * 12), "expected 15 numbers: valence -1..1, arousal -1..1, expression 0..7, AU1"),
        (COMPOUND, "3", "expected an integer from 0 to 2"),
    ],
)
def test_line_that_cannot_be_read_is_named(known: Format, answer: str, message: str, tmp_path: Path) -> None:
    right = f"v/00001.jpg,{','.join('0' for _ in known.fields)}"
    (tmp_path / "p.txt").write_text(f"{known.header}\n{right}\nv/00002.jpg,{answer}\n")
    with pytest.raises(PredictionsError, match=r"p\.txt:3: has no usable label.*" + re.escape(message)):
        read_predictions(tmp_path / "p.txt", known.tasks[0])[1]


# Filling


@pytest.mark.parametrize(
    ("challenge", "fill", "labels", "expected"),
    [
        (EXPR, "nearest", {3: 1, 6: 2, 10: 3}, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]),
        (EXPR, "interpolate", {3: 1, 6: 2, 10: 3}, [1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3]),
        (
            VA,
            "interpolate",
            {3: [0.3, -1.0], 6: [0.6, 0.5], 10: [0.6, 0.1]},
            [0.3, 0.3, 0.3, 0.4, 0.5, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6],
        ),
        (
            VA,
            "nearest",
            {3: [0.3, -1.0], 6: [0.6, 0.5], 10: [0.6, 0.1]},
            [0.3, 0.3, 0.3, 0.3, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6, 0.6],
        ),
        (AU, "interpolate", {5: [1] + [0] * 11, 6: [0] * 12}, [1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0]),
    ],
)
def test_rows_are_filled_from_the_frames_around_them(
    challenge: Task, fill: Any, labels: dict[int, Any], expected: list[float], tmp_path: Path
) -> None:
    known = next(known for known in FORMATS if known.tasks == (challenge,))
    rows = [f"v/{frame:05d}.jpg" for frame in (11, *range(1, 11))]
    template = make_template(tmp_path, known, *rows, "w/00001.jpg")
    predicted = {challenge: {"v": video_labels(labels), "w": video_labels({1: next(iter(labels.values()))})}}
    with pytest.raises(PredictionsError, match=rf":2: {11 - len(labels)} of 12 rows have no prediction: v/00011\.jpg"):
        write_predictions(template, predicted, tmp_path / "p.txt")
    assert write_predictions(template, predicted, tmp_path / "p.txt", fill) == {"v": 11 - len(labels)}
    read = read_predictions(tmp_path / "p.txt", challenge)[1]["v"]
    first = read.labels.reshape(11, -1)[:, 0]  # the first field tells enough
    np.testing.assert_allclose(first, expected)


def test_a_video_without_any_prediction_cannot_be_filled(tmp_path: Path) -> None:
    template = make_template(tmp_path, FORMATS[0], "v/00001.jpg", "w/00001.jpg")
    nothing = VideoLabels(np.zeros(0, np.int64), np.zeros(0, np.int64))
    for predicted in ({}, {"w": nothing}):
        labels: Labels = {EXPR: constant(EXPR, [1], 0)[EXPR] | predicted}
        with pytest.raises(PredictionsError, match=r"template\.txt:3: 1 of 2 videos have no predictions: w\."):
            write_predictions(template, labels, tmp_path / "p.txt", "nearest")


def test_a_row_of_several_challenges_is_filled_where_any_lacks_it(tmp_path: Path) -> None:
    template = make_template(tmp_path, MULTI_TASK, "v/00001.jpg", "v/00002.jpg", "v/00003.jpg")
    labels = constant(VA, [1, 2], [0.25, 0.5]) | constant(EXPR, [2, 3], 4) | constant(AU, [1, 2, 3], [1] * 12)
    assert write_predictions(template, labels, tmp_path / "p.txt", "interpolate") == {"v": 2}
    units = ",".join("1" * 12)
    answers = [f"v/0000{frame}.jpg,0.2500,0.5000,4,{units}" for frame in (1, 2, 3)]
    assert (tmp_path / "p.txt").read_text().splitlines() == [MULTI_TASK.header, *answers]


# Long files


def test_blocks_join_without_a_seam(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [f"{video}/{frame:05d}.jpg" for frame in range(1, 40) for video in ("b", "a", "c")]
    content = FORMATS[0].header + "\n" + "".join(f"{row},\n" for row in rows) + "\n" * 100
    (tmp_path / "template.txt").write_text(content)
    whole = read_template(tmp_path / "template.txt")
    for block in (1, 7, 50, 51):
        monkeypatch.setattr("submissions.template._BLOCK", block)
        template = read_template(tmp_path / "template.txt")
        assert template.rows.to_pylist() == rows
        assert list(template.videos) == ["b", "a", "c"]
        for video, own in template.videos.items():
            assert own.positions.tolist() == whole.videos[video].positions.tolist()
            assert own.frames.tolist() == list(range(1, 40))
    (tmp_path / "template.txt").write_text(f"{content}a/00041.jpg,\n")
    with pytest.raises(TemplateError, match=rf":{len(rows) + 2}: is not a row of a template; found ''"):
        read_template(tmp_path / "template.txt")
