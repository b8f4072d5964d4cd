"""What tuning chooses from: every combination of ratio, smoothing window and prior correction, the simplest first."""

from dataclasses import dataclass, replace
from itertools import product
from math import isfinite
from typing import Self

import numpy as np

from abaw_expr.errors import SettingsError
from abaw_expr.fusion import MAX_TAU, RATIOS
from abaw_expr.outputs import Outputs
from abaw_expr.tasks import BRANCHES


@dataclass(frozen=True)
class Candidate:
    """One setting of everything after the network; the fields are those of `Decision`."""

    m: int
    n: int
    smoothing: float
    tau: float


@dataclass(frozen=True)
class Space:
    """The axes of the search. Raises SettingsError for an empty axis or a value out of range."""

    ratios: tuple[tuple[int, int], ...] = RATIOS
    """Shares of sound and picture (m, n), in lowest terms."""
    smoothing: tuple[float, ...] = (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
    """Widths of the smoothing window in seconds (D); published gains peak at about 3 s."""
    tau: tuple[float, ...] = (0.0, 0.25, 0.5, 0.75, 1.0)
    """Exponents of the prior correction (D)."""

    def __post_init__(self) -> None:
        _check("ratios", self.ratios, set(self.ratios) <= set(RATIOS), "pairs of 1 to 5 in lowest terms")
        _check("smoothing", self.smoothing, all(s >= 0 and isfinite(s) for s in self.smoothing), "0 or more seconds")
        _check("tau", self.tau, all(0 <= tau <= MAX_TAU for tau in self.tau), f"numbers from 0 to {MAX_TAU:g}")

    def candidates(self) -> tuple[Candidate, ...]:
        """All candidates, the simplest first, so that the first of the best is the simplest of the best.

        Simpler: fewer of the three depart from 1:1, no smoothing and no correction; then the smaller tau, the shorter
        window, the earlier of `RATIOS`.
        """
        axes = product(self.ratios, self.smoothing, self.tau)
        every = [Candidate(*ratio, smoothing, tau) for ratio, smoothing, tau in axes]
        return tuple(sorted(every, key=_complexity))

    def fitting(self, outputs: Outputs) -> Self:
        """This space without what makes no difference: a run with one branch only has no ratio to choose."""
        both = all(np.isfinite(outputs.branch(name)).any() for name in BRANCHES)
        return self if both else replace(self, ratios=((1, 1),))


def _complexity(candidate: Candidate) -> tuple[float, ...]:
    ratio = RATIOS.index((candidate.m, candidate.n))
    departures = sum(value > 0 for value in (ratio, candidate.smoothing, candidate.tau))
    return departures, candidate.tau, candidate.smoothing, ratio


def _check(name: str, values: tuple[object, ...], holds: bool, expected: str) -> None:
    if not (values and holds):
        raise SettingsError(f"the search space's {name} cannot be used", found=str(values), expected=expected)
