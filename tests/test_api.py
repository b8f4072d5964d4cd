"""The lines of the API's README, run as they stand there on a tiny store and a run."""

import re
from importlib import import_module
from pathlib import Path

import pytest

from abaw_expr.data.store.store import open_store
from abaw_expr.data.synthetic.corpus import TEMPLATES
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.task import EXPR
from tests.helpers.fitting import AUDIO, fit
from tests.helpers.paths import ROOT

README = (ROOT / "abaw_expr/README.md").read_text()


@pytest.mark.slow
def test_the_lines_of_the_readme_end_in_a_clean_submission(
    release: Path, store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (lines,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    statements = [line for line in lines.splitlines() if line and not line.startswith(("from ", "import "))]
    assert len(statements) <= 10
    fit(open_store(store, EXPR), tmp_path / "runs/first", AUDIO)
    (tmp_path / "store").symlink_to(store)
    (tmp_path / "template.txt").symlink_to(release / TEMPLATES[EXPR.name])
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(lines, "README.md", "exec"), names)
    assert capsys.readouterr().out.splitlines()[-1] == "clean"
    assert (tmp_path / "predictions.txt").read_text().startswith(EXPR.submission_header)


ROWS = [line.strip("| ").split("|") for line in README.splitlines() if line.startswith("| ") and "`" in line]


@pytest.mark.parametrize(("names", "modules"), [row[1:] for row in ROWS], ids=[row[0].strip() for row in ROWS])
def test_every_name_of_the_readme_can_be_imported(names: str, modules: str) -> None:
    """Names before a colon are of the modules; those after it are methods of the name before."""
    first, *others = re.findall(r"`([\w.]+)`", modules)
    package = first.rpartition(".")[0]
    dotted = [first, *(package + other if other.startswith(".") else other for other in others)]
    owners: list[object] = [import_module(name) for name in dotted]
    for name in re.findall(r"`(\w+)", names):
        held = [getattr(owner, name) for owner in owners if hasattr(owner, name)]
        assert held, f"{name} is not in {modules}"
        owners += [Metric if name == "metric_of" else held[0]]
