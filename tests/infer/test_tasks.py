"""`infer` with trained runs of every task: what it writes is the task's, by the decision of the task."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.media.decode import read_times
from abaw_expr.data.store.store import open_store
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.settings import DataSettings
from abaw_expr.tasks.task import AU, EXPR, TASKS, VA, Task
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import SETTINGS, fit
from tests.infer.test_pipeline import ANNE, COUNT, infer, video_file, voice

pytestmark = pytest.mark.slow  # trainings, and the real detector

RunOf = Callable[[Task], RunFolder]


@pytest.fixture(scope="module")
def run_of(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunOf:
    """A run of a task, trained for a few steps."""
    root, runs = tmp_path_factory.mktemp("tasks"), dict[str, RunFolder]()
    short = replace(SETTINGS.optimiser, epochs=1)

    def get(task: Task) -> RunFolder:
        if task.name not in runs:
            data = DataSettings(stride=3.0, val_stride=3.0)
            settings = replace(SETTINGS, task=task.name, data=data, optimiser=short)
            runs[task.name] = fit(open_store(store, task), root / task.name, settings)
        return runs[task.name]

    return get


@pytest.fixture(scope="module")
def anne(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return video_file(tmp_path_factory.mktemp("tasks") / "anne.mp4", (ANNE,), voice())


def decision(run: RunFolder, task: Task, path: Path, thresholds: tuple[float, ...] | None = None) -> Path:
    vote = Vote(tuple(load_checkpoint(run.best).prior))
    Decision({"audio": vote, "visual": vote}, task=task, thresholds=thresholds, smoothing=0.5).save(path)
    return path


@pytest.mark.parametrize("task", TASKS.values(), ids=TASKS)
def test_everything_is_written_in_the_tasks_way(
    task: Task, run_of: RunOf, anne: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert infer(anne, run_of(task), out, "--annotate") == 0
    table = pd.read_csv(out / "anne.csv")
    assert [*table.columns[: 3 + task.n_columns]] == ["frame", "time", "face", *task.columns]
    assert len(table) == COUNT
    low, high = (-1, 1) if task == VA else (0, 1)
    rows = table[list(task.columns)].to_numpy()
    assert ((rows >= low) & (rows <= high)).all()
    assert np.ptp(rows, axis=0).max() > 0
    with Image.open(out / "anne.png") as image:
        assert image.convert("L").getextrema() == (0, 255)
    assert len(read_times(out / "anne.annotated.mp4")) == COUNT
    headers = {"expr": "most frequent", "va": "mean valence", "au": "most frequent unit"}
    assert headers[task.name] in capsys.readouterr().out


def test_values_have_no_more_columns(run_of: RunOf, anne: Path, tmp_path: Path) -> None:
    run = run_of(VA)
    assert infer(anne, run, tmp_path / "out", "--decision", decision(run, VA, tmp_path / "va.json")) == 0
    assert [*pd.read_csv(tmp_path / "out/anne.csv").columns] == ["frame", "time", "face", "valence", "arousal"]


def test_the_thresholds_of_the_decision_are_applied(run_of: RunOf, anne: Path, tmp_path: Path) -> None:
    run, active = run_of(AU), [f"{name}_active" for name in AU.columns]
    assert infer(anne, run, tmp_path / "out") == 0
    table = pd.read_csv(tmp_path / "out/anne.csv")
    assert (table[active].to_numpy() == (table[list(AU.columns)] >= 0.5).to_numpy()).all()
    path = decision(run, AU, tmp_path / "au.json", (0.0, 1.0) * 6)
    assert infer(anne, run, tmp_path / "out", "--decision", path) == 0
    assert pd.read_csv(tmp_path / "out/anne.csv")[active].to_numpy().tolist() == [[1, 0] * 6] * COUNT


def test_the_decision_of_another_task_is_refused(
    run_of: RunOf, anne: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = decision(run_of(EXPR), EXPR, tmp_path / "decision.json")
    assert infer(anne, run_of(VA), tmp_path / "out", "--decision", path) == 2
    text = " ".join(capsys.readouterr().err.split())
    assert "decision.json: task cannot be used; found 'expr'; expected va" in text
    assert not (tmp_path / "out").exists()


def test_a_temporal_run_keeps_its_stride(store: Path, anne: Path, tmp_path: Path) -> None:
    run, settings = tmp_path / "run", ["--task", "va", "--optimiser.epochs", "1", "--data.stride", "0.5"]
    settings += ["--data.val-stride", "0.5", "--data.sequence", "4", "--compute.accelerator", "cpu"]
    settings += ["--branches.visual.encoder", "rhcnn", "--branches.visual.temporal", "lstm"]
    assert main(["train", str(store), "--run", str(run), *settings]) == 0
    assert infer(anne, RunFolder(run), tmp_path / "out") == 0
    assert infer(anne, RunFolder(run), tmp_path / "out", "--stride", "0.2") == 2
