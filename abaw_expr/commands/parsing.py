"""Arguments -> the call of a command: leading words, helps, and errors that name what was meant."""

import difflib
import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stderr
from dataclasses import dataclass, field
from io import StringIO
from typing import Any

import tyro

from abaw_expr.commands.helping import arguments_of, help_of
from abaw_expr.errors import UserError

PROGRAM = "abaw-expr"
HELP = ("-h", "--help")
MANY = "..."
SYNONYMS = {
    "batch": ("--optimiser.batch-size",),
    "bs": ("--optimiser.batch-size", "--batch"),
    "checkpoint": ("--initial-weights",),
    "ckpt": ("--checkpoint", "--initial-weights"),
    "config": ("--settings",),
    "device": ("--compute.accelerator", "--accelerator"),
    "ema": ("--optimiser.ema-decay",),
    "gpu": ("--compute.accelerator", "--accelerator"),
    "gpus": ("--compute.devices",),
    "jobs": ("--compute.workers", "--workers"),
    "lr": ("--optimiser.learning-rate",),
    "num-workers": ("--compute.workers", "--workers"),
    "o": ("--out", "--run", "--store"),
    "out": ("--run", "--store"),
    "output": ("--out", "--run", "--store"),
    "pretrained": ("--initial-weights",),
    "wd": ("--optimiser.weight-decay",),
}
"""Words of the field, and the flags that are meant; of these the first that a command has."""


@dataclass(frozen=True)
class Command:
    """A command of the command line."""

    line: str
    """What it does, in the overview."""
    make: Callable[[Sequence[str]], Callable[..., int]]
    """Gives the function whose parameters are the command's flags, for these arguments."""
    usage: str = ""
    """Its leading words and the flags that it needs, as its help shows them."""
    leading: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """The flags that leading words stand for, by a flag that is given too, or under "" without it; `--flag...` takes
    all words that are left."""


def parse(name: str, command: Command, words: Sequence[str]) -> Callable[[], int | None]:
    """Reads a command's arguments and returns its call, or what shows its help.

    Raises UserError for leading words and flags that the command does not have, and SystemExit where tyro has told what
    else is wrong.
    """
    asked = any(word in HELP for word in words)
    given = list(words) if asked else expand(name, command, words)
    function = command.make([*name.split(), *given])
    if asked:
        return functools.partial(print, _help(name, command, function))
    try:
        with redirect_stderr(StringIO()) as told:
            call: Callable[[], int] = tyro.cli(_deferred(function), prog=f"{PROGRAM} {name}", args=given)
    except SystemExit:
        _refuse_unknown(name, given, [flag for argument in arguments_of(function) for flag in argument.names])
        sys.stderr.write(told.getvalue())
        raise
    return call


def expand(name: str, command: Command, words: Sequence[str]) -> list[str]:
    """The arguments with a flag before each leading word.

    Raises UserError where there are more words than flags, or a flag is given as well.
    """
    count = next((place for place, word in enumerate(words) if word.startswith("-")), len(words))
    leading, rest = list(words[:count]), list(words[count:])
    if not leading or not command.leading:
        return list(words)
    given = {_plain(word) for word in rest if word.startswith("--")}
    flags = next(flags for beside, flags in command.leading.items() if not beside or beside in given)
    expanded: list[str] = []
    for flag in flags:
        taken = leading if flag.endswith(MANY) else leading[:1]
        leading = leading[len(taken) :]
        expanded += [flag.removesuffix(MANY), *taken] if taken else []
    usage = f"`{PROGRAM} {name} {command.usage}`"
    if leading:
        found = " ".join(words[:count])
        remedy = f"`{PROGRAM} {name} --help` shows all that it takes."
        most = f"{len(flags)} word{'s' * (len(flags) > 1)}"
        raise UserError(f"{name} takes {most} before its flags", found=found, expected=usage, remedy=remedy)
    if twice := [word for word in expanded if word in given]:
        raise UserError(
            f"{twice[0]} is given twice: before the flags and as one", found=" ".join(words), expected=usage
        )
    return [*expanded, *rest]


def nearest(flag: str, known: Sequence[str]) -> str | None:
    """The flag that was probably meant; None where none is like it."""
    word = _plain(flag).lstrip("-")
    by_end = {other.lstrip("-").rpartition(".")[2]: other for other in reversed(known)}
    if word in by_end:
        return by_end[word]
    if meant := [other for other in SYNONYMS.get(word, ()) if other in known]:
        return meant[0]
    by_name = by_end | {other.lstrip("-"): other for other in known}
    close = difflib.get_close_matches(word, by_name, n=1, cutoff=0.7)
    return by_name[close[0]] if close else None


def _help(name: str, command: Command, function: Callable[..., int]) -> str:
    usage = " ".join(filter(None, (PROGRAM, name, command.usage, "[OPTIONS]")))
    named = {
        beside: " and ".join(flag.removesuffix(MANY) for flag in flags) for beside, flags in command.leading.items()
    }
    closing = f"Words before the first flag stand for {named.pop('')}" if named else ""
    others = "".join(f", with {beside} for {flags}" for beside, flags in named.items())
    return help_of(function, usage, f"{closing}{others}." if closing else "")


def _deferred(function: Callable[..., int]) -> Callable[..., Callable[[], int]]:
    """A function of the same parameters that returns the call instead of making it."""

    @functools.wraps(function)
    def later(*arguments: Any, **named: Any) -> Callable[[], int]:
        return functools.partial(function, *arguments, **named)

    return later


def _refuse_unknown(name: str, words: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError where a word is a flag that the command does not have."""
    unknown = [word for word in words if re.match(r"--\w|-[A-Za-z](=|$)", word) and _plain(word) not in known]
    if not unknown:
        return
    told = []
    for word in dict.fromkeys(_plain(word) for word in unknown):
        meant = nearest(word, known)
        told.append(f"{word} (did you mean `{meant}`?)" if meant else word)
    raise UserError(f"{name} has no flag {', '.join(told)}", remedy=f"`{PROGRAM} {name} --help` lists its flags.")


def _plain(word: str) -> str:
    """A flag without its value, spelt with hyphens."""
    return word.partition("=")[0].replace("_", "-")
