"""The rules that keep the code easy to change: who imports whom, what is loaded when, how long things may be."""

import ast
import subprocess
import sys
from collections.abc import Iterator, Sequence
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT

PACKAGES = ("abaw_expr", "tuning", "submissions")
FILES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
MODULES = [path for path in FILES if path.name != "__init__.py"]

LAYERS = (
    ("abaw_expr.errors", "abaw_expr.version", "abaw_expr.files"),
    ("abaw_expr.tasks",),
    ("abaw_expr.settings", "abaw_expr.settings_file", "abaw_expr.outputs"),
    ("abaw_expr.data",),
    ("abaw_expr.report",),
    ("abaw_expr.faces",),
    ("abaw_expr.models",),
    ("abaw_expr.training",),
    ("abaw_expr.infer", "abaw_expr.generate"),
    ("tuning", "submissions"),
    ("abaw_expr.commands", "abaw_expr.__main__"),
)
"""From the ground up: a module imports from its own layer and those before it."""
ROOT_MODULES = {"__init__", "__main__", "errors", "files", "version", "settings", "settings_file"}
FOLDERS_OF_DATA = (
    ("abaw_expr.data.media",),
    ("abaw_expr.data.release",),
    ("abaw_expr.data.datasets", "abaw_expr.data.store", "abaw_expr.data.synthetic"),
    ("abaw_expr.data.batches",),
)
"""The same within `data`, whose root all of them know."""

FRONT_DOOR = "abaw_expr.commands"
NETWORKS = ("features", "heads", "refit")
"""The modules of tuning that run networks."""
WITHOUT_TORCH = (
    *(
        f"abaw_expr.{name}"
        for name in ("errors", "files", "settings", "settings_file", "data.discovery", "data.problems")
    ),
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        for folder in ("tasks", "outputs", "commands", "data/release", "data/datasets", "data/store")
        if path.is_relative_to(ROOT / "abaw_expr" / folder) and path.stem not in ("stored_crops", "verify")
    ),
    *(f"tuning.{path.stem}" for path in MODULES if path.parent.name == "tuning" and path.stem not in NETWORKS),
    *(
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in MODULES
        if path.is_relative_to(ROOT / "submissions")
    ),
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


def layer(name: str, layers: Sequence[Sequence[str]] = LAYERS) -> int:
    places = [i for i, layer in enumerate(layers) for owner in layer if name == owner or name.startswith(f"{owner}.")]
    assert len(places) == 1, f"{name} is in no layer: say in design and test where it belongs"
    return places[0]


def folder_of_data(name: str) -> str | None:
    """`abaw_expr.data.media` of a module in it; None of what is not in a folder of data."""
    parts = name.split(".")
    return ".".join(parts[:3]) if parts[:2] == ["abaw_expr", "data"] and len(parts) > 3 else None


@pytest.mark.parametrize("name", IMPORTS)
def test_imports_point_one_way(name: str) -> None:
    back = [other for other in IMPORTS[name] if layer(other) > layer(name)]
    assert not back, f"{name} imports {back}, which stand above it"


@pytest.mark.parametrize("name", [name for name in IMPORTS if name.startswith("abaw_expr.data.")])
def test_folders_of_data_import_one_way(name: str) -> None:
    own = folder_of_data(name)
    known = {folder for other in IMPORTS[name] if (folder := folder_of_data(other)) is not None}
    if own is None:
        assert not known, f"{name} is at the root of data and imports from {known}"
        return
    back = [folder for folder in known - {own} if layer(folder, FOLDERS_OF_DATA) >= layer(own, FOLDERS_OF_DATA)]
    assert not back, f"{name} imports from {back}, which do not stand below {own}"


def test_few_modules_stand_at_the_root() -> None:
    assert {path.stem for path in (ROOT / "abaw_expr").glob("*.py")} == ROOT_MODULES


def test_modules_do_not_import_in_a_circle() -> None:
    TopologicalSorter(IMPORTS).prepare()  # raises CycleError, with the circle


def folder(name: str) -> str:
    """The folder of a module; a module at the root of abaw_expr stands for itself."""
    owner = name.rpartition(".")[0]
    return name if owner == "abaw_expr" else owner


def test_folders_do_not_import_in_a_circle() -> None:
    folders: dict[str, set[str]] = {}
    for name, others in IMPORTS.items():
        folders.setdefault(folder(name), set()).update({folder(other) for other in others} - {folder(name)})
    TopologicalSorter(folders).prepare()


def test_tuning_and_submissions_meet_in_the_front_door_only() -> None:
    for name, others in IMPORTS.items():
        foreign = {other.split(".")[0] for other in others} & {"tuning", "submissions"} - {name.split(".")[0]}
        assert not foreign or name.startswith(FRONT_DOOR), f"{name} imports {foreign}"


def test_submissions_know_little_of_the_rest() -> None:
    allowed = ("abaw_expr.tasks.", "abaw_expr.errors", "abaw_expr.files", "abaw_expr.outputs.")
    for name, others in IMPORTS.items():
        if name.startswith("submissions."):
            foreign = [other for other in others if not other.startswith(("submissions.", *allowed))]
            assert not foreign, f"{name} imports {foreign}"


def test_the_checker_shares_no_code_with_what_it_checks() -> None:
    for name, others in IMPORTS.items():
        if name.startswith("submissions.checking."):
            own = {other for other in others if other.startswith("submissions.")}
            foreign = {other for other in own if not other.startswith("submissions.checking.")}
            assert foreign <= {"submissions.formats"}, name  # which knows nothing of reading and writing


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.slow
@pytest.mark.parametrize("path", MODULES, ids=module_name)
def test_files_and_functions_stay_short(path: Path) -> None:
    source = path.read_text()
    assert len(source.splitlines()) <= 450
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef):
            assert node.end_lineno is not None
            assert node.end_lineno - node.lineno < 60, node.name
