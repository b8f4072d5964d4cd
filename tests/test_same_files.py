"""The comparison of two versions' files: other names are the same, other numbers are not."""

import json
from pathlib import Path

import pandas as pd
import pytest
import torch

from tests.benchmarks.same_files import Compared, Names, compare

NAMES = Names(
    renamed={"share": ("fraction", "proportion"), "smoothed": ("filled",)},
    patterns=((r"\bold/", "new/"), (r"^layers\.", "encoder.layers.")),
    left_out=frozenset({"seconds"}),
    files_left_out=("*.log",),
)
SAID = {"share": 0.5, "run": "0123456789abcdef", "seconds": 7.0, "why": "for a reason", "missing": "smoothed"}


def folder(root: Path, values: dict[str, object], name: str = "run/said.json") -> Path:
    """A folder with a JSON file in it, and a log."""
    (root / name).parent.mkdir(parents=True)
    (root / name).write_text(json.dumps(values))
    (root / "run.log").write_text(str(root))
    return root


def found(tmp_path: Path, changed: dict[str, object], name: str = "run/said.json") -> Compared:
    """What the comparison says of a JSON file that was written with other values."""
    (one,) = compare(folder(tmp_path / "a", SAID), folder(tmp_path / "b", SAID | changed, name), NAMES).values()
    return one


def renamed(**changed: object) -> dict[str, object]:
    values = SAID | {"seconds": 8.0, "why": "in other words", "run": "f" * 16, "missing": "filled"}
    return {("fraction" if key == "share" else key): value for key, value in values.items()} | changed


def test_names_times_digests_and_sentences_may_differ(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", SAID), folder(tmp_path / "b", renamed())
    assert compare(a, b, NAMES) == {"run": Compared(1, 4, None)}


@pytest.mark.parametrize(
    ("changed", "difference"),
    [
        ({"share": 0.5000000000000001}, "share was 0.5, is 0.5000000000000001"),
        ({"share": None}, "share was 0.5, is None"),
        ({"missing": "masked"}, "missing was smoothed, is masked"),
        ({"more": 1}, "more was not there"),
        ({"run": 0}, "run was 0123456789abcdef, is 0"),
    ],
)
def test_another_value_is_named(tmp_path: Path, changed: dict[str, object], difference: str) -> None:
    assert found(tmp_path, changed).difference == f"run/said.json: {difference}"


def test_a_file_that_only_one_has_is_named(tmp_path: Path) -> None:
    a, b = folder(tmp_path / "a", SAID), folder(tmp_path / "b", SAID)
    (a / "run" / "a.csv").touch()
    assert compare(a, b, NAMES)["run"].difference == "run/a.csv: is not there any more"
    assert compare(b, a, NAMES)["run"].difference == "run/a.csv: was not there"


def made(root: Path, column: str, weights: torch.Tensor) -> None:
    """A table in both forms and a checkpoint."""
    root.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame({column: [0.5, None], "name": ["x", "y"]})
    table.to_parquet(root / "table.parquet")
    table.to_csv(root / "table.csv", index=False)
    torch.save({"network": {f"layers.{column}": weights}, "steps": 3}, root / "last.pt")


def test_moved_files_tables_and_weights(tmp_path: Path) -> None:
    weights = torch.ones(4, dtype=torch.bfloat16)
    made(tmp_path / "a/old/run", "share", weights)
    made(tmp_path / "b/new/run", "proportion", weights)
    assert compare(tmp_path / "a", tmp_path / "b", NAMES) == {"old/run": Compared(3, 8, None)}


def test_weights_that_differ_in_the_last_bit(tmp_path: Path) -> None:
    made(tmp_path / "a/old/run", "share", torch.ones(4))
    made(tmp_path / "b/new/run", "share", torch.tensor([1.0, 1.0, 1.0, 1.0000001]))
    (one,) = compare(tmp_path / "a", tmp_path / "b", NAMES).values()
    shown = "has 1 of 4 other numbers, by 1.2e-07 at most"
    assert one.difference == f"old/run/last.pt: network.layers.share {shown}"
