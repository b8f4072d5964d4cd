"""The measures of the code's structure, on a made-up tree."""

from pathlib import Path

import pytest

from tests.benchmarks.structure import circles, components, floors, main, measure

FILES = {
    "README.md": "one\ntwo\n",
    "abaw_expr/__init__.py": "",
    "abaw_expr/__main__.py": "from abaw_expr.cli import run\n\nrun()\n",
    "abaw_expr/cli.py": """
from tuning import grid

def run():
    from submissions.writer import write
    write(grid.best("no shape"))
""",
    "abaw_expr/errors.py": "LIMIT = 3\n_HIDDEN = 4\n\nclass Problem(Exception):\n    pass\n",
    "abaw_expr/data/store.py": """
'''Reads.'''
from abaw_expr.data.crops import cut
from abaw_expr.errors import Problem
import torch

LIMIT: int = 4

class Store:
    rows: torch.Tensor
    '''The rows
    [T, C].'''

    def crop(self) -> "torch.Tensor":
        '''No shape, but [0, 1], `rows[name]` and list[int].'''
        return cut(self.rows)

    def _hidden(self) -> torch.Tensor: ...

class Derived(Store):
    def crop(self) -> torch.Tensor: ...
""",
    "abaw_expr/data/crops.py": """
'''Cuts. Shapes: T frames.'''
from torch import Tensor

def cut(rows: Tensor) -> Tensor:
    from abaw_expr.data.store import Store
    return rows

def plain(name: str) -> str:
    return plain(name)
""",
    "tuning/grid.py": """
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from abaw_expr.data.store import Derived

def best(rows: "NDArray[Any]", store: "Derived") -> None:
    '''[112, 112, 3]'''

def unused() -> None: ...
""",
    "submissions/writer.py": "from abaw_expr.errors import LIMIT\n\ndef write(lines):\n    return LIMIT\n",
    "tests/test_a.py": "from tuning.grid import unused\n",
}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name, text in FILES.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    return tmp_path


def test_made_up_tree(tree: Path) -> None:
    assert measure(tree) == {
        "modules": "7",
        "modules at the root of abaw_expr": ["abaw_expr.cli", "abaw_expr.errors"],
        "rooms, by floor": ["1 abaw_expr.errors", "2 abaw_expr.data", "2 submissions", "3 tuning", "4 abaw_expr.cli"],
        "floors": "4",
        "arrows between rooms": [
            "abaw_expr.cli -> submissions",
            "abaw_expr.cli -> tuning",
            "abaw_expr.data -> abaw_expr.errors",
            "submissions -> abaw_expr.errors",
            "tuning -> abaw_expr.data",
        ],
        "circles of modules": ["abaw_expr.data.crops, abaw_expr.data.store"],
        "circles of rooms": [],
        "median / longest file, lines": "6 / 21",
        "median / longest function, lines": "2 / 3",
        "public names defined in two or more modules": ["LIMIT: abaw_expr.data.store, abaw_expr.errors"],
        "functions and classes with arrays, no shape": ["abaw_expr.data.crops.cut"],
        "methods with arrays, no shape": ["abaw_expr.data.store.Store.crop"],
        "files with tensors, no legend of shapes": ["abaw_expr.data.store"],
        "public names used by tests only": [
            "abaw_expr.data.crops.plain (in no test either)",
            "abaw_expr.data.store.LIMIT (in no test either)",
            "tuning.grid.unused",
        ],
        "lines of README.md": "2",
    }


def test_circle_of_rooms_is_told_and_condensed(tree: Path) -> None:
    with open(tree / "abaw_expr/errors.py", "a") as file:
        file.write("\ndef late():\n    import abaw_expr.data.store\n")
    measured = measure(tree)
    assert measured["circles of rooms"] == ["abaw_expr.data, abaw_expr.errors"]
    assert measured["floors"] == "3 (circles condensed)"


def test_graph() -> None:
    graph = {"a": {"b"}, "b": {"c", "d"}, "c": {"b"}, "d": {"e"}, "e": set[str](), "f": {"e"}}
    assert components(graph)["b"] == {"b", "c"}
    assert circles(graph) == ["b, c"]
    assert floors(graph) == {"a": 4, "b": 3, "c": 3, "d": 2, "e": 1, "f": 2}


def test_folder_without_packages(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="no module of abaw_expr, tuning, submissions"):
        measure(tmp_path)


def test_unknown_revision() -> None:
    with pytest.raises(SystemExit, match="name a commit, branch or tag"):
        main(["no such revision"])


@pytest.mark.slow
def test_table_of_the_working_tree(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--names"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split() == ["working", "tree"]
    assert any(line.startswith("working tree: rooms, by floor: ") for line in lines)
