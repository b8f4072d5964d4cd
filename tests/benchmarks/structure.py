"""How the code is built: folders, imports, lengths, names and docstrings of each tree.

    python -m tests.benchmarks.structure [--names] [REVISION ...]

Without a revision it measures the working tree; one of git is unpacked into a temporary folder. Files are parsed, never
imported. `--names` lists what is counted. A room is a folder of the packages, or a module at the root of `abaw_expr`;
floors are the rooms on the longest path of imports, where rooms in a circle are condensed to one. Imports inside
functions and for type checking count, and so do methods and inner functions, from `def` to their last line.
"""

import argparse
import ast
import io
import re
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from pathlib import Path
from statistics import median

ROOT = Path(__file__).parents[2]
PACKAGES = ("abaw_expr", "tuning", "submissions")
ARRAYS = re.compile(r"\b(Tensor|NDArray|ndarray|Rows|Statistics|Counts|Values)\b")
_SIZE = r"(?:\.\.\.|\*?\w[\w ./*+-]*)"
SHAPE = re.compile(rf"(?<!\w)\[(?!0){_SIZE}(?:,\s+{_SIZE})*\]")
"""Sizes in brackets: [T, C], [..., 3], [112, 112, 3], not the interval [0, 1] nor `votes[name]`."""
LEGEND = "Shapes:"
CALLS = ("__init__", "__call__", "forward")
"""Methods that belong to the signature of their class: the docstring of either may give their shapes."""

Modules = Mapping[str, ast.Module]
"""Every module but `__init__.py`, by its name with dots."""
Graph = Mapping[str, set[str]]
"""What each node imports."""
Measured = dict[str, str | list[str]]
"""What a tree measures, by title: a list is counted."""
Function = ast.FunctionDef | ast.AsyncFunctionDef


def read_modules(root: Path) -> dict[str, ast.Module]:
    """Parses the packages below a folder. Raises SystemExit where there are none."""
    paths = sorted(path for package in PACKAGES for path in (root / package).rglob("*.py"))
    names = {".".join(path.relative_to(root).with_suffix("").parts): path for path in paths}
    if not names:
        raise SystemExit(f"{root} holds no module of {', '.join(PACKAGES)}: measure a tree that has these folders.")
    return {name: ast.parse(path.read_text()) for name, path in names.items() if path.name != "__init__.py"}


def mentioned(tree: ast.Module) -> set[str]:
    """The full names of all that a module imports, and of the attributes that it takes of that."""
    nodes = list(ast.walk(tree))
    full, local = set(), {}
    for node in nodes:
        for alias in node.names if isinstance(node, ast.Import | ast.ImportFrom) else ():
            name = f"{node.module}.{alias.name}" if isinstance(node, ast.ImportFrom) else alias.name
            full.add(name)
            local[alias.asname or alias.name] = name
    owners = [(ast.unparse(node.value), node.attr) for node in nodes if isinstance(node, ast.Attribute)]
    return full | {f"{local[owner]}.{name}" for owner, name in owners if owner in local}


def import_graph(modules: Modules) -> dict[str, set[str]]:
    """The imports among modules: `a.b.c` is of module `a.b` where it is no module itself."""
    full = {name: mentioned(tree) for name, tree in modules.items()}
    parts = {name: others | {other.rpartition(".")[0] for other in others} for name, others in full.items()}
    return {name: others & modules.keys() - {name} for name, others in parts.items()}


def room(name: str) -> str:
    """The room of a module."""
    folder = name.rpartition(".")[0]
    return name if folder == PACKAGES[0] else folder


def room_graph(graph: Graph) -> dict[str, set[str]]:
    """The imports among rooms, without `__main__`."""
    rooms: dict[str, set[str]] = {}
    for name in (name for name in graph if not name.endswith("__main__")):
        rooms.setdefault(room(name), set()).update(room(other) for other in graph[name] if room(other) != room(name))
    return rooms


def components(graph: Graph) -> dict[str, frozenset[str]]:
    """The strongly connected component of each node: itself, and all that it reaches and that reach it."""
    reached: dict[str, set[str]] = {}
    for node in graph:
        seen, waiting = reached.setdefault(node, set()), [node]
        while waiting:
            new = graph[waiting.pop()] - seen
            seen |= new
            waiting += new
    return {node: frozenset({node, *(other for other in reached[node] if node in reached[other])}) for node in graph}


def circles(graph: Graph) -> list[str]:
    """The components of more than one node."""
    return sorted(", ".join(sorted(nodes)) for nodes in set(components(graph).values()) if len(nodes) > 1)


def floors(graph: Graph) -> dict[str, int]:
    """1 for a node that imports nothing of the graph; the others are one above the highest that they import."""
    component = components(graph)
    found: dict[frozenset[str], int] = {}

    def floor(nodes: frozenset[str]) -> int:
        if nodes not in found:
            below = {component[other] for node in nodes for other in graph[node]} - {nodes}
            found[nodes] = 1 + max(map(floor, below), default=0)
        return found[nodes]

    return {node: floor(component[node]) for node in graph}


def definitions(modules: Modules) -> Iterator[tuple[str, str, ast.stmt]]:
    """The module, name and statement of every public class, function and constant at the top of a module."""
    for module, tree in modules.items():
        for node in tree.body:
            targets = [*getattr(node, "targets", ()), getattr(node, "target", ast.Pass())]  # of assignments
            inside = [part for target in targets for part in ast.walk(target) if isinstance(part, ast.Name)]
            names = [part.id for part in inside if isinstance(part.ctx, ast.Store) and not isinstance(node, ast.For)]
            names += [node.name] if isinstance(node, ast.ClassDef | Function) else []
            yield from ((module, name, node) for name in names if not name.startswith("_"))


def defined_twice(modules: Modules) -> list[str]:
    """Public names that two or more modules define, with these."""
    owners: dict[str, dict[str, None]] = {}
    for module, name, _ in definitions(modules):
        owners.setdefault(name, {})[module] = None
    return [f"{name}: {', '.join(found)}" for name, found in sorted(owners.items()) if len(found) > 1]


def lacks_shapes(node: ast.stmt) -> bool:
    """Whether a signature, of a class its public fields and `CALLS`, has arrays and their docstrings have no shape."""
    body = node.body if isinstance(node, ast.ClassDef) else [node]
    calls = [part for part in body if isinstance(part, Function) and (part is node or part.name in CALLS)]
    fields = [part for part in body if isinstance(part, ast.AnnAssign) and part is not node]
    notes = [field.annotation for field in fields if not ast.unparse(field.target).startswith("_")]
    inputs = [part for call in calls for part in ast.walk(call.args) if isinstance(part, ast.arg)]
    notes += [note for note in (*(part.annotation for part in inputs), *(call.returns for call in calls)) if note]
    texts = [part.value.value for part in body if isinstance(part, ast.Expr) and isinstance(part.value, ast.Constant)]
    docs = "\n".join([*map(str, texts), *(ast.get_docstring(call) or "" for call in calls)])
    return any(ARRAYS.search(ast.unparse(note)) for note in notes) and not SHAPE.search(docs)


def methods(modules: Modules) -> Iterator[tuple[str, ast.stmt]]:
    """The public methods of public classes, but for those that leave the docstring to a base in the tree."""
    known = {node.name for tree in modules.values() for node in tree.body if isinstance(node, ast.ClassDef)}
    classes = {f"{module}.{name}": node for module, name, node in definitions(modules) if type(node) is ast.ClassDef}
    for name, node in classes.items():
        parts = [part for part in node.body if isinstance(part, Function) and part.name not in CALLS]
        derived = not known.isdisjoint(map(ast.unparse, node.bases))
        said = [part for part in parts if ast.get_docstring(part) or not derived]
        yield from ((f"{name}.{part.name}", part) for part in said if not part.name.startswith("_"))


def without_legend(modules: Modules) -> list[str]:
    """Modules that name `torch.Tensor` and have no legend of shapes in their docstring."""
    users = {name: tree for name, tree in modules.items() if "torch.Tensor" in mentioned(tree)}
    return [name for name, tree in users.items() if LEGEND not in (ast.get_docstring(tree) or "")]


def only_tested(modules: Modules, tests: str) -> list[str]:
    """Public names that no module imports, or reads outside their definition; marked where no test has them either."""
    outside = set().union(*map(mentioned, modules.values()))
    reads: dict[str, list[tuple[str, int]]] = {}
    for name, tree in modules.items():
        names = [node for node in ast.walk(tree) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)]
        notes = [getattr(node, "annotation", None) or getattr(node, "returns", None) for node in ast.walk(tree)]
        quoted = [(word, note.lineno) for note in notes if note for word in re.findall(r"\w+", ast.unparse(note))]
        reads[name] = [(node.id, node.lineno) for node in names] + quoted
    found, tested = [], set(re.findall(r"\w+", tests))
    for module, name, node in definitions(modules):
        own = range(node.lineno, (node.end_lineno or node.lineno) + 1)
        if f"{module}.{name}" not in outside and all(word != name or line in own for word, line in reads[module]):
            found.append(f"{module}.{name}{'' if name in tested else ' (in no test either)'}")
    return found


def measure(root: Path) -> Measured:
    """Measures the tree below a folder."""
    modules = read_modules(root)
    graph = import_graph(modules)
    rooms = room_graph(graph)
    level = floors(rooms)
    files = [line_count(root / f"{name.replace('.', '/')}.py") for name in modules]
    functions = [node for tree in modules.values() for node in ast.walk(tree) if isinstance(node, Function)]
    lines = [(node.end_lineno or node.lineno) - node.lineno + 1 for node in functions] or [0]
    whole = [f"{module}.{name}" for module, name, node in definitions(modules) if lacks_shapes(node)]
    tests = "\n".join(path.read_text() for path in (root / "tests").rglob("*.py"))
    return {
        "modules": str(len(modules)),
        "modules at the root of abaw_expr": [name for name in rooms if name in modules],
        "rooms, by floor": [f"{level[name]} {name}" for name in sorted(rooms, key=lambda name: (level[name], name))],
        "floors": f"{max(level.values())}{' (circles condensed)' if circles(rooms) else ''}",
        "arrows between rooms": [f"{name} -> {other}" for name in sorted(rooms) for other in sorted(rooms[name])],
        "circles of modules": circles(graph),
        "circles of rooms": circles(rooms),
        "median / longest file, lines": f"{median(files):g} / {max(files)}",
        "median / longest function, lines": f"{median(lines):g} / {max(lines)}",
        "public names defined in two or more modules": defined_twice(modules),
        "functions and classes with arrays, no shape": whole,
        "methods with arrays, no shape": [name for name, node in methods(modules) if lacks_shapes(node)],
        "files with tensors, no legend of shapes": without_legend(modules),
        "public names used by tests only": only_tested(modules, tests),
        "lines of README.md": str(line_count(root / "README.md")),
    }


def line_count(path: Path) -> int:
    """Lines of a file, 0 without one."""
    return len(path.read_text().splitlines()) if path.exists() else 0


def measure_revision(revision: str) -> Measured:
    """Measures a revision. Raises SystemExit where git knows none of that name."""
    done = subprocess.run(["git", "archive", "--format=tar", revision], cwd=ROOT, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{revision}: {done.stderr.decode().strip()}: name a commit, branch or tag of {ROOT}.")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(done.stdout)) as archive:
        archive.extractall(folder, filter="data")
        return measure(Path(folder))


def main(arguments: Sequence[str]) -> int:
    """Prints the table and the lists, and returns the exit status."""
    parser = argparse.ArgumentParser(description="How the code is built.")
    parser.add_argument("--names", action="store_true", help="list what is counted")
    parser.add_argument("revisions", nargs="*", metavar="REVISION", help="of git; none: the working tree")
    options = parser.parse_args(arguments)
    trees = {name: measure_revision(name) for name in options.revisions} or {"working tree": measure(ROOT)}
    print(" " * 44, *(f"{name:>12}" for name in trees))
    for title in next(iter(trees.values())):
        values = [(len(name), measured[title]) for name, measured in trees.items()]
        cells = [(width, value if isinstance(value, str) else str(len(value))) for width, value in values]
        print(f"{title:44}", *(f"{cell:>{max(width, 12)}}" for width, cell in cells))
    for name, title in product(trees, next(iter(trees.values()))):
        found = trees[name][title]
        if options.names and found and isinstance(found, list):
            print(f"\n{name}: {title}: {len(found)}", *found, sep="\n    ")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
