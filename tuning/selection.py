"""Choosing a decision, and saying honestly what the choice is worth.

The figure of the best of many candidates on the data that chose it is too high. The nested estimate is not: each
recording is scored by the candidate that the other recordings choose (Cawley and Talbot, JMLR 2010). Recordings, not
videos, are left out, since two people of one recording share its sound and light.
"""

from dataclasses import asdict, dataclass, replace

import numpy as np

from abaw_expr.errors import OutputsError
from abaw_expr.files import file_digest
from abaw_expr.fusion import Decision, figures
from abaw_expr.outputs import Outputs
from abaw_expr.scoring import Counts, macro_f1, sum_recordings
from tuning.grid import Progress, best, confusion_tensor
from tuning.space import Space

METHOD = "nested leave-one-recording-out"


@dataclass(frozen=True)
class Estimate:
    """What to expect of a tuned decision on recordings that had no part in choosing it."""

    nested_macro_f1: float | None
    """Macro F1 over all recordings, each decided by what the others chose; None where it cannot be estimated."""
    optimism: float | None
    """By how much the tuned figure flatters: tuned minus nested."""
    method: str
    """How it was estimated, or why it could not be."""


def tune(outputs: Outputs, space: Space | None = None, progress: Progress | None = None) -> Decision:
    """The best decision of the space on these outputs, with its figures and honest estimate.

    Raises OutputsError where no frame is annotated.
    """
    space = (space or Space()).fitting(outputs)
    videos = outputs.videos()
    tensor = confusion_tensor(outputs, space, progress)
    if not tensor.any():
        remedy = "Tune on the outputs of the validation split."
        raise OutputsError("no frame is annotated, so nothing can be tuned", path=outputs.path, remedy=remedy)
    chosen = space.candidates()[best(tensor)]
    decision = Decision(prior=outputs.prior, task=outputs.task, **asdict(chosen))
    return replace(
        decision,
        outputs=_source(outputs),
        figures=figures(decision, videos),
        estimate=asdict(estimate(sum_recordings([video.name for video in videos], tensor))),
    )


def estimate(tensor: Counts) -> Estimate:
    """The nested estimate from confusion counts [candidates, recordings, C, C], candidates the simplest first."""
    n_recordings = tensor.shape[1]
    if n_recordings < 2:
        return Estimate(None, None, f"none: {METHOD} needs 2 annotated recordings, found {n_recordings}")
    pooled = tensor.sum(axis=1)
    rest = pooled[:, None] - tensor  # [candidates, recordings, C, C]: all recordings but one
    chosen = macro_f1(rest).argmax(axis=0)  # [recordings]
    held_out = tensor[chosen, np.arange(n_recordings)]
    nested, tuned = macro_f1(held_out.sum(axis=0)), macro_f1(pooled).max()
    return Estimate(float(nested), float(tuned - nested), METHOD)


def _source(outputs: Outputs) -> dict[str, str | None]:
    file, digest = (outputs.path.name, file_digest(outputs.path)) if outputs.path else (None, None)
    return {"file": file, "run": outputs.run, "digest": digest}
