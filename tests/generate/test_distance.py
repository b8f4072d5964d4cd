"""Distances between sets of features against their formulas, and copies that were planted."""

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from abaw_expr.generate.copies import find_copies
from abaw_expr.generate.distance import features, frechet_distance, kernel_distance
from abaw_expr.models.encoders.rhcnn import RHCNN

RNG = np.random.default_rng(0)


def sets(n: int = 60, m: int = 40, width: int = 5) -> tuple[np.ndarray, np.ndarray]:
    return RNG.normal(size=(n, width)), 1.5 * RNG.normal(size=(m, width)) + 0.3


def test_frechet_distance_is_that_of_the_moments() -> None:
    a, b = sets()
    covariances = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = sqrtm(covariances[0] @ covariances[1]).real
    expected = np.square(a.mean(0) - b.mean(0)).sum() + np.trace(covariances[0] + covariances[1] - 2 * root)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_with_more_features_than_faces() -> None:
    a, b = sets(7, 6, 30)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(a, a + 2) == pytest.approx(4 * 30)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a))


def test_kernel_distance_is_a_mean_over_pairs() -> None:
    a, b = sets(6, 5, 4)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return float((x @ y / 4 + 1) ** 3)

    within = [
        np.mean([kernel(x, y) for i, x in enumerate(rows) for j, y in enumerate(rows) if i != j]) for rows in (a, b)
    ]
    between = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-9)
    assert np.isnan(kernel_distance(a[:1], b))


def test_kernel_distance_has_no_bias() -> None:
    found = [kernel_distance(RNG.normal(size=(20, 4)), RNG.normal(size=(20, 4))) for _ in range(300)]
    assert abs(np.mean(found)) < 3 * np.std(found) / np.sqrt(300)


def test_features_take_faces_of_any_side() -> None:
    torch.manual_seed(0)
    faces = torch.randint(0, 256, (3, 3, 64, 64), dtype=torch.uint8)
    encoder = RHCNN(1)
    found = features(encoder, faces)
    assert found.shape == (3, encoder.width)
    assert np.allclose(found[:1], features(encoder, faces[:1]), atol=1e-4)


def test_planted_copies_are_found() -> None:
    torch.manual_seed(0)
    training = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8)
    training = training.repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    training = torch.cat([training, training[:3]])  # double entries
    own = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8).repeat_interleave(8, dim=2).repeat_interleave(8, dim=3)
    samples = torch.cat([training[[7, 11]], own])
    found = find_copies(samples, training)
    assert found.nearest[:2].tolist() == [7, 11]
    assert found.distance[:2] == pytest.approx(0, abs=0.2)
    assert found.closest_pair > 8, "double entries are one face"
    assert found.closer_than_a_pair == pytest.approx(2 / 7)
    assert found.closer_than_most == pytest.approx(2 / 7)
