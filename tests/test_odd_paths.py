"""A path is a path: no name is a pattern, a protocol, a format, a formula or markup to whoever reads or draws it."""

import os
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from matplotlib.figure import Figure

from abaw_expr.commands.main import main
from abaw_expr.data.discovery import find_video_files
from abaw_expr.data.media.decode import read_audio, read_times
from abaw_expr.data.media.sources import media_type
from abaw_expr.data.problems import Problem
from abaw_expr.faces.frames import count_frames, read_frames
from tests.helpers.damage import write_test_video
from tests.helpers.fitting import opened
from tests.helpers.tiny import add_validation, annotate, crop, kinds, run
from tests.training.test_predict import make_run
from tuning.plots import save

NAMES = (
    *("%03d", "a%d", "100%", "*", "a?b", "[a-z]", "[red]x", "{x}", "{0}", "#1", "-a", "--out", "~", "$HOME"),
    *(
        "concat:a",
        "http:x",
        "pipe:0",
        "file:x",
        "data:,x",
        "a:b",
        "a|b",
        "a&b",
        "a;b",
        "a'b",
        'a"b',
        "a`b",
        " a ",
        "$x_{",
    ),
    *("\u0441\u043b\u043e\u0432\u043e", "\u6c34", "\U0001f600", "a\u202eb", "CON", "x.part"),
)


@pytest.fixture(scope="module")
def video_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_test_video(tmp_path_factory.mktemp("odd") / "film.mp4", "mpeg4", "aac", 0.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("suffix", [".mp4", ".png", ".txt", ""])
def test_a_film_is_read_by_what_it_holds(
    video_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, suffix: str
) -> None:
    """Relative names are what programs take for something else."""
    monkeypatch.chdir(tmp_path)
    path = Path(f"{name}{suffix}")
    shutil.copy(video_file, path)
    assert media_type(path) == "video"
    assert read_times(path) == pytest.approx(np.arange(10) / 25)
    assert [number for number, _ in read_frames(path)] == list(range(1, 11))
    assert count_frames(path) == 10
    assert read_audio(path) is not None


@pytest.mark.slow
def test_a_release_of_odd_names_is_prepared(video_file: Path, tmp_path: Path) -> None:
    root = tmp_path / "[release] %d*"
    add_validation(root)
    names = [name for name in NAMES if name[0] not in ". " and name.isprintable()]
    for name in names:
        annotate(root, name, [0] * 10)
        crop(root, name, range(1, 11))
        shutil.copy(video_file, root / f"batch1/{name}.mp4")
    assert set(find_video_files(root)[0]) == {*names, "val"}
    prepared = run(root, tmp_path / "store")
    assert {kind for told in kinds(prepared).values() for kind in told} <= {"little voice"}
    assert prepared.videos == {"expr": {"train": len(names), "val": 1}}
    assert prepared.crops == 10 * len(names) + 2


def test_names_that_are_not_utf_8_are_told_as_escapes(video_file: Path, tmp_path: Path) -> None:
    odd = os.fsdecode(b"v\xff")
    root = tmp_path / odd
    add_validation(root)
    annotate(root, "a", [0] * 10)
    crop(root, "a", range(1, 11))
    for path in (f"batch1/{odd}.mp4", f"{odd}/a.mp4"):
        (root / path).parent.mkdir(exist_ok=True)
        shutil.copy(video_file, root / path)
    crop(root, odd, [1])
    shutil.copy(video_file, root / f"cropped_aligned/a/{odd}.jpg")
    store = tmp_path / f"store{odd}"
    prepared = run(root, store)
    assert prepared.videos == {"expr": {"train": 1, "val": 1}}
    assert prepared.crops == 12
    assert [problem.video for problem in prepared.problems if problem.kind == "impossible name"] == [
        "batch1/v\\udcff.mp4"
    ]
    assert "1 files are not named like 00001.jpg: v\\udcff.jpg" in [problem.detail for problem in prepared.problems]
    assert len(opened(store).videos) == 2
    assert run(root, store).kept == 2


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a$b{c_$", "$x_{$", "%03d", "[red]x", "-a", "a:b", "concat:a"])
def test_infer_answers_for_an_odd_name(
    video_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(video_file, f"{name}.mp4")
    trained = make_run(tmp_path / "run").root
    words = [
        "infer",
        f"./{name}.mp4",
        "--run",
        str(trained),
        "--out",
        f"./o:{name}",
        "--accelerator",
        "cpu",
        "--annotate",
    ]
    assert main(words) == 0
    assert len(pd.read_csv(f"./o:{name}/{name}.csv")) == 10
    assert len(read_times(Path(f"./o:{name}/{name}.annotated.mp4"))) == 10


def test_words_in_pictures_are_no_formulas(tmp_path: Path) -> None:
    """Two dollars would be a formula, and braces that do not close an error."""

    def draw(figure: Figure) -> None:
        figure.suptitle("a$b{c_$")

    save(draw, tmp_path / "p")
    assert "<!-- a$b{c_$ -->" in (tmp_path / "p.svg").read_text()


def test_problems_are_told_as_they_are_written(tmp_path: Path) -> None:
    for folder in ("[red]", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "x.mp4").write_bytes(b"")
    _, (problem,) = find_video_files(tmp_path)
    assert isinstance(problem, Problem)
    assert problem.detail == "b/x.mp4 has the name of [red]/x.mp4, which is used"
