"""What tuning chooses from: every combination of weights, smoothing and prior correction, the simplest first."""

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
"""More ratios than these, as four branches have, are not tried one and all: that many are drawn."""


class Smoothing(NamedTuple):
    """How each branch is smoothed."""

    seconds: float
    smoother: str = "mean"


NONE = Smoothing(0.0)
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
        """The decision that it stands for."""
        votes = zip(outputs.branches.items(), self.weights, self.tau, strict=True)
        branches = {name: Vote(source.prior, weight, tau) for (name, source), weight, tau in votes}
        return Decision(branches, self.smoothing.seconds, self.smoothing.smoother, task=outputs.task)


@dataclass(frozen=True)
class Space:
    """The axes of the search. Raises SettingsError for an empty axis or a value out of range."""

    branches: int = 2
    weights: tuple[tuple[int, ...], ...] | None = None
    """Ratios of the branches' weights, in lowest terms (None: all of them, or `MOST_RATIOS` where there are more)."""
    smoothing: tuple[Smoothing, ...] = (NONE, *MEANS, *MEDIANS)
    """Published gains peak at about 3 s; the windows are D."""
    tau: tuple[float, ...] = (0.0, 0.5, 1.0)
    """Exponents of the prior correction (D), of each of one or two branches; more branches share theirs."""
    missing: str = MISSING[0]
    """What smoothing makes of frames whose modality is missing, the same for all candidates."""
    zero: bool = False
    """Whether branches may also have weight 0, and so be left out."""

    def __post_init__(self) -> None:
        allowed = {0, *WEIGHTS} if self.zero else {*WEIGHTS}
        known = all(len(w) == self.branches and set(w) <= allowed and reduced(w) == w for w in self.ratios)
        least = min(allowed)
        _check("weights", self.ratios, known, f"whole numbers from {least} to 5 in lowest terms, one a branch")
        windows = all(s.seconds >= 0 and isfinite(s.seconds) and s.smoother in SMOOTHERS for s in self.smoothing)
        _check("smoothing", self.smoothing, windows, f"0 or more seconds of {' or '.join(SMOOTHERS)}")
        _check("missing", (self.missing,), self.missing in MISSING, " or ".join(MISSING))
        _check("tau", self.tau, all(0 <= tau <= MAX_TAU for tau in self.tau), f"numbers from 0 to {MAX_TAU:g}")

    @property
    def ratios(self) -> tuple[tuple[int, ...], ...]:
        """The ratios that are tried. Where they are drawn, the data have no part in it, so that the nested estimate
        stays honest."""
        if self.weights is not None:
            return self.weights
        return _drawn(self.branches) + (_left_out(self.branches) if self.zero else ())

    @property
    def taus(self) -> tuple[tuple[float, ...], ...]:
        """The exponents of all branches, [k] each."""
        if self.branches <= 2:
            return tuple(product(self.tau, repeat=self.branches))
        return tuple((tau,) * self.branches for tau in self.tau)

    def taus_of(self, weights: tuple[int, ...]) -> tuple[tuple[float, ...], ...]:
        """The exponents that make a difference with these weights: none of one branch alone that is left out."""
        if self.branches > 2:
            return self.taus
        return tuple(taus for taus in self.taus if all(w or not tau for w, tau in zip(weights, taus, strict=True)))

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, the simplest first, so that the first of the best is the simplest of the best.

        Simpler: fewer of the three depart from equal weights, no smoothing and no correction; then the smaller sum of
        tau, the shorter window, the mean before the median, the smaller weights.
        """
        pairs = product(self.ratios, self.smoothing)
        every = [Candidate(weights, smoothing, tau) for weights, smoothing in pairs for tau in self.taus_of(weights)]
        return tuple(sorted(every, key=_complexity))

    def fitting(self, outputs: Outputs) -> Self:
        """This space without what makes no difference: the ratio of one branch, the correction of an even prior or of
        what has none, values and action units."""
        branches = len(outputs.branches)
        fitted = self if branches == self.branches else replace(self, branches=branches, weights=None)
        corrected = metric_of(outputs.task).distribution
        even = not corrected or all(np.ptp(source.prior) == 0 for source in outputs.branches.values())
        fitted = replace(fitted, weights=((1,) * branches,)) if len(outputs.speaking()) < 2 else fitted
        return replace(fitted, tau=(0.0,)) if even else fitted


def neighbours(space: Space) -> list[list[int]]:
    """For each candidate the places of those a step away on one axis, and its own.

    A step: to one of the nearest ratios, two for each branch but one; to the next window of the same smoother; to the
    next exponent.
    """
    candidates = space.candidates()
    place = {candidate: number for number, candidate in enumerate(candidates)}
    ratio, window, tau = _nearest(space.ratios), _windows(space.smoothing), _exponents(space)
    return [
        [
            place[near]
            for near in (
                c,
                *(replace(c, weights=near) for near in ratio[c.weights]),
                *(replace(c, smoothing=near) for near in window[c.smoothing]),
                *(replace(c, tau=near) for near in tau[c.tau]),
            )
            if near in place
        ]
        for c in candidates
    ]


def _nearest(ratios: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[tuple[int, ...]]]:
    """For each ratio those whose shares of the vote are nearest to its own."""
    shares = np.array([np.divide(weights, sum(weights)) for weights in ratios])
    distance = np.abs(shares[:, None] - shares).sum(axis=2)
    order = np.argsort(distance, axis=1, kind="stable")[:, 1 : 1 + 2 * (shares.shape[1] - 1)]
    return {weights: [ratios[place] for place in near] for weights, near in zip(ratios, order, strict=True)}


def _windows(smoothing: Sequence[Smoothing]) -> dict[Smoothing, list[Smoothing]]:
    near: dict[Smoothing, list[Smoothing]] = {s: [] for s in smoothing}
    for smoother in SMOOTHERS:  # no smoothing is the narrowest window of both
        axis = sorted(s for s in near if s.smoother == smoother or s == NONE)
        for one, other in pairwise(axis):
            near[one].append(other)
            near[other].append(one)
    return near


def _exponents(space: Space) -> dict[tuple[float, ...], list[tuple[float, ...]]]:
    axis = {tau: place for place, tau in enumerate(sorted(space.tau))}

    def steps(one: tuple[float, ...], other: tuple[float, ...]) -> int:
        apart = [abs(axis[a] - axis[b]) for a, b in zip(one, other, strict=True)]
        return sum(apart) if space.branches <= 2 else max(apart)

    return {one: [other for other in space.taus if steps(one, other) == 1] for one in space.taus}


@cache
def _drawn(branches: int) -> tuple[tuple[int, ...], ...]:
    """All ratios of so many branches; equal weights and a draw of the others where there are too many."""
    every = ratios(branches) if branches <= 6 else _random(branches)
    if len(every) <= MOST_RATIOS:
        return every
    places = np.random.default_rng(0).choice(len(every) - 1, MOST_RATIOS - 1, replace=False) + 1
    return (every[0], *(every[place] for place in sorted(places)))


@cache
def _left_out(branches: int) -> tuple[tuple[int, ...], ...]:
    """Ratios that leave branches out: all of them of two and three branches; of more the equal weights of all but one,
    each alone, and a draw."""
    if branches <= 3:
        return tuple(weights for weights in ratios(branches, least=0) if 0 in weights)
    every = {tuple(int(branch != other) for branch in range(branches)) for other in range(branches)}
    every |= {tuple(int(branch == other) for branch in range(branches)) for other in range(branches)}
    drawn = np.random.default_rng(0).integers(0, max(WEIGHTS) + 1, (MOST_RATIOS, branches))
    kept = [reduced(weights) for weights in drawn.tolist() if 0 in weights and any(weights)]
    return tuple(sorted(every | set(kept[: MOST_RATIOS // 2])))


def _random(branches: int) -> tuple[tuple[int, ...], ...]:
    """Ratios of many branches, drawn: to list all of them would take long."""
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


RATIOS_ONLY = Space(smoothing=(NONE,), tau=(0.0,))
"""What the paper chooses: nothing smoothed, nothing corrected."""
