"""The files of a generator's score: score.json, and the pictures of faces and of their nearest training faces."""

from pathlib import Path

import numpy as np
import torch

from abaw_expr.files import write_json
from abaw_expr.generate.sampling import Sampler, write_sheet
from abaw_expr.generate.score import GeneratorScore
from abaw_expr.tasks.task import EXPR
from abaw_expr.version import VERSION

_SHOWN, _NEIGHBOURS = 10, 16


def write_score(found: GeneratorScore, sampler: Sampler, out: Path) -> None:
    """Writes score.json, faces.png (a row a class) and neighbours.png (samples above their nearest training faces)."""
    names = [EXPR.columns[label] for label in found.classes]

    def by_name(values: dict[int, float]) -> dict[str, float]:
        return {EXPR.columns[label]: value for label, value in values.items()}

    known, copies = found.recognition, found.copies
    write_json(
        out / "score.json",
        {
            "version": VERSION,
            "generator": sampler.provenance.generator,
            "steps": sampler.step,
            "faces_per_class": found.faces_per_class,
            "distances": {
                name: {"frechet": one.frechet, "kernel": one.kernel, "by_class": by_name(dict(one.by_class))}
                for name, one in found.distances.items()
            },
            "recognition": {"generated": by_name(dict(known.generated)), "held_out": by_name(dict(known.real))},
            "copies": {
                "closest_pair": copies.closest_pair,
                "closer_than_a_pair": copies.closer_than_a_pair,
                "closer_than_most": copies.closer_than_most,
                "median_distance": float(np.median(copies.distance)),
                "median_distance_among_training": float(np.median(copies.among_training)),
            },
        },
    )
    per_class = found.samples.unflatten(0, (len(names), -1))
    write_sheet(per_class[:, :_SHOWN].flatten(0, 1), len(names), out / "faces.png")
    # The samples that are nearest to a training face: if there are copies, they are among these.
    chosen = np.argsort(copies.distance)[:_NEIGHBOURS]
    nearest = found.training[torch.from_numpy(copies.nearest[chosen])]
    write_sheet(torch.cat([found.samples[torch.from_numpy(chosen)], nearest]), 2, out / "neighbours.png")
