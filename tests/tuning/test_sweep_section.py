"""What a page shows of sweeps and folds is what their files hold."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw_expr.errors import UserError
from abaw_expr.files import write_json
from abaw_expr.report.blocks import Facts, Figure, Table
from tests.tuning.test_landscape import sources
from tuning.sweep_section import folds_section, sweep_section


@pytest.fixture
def sweep(tmp_path: Path) -> Path:
    rows = [
        ("default", 0.001, "adamw", "complete", 0.5, 0.52, None),
        ("trial 1", 0.1, "sgd", "complete", 0.7, 0.71, None),
        ("trial 2", 0.01, "sgd", "ended early", None, None, None),
        ("trial 3", 0.01, "adamw", "failed", None, None, "the loss is nan"),
        ("trial 4", 0.01, "adamw", "complete", 0.6, 0.6, None),
    ]
    columns = ["trial", "optimiser.learning-rate", "optimiser.name", "state", "nested", "plain", "reason"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "table.csv", index=False)
    gain = {"difference": 0.2, "low": 0.1, "high": 0.3}
    write_json(
        tmp_path / "best.json",
        {"best": "trial 1", "objective": "nested", "nested": 0.7, "sweep_nested": 0.66, "gain_over_default": gain},
    )
    return tmp_path


def test_a_line_is_a_trial_from_the_worst_to_the_best(sweep: Path) -> None:
    section = sweep_section(sweep)
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    data = next(data for data in sources(figure) if "xs" in data)
    assert data["trial"] == ["default", "trial 4", "trial 1"]
    assert data["score"] == [0.5, 0.6, 0.7]
    expected = np.array([[0, 0], [0.5, 0], [1, 1]])  # the learning rate on a logarithmic axis
    assert np.array(data["ys"]) == pytest.approx(expected)
    assert [key.name for key in figure.keys] == ["best: trial 1, 0.7000", "default, 0.5000"]
    assert "0.001 to 0.1" in figure.note
    assert "adamw to sgd" in figure.note


def test_the_figure_to_quote_is_told(sweep: Path) -> None:
    section = sweep_section(sweep)
    facts = next(block for block in section.blocks if isinstance(block, Facts)).facts
    assert [(fact.name, fact.value) for fact in facts] == [
        ("Best trial: trial 1", 0.7),
        ("Nested over all trials: quote this one", 0.66),
        ("Gain over the default", 0.2),
    ]
    table = next(block for block in section.blocks if isinstance(block, Table))
    assert len(table.rows) == 5


def test_folds_have_a_bar_each(tmp_path: Path) -> None:
    rows = [("fold0-seed0", "fold", 5, 0.5, 0.4, 0.6), ("average", "fold", 10, 0.55, 0.5, 0.6)]
    columns = ["run", "split", "recordings", "macro_f1", "low", "high"]
    pd.DataFrame(rows, columns=columns).to_csv(tmp_path / "table.csv", index=False)
    section = folds_section(tmp_path)
    figure = next(block for block in section.blocks if isinstance(block, Figure))
    data = next(data for data in sources(figure) if "pattern" in data)
    assert data["x"] == [0.5, 0.55]
    assert data["y"] == ["fold0-seed0, fold  0.500", "average, fold  0.550"]


def test_other_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"table\.csv: cannot be read.*Name a folder of `sweep`"):
        sweep_section(tmp_path)
    (tmp_path / "table.csv").write_text("a,b\n1,2\n")
    with pytest.raises(UserError, match="is not the table that was expected; found 'a, b'"):
        folds_section(tmp_path)
    (tmp_path / "table.csv").write_text("")
    with pytest.raises(UserError, match="is not a table"):
        sweep_section(tmp_path)
