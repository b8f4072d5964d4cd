"""Sweeps: every trial once, its exact figures, a diverging trial, killed workers, and what is left behind."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
import pytest
from optuna.trial import TrialState
from sklearn.metrics import f1_score, log_loss

from abaw_expr.commands.main import main
from abaw_expr.outputs.decision import untuned
from abaw_expr.outputs.table import Outputs, Source, branch_columns
from abaw_expr.settings import Settings
from abaw_expr.settings_file import flat_settings, load_settings, save_settings
from abaw_expr.tasks.task import AU
from tests.helpers.fitting import AUDIO
from tests.helpers.paths import ROOT
from tests.outputs.test_table import make_outputs, make_video
from tuning.study import SLOT, WORKER
from tuning.sweep import cross_entropy, measure

BASE = replace(AUDIO, data=replace(AUDIO.data, stride=2.0, val_stride=2.0))
SPACE = """
optimiser.learning-rate: {low: 1.0e-4, high: 1.0e-2, log: true}
model.dropout: {low: 0.0, high: 0.6}
loss.label-smoothing: [0.0, 0.1]
"""


def call(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """A space and the settings of every trial; curves, which take longer than an epoch of these, are not drawn."""
    monkeypatch.setattr("abaw_expr.training.loop.plot_curves", lambda history, task, path: path.write_bytes(b""))
    (tmp_path / "space.yaml").write_text(SPACE)
    save_settings(BASE, tmp_path / "base.yaml")
    return tmp_path / "space.yaml", tmp_path / "base.yaml"


def words_of(store: Path, files: tuple[Path, Path], out: Path, trials: int) -> list[object]:
    space, base = files
    more = ["--sampler", "random", "--trials", trials, "--heartbeat", 1, "--objective", "plain"]
    return ["sweep", store, "--space", space, "--settings", base, "--out", out, *more]


def test_what_a_trial_is_measured_by_is_scikit_learns() -> None:
    videos = [make_video(name, 60) for name in ("a", "b", "c")]
    outputs, settings = make_outputs(videos), Settings()
    found = measure(outputs, settings)
    labels = untuned(outputs, settings.weights)
    truth = np.concatenate([video.label for video in videos])
    predicted = np.concatenate([labels.labels(video) for video in outputs.videos()])[truth >= 0]
    expected = f1_score(truth[truth >= 0], predicted, average="macro", labels=range(8), zero_division=0)
    assert found["plain"] == pytest.approx(expected)
    assert found["tuned"] >= found["plain"]
    assert found["nested"] <= found["tuned"]


def test_the_cross_entropy_of_units_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    p, truth = rng.random((50, 12)).astype(np.float32), rng.integers(-1, 2, (50, 12)).astype(np.int8)
    columns = {"video": "a", "frame": np.arange(1, 51), "time": np.arange(50) / 10, "crop": True}
    columns |= dict(zip(branch_columns("visual", AU), p.T, strict=True))
    columns |= {f"label_{field.name}": truth[:, unit] for unit, field in enumerate(AU.fields)}
    source = Source("0123456789abcdef", (0.5,) * 12)
    outputs = Outputs(AU, pd.DataFrame(columns), "val", {"visual": source})
    known = truth >= 0
    assert cross_entropy(outputs, {"visual": 1}) == pytest.approx(log_loss(truth[known], p[known]), rel=1e-5)


@pytest.mark.slow
def test_the_command_searches_writes_and_goes_on(
    store: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert call(*words_of(store, files, out, 3)) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert "the best of 3 trials" in shown
    table = pd.read_csv(out / "table.csv")
    assert [*table["trial"]] == ["default", "trial 1", "trial 2"]
    assert set(table["state"]) <= {"complete", "ended early"}
    best, settings = json.loads((out / "best.json").read_text()), load_settings(out / "best.yaml")
    row = table[table["trial"] == best["best"]].iloc[0]
    assert row["plain"] == table["plain"].max() == best["plain"]
    flat = flat_settings(settings)
    assert {name: flat[name] for name in best["values"]} == best["values"]
    changed = {name for name, value in flat_settings(BASE).items() if flat[name] != value}
    assert changed <= {*best["values"], "compute.accelerator"}
    times = {path: path.stat().st_mtime_ns for path in out.glob("runs/*/checkpoints/last.pt")}
    assert call(*words_of(store, files, out, 3)) == 0
    assert {path: path.stat().st_mtime_ns for path in times} == times
    assert call(*words_of(store, files, out, 4)) == 0
    assert len(pd.read_csv(out / "table.csv")) == 4
    assert {path: path.stat().st_mtime_ns for path in times} == times


@pytest.mark.slow
def test_the_settings_as_they_are_are_the_first_trial_and_a_diverging_one_is_no_end(
    store: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    files[0].write_text("optimiser.learning-rate: [1.0e-3, 1.0e+30]\noptimiser.branch-learning-rate: [1.0e-3, 1.0e+30]")
    out = tmp_path / "out"
    assert call(*words_of(store, files, out, 1), "--sampler", "grid") == 0
    table = pd.read_csv(out / "table.csv")
    assert [*table["trial"]] == ["default", "trial 1", "trial 2", "trial 3"]
    assert table["state"].iloc[0] == "complete"
    assert "failed" in set(table["state"])
    assert table.loc[table["state"] == "failed", "reason"].str.contains("learning rate").all()


@pytest.mark.slow
def test_of_two_workers_one_is_killed_and_every_trial_is_done_once(
    store: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    out, trials = tmp_path / "out", 4
    line = [sys.executable, "-m", "abaw_expr", *map(str, words_of(store, files, out, trials)), "--pruner", "none"]
    workers = [subprocess.Popen(line, cwd=ROOT, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL) for _ in range(2)]
    try:
        while not [*out.glob("runs/*/settings.yaml")]:
            time.sleep(0.05)
            assert workers[0].poll() is None
        workers[0].send_signal(signal.SIGKILL)
        workers[0].wait()
        assert workers[1].wait() == 0
    finally:
        for worker in workers:
            worker.kill()
    url = f"sqlite:///{out / 'study.db'}"
    (name,) = optuna.get_all_study_names(url)
    study = optuna.load_study(study_name=name, storage=url)
    complete = study.get_trials(states=(TrialState.COMPLETE,))
    assert sorted(trial.user_attrs[SLOT] for trial in complete) == [*range(trials)]
    assert {trial.user_attrs[WORKER].rpartition(":")[2] for trial in complete} <= {str(one.pid) for one in workers}
    assert len(pd.read_csv(out / "table.csv")) == trials


def test_flags_that_cannot_be_are_named(
    store: Path, files: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(*words_of(store, files, tmp_path / "out", 0)) == 2
    assert "--trials cannot be used" in capsys.readouterr().err
    words = [*words_of(store, files, tmp_path / "out", 1)[:-1], "cross-entropy", "--task", "va"]
    assert call(*words) == 2
    assert "--objective cannot be used" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()
