"""Fusion: its identities, against plain loops, and the decision's file."""

import json
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
from abaw_expr.fusion import RATIOS, Decision, Rows, correct_prior, fill, fuse, smooth
from abaw_expr.tasks import EXPR
from tests.test_outputs import PRIOR, make_outputs, make_video

C = EXPR.n_classes
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


def test_the_25_pairs_hold_19_ratios_the_simplest_first() -> None:
    pairs = {Fraction(m, n) for m in range(1, 6) for n in range(1, 6)}
    assert len(RATIOS) == len(pairs) == 19
    assert {Fraction(m, n) for m, n in RATIOS} == pairs
    assert all((Fraction(m, n).numerator, Fraction(m, n).denominator) == (m, n) for m, n in RATIOS)
    assert RATIOS[:5] == ((1, 1), (1, 2), (2, 1), (1, 3), (3, 1))


def test_fusing_is_the_weighted_mean() -> None:
    audio, visual = rows(30, 1, gaps=0), rows(30, 2, gaps=0)
    assert fuse(audio, visual, 2, 3) == pytest.approx((2 * audio + 3 * visual) / 5)


@UNTIMED
@given(SEEDS, SHARES, SHARES)
def test_equal_branches_fuse_to_themselves(seed: int, m: int, n: int) -> None:
    p = rows(20, seed)
    assert fuse(p, p, m, n) == pytest.approx(p, nan_ok=True)


@UNTIMED
@given(SEEDS, SHARES, SHARES)
def test_a_missing_modality_has_no_vote(seed: int, m: int, n: int) -> None:
    p, nothing = rows(20, seed), np.full((20, C), np.nan)
    assert np.array_equal(fuse(nothing, p, m, n), p, equal_nan=True)
    assert np.array_equal(fuse(p, nothing, m, n), p, equal_nan=True)
    audio, visual = rows(20, seed), rows(20, seed + 1)
    lone = np.isnan(audio[:, 0])
    fused = fuse(audio, visual, m, n)
    assert np.array_equal(fused[lone], visual[lone], equal_nan=True)
    assert np.array_equal(np.isnan(fused[:, 0]), lone & np.isnan(visual[:, 0]))


@pytest.mark.parametrize(("m", "n"), [(1, 1), (1, 2), (2, 1)])
def test_shares_count_by_their_ratio_alone(m: int, n: int) -> None:
    audio, visual = rows(50, 3), rows(50, 4)
    assert np.array_equal(fuse(audio, visual, m, n), fuse(audio, visual, 2 * m, 2 * n), equal_nan=True)


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


def test_a_decision_smooths_fuses_fills_and_corrects_in_this_order() -> None:
    video = make_video("a", 80, gaps=0.8)
    decision = Decision(PRIOR, m=2, n=3, smoothing=0.25, tau=0.5)
    audio, visual = smooth(video.audio, video.time, 0.25), smooth(video.visual, video.time, 0.25)
    fused = fuse(audio, visual, 2, 3)
    assert np.isnan(fused).any()
    expected = correct_prior(fill(fused, video.time, EVEN), PRIOR, 0.5)
    assert decision.probabilities(video) == pytest.approx(expected)
    assert np.array_equal(decision.labels(video), expected.argmax(axis=1))


@pytest.mark.parametrize("gaps", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("tau", [0.0, 1.0, 2.0])
def test_every_frame_gets_a_decision(gaps: float, tau: float) -> None:
    video = make_video("a", 50, gaps=gaps)
    decision = Decision(PRIOR, smoothing=0.5, tau=tau)
    assert decision.probabilities(video).sum(axis=1) == pytest.approx(np.ones(50))
    assert set(decision.labels(video)) <= set(range(C))


@pytest.mark.parametrize("tau", [0.0, 0.5, 1.0, 2.0])
def test_a_video_with_nothing_comes_out_as_the_prior(tau: float) -> None:
    decision = Decision(PRIOR, tau=tau)
    video = make_video("a", 4, gaps=1.0)
    assert decision.probabilities(video) == pytest.approx(np.tile(PRIOR, (4, 1)))
    assert decision.labels(video).tolist() == [7, 7, 7, 7]


def test_equal_probabilities_go_to_the_lower_class() -> None:
    p = np.tile(np.array([0, 0.25, 0, 0.25, 0, 0.25, 0, 0.25], np.float32), (2, 1))
    video = replace(make_video("a", 2), audio=p, visual=p)
    assert Decision(PRIOR).labels(video).tolist() == [1, 1]


def test_a_run_with_one_branch_is_decided_by_it() -> None:
    video = make_video("a", 40, gaps=0)
    alone = replace(video, audio=np.full_like(video.audio, np.nan))
    assert np.array_equal(Decision(PRIOR, m=5, n=1).probabilities(alone), video.visual)


def test_confusions_count_annotated_frames_a_video() -> None:
    videos = [make_video("a", 30), make_video("b", 20), replace(make_video("c", 5), label=np.full(5, -1))]
    counts = Decision(PRIOR).confusions(videos)
    assert counts.sum(axis=(1, 2)).tolist() == [(video.label >= 0).sum() for video in videos]
    one = videos[0]
    right = (Decision(PRIOR).labels(one) == one.label).sum()
    assert np.trace(counts[0]) == right


DECISION = Decision(
    PRIOR,
    m=2,
    n=3,
    smoothing=1.5,
    tau=0.25,
    mu={"mu12": 0.5},
    outputs={"file": "outputs.parquet", "run": "0123", "digest": None},
    figures={"macro_f1": 0.4, "visual": None},
    estimate={"nested_macro_f1": 0.35, "optimism": 0.05, "method": "some"},
)


@pytest.mark.parametrize("decision", [DECISION, Decision(EVEN)])
def test_a_decision_survives_its_file(tmp_path: Path, decision: Decision) -> None:
    decision.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == decision


def test_the_file_has_the_fields_of_the_contract(tmp_path: Path) -> None:
    DECISION.save(tmp_path / "decision.json")
    value = json.loads((tmp_path / "decision.json").read_text())
    numbers = {"m", "n", "smoothing", "tau", "prior"}
    assert value.keys() == {"version", "task", "mu", "outputs", "figures", "estimate"} | numbers
    assert (value["task"], value["m"], value["smoothing"], value["prior"]) == ("expr", 2, 1.5, list(PRIOR))


def without(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda value: value.pop(name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (without("tau"), "no tau"),
        (without("version"), "no version"),
        ({"version": "9.0"}, "version cannot be used; found '9.0'; expected 0.x"),
        ({"task": "va"}, "task cannot be used; found 'va'; expected expr"),
        ({"m": 0}, "m cannot be used; found '0'; expected a whole number from 1 to 5"),
        ({"n": 6}, "n cannot be used"),
        ({"n": 1.0}, "n cannot be used"),
        ({"m": True}, "m cannot be used"),
        ({"smoothing": -0.5}, "smoothing cannot be used; found '-0.5'"),
        ({"smoothing": float("inf")}, "smoothing cannot be used"),
        ({"tau": 2.1}, "tau cannot be used; found '2.1'; expected a number from 0 to 2"),
        ({"tau": "0"}, "tau cannot be used"),
        ({"prior": [0.5] * C}, "prior cannot be used"),
        ({"prior": [1.0]}, "prior cannot be used"),
        ({"prior": None}, "prior cannot be used"),
        ({"prior": [2, -1, 0, 0, 0, 0, 0, 0]}, "prior cannot be used"),
        ({"figures": 0.4}, "figures cannot be used"),
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
    Decision(PRIOR).check(outputs)
    other = replace(EXPR, class_names=EXPR.class_names[::-1])
    with pytest.raises(DecisionError, match="does not fit the outputs; found 'expr: Other,"):
        Decision(PRIOR).check(replace(outputs, task=other))
