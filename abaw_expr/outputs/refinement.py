"""What a decision may do beside weights, smoothing and prior correction, where it is shown to pay.

Shapes: T frames of one video, C numbers of a row.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import isfinite
from typing import Any, Self

import numpy as np

from abaw_expr.errors import DecisionError
from abaw_expr.tasks.metric import Rows
from abaw_expr.tasks.task import Task

LARGEST = 10.0
"""The largest temperature and factor."""


@dataclass(frozen=True)
class Refinement:
    """Temperatures, a gate, or factors of classes. Raises DecisionError for a value out of range."""

    temperatures: Mapping[str, float] = field(default_factory=dict)
    """By branch: above 1 its probabilities are flatter, below 1 sharper (temperature scaling, Guo et al., 2017)."""
    gate: tuple[str, float] | None = None
    """A branch and a probability: where its most probable class has at least that, it decides alone."""
    factors: tuple[float, ...] | None = None
    """[C], by which the fused probabilities of classes are multiplied: what a threshold for each class is."""

    def __post_init__(self) -> None:
        for name, temperature in self.temperatures.items():
            _require(_is_factor(temperature), f"temperature of {name}", temperature, f"above 0, at most {LARGEST:g}")
        if self.gate is not None:
            branch, confidence = self.gate
            holds = isinstance(branch, str) and isinstance(confidence, int | float) and 0 < confidence <= 1
            _require(holds, "gate", self.gate, "a branch and a probability")
        if self.factors is not None:
            _require(all(map(_is_factor, self.factors)), "factors", self.factors, f"above 0, at most {LARGEST:g}")

    @property
    def branches(self) -> set[str]:
        """The branches that it names."""
        return {*self.temperatures, *((self.gate[0],) if self.gate else ())}

    def check(self, task: Task, branches: Mapping[str, object]) -> None:
        """Raises DecisionError where it does not fit a task and the branches of a decision."""
        _require(self.branches <= set(branches), "branches", sorted(self.branches), f"some of {', '.join(branches)}")
        _require(task.kind != "values" or self == NO_REFINEMENT, "refinement", self, "none, as values have none")
        of_classes = self.gate is None and self.factors is None
        _require(task.one_class or of_classes, "refinement", self, "temperatures alone, as units are no classes")
        length = len(self.factors or task.columns)
        _require(length == task.n_columns, "factors", length, f"{task.n_columns}, one for each class")

    def sharpened(self, branch: str, rows: Rows, task: Task) -> Rows:
        """A branch's rows at its temperature, [T, C]: of classes p^(1/t), normalised; of units each logit over t."""
        temperature = self.temperatures.get(branch, 1.0)
        if temperature == 1.0:
            return rows
        power = np.clip(rows, 0, 1) ** (1 / temperature)
        rest = (
            power.sum(axis=1, keepdims=True) if task.one_class else power + np.clip(1 - rows, 0, 1) ** (1 / temperature)
        )
        return power / rest

    def gated(self, fused: Rows, rows: Mapping[str, Rows]) -> Rows:
        """The fused rows, with those of the gate's branch where it is sure: [T, C]."""
        if self.gate is None:
            return fused
        branch, confidence = self.gate
        sure = rows[branch].max(axis=1) >= confidence  # False where the row is missing, NaN
        return np.where(sure[:, None], rows[branch].astype(fused.dtype), fused)

    def weighed(self, fused: Rows) -> Rows:
        """Rows of classes multiplied by their factors, normalised: [T, C]."""
        if self.factors is None:
            return fused
        rows = fused * np.asarray(self.factors)
        return rows / rows.sum(axis=1, keepdims=True)

    def __str__(self) -> str:
        parts = [f"temperature {name} {value:g}" for name, value in self.temperatures.items()]
        parts += [f"{self.gate[0]} alone from {self.gate[1]:g}"] if self.gate else []
        parts += [f"factors {' '.join(f'{factor:g}' for factor in self.factors)}"] if self.factors else []
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """What is not as by default."""
        found = {"temperatures": dict(self.temperatures), "gate": self.gate, "factors": self.factors}
        return {name: value for name, value in found.items() if value}

    @classmethod
    def from_json(cls, value: Any) -> Self:
        """Raises DecisionError where it is none."""
        known = {"temperatures", "gate", "factors"}
        _require(isinstance(value, dict) and set(value) <= known, "refinement", value, f"some of {', '.join(known)}")
        gate, factors = value.get("gate"), value.get("factors")
        return cls(value.get("temperatures", {}), gate and tuple(gate), factors and tuple(factors))


NO_REFINEMENT = Refinement()


def _is_factor(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value) and 0 < value <= LARGEST


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise DecisionError(f"{name} of the decision cannot be used", found=found, expected=expected)
