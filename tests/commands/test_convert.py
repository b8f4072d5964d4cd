"""Predictions change their shape and say the same."""

import shutil
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.commands.exit_status import COULD_NOT_RUN, OK
from abaw_expr.commands.main import main
from abaw_expr.errors import PredictionsError, TemplateError
from abaw_expr.outputs.table import read_outputs
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task
from submissions.conversion import to_file, to_folder
from tests.golden.make_golden import LENGTHS
from tests.helpers.paths import SUBMISSIONS

FOLDERS = ["", "va", "au"]
"""Of the golden files, those of challenges that the 3rd edition's folder can hold."""


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def convert(source: Path, out: Path, *arguments: str | Path) -> int:
    return main(["convert", str(source), "--out", str(out), *map(str, arguments)])


# Folder and file


@pytest.mark.parametrize("name", FOLDERS)
def test_golden_file_becomes_the_golden_folder_and_back(name: str, tmp_path: Path) -> None:
    golden = SUBMISSIONS / name
    assert convert(golden / "predictions.txt", tmp_path / "folder") == OK
    assert contents(tmp_path / "folder") == contents(golden / "per_video")
    assert convert(tmp_path / "folder", tmp_path / "p.txt", "--template", golden / "template.txt") == OK
    assert (tmp_path / "p.txt").read_bytes() == (golden / "predictions.txt").read_bytes()


def test_rows_are_in_the_order_of_names_where_no_template_says_otherwise(tmp_path: Path) -> None:
    assert convert(SUBMISSIONS / "per_video", tmp_path / "p.txt") == OK
    lines = (tmp_path / "p.txt").read_text().splitlines()
    assert sorted(lines[1:]) == sorted((SUBMISSIONS / "predictions.txt").read_text().splitlines()[1:])
    assert list(dict.fromkeys(line.partition("/")[0] for line in lines[1:])) == [
        "5-60-640x360",
        "video7",
        "video7_left",
    ]


def spelled(challenge: Task) -> st.SearchStrategy[str]:
    """Numbers in any right spelling, with as many decimals as one likes."""
    fields = [
        st.integers(field.low, field.high).map(str)
        if field.whole
        else st.decimals(field.low, field.high, places=3).map(str) | st.sampled_from(["0.5", "-1", "0.123456789"])
        for field in challenge.fields
    ]
    return st.tuples(*fields).map(",".join)


@pytest.mark.slow
@settings(max_examples=25)
@pytest.mark.parametrize("challenge", TASKS.values(), ids=lambda challenge: challenge.name)
@given(data=st.data(), seed=st.integers(0, 2**32 - 1))
def test_there_and_back_gives_the_same_bytes(
    challenge: Task, data: st.DataObject, seed: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("any")
    answers = st.lists(spelled(challenge), min_size=1, max_size=5)
    videos = data.draw(st.dictionaries(st.sampled_from(["a", "a_left", "ü.x", "7-60"]), answers, min_size=1))
    rows = [f"{frame_name(video, i)},{text}" for video, own in videos.items() for i, text in enumerate(own, 1)]
    shuffled = np.random.default_rng(seed).permutation(rows).tolist()
    content = "".join(f"{line}\n" for line in (challenge.submission_header, *shuffled)).encode()
    (folder / "p.txt").write_bytes(content)
    to_folder(folder / "p.txt", folder / "videos")
    expected = {video: "\n".join([challenge.header, *own, ""]).encode() for video, own in videos.items()}
    assert contents(folder / "videos") == {f"{video}.txt": text for video, text in expected.items()}
    to_file(folder / "videos", folder / "again.txt", folder / "p.txt")
    assert (folder / "again.txt").read_bytes() == content
    to_file(folder / "videos", folder / "sorted.txt")
    to_folder(folder / "sorted.txt", folder / "videos")
    assert contents(folder / "videos") == {f"{video}.txt": text for video, text in expected.items()}


def test_what_cannot_be_read_is_not_carried_over(tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text(f"{VA.submission_header}\nv/00001.jpg,0.5,0.5\nv/00002.jpg,0.5,1.5\n")
    with pytest.raises(PredictionsError, match=r"p\.txt:3: has no usable label; found '0\.5,1\.5'"):
        to_folder(tmp_path / "p.txt", tmp_path / "folder")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "v.txt").write_text(f"{EXPR.header}\n0\n9\n")
    with pytest.raises(PredictionsError, match=r"v\.txt:3: has no usable label; found '9'"):
        to_file(tmp_path / "videos", tmp_path / "again.txt")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["p.txt", "videos"]


def test_rows_that_the_folder_lacks_are_named(tmp_path: Path) -> None:
    shutil.copytree(SUBMISSIONS / "per_video", tmp_path / "videos")
    lines = (tmp_path / "videos" / "video7.txt").read_text().splitlines()
    (tmp_path / "videos" / "video7.txt").write_text("\n".join(lines[:-1]))
    with pytest.raises(PredictionsError, match=r"template\.txt:23: 1 of 22 rows have no prediction: video7/00003\.jpg"):
        to_file(tmp_path / "videos", tmp_path / "p.txt", SUBMISSIONS / "template.txt")
    with pytest.raises(PredictionsError, match=r"template\.txt:1: the template is of another challenge"):
        to_file(tmp_path / "videos", tmp_path / "p.txt", SUBMISSIONS / "va" / "template.txt")
    (tmp_path / "videos" / "w.txt").write_text(f"{VA.header}\n0,0\n")
    with pytest.raises(PredictionsError, match=r"w\.txt:1: has another header; found 'valence,arousal'"):
        to_file(tmp_path / "videos", tmp_path / "p.txt")


def test_files_that_no_folder_can_hold_are_refused(tmp_path: Path) -> None:
    with pytest.raises(TemplateError, match=r":1: multi-task has no files per video"):
        to_folder(SUBMISSIONS / "multi-task" / "predictions.txt", tmp_path / "folder")
    (tmp_path / "p.txt").write_text(f"{EXPR.submission_header}\nv/00002.jpg,0\n")
    with pytest.raises(TemplateError, match=r":2: the frames of v are not 1\.\.1"):
        to_folder(tmp_path / "p.txt", tmp_path / "folder")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["absent.txt", "--out", "folder"], "absent.txt: is not there"),
        (["p.txt", "--out", "again.txt"], "is one file already. It becomes a folder, or a table"),
        (["p.txt", "--out", "folder", "--template", "p.txt"], "a flag has no effect here; found '--template'"),
        (["videos", "--out", "p.txt", "--template", "p.txt"], "is read by this command"),
        (["p.txt", "--out", "t.parquet"], "convert needs one of --like, --videos, --rate"),
        (["p.txt", "--out", "t.parquet", "--rate", "0"], "--rate cannot be used"),
        (["p.txt", "--out", "folder", "--rate", "30"], "a flag has no effect here; found '--rate'"),
        (["multi.txt", "--out", "t.parquet", "--rate", "30"], "has predictions of several tasks; found 'va, expr, au'"),
        (["multi.txt", "--out", "folder"], "multi-task has no files per video"),
        (["p.txt", "--out", "t.parquet", "--rate", "30", "--task", "va"], "has another header"),
        (["videos", "--out", "videos"], "is a folder"),
        (["empty", "--out", "new.txt"], "holds no <video>.txt"),
    ],
)
def test_mistakes_are_told_before_the_work(
    arguments: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copytree(SUBMISSIONS / "per_video", "videos")
    shutil.copy(SUBMISSIONS / "predictions.txt", "p.txt")
    shutil.copy(SUBMISSIONS / "multi-task" / "predictions.txt", "multi.txt")
    Path("empty").mkdir()
    assert main(["convert", *arguments]) == COULD_NOT_RUN
    assert message in " ".join(capsys.readouterr().err.split())
    assert Path("p.txt").read_bytes() == (SUBMISSIONS / "predictions.txt").read_bytes()


# Outputs tables


@pytest.mark.parametrize(
    ("name", "challenge", "row"),
    [
        ("predictions.txt", EXPR, [0, 1, 0, 0, 0, 0, 0, 0]),
        ("per_video", EXPR, [0, 1, 0, 0, 0, 0, 0, 0]),
        ("va/predictions.txt", VA, [0.5, -0.53]),
        ("multi-task/predictions.txt", VA, [0.5, -0.53]),
        ("au/per_video", AU, [int(value) for value in "011000110001"]),
    ],
)
def test_predictions_become_a_table_of_sure_answers(
    name: str, challenge: Task, row: list[float], tmp_path: Path
) -> None:
    which = ["--task", challenge.name] if "multi-task" in name else []
    assert convert(SUBMISSIONS / name, tmp_path / "t.parquet", "--rate", "10", *which) == OK
    outputs = read_outputs(tmp_path / "t.parquet", None)
    assert (outputs.task, outputs.split, list(outputs.branches)) == (challenge, "test", ["predictions"])
    assert outputs.branches["predictions"].run == Path(name).name
    videos = {video.name: video for video in outputs.videos()}
    assert {name: len(video.frame) for name, video in videos.items()} == LENGTHS
    np.testing.assert_allclose(videos["video7"].time, [0.0, 0.1, 0.2])
    np.testing.assert_allclose(videos["video7"].p["predictions"][0], row)


def test_table_has_the_rows_and_times_of_another(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = (SUBMISSIONS / "predictions.txt").read_text().splitlines()
    (tmp_path / "fewer.txt").write_text("\n".join(line for line in lines if "video7/" not in line) + "\n")
    assert convert(SUBMISSIONS / "predictions.txt", tmp_path / "all.parquet", "--rate", "7.5") == OK
    assert convert(tmp_path / "fewer.txt", tmp_path / "t.parquet", "--like", tmp_path / "all.parquet") == OK
    known, read = (read_outputs(tmp_path / name).table for name in ("all.parquet", "t.parquet"))
    assert read[["video", "frame", "time"]].equals(known[["video", "frame", "time"]])
    silent = read["predictions_0"].isna()
    assert set(read["video"][silent]) == {"video7"}
    assert read[~silent].equals(known[~silent])
    assert " ".join(capsys.readouterr().out.split()).endswith("without: no vote 3 rows of other frames, left out 0")
    (tmp_path / "other.txt").write_text(f"{EXPR.submission_header}\nw/00001.jpg,0\n")
    assert convert(tmp_path / "other.txt", tmp_path / "o.parquet", "--like", tmp_path / "all.parquet") == COULD_NOT_RUN
    assert "holds no video of the table" in capsys.readouterr().err
    assert convert(SUBMISSIONS / "va", tmp_path / "o.parquet", "--like", tmp_path / "all.parquet") == COULD_NOT_RUN
    assert not (tmp_path / "o.parquet").exists()
