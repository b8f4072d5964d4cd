"""Choosing a decision, and saying honestly what the choice is worth.

The figure of the best of many candidates on the data that chose it is too high. The nested estimate is not: each
recording is scored by the candidate that the other recordings choose (Cawley and Talbot, JMLR 2010). Recordings, not
videos, are left out and resampled, since two people of one recording share its sound and light.

Shapes: R recordings, F fields with K tuning statistics each (a confusion matrix, of classes).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError, shorten
from abaw_expr.files import file_digest
from abaw_expr.outputs.decision import Decision, figures
from abaw_expr.outputs.fusion import MISSING
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Statistics, bootstrap_interval, resample, sum_recordings
from abaw_expr.tasks.task import EXPR, Task
from tuning.grid import Progress, statistics_tensor
from tuning.space import Space, neighbours

METHOD = "nested leave-one-recording-out"
Choose = Callable[[NDArray[np.float64]], NDArray[np.intp]]
"""The places that are chosen by figures [candidates, ...], [...]."""
Rule = Literal["best", "plateau"]
"""best: the highest figure. plateau: the highest mean of a candidate's and its neighbours', which prefers a broad
optimum to a sharp one."""


@dataclass(frozen=True)
class Estimate:
    """What to expect of a tuned decision on recordings that had no part in choosing it."""

    nested: float | None
    """The figure over all recordings, each decided by what the others chose; None where it cannot be estimated."""
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
    counts: Statistics
    """[candidates, R, F, K], of `space.candidates()`."""
    rule: Rule
    task: Task = EXPR

    @property
    def metric(self) -> Metric:
        """What the counts are of."""
        return metric_of(self.task)

    @cached_property
    def figures(self) -> NDArray[np.float64]:
        """The figure of every candidate over all recordings, [candidates]."""
        return self.metric.tuned_score(self.counts.sum(axis=1))

    def choose(self, figures: NDArray[np.float64]) -> NDArray[np.intp]:
        """The chosen candidate by figures [candidates, ...]: [...]; the first, so the simplest, of equals."""
        return self._judged(figures).argmax(axis=0)

    @property
    def nested(self) -> float | None:
        """The nested estimate alone, without what resampling says of it."""
        return nested_figure(self.counts, self.metric, self.choose)

    def without(self, branch: int) -> "Search":
        """The search among those of its candidates that give the branch at that place weight 0."""
        space = replace(self.space, weights=tuple(w for w in self.space.ratios if w[branch] == 0))
        kept = [not candidate.weights[branch] for candidate in self.space.candidates()]
        return Search(space, self.counts[kept], self.rule, self.task)

    @cached_property
    def estimate(self) -> Estimate:
        """The nested estimate of what this search chooses."""
        nested = self.nested
        if nested is None:
            found = self.counts.shape[1]
            return Estimate(None, None, None, None, f"none: {METHOD} needs 2 annotated recordings, found {found}")
        chosen = self.choose(self.figures)
        held_out = _held_out(self.counts, self.choose, self.metric)
        interval = bootstrap_interval(held_out, self.metric.score, seed=0)
        again = self.choose(resample(self.counts, self.metric.tuned_score, seed=0).T) == chosen
        return Estimate(nested, interval, float(self.figures[chosen]) - nested, float(again.mean()), METHOD)

    @cached_property
    def _near(self) -> list[list[int]]:
        return neighbours(self.space)

    def _judged(self, figures: NDArray[np.float64]) -> NDArray[np.float64]:
        if self.rule == "best":
            return figures
        sizes = np.array([len(places) for places in self._near])
        sums = np.add.reduceat(figures[np.concatenate(self._near)], np.cumsum(sizes) - sizes, axis=0)
        return sums / sizes.reshape(-1, *[1] * (figures.ndim - 1))


def _highest(figures: NDArray[np.float64]) -> NDArray[np.intp]:
    return figures.argmax(axis=0)


def nested_figure(counts: Statistics, metric: Metric, choose: Choose = _highest) -> float | None:
    """The figure where each recording is decided by the candidate that the others choose, of [candidates, R, F, K].

    `choose` is told figures [candidates, R] without each recording, and returns places [R]. None of one recording.
    """
    return float(metric.score(_held_out(counts, choose, metric).sum(axis=0))) if counts.shape[1] > 1 else None


def _held_out(counts: Statistics, choose: Choose, metric: Metric) -> Statistics:
    """Each recording's statistics under the candidate, and its thresholds, that the others choose: [R, F, K]."""
    rest = counts.sum(axis=1)[:, None] - counts  # [candidates, R, F, K]: all recordings but one
    chosen = choose(metric.tuned_score(rest)), np.arange(counts.shape[1])
    return metric.settled(counts[chosen], rest[chosen])


def search(
    outputs: Outputs, space: Space | None = None, rule: Rule = "best", progress: Progress | None = None
) -> Search:
    """Counts every candidate of the space on these outputs.

    Raises OutputsError where no frame is annotated, or no branch says anything.
    """
    if not outputs.speaking():
        remedy = "Look whether the run's modality is in these videos."
        raise OutputsError("no branch says anything of any frame", path=outputs.path, remedy=remedy)
    space = (space or default_space(outputs)).fitting(outputs)
    tensor = statistics_tensor(outputs, space, progress)
    if not tensor.any():
        remedy = "Tune on the outputs of the validation split."
        raise OutputsError("no frame is annotated, so nothing can be tuned", path=outputs.path, remedy=remedy)
    counts = sum_recordings([video.name for video in outputs.videos()], tensor)
    return Search(space, counts, rule, outputs.task)


def default_space(outputs: Outputs, leave_out: bool = False, missing: str = MISSING[0]) -> Space:
    """What is searched where nothing else is asked for: weights 1 to 5 of two branches, as in the paper; of more
    branches, or with `leave_out`, each may have weight 0 too."""
    branches = len(outputs.branches)
    return Space(branches=branches, missing=missing, zero=leave_out or branches > 2)


def decide(outputs: Outputs, found: Search) -> Decision:
    """The decision that the search chooses, with its figures and honest estimate."""
    chosen = int(found.choose(found.figures))
    decision = replace(
        found.space.candidates()[chosen].decision(outputs),
        missing=found.space.missing,
        thresholds=found.metric.thresholds(found.counts[chosen].sum(axis=0)),
    )
    estimate = asdict(found.estimate)
    nested = {f"nested_{found.metric.key}": estimate.pop("nested")}
    others = {name: value for name, value in nested_without(outputs, found).items() if value is not None}
    warned: dict[str, Any] = {"without": others} if others else {}
    warned |= {"caveats": told} if (told := caveats(outputs)) else {}
    if estimate["interval"] is not None:
        estimate["interval"] = list(estimate["interval"])  # as JSON has it
    return replace(
        decision,
        outputs=_sources(outputs),
        figures=figures(decision, outputs.videos()),
        estimate={"rule": found.rule, "candidates": len(found.counts), **nested, **estimate, **warned},
    )


def nested_without(outputs: Outputs, found: Search) -> dict[str, float | None]:
    """The nested estimate without each branch, by the branch that is left out.

    Where the search has candidates that give it weight 0, the choice is among those, which are counted already; else
    the same search is made on the other branches.
    """
    branches = outputs.branches
    if len(branches) < 2 or found.nested is None:
        return {}
    without: dict[str, float | None] = {}
    for place, name in enumerate(branches):
        if any(weights[place] == 0 for weights in found.space.ratios):
            without[name] = found.without(place).nested
        else:
            part = replace(outputs, branches={k: v for k, v in branches.items() if k != name})
            without[name] = search(part, found.space, found.rule).nested if part.speaking() else None
    return without


def caveats(outputs: Outputs) -> list[str]:
    """Why figures on these outputs, the nested one too, are higher than on recordings that nobody has seen."""
    found = []
    if outputs.split == "train":
        found.append("these are the frames that were trained on")
    if best := [name for name, source in outputs.branches.items() if source.checkpoint == "best"]:
        chosen = f"the epoch of {', '.join(best)} was chosen on validation frames"
        found.append(f"{chosen}: predict with --checkpoint last, here and for the test")
    for seen, names in _by_seen(outputs).items():
        recordings = f"{len(seen)} recordings were trained on by {', '.join(names)}, or another person in them was"
        found.append(f"{recordings}: {shorten(seen)}")
    return found


def _by_seen(outputs: Outputs) -> dict[tuple[str, ...], list[str]]:
    """The branches by what their runs saw, of those that saw anything."""
    branches: dict[tuple[str, ...], list[str]] = {}
    for name, source in outputs.branches.items():
        if source.seen:
            branches.setdefault(source.seen, []).append(name)
    return branches


def _sources(outputs: Outputs) -> dict[str, Any]:
    files = [{"file": path.name, "digest": file_digest(path)} for path in outputs.paths]
    runs = {name: source.run for name, source in outputs.branches.items()}
    checkpoints = {name: source.checkpoint for name, source in outputs.branches.items() if source.checkpoint}
    return {"files": files, "runs": runs} | ({"checkpoints": checkpoints} if checkpoints else {})
