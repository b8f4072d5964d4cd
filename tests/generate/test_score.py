"""What a classifier of real faces names generated ones, and faces that cannot be decoded."""

from pathlib import Path

import numpy as np
import pytest
import torch

from abaw_expr.data.store.store import open_store
from abaw_expr.generate.faces import Faces, faces_of
from abaw_expr.generate.score import recognise
from abaw_expr.tasks.task import EXPR


def test_accuracy_of_a_class_is_the_fraction_that_has_its_features() -> None:
    rng = np.random.default_rng(0)

    def rows(label: int, count: int) -> np.ndarray:
        return rng.normal(np.eye(8)[label] * 20, 1.0, (count, 8))

    lessons = {label: rows(label, 20 + label) for label in (0, 3, 5)}
    labels = [0] * 10 + [3] * 10 + [5] * 10
    generated = np.concatenate([rows(0, 10), rows(3, 4), rows(0, 6), rows(5, 1), rows(3, 9)])
    real = np.concatenate([rows(0, 10), rows(3, 10), rows(5, 10)])
    found = recognise(lessons, generated, real, labels)
    assert found.generated == {0: 1.0, 3: 0.4, 5: 0.1}
    assert found.real == {0: 1.0, 3: 1.0, 5: 1.0}


def test_a_crop_that_cannot_be_decoded_is_stepped_over(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    faces = faces_of([open_store(store, EXPR)], "train")
    read, broken = Faces.read, set(range(0, len(faces), 2))
    monkeypatch.setattr(Faces, "read", lambda own, index, side: None if index in broken else read(own, index, side))
    label, indices = max(faces.by_class.items(), key=lambda entry: len(entry[1]))
    kept = (read(faces, index, 16) for index in indices.tolist() if index not in broken)
    wanted = sorted(face.sum().item() for face in kept if face is not None)
    found = faces.sample(len(indices), 16, np.random.default_rng(0), label)
    assert sorted(found.sum(dim=(1, 2, 3)).tolist()) == wanted
    assert len(faces.sample(2, 16, np.random.default_rng(0), label)) == 2
    assert faces.sample(2, 16, np.random.default_rng(0), 99).shape == torch.Size([0, 3, 16, 16])
