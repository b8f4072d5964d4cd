"""The file of a sweep: what it says becomes Optuna's distributions, and what it cannot say is named."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from abaw_expr.errors import SettingsError
from abaw_expr.settings import Settings
from abaw_expr.settings_file import flat_settings
from tuning.sweep_space import SweepSpace, grid_of, read_space, values_of, with_values

WHOLE = """
optimiser.learning-rate: {low: 1.0e-5, high: 1.0e-2, log: true}
model.dropout: {low: 0, high: 0.6, step: 0.2}
optimiser.epochs: {low: 100, high: 300, step: 100}
augment.flip: [true, false]
branches.audio.temporal: [none, lstm]
data.sequence: [4, 8]
"""


def written(folder: Path, text: str) -> Path:
    path = folder / "space.yaml"
    path.write_text(text)
    return path


def test_lines_become_distributions(tmp_path: Path) -> None:
    space = read_space(written(tmp_path, WHOLE), Settings())
    assert space == {
        "optimiser.learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "model.dropout": FloatDistribution(0.0, 0.6, step=0.2),
        "optimiser.epochs": IntDistribution(100, 300, step=100),
        "augment.flip": CategoricalDistribution([True, False]),
        "branches.audio.temporal": CategoricalDistribution(["none", "lstm"]),
        "data.sequence": CategoricalDistribution([4, 8]),
    }


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "optimiser.learnin-rate: [1, 2]",
            r"is not a setting that a sweep can vary\. Did you mean optimiser\.learning-rate",
        ),
        ("compute.workers: [1, 2]", "compute.workers is not a setting that a sweep can vary"),
        ("data.fold: [0, 1]", "data.fold is not a setting that a sweep can vary"),
        ("model.dropout: {low: 0}", "model.dropout has no range"),
        ("model.dropout: {low: 0.5, high: 0.1}", "model.dropout has no range"),
        ("model.dropout: {low: 0.0, high: 0.5, log: true}", "model.dropout has no range"),
        ("model.dropout: {low: zero, high: 0.5}", "model.dropout has no range"),
        ("model.dropout: {low: 0, high: 0.5, steps: 3}", "model.dropout has no range"),
        ("model.dropout: 0.5", "model.dropout has no range"),
        ("model.dropout: [0.5]", "model.dropout has no list of choices"),
        ("model.dropout: [0.5, 0.5]", "model.dropout has no list of choices"),
        ("model.dropout: [0.5, [0.1]]", "model.dropout has no list of choices"),
        ("model.dropout: {low: 0, high: 1.5}", r"the setting model\.dropout cannot be used; found 1\.5"),
        ("optimiser.epochs: {low: 1.5, high: 3}", "optimiser.epochs takes whole numbers"),
        ("task: [expr, music]", "task"),
        ("- model.dropout", "is not the space of a sweep"),
        ("", "is not the space of a sweep"),
        ("a: [", "is not YAML"),
    ],
)
def test_what_cannot_be_swept_is_named_with_its_file(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=message) as raised:
        read_space(written(tmp_path, text), Settings())
    assert str(raised.value).startswith(f"{tmp_path / 'space.yaml'}: ")


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read"):
        read_space(tmp_path / "none.yaml", Settings())


def test_values_that_only_stand_together_are_a_space(tmp_path: Path) -> None:
    """A temporal model needs stretches, which the settings as they are have not."""
    space = read_space(written(tmp_path, "branches.audio.temporal: [none, lstm]\ndata.sequence: [8, 16]"), Settings())
    values = {"branches.audio.temporal": "lstm", "data.sequence": 16}
    found = with_values(Settings(), values)
    assert (found.branches["audio"].temporal, found.data.sequence) == ("lstm", 16)
    assert values_of(found, space) == values
    assert values_of(Settings(), space) is None, "its sequence of 1 is not in the space"


@given(st.floats(1e-5, 1e-2), st.sampled_from([100, 200, 300]), st.booleans())
def test_values_come_back_from_the_settings(rate: float, epochs: int, flip: bool) -> None:
    space: SweepSpace = {
        "optimiser.learning_rate": FloatDistribution(1e-5, 1e-2, log=True),
        "optimiser.epochs": IntDistribution(100, 300, step=100),
        "augment.flip": CategoricalDistribution([True, False]),
    }
    values = {"optimiser.learning_rate": rate, "optimiser.epochs": epochs, "augment.flip": flip}
    found = with_values(Settings(), values)
    assert values_of(found, space) == values
    assert {name: flat_settings(found)[name] for name in values} == values


def test_a_grid_is_every_combination(tmp_path: Path) -> None:
    text = "model.dropout: {low: 0.0, high: 0.6, step: 0.2}\naugment.flip: [true, false]"
    found = grid_of(read_space(written(tmp_path, text), Settings()))
    assert len(found) == 8
    assert sorted({values["model.dropout"] for values in found}) == pytest.approx([0, 0.2, 0.4, 0.6])
    with pytest.raises(SettingsError, match=r"model\.dropout has no values for a grid; expected a list of values"):
        grid_of({"model.dropout": FloatDistribution(0, 1)})
