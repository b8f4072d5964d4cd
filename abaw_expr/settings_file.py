"""Settings in YAML files: reading, writing, and the shipped recipes."""

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from abaw_expr.errors import SettingsError, unreadable
from abaw_expr.files import write_text
from abaw_expr.settings import BranchSettings, Settings, two_branches

RECIPES = Path(__file__).parent / "recipes"


def recipe(name: str) -> Path:
    """The path of a shipped settings file: `paper`, `modern` or `demo`."""
    return RECIPES / f"{name}.yaml"


def load_settings(path: Path) -> Settings:
    """Reads a YAML settings file; settings that it leaves out keep their defaults.

    `path` may also be the bare name of a shipped recipe. Raises SettingsError for a missing file, bad YAML, an unknown
    key, a value of the wrong type or out of its range.
    """
    import yaml

    if not path.is_file() and recipe(str(path)).exists():
        path = recipe(str(path))
    try:
        values = yaml.safe_load(path.read_text(encoding="utf-8-sig"))
    except OSError as problem:
        shipped = ", ".join(sorted(file.stem for file in RECIPES.glob("*.yaml")))
        raise unreadable(SettingsError, path, problem, f"Name a YAML file, or one of: {shipped}.") from problem
    except (yaml.YAMLError, ValueError, RecursionError) as problem:  # ValueError: of dates and numbers there are not
        raise SettingsError(f"is not YAML ({' '.join(str(problem).split())})", path=path) from problem
    return settings_from(values or {}, path)


def settings_from(values: Any, path: Path | None = None) -> Settings:
    """Settings from nested dictionaries; errors name `path`. Raises SettingsError as `load_settings` does."""
    from pydantic import TypeAdapter, ValidationError

    if not isinstance(values, dict):
        found, expected = type(values).__name__, "groups of settings, such as `model:`, with values in them"
        raise SettingsError("is not a settings file", path=path, found=found, expected=expected)

    try:
        return TypeAdapter(Settings).validate_python(_as_now(values))
    except ValidationError as problem:
        first = problem.errors()[0]
        key = ".".join(str(part) for part in first["loc"]) or "settings"
        unknown = first["type"] == "unexpected_keyword_argument"
        message = "is not a setting" if unknown else f"cannot be used: {first['msg'][0].lower()}{first['msg'][1:]}"
        remedy = _nearest(key) if unknown else None
        raise SettingsError(f"{key} {message}", path=path, found=first["input"], remedy=remedy) from problem
    except SettingsError as problem:
        raise SettingsError(problem.problem, path=path, found=problem.found, expected=problem.expected) from problem


def _as_now(values: dict[str, Any]) -> dict[str, Any]:
    """Settings of an earlier version, which had `model.branches`, `loss.m` and `loss.n`, as they are said now."""
    model, loss = ({**group} if isinstance(group := values.get(name), dict) else {} for name in ("model", "loss"))
    known = two_branches()
    names = model.pop("branches", None) or ([*known] if loss.keys() & {"m", "n"} else [])
    if "branches" in values or not (isinstance(names, list) and names and set(names) <= known.keys()):
        return values
    weights = {"audio": loss.pop("m", 1), "visual": loss.pop("n", 1)}
    branches = {name: {"encoder": known[name].encoder, "weight": weights[name]} for name in known if name in names}
    changed = {"model": model, "loss": loss}
    return values | {"branches": branches} | {name: group for name, group in changed.items() if name in values}


def _nearest(key: str) -> str:
    """What to do about an unknown setting."""
    known = [f"{group}.{name}" for group, part in asdict(Settings()).items() if isinstance(part, dict) for name in part]
    above = key.rpartition(".")[0]
    if above.startswith("branches."):
        known = [f"{above}.{part.name}" for part in fields(BranchSettings)]
    near = get_close_matches(key, known, n=1)
    return (f"Did you mean {near[0]}? " if near else "") + "`train --help` lists the settings."


def dump_settings(settings: Settings) -> dict[str, Any]:
    """The settings as nested plain values, ready for YAML or JSON."""
    return _plain(asdict(settings))


def flat_settings(settings: Settings) -> dict[str, Any]:
    """The settings as plain values by dotted name, such as `data.stride`."""
    return flattened(dump_settings(settings))


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested values by dotted name."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, dict) else {f"{prefix}{name}": value}
    return flat


def save_settings(settings: Settings, path: Path) -> None:
    """Writes the resolved settings as YAML, with every value."""
    import yaml

    write_text(path, yaml.safe_dump(dump_settings(settings), sort_keys=False))


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    assert not isinstance(value, float) or math.isfinite(value)
    return value
