"""Predictions read back are the predictions that were written; anything else is refused by its line."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.errors import PredictionsError
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import EXPR
from submissions.reader import align, read_predictions
from submissions.template import read_template
from submissions.writer import VideoLabels, write_per_video

HEADER = EXPR.submission_header


def as_dicts(labels: dict[str, VideoLabels]) -> dict[str, dict[int, int]]:
    """Class by frame by video."""
    return {
        name: dict(zip(video.frames.tolist(), video.labels.tolist(), strict=True)) for name, video in labels.items()
    }


def write(path: Path, *lines: str) -> Path:
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


# predictions.txt


@pytest.mark.parametrize(
    "content",
    [f"{HEADER}\nv/00001.jpg,3\nv/00002.jpg,0", f"\ufeff{HEADER}\r\nv/00001.jpg,3\r\nv/00002.jpg,0\r\n\r\n"],
    ids=["no last newline", "mark, CRLF and a blank line"],
)
def test_spellings_that_mean_the_same(content: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content.encode())
    assert as_dicts(read_predictions(tmp_path / "p.txt")[1]) == {"v": {1: 3, 2: 0}}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("v/00002.jpg,", ":3: has no usable label; found ''; expected an integer from 0 to 7. Run `check`"),
        ("v/00002.jpg,8", ":3: has no usable label; found '8'"),
        ("v/00002.jpg,-1", ":3: has no usable label; found '-1'"),
        ("v/00002.jpg, 1", ":3: has no usable label; found ' 1'"),
        ("v/00002.jpg,1.0", ":3: has no usable label; found '1.0'"),
        ("v/00002.jpg,0,1", ":3: has no usable label; found '0,1'"),
        ("v/00002.png,1", ":3: is not a row"),
        ("00002.jpg,1", ":3: is not a row"),
        ("v/00001.jpg,1", ":3: lists frame 1 of v twice"),
        (HEADER, ":3: is not a row"),
    ],
)
def test_a_line_that_cannot_be_scored_is_named(line: str, message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "p.txt", HEADER, "v/00001.jpg,3", line, "v/00003.jpg,3")
    with pytest.raises(PredictionsError, match=re.escape(f"{path}{message}")):
        read_predictions(path)[1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty"),
        (f"{EXPR.header}\nv/00001.jpg,3\n".encode(), "has another header"),
        (f"{HEADER}\nv\xe9/00001.jpg,3\n".encode("latin-1"), "is not UTF-8 text"),
    ],
)
def test_a_file_that_cannot_be_scored_is_refused(content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_bytes(content)
    with pytest.raises(PredictionsError, match=rf"p\.txt.*{message}"):
        read_predictions(tmp_path / "p.txt")[1]


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(PredictionsError, match=r"p\.txt: cannot be read"):
        read_predictions(tmp_path / "p.txt")[1]


# The folder of the 3rd edition


@pytest.mark.slow
@given(
    labels=st.dictionaries(
        st.sampled_from(["a", "a_left", "7-60"]), st.lists(st.integers(0, 7), min_size=1, max_size=6), min_size=1
    )
)
def test_a_folder_that_was_written_is_read(
    labels: dict[str, list[int]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    base = tmp_path_factory.mktemp("folder")
    rows = [frame_name(video, i) for video, known in labels.items() for i in range(1, len(known) + 1)]
    template = read_template(write(base / "template.txt", HEADER, *(f"{row}," for row in rows)))
    known = {video: VideoLabels(np.arange(1, len(c) + 1), np.array(c)) for video, c in labels.items()}
    write_per_video(template, {EXPR: known}, base / "out")
    assert as_dicts(read_predictions(base / "out")[1]) == {v: dict(enumerate(c, start=1)) for v, c in labels.items()}


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([EXPR.header, "0", "8"], ":3: has no usable label; found '8'"),
        ([EXPR.header, "0", "", "1"], ":3: has no usable label; found ''"),
        ([EXPR.header, "0,1"], ":2: has no usable label; found '0,1'"),
        (["0", "1"], ":1: has another header; found '0'; expected Neutral,Anger,"),
        ([], ":1: has another header; found ''"),
    ],
)
def test_a_line_of_a_folder_that_cannot_be_scored_is_named(lines: list[str], message: str, tmp_path: Path) -> None:
    path = write(tmp_path / "v.txt", *lines)
    with pytest.raises(PredictionsError, match=re.escape(f"{path}{message}")):
        read_predictions(tmp_path)[1]


def test_a_file_of_a_folder_that_is_no_text_is_named(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(PredictionsError, match=r"v\.txt: is not UTF-8 text"):
        read_predictions(tmp_path)[1]


# Alignment with the truth


def test_frames_are_aligned_by_number() -> None:
    known = {"v": VideoLabels(np.array([1, 2, 3, 5]), np.array([4, 5, 6, 7]))}
    assert align(known, "v", 3).tolist() == [4, 5, 6]


def test_frames_without_a_prediction_are_refused() -> None:
    known = {"v": VideoLabels(np.array([1, 2, 5]), np.array([4, 5, 7]))}
    with pytest.raises(
        PredictionsError, match=r"no prediction for 2 of the 5 annotation lines of v; found 'none for frame 3'"
    ):
        align(known, "v", 5)
    with pytest.raises(PredictionsError, match=r"no prediction for the annotated video w\..*annotations of the split"):
        align(known, "w", 1)
