"""Chooses a decision among candidates, and estimates its score without bias.

The score of the best of many candidates is too high on the data that it was chosen on. The nested estimate is not: each
recording is scored with the candidate that is chosen on the other recordings (Cawley and Talbot, JMLR 2010).
Recordings, not videos, are left out and resampled, since two people in one recording have the same audio and light.

Shapes: R recordings, F fields with K tuning statistics each (of classes, a confusion matrix).
"""

from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import OutputsError, shorten
from abaw_expr.files import file_digest
from abaw_expr.outputs.decision import Decision, scores
from abaw_expr.outputs.fusion import MISSING
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Statistics, bootstrap_interval, resample, sum_recordings
from abaw_expr.tasks.task import EXPR, Task
from tuning.grid import statistics_tensor
from tuning.space import Space, neighbours

METHOD = "nested leave-one-recording-out"
Choose = Callable[[NDArray[np.float64]], NDArray[np.intp]]
"""A function from scores [candidates, ...] to the indices [...] of the chosen candidates."""
Rule = Literal["best", "plateau"]
"""best: the highest score. plateau: the highest mean score of a candidate and its neighbours, which prefers a broad
optimum to a sharp one."""


@dataclass(frozen=True)
class Estimate:
    """The expected score of a tuned decision on recordings that it was not chosen on."""

    nested: float | None
    """The score over all recordings, each with the candidate chosen on the others; None with one recording."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval over recordings of the nested score."""
    optimism: float | None
    """The tuned score minus the nested score."""
    chosen_again: float | None
    """The fraction of 1,000 resamples of the recordings in which the same candidate is chosen."""
    method: str
    """The method of the estimate, or the reason why there is none."""


@dataclass(frozen=True, eq=False)
class Search:
    """The counts of every candidate, and the choice among them."""

    space: Space
    counts: Statistics
    """[candidates, R, F, K], of `space.candidates()`."""
    rule: Rule
    task: Task = EXPR

    @property
    def metric(self) -> Metric:
        """The metric of the task."""
        return metric_of(self.task)

    @cached_property
    def scores(self) -> NDArray[np.float64]:
        """The score of every candidate over all recordings, [candidates]."""
        return self.metric.tuned_score(self.counts.sum(axis=1))

    def choose(self, scores: NDArray[np.float64]) -> NDArray[np.intp]:
        """The chosen candidate by scores: [candidates, ...] -> [...]; of equal ones the first, so the simplest."""
        return self._rule_scores(scores).argmax(axis=0)

    @cached_property
    def nested(self) -> float | None:
        """The nested estimate without its interval."""
        return nested_score(self.counts, self.metric, self.choose)

    def without(self, branch: int) -> "Search":
        """The search among the candidates that give the branch with that index weight 0."""
        space = replace(self.space, weights=tuple(w for w in self.space.ratios if w[branch] == 0))
        kept = [not candidate.weights[branch] for candidate in self.space.candidates()]
        return Search(space, self.counts[kept], self.rule, self.task)

    @cached_property
    def estimate(self) -> Estimate:
        """The nested estimate of this search, with its interval."""
        nested = self.nested
        if nested is None:
            found = self.counts.shape[1]
            return Estimate(None, None, None, None, f"none: {METHOD} needs 2 annotated recordings, found {found}")
        chosen = self.choose(self.scores)
        held_out = held_out_statistics(self)
        interval = bootstrap_interval(held_out, self.metric.score, seed=0)
        again = self.choose(resample(self.counts, self.metric.tuned_score, seed=0).T) == chosen
        return Estimate(nested, interval, float(self.scores[chosen]) - nested, float(again.mean()), METHOD)

    @cached_property
    def _neighbours(self) -> list[list[int]]:
        return neighbours(self.space)

    def _rule_scores(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """The scores that the rule maximises: [candidates, ...] -> [candidates, ...]."""
        if self.rule == "best":
            return scores
        sizes = np.array([len(near) for near in self._neighbours])
        sums = np.add.reduceat(scores[np.concatenate(self._neighbours)], np.cumsum(sizes) - sizes, axis=0)
        return sums / sizes.reshape(-1, *[1] * (scores.ndim - 1))


def _highest(scores: NDArray[np.float64]) -> NDArray[np.intp]:
    return scores.argmax(axis=0)


def nested_score(counts: Statistics, metric: Metric, choose: Choose = _highest) -> float | None:
    """The score with each recording decided by the candidate chosen on the others, from counts [candidates, R, F, K].

    `choose` gets the scores [candidates, R] without each recording, and returns indices [R]. None for one recording.
    """
    return float(metric.score(_held_out(counts, choose, metric).sum(axis=0))) if counts.shape[1] > 1 else None


def _held_out(counts: Statistics, choose: Choose, metric: Metric) -> Statistics:
    """The statistics of each recording with the candidate and thresholds that are chosen on the others: [R, F, K]."""
    chosen = _chosen_without(counts, choose, metric)
    held = counts[chosen, np.arange(counts.shape[1])]
    return metric.at_best_thresholds(held, counts[chosen].sum(axis=1) - held)


def chosen_without(found: Search) -> NDArray[np.intp]:
    """The candidate that is chosen without each recording, by its index, [R]."""
    return _chosen_without(found.counts, found.choose, found.metric)


def held_out_statistics(found: Search) -> Statistics:
    """The statistics of each recording, decided by the candidate that the others choose, [R, F, K]."""
    return _held_out(found.counts, found.choose, found.metric)


def _chosen_without(counts: Statistics, choose: Choose, metric: Metric) -> NDArray[np.intp]:
    """The index of the candidate that is chosen without each recording, [R]."""
    # A candidate at a time: the statistics of all recordings but one take as much memory as `counts`.
    return choose(np.stack([metric.tuned_score(one.sum(axis=0) - one) for one in counts]))  # of [candidates, R]


def search(
    outputs: Outputs, space: Space | None = None, rule: Rule = "best", on_progress: OnProgress | None = None
) -> Search:
    """Counts every candidate of the space on these outputs.

    Raises OutputsError where no frame is annotated, or all branches are missing on all frames.
    """
    if not outputs.branches_with_rows():
        remedy = "Check whether these videos have the run's modality."
        raise OutputsError("all branches are missing on all frames", path=outputs.path, remedy=remedy)
    space = (space or default_space(outputs)).restricted_to(outputs)
    tensor = statistics_tensor(outputs, space, on_progress)
    if not tensor.any():
        remedy = "Tune on the outputs of the validation split."
        raise OutputsError("no frame is annotated, so nothing can be tuned", path=outputs.path, remedy=remedy)
    counts = sum_recordings([video.name for video in outputs.videos()], tensor)
    return Search(space, counts, rule, outputs.task)


def default_space(outputs: Outputs, leave_out: bool = False, missing: str = MISSING[0]) -> Space:
    """The default search space: weights from 1 to 5 for two branches, as in the paper; for more branches, or with
    `leave_out`, also weight 0."""
    branches = len(outputs.branches)
    return Space(branches=branches, missing=missing, zero=leave_out or branches > 2)


def decide(outputs: Outputs, found: Search) -> Decision:
    """The decision that the search chooses, with its scores and nested estimate."""
    chosen = int(found.choose(found.scores))
    decision = replace(
        found.space.candidates()[chosen].decision(outputs),
        missing=found.space.missing,
        thresholds=found.metric.thresholds(found.counts[chosen].sum(axis=0)),
    )
    estimate = asdict(found.estimate)
    nested = {f"nested_{found.metric.key}": estimate.pop("nested")}
    without = {name: value for name, value in nested_without(outputs, found).items() if value is not None}
    optional: dict[str, Any] = {"without": without} if without else {}
    optional |= {"caveats": warnings} if (warnings := caveats(outputs)) else {}
    if estimate["interval"] is not None:
        estimate["interval"] = list(estimate["interval"])  # JSON has no tuples
    return replace(
        decision,
        outputs=_sources(outputs),
        scores=scores(decision, outputs.videos()),
        estimate={"rule": found.rule, "candidates": len(found.counts), **nested, **estimate, **optional},
    )


def nested_without(outputs: Outputs, found: Search) -> dict[str, float | None]:
    """The nested estimate without each branch, by the name of the branch that is left out.

    If the search has candidates with weight 0 for the branch, the choice is among these, which are already counted;
    otherwise the same search is made on the other branches.
    """
    branches = outputs.branches
    if len(branches) < 2 or found.nested is None:
        return {}
    without: dict[str, float | None] = {}
    for index, name in enumerate(branches):
        if any(weights[index] == 0 for weights in found.space.ratios):
            without[name] = found.without(index).nested
        else:
            part = replace(outputs, branches={k: v for k, v in branches.items() if k != name})
            without[name] = search(part, found.space, found.rule).nested if part.branches_with_rows() else None
    return without


def caveats(outputs: Outputs) -> list[str]:
    """The reasons why scores on these outputs, including the nested one, are higher than on unseen recordings."""
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
    """The branches by the recordings of the table that their runs were trained on, if any."""
    branches: dict[tuple[str, ...], list[str]] = {}
    for name, source in outputs.branches.items():
        if source.seen:
            branches.setdefault(source.seen, []).append(name)
    return branches


def _sources(outputs: Outputs) -> dict[str, Any]:
    files = [{"file": path.name, "digest": file_digest(path)} for path in outputs.paths]
    runs = {name: source.run for name, source in outputs.branches.items()}
    checkpoints = {name: source.checkpoint for name, source in outputs.branches.items() if source.checkpoint}
    members = {name: [*source.members] for name, source in outputs.branches.items() if source.members}
    optional = {"checkpoints": checkpoints, "members": members}
    return {"files": files, "runs": runs} | {name: value for name, value in optional.items() if value}
