"""The help of a command, out of the parameters and the docstring of its function.

tyro reads the arguments; what it would show breaks paragraphs where the source does, and does not know leading words.
"""

import argparse
import ast
import dataclasses
import inspect
import re
import shutil
import textwrap
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import tyro

ARGUMENTS = "\n\nArgs:\n"
NAMES = {Path: "PATH", int: "INT", float: "NUMBER", str: "TEXT"}
"""What stands for a value of these types."""


@dataclasses.dataclass(frozen=True)
class Argument:
    """An argument of a command, as its help shows it."""

    names: tuple[str, ...]
    """Its flags; none where it is known by its place."""
    metavar: str | None
    """What stands for its value; None: it takes none."""
    text: str
    default: object
    """`inspect.Parameter.empty` where it must be given."""
    section: str
    """The group of settings that it is of, such as `data`; "" for none."""


def arguments_of(function: Callable[..., object]) -> list[Argument]:
    """The arguments of a command's function; a dataclass among its parameters stands for its fields, a dictionary
    of dataclasses for the entries that it has by default."""
    texts = _texts_of_parameters(function)
    hints = get_type_hints(function, include_extras=True)
    parameters = inspect.signature(function).parameters.items()
    return [
        argument
        for name, parameter in parameters
        for argument in _arguments(name, hints[name], parameter.default, texts.get(name, ""), "")
    ]


def help_of(function: Callable[..., object], usage: str, closing: str = "") -> str:
    """The help of a command, as wide as the terminal; `closing` ends its description."""
    width = shutil.get_terminal_size().columns
    paragraphs = (inspect.getdoc(function) or "").partition(ARGUMENTS)[0].split("\n\n")
    description = [_wrapped(text, width) for text in [*paragraphs, closing] if text]
    parser = argparse.ArgumentParser(
        usage=usage,
        description="\n\n".join(description),
        formatter_class=_Formatter,
        add_help=False,
    )
    sections = {"": parser.add_argument_group("arguments")} | {
        name: parser.add_argument_group(name, _wrapped(text, width - 2)) for name, text in _sections(function)
    }
    for argument in arguments_of(function):
        text = (argument.text + _hint(argument)).replace("%", "%%")
        group = sections[argument.section]
        if argument.names and argument.metavar is None:
            group.add_argument(*argument.names, action="store_true", help=text)
        else:
            group.add_argument(*argument.names or ["_"], metavar=argument.metavar, help=text)
    return parser.format_help().rstrip()


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Breaks no line within a word, a name or a path."""

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(text, width, break_on_hyphens=False, break_long_words=False)


def _sections(function: Callable[..., object]) -> Iterator[tuple[str, str]]:
    for hint in get_type_hints(function).values():
        if dataclasses.is_dataclass(hint):
            for name, kind in get_type_hints(hint).items():
                inner = get_args(kind)[1] if get_origin(kind) is dict else kind
                if dataclasses.is_dataclass(inner):
                    yield name, inspect.getdoc(inner) or ""


def _arguments(name: str, hint: Any, default: object, text: str, prefix: str) -> Iterator[Argument]:
    """The arguments of a parameter or of a field of settings, which `prefix` stands before."""
    base, *marks = get_args(hint) if get_origin(hint) is Annotated else (hint,)
    renamed = [mark.name for mark in marks if getattr(mark, "name", None) is not None]
    name = (renamed[0] if renamed else name).replace("_", "-")
    if dataclasses.is_dataclass(base):
        below = f"{prefix}{name}." if name else prefix
        inner, texts = get_type_hints(base, include_extras=True), _texts_of_fields(base)
        for field in dataclasses.fields(base):
            value = getattr(default, field.name)
            yield from _arguments(field.name, inner[field.name], value, texts.get(field.name, ""), below)
        return
    if get_origin(base) is dict:
        for key, value in dict(default).items():  # type: ignore[call-overload]
            yield from _arguments(key, get_args(base)[1], value, "", f"{prefix}{name}.")
        return
    aliases = [alias for mark in marks for alias in getattr(mark, "aliases", None) or ()]
    metavars = [mark.metavar for mark in marks if getattr(mark, "metavar", None)]
    flags = [*aliases, f"--{prefix}{name}"]
    if base is bool and tyro.conf.FlagCreatePairsOff not in marks:
        flags.append(f"--{prefix}no-{name}")
    if tyro.conf.Positional in marks:
        flags = []
    metavar = metavars[0] if metavars else _metavar(base)
    yield Argument(tuple(flags), metavar, text, default, prefix.partition(".")[0])


def _metavar(hint: Any) -> str | None:
    """What stands for a value of a type; None for a switch."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, UnionType):
        return _metavar(next(kind for kind in inner if kind is not NoneType))
    if origin is tuple:
        return f"{_metavar(inner[0])} ..."
    if origin is Literal:
        return f"{{{','.join(map(str, inner))}}}"
    return None if hint is bool else NAMES[hint]


def _hint(argument: Argument) -> str:
    """What an argument's help ends with: whether it is required, or its default where that says something."""
    default = argument.default
    if default is inspect.Parameter.empty:
        return " (required)" if argument.names else ""
    if default in (None, (), "") or (argument.metavar is None and len(argument.names) == 1):
        return ""
    if isinstance(default, bool):
        return f" (default: {'on' if default else 'off'})"
    return f" (default: {' '.join(map(str, default)) if isinstance(default, tuple) else default})"


def _texts_of_parameters(function: Callable[..., object]) -> dict[str, str]:
    """What a docstring says of the parameters."""
    lines = (inspect.getdoc(function) or "").partition(ARGUMENTS)[2]
    return {name: " ".join(text.split()) for name, text in re.findall(r"^ {4}(\w+): (.*(?:\n {8}.*)*)", lines, re.M)}


def _texts_of_fields(cls: Any) -> dict[str, str]:
    """The docstrings under the fields of a dataclass."""
    body = ast.parse(textwrap.dedent(inspect.getsource(cls))).body[0]
    assert isinstance(body, ast.ClassDef)
    texts = {}
    for field, below in pairwise(body.body):
        if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr) and isinstance(field.target, ast.Name):
            texts[field.target.id] = " ".join(ast.literal_eval(below.value).split())
    return texts


def _wrapped(text: str, width: int) -> str:
    """A paragraph in lines of a width; an example, which is indented, as it is."""
    return text if text.startswith("  ") else textwrap.fill(text, width, break_on_hyphens=False)
