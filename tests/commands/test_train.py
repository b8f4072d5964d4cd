"""What `train` prints: what it is about to do, a line an epoch, and of a finished run that it is finished."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from abaw_expr.commands.main import main
from abaw_expr.settings_file import save_settings
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import STEPS, stopped_train
from tests.helpers.paths import ROOT
from tests.helpers.tiny import contents

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


HEADER = "epoch     loss  val loss  F1 audio  F1 fused  seconds"


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "steps.yaml"
    save_settings(STEPS, path)
    return path


@pytest.fixture(scope="module")
def finished(store: Path, recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("train") / "run"
    assert main(["train", str(store), "--run", str(run), "--settings", str(recipe)]) == 0
    return run


def test_a_run_begins_with_what_it_is_about_to_do(
    store: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [store, "--run", tmp_path / "run", "--settings", recipe]
    capsys.readouterr()
    assert stopped_train(monkeypatch, 2, arguments) == 143
    first = capsys.readouterr().err
    found = re.match(
        r"Device:     cpu, 1 process, precision 32-true\n"
        r"Training:   (\d+) samples an epoch, from (\d+) videos\n"
        r"Validation: (\d+) samples, from (\d+) videos\n"
        r"Epochs:     2 of (\d+) steps\n",
        first,
    )
    assert found is not None, first
    samples, steps = int(found[1]), int(found[5])
    assert steps == -(-samples // STEPS.optimiser.batch_size) > 2
    assert main(["train", *map(str, arguments), "--resume"]) == 0
    again = capsys.readouterr()
    assert f"Epochs:     2 of {steps} steps; resumed after epoch 0, step 2\n{HEADER}\n" in again.err
    assert again.err.count(HEADER) == 1
    assert "Best epoch" in again.out


def test_the_header_is_printed_by_each_process(
    store: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = [store, "--run", tmp_path / "run", "--settings", recipe]
    capsys.readouterr()
    steps = int(re.findall(r"of (\d+) steps", told(capsys, monkeypatch, 1, arguments))[0])
    text = told(capsys, monkeypatch, steps + 1, [*arguments, "--resume"])
    assert re.search(rf"{HEADER}\n    1 .*\n", text)
    assert main(["train", *map(str, arguments), "--resume"]) == 0
    assert re.search(rf"resumed after epoch 1, step 1\n{HEADER}\n    2 .*\n", capsys.readouterr().err)


def told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, step: int, arguments: list[object]
) -> str:
    """What a run prints that is stopped after a step."""
    assert stopped_train(monkeypatch, step, arguments) == 143
    return capsys.readouterr().err


def test_a_finished_run_answers_at_once(store: Path, recipe: Path, finished: Path) -> None:
    code = f"""
import sys
from abaw_expr.commands.main import main
assert main(["train", {str(store)!r}, "--run", {str(finished)!r}, "--settings", {str(recipe)!r}, "--resume"]) == 0
assert main(["train", {str(store)!r}, "--run", {str(finished)!r}, "--resume", "--devices", "2"]) == 0
assert main(["train", {str(store)!r}, "--run", {str(finished)!r}]) == 2
heavy = {{"torch", "pandas", "pyarrow", "matplotlib"}} & set(sys.modules)
assert not heavy, heavy
"""
    before = contents(finished)
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    remedy = f"`abaw-expr train STORE --run NEW --initial-weights {finished}`."
    assert f"The run in {finished} is finished. Predict with it: `abaw-expr predict {finished} STORE" in done.stderr
    assert f"{finished}: holds a finished run; expected a new folder for the run." in done.stderr
    assert done.stderr.count(remedy) == 3
    assert done.stdout.count("macro F1 on validation") == 2
    assert contents(finished) == before


def test_a_finished_run_of_other_settings_names_them(
    store: Path, finished: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    capsys.readouterr()
    assert main(["train", str(store), "--run", str(finished), "--resume", "--optimiser.epochs", "9"]) == 2
    text = capsys.readouterr().err
    assert "holds a run of other settings; found 'optimiser.epochs: 2 -> 9'" in text
    assert f"`train --run {finished} --resume` without these flags" in text


def test_curves_are_there_after_the_first_epoch(
    store: Path, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, finished: Path
) -> None:
    steps = RunFolder(finished).metrics.read_text().splitlines()[1].split(",")[1]
    run = tmp_path / "run"
    assert stopped_train(monkeypatch, int(steps) + 1, [store, "--run", run, "--settings", recipe]) == 143
    assert RunFolder(run).curves.read_bytes().startswith(b"\x89PNG")
