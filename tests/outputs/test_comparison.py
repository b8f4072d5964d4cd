"""Two decisions, or two models, against each other on the same recordings."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.commands.main import main
from abaw_expr.outputs.comparison import compare as compare_decisions
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.table import Outputs, label_columns, read_outputs, write_outputs
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.statistics import bootstrap_difference
from abaw_expr.tasks.task import EXPR, VA, Task
from tests.helpers import challenges
from tests.outputs.test_table import PRIOR, make_outputs, make_video

C = EXPR.n_columns


def knowing(seed: int, share: float) -> Outputs:
    """Pictures that know the truth on that share of the frames."""
    rng, made = np.random.default_rng(seed), []
    for name in "abcdef":
        video = make_video(name, 200, gaps=0, branches=("visual",))
        known = (rng.random(200) < share) & (video.label >= 0)
        p = np.where(known[:, None], np.eye(C)[np.maximum(video.label, 0)], video.p["visual"]).astype(np.float32)
        made.append(replace(video, p={"visual": p}))
    return make_outputs(made)


def numbers_of(task: Task) -> Outputs:
    """Three videos of another challenge."""
    return challenges.make_table(task, [challenges.make_video(task, name, 60) for name in "abc"])


@pytest.fixture
def good(tmp_path: Path) -> Path:
    write_outputs(tmp_path / "good.parquet", knowing(0, 0.7))
    return tmp_path / "good.parquet"


@pytest.fixture
def decision(tmp_path: Path) -> Path:
    Decision({"visual": Vote(PRIOR)}).save(tmp_path / "plain.json")
    return tmp_path / "plain.json"


def compare(first: tuple[Path, Path], second: tuple[Path, Path]) -> int:
    words = ["--outputs", first[0], "--decision", first[1], "--other-outputs", second[0], "--other-decision", second[1]]
    return main(["compare", *(str(word) for word in words)])


def test_the_better_is_named_with_the_difference(
    good: Path, decision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_outputs(tmp_path / "bad.parquet", knowing(1, 0.3))
    assert compare((good, decision), (tmp_path / "bad.parquet", decision)) == 0
    shown = capsys.readouterr().out
    first, second = (
        Decision.load(decision).statistics(knowing(seed, share).videos()) for seed, share in ((0, 0.7), (1, 0.3))
    )
    for value in bootstrap_difference(first, second, macro_f1, seed=0):
        assert f"{value:.4f}" in shown
    assert "The first is better." in shown
    assert compare((tmp_path / "bad.parquet", decision), (good, decision)) == 0
    assert "The second is better." in capsys.readouterr().out


def test_the_function_gives_what_the_command_prints(
    good: Path, decision: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert compare((good, decision), (good, decision)) == 0
    shown = capsys.readouterr().out
    side = read_outputs(good), Decision.load(decision)
    found = compare_decisions(side, side)
    assert found.first == found.second
    assert (found.recordings, found.difference, found.better) == (6, (0, 0, 0), None)
    for number in found.first:
        assert shown.count(f"{number:.4f}") == 2


def test_no_difference_is_said_to_be_none(
    good: Path, decision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Decision({"visual": Vote(PRIOR, 3)}).save(tmp_path / "same.json")
    assert compare((good, decision), (good, tmp_path / "same.json")) == 0
    assert "no difference is shown" in capsys.readouterr().out


def test_other_frames_are_not_compared(
    good: Path, decision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_outputs(tmp_path / "few.parquet", make_outputs([make_video("a", 200, branches=("visual",))]))
    assert compare((good, decision), (tmp_path / "few.parquet", decision)) == 2
    assert "has other annotated frames" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["expr", "va"])
def test_other_annotations_of_the_same_frames_are_not_compared(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Equal counts of each class, on other frames."""
    task, table = {"expr": (EXPR, knowing(0, 0.7)), "va": (VA, numbers_of(VA))}[name]
    first, *others = label_columns(task)
    swapped = table.table.copy()
    column = swapped[first].to_numpy()
    known = np.flatnonzero((swapped[[first, *others]] >= -1).all(axis=1) & (swapped["video"] == "a") & (column != -1))
    one, two = known[0], next(row for row in known if column[row] != column[known[0]])
    swapped.loc[[one, two], [first, *others]] = swapped.loc[[two, one], [first, *others]].to_numpy()
    paths = [tmp_path / "first.parquet", tmp_path / "swapped.parquet"]
    write_outputs(paths[0], table)
    write_outputs(paths[1], replace(table, table=swapped))
    decision = tmp_path / "decision.json"
    Decision({"visual": Vote(next(iter(table.branches.values())).prior)}, task=task).save(decision)
    assert compare((paths[0], decision), (paths[1], decision)) == 2
    shown = " ".join(capsys.readouterr().err.split())
    assert (
        f"video a, frame {swapped['frame'][one]}: the annotation differs from the first file's; 2 frames differ"
        in shown
    )
    assert "better" not in shown


def test_a_recording_that_one_table_does_not_annotate_is_told(
    good: Path, decision: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lacking = read_outputs(good)
    table = lacking.table.copy()
    table.loc[table["video"] == "c", "label"] = np.int8(-1)
    write_outputs(tmp_path / "lacking.parquet", replace(lacking, table=table))
    for tables in ((good, tmp_path / "lacking.parquet"), (tmp_path / "lacking.parquet", good)):
        assert compare((tables[0], decision), (tables[1], decision)) == 2
        shown = " ".join(capsys.readouterr().err.split())
        assert "has other annotated frames" in shown
        assert "such as video c, frame" in shown
