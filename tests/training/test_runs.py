"""Lists of runs: their state, best epoch, and the settings in which they differ."""

from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from abaw_expr.commands.main import main
from abaw_expr.errors import RunError
from abaw_expr.files import locked, write_json
from abaw_expr.report.blocks import Figure, Table
from abaw_expr.settings import Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.training.curves_section import runs_sections
from abaw_expr.training.run import RunFolder
from abaw_expr.training.runs import best_scores, by_task, differing_settings, find_runs, named_runs, read_run
from tests.helpers.fitting import AUDIO, made_epoch


def make_run(root: Path, settings: Settings = AUDIO, scores: tuple[float, ...] = (0.2, 0.5, 0.5, 0.4)) -> RunFolder:
    """A run folder as training leaves it, without checkpoints."""
    run = RunFolder(root)
    root.mkdir(parents=True)
    save_settings(settings, run.settings)
    epochs = [made_epoch(number, f1) for number, f1 in enumerate(scores, start=1)]
    run.write_metrics([replace(one, scores={"audio": f1, "fused": f1}) for one, f1 in zip(epochs, scores, strict=True)])
    write_json(run.manifest, {"seconds": 4.0, "device": "cuda:0 (Some GPU)"})
    return run


def test_a_run_by_its_files(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/first")
    run = read_run(tmp_path / "runs/first")
    assert (run.state, run.device, run.seconds) == ("complete", "cuda:0 (Some GPU)", 4.0)
    assert run.score == 0.5
    assert run.best is not None
    assert run.best["epoch"] == 3  # the last of equal ones, as best.pt has


def test_every_state_is_told(tmp_path: Path) -> None:
    runs = {name: make_run(tmp_path / name) for name in ("complete", "stopped", "running", "diverged", "not begun")}
    for name, run in runs.items():
        if name != "complete":
            run.manifest.unlink()
    runs["diverged"].bad_batch.write_bytes(b"")
    runs["not begun"].metrics.unlink()
    with locked(runs["running"].root, RunError):
        assert {run.name: run.state for run in find_runs(tmp_path)} == {name: name for name in runs}
    assert read_run(runs["running"].root).state == "stopped"
    assert read_run(runs["not begun"].root).score is None


def test_runs_are_found_at_any_depth_and_named_by_their_path(tmp_path: Path) -> None:
    for name in ("a/b/first", "second"):
        make_run(tmp_path / "runs" / name)
    assert [run.name for run in find_runs(tmp_path / "runs")] == ["a/b/first", "second"]
    assert [run.name for run in find_runs(tmp_path / "runs/second")] == ["second"]
    named = named_runs([tmp_path / "runs/a", tmp_path / "runs/second"])
    assert [run.name for run in named] == ["a/b/first", str(tmp_path / "runs/second")]


def test_only_settings_that_differ_are_told(tmp_path: Path) -> None:
    other = replace(AUDIO, seed=7, optimiser=replace(AUDIO.optimiser, learning_rate=0.01))
    other = replace(other, compute=replace(other.compute, workers=5))
    runs = [read_run(make_run(tmp_path / str(i), settings).root) for i, settings in enumerate((AUDIO, other))]
    assert differing_settings(runs) == {"seed": ["0", "7"], "optimiser.learning-rate": ["0.001", "0.01"]}
    assert differing_settings(runs[:1]) == {}


def test_scores_beside_each_other(tmp_path: Path) -> None:
    runs = [read_run(make_run(tmp_path / str(i), scores=scores).root) for i, scores in enumerate(((0.1, 0.3), (0.4,)))]
    rows = {name: values for name, *values in best_scores(runs)}
    assert rows["fused"] == rows["audio"] == rows["Anger"] == [0.3, 0.4]


def test_a_table_that_is_none_is_named(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run")
    run.metrics.write_text("epoch,fused_f1\n1,none\n")
    with pytest.raises(RunError, match=r"metrics\.csv: is not a table of epochs"):
        find_runs(tmp_path)
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(RunError, match="holds no runs"):
        find_runs(empty)
    with pytest.raises(RunError, match="is not a folder"):
        find_runs(tmp_path / "absent")


def test_the_list_on_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    make_run(tmp_path / "runs/first")
    make_run(tmp_path / "runs/second", replace(AUDIO, seed=3), (0.6,))
    assert main(["runs", str(tmp_path / "runs")]) == 0
    shown = capsys.readouterr().out
    assert "first" in shown
    assert "0.6000" in shown
    assert "seed" in shown
    assert "Some GPU" in shown
    both = [str(tmp_path / "runs" / name) for name in ("first", "second")]
    assert main(["compare", "--runs", *both]) == 0
    captured = capsys.readouterr()
    assert "Surprise" in captured.out
    assert "too high" in captured.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["compare"], "compare needs two decisions with their outputs, or runs"),
        (["compare", "--runs", "{run}", "--decision", "d.json"], "compare needs two decisions"),
        (["compare", "--runs", "{run}"], "1 runs of the tasks expr"),
        (["compare", "--runs", "{run}", "{va}"], "2 runs of the tasks expr, va"),
        (["runs", "{run}/metrics.csv"], "is not a folder"),
    ],
)
def test_what_cannot_be_compared(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths = {"run": make_run(tmp_path / "run").root, "va": make_run(tmp_path / "va", replace(AUDIO, task="va")).root}
    assert main([word.format(**paths) for word in words]) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_curves_are_those_of_metrics(tmp_path: Path) -> None:
    make_run(tmp_path / "runs/first")
    make_run(tmp_path / "runs/second", replace(AUDIO, seed=3), (0.6, 0.7))
    make_run(tmp_path / "runs/va", replace(AUDIO, task="va"))
    runs = find_runs(tmp_path / "runs")
    assert [len(own) for own in by_task(runs).values()] == [2, 1]
    expr, va = runs_sections(runs)
    figures = [block for block in expr.blocks if isinstance(block, Figure)]
    assert [figure.title for figure in figures] == ["Macro F1 on validation", "Training loss", "Validation loss"]
    assert [key.name for key in figures[0].keys] == ["first", "second"]
    assert "first from 0.200 to 0.400; second from 0.600 to 0.700" in figures[0].summary
    tables = [block for block in expr.blocks if isinstance(block, Table)]
    assert [row[:4] for row in tables[0].rows] == [
        ("first", "complete", "4 of 1", 0.5),
        ("second", "complete", "2 of 1", 0.7),
    ]
    assert va.title == "VA: runs and learning curves"
    assert pd.read_csv(tmp_path / "runs/second/metrics.csv")["fused_f1"].tolist() == [0.6, 0.7]
