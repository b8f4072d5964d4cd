"""Arguments that several commands take, and what is asked of their values."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from abaw_expr.errors import UserError
from abaw_expr.settings import Settings, load_settings

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
    parser.add_argument("--resume", action="store_true")
    known, _ = parser.parse_known_args(arguments)
    if known.settings is None and known.resume and known.run and (known.run / "settings.yaml").exists():
        return load_settings(known.run / "settings.yaml")
    return load_settings(known.settings or DEFAULT_RECIPE)


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
