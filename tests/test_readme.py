"""The README's commands are the ones that work."""

import re

import pytest

from abaw_expr.commands.main import main
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^    abaw-expr ((?:ledger )?\w+)(.*)$", README, re.MULTILINE)


def test_ci_runs_the_commands_of_the_readme() -> None:
    lines = (ROOT / ".ci/run").read_text().splitlines()
    assert f"    {lines[-1]}\n" in README
    assert lines[-2].replace(" -q", "") in README


def test_every_stage_has_its_command() -> None:
    assert {name for name, _ in COMMANDS} == {
        "demo", "prepare", "train", "predict", "import", "tune", "score", "submit", "check", "ledger add",
        "ledger score", "ledger list", "convert", "faces", "infer", "refit", "penalties"
    }  # fmt: skip


@pytest.mark.parametrize(("name", "arguments"), COMMANDS)
def test_flags_exist(name: str, arguments: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        main([*name.split(), "--help"])
    assert stop.value.code == 0
    shown = capsys.readouterr().out
    for flag in re.findall(r"--[\w.-]+", arguments):
        assert flag in shown


def test_a_store_that_is_trained_alone_is_prepared_with_validation_subjects() -> None:
    """`train` is validated on its first store, so the README's lines that make it leave --val-share as it is."""
    lines = [line.strip() for line in README.splitlines() if line.startswith("    abaw-expr ")]
    first = {line.split("--store ")[1].split()[0] for line in lines if " train " in line}
    made = {line.split("--store ")[1].split()[0]: line for line in lines if " prepare " in line}
    assert {"store", "ravdess"} <= first
    assert first & made.keys()
    assert not [made[name] for name in first & made.keys() if "--val-share 0" in made[name]]
