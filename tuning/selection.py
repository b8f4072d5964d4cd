"""Choosing a decision, and saying honestly what the choice is worth.

The figure of the best of many candidates on the data that chose it is too high. The nested estimate is not: each
recording is scored by the candidate that the other recordings choose (Cawley and Talbot, JMLR 2010). Recordings, not
videos, are left out and resampled, since two people of one recording share its sound and light.

Shapes: R recordings, C classes.
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError
from abaw_expr.files import file_digest
from abaw_expr.fusion import Decision, figures
from abaw_expr.outputs import Outputs
from abaw_expr.scoring import Counts, bootstrap_interval, macro_f1, resample, sum_recordings
from tuning.grid import Progress, confusion_tensor
from tuning.space import Space, neighbours

METHOD = "nested leave-one-recording-out"
Choose = Callable[[NDArray[np.float64]], NDArray[np.intp]]
"""The places that are chosen by macro F1 [candidates, ...], [...]."""
Rule = Literal["best", "plateau"]
"""best: the highest macro F1. plateau: the highest mean of a candidate's and its neighbours', which prefers a broad
optimum to a sharp one."""


@dataclass(frozen=True)
class Estimate:
    """What to expect of a tuned decision on recordings that had no part in choosing it."""

    nested_macro_f1: float | None
    """Macro F1 over all recordings, each decided by what the others chose; None where it cannot be estimated."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval over recordings of the nested figure."""
    optimism: float | None
    """By how much the tuned figure flatters: tuned minus nested."""
    chosen_again: float | None
    """In how many of 1,000 resamples of the recordings the same candidate is chosen, as a share."""
    method: str
    """How it was estimated, or why it could not be."""


@dataclass(frozen=True, eq=False)
class Search:
    """Every candidate's counts, and what is chosen from them."""

    space: Space
    counts: Counts
    """[candidates, R, C, C], of `space.candidates()`."""
    rule: Rule

    @cached_property
    def f1(self) -> NDArray[np.float64]:
        """Macro F1 of every candidate over all recordings, [candidates]."""
        return macro_f1(self.counts.sum(axis=1))

    def choose(self, f1: NDArray[np.float64]) -> NDArray[np.intp]:
        """The chosen candidate by macro F1 [candidates, ...]: [...]; the first, so the simplest, of equals."""
        return self._judged(f1).argmax(axis=0)

    @property
    def nested_macro_f1(self) -> float | None:
        """The nested estimate alone, without what resampling says of it."""
        return nested_macro_f1(self.counts, self.choose)

    @cached_property
    def estimate(self) -> Estimate:
        """The nested estimate of what this search chooses."""
        figure = self.nested_macro_f1
        if figure is None:
            found = self.counts.shape[1]
            return Estimate(None, None, None, None, f"none: {METHOD} needs 2 annotated recordings, found {found}")
        chosen = self.choose(self.f1)
        interval = bootstrap_interval(_held_out(self.counts, self.choose), seed=0)
        again = self.choose(resample(self.counts, seed=0).T) == chosen
        return Estimate(figure, interval, float(self.f1[chosen]) - figure, float(again.mean()), METHOD)

    @cached_property
    def _near(self) -> list[list[int]]:
        return neighbours(self.space)

    def _judged(self, f1: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.rule == "best":
            return f1
        sizes = np.array([len(places) for places in self._near])
        sums = np.add.reduceat(f1[np.concatenate(self._near)], np.cumsum(sizes) - sizes, axis=0)
        return sums / sizes.reshape(-1, *[1] * (f1.ndim - 1))


def _highest(f1: NDArray[np.float64]) -> NDArray[np.intp]:
    return f1.argmax(axis=0)


def nested_macro_f1(counts: Counts, choose: Choose = _highest) -> float | None:
    """Macro F1 where each recording is decided by the candidate that the others choose, of [candidates, R, C, C].

    `choose` is told macro F1 [candidates, R] without each recording, and returns places [R]. None of one recording.
    """
    return float(macro_f1(_held_out(counts, choose).sum(axis=0))) if counts.shape[1] > 1 else None


def _held_out(counts: Counts, choose: Choose) -> Counts:
    """Each recording's counts under the candidate that the others choose: [R, C, C]."""
    rest = counts.sum(axis=1)[:, None] - counts  # [candidates, R, C, C]: all recordings but one
    return counts[choose(macro_f1(rest)), np.arange(counts.shape[1])]


def search(
    outputs: Outputs, space: Space | None = None, rule: Rule = "best", progress: Progress | None = None
) -> Search:
    """Counts every candidate of the space on these outputs.

    Raises OutputsError where no frame is annotated.
    """
    space = (space or Space()).fitting(outputs)
    tensor = confusion_tensor(outputs, space, progress)
    if not tensor.any():
        remedy = "Tune on the outputs of the validation split."
        raise OutputsError("no frame is annotated, so nothing can be tuned", path=outputs.path, remedy=remedy)
    return Search(space, sum_recordings([video.name for video in outputs.videos()], tensor), rule)


def decide(outputs: Outputs, found: Search) -> Decision:
    """The decision that the search chooses, with its figures and honest estimate."""
    decision = found.space.candidates()[int(found.choose(found.f1))].decision(outputs)
    estimate = asdict(found.estimate)
    if estimate["interval"] is not None:
        estimate["interval"] = list(estimate["interval"])  # as JSON has it
    return replace(
        decision,
        outputs=_sources(outputs),
        figures=figures(decision, outputs.videos()),
        estimate={"rule": found.rule, "candidates": len(found.counts), **estimate},
    )


def _sources(outputs: Outputs) -> dict[str, Any]:
    files = [{"file": path.name, "digest": file_digest(path)} for path in outputs.paths]
    return {"files": files, "runs": {name: source.run for name, source in outputs.branches.items()}}
