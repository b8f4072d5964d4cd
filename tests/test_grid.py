"""Tuning: the grid is exact, finds what was planted, prefers the simpler, and its estimate is honest."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from abaw_expr.errors import OutputsError, SettingsError
from abaw_expr.files import file_digest
from abaw_expr.fusion import Decision
from abaw_expr.outputs import Outputs, VideoOutputs, read_outputs, write_outputs
from abaw_expr.scoring import macro_f1
from abaw_expr.tasks import EXPR
from tests.test_outputs import PRIOR, make_outputs, make_video
from tuning.grid import best, confusion_tensor
from tuning.selection import estimate, tune
from tuning.space import Candidate, Space

C = EXPR.n_classes
EVEN = (1 / C,) * C
SMALL = Space(ratios=((1, 1), (1, 2), (5, 2)), smoothing=(0.0, 0.5), tau=(0.0, 0.5, 1.0))


@pytest.fixture
def outputs() -> Outputs:
    unannotated = replace(make_video("b", 10), label=np.full(10, -1, np.int8))
    silent = make_video("c", 25, gaps=1.0)
    return make_outputs([make_video("a", 120), make_video("a_right", 60, gaps=0.6), unannotated, silent])


def test_the_default_space_holds_every_combination_once_the_simplest_first() -> None:
    candidates = Space().candidates()
    assert len(candidates) == len(set(candidates)) == 19 * 7 * 5
    assert candidates[0] == Candidate(1, 1, 0.0, 0.0)
    assert candidates[1:3] == (Candidate(1, 2, 0.0, 0.0), Candidate(2, 1, 0.0, 0.0))
    departures = [(c.m != c.n) + (c.smoothing > 0) + (c.tau > 0) for c in candidates]
    assert departures == sorted(departures)


def test_every_candidate_is_a_decision() -> None:
    for candidate in Space().candidates():
        assert Decision(PRIOR, **asdict(candidate)).m == candidate.m


def test_one_branch_alone_has_one_ratio(outputs: Outputs) -> None:
    assert SMALL.fitting(outputs) == SMALL
    silent = outputs.table.assign(**dict.fromkeys([f"audio_{i}" for i in range(C)], np.float32(np.nan)))
    assert SMALL.fitting(replace(outputs, table=silent)).ratios == ((1, 1),)


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"ratios": ()}, "ratios"),
        ({"ratios": ((2, 2),)}, "ratios"),
        ({"smoothing": (-1.0,)}, "smoothing"),
        ({"smoothing": (np.inf,)}, "smoothing"),
        ({"tau": (0.0, 2.5)}, "tau cannot be used; found .*2.5.*; expected numbers from 0 to 2"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(axis: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(Space(), **axis)


def test_the_grid_is_every_decision_exactly(outputs: Outputs) -> None:
    tensor, videos = confusion_tensor(outputs, SMALL), outputs.videos()
    assert tensor.shape == (18, 4, C, C)
    assert tensor.dtype == np.int64
    for position, candidate in enumerate(SMALL.candidates()):
        decision = Decision(outputs.prior, **asdict(candidate))
        for video, counts in zip(videos, tensor[position], strict=True):
            truth = video.label[video.label >= 0]
            predicted = decision.labels(video)[video.label >= 0]
            expected = confusion_matrix(truth, predicted, labels=range(C)) if len(truth) else np.zeros((C, C))
            assert np.array_equal(counts, expected)


def test_progress_is_told_a_video(outputs: Outputs) -> None:
    told: list[tuple[int, int]] = []
    confusion_tensor(outputs, SMALL, lambda done, total: told.append((done, total)))
    assert told == [(1, 4), (2, 4), (3, 4), (4, 4)]


def planted(name: str, m: int, n: int, length: int = 400) -> VideoOutputs:
    """A video whose truth is what fusing its two branches by m : n says."""
    video = make_video(name, length, gaps=0)
    label = (m * video.audio + n * video.visual).argmax(axis=1).astype(np.int8)
    return replace(video, label=label)


@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5), (4, 1), (4, 5)])
def test_a_planted_ratio_is_found(m: int, n: int) -> None:
    decision = tune(make_outputs([planted(name, m, n) for name in "abc"], prior=EVEN), replace(Space(), tau=(0.0, 1.0)))
    assert (decision.m, decision.n, decision.smoothing, decision.tau) == (m, n, 0.0, 0.0)
    assert decision.figures is not None
    assert decision.figures["macro_f1"] == 1.0


def test_a_planted_window_and_correction_are_found() -> None:
    truth = Decision(PRIOR, smoothing=2.0, tau=0.75)
    videos = [make_video(name, 400) for name in "abcd"]
    made = [replace(video, label=truth.labels(video).astype(np.int8)) for video in videos]
    decision = tune(make_outputs(made), Space(ratios=((1, 1), (1, 2))))
    assert (decision.m, decision.n, decision.smoothing, decision.tau) == (1, 1, 2.0, 0.75)


def test_ties_go_to_the_simpler() -> None:
    p = np.eye(C, dtype=np.float32)[np.arange(40) % C]
    video = replace(make_video("a", 40), audio=p, visual=p, label=(np.arange(40) % C).astype(np.int8))
    space = Space(ratios=((5, 4), (1, 2), (1, 1)), smoothing=(0.0,), tau=(1.0, 0.5, 0.0))
    tensor = confusion_tensor(make_outputs([video]), space)
    assert np.unique(macro_f1(tensor.sum(axis=1))).tolist() == [1.0]
    assert space.candidates()[best(tensor)] == Candidate(1, 1, 0.0, 0.0)


def test_the_estimate_scores_each_recording_by_what_the_others_choose() -> None:
    tensor = np.random.default_rng(0).integers(0, 6, (7, 5, C, C))
    pooled = np.zeros((C, C), dtype=np.int64)
    for held in range(5):
        others = np.delete(tensor, held, axis=1).sum(axis=1)
        pooled += tensor[max(range(7), key=lambda candidate: macro_f1(others[candidate])), held]
    made = estimate(tensor)
    assert made.nested_macro_f1 == pytest.approx(macro_f1(pooled))
    tuned = macro_f1(tensor.sum(axis=1)).max()
    assert made.optimism == pytest.approx(tuned - macro_f1(pooled))
    assert made.method == "nested leave-one-recording-out"


def test_on_noise_the_tuned_figure_flatters_and_the_nested_does_not() -> None:
    nested, optimism = [], []
    for seed in range(10):
        outputs = make_outputs([make_video(f"{name}", 40, seed, gaps=0) for name in "abcdefgh"], prior=EVEN)
        decision = tune(outputs, Space(smoothing=(0.0, 0.5, 1.0), tau=(0.0,)))
        assert decision.estimate is not None
        assert decision.figures is not None
        nested.append(decision.estimate["nested_macro_f1"])
        optimism.append(decision.estimate["optimism"])
        assert decision.figures["macro_f1"] == pytest.approx(nested[-1] + optimism[-1])
    assert np.mean(nested) == pytest.approx(1 / C, abs=0.015)
    assert np.mean(optimism) > 0.02


def test_two_people_of_one_recording_are_one_recording() -> None:
    decision = tune(make_outputs([make_video("a_left", 50), make_video("a_right", 50)]), SMALL)
    assert decision.estimate == {
        "nested_macro_f1": None,
        "optimism": None,
        "method": "none: nested leave-one-recording-out needs 2 annotated recordings, found 1",
    }


def test_a_decision_says_what_it_was_chosen_on_and_what_it_is_compared_with(tmp_path: Path, outputs: Outputs) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    outputs = read_outputs(path)
    decision = tune(outputs, SMALL)
    assert decision.outputs == {"file": "outputs.parquet", "run": outputs.run, "digest": file_digest(path)}

    videos = outputs.videos()
    truth = np.concatenate([video.label for video in videos])
    crop = np.concatenate([video.crop for video in videos])
    chosen = np.concatenate([decision.labels(video) for video in videos])
    equal = np.concatenate([Decision(PRIOR).labels(video) for video in videos])
    picture = [replace(video, audio=np.full_like(video.audio, np.nan)) for video in videos]
    visual = np.concatenate([Decision(PRIOR).labels(video) for video in picture])
    sound = [replace(video, visual=np.full_like(video.visual, np.nan)) for video in videos]
    audio = np.concatenate([Decision(PRIOR).labels(video) for video in sound])

    def score(predicted: np.ndarray, kept: np.ndarray) -> float:
        return f1_score(truth[kept], predicted[kept], average="macro", labels=range(C), zero_division=0)

    annotated = truth >= 0
    assert decision.figures == pytest.approx(
        {
            "macro_f1": score(chosen, annotated),
            "macro_f1_with_crop": score(chosen, annotated & crop),
            "audio": score(audio, annotated),
            "visual": score(visual, annotated),
            "equal": score(equal, annotated),
        }
    )
    decision.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == decision


def test_figures_of_what_is_not_there_are_null() -> None:
    video = make_video("a", 40, gaps=0)
    lone = replace(video, visual=np.full_like(video.visual, np.nan), crop=np.zeros(40, dtype=bool))
    decision = tune(make_outputs([lone]), Space(smoothing=(0.0,), tau=(0.0,)))
    assert (decision.m, decision.n) == (1, 1)
    assert decision.figures is not None
    assert decision.figures["audio"] == decision.figures["macro_f1"]
    assert [decision.figures[name] for name in ("macro_f1_with_crop", "visual", "equal")] == [None] * 3


def test_nothing_annotated_cannot_be_tuned_on() -> None:
    video = replace(make_video("a", 10), label=np.full(10, -1, np.int8))
    with pytest.raises(OutputsError, match=r"no frame is annotated.*validation split"):
        tune(make_outputs([video]), SMALL)
