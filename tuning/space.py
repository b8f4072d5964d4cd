"""The search space of tuning: every combination of weights, smoothing and prior correction, the simplest first.

Shapes: k branches.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import pairwise, product
from math import isfinite
from typing import NamedTuple, Self

import numpy as np

from abaw_expr.errors import SettingsError
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.fusion import MAX_TAU, MISSING, SMOOTHERS, WEIGHTS, ratios, reduced
from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.registry import metric_of

MOST_RATIOS = 150
"""The number of ratios that are tried; if there are more, as with four branches, this many are drawn."""


class Smoothing(NamedTuple):
    """The smoothing of each branch: the width of the window in seconds, 0 for none, and `mean` or `median`."""

    seconds: float
    smoother: str = "mean"


NO_SMOOTHING = Smoothing(0.0)
MEANS = tuple(Smoothing(seconds) for seconds in (0.5, 1.0, 2.0, 4.0, 8.0, 16.0))
MEDIANS = tuple(Smoothing(seconds, "median") for seconds in (1.0, 2.0, 4.0, 8.0))


@dataclass(frozen=True)
class Candidate:
    """One setting of everything after the networks, for k branches."""

    weights: tuple[int, ...]
    """[k], in lowest terms."""
    smoothing: Smoothing
    tau: tuple[float, ...]
    """[k]"""

    def decision(self, outputs: Outputs) -> Decision:
        """The decision with these values."""
        votes = zip(outputs.branches.items(), self.weights, self.tau, strict=True)
        branches = {name: Vote(source.prior, weight, tau) for (name, source), weight, tau in votes}
        return Decision(branches, self.smoothing.seconds, self.smoothing.smoother, task=outputs.task)


@dataclass(frozen=True)
class Space:
    """The axes of the search. Raises SettingsError for an empty axis or a value out of range."""

    branches: int = 2
    weights: tuple[tuple[int, ...], ...] | None = None
    """Ratios of the weights, [k] each, in lowest terms (None: all of them, or `MOST_RATIOS` if there are more)."""
    smoothing: tuple[Smoothing, ...] = (NO_SMOOTHING, *MEANS, *MEDIANS)
    """Published gains peak at about 3 s; the windows are D."""
    tau: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Exponents of the prior correction (D), independent for one or two branches; more branches have the same one."""
    missing: str = MISSING[0]
    """How smoothing treats frames whose modality is missing, the same for all candidates."""
    zero: bool = False
    """Whether branches may also have weight 0."""

    def __post_init__(self) -> None:
        allowed = {0, *WEIGHTS} if self.zero else {*WEIGHTS}
        known = all(len(w) == self.branches and set(w) <= allowed and reduced(w) == w for w in self.ratios)
        least = min(allowed)
        _check("weights", self.ratios, known, f"whole numbers from {least} to 5 in lowest terms, one for each branch")
        windows = all(s.seconds >= 0 and isfinite(s.seconds) and s.smoother in SMOOTHERS for s in self.smoothing)
        _check("smoothing", self.smoothing, windows, f"0 or more seconds of {' or '.join(SMOOTHERS)}")
        _check("missing", (self.missing,), self.missing in MISSING, " or ".join(MISSING))
        _check("tau", self.tau, all(0 <= tau <= MAX_TAU for tau in self.tau), f"numbers from 0 to {MAX_TAU:g}")

    @property
    def ratios(self) -> tuple[tuple[int, ...], ...]:
        """The ratios that are tried. The draw does not depend on the data, so the nested estimate stays unbiased."""
        if self.weights is not None:
            return self.weights
        return _positive_ratios(self.branches) + (_zero_ratios(self.branches) if self.zero else ())

    @property
    def taus(self) -> tuple[tuple[float, ...], ...]:
        """The exponents of all branches, [k] each."""
        if self.branches <= 2:
            return tuple(product(self.tau, repeat=self.branches))
        return tuple((tau,) * self.branches for tau in self.tau)

    def taus_of(self, weights: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
        """The exponents that differ in effect with these weights: for one or two branches, 0 for one of weight 0."""
        if self.branches > 2:
            return self.taus
        return tuple(taus for taus in self.taus if all(w or not tau for w, tau in zip(weights, taus, strict=True)))

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, the simplest first, so that the first of several best ones is the simplest.

        The order is by the number of departures from equal weights, no smoothing and no correction; then by the sum of
        tau, the window, mean before median, and the weights.
        """
        pairs = product(self.ratios, self.smoothing)
        every = [Candidate(weights, smoothing, tau) for weights, smoothing in pairs for tau in self.taus_of(weights)]
        return tuple(sorted(every, key=_complexity))

    def restricted_to(self, outputs: Outputs) -> Self:
        """This space without axes that have no effect on these outputs: the ratio of one branch, and the correction of
        a uniform prior or of values and action units, which have none."""
        branches = len(outputs.branches)
        fitted = self if branches == self.branches else replace(self, branches=branches, weights=None)
        corrected = metric_of(outputs.task).distribution
        even = not corrected or all(np.ptp(source.prior) == 0 for source in outputs.branches.values())
        fitted = replace(fitted, weights=((1,) * branches,)) if len(outputs.branches_with_rows()) < 2 else fitted
        return replace(fitted, tau=(0.0,)) if even else fitted


def by_zeros(ratios: Sequence[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
    """The ratios in groups with weight 0 for the same branches."""
    groups: dict[tuple[bool, ...], list[tuple[int, ...]]] = {}
    for weights in ratios:
        groups.setdefault(tuple(weight > 0 for weight in weights), []).append(weights)
    return list(groups.values())


def neighbours(space: Space) -> list[list[int]]:
    """For each candidate its own index, and the indices of the candidates one step away on one axis.

    A step is to one of the nearest ratios, two for each branch but one; to the next window of the same smoother; or to
    the next exponent.
    """
    candidates = space.candidates()
    index = {candidate: number for number, candidate in enumerate(candidates)}
    ratio, window, tau = _nearest(space.ratios), _windows(space.smoothing), _exponents(space)
    return [
        [
            index[near]
            for near in (
                c,
                *(replace(c, weights=near) for near in ratio[c.weights]),
                *(replace(c, smoothing=near) for near in window[c.smoothing]),
                *(replace(c, tau=near) for near in tau[c.tau]),
            )
            if near in index
        ]
        for c in candidates
    ]


def _nearest(ratios: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For each ratio those whose normalised weights are nearest to its own."""
    fractions = np.array([np.divide(weights, sum(weights)) for weights in ratios])
    distance = np.abs(fractions[:, None] - fractions).sum(axis=2)
    order = np.argsort(distance, axis=1, kind="stable")[:, 1 : 1 + 2 * (fractions.shape[1] - 1)]
    return {weights: [ratios[index] for index in near] for weights, near in zip(ratios, order, strict=True)}


def _windows(smoothing: Sequence[Smoothing]) -> dict[Smoothing, list[Smoothing]]:
    near: dict[Smoothing, list[Smoothing]] = {s: [] for s in smoothing}
    for smoother in SMOOTHERS:  # no smoothing is the narrowest window of both smoothers
        axis = sorted(s for s in near if s.smoother == smoother or s == NO_SMOOTHING)
        for one, other in pairwise(axis):
            near[one].append(other)
            near[other].append(one)
    return near


def _exponents(space: Space) -> dict[tuple[float, ...], list[tuple[float, ...]]]:
    axis = {tau: index for index, tau in enumerate(sorted(space.tau))}

    def steps(one: tuple[float, ...], other: tuple[float, ...]) -> int:
        apart = [abs(axis[a] - axis[b]) for a, b in zip(one, other, strict=True)]
        return sum(apart) if space.branches <= 2 else max(apart)

    return {one: [other for other in space.taus if steps(one, other) == 1] for one in space.taus}


@cache
def _positive_ratios(branches: int) -> tuple[tuple[int, ...], ...]:
    """All ratios of that many branches; equal weights and a random draw of the others if there are too many."""
    every = ratios(branches) if branches <= 6 else _random_ratios(branches)
    if len(every) <= MOST_RATIOS:
        return every
    indices = np.random.default_rng(0).choice(len(every) - 1, MOST_RATIOS - 1, replace=False) + 1
    return (every[0], *(every[index] for index in sorted(indices)))


@cache
def _zero_ratios(branches: int) -> tuple[tuple[int, ...], ...]:
    """Ratios with a weight of 0: all of them for two and three branches; for more, equal weights of all but one, each
    branch alone, and a random draw."""
    if branches <= 3:
        return tuple(weights for weights in ratios(branches, least=0) if 0 in weights)
    every = {tuple(int(branch != other) for branch in range(branches)) for other in range(branches)}
    every |= {tuple(int(branch == other) for branch in range(branches)) for other in range(branches)}
    drawn = np.random.default_rng(0).integers(0, max(WEIGHTS) + 1, (MOST_RATIOS, branches))
    kept = [reduced(weights) for weights in drawn.tolist() if 0 in weights and any(weights)]
    return tuple(sorted(every | set(kept[: MOST_RATIOS // 2])))


def _random_ratios(branches: int) -> tuple[tuple[int, ...], ...]:
    """Random ratios of many branches, where listing all of them would take too long."""
    drawn = np.random.default_rng(0).integers(1, max(WEIGHTS) + 1, (4 * MOST_RATIOS, branches)).tolist()
    return ((1,) * branches, *sorted({reduced(weights) for weights in drawn} - {(1,) * branches}))


def _complexity(candidate: Candidate) -> tuple[object, ...]:
    weights, (seconds, smoother), tau = candidate.weights, candidate.smoothing, candidate.tau
    departures = (len(set(weights)) > 1) + (seconds > 0) + any(tau)
    return departures, sum(tau), seconds, smoother, sum(weights), max(weights) - min(weights), weights, tau


def _check(name: str, values: Iterable[object], holds: bool, expected: str) -> None:
    values = tuple(values)
    if not (values and holds):
        raise SettingsError(f"the search space's {name} cannot be used", found=str(values), expected=expected)


RATIOS_ONLY = Space(smoothing=(NO_SMOOTHING,), tau=(0.0,))
"""The search space of the paper: no smoothing and no correction."""
