"""Averages of runs and tables of folds: means and spreads by NumPy, sources that name all runs, the same decision."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.errors import OutputsError
from abaw_expr.files import digest
from abaw_expr.outputs.averaging import average
from abaw_expr.outputs.decision import equal_weights
from abaw_expr.outputs.joining import combine, stack
from abaw_expr.outputs.table import Outputs, Source, read_outputs, spread_column, write_outputs
from tests.helpers.branches import BRANCHES
from tests.outputs.test_table import PRIOR, C, make_outputs, make_video

OTHER_PRIOR = tuple(np.roll(PRIOR, 1).tolist())


def member(number: int, names: Sequence[str] = ("a", "b"), prior: Sequence[float] = PRIOR) -> Outputs:
    """A run's outputs: the same frames and labels as of every member, other numbers."""
    videos = [make_video(name, 6) for name in names]
    own = [make_video(name, 6, seed=number).p for name in names]
    made = make_outputs([replace(video, p=p) for video, p in zip(videos, own, strict=True)])
    source = Source(f"{number:016x}", tuple(prior), "last")
    return replace(made, branches=dict.fromkeys(made.branches, source))


def test_the_mean_and_the_spread_are_numpys_over_the_members_that_have_a_row() -> None:
    members = [member(number) for number in range(4)]
    found = average(members)
    for name in BRANCHES:
        rows = np.stack([one.branch(name) for one in members])
        with np.errstate(all="ignore"):
            none = np.isnan(rows[..., 0]).all(axis=0)
            expected, spread = np.nanmean(rows, axis=0), np.nanstd(rows, axis=0).mean(axis=1)
        np.testing.assert_allclose(found.branch(name), expected, atol=1e-7)
        np.testing.assert_allclose(found.table[spread_column(name)], spread, atol=1e-7)
        assert np.isnan(found.branch(name)[none]).all()


def test_of_members_that_agree_the_spread_is_0() -> None:
    found = average([member(1), member(1)])
    has = ~np.isnan(found.branch("audio")[:, 0])
    assert (found.table.loc[has, spread_column("audio")] == 0).all()
    np.testing.assert_array_equal(found.branch("audio"), member(1).branch("audio"))


def test_the_table_keeps_the_spread_and_names_all_runs(tmp_path: Path) -> None:
    write_outputs(tmp_path / "mean.parquet", average([member(1), member(2, prior=OTHER_PRIOR)]))
    read = read_outputs(tmp_path / "mean.parquet")
    source = read.branches["audio"]
    assert source.members == source.runs == (f"{1:016x}", f"{2:016x}")
    assert (source.run, source.checkpoint, source.of_run) == (digest([*source.members]), "last", True)
    assert source.prior == pytest.approx(np.mean([PRIOR, OTHER_PRIOR], axis=0))
    assert spread_column("visual") in read.table


@given(st.permutations(range(4)))
def test_a_decision_on_folds_fits_the_average_of_their_runs(order: list[int]) -> None:
    """Two folds by two seeds, whatever their order: run and prior are those of the average of all four."""
    priors = [PRIOR, OTHER_PRIOR, PRIOR[::-1], OTHER_PRIOR[::-1]]
    folds = [[member(number, (str(fold),), priors[number]) for number in (fold, 2 + fold)] for fold in range(2)]
    oof = stack([average(of_fold) for of_fold in folds])
    ensemble = average([member(number, prior=priors[number]) for number in order])
    decision = replace(equal_weights(oof), outputs={"runs": {name: one.run for name, one in oof.branches.items()}})
    assert decision.source_mismatches(ensemble.branches) == []
    single = member(0).branches
    assert "is of run 0000000000000000, not of" in decision.source_mismatches(single)[0]


def test_tables_of_other_videos_are_put_below_each_other(tmp_path: Path) -> None:
    parts = [member(2, ("b", "d")), member(1, ("a", "c_left"))]
    found = combine(parts)
    assert [video.name for video in found.videos()] == ["a", "b", "c_left", "d"]
    known = {video.name: video for part in parts for video in part.videos()}
    for video in found.videos():
        np.testing.assert_array_equal(video.p["audio"], known[video.name].p["audio"])
        np.testing.assert_array_equal(video.label, known[video.name].label)
    write_outputs(tmp_path / "all.parquet", found)
    assert read_outputs(tmp_path / "all.parquet").branches["audio"].members == (f"{2:016x}", f"{1:016x}")


def test_tables_of_one_run_on_other_videos_are_of_that_run() -> None:
    assert combine([member(1, ("a",)), member(1, ("b",))]).branches == member(1).branches


def test_tables_with_a_video_in_common_are_not() -> None:
    with pytest.raises(OutputsError, match="has other rows than the first file"):
        combine([member(1, ("a", "b")), member(2, ("b", "c"))])
    with pytest.raises(OutputsError, match="has branches that another file also has"):
        combine([member(1), member(2)])


def test_folds_of_several_models_are_below_and_beside_each_other() -> None:
    clip = [renamed(member(3, (name,))) for name in ("a", "b")]
    found = combine([member(1, ("a",)), clip[0], member(1, ("b",)), clip[1]])
    assert [*found.branches] == ["audio", "visual", "clip"]
    assert len(found.table) == 12


def renamed(outputs: Outputs) -> Outputs:
    """The audio branch alone, by another name."""
    names = {f"audio_{number}": f"clip_{number}" for number in range(C)}
    gone = [f"visual_{number}" for number in range(C)]
    source = {"clip": outputs.branches["audio"]}
    return replace(outputs, table=outputs.table.drop(columns=gone).rename(columns=names), branches=source)


def test_members_must_have_the_same_frames_and_branches() -> None:
    with pytest.raises(OutputsError, match="has other rows than the first file"):
        average([member(1), member(1, ("a",))])
    with pytest.raises(OutputsError, match=r"has other branches; found 'clip'; expected audio, visual"):
        average([member(1), renamed(member(1))])
