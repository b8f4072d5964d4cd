"""Refinements of a decision: temperatures of branches, a gate by confidence, or factors of classes.

They are tried around the candidate that the grid chooses, and one of the three is kept where its nested estimate is
above that without any. The estimate covers both choices: a recording is scored by the candidate that the other
recordings choose, refined as these choose. As there are few such candidates, only these are refined, each exactly.

Shapes: R recordings, V videos, N refinements, C numbers of a row, F fields with K tuning statistics each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.workers import OnProgress
from abaw_expr.outputs.decision import Decision, scores
from abaw_expr.outputs.refinement import NO_REFINEMENT, Refinement
from abaw_expr.outputs.table import Outputs, VideoOutputs
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.statistics import Statistics, bootstrap_interval, sum_recordings
from abaw_expr.tasks.task import Task
from tuning.selection import Search, chosen_without

TEMPERATURES = (0.5, 0.7, 1.4, 2.0)
CONFIDENCES = (0.5, 0.6, 0.7, 0.8, 0.9)
FACTORS = (0.5, 0.7, 1.4, 2.0)
"""All D."""
_MOST_TOGETHER = 2
"""Of more branches only one has a temperature at a time."""
Family = tuple[Refinement, ...]
"""Refinements of one kind, the first of which does nothing, so that of equal ones it is kept."""


@dataclass(frozen=True)
class Refined:
    """What one family gives."""

    nested: float
    held_out: Statistics
    """[R, F, K], each recording decided by the others."""
    chosen: Refinement
    statistics: Statistics
    """[R, F, K], of the chosen one."""


def families(branches: Sequence[str], task: Task) -> dict[str, Family]:
    """What is tried, by name: nothing for values; for units temperatures."""
    if task.kind == "values" or len(branches) < 2:
        temperatures: list[Mapping[str, float]] = []
    elif len(branches) <= _MOST_TOGETHER:
        every = product((1.0, *TEMPERATURES), repeat=len(branches))
        temperatures = [dict(zip(branches, values, strict=True)) for values in every if set(values) != {1.0}]
    else:
        temperatures = [{name: value} for name in branches for value in TEMPERATURES]
    found = {"temperature": [Refinement({k: v for k, v in one.items() if v != 1.0}) for one in temperatures]}
    if task.one_class:
        gates = product(branches if len(branches) > 1 else (), CONFIDENCES)
        found["gate"] = [Refinement(gate=gate) for gate in gates]
        places = product(range(task.n_columns), FACTORS)
        found["factors"] = [
            Refinement(factors=tuple(factor if place == own else 1.0 for place in range(task.n_columns)))
            for own, factor in places
        ]
    return {name: (NO_REFINEMENT, *own) for name, own in found.items() if own}


def refine(outputs: Outputs, found: Search, decision: Decision, on_progress: OnProgress) -> Decision:
    """The decision of a search with the family of refinements that is shown to pay, or as it is.

    Its estimate says the nested figure of each family, and is that of the kept one. Without a nested estimate nothing
    is refined. `on_progress` counts candidates.
    """
    if found.nested is None:
        return decision
    voting, task = [*decision.voting], outputs.task
    without = chosen_without(found).tolist()
    tried = {
        name: _tried(outputs, found, without, family, on_progress) for name, family in families(voting, task).items()
    }
    figures = {"none": found.nested, **{name: one.nested for name, one in tried.items()}}
    best = max(tried, key=lambda name: tried[name].nested, default=None)
    estimate = dict(decision.estimate or {}) | {"refinements": figures}
    if best is None or tried[best].nested <= found.nested or tried[best].chosen == NO_REFINEMENT:
        return replace(decision, estimate=estimate)
    return _refined(outputs, found.metric, decision, tried[best], estimate)


def _refined(
    outputs: Outputs, metric: Metric, decision: Decision, kept: Refined, estimate: dict[str, object]
) -> Decision:
    pooled = kept.statistics.sum(axis=0)
    refined = replace(decision, refinement=kept.chosen, thresholds=metric.thresholds(pooled))
    tuned = float(metric.tuned_score(pooled))
    estimate |= {
        f"nested_{metric.key}": kept.nested,
        "interval": list(bootstrap_interval(kept.held_out, metric.score, seed=0)),
        "optimism": tuned - kept.nested,
    }
    return replace(refined, scores=scores(refined, outputs.videos()), estimate=estimate)


def _tried(outputs: Outputs, found: Search, without: Sequence[int], family: Family, on_progress: OnProgress) -> Refined:
    """The nested estimate of a family, and its choice on all recordings.

    `without` is the candidate that is chosen without each recording, [R].
    """
    chosen = int(found.choose(found.scores))
    needed = sorted({*without, chosen})
    tensors = dict[int, Statistics]()
    for done, candidate in enumerate(needed):
        tensors[candidate] = _statistics(outputs, found, candidate, family)
        on_progress(done + 1, len(needed))
    metric, held_out = found.metric, []
    for recording, candidate in enumerate(without):
        own = tensors[candidate]
        rest = own.sum(axis=1) - own[:, recording]  # [N, F, K]
        best = int(metric.tuned_score(rest).argmax())
        held_out.append(metric.at_best_thresholds(own[best, recording], rest[best]))
    whole = tensors[chosen]
    best = int(metric.tuned_score(whole.sum(axis=1)).argmax())
    held = np.stack(held_out)
    return Refined(float(metric.score(held.sum(axis=0))), held, family[best], whole[best])


def _statistics(outputs: Outputs, found: Search, candidate: int, family: Family) -> Statistics:
    """The tuning statistics of a candidate with each refinement, [N, R, F, K]."""
    base = replace(found.space.candidates()[candidate].decision(outputs), missing=found.space.missing)
    usable = [one for one in family if one.branches <= {*base.voting}]
    refined = [replace(base, refinement=one) for one in usable]
    videos = outputs.videos()
    by_video = [_of_video(video, base, refined, found.metric) for video in videos]
    summed = sum_recordings([video.name for video in videos], np.stack(by_video, axis=1))
    places = {one: number for number, one in enumerate(map(repr, usable))}
    return summed[[places.get(repr(one), 0) for one in family]]  # a branch without a weight changes nothing


def _of_video(video: VideoOutputs, base: Decision, refined: Sequence[Decision], metric: Metric) -> NDArray[np.generic]:
    """The tuning statistics of a video with each refinement, [N, F, K]; it is smoothed once."""
    smoothed = {name: base.smoothed(name, video) for name in base.voting}
    count = metric.tuning_counter(video.label)
    return np.concatenate([count(one.from_smoothed(smoothed, video)[None]) for one in refined])
