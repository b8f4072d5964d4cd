"""The organisers' annotations of valence and arousal and of action units, and what is refused by file and line."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abaw_expr.data.release.reader import read_annotation, read_annotation_folder, task_of_folder
from abaw_expr.errors import ReleaseError
from abaw_expr.tasks.task import AU, EXPR, VA, Task, task_of_columns
from tests.helpers.challenges import COMPOUND, EVERY, make_truth, write_annotations

UNITS = ",".join(["0"] * 12)


def write(folder: Path, task: Task, *lines: str) -> Path:
    path = folder / "a.txt"
    path.write_text("\n".join([task.header, *lines]))
    return path


def test_values_are_decimals_or_the_mark(tmp_path: Path) -> None:
    path = write(tmp_path, VA, "0.12,-0.5", "-5,-5", "1,-1", "-5.0,0.3", " 1e-05, .5", "0.,-0")
    labels = read_annotation(path, VA)
    assert labels.dtype == np.float32
    expected = [[0.12, -0.5], [-5, -5], [1, -1], [-5, 0.3], [1e-5, 0.5], [0, 0]]
    assert labels == pytest.approx(np.array(expected, np.float32))
    assert (labels[[1, 3], 0] == -5).all()


def test_units_may_be_marked_in_part(tmp_path: Path) -> None:
    path = write(tmp_path, AU, UNITS, ",".join(["-1"] * 12), "1,-1,0,1,-1,0,1,-1,0,1,-1,0")
    labels = read_annotation(path, AU)
    assert (labels.dtype, labels.shape) == (np.int8, (3, 12))
    assert labels.tolist() == [[0] * 12, [-1] * 12, [1, -1, 0] * 4]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**32 - 1), task=st.sampled_from(EVERY), length=st.integers(1, 20))
def test_what_was_written_is_read(tmp_path: Path, seed: int, task: Task, length: int) -> None:
    labels = make_truth(task, length, np.random.default_rng(seed))
    write_annotations(tmp_path / str(seed), task, {"a": labels})
    assert task_of_folder(tmp_path / str(seed)) == task
    read = read_annotation_folder(tmp_path / str(seed), task)["a"]
    assert read.dtype == labels.dtype
    assert np.array_equal(read.reshape(labels.shape), labels)


@pytest.mark.parametrize(
    ("task", "line", "problem"),
    [
        (VA, "0.1", "has an unknown line"),
        (VA, "0.1,0.2,0.3", "has an unknown line"),
        (VA, "0.1;0.2", "has an unknown line"),
        (VA, "0.1,nan", "has an unknown line"),
        (VA, "0.1,0_1", "has an unknown line"),
        (VA, "+0.1,0", "has an unknown line"),
        (VA, "", "has an unknown line"),
        (VA, "0.1,1.01", "has a label outside its range"),
        (VA, "-1,0", ""),
        (VA, "-5.01,0", "has a label outside its range"),
        (AU, "0,1", "has an unknown line"),
        (AU, UNITS.replace("0", "1.0"), "has an unknown line"),
        (AU, f"{UNITS},0", "has an unknown line"),
        (AU, UNITS[:-1] + "2", "has a label outside its range"),
        (AU, "-5" + UNITS[1:], "has a label outside its range"),
    ],
)
def test_a_wrong_line_is_refused_by_file_and_line(tmp_path: Path, task: Task, line: str, problem: str) -> None:
    right = "0.5,0.5" if task == VA else UNITS
    path = write(tmp_path, task, right, right, line, line)
    if not problem:
        assert len(read_annotation(path, task)) == 4
        return
    expected = {
        "va": "2 values with commas between, each a number from -1 to 1, or -5 where not annotated",
        "au": "12 values with commas between, each an integer from 0 to 1, or -1 where not annotated",
    }
    message = f"{path}:4: {problem}; found {line!r}; expected {expected[task.name]}."
    with pytest.raises(ReleaseError, match=re.escape(message)):
        read_annotation(path, task)


def test_another_challenges_file_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, VA, "0.1,0.2")
    with pytest.raises(
        ReleaseError, match=f"a.txt:1: has a wrong header; found 'valence,arousal'; expected {AU.header}"
    ):
        read_annotation(path, AU)


def test_the_challenge_of_a_header() -> None:
    for task in EVERY:
        assert task_of_columns(task.header.split(",")) == task
    assert task_of_columns(COMPOUND.columns[::-1]) != COMPOUND
    for names in (
        ["arousal", "valence"],
        EXPR.columns[:-1],
        ["Sadly_Angry"],
        ["Sadly_Angry", "Sadly_Angry"],
        [],
        ["a", "b"],
    ):
        assert task_of_columns(names) is None


def test_a_folder_of_no_challenge_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("AU1,AU2\n0,1\n")
    with pytest.raises(
        ReleaseError, match=r"a\.txt:1: has a header of no challenge; found 'AU1,AU2'; expected Neutral,"
    ):
        task_of_folder(tmp_path)
    with pytest.raises(ReleaseError, match="holds no annotation"):
        task_of_folder(tmp_path / "none")
