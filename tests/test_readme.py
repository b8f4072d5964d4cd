"""The documents: the commands that they show are the ones that work, and what they name is there."""

import re
import shlex
from collections.abc import Iterator
from dataclasses import fields
from functools import cache
from pathlib import Path

import pytest

from abaw_expr.commands.helping import arguments_of
from abaw_expr.commands.main import main
from abaw_expr.commands.parsing import HELP, expand, parse
from abaw_expr.commands.table import GROUPS, commands
from abaw_expr.settings import Settings
from tests.helpers.paths import ROOT

PACKAGES = ("abaw_expr", "tuning", "submissions")
FOLDERS = (*PACKAGES, "tests")
TOP = ROOT / "README.md"
DOCUMENTS = [TOP, *sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("README.md"))]
TEXTS = {path.relative_to(ROOT).as_posix(): path.read_text() for path in DOCUMENTS}
CODE = {path: path.read_text() for folder in FOLDERS for path in (ROOT / folder).rglob("*.py")}
_GROUP = f"(?:(?:{'|'.join(GROUPS)}) )?"
COMMAND = re.compile(
    rf"^    (?:(?:srun )?abaw-expr|torchrun .* -m abaw_expr --) (?P<name>{_GROUP}[a-z]+)(?P<arguments>.*)$", re.M
)
FLAG = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
LINK = re.compile(r"\]\((?!https?:)(?P<path>[^)#]*)#?(?P<anchor>[^)]*)\)")


KNOWN = commands(main)


def shown(name: str) -> list[tuple[str, list[str]]]:
    """The commands of a document, each with its arguments."""
    text = TEXTS[name].replace("\\\n", " ")
    return [(found["name"], shlex.split(found["arguments"], comments=True)) for found in COMMAND.finditer(text)]


COMMANDS = [(document, *command) for document in TEXTS for command in shown(document)]


@cache
def flags_of(name: str) -> frozenset[str]:
    """The flags of a command; of `import` also those that it has for embeddings."""
    makes = [KNOWN[name].make(words) for words in ([name], [name, "--embeddings"])]
    return frozenset(HELP).union(*(argument.names for made in makes for argument in arguments_of(made)))


def inline(name: str) -> Iterator[str]:
    """The code in the sentences and tables of a document."""
    unfenced = re.sub(r"^```.*?^```$", "", TEXTS[name], flags=re.M | re.S)
    lines = [line for line in unfenced.splitlines() if not line.startswith("    ")]
    yield from re.findall(r"`([^`]+)`", "\n".join(lines))


def test_ci_runs_the_commands_of_the_readme() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert f"    {lines[-1]}\n" in TEXTS["README.md"]
    assert lines[-2].replace(" -q", "") in TEXTS["README.md"]


def test_the_readme_is_a_map() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= 130
    way = ["prepare", "train", "predict", "tune", "score", "predict", "submit", "check", "ledger add"]
    assert [name for name, _ in shown("README.md")] == ["demo", *way]
    linked = {(ROOT / link["path"]).resolve() for link in LINK.finditer(TEXTS["README.md"])}
    assert not [path for path in DOCUMENTS[1:] if path.resolve() not in linked]


@pytest.mark.parametrize("document", TEXTS)
def test_sentences_fit_the_width(document: str) -> None:
    lines = TEXTS[document].splitlines()
    assert not [line for line in lines if len(line) > 120 and not line.startswith(("|", "    "))]
    assert document != "README.md" or max(map(len, lines)) <= 120


def folders_of_the_tree() -> set[str]:
    """The paths that the tree of the README names, by their indentation."""
    found, above = set(), list[str]()
    for indentation, name in re.findall(r"^    ( *)([\w/]+)/ ", TEXTS["README.md"], re.M):
        above = [*above[: len(indentation) // 2], name]
        found.add("/".join(above))
    return found


def test_the_tree_names_every_package() -> None:
    packages = {path.parent.relative_to(ROOT).as_posix() for path in CODE if path.name == "__init__.py"}
    tree = folders_of_the_tree()
    assert {name for name in packages if name.split("/")[0] in PACKAGES} | {"tests"} <= tree
    assert not [name for name in tree if not (ROOT / name).is_dir()]


def headings(path: Path) -> set[str]:
    """The anchors of a document's headings."""
    lines = re.findall(r"^#+ (.*)$", path.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", line.lower()).replace(" ", "-") for line in lines}


@pytest.mark.parametrize("document", TEXTS)
def test_links_lead_somewhere(document: str) -> None:
    for link in LINK.finditer(TEXTS[document]):
        target = (ROOT / document).parent / link["path"] if link["path"] else ROOT / document
        assert target.is_file(), link[0]
        assert not link["anchor"] or link["anchor"] in headings(target), link[0]


def test_every_command_is_shown() -> None:
    assert {name for _, name, _ in COMMANDS} == KNOWN.keys()


@pytest.mark.parametrize(("document", "name", "words"), COMMANDS)
def test_commands_can_be_read(document: str, name: str, words: list[str]) -> None:
    assert callable(parse(name, KNOWN[name], words))


@pytest.mark.parametrize("document", TEXTS)
def test_flags_in_sentences_exist(document: str) -> None:
    """Those of the command that is named before them; alone, of any command, or of a benchmark."""
    benchmarks = {flag for path, text in CODE.items() if "benchmarks" in path.parts for flag in FLAG.findall(text)}
    known = benchmarks.union(*map(flags_of, KNOWN), {"--debug", "--version"})
    for code in inline(document):
        flags = set(FLAG.findall(code))
        name = next((name for name in KNOWN if code.startswith(f"{name} ")), None)
        assert flags <= (flags_of(name) if name else known), code


@pytest.mark.parametrize("document", TEXTS)
def test_what_is_named_is_there(document: str) -> None:
    """Settings by their dotted names, modules and folders of the packages, and constants."""
    groups = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    for code in inline(document):
        if (setting := re.fullmatch(r"(\w+)\.(\w+)", code)) and setting[1] in groups:
            assert hasattr(groups[setting[1]], setting[2]), code
        if re.fullmatch(r"[\w./-]+\.py", code):
            assert (ROOT / code).is_file() or ((ROOT / document).parent / code).is_file(), code
        if code.startswith(tuple(f"{folder}/" for folder in FOLDERS)):
            assert (ROOT / code).exists(), code
        if re.fullmatch(r"\w+(\.\w+)+", code) and code.startswith(tuple(f"{folder}." for folder in FOLDERS)):
            assert ROOT.joinpath(*code.split(".")).with_suffix(".py").is_file(), code
        if re.fullmatch(r"[A-Z][A-Z_]{3,}", code):
            assert any(re.search(rf"^{code}\b.* = ", text, re.M) for text in CODE.values()), code


@pytest.mark.parametrize("document", TEXTS)
def test_modules_that_are_run_are_there(document: str) -> None:
    for module in re.findall(r"python -m ((?:abaw_expr|tests)[\w.]*)", TEXTS[document]):
        path = ROOT.joinpath(*module.strip(".").split("."))
        assert path.is_dir() or path.with_suffix(".py").is_file(), module


def test_every_benchmark_is_named() -> None:
    """The table of benchmarks has every script of the folder that runs by hand."""
    scripts = {path.stem for path, text in CODE.items() if path.parent.name == "benchmarks" and "__main__" in text}
    assert scripts <= set(inline("tests/benchmarks/README.md"))


def test_a_store_that_is_trained_alone_is_prepared_with_validation_subjects() -> None:
    """`train` is validated on its first store, so the lines that prepare it leave --val-fraction as it is."""
    lines = [(name, expand(name, KNOWN[name], words)) for _, name, words in COMMANDS if name in ("train", "prepare")]
    store_of = [(name, words[words.index("--store") + 1], " ".join(words)) for name, words in lines]
    first = {store for name, store, _ in store_of if name == "train"}
    assert {"store", "ravdess"} <= first & {store for name, store, _ in store_of if name == "prepare"}
    assert not [line for name, store, line in store_of if store in first and "--val-fraction 0" in line]
