"""What a tiny corpus gives through the command line is what it gave: losses, outputs, decisions and submissions."""

import json
from pathlib import Path

import pytest

from abaw_expr.data.synthetic.corpus import TEMPLATES
from abaw_expr.tasks.task import EXPR
from tests.helpers.same_numbers import GOLDEN, SEEDS, TABLES, made_up, trained

EXPECTED = json.loads(GOLDEN.read_text())
ROUNDING = 2e-4
"""By how much floats may differ on another processor, relative to their size."""


def assert_close(found: object, expected: object, where: str) -> None:
    """Equal, floats but for rounding."""
    if isinstance(expected, dict):
        assert isinstance(found, dict), where
        assert list(found) == list(expected), where
        for key, value in expected.items():
            assert_close(found[key], value, f"{where}.{key}")
    elif isinstance(expected, list):
        assert isinstance(found, list), where
        assert len(found) == len(expected), where
        for index, (one, other) in enumerate(zip(found, expected, strict=True)):
            assert_close(one, other, f"{where}[{index}]")
    elif isinstance(expected, float):
        assert found == pytest.approx(expected, rel=ROUNDING, abs=1e-6), where
    else:
        assert found == expected, where


@pytest.mark.slow
@pytest.mark.parametrize("recipe", SEEDS)
def test_a_recipe_trains_predicts_and_decides_as_it_did(
    recipe: str, store: Path, release: Path, tmp_path: Path
) -> None:
    assert_close(trained(recipe, store, release / TEMPLATES[EXPR.name], tmp_path), EXPECTED[recipe], recipe)


@pytest.mark.slow
@pytest.mark.parametrize("name", TABLES)
def test_a_table_is_decided_and_submitted_as_it_was(name: str, tmp_path: Path) -> None:
    assert_close(made_up(name, tmp_path), EXPECTED[name], name)
