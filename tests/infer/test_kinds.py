"""Predictions of every kind of task: their tables, words and plots."""

from dataclasses import replace
from pathlib import Path

import matplotlib as mpl
import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image

from abaw_expr.infer.annotate import _mark
from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.infer.registry import PREDICTIONS, person_prediction
from abaw_expr.infer.timeline import draw_timeline
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.registry import METRICS, metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from tests.helpers.challenges import EVERY, make_video
from tests.helpers.tiny import jpeg

COUNT = 40


def predicted(task: Task, rows: np.ndarray, thresholds: tuple[float, ...] | None = None) -> PersonPrediction:
    """The prediction of one branch that says these rows, [T, C]."""
    video = make_video(task, "v", len(rows), gaps=0.0, branches=("visual",))
    video = replace(video, time=np.arange(len(rows)) / 4, p={"visual": rows.astype(np.float32)})
    return person_prediction(video, decision_of(task, thresholds))


def decision_of(task: Task, thresholds: tuple[float, ...] | None = None) -> Decision:
    return Decision({"visual": Vote(metric_of(task).unknown_prior)}, task=task, thresholds=thresholds)


def made_up(task: Task) -> PersonPrediction:
    return predicted(task, make_video(task, "v", COUNT, gaps=0.0, branches=("visual",)).p["visual"])


def last_panel(person: PersonPrediction, end: float) -> Axes:
    axes = Figure().subplots()
    person.panels()[-1].draw(axes, end)
    return axes


def test_every_kind_of_task_has_a_prediction() -> None:
    assert PREDICTIONS.keys() == METRICS.keys()


@pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)
def test_a_table_has_a_row_a_frame_and_what_the_decision_says(task: Task) -> None:
    person = made_up(task)
    table = person.table()
    assert len(table) == COUNT
    assert not table.isna().any(axis=None)
    names = {
        "classes": [*task.columns, "class"],
        "values": [*task.columns],
        "units": [*task.columns, *(f"{name}_active" for name in task.columns)],
    }
    assert [*table.columns] == ["frame", "time", "face", *names[task.kind]]
    np.testing.assert_allclose(table[list(task.columns)], person.p, atol=1e-5)
    assert decision_of(task).labels(person.frames).tolist() == person.label.tolist()


def test_the_classes_of_a_table_are_their_names() -> None:
    table = predicted(EXPR, np.eye(8)[[4, 0, 4]]).table()
    assert table["class"].tolist() == ["Happiness", "Neutral", "Happiness"]
    assert table.loc[0, "Happiness"] == 1


def test_units_are_active_from_the_thresholds_of_the_decision() -> None:
    rows, active = np.full((3, 12), 0.4), [f"{name}_active" for name in AU.columns]
    rows[1] = 0.5
    rows[2, :2] = 0.1
    untuned = predicted(AU, rows).table()[active].to_numpy()
    assert untuned.tolist() == [[0] * 12, [1] * 12, [0] * 12]
    tuned = predicted(AU, rows, (0.25, 0.75) + (0.5,) * 10).table()[active].to_numpy()
    assert tuned.tolist() == [[1] + [0] * 11, [1, 0] + [1] * 10, [0] * 12]


def test_values_are_clipped_to_their_range() -> None:
    table = predicted(VA, np.array([[1.0 + 1e-6, -1.0], [0.25, -0.5]])).table()
    assert table[["valence", "arousal"]].to_numpy().tolist() == [[1, -1], [0.25, -0.5]]


@pytest.mark.parametrize(
    ("task", "rows", "headline", "summary"),
    [
        (
            EXPR,
            np.eye(8)[[4, 0, 4, 4]],
            "Happiness 75%, Neutral 25% of the frames",
            {"most frequent": "Happiness", "fraction": 0.75},
        ),
        (
            VA,
            np.array([[0.25, -0.75], [0.5, 0.0]]),
            "mean valence +0.38, mean arousal -0.38",
            {"mean valence": 0.375, "mean arousal": -0.375},
        ),
        (
            AU,
            np.eye(12)[[6, 3, 6, 6]],
            "active units AU12 75%, AU6 25% of the frames",
            {"most frequent unit": "AU12", "fraction": 0.75},
        ),
        (AU, np.zeros((4, 12)), "no active unit", {"most frequent unit": "none", "fraction": 0.0}),
    ],
)
def test_a_video_is_summarised(task: Task, rows: np.ndarray, headline: str, summary: dict[str, object]) -> None:
    person = predicted(task, rows)
    assert person.headline() == headline
    assert person.summary() == summary


@pytest.mark.parametrize(
    ("task", "row", "text"),
    [
        (EXPR, np.eye(8)[5], "Sadness 100%"),
        (VA, np.array([0.31, -0.12]), "valence +0.3 arousal -0.1"),
        (VA, np.array([-0.01, 1.0]), "valence +0.0 arousal +1.0"),
        (AU, np.eye(12)[6] + np.eye(12)[3], "AU6 AU12"),
        (AU, np.zeros(12), "no active unit"),
    ],
)
def test_a_frame_has_a_caption(task: Task, row: np.ndarray, text: str) -> None:
    assert predicted(task, row[None]).caption(0).text == text


def test_the_caption_of_a_face_at_the_edge_and_of_all_units_is_seen_whole() -> None:
    face = {1: np.array([200, 120, 238, 160, *range(10)], np.float32)}
    for person in (predicted(VA, np.array([[0.3, -0.1]])), predicted(AU, np.ones((1, 12)))):
        image = Image.new("RGB", (240, 240))
        _mark(image, 1, [(person, face)], (1.0, 1.0))
        colour = tuple(bytes.fromhex(person.caption(0).colour[1:]))
        line = np.asarray(image)[120 - 4]  # through the text
        filled = (line == colour).all(axis=1)
        white = np.flatnonzero(line.min(axis=1) > 128)
        assert filled[-2:].all()  # the end of the text is no letter
        assert white.size > 10
        assert np.flatnonzero(filled).min() < white.min()


# Plots


def test_values_are_lines_in_their_range_around_0_with_a_legend() -> None:
    values = np.stack([np.linspace(-1, 1, COUNT), np.linspace(0.5, -0.5, COUNT)], axis=1)
    axes = last_panel(predicted(VA, values), 10.0)
    zero, *lines = axes.get_lines()
    assert set(np.asarray(zero.get_ydata()).tolist()) == {0.0}
    np.testing.assert_allclose(np.stack([np.asarray(line.get_ydata()) for line in lines], axis=1), values, atol=1e-6)
    legend = axes.get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ["valence", "arousal"]
    assert axes.get_ylim() == pytest.approx((-1, 1), abs=0.05)


def test_units_are_bands_filled_where_active_and_shaded_by_probability() -> None:
    rows = np.full((4, 12), 0.2)
    rows[1:3, 3], rows[3, 11] = (0.6, 0.9), 0.7
    axes = last_panel(predicted(AU, rows), 1.0)
    (bands,) = (one for one in axes.collections if isinstance(one, mpl.collections.QuadMesh))
    shade = bands.get_array()
    assert shade is not None
    expected = np.full((12, 4), np.nan)
    expected[3, 1:3], expected[11, 3] = (0.6, 0.9), 0.7
    np.testing.assert_allclose(np.ma.filled(shade, np.nan), expected, atol=1e-6)
    assert [text.get_text() for text in axes.get_yticklabels()] == list(AU.columns)
    colours = bands.to_rgba(np.array([0.0, 0.6, 0.9]))[:, :3].sum(axis=1)
    assert (np.diff(colours) < 0).all()
    assert colours[0] < 2.6  # even the least probable one is not white


@pytest.mark.parametrize("faces", [True, False])
@pytest.mark.parametrize("task", EVERY, ids=lambda task: task.name)
def test_the_plot_is_drawn_and_has_its_title_above(task: Task, faces: bool, tmp_path: Path) -> None:
    person, crops = made_up(task), tmp_path / "crops"
    crops.mkdir()
    for frame in person.frames.frame.tolist():
        (crops / crop_name(frame)).write_bytes(jpeg())
    draw_timeline(person, crops if faces else None, tmp_path / "v.png")
    with Image.open(tmp_path / "v.png") as image:
        dark = np.asarray(image.convert("L")) < 128
    assert 594 <= dark.shape[0] < 640  # as large as its texts need
    assert 1320 <= dark.shape[1] < 1360
    title = np.flatnonzero(dark[:24].any(axis=0))  # nothing else is so high
    assert np.ptp(title) > 100
    beneath = dark[5:60].any(axis=1)
    assert not beneath.all()


def test_a_long_video_is_sampled_and_one_frame_is_drawn(tmp_path: Path) -> None:
    for count in (1, 4_001):
        for task in (EXPR, VA, AU):
            rows = np.full((count, task.n_columns), 1 / task.n_columns)
            person = predicted(task, rows)
            assert len(person.p[person.plotted]) <= 2_000
            draw_timeline(person, None, tmp_path / "v.png")
