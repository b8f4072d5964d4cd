"""The file of a sweep: which settings it varies, and over what.

    optimiser.learning-rate: {low: 1.0e-4, high: 1.0e-2, log: true}
    model.dropout: {low: 0.0, high: 0.6, step: 0.1}
    optimiser.epochs: {low: 5, high: 20}
    data.balance: [0.0, 0.5, 1.0]
    branches.audio.temporal: [none, lstm]

A name is that of the setting's flag. A setting that is a whole number takes whole numbers.
"""

from collections.abc import Mapping
from difflib import get_close_matches
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from pydantic import BaseModel, ConfigDict, ValidationError

from abaw_expr.errors import SettingsError, unreadable
from abaw_expr.settings import Settings
from abaw_expr.settings_file import dump_settings, flat_settings, settings_from

SweepSpace = Mapping[str, BaseDistribution]
"""By the dotted name of the setting."""
Values = Mapping[str, Any]
"""A value of each setting of a space."""
_PLACE = ("compute.", "data.fold")
"""Settings that do not belong to a sweep: where it runs, and what it is validated on."""


class _Range(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False


def read_space(path: Path, base: Settings) -> SweepSpace:
    """Reads the file of a sweep of these settings.

    Raises SettingsError, which names the setting, for a file that is no such map, an unknown setting, a range that is
    none, and values that the setting cannot have.
    """
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        raise unreadable(SettingsError, path, problem) from problem
    except (yaml.YAMLError, ValueError, RecursionError) as problem:
        raise SettingsError(f"is not YAML ({' '.join(str(problem).split())})", path=path) from problem
    if not isinstance(values, dict) or not values:
        expected = "lines such as `model.dropout: {low: 0.0, high: 0.5}` or `data.balance: [0, 0.5]`"
        raise SettingsError("is not the space of a sweep", path=path, found=values, expected=expected)
    known, space = flat_settings(base), dict[str, BaseDistribution]()
    for written, value in values.items():
        name = str(written).replace("-", "_")
        if name not in known or name.startswith(_PLACE):
            near = get_close_matches(name, [one for one in known if not one.startswith(_PLACE)], n=1)
            remedy = f"Did you mean {near[0].replace('_', '-')}?" if near else "`train --help` lists the settings."
            raise SettingsError(f"{written} is not a setting that a sweep can vary", path=path, remedy=remedy)
        space[name] = _distribution(path, str(written), value, known[name])
    _check_ends(path, base, space)
    return space


def with_values(base: Settings, values: Values) -> Settings:
    """The settings with these values. Raises SettingsError where they cannot stand together."""
    nested = dump_settings(base)
    for name, value in values.items():
        *groups, last = name.split(".")
        group = nested
        for one in groups:
            group = group[one]
        group[last] = value
    return settings_from(nested)


def values_of(base: Settings, space: SweepSpace) -> Values | None:
    """The settings' own values; None where one of them does not lie in the space."""
    known = flat_settings(base)
    own = {name: known[name] for name in space}
    return own if all(_holds(distribution, own[name]) for name, distribution in space.items()) else None


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return distribution._contains(distribution.to_internal_repr(value))


def grid_of(space: SweepSpace) -> list[Values]:
    """Every combination of values. Raises SettingsError for a range without steps."""
    return [dict(zip(space, values, strict=True)) for values in product(*(_points(*one) for one in space.items()))]


def _points(name: str, distribution: BaseDistribution) -> list[Any]:
    """The values of one setting on a grid."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is None or distribution.log:
        expected = "a list of values, or a range with a step"
        raise SettingsError(f"{name.replace('_', '-')} has no values for a grid", expected=expected)
    count = int(np.floor((distribution.high - distribution.low) / distribution.step + 1e-9))
    return [distribution.low + number * distribution.step for number in range(count + 1)]


def _distribution(path: Path, name: str, value: Any, now: Any) -> BaseDistribution:
    if isinstance(value, list):
        plain = all(isinstance(one, bool | int | float | str) for one in value)
        if not plain or len(value) < 2 or len(set(map(str, value))) < len(value):
            expected = "two or more different numbers, words or true and false"
            raise SettingsError(f"{name} has no list of choices", path=path, found=value, expected=expected)
        return CategoricalDistribution(value)
    try:
        span = _Range.model_validate(value)
        if type(now) is int and not isinstance(now, bool):
            whole = [span.low, span.high, 1 if span.step is None else span.step]
            if any(one != int(one) for one in whole):
                raise SettingsError(f"{name} takes whole numbers", path=path, found=value)
            return IntDistribution(int(span.low), int(span.high), span.log, int(whole[2]))
        return FloatDistribution(float(span.low), float(span.high), span.log, span.step and float(span.step))
    except (ValidationError, ValueError, TypeError) as problem:
        reason = problem.errors()[0]["msg"] if isinstance(problem, ValidationError) else str(problem)
        expected = "{low: NUMBER, high: NUMBER}, with `log: true` or `step: NUMBER`, or a list of choices"
        raise SettingsError(
            f"{name} has no range ({' '.join(reason.split())})", path=path, found=value, expected=expected
        ) from problem


def _check_ends(path: Path, base: Settings, space: SweepSpace) -> None:
    """Raises SettingsError where a setting cannot have an end of its range, or a choice, whatever the others are."""
    ends = {name: _ends(distribution) for name, distribution in space.items()}
    for name, own in ends.items():
        others = [{}, *({other: of[place] for other, of in ends.items()} for place in (0, -1))]
        for value in own:
            _check_one(path, base, [beside | {name: value} for beside in others])


def _ends(distribution: BaseDistribution) -> list[Any]:
    """The first and the last value of a range; all choices."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return [distribution.low, distribution.high]


def _check_one(path: Path, base: Settings, ways: list[dict[str, Any]]) -> None:
    """Raises the SettingsError of the first of these values where none of them can stand."""
    problems = list[SettingsError]()
    for values in ways:
        try:
            with_values(base, values)
            return
        except SettingsError as problem:
            problems.append(problem)
    first = problems[0]
    raise SettingsError(first.problem, path=path, found=first.found, expected=first.expected) from first
