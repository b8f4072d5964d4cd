"""The rules that keep the code easy to change: who imports whom, what is loaded when, how long things may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("abaw_expr", "tuning", "submissions")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]

LAYERS = (
    ("abaw_expr.tasks", "abaw_expr.errors", "abaw_expr.version", "abaw_expr.files", "abaw_expr.spellings"),
    ("abaw_expr.scoring", "abaw_expr.concordance", "abaw_expr.units", "abaw_expr.kinds"),
    ("abaw_expr.settings", "abaw_expr.outputs", "abaw_expr.comparison", "abaw_expr.importing", "abaw_expr.fusion"),
    ("abaw_expr.data",),
    ("abaw_expr.faces",),
    ("abaw_expr.models", "abaw_expr.losses"),
    ("abaw_expr.training",),
    ("abaw_expr.inference",),
    ("abaw_expr.answer",),
    ("tuning", "submissions"),
    (
        "abaw_expr.console",
        "abaw_expr.demo",
        "abaw_expr.cli",
        "abaw_expr.cli_bundle",
        "abaw_expr.cli_convert",
        "abaw_expr.cli_faces",
        "abaw_expr.cli_import",
        "abaw_expr.cli_ledger",
        "abaw_expr.cli_search",
        "abaw_expr.cli_submissions",
        "abaw_expr.cli_training",
        "abaw_expr.__main__",
    ),
)
"""From the ground up: a module imports from its own layer and those before it."""

FRONT_DOOR = tuple(name for name in LAYERS[-1] if name.startswith("abaw_expr.cli"))
NETWORKS = ("features", "heads", "refit")
"""The modules of tuning that run networks."""
WITHOUT_TORCH = (
    *FRONT_DOOR,
    "abaw_expr.console",
    "abaw_expr.tasks",
    "abaw_expr.errors",
    "abaw_expr.files",
    "abaw_expr.settings",
    "abaw_expr.scoring",
    "abaw_expr.kinds",
    "abaw_expr.outputs",
    "abaw_expr.importing",
    "abaw_expr.fusion",
    "abaw_expr.data.release",
    "abaw_expr.data.clocks",
    "abaw_expr.data.sources",
    "abaw_expr.data.mixture",
    *(f"abaw_expr.data.datasets.{path.stem}" for path in MODULES if path.parent.name == "datasets"),
    *(f"tuning.{path.stem}" for path in MODULES if path.parent.name == "tuning" and path.stem not in NETWORKS),
    *(f"submissions.{path.stem}" for path in MODULES if path.parent.name == "submissions"),
)


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts)


def imports(path: Path) -> Iterator[str]:
    """Every module of ours that a file imports, in functions too."""
    known = {module_name(other) for other in FILES}
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: a relative import"
            # `from package import module` imports the module; `from module import name` the module that defines it.
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else str(node.module) for name in below]
        else:
            continue
        yield from (name for name in names if name.split(".")[0] in PACKAGES)


IMPORTS = {module_name(path): sorted(set(imports(path))) for path in MODULES}


def layer(name: str) -> int:
    places = [i for i, layer in enumerate(LAYERS) for owner in layer if name == owner or name.startswith(f"{owner}.")]
    assert len(places) == 1, f"{name} is in no layer: say in design and test where it belongs"
    return places[0]


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_point_one_way(name: str) -> None:
    back = [other for other in IMPORTS[name] if layer(other) > layer(name)]
    assert not back, f"{name} imports {back}, which stand above it"


def test_modules_do_not_import_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, with the circle


def test_tuning_and_submissions_meet_in_the_front_door_only() -> None:
    for name, others in IMPORTS.items():
        foreign = {other.split(".")[0] for other in others} & {"tuning", "submissions"} - {name.split(".")[0]}
        assert not foreign or name in FRONT_DOOR, f"{name} imports {foreign}"


def test_submissions_know_little_of_the_rest() -> None:
    allowed = {f"abaw_expr.{name}" for name in ("tasks", "errors", "files", "outputs", "fusion")}
    for name, others in IMPORTS.items():
        if name.startswith("submissions."):
            assert {other for other in others if not other.startswith("submissions.")} <= allowed, name


def test_the_checker_shares_no_code_with_what_it_checks() -> None:
    for name, others in IMPORTS.items():
        if name.startswith("submissions.checker"):
            own = {other for other in others if other.startswith("submissions.")}
            # The last two know nothing of reading and writing.
            foreign = {other for other in own if not other.startswith("submissions.checker")}
            assert foreign <= {"submissions.faults", "submissions.formats"}, name


def test_names_come_from_the_module_that_defines_them() -> None:
    for path in FILES:
        if path.name == "__init__.py":
            assert path.read_text() == "", f"{path} is not empty"
    for path in MODULES:
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and str(node.module).split(".")[0] in PACKAGES:
                names = {alias.name for alias in node.names}
                stray = names - defined(str(node.module))
                assert not stray, f"{path}:{node.lineno}: {node.module} does not define {stray}"


def defined(module: str) -> set[str]:
    """The names that a module defines itself; of a package, its modules."""
    path = ROOT.joinpath(*module.split("."))
    if path.is_dir():
        return {child.stem for child in path.iterdir()}
    names: set[str] = set()
    for node in ast.parse(path.with_suffix(".py").read_text()).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef):
            names.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            names |= {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}
    return names


def test_light_modules_stay_off_torch() -> None:
    """Once together, since each of them would take a process of its own; the first to import torch is named."""
    code = f"""
import importlib, sys
for name in {WITHOUT_TORCH!r}:
    importlib.import_module(name)
    assert "torch" not in sys.modules, name
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name
