"""The plots and marks of a prediction show what it holds, also where a modality or a face is missing."""

from dataclasses import replace

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from abaw_expr.infer.annotate import _mark
from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.infer.prediction_classes import ClassPrediction
from abaw_expr.infer.timeline import _draw_branches
from abaw_expr.tasks.task import EXPR
from tests.helpers.challenges import make_video

GREY = (128, 128, 128)


@pytest.fixture
def person() -> PersonPrediction:
    """20 frames: no face on frames 6 to 10, no audio from frame 16 on."""
    video = make_video(EXPR, "v", 20, gaps=0.0)
    p = {name: np.full((20, 8), 0.125, np.float32) for name in ("audio", "visual")}
    p["visual"][5:10] = p["audio"][15:] = np.nan
    video = replace(video, time=np.arange(20.0), crop=~np.isnan(p["visual"][:, 0]), p=p)
    label = np.arange(20) % 8
    return ClassPrediction("v", video, np.eye(8)[label], label, EXPR)


def test_the_band_of_branches_is_blank_where_a_modality_is_missing(person: PersonPrediction) -> None:
    axes = Figure().subplots()
    _draw_branches(person, axes, end=20.0)
    spans = [
        [(box.x0, box.x1) for box in (path.get_extents() for path in bars.get_paths())] for bars in axes.collections
    ]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["audio", "visual"]
    assert spans == [[(0, 15)], [(0, 5), (10, 20)]]


def marked(person: PersonPrediction, number: int, faces: dict[int, np.ndarray]) -> np.ndarray:
    """Where an image of one grey changes, [h, w]."""
    image = Image.new("RGB", (240, 240), GREY)
    _mark(image, number, [(person, faces)], (1.0, 1.0))
    return (np.asarray(image) != GREY).any(axis=2)


def test_a_frame_is_labelled_beside_the_face_and_in_the_corner_without_one(person: PersonPrediction) -> None:
    face = {3: np.array([100, 120, 160, 180, *range(10)], np.float32)}
    with_face, without = marked(person, 3, face), marked(person, 7, face)
    assert with_face[120:181, 100:161].any()
    assert not with_face[:, :90].any()
    assert without[:20, :60].any()
    assert not without[60:].any()


def test_two_people_without_a_face_have_a_label_each(person: PersonPrediction) -> None:
    image = Image.new("RGB", (240, 240), GREY)
    _mark(image, 7, [(person, {}), (replace(person, name="other"), {})], (1.0, 1.0))
    rows = (np.asarray(image) != GREY).any(axis=2).any(axis=1)
    assert rows.sum() > 1.5 * marked(person, 7, {}).any(axis=1).sum()
