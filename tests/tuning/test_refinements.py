"""Refinements: the formula against the code, the nested estimate against a loop, and kept only where they pay."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from abaw_expr.commands.main import main
from abaw_expr.errors import DecisionError
from abaw_expr.outputs.decision import Decision, untuned
from abaw_expr.outputs.refinement import NO_REFINEMENT, Refinement
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs, branch_columns, write_outputs
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from tests.outputs.test_table import C, make_outputs, make_video
from tuning.refinements import families, refine
from tuning.selection import decide, search
from tuning.space import NO_SMOOTHING, Smoothing, Space

SMALL = Space(weights=((1, 1), (1, 2), (2, 1)), smoothing=(NO_SMOOTHING, Smoothing(1.0)), tau=(0.0,))


def nothing(done: int, total: int) -> None:
    pass


def planted(seed: int, sharp: float, videos: int = 6, frames: int = 80) -> Outputs:
    """Two branches that know the class alike; the audio branch's log-probabilities are `sharp` times too large."""
    rng, made = np.random.default_rng(seed), []
    for number in range(videos):
        label = rng.integers(0, C, frames).astype(np.int8)
        p = {}
        for name, factor in (("audio", sharp), ("visual", 1.0)):
            logits = factor * (1.2 * np.eye(C)[label] + rng.normal(size=(frames, C)))
            p[name] = (np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)).astype(np.float32)
        frame, crop = np.arange(1, frames + 1, dtype=np.int32), np.ones(frames, bool)
        made.append(VideoOutputs(str(number), frame, 10.0 * np.arange(frames, dtype=np.float64), crop, p, label))
    return make_outputs(made, prior=(1 / C,) * C)


def tuned(outputs: Outputs, space: Space = SMALL) -> tuple[Decision, Decision]:
    """The decision of the grid, and that with refinements."""
    found = search(outputs, space)
    decision = decide(outputs, found)
    return decision, refine(outputs, found, decision, nothing)


def test_temperature_gate_and_factors_are_their_formulas() -> None:
    video = make_video("a", 40, gaps=0.0)
    factors = (1.0, 2.0, *(1.0,) * 6)
    base = untuned(make_outputs([video]), {"audio": 1, "visual": 2})
    refined = replace(base, refinement=Refinement({"audio": 2.0}, ("visual", 0.4), factors))
    audio, visual = (video.p[name].astype(float) for name in ("audio", "visual"))
    flat = np.sqrt(audio) / np.sqrt(audio).sum(axis=1, keepdims=True)
    fused = (flat + 2 * visual) / 3
    sure = visual.max(axis=1) >= np.float32(0.4)
    assert 0 < sure.sum() < len(sure)
    fused[sure] = visual[sure]
    expected = fused * factors / (fused * factors).sum(axis=1, keepdims=True)
    np.testing.assert_allclose(refined.probabilities(video), expected, atol=1e-6)


def test_the_temperature_of_units_divides_logits() -> None:
    rows = np.array([[0.1, 0.5, 0.9, *(0.3,) * 9]])
    found = Refinement({"visual": 2.0}).sharpened("visual", rows, AU)
    np.testing.assert_allclose(found, 1 / (1 + np.exp(-np.log(rows / (1 - rows)) / 2)), atol=1e-12)
    np.testing.assert_array_equal(Refinement({"visual": 2.0}).sharpened("audio", rows, AU), rows)


def test_a_missing_row_opens_no_gate() -> None:
    video = make_video("a", 30, gaps=0.5)
    base = untuned(make_outputs([video]), {"audio": 1, "visual": 1})
    gated = replace(base, refinement=Refinement(gate=("visual", 0.01)))
    has = ~np.isnan(video.p["visual"][:, 0])
    np.testing.assert_allclose(gated.probabilities(video)[has], video.p["visual"][has], atol=1e-6)
    alone = ~has & ~np.isnan(video.p["audio"][:, 0])  # frames without any row lie between others, which are gated
    np.testing.assert_array_equal(gated.probabilities(video)[alone], base.probabilities(video)[alone])


def test_the_nested_estimate_is_that_of_a_loop() -> None:
    """Each recording is decided by the candidate and the refinement that the others choose, by scikit-learn."""
    outputs = planted(0, sharp=6.0, videos=4, frames=40)
    _, found = tuned(outputs)
    videos = outputs.videos()
    candidates = [candidate.decision(outputs) for candidate in SMALL.restricted_to(outputs).candidates()]

    def score(decisions: Sequence[Decision], own: Sequence[VideoOutputs]) -> float:
        predicted = np.concatenate([one.labels(video) for one, video in zip(decisions, own, strict=True)])
        truth = np.concatenate([video.label for video in own])
        return float(f1_score(truth, predicted, average="macro", labels=range(C), zero_division=0))

    def best(choices: Sequence[Decision], own: Sequence[VideoOutputs]) -> Decision:
        return choices[int(np.argmax([score([one] * len(own), own) for one in choices]))]

    assert found.estimate is not None
    for name, family in families(["audio", "visual"], EXPR).items():
        decisions = []
        for video in videos:
            others = [other for other in videos if other is not video]
            base = best(candidates, others)
            decisions.append(best([replace(base, refinement=one) for one in family], others))
        assert found.estimate["refinements"][name] == pytest.approx(score(decisions, videos)), name


def test_a_branch_that_is_too_sure_gets_a_temperature_that_pays() -> None:
    plain, refined = tuned(planted(1, sharp=8.0, videos=10, frames=200))
    assert plain.estimate is not None
    assert refined.estimate is not None
    figures = refined.estimate["refinements"]
    assert figures["none"] == plain.estimate["nested_macro_f1"]
    assert figures["temperature"] > figures["none"] + 0.02
    assert refined.refinement.temperatures["audio"] / refined.refinement.temperatures.get("visual", 1.0) > 1
    assert refined.estimate["nested_macro_f1"] == max(figures.values())
    assert refined.scores is not None
    assert plain.scores is not None
    assert refined.scores["macro_f1"] > plain.scores["macro_f1"]


def test_what_does_not_pay_is_not_kept() -> None:
    """Without any knowledge in the branches, what looks best on some recordings does not last."""
    outputs = make_outputs([make_video(str(number), 60, gaps=0.0) for number in range(6)])
    plain, refined = tuned(outputs)
    assert refined.estimate is not None
    figures = refined.estimate["refinements"]
    if max(figures.values()) == figures["none"]:
        assert replace(refined, estimate=plain.estimate) == plain
    else:
        assert refined.estimate["nested_macro_f1"] == max(figures.values())


def test_one_recording_is_not_refined() -> None:
    plain, refined = tuned(planted(2, 8.0, videos=1))
    assert refined == plain


@pytest.mark.parametrize(
    ("task", "names", "expected"),
    [
        (EXPR, ["audio", "visual"], {"temperature": 25, "gate": 11, "factors": 33}),
        (EXPR, ["audio"], {"factors": 33}),
        (EXPR, ["a", "b", "c"], {"temperature": 13, "gate": 16, "factors": 33}),
        (AU, ["audio", "visual"], {"temperature": 25}),
        (VA, ["audio", "visual"], {}),
    ],
)
def test_what_is_tried_begins_with_nothing(task: Task, names: list[str], expected: dict[str, int]) -> None:
    found = families(names, task)
    assert {name: len(family) for name, family in found.items()} == expected
    assert all(family[0] == NO_REFINEMENT for family in found.values())


def units(seed: int) -> Outputs:
    rng, frames = np.random.default_rng(seed), 60
    tables = []
    for name in "abcd":
        truth = rng.integers(0, 2, (frames, 12)).astype(np.int8)
        columns: dict[str, object] = {"video": name, "frame": np.arange(1, frames + 1), "time": np.arange(frames) * 1.0}
        columns["crop"] = True
        for branch, sharp in (("audio", 6.0), ("visual", 1.0)):
            logits = sharp * (truth - 0.5 + rng.normal(size=truth.shape))
            columns |= dict(zip(branch_columns(branch, AU), (1 / (1 + np.exp(-logits))).T, strict=True))
        columns |= {f"label_{field.name}": truth[:, unit] for unit, field in enumerate(AU.fields)}
        tables.append(pd.DataFrame(columns))
    source = Source("0123456789abcdef", (0.5,) * 12)
    return Outputs(AU, pd.concat(tables, ignore_index=True), "val", {"audio": source, "visual": source})


def test_units_are_refined_with_their_thresholds() -> None:
    _, refined = tuned(units(0), replace(SMALL, smoothing=(NO_SMOOTHING,)))
    assert refined.estimate is not None
    assert refined.refinement.temperatures
    assert refined.estimate["nested_macro_f1"] == refined.estimate["refinements"]["temperature"]
    assert refined.thresholds is not None
    assert refined.scores is not None
    assert refined.scores["macro_f1"] >= refined.estimate["nested_macro_f1"]


def test_it_is_kept_in_the_file(tmp_path: Path) -> None:
    write_outputs(tmp_path / "val.parquet", planted(1, 8.0, videos=8, frames=100))
    words = ["tune", str(tmp_path / "val.parquet"), "--out", str(tmp_path / "d.json"), "--refine"]
    assert main(words) == 0
    decision = Decision.load(tmp_path / "d.json")
    assert decision.refinement != NO_REFINEMENT
    decision.save(tmp_path / "again.json")
    assert Decision.load(tmp_path / "again.json") == decision
    assert str(decision.refinement) in str(decision)


@pytest.mark.parametrize(
    ("refinement", "message"),
    [
        ({"temperatures": {"audio": 0}}, "temperature of audio"),
        ({"temperatures": {"clip": 2.0}}, "branches of the decision cannot be used"),
        ({"gate": ["audio"]}, "is not a decision"),
        ({"gate": ["audio", 1.5]}, "gate of the decision cannot be used"),
        ({"factors": [1.0, 2.0]}, "factors of the decision cannot be used; found 2; expected 8"),
        ({"factors": [1.0] * 7 + [float("inf")]}, "factors of the decision cannot be used"),
        ({"other": 1}, "refinement of the decision cannot be used"),
        ([], "refinement of the decision cannot be used"),
    ],
)
def test_a_refinement_that_is_none_is_refused(refinement: object, message: str, tmp_path: Path) -> None:
    import json

    untuned(make_outputs([make_video("a", 5)]), {"audio": 1, "visual": 1}).save(tmp_path / "d.json")
    value = json.loads((tmp_path / "d.json").read_text()) | {"refinement": refinement}
    (tmp_path / "d.json").write_text(json.dumps(value))
    with pytest.raises(DecisionError, match=message):
        Decision.load(tmp_path / "d.json")


def test_units_and_values_take_no_gate() -> None:
    for task in (AU, VA):
        source = Source("x", (0.5,) * task.n_columns)
        outputs = Outputs(task, pd.DataFrame(), "val", {"audio": source})
        with pytest.raises(DecisionError, match="refinement of the decision cannot be used"):
            replace(untuned(outputs, {"audio": 1}), refinement=Refinement(gate=("audio", 0.5)))
