"""Arguments that several commands take, and what is asked of their values."""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import tyro

from abaw_expr.errors import UserError
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.task import TASKS

DEFAULT_RECIPE = Path("modern")
Flag = Annotated[bool, tyro.conf.FlagCreatePairsOff]
Json = Annotated[bool, tyro.conf.FlagCreatePairsOff, tyro.conf.arg(name="json")]
Predictions = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="PREDICTIONS")]
Source = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
Stores = Annotated[tuple[str, ...], tyro.conf.arg(metavar="STORE [STORE=FRACTION ...]")]
Tables = Annotated[tuple[Path, ...], tyro.conf.arg(metavar="[NAME=]FILE [[NAME=]FILE ...]")]


def files_of(outputs: Sequence[Path]) -> list[Path]:
    """The files that `[NAME=]FILE` flags name."""
    from abaw_expr.outputs.joining import split_name

    return [split_name(file)[1] for file in outputs]


def base_settings(arguments: Sequence[str]) -> Settings:
    """The settings that command-line overrides start from: the named file's, or those of the run to resume."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--settings", nargs="?", type=Path)  # tyro reports a missing value
    parser.add_argument("--run", nargs="?", type=Path)
    parser.add_argument("--task", nargs="?")
    parser.add_argument("--branches", nargs="*", default=[])
    parser.add_argument("--resume", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    if known.settings is None and known.resume and known.run and (known.run / "settings.yaml").exists():
        settings = load_settings(known.run / "settings.yaml")
    else:
        of_task = Path(known.task) if known.task in TASKS and recipe(known.task).exists() else DEFAULT_RECIPE
        settings = load_settings(known.settings or of_task)
    return settings.only(known.branches) if known.branches else settings


def at_ratio(settings: Settings, path: Path) -> Settings:
    """The settings with the branches' weights that a decision chose. Raises UserError where it has other branches."""
    from abaw_expr.outputs.decision import Decision

    weights = {name: vote.weight for name, vote in Decision.load(path, settings.task_of).branches.items()}
    if weights.keys() != settings.branches.keys() or not all(weights.values()):
        found = ", ".join(f"{name} {weight}" for name, weight in weights.items())
        expected = f"a weight above 0 of {', '.join(settings.branches)}"
        remedy = "Name the branches that have a weight by --branches."
        raise UserError(f"{path}: its ratio cannot be trained", found=found, expected=expected, remedy=remedy)
    branches = {name: replace(branch, weight=weights[name]) for name, branch in settings.branches.items()}
    return replace(settings, branches=branches)


def require(holds: object, flag: str, found: object, expected: str) -> None:
    """Raises UserError for a flag whose value cannot be used."""
    if not holds:
        raise UserError(f"--{flag} cannot be used", found=found, expected=expected)


def require_counts(least: int, **counts: int) -> None:
    """Raises UserError for flags below a count."""
    for flag, value in counts.items():
        require(value >= least, flag, value, f"a whole number, at least {least}")


def require_seconds(flag: str, seconds: float) -> None:
    """Raises UserError for a flag that is no time: below 0, or without end."""
    require(0 <= seconds < float("inf"), flag, seconds, "seconds, 0 or more")


def require_classes(settings: Settings, command: str) -> None:
    """Raises UserError where a command that is about classes is asked for another task."""
    if not settings.task_of.one_class:
        raise UserError(f"{command} is for classes", found=f"task {settings.task}", expected="expr")
