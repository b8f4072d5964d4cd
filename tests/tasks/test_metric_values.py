"""CCC against its formula and torchmetrics, and its conventions."""

import json
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torchmetrics.regression import ConcordanceCorrCoef

from abaw_expr.errors import UserError
from abaw_expr.tasks.metric_values import ccc, mean_ccc, moments, value_report
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import bootstrap_interval, resample, sum_recordings
from abaw_expr.tasks.task import VA

UNTIMED = settings(deadline=None)
VALUES = st.integers(-1000, 1000).map(lambda thousandths: thousandths / 1000)
PAIRS = st.lists(st.tuples(VALUES, VALUES, VALUES, VALUES), min_size=1, max_size=40)


def reference(truth: np.ndarray, predicted: np.ndarray) -> float:
    """Lin's formula in exact arithmetic, 0 where it is 0/0."""
    x, y = ([Fraction(value) for value in values.tolist()] for values in (truth, predicted))
    n = len(x)
    mean_x, mean_y = sum(x) / n, sum(y) / n
    cov = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True)) / n
    var_x, var_y = sum((a - mean_x) ** 2 for a in x) / n, sum((b - mean_y) ** 2 for b in y) / n
    below = var_x + var_y + (mean_x - mean_y) ** 2
    return float(2 * cov / below) if below else 0.0


def draw(seed: int, frames: int, ignore_value: float = 0.2) -> tuple[np.ndarray, np.ndarray]:
    """Annotations to three digits, valence and arousal missing apart, and predictions that know a little of them."""
    rng = np.random.default_rng(seed)
    truth = np.round(rng.uniform(-1, 1, (frames, 2)), 3)
    predicted = np.clip(0.4 * truth + 0.3 * rng.standard_normal((frames, 2)) + 0.1, -1, 1)
    truth[rng.random((frames, 2)) < ignore_value] = -5
    return truth, predicted


@UNTIMED
@given(PAIRS)
def test_ccc_is_lins_formula(rows: list[tuple[float, ...]]) -> None:
    table = np.array(rows)
    found = ccc(moments(table[:, :2], table[:, 2:], VA))
    expected = [reference(table[:, field], table[:, field + 2]) for field in range(2)]
    assert found == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", range(3))
def test_ccc_is_torchmetrics(seed: int) -> None:
    """It takes variances over n - 1, so it is told each frame many times over."""
    truth, predicted = (np.tile(part, (200, 1)) for part in draw(seed, 50, ignore_value=0))
    theirs = ConcordanceCorrCoef(num_outputs=2)
    theirs.set_dtype(torch.float64)
    theirs.update(torch.from_numpy(predicted), torch.from_numpy(truth))
    assert ccc(moments(truth, predicted, VA)) == pytest.approx(theirs.compute().numpy(), abs=1e-4)


def test_ccc_of_a_million_frames_is_that_of_the_plain_formula() -> None:
    truth, predicted = draw(0, 1_000_000, ignore_value=0)
    truth, predicted = 0.02 * truth + 0.9, 0.02 * predicted + 0.9  # far from 0, so that squares cancel
    means = truth.mean(axis=0), predicted.mean(axis=0)
    cov = ((truth - means[0]) * (predicted - means[1])).mean(axis=0)
    expected = 2 * cov / (truth.var(axis=0) + predicted.var(axis=0) + (means[0] - means[1]) ** 2)
    assert ccc(moments(truth, predicted, VA)) == pytest.approx(expected, rel=1e-9)


def test_identities() -> None:
    truth, predicted = draw(1, 200, ignore_value=0)
    same, turned = ccc(moments(truth, truth, VA)), ccc(moments(truth, -truth, VA))
    assert same == pytest.approx([1, 1])
    assert (turned < 0).all()
    assert ccc(moments(truth, predicted, VA)) == pytest.approx(ccc(moments(predicted, truth, VA)))
    assert mean_ccc(moments(truth, predicted, VA)) == ccc(moments(truth, predicted, VA)).mean()


@pytest.mark.parametrize(
    ("x", "y"),
    [
        ([0.1, 0.7, -0.3], [0.3, 0.3, 0.3]),  # a constant prediction
        ([0.3, 0.3, 0.3], [0.1, 0.7, -0.3]),  # a constant truth
        ([0.1, 0.1, 0.1], [0.3, 0.3, 0.3]),
        ([0.3, 0.3, 0.3], [0.3, 0.3, 0.3]),  # 0/0
        ([0.3], [0.2]),
        ([-5.0, -5.0], [0.3, 0.2]),  # nothing
    ],
)
def test_what_does_not_vary_has_no_concordance(x: list[float], y: list[float]) -> None:
    copies = 3333
    one, other = (np.tile(np.array([part, part]).T, (copies, 1)) for part in (x, y))
    assert ccc(moments(one, other, VA)).tolist() == [0.0, 0.0]


def pooled(parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> np.ndarray:
    """The statistics of all frames at once."""
    truth, predicted = (np.concatenate(column) for column in zip(*parts, strict=True))
    return moments(truth, predicted, VA)


def test_each_field_is_dropped_where_it_is_not_annotated() -> None:
    truth, predicted = draw(2, 300)
    found = moments(truth, predicted, VA)
    for field in range(2):
        kept = truth[:, field] != -5
        assert found[field, 0] == kept.sum()
        assert ccc(found)[field] == pytest.approx(reference(truth[kept, field], predicted[kept, field]))


@UNTIMED
@given(st.lists(st.integers(0, 30), min_size=1, max_size=8))
def test_a_pool_is_the_sum_of_its_parts(sizes: list[int]) -> None:
    parts = [draw(seed, size) for seed, size in enumerate(sizes)]
    assert np.sum([moments(*part, VA) for part in parts], axis=0) == pytest.approx(pooled(parts), abs=1e-12)


def test_float32_annotations_are_dropped_and_scored_alike() -> None:
    truth, predicted = draw(3, 300)
    narrow = moments(truth.astype(np.float32), predicted.astype(np.float32), VA)
    assert ccc(narrow) == pytest.approx(ccc(moments(truth, predicted, VA)), abs=1e-6)


@pytest.mark.parametrize(
    ("truth", "predicted", "message"),
    [
        ([[0.1, 1.5]], [[0, 0]], "a true arousal .*out of range; found 1.5; expected a number from -1 to 1"),
        ([[-2, 0.1]], [[0, 0]], "a true valence .*found -2"),
        ([[0.1, 0.1]], [[0, -1.01]], "a predicted arousal of an annotated frame is out of range; found -1.01"),
        ([[0.1, 0.1]], [[float("nan"), 0]], "a predicted valence .*found nan"),
        ([[0.1, 0.1]], [[0.1]], "differ in shape"),
        ([[0.1]], [[0.1]], "differ in shape"),
    ],
)
def test_values_out_of_range_are_refused(truth: list, predicted: list, message: str) -> None:
    with pytest.raises(UserError, match=message):
        moments(np.array(truth, float), np.array(predicted, float), VA)


def test_nothing_is_asked_of_predictions_for_what_nobody_annotated() -> None:
    assert not moments(np.array([[-5.0, -5.0]]), np.array([[np.nan, 7.0]]), VA).any()


def test_the_interval_is_that_of_recordings_drawn_by_hand() -> None:
    videos = ["a_left", "a_right", *"bcdef"]
    parts = [draw(seed, 60) for seed in range(len(videos))]
    by_recording = sum_recordings(videos, np.stack([moments(*part, VA) for part in parts]))
    assert by_recording.shape == (6, 2, 6)
    groups = [[0, 1], [2], [3], [4], [5], [6]]
    draws = np.random.default_rng(5).multinomial(6, np.full(6, 1 / 6), 20)
    expected = []
    for times in draws:
        drawn = [parts[i] for group, count in zip(groups, times, strict=True) for i in group * count]
        expected.append(float(mean_ccc(pooled(drawn))))
    assert resample(by_recording, mean_ccc, 5, 20) == pytest.approx(expected)
    low, high = bootstrap_interval(by_recording, mean_ccc, 5)
    assert low < mean_ccc(by_recording.sum(axis=0)) < high


def test_a_report_holds_what_numpy_says() -> None:
    videos = ["a_left", "a_right", "b", "nobody"]
    truths, predictions = zip(*(draw(seed, 80) for seed in range(4)), strict=True)
    truths[3][:] = -5
    metric = metric_of(VA)
    made = value_report(VA, videos, metric.statistics(truths, predictions))
    truth, predicted = np.concatenate(truths), np.concatenate(predictions)
    expected = []
    for index, field in enumerate(made.fields):
        x, y = truth[truth[:, index] != -5, index], predicted[truth[:, index] != -5, index]
        expected.append(reference(x, y))
        assert (field.name, field.frames) == (VA.fields[index].name, len(x))
        assert field.ccc == pytest.approx(expected[-1])
        assert field.pearson == pytest.approx(np.corrcoef(x, y)[0, 1])
        assert field.bias == pytest.approx(y.mean() - x.mean())
        assert field.scale == pytest.approx(y.std() / x.std())
    assert made.mean_ccc == pytest.approx(np.mean(expected))
    assert made.interval is not None
    assert made.frames == max(field.frames for field in made.fields)
    assert [video.name for video in made.videos] == videos[:3]
    one = made.videos[2]
    kept = truths[2][:, 0] != -5
    assert one.ccc[0] == pytest.approx(reference(truths[2][kept, 0], predictions[2][kept, 0]))
    assert one.mean_ccc == pytest.approx(np.mean(one.ccc))
    value = json.loads(json.dumps(made.to_json(), allow_nan=False))
    assert list(value) == ["mean_ccc", "interval", "frames", "fields", "videos"]
    assert made.headline().startswith(f"mean CCC {made.mean_ccc:.4f} (95 % over recordings: ")


def test_nothing_annotated_cannot_be_reported() -> None:
    with pytest.raises(UserError, match="no annotated frame"):
        value_report(VA, ["a"], np.zeros((1, 2, 6)))
