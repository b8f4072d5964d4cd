"""Tuning: the grid is exact, finds what was planted, prefers the simpler, and its estimate is honest."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from abaw_expr.commands import console
from abaw_expr.errors import OutputsError, SettingsError
from abaw_expr.files import file_digest
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.table import Outputs, read_outputs, write_outputs
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.task import EXPR
from tests.helpers.branches import BRANCHES
from tests.outputs.test_table import PRIOR, make_outputs, make_video
from tuning import grid
from tuning.grid import statistics_tensor
from tuning.selection import Search, decide, default_space, nested_without, search
from tuning.space import MEANS, NO_SMOOTHING, Candidate, Smoothing, Space, neighbours

C = EXPR.n_columns
EVEN = (1 / C,) * C
SMALL = Space(
    weights=((1, 1), (1, 2), (5, 2)), smoothing=(NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0, "median")), tau=(0.0, 1.0)
)


def tune(outputs: Outputs, space: Space | None = None) -> Decision:
    return decide(outputs, search(outputs, space))


@pytest.fixture
def outputs() -> Outputs:
    ignore_value = replace(make_video("b", 10), label=np.full(10, -1, np.int8))
    silent = make_video("c", 25, gaps=1.0)
    return make_outputs([make_video("a", 120), make_video("a_right", 60, gaps=0.6), ignore_value, silent])


def test_the_default_space_holds_every_combination_once_the_simplest_first() -> None:
    candidates = Space().candidates()
    assert len(candidates) == len(set(candidates)) == 19 * 11 * 9
    assert candidates[0] == Candidate((1, 1), NO_SMOOTHING, (0.0, 0.0))
    assert candidates[1:3] == (Candidate((1, 2), NO_SMOOTHING, (0.0, 0.0)), Candidate((2, 1), NO_SMOOTHING, (0.0, 0.0)))
    departures = [(len(set(c.weights)) > 1) + (c.smoothing.seconds > 0) + any(c.tau) for c in candidates]
    assert departures == sorted(departures)


@pytest.mark.parametrize(
    ("branches", "n_ratios", "n_taus"), [(1, 1, 3), (2, 19, 9), (3, 115, 3), (4, 150, 3), (9, 150, 3)]
)
def test_the_ratios_of_any_number_of_branches(branches: int, n_ratios: int, n_taus: int) -> None:
    space = Space(branches=branches)
    assert (len(set(space.ratios)), len(set(space.taus))) == (n_ratios, n_taus)
    assert space.ratios[0] == (1,) * branches
    assert all(len(weights) == branches and np.gcd.reduce(weights) == 1 for weights in space.ratios)


@pytest.mark.parametrize(("branches", "n_ratios"), [(1, 1), (2, 19 + 2), (3, 115 + 3 * 19 + 3)])
def test_every_branch_may_be_left_out(branches: int, n_ratios: int) -> None:
    found = Space(branches=branches, zero=True).ratios
    assert len(set(found)) == len(found) == n_ratios
    assert found[: len(Space(branches=branches).ratios)] == Space(branches=branches).ratios
    assert all(any(weights) and np.gcd.reduce(weights) == 1 for weights in found)


@pytest.mark.parametrize("branches", [4, 5, 9])
def test_of_many_branches_each_may_be_left_out_and_may_stand_alone(branches: int) -> None:
    found = Space(branches=branches, zero=True).ratios
    assert len(set(found)) == len(found)
    assert 150 + 2 * branches <= len(found) <= 150 + 2 * branches + 75
    for one in np.eye(branches, dtype=int):
        assert tuple(one.tolist()) in found
        assert tuple((1 - one).tolist()) in found


def test_a_branch_that_is_left_out_is_not_corrected() -> None:
    candidates = Space(zero=True).candidates()
    assert len(candidates) == len(set(candidates)) == 19 * 11 * 9 + 2 * 11 * 3
    assert all(tau == 0 or weight for c in candidates for weight, tau in zip(c.weights, c.tau, strict=True))
    near = neighbours(Space(zero=True))
    assert all(number in places for number, places in enumerate(near))


@pytest.mark.parametrize("names", [("audio", "visual"), ("a", "b", "c")])
def test_a_decision_without_a_branch_is_that_of_the_others_alone(names: tuple[str, ...]) -> None:
    videos = [make_video("a", 90, branches=names), make_video("b", 40, gaps=0.7, branches=names)]
    videos.append(replace(videos[0], name="c", p={**videos[0].p, names[1]: np.full((90, C), np.nan, np.float32)}))
    for smoothing in (0.0, 1.0):
        votes = {name: Vote(PRIOR, weight=index % 2, tau=0.5 * (index % 2)) for index, name in enumerate(names)}
        whole, alone = Decision(votes, smoothing), Decision({names[1]: Vote(PRIOR, tau=0.5)}, smoothing)
        for video in videos:
            np.testing.assert_array_equal(whole.probabilities(video), alone.probabilities(video))
    whole.check(make_outputs([make_video("a", 5, branches=names[1:2])]))


@pytest.mark.parametrize("branches", [("audio", "visual"), ("a", "b", "c")])
def test_the_grid_is_exact_where_branches_are_left_out(branches: tuple[str, ...]) -> None:
    silent = make_video("c", 25, gaps=1.0, branches=branches)
    videos = [make_video("a", 120, branches=branches), make_video("a_right", 60, gaps=0.6, branches=branches), silent]
    outputs = make_outputs(videos)
    whole = Space(branches=len(branches), zero=True)
    space = replace(whole, weights=whole.ratios[-9:] + whole.ratios[:2], smoothing=SMALL.smoothing, tau=(0.0, 0.5))
    check_every_decision(outputs, space)


@pytest.mark.slow
def test_a_branch_that_harms_is_left_out_and_told(capsys: pytest.CaptureFixture[str]) -> None:
    """One branch knows the truth, two more are sure of another class on nine of ten frames."""
    rng, videos = np.random.default_rng(0), []
    for name in "abcdef":
        video = make_video(name, 150, gaps=0, branches=("good", "bad", "worse"))
        truth = np.maximum(video.label, 0)
        wrong = np.where(rng.random(150) < 0.9, (truth + 1) % C, truth)
        rows = np.eye(C, dtype=np.float32)
        p = {"good": 0.05 * rows[truth] + 0.95 / C, "bad": rows[wrong], "worse": rows[wrong]}
        videos.append(replace(video, p={key: value.astype(np.float32) for key, value in p.items()}))
    outputs = make_outputs(videos)
    decision = tune(outputs)
    assert decision.branches["good"].weight > 0
    assert [decision.branches[name].weight for name in ("bad", "worse")] == [0, 0]
    assert decision.estimate is not None
    without = decision.estimate["without"]
    assert decision.estimate["nested_macro_f1"] == pytest.approx(1.0)
    assert without["bad"] == pytest.approx(1.0)
    assert without["good"] < 0.2
    plain = Space(zero=True, tau=(0.0,))
    without = nested_without(outputs, search(outputs, replace(plain, branches=3)))
    for name in ("good", "bad", "worse"):
        others = {key: value for key, value in outputs.branches.items() if key != name}
        assert without[name] == search(replace(outputs, branches=others), plain).nested
    two = replace(outputs, branches={name: outputs.branches[name] for name in ("good", "bad")})
    paper = decide(two, search(two))
    assert all(vote.weight > 0 for vote in paper.branches.values()), "the paper's weights are from 1 to 5"
    assert paper.estimate is not None
    assert paper.estimate["without"]["bad"] > paper.estimate["nested_macro_f1"]
    console.print_decision("decision.json", paper)
    shown = " ".join("".join(capsys.readouterr()).split())
    assert "nested without bad 1.0000" in shown
    assert "Without bad the nested estimate is higher. `tune --leave-out` tries weight 0." in shown
    free = decide(two, search(two, default_space(two, leave_out=True)))
    assert [vote.weight for vote in free.branches.values()] == [1, 0]


def test_every_candidate_is_a_decision(outputs: Outputs) -> None:
    assert len(Space().candidates()) == 19 * 11 * 9
    for candidate in Space().candidates():
        made = candidate.decision(outputs)
        assert tuple(vote.weight for vote in made.branches.values()) == candidate.weights
        assert tuple(vote.tau for vote in made.branches.values()) == candidate.tau
        assert (made.smoothing, made.smoother) == candidate.smoothing


def test_a_space_is_without_what_makes_no_difference(outputs: Outputs) -> None:
    assert SMALL.restricted_to(outputs) == SMALL
    silent = outputs.table.assign(**dict.fromkeys([f"audio_{i}" for i in range(C)], np.float32(np.nan)))
    assert SMALL.restricted_to(replace(outputs, table=silent)).ratios == ((1, 1),)
    three = make_outputs([make_video("a", 5, branches=("a", "b", "c"))], prior=EVEN)
    assert (len(SMALL.restricted_to(three).ratios), SMALL.restricted_to(three).taus) == (115, ((0.0, 0.0, 0.0),))


@pytest.mark.parametrize(
    ("axis", "message"),
    [
        ({"weights": ()}, "weights"),
        (
            {"weights": ((2, 2),)},
            "weights cannot be used; found .*2, 2.*; expected whole numbers from 1 to 5 in lowest",
        ),
        ({"weights": ((1, 2, 1),)}, "weights"),
        ({"smoothing": (Smoothing(-1.0),)}, "smoothing"),
        ({"smoothing": (Smoothing(np.inf),)}, "smoothing"),
        ({"smoothing": (Smoothing(1.0, "mode"),)}, "smoothing"),
        ({"tau": (0.0, 2.5)}, "tau cannot be used; found .*2.5.*; expected numbers from 0 to 2"),
    ],
)
def test_a_space_that_cannot_be_searched_is_refused(axis: dict[str, Any], message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        replace(Space(), **axis)


def test_neighbours_are_a_step_away_on_one_axis() -> None:
    space = Space()
    candidates, near = space.candidates(), neighbours(space)
    place = {candidate: number for number, candidate in enumerate(candidates)}
    middle = Candidate((1, 1), Smoothing(2.0), (0.5, 0.0))
    assert {candidates[number] for number in near[place[middle]]} == {
        middle,
        replace(middle, weights=(4, 5)),
        replace(middle, weights=(5, 4)),
        replace(middle, smoothing=Smoothing(1.0)),
        replace(middle, smoothing=Smoothing(4.0)),
        replace(middle, tau=(0.0, 0.0)),
        replace(middle, tau=(1.0, 0.0)),
        replace(middle, tau=(0.5, 0.5)),
    }
    first = {candidates[number].smoothing for number in near[0]}
    assert first == {NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0, "median")}


def test_the_plateau_rule_prefers_a_broad_optimum() -> None:
    space = Space(weights=((1, 1),), tau=(0.0,), smoothing=(NO_SMOOTHING, *MEANS))
    f1 = np.array([0.1, 0.1, 0.6, 0.1, 0.5, 0.5, 0.5])
    counts = np.zeros((7, 2, C, C), np.int64)
    assert Search(space, counts, "best").choose(f1) == 2
    assert Search(space, counts, "plateau").choose(f1) == 5
    assert Search(space, counts, "plateau").choose(np.stack([f1, f1[::-1]], axis=1)).tolist() == [5, 0]


def check_every_decision(outputs: Outputs, space: Space) -> None:
    """Holds the tensor against each decision, and scikit-learn's count of it."""
    space = replace(space, branches=len(outputs.branches))
    tensor, videos = statistics_tensor(outputs, space), outputs.videos()
    assert tensor.shape == (len(space.candidates()), len(videos), C, C)
    assert tensor.dtype == np.int64
    for candidate, counts in zip(space.candidates(), tensor, strict=True):
        made = replace(candidate.decision(outputs), missing=space.missing)
        for video, one in zip(videos, counts, strict=True):
            truth = video.label[video.label >= 0]
            predicted = made.labels(video)[video.label >= 0]
            expected = confusion_matrix(truth, predicted, labels=range(C)) if len(truth) else np.zeros((C, C))
            assert np.array_equal(one, expected), (candidate, video.name)


def test_the_grid_is_every_decision_exactly(outputs: Outputs) -> None:
    check_every_decision(outputs, SMALL)


def test_the_grid_is_exact_where_missing_frames_get_no_vote(outputs: Outputs) -> None:
    masked = replace(SMALL, missing="masked")
    check_every_decision(outputs, masked)
    assert (statistics_tensor(outputs, masked) != statistics_tensor(outputs, SMALL)).any()
    assert tune(outputs, masked).missing == "masked"


@pytest.mark.parametrize("branches", [("clip",), ("audio", "visual", "clip")])
def test_the_grid_is_exact_for_any_branches(branches: tuple[str, ...]) -> None:
    videos = [make_video("a", 90, branches=branches), make_video("b", 50, gaps=0.8, branches=branches)]
    weights = ((1,),) if len(branches) == 1 else ((1, 1, 1), (2, 1, 5))
    check_every_decision(make_outputs(videos), replace(SMALL, branches=len(branches), weights=weights))


def test_the_grid_is_exact_beyond_a_block(outputs: Outputs) -> None:
    videos = [make_video("a", grid.FRAMES_AT_A_TIME + 40, gaps=0.02)]
    check_every_decision(make_outputs(videos), replace(SMALL, weights=((3, 4), (1, 1)), smoothing=(Smoothing(0.5),)))


def test_progress_is_told_a_smoothing(outputs: Outputs) -> None:
    told: list[tuple[int, int]] = []
    statistics_tensor(outputs, SMALL, lambda done, total: told.append((done, total)))
    assert told == [(1, 3), (2, 3), (3, 3)]


def planted(truth: Decision, length: int = 400, names: str = "abcd") -> Outputs:
    """Videos whose labels are what a decision says."""
    priors = [vote.prior for vote in truth.branches.values()]
    videos = [make_video(name, length, branches=tuple(truth.branches)) for name in names]
    made = [replace(video, label=truth.labels(video).astype(np.int8)) for video in videos]
    return make_outputs(made, prior=priors[0])


@pytest.mark.slow
@pytest.mark.parametrize(("m", "n"), [(1, 1), (2, 5), (4, 1), (4, 5)])
def test_a_planted_ratio_is_found(m: int, n: int) -> None:
    truth = Decision({"audio": Vote(EVEN, m), "visual": Vote(EVEN, n)})
    found = tune(planted(truth), Space())
    assert (found.branches, found.smoothing) == (truth.branches, 0.0)
    assert found.scores is not None
    assert found.scores["macro_f1"] == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("smoother", ["mean", "median"])
def test_a_planted_window_and_shift_of_the_prior_are_found(smoother: str) -> None:
    votes = {"audio": Vote(PRIOR, 2, 0.5), "visual": Vote(PRIOR, 3, 1.0)}
    truth = Decision(votes, smoothing=2.0, smoother=smoother)
    found = tune(planted(truth))
    assert (found.branches, found.smoothing, found.smoother) == (votes, 2.0, smoother)


@pytest.mark.slow
def test_a_planted_ratio_of_three_branches_is_found() -> None:
    votes = {"audio": Vote(EVEN, 1), "visual": Vote(EVEN, 3), "clip": Vote(EVEN, 4)}
    assert tune(planted(Decision(votes))).branches == votes


def test_ties_go_to_the_simpler() -> None:
    p = np.eye(C, dtype=np.float32)[np.arange(40) % C]
    video = make_video("a", 40)
    video = replace(video, p=dict.fromkeys(video.p, p), label=(np.arange(40) % C).astype(np.int8))
    space = Space(weights=((5, 4), (1, 2), (1, 1)), smoothing=(NO_SMOOTHING,), tau=(1.0, 0.5, 0.0))
    tensor = statistics_tensor(make_outputs([video]), space)
    assert np.unique(macro_f1(tensor.sum(axis=1))).tolist() == [1.0]
    assert space.candidates()[int(Search(space, tensor, "best").choose(macro_f1(tensor.sum(axis=1))))] == Candidate(
        (1, 1), NO_SMOOTHING, (0.0, 0.0)
    )


def test_the_estimate_scores_each_recording_by_what_the_others_choose() -> None:
    tensor = np.random.default_rng(0).integers(0, 6, (7, 5, C, C))
    pooled = np.zeros((C, C), dtype=np.int64)
    for held in range(5):
        others = np.delete(tensor, held, axis=1).sum(axis=1)
        pooled += tensor[max(range(7), key=lambda candidate: macro_f1(others[candidate])), held]
    space = Space(weights=((1, 1),), smoothing=(NO_SMOOTHING, *MEANS), tau=(0.0,))
    made = Search(space, tensor, "best").estimate
    assert made.nested == pytest.approx(macro_f1(pooled))
    tuned = macro_f1(tensor.sum(axis=1)).max()
    assert made.optimism == pytest.approx(tuned - macro_f1(pooled))
    assert made.method == "nested leave-one-recording-out"


@pytest.mark.slow
def test_on_noise_the_tuned_figure_flatters_and_the_nested_does_not() -> None:
    nested, optimism = [], []
    for seed in range(10):
        outputs = make_outputs([make_video(f"{name}", 120, seed, gaps=0) for name in "abcdefgh"], prior=EVEN)
        decision = tune(outputs, Space(smoothing=(NO_SMOOTHING, Smoothing(0.5), Smoothing(1.0, "median"))))
        assert decision.estimate is not None
        assert decision.scores is not None
        nested.append(decision.estimate["nested_macro_f1"])
        optimism.append(decision.estimate["optimism"])
        assert decision.scores["macro_f1"] == pytest.approx(nested[-1] + optimism[-1])
    assert np.mean(nested) == pytest.approx(1 / C, abs=0.015)
    assert np.mean(optimism) > 0.01


@pytest.mark.slow
def test_on_noise_of_many_recordings_chance_is_in_the_interval() -> None:
    outputs = make_outputs([make_video(f"{number:02d}", 60, gaps=0) for number in range(60)])
    estimate = tune(outputs, Space(smoothing=(NO_SMOOTHING, Smoothing(0.5)))).estimate
    assert estimate is not None
    low, high = estimate["interval"]
    assert low < 1 / C < high
    assert high - low < 0.05


def test_two_people_of_one_recording_are_one_recording() -> None:
    decision = tune(make_outputs([make_video("a_left", 50), make_video("a_right", 50)]), SMALL)
    assert decision.estimate == {
        "rule": "best",
        "candidates": 36,
        "nested_macro_f1": None,
        "interval": None,
        "optimism": None,
        "chosen_again": None,
        "method": "none: nested leave-one-recording-out needs 2 annotated recordings, found 1",
    }


def test_a_decision_says_what_it_was_chosen_on_and_what_it_is_compared_with(tmp_path: Path, outputs: Outputs) -> None:
    path = tmp_path / "outputs.parquet"
    write_outputs(path, outputs)
    outputs = read_outputs(path)
    decision = tune(outputs, SMALL)
    assert decision.outputs == {
        "files": [{"file": "outputs.parquet", "digest": file_digest(path)}],
        "runs": dict.fromkeys(BRANCHES, "0123456789abcdef"),
    }

    videos = outputs.videos()
    truth = np.concatenate([video.label for video in videos])
    crop = np.concatenate([video.crop for video in videos])
    chosen = np.concatenate([decision.labels(video) for video in videos])
    equal = np.concatenate([Decision({name: Vote(PRIOR) for name in BRANCHES}).labels(video) for video in videos])
    audio, visual = (
        np.concatenate([Decision({name: Vote(PRIOR)}).labels(video) for video in videos]) for name in BRANCHES
    )

    def score(predicted: np.ndarray, kept: np.ndarray) -> float:
        return f1_score(truth[kept], predicted[kept], average="macro", labels=range(C), zero_division=0)

    annotated = truth >= 0
    assert decision.scores is not None
    assert decision.scores["alone"] == pytest.approx(
        {"audio": score(audio, annotated), "visual": score(visual, annotated)}
    )
    assert {name: f1 for name, f1 in decision.scores.items() if name != "alone"} == pytest.approx(
        {
            "macro_f1": score(chosen, annotated),
            "macro_f1_with_crop": score(chosen, annotated & crop),
            "equal": score(equal, annotated),
        }
    )
    decision.save(tmp_path / "decision.json")
    assert Decision.load(tmp_path / "decision.json") == decision


def test_figures_of_what_is_not_there_are_null() -> None:
    video = make_video("a", 40, gaps=0)
    nothing = np.full_like(video.p["visual"], np.nan)
    lone = replace(video, p={**video.p, "visual": nothing}, crop=np.zeros(40, dtype=bool))
    decision = tune(make_outputs([lone]), Space(smoothing=(NO_SMOOTHING,), tau=(0.0,)))
    assert [vote.weight for vote in decision.branches.values()] == [1, 1]
    assert decision.scores is not None
    assert decision.scores["alone"] == {"audio": decision.scores["macro_f1"], "visual": None}
    assert [decision.scores[name] for name in ("macro_f1_with_crop", "equal")] == [None] * 2


def test_a_branch_that_says_nothing_leaves_nothing_to_estimate_without_the_other() -> None:
    videos = []
    for name in "abc":
        video = make_video(name, 40)
        videos.append(replace(video, p={**video.p, "visual": np.full_like(video.p["visual"], np.nan)}))
    estimate = tune(make_outputs(videos)).estimate
    assert estimate is not None
    assert estimate["without"] == {"visual": estimate["nested_macro_f1"]}


def test_branches_that_say_nothing_cannot_be_tuned() -> None:
    with pytest.raises(OutputsError, match=r"all branches are missing on all frames\. Check whether"):
        tune(make_outputs([make_video("a", 30, gaps=1.0), make_video("b", 30, gaps=1.0)]))


def test_nothing_annotated_cannot_be_tuned_on() -> None:
    video = replace(make_video("a", 10), label=np.full(10, -1, np.int8))
    with pytest.raises(OutputsError, match=r"no frame is annotated.*validation split"):
        tune(make_outputs([video]), SMALL)
