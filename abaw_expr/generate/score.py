"""How good generated faces are: their distance to held-out real faces, what a classifier sees in them, and copies.

Shapes: n faces, m training faces, C classes, D features, S x S pixels.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.store.store import Store
from abaw_expr.errors import StoreError
from abaw_expr.generate.copies import Copies, find_copies
from abaw_expr.generate.distance import features, frechet_distance, kernel_distance
from abaw_expr.generate.faces import faces_of
from abaw_expr.generate.sampling import Sampler, codes_of
from abaw_expr.models.encoders.encoder import Encoder

_PROBE_C = 0.01
"""Inverse strength of the classifier's regularisation (D): features are many, faces few."""
_MOST_TAUGHT = 600
"""Training faces of each class that teach the classifier (D): it learns little from 200."""
_MOST_TRAINING = 8_000
"""Training faces among which copies are searched, drawn where there are more."""
GENERATED, TRAINING, MEANS, NOISE = "generated", "training faces", "class means", "noise"
_REAL = "held-out faces"


@dataclass(frozen=True)
class Distances:
    """A set of faces against the held-out real ones."""

    frechet: float
    """Over all classes, as many faces of each."""
    kernel: float
    by_class: Mapping[int, float]
    """Kernel distance of each class, times 1000 as that of all."""


@dataclass(frozen=True)
class Recognition:
    """What a classifier of real faces names generated ones, beside held-out real ones."""

    generated: Mapping[int, float]
    """Accuracy of each class."""
    real: Mapping[int, float]

    @staticmethod
    def mean(accuracy: Mapping[int, float]) -> float:
        return float(np.mean([*accuracy.values()]))


@dataclass(frozen=True)
class GeneratorScore:
    """All that is measured of a generator."""

    classes: tuple[int, ...]
    """Those that were measured."""
    faces_per_class: int
    distances: Mapping[str, Distances]
    recognition: Recognition
    copies: Copies
    samples: Tensor
    """uint8 [C n, 3, S, S], the generated faces, class by class."""
    training: Tensor
    """uint8 [m, 3, S, S], the training faces among which copies were searched."""


def score_generator(
    sampler: Sampler,
    stores: Sequence[Store],
    encoder: Encoder,
    count: int = 200,
    split: str = "val",
    seed: int = 0,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> GeneratorScore:
    """Scores a generator with faces of the stores that it was trained on; `count` faces a class, or as many as the
    smallest class has.

    Classes without two held-out faces are left out. `on_progress(sets of faces done, sets in all)`. Raises StoreError
    where fewer than two classes are left.
    """
    rng = np.random.default_rng(seed)
    held_out, training = faces_of(stores, split), faces_of(stores, "train")
    classes = [label for label in sampler.classes if len(held_out.by_class.get(label, ())) > 1]
    if len(classes) < 2:
        found, expected = f"{len(classes)} classes", "two or more with two faces each"
        raise StoreError(f"holds too few {split} faces", path=stores[0].root, found=found, expected=expected)
    side = sampler.side
    real = [held_out.sample(count, side, rng, label) for label in classes]
    taught = [training.sample(max(count, _MOST_TAUGHT), side, rng, label) for label in classes]
    count = min(map(len, [*real, *taught]))
    real, known = ([part[:count] for part in parts] for parts in (real, taught))
    # Other identities than those of sheets, and the same for every class.
    labels = [label for label in classes for _ in range(count)]
    generated = sampler.faces(sampler.identities(count, seed + 1).repeat(len(classes), 1), codes_of(labels))
    sets = {
        GENERATED: generated,
        MEANS: torch.cat([_mean_of(part) for part in known]),
        NOISE: torch.from_numpy(rng.integers(0, 256, generated.shape, dtype=np.uint8)),
        _REAL: torch.cat(real),
        TRAINING: torch.cat(taught),
    }
    rows = dict[str, np.ndarray]()
    for number, (name, faces) in enumerate(sets.items(), start=1):
        rows[name] = features(encoder, faces)
        on_progress(number, len(sets))
    lessons = np.split(rows[TRAINING], np.cumsum([len(part) for part in taught])[:-1])
    rows[TRAINING] = np.concatenate([part[:count] for part in lessons])
    distances = {name: _distances(rows[name], rows[_REAL], classes) for name in (GENERATED, TRAINING, MEANS, NOISE)}
    recognition = recognise(dict(zip(classes, lessons, strict=True)), rows[GENERATED], rows[_REAL], labels)
    searched = training.sample(_MOST_TRAINING, side, rng)
    copies = find_copies(generated, searched)
    return GeneratorScore(tuple(classes), count, distances, recognition, copies, generated, searched)


def recognise(
    lessons: Mapping[int, np.ndarray], generated: np.ndarray, real: np.ndarray, labels: Sequence[int]
) -> Recognition:
    """The accuracy of a logistic regression, fitted on features [m, D] of real training faces of each class, on
    features [n, D] of generated faces and of held-out real ones, which both have the classes `labels`."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    classifier = make_pipeline(StandardScaler(), LogisticRegression(C=_PROBE_C, class_weight="balanced", max_iter=1000))
    classifier.fit(np.concatenate([*lessons.values()]), np.repeat([*lessons], [*map(len, lessons.values())]))
    right = np.array(labels)

    def accuracy(faces: np.ndarray) -> dict[int, float]:
        named = classifier.predict(faces)
        return {label: float(np.mean(named[right == label] == label)) for label in dict.fromkeys(labels)}

    return Recognition(accuracy(generated), accuracy(real))


def _mean_of(faces: Tensor) -> Tensor:
    """The mean face instead of each of the faces [n, 3, S, S]."""
    return faces.float().mean(dim=0, keepdim=True).round().to(torch.uint8).expand_as(faces)


def _distances(own: np.ndarray, wanted: np.ndarray, classes: Sequence[int]) -> Distances:
    parts = zip(classes, np.split(own, len(classes)), np.split(wanted, len(classes)), strict=True)
    by_class = {label: 1000 * kernel_distance(a, b) for label, a, b in parts}
    return Distances(frechet_distance(own, wanted), 1000 * kernel_distance(own, wanted), by_class)
