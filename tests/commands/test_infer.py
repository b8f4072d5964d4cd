"""`infer` with several videos: files and folders, one summary, and on past those that cannot be predicted."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from abaw_expr.commands.main import main
from abaw_expr.training.run import RunFolder
from tests.helpers.paths import ROOT
from tests.infer.test_pipeline import ANNE, table, video_file, voice
from tests.training.test_predict import make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("infer") / "run")


@pytest.fixture(scope="module")
def talks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a video, and another one deeper."""
    root = tmp_path_factory.mktemp("infer") / "talks"
    (root / "day 2").mkdir(parents=True)
    video_file(root / "anne.mp4", (ANNE,), voice())
    shutil.copy(root / "anne.mp4", root / "day 2" / "again.mp4")
    (root / "notes.txt").write_text("no video")
    return root


def infer(run: RunFolder, out: Path, *words: object) -> int:
    return main(["infer", *map(str, words), "--run", str(run.root), "--out", str(out), "--accelerator", "cpu"])


@pytest.mark.slow
def test_a_folder_and_files_and_one_that_is_none(
    run: RunFolder, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    unseen, letter = video_file(tmp_path / "unseen.mp4", (), None), tmp_path / "letter.mp4"
    letter.write_text("Dear Sir or Madam")
    assert infer(run, tmp_path / "out", talks, letter, unseen) == 1
    captured = capsys.readouterr()
    told = " ".join(captured.err.split())
    for number, video in enumerate((talks / "anne.mp4", talks / "day 2" / "again.mp4", letter, unseen), start=1):
        assert f"{number} of 4: {video}" in told
    assert f"{letter}: cannot be read as a video" in told
    assert f"{unseen}: has no " in told
    assert told.endswith("2 of 4 videos were not predicted: letter, unseen.")
    assert captured.out.count("Predictions in") == 1
    first = [row.split()[:1] for row in captured.out.partition("Predictions in")[2].splitlines()]
    assert [row for row in first if row in (["anne"], ["again"])] == [["anne"], ["again"]]
    assert "4.8 s of video in " in captured.out
    assert table(tmp_path / "out", "anne").equals(table(tmp_path / "out", "again"))
    assert len(list((tmp_path / "out").glob("*.csv"))) == 2


@pytest.mark.slow
def test_what_it_wrote_into_the_folder_is_no_further_video(run: RunFolder, talks: Path, tmp_path: Path) -> None:
    folder = tmp_path / "talks"
    folder.mkdir()
    shutil.copy(talks / "anne.mp4", folder)
    for _ in range(2):
        assert infer(run, folder, folder, "--annotate") == 0
    assert sorted(path.name for path in folder.glob("*.*")) == [
        "anne.annotated.mp4",
        "anne.csv",
        "anne.html",
        "anne.mp4",
        "anne.png",
    ]


def test_where_none_can_be_predicted(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    letters = [tmp_path / "a.mp4", tmp_path / "b.mp4"]
    for letter in letters:
        letter.write_text("Dear Sir or Madam")
    assert infer(run, tmp_path / "out", *letters) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert " ".join(captured.err.split()).count("cannot be read as a video") == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["x/a.mp4", "y/a.mov"], "two video files have one name; found "),
        (["x/a.mp4", "x/a.mov", "x"], "two video files have one name; found "),
        (["x/a.mp4", "y/A.mov"], "the faces of a and of A may have the same folder of crops"),
        (["x/a.mp4", "y/a_left.mp4"], "the faces of a and of a_left may have the same folder of crops"),
    ],
)
def test_two_videos_of_one_name_are_refused_before_any_work(
    names: list[str], message: str, run: RunFolder, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = [tmp_path / name for name in names]
    for path in paths:
        path.parent.mkdir(exist_ok=True)
        if path.suffix:
            shutil.copy(talks / "anne.mp4", path)
    assert infer(run, tmp_path / "out", *paths) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert message in text
    assert "Rename one of the" in text
    assert not (tmp_path / "out").exists()


def test_folders_that_cannot_be_used(
    run: RunFolder, talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "empty").mkdir()
    assert infer(run, tmp_path / "out", tmp_path / "empty") == 2
    assert "empty: holds no videos; expected files that end in .mp4" in " ".join(capsys.readouterr().err.split())
    shutil.copytree(talks, tmp_path / "talks")
    shutil.copy(talks / "anne.mp4", tmp_path / "talks" / "day 2" / "anne.mp4")
    assert infer(run, tmp_path / "out", tmp_path / "talks") == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "talks: holds two video files of one name; found 'day 2/anne.mp4 has the name of anne.mp4" in text
    assert infer(run, tmp_path / "out") == 2
    assert "infer needs video files, or folders of them" in capsys.readouterr().err


@pytest.mark.slow
def test_faces_takes_folders_too(talks: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["faces", str(talks), "--out", str(tmp_path / "found"), "--every", "30", "--workers", "1"]) == 0
    assert {path.name for path in (tmp_path / "found" / "cropped_aligned_found").iterdir()} == {"anne", "again"}


@pytest.mark.slow
def test_the_search_for_faces_begins_before_the_slow_imports(run: RunFolder, talks: Path, tmp_path: Path) -> None:
    """Those are of the networks' arithmetic, of tables and of plots: a second or two, while a bar is shown."""
    code = f"""
import sys
from abaw_expr.commands.main import main
from abaw_expr.errors import VideoError
from abaw_expr.infer import pipeline

def find_people(*arguments):
    print(*({{"lightning_fabric", "pandas", "matplotlib", "scipy", "torchvision"}} & set(sys.modules)), "begun")
    raise VideoError("enough")

pipeline.find_people = find_people
main(["infer", {str(talks / "anne.mp4")!r}, "--run", {str(run.root)!r}, "--out", {str(tmp_path / "out")!r}])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stdout == "begun\n", done.stderr
