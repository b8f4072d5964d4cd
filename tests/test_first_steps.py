"""Seeded steps of the shipped recipes, and the predictions after them, are what they were."""

import json
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.first_steps import GOLDEN, RECIPES, first_steps

EXPECTED = json.loads(GOLDEN.read_text())
ROUNDING = 1e-5
"""By how much another processor may round otherwise, relative and absolute."""


@pytest.mark.slow
@pytest.mark.parametrize("recipe", RECIPES)
def test_first_steps_give_the_losses_and_predictions_that_they_gave(recipe: str, store: Path, tmp_path: Path) -> None:
    found, expected = first_steps(recipe, store, tmp_path), EXPECTED[recipe]
    np.testing.assert_allclose(found["losses"], expected["losses"], rtol=ROUNDING, atol=ROUNDING)
    np.testing.assert_allclose(found["rows"], expected["rows"], rtol=ROUNDING, atol=ROUNDING)
