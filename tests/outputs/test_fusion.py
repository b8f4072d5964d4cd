"""Fusion: its identities, against plain loops, and the decision's file."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.errors import DecisionError
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.fusion import MISSING, SMOOTHERS, correct_prior, fill, fuse, ratios, smooth
from abaw_expr.outputs.table import VideoOutputs
from abaw_expr.tasks.metric import Rows
from abaw_expr.tasks.task import EXPR
from tests.helpers.branches import BRANCHES
from tests.outputs.test_table import PRIOR, make_outputs, make_video

C = EXPR.n_columns
UNTIMED = settings(deadline=None)
EVEN = (1 / C,) * C
SEEDS = st.integers(0, 2**32 - 1)
SHARES = st.integers(1, 5)
WINDOWS = st.sampled_from([0.25, 0.5, 1.0, 2.0, 16.0])


def rows(length: int, seed: int, gaps: float = 0.3) -> Rows:
    rng = np.random.default_rng(seed)
    p = rng.dirichlet(np.ones(C), length)
    p[rng.random(length) < gaps] = np.nan
    return p


def clock(length: int, seed: int) -> np.ndarray:
    """Irregular times, some of them equal, in multiples of 1/64 s: a window's edges are exact."""
    return np.cumsum(np.random.default_rng(seed).integers(0, 20, length)) / 64


def decision(m: int = 1, n: int = 1, tau: float = 0.0, prior: tuple[float, ...] = PRIOR, **others: Any) -> Decision:
    return Decision({"audio": Vote(prior, m, tau), "visual": Vote(prior, n, tau)}, **others)


def with_rows(video: VideoOutputs, **rows: Rows) -> VideoOutputs:
    return replace(video, p={**video.p, **rows})


def test_the_25_pairs_hold_19_ratios_the_simplest_first() -> None:
    pairs = {Fraction(m, n) for m in range(1, 6) for n in range(1, 6)}
    assert len(ratios(2)) == len(pairs) == 19
    assert {Fraction(m, n) for m, n in ratios(2)} == pairs
    assert all((Fraction(m, n).numerator, Fraction(m, n).denominator) == (m, n) for m, n in ratios(2))
    assert ratios(2)[:5] == ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


def test_ratios_of_other_counts_of_branches() -> None:
    assert ratios(1) == ((1,),)
    assert ratios(3)[:4] == ((1, 1, 1), (1, 1, 2), (1, 2, 1), (2, 1, 1))
    every = np.indices((5, 5, 5)).reshape(3, -1).T + 1
    directions = np.unique(np.round(every / np.linalg.norm(every, axis=1, keepdims=True), 9), axis=0)
    assert len(ratios(3)) == len(directions)


def test_fusing_is_the_weighted_mean() -> None:
    audio, visual, clip = (rows(30, seed, gaps=0) for seed in range(3))
    assert fuse([audio, visual], [2, 3]) == pytest.approx((2 * audio + 3 * visual) / 5, rel=1e-6)
    assert fuse([audio, visual, clip], [2, 3, 1]) == pytest.approx((2 * audio + 3 * visual + clip) / 6, rel=1e-6)


@UNTIMED
@given(SEEDS, st.lists(SHARES, min_size=1, max_size=4))
def test_equal_branches_fuse_to_themselves(seed: int, weights: list[int]) -> None:
    p = rows(20, seed)
    assert fuse([p] * len(weights), weights) == pytest.approx(p, nan_ok=True, rel=1e-6)


@UNTIMED
@given(SEEDS, st.lists(SHARES, min_size=2, max_size=4))
def test_a_missing_branch_has_no_vote(seed: int, weights: list[int]) -> None:
    p = [rows(20, seed + number, gaps=0.5) for number in range(len(weights))]
    expected = np.full((20, C), np.nan)
    for row in range(20):
        said = [(weight, one[row]) for weight, one in zip(weights, p, strict=True) if not np.isnan(one[row, 0])]
        if said:
            expected[row] = sum(weight * one for weight, one in said) / sum(weight for weight, _ in said)
    assert fuse(p, weights) == pytest.approx(expected, nan_ok=True, rel=1e-6)


@UNTIMED
@given(SEEDS, SHARES, SHARES)
def test_a_branch_that_speaks_alone_is_taken_as_it_is(seed: int, m: int, n: int) -> None:
    p, nothing = rows(20, seed).astype(np.float32), np.full((20, C), np.nan)
    assert np.array_equal(fuse([nothing, p], [m, n]), p, equal_nan=True)
    assert np.array_equal(fuse([p, nothing], [m, n]), p, equal_nan=True)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 2), (2, 1)])
def test_weights_count_by_their_ratio_alone(m: int, n: int) -> None:
    p = [rows(50, 3), rows(50, 4)]
    assert np.array_equal(fuse(p, [m, n]), fuse(p, [2 * m, 2 * n]), equal_nan=True)


@UNTIMED
@given(SEEDS, WINDOWS, st.integers(1, 60))
def test_smoothing_is_the_mean_of_what_is_present_in_the_window(seed: int, seconds: float, length: int) -> None:
    p, time = rows(length, seed), clock(length, seed)
    expected = np.full_like(p, np.nan)
    for row in range(length):
        inside = [i for i in range(length) if abs(time[i] - time[row]) <= seconds / 2 and not np.isnan(p[i, 0])]
        if inside:
            expected[row] = p[inside].mean(axis=0)
    assert smooth(p, time, seconds) == pytest.approx(expected, nan_ok=True, abs=1e-12)


@UNTIMED
@given(SEEDS, WINDOWS)
def test_smoothing_leaves_a_constant_and_sums_alone(seed: int, seconds: float) -> None:
    time = clock(40, seed)
    constant = np.tile(np.asarray(PRIOR, np.float32), (40, 1))
    assert smooth(constant, time, seconds) == pytest.approx(constant)
    assert smooth(rows(40, seed, gaps=0), time, seconds).sum(axis=1) == pytest.approx(np.ones(40))


def test_no_smoothing_returns_the_input() -> None:
    p = rows(10, 0)
    assert smooth(p, np.zeros(10), 0) is p


def test_a_frame_on_the_edge_is_in_the_window_whatever_its_last_bit() -> None:
    p = rows(500, 0, gaps=0)
    expected = np.lib.stride_tricks.sliding_window_view(p, 11, axis=0).mean(axis=2)
    assert smooth(p, np.arange(500) / 25, 0.4)[5:-5] == pytest.approx(expected)


def test_smoothing_is_exact_after_many_frames() -> None:
    p, time = rows(50_000, 0, gaps=0).astype(np.float32), np.arange(50_000) / 32
    expected = p[-33:].mean(axis=0, dtype=np.float64)
    assert smooth(p, time, 2.0)[-1] == pytest.approx(expected, abs=1e-10)


@UNTIMED
@given(SEEDS, st.sampled_from([0.25, 1.0, 16.0]), st.integers(1, 60))
def test_the_median_is_that_of_the_rows_around(seed: int, seconds: float, length: int) -> None:
    p, time = rows(length, seed), np.arange(length) / 8
    half = min(int(seconds / 2 * 8), length - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of rows with nothing around them
        medians = np.array([np.nanmedian(p[max(row - half, 0) : row + half + 1], axis=0) for row in range(length)])
    expected = medians / medians.sum(axis=1, keepdims=True)
    assert smooth(p, time, seconds, "median") == pytest.approx(expected, nan_ok=True)


def test_the_median_follows_an_edge_and_drops_a_spike() -> None:
    p = np.tile(np.eye(C)[2], (40, 1))
    p[20:] = np.eye(C)[5]
    p[10] = np.eye(C)[7]
    smoothed = smooth(p, np.arange(40) / 10, 0.5, "median").argmax(axis=1)
    assert smoothed.tolist() == [2] * 20 + [5] * 20
    assert smooth(p, np.arange(40) / 10, 0.5)[10, 7] > 0


def test_a_window_in_which_no_class_has_half_prefers_none() -> None:
    p = np.eye(C)[np.arange(30) % 3]
    assert smooth(p, np.arange(30) / 10, 1.0, "median")[15] == pytest.approx(np.full(C, 1 / C))


def test_filling_is_linear_in_time_and_held_at_the_ends() -> None:
    first, second = np.eye(C)[0], np.eye(C)[1]
    p = np.full((6, C), np.nan)
    p[1], p[4] = first, second
    filled = fill(p, np.array([0.0, 1.0, 2.0, 4.0, 5.0, 9.0]), EVEN)
    expected = [first, first, 0.75 * first + 0.25 * second, 0.25 * first + 0.75 * second, second, second]
    assert filled == pytest.approx(np.array(expected))


@UNTIMED
@given(SEEDS, st.integers(1, 50))
def test_filling_is_interpolation_a_class_and_keeps_what_is_present(seed: int, length: int) -> None:
    p = rows(length, seed, gaps=0.5)
    p[seed % length] = EVEN
    time = np.arange(length) + clock(length, seed)
    filled, present = fill(p, time, PRIOR), ~np.isnan(p[:, 0])
    expected = np.stack([np.interp(time, time[present], p[present, index]) for index in range(C)], axis=1)
    assert filled == pytest.approx(expected)
    assert np.array_equal(filled[present], p[present])


@UNTIMED
@given(SEEDS)
def test_filling_frames_of_equal_time_stays_finite(seed: int) -> None:
    p = rows(30, seed, gaps=0.6)
    assert fill(p, np.repeat(clock(5, seed), 6), EVEN).sum(axis=1) == pytest.approx(np.ones(30))


def test_a_video_with_nothing_is_the_fallback() -> None:
    assert np.array_equal(fill(np.full((3, C), np.nan), np.arange(3.0), PRIOR), np.tile(PRIOR, (3, 1)))


def test_prior_correction_is_logit_adjustment() -> None:
    p = rows(20, 5, gaps=0)
    logits = np.log(p) - 0.75 * np.log(PRIOR)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    assert correct_prior(p, PRIOR, 0.75) == pytest.approx(expected)
    assert correct_prior(p, PRIOR, 0) is p
    assert correct_prior(p, EVEN, 1.5) == pytest.approx(p)
    assert correct_prior(np.array([PRIOR]), PRIOR, 1.0) == pytest.approx(np.array([EVEN]))


def test_a_class_that_training_never_saw_is_raised_least() -> None:
    p, prior = np.array([EVEN]), (0.5, 0.5, 0, 0, 0, 0, 0, 0)
    assert correct_prior(p, prior, 1.0)[0] == pytest.approx(np.array([2, 2, 1, 1, 1, 1, 1, 1]) / 10)


@pytest.mark.parametrize("smoother", ["mean", "median"])
def test_a_decision_smooths_corrects_fuses_and_fills_in_this_order(smoother: str) -> None:
    video = make_video("a", 80, gaps=0.8)
    votes = {"audio": Vote(PRIOR, 2, tau=0.5), "visual": Vote(tuple(EVEN), 3, tau=1.0)}
    made = Decision(votes, smoothing=0.25, smoother=smoother)
    audio, visual = (smooth(video.p[name], video.time, 0.25, smoother) for name in BRANCHES)
    fused = fuse([correct_prior(audio, PRIOR, 0.5), visual], [2, 3])
    assert np.isnan(fused).any()
    expected = fill(fused, video.time, EVEN)
    assert made.probabilities(video) == pytest.approx(expected)
    assert np.array_equal(made.labels(video), expected.argmax(axis=1))


@pytest.mark.parametrize("gaps", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_every_frame_gets_a_decision(gaps: float, tau: float) -> None:
    video = make_video("a", 50, gaps=gaps)
    made = decision(smoothing=0.5, tau=tau)
    assert made.probabilities(video).sum(axis=1) == pytest.approx(np.ones(50))
    assert set(made.labels(video)) <= set(range(C))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_a_video_with_nothing_comes_out_as_the_prior(tau: float) -> None:
    video = make_video("a", 4, gaps=1.0)
    assert decision(tau=tau).probabilities(video) == pytest.approx(np.tile(PRIOR, (4, 1)))
    assert decision(tau=tau).labels(video).tolist() == [7, 7, 7, 7]
    votes = {"audio": Vote(PRIOR, 1, tau), "visual": Vote(tuple(EVEN), 3, tau)}
    assert Decision(votes).probabilities(video)[0] == pytest.approx((np.array(PRIOR) + 3 / C) / 4)


def test_equal_probabilities_go_to_the_lower_class() -> None:
    p = np.tile(np.array([0, 0.25, 0, 0.25, 0, 0.25, 0, 0.25], np.float32), (2, 1))
    video = with_rows(make_video("a", 2), audio=p, visual=p)
    assert decision().labels(video).tolist() == [1, 1]


def test_a_branch_alone_is_the_decision() -> None:
    video = make_video("a", 40, gaps=0)
    silent = with_rows(video, audio=np.full((40, C), np.nan, np.float32))
    assert np.array_equal(decision(m=5, n=1).probabilities(silent), video.p["visual"])
    assert np.array_equal(Decision({"visual": Vote(PRIOR)}).probabilities(video), video.p["visual"])


def test_confusions_count_annotated_frames_a_video() -> None:
    videos = [make_video("a", 30), make_video("b", 20), replace(make_video("c", 5), label=np.full(5, -1))]
    counts = decision().statistics(videos)
    assert counts.sum(axis=(1, 2)).tolist() == [(video.label >= 0).sum() for video in videos]
    one = videos[0]
    right = (decision().labels(one) == one.label).sum()
    assert np.trace(counts[0]) == right


DECISION = Decision(
    {"audio": Vote(PRIOR, 2, 0.25), "visual": Vote(tuple(EVEN), 3, 0.0)},
    smoothing=1.5,
    smoother="median",
    mu={"mu12": 0.5},
    outputs={"files": [{"file": "outputs.parquet", "digest": None}], "runs": {"audio": "0123"}},
    scores={"macro_f1": 0.4, "alone": {"visual": None}},
    estimate={"nested_macro_f1": 0.35, "optimism": 0.05, "method": "some"},
)


@pytest.mark.parametrize("made", [DECISION, decision(prior=EVEN), Decision({"clip": Vote(PRIOR)})])
def test_a_decision_survives_its_file(tmp_path: Path, made: Decision) -> None:
    made.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == made


def test_a_decision_in_words() -> None:
    assert str(DECISION) == "audio 2 : visual 3, median of 1.5 s, tau 0.25 : 0"
    assert str(decision()) == "audio 1 : visual 1, no smoothing, tau 0 : 0"


def test_the_file_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    DECISION.save(tmp_path / "decision.json")
    value = json.loads((tmp_path / "decision.json").read_text())
    numbers = {"branches", "smoothing", "smoother"}
    assert value.keys() == {"version", "task", "mu", "outputs", "scores", "estimate"} | numbers
    assert (value["task"], value["smoothing"], value["smoother"]) == ("expr", 1.5, "median")
    assert value["branches"]["audio"] == {"weight": 2, "tau": 0.25, "prior": list(PRIOR)}


def vote(**change: Any) -> dict[str, Any]:
    return {"branches": {"audio": {"weight": 1, "tau": 0.0, "prior": list(PRIOR)} | change}}


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("smoother"), "no smoother"),
        (without("version"), "no version"),
        ({"version": "9.0"}, "version cannot be used; found '9.0'; expected 0.x"),
        ({"task": "va"}, "task cannot be used; found 'va'; expected expr"),
        ({"smoothing": -0.5}, "smoothing cannot be used; found '-0.5'"),
        ({"smoothing": float("inf")}, "smoothing cannot be used"),
        ({"smoother": "mode"}, "smoother cannot be used; found 'mode'; expected mean or median"),
        ({"branches": {}}, "branches cannot be used; found '{}'; expected at least one"),
        ({"branches": [1, 1]}, "branches cannot be used; found .*; expected branches by name"),
        ({"branches": {"audio": {"weight": 1}}}, "audio cannot be used.*an object with prior, weight, tau"),
        (vote(weight=-1), "weight cannot be used; found '-1'; expected a whole number from 0 to 5"),
        (vote(weight=0), "branches cannot be used.*expected at least one with a weight above 0"),
        (vote(weight=6), "weight cannot be used"),
        (vote(weight=1.0), "weight cannot be used"),
        (vote(weight=True), "weight cannot be used"),
        (vote(tau=2.1), "tau cannot be used; found '2.1'; expected a number from 0 to 2"),
        (vote(tau="0"), "tau cannot be used"),
        (vote(prior=[0.5] * C), "audio's prior cannot be used; found .*; expected 8 fractions that sum to 1"),
        (vote(prior=[1.0]), "prior cannot be used"),
        (vote(prior=None), "audio cannot be used"),
        (vote(prior=[2, -1, 0, 0, 0, 0, 0, 0]), "prior cannot be used"),
        ({"scores": 0.4}, "scores cannot be used"),
    ],
)
def test_a_file_that_is_no_usable_decision_is_refused(tmp_path: Path, change: Any, message: str) -> None:
    path = tmp_path / "decision.json"
    DECISION.save(path)
    value = json.loads(path.read_text())
    if callable(change):
        change(value)
    else:
        value |= change
    path.write_text(json.dumps(value))
    with pytest.raises(DecisionError, match=f"decision.json: .*{message}.* `abaw-expr tune`"):
        Decision.load(path)


def test_a_file_that_is_no_object_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "decision.json"
    path.write_text("[]")
    with pytest.raises(DecisionError, match="an object of names and values"):
        Decision.load(path)
    path.write_text("{")
    with pytest.raises(DecisionError, match="is not JSON"):
        Decision.load(path)


def test_a_decision_refuses_outputs_of_another_class_order() -> None:
    outputs = make_outputs([make_video("a", 3)])
    decision().check(outputs)
    other = replace(EXPR, columns=EXPR.columns[::-1])
    with pytest.raises(DecisionError, match="does not fit the outputs; found 'expr: Other,"):
        decision().check(replace(outputs, task=other))


def test_a_decision_refuses_outputs_without_its_branches() -> None:
    outputs = make_outputs([make_video("a", 3, branches=("visual", "clip"))])
    Decision({"clip": Vote(PRIOR)}).check(outputs)
    with pytest.raises(DecisionError, match="lack a branch; found 'visual, clip'; expected audio, visual"):
        decision().check(outputs)


@pytest.mark.parametrize("smoother", SMOOTHERS)
@pytest.mark.parametrize("missing", MISSING)
def test_a_missing_modality_votes_by_its_neighbours_or_not_at_all(missing: str, smoother: str) -> None:
    """The picture is there in every other frame; where it is masked, the sound decides the others alone."""
    video = make_video("a", 40, gaps=0)
    visual = video.p["visual"].copy()
    visual[1::2] = np.nan
    video = replace(video, p={**video.p, "visual": visual})
    votes = {name: Vote(PRIOR) for name in BRANCHES}
    decision = Decision(votes, 2.0, smoother, missing=missing)
    alone = Decision({"audio": Vote(PRIOR)}, 2.0, smoother)
    fused, sound = decision.probabilities(video), alone.probabilities(video)
    assert np.array_equal(fused[1::2], sound[1::2]) == (missing == "masked")
    assert not np.array_equal(fused[::2], sound[::2])
    spread = Decision(votes, 2.0, smoother).probabilities(video)
    np.testing.assert_array_equal(fused[::2], spread[::2])


def test_what_smoothing_makes_of_missing_frames_is_kept(tmp_path: Path) -> None:
    masked = replace(DECISION, missing="masked")
    masked.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == masked
    assert "missing masked" in str(masked)
    with pytest.raises(DecisionError, match="missing cannot be used; found 'no'; expected smoothed or masked"):
        replace(DECISION, missing="no")
