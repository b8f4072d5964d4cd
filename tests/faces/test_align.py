"""The crop of a face is upright, of one size, and aligned to the template, whatever the frame."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.faces.align import ARCFACE_TEMPLATE, crop, similarity

DOT = 2


def transform(angle: float, scale: float, shift: tuple[float, float]) -> np.ndarray:
    turn = scale * np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    return np.column_stack([turn, shift])


def moved(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    return points @ matrix[:, :2].T + matrix[:, 2]


def dotted(points: np.ndarray, size: tuple[int, int], radius: float) -> Image.Image:
    """A black frame with a white disc at each point."""
    y, x = np.mgrid[: size[1], : size[0]] + 0.5
    near = np.min([(x - px) ** 2 + (y - py) ** 2 for px, py in points], axis=0)
    return Image.fromarray(np.where(near <= radius**2, 255, 0).astype(np.uint8)).convert("RGB")


@given(
    st.floats(-np.pi, np.pi),
    st.floats(0.05, 20),
    st.tuples(st.floats(-5000, 5000), st.floats(-5000, 5000)),
    st.integers(0, 2**32 - 1),
)
def test_a_similarity_is_recovered(angle: float, scale: float, shift: tuple[float, float], seed: int) -> None:
    matrix = transform(angle, scale, shift)
    points = np.random.default_rng(seed).uniform(0, 100, (5, 2))
    assert similarity(points, moved(points, matrix)) == pytest.approx(matrix, rel=1e-9, abs=1e-7)


def test_the_nearest_similarity_is_a_minimum() -> None:
    """For noisy points no small change of rotation, scale or shift comes nearer."""
    rng = np.random.default_rng(0)
    goal = moved(ARCFACE_TEMPLATE, transform(0.4, 1.7, (30, 20))) + rng.normal(0, 4, (5, 2))
    best = similarity(ARCFACE_TEMPLATE, goal)
    error = np.square(moved(ARCFACE_TEMPLATE, best) - goal).sum()
    for turn, scale, x, y in rng.normal(0, 1e-3, (200, 4)):
        other = transform(turn, 1 + scale, (0, 0))[:, :2] @ best + [[0, 0, x], [0, 0, y]]
        assert np.square(moved(ARCFACE_TEMPLATE, other) - goal).sum() >= error


def test_a_mirror_image_is_not_turned_over() -> None:
    matrix = similarity(ARCFACE_TEMPLATE, ARCFACE_TEMPLATE * [-1, 1])
    assert np.linalg.det(matrix[:, :2]) > 0


@pytest.mark.slow
@pytest.mark.parametrize(("angle", "scale"), [(0.0, 1.0), (0.6, 1.4), (-2.8, 0.9), (0.3, 4.5)])
def test_points_come_to_lie_on_the_template(angle: float, scale: float) -> None:
    size = (1400, 1200)
    points = moved(ARCFACE_TEMPLATE - CROP_SIDE / 2, transform(angle, scale, (700, 600)))
    face = crop(dotted(points, size, DOT * scale), points)
    assert face.size == (CROP_SIDE, CROP_SIDE)
    bright = np.asarray(face.convert("L"), float)
    y, x = np.mgrid[:CROP_SIDE, :CROP_SIDE] + 0.5
    for px, py in ARCFACE_TEMPLATE:
        weight = bright * ((x - px) ** 2 + (y - py) ** 2 < 64)
        found = (weight * x).sum() / weight.sum(), (weight * y).sum() / weight.sum()
        assert found == pytest.approx((px, py), abs=0.25)


def test_what_reaches_out_of_the_frame_is_black() -> None:
    white = Image.new("RGB", (200, 200), (255, 255, 255))
    for scale in (1.0, 3.0):
        points = moved(ARCFACE_TEMPLATE - CROP_SIDE / 2, transform(0.0, scale, (0, 100)))
        face = np.asarray(crop(white, points))
        assert not face[:, : CROP_SIDE // 2 - 1].any()
        assert face[CROP_SIDE // 2, CROP_SIDE // 2 + 1 :].all()


def test_a_large_face_is_averaged() -> None:
    """Fine noise becomes grey, where taking single pixels would keep it."""
    noise = np.random.default_rng(0).integers(0, 2, (1200, 1200, 1), dtype=np.uint8) * np.full(3, 255, np.uint8)
    points = moved(ARCFACE_TEMPLATE - CROP_SIDE / 2, transform(0.0, 8.0, (600, 600)))
    face = np.asarray(crop(Image.fromarray(noise), points), float)
    assert face.mean() == pytest.approx(127.5, abs=2)
    assert face.std() < 20
