"""Several processes of one run learn what one process does with the same batches."""

import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from subprocess import PIPE, STDOUT

import numpy as np
import pandas as pd
import pytest

from abaw_expr.data.batches.sampling import sample_epoch, split_steps, usable_frames
from abaw_expr.data.store.store import Store
from abaw_expr.errors import SettingsError, StoppedError
from abaw_expr.settings import ComputeSettings, DataSettings, LossSettings, ModelSettings, OptimiserSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.launch import join_slurm_step
from abaw_expr.training.parallel import strategy_of
from abaw_expr.training.run import RunFolder
from tests.helpers.branches import BRANCHES
from tests.helpers.commands import free_port, run_tasks
from tests.helpers.fitting import fit, in_processes, metrics, opened, scalars, send_at
from tests.helpers.paths import ROOT

SHARED = Settings(
    seed=2,
    # In float32 rounding alone, as one thread more makes it, turns a gradient of the picture branch by 1 in 100.
    precision="64-true",
    data=DataSettings(stride=0.6, val_stride=1.5, balance=0.5),
    model=ModelSettings(dropout=0.0),
    loss=LossSettings(class_weight=0.5, branch_weight=0.5),
    optimiser=OptimiserSettings("sgd", 1e-4, 1e-3, epochs=2, batch_size=3),
    compute=ComputeSettings(accelerator="cpu"),
)

SHORT = replace(
    SHARED.only(("audio",)),
    data=replace(SHARED.data, stride=1.5),
    optimiser=replace(SHARED.optimiser, epochs=1),
)
FEW_STEPS = 4
README = (ROOT / "abaw_expr/training/README.md").read_text()


@pytest.mark.slow
def test_two_processes_learn_what_one_does(store: Path, tmp_path: Path) -> None:
    frames = usable_frames(opened(store), "train", EXPR, BRANCHES)
    fractions = [len(part) for (part,) in split_steps(sample_epoch(frames, SHARED, 1), SHARED, 0, 2)]
    assert fractions == [1] * 10 + [0], "of a batch of 3 the first process takes 1, of the last, of 1, nothing"
    one, two = fit(opened(store), tmp_path / "one", SHARED), RunFolder(tmp_path / "two")
    done = in_processes(2, [store], two, SHARED)
    assert done.returncode == 0, done.stderr
    assert two.complete
    alone, together = scalars(one), scalars(two)
    assert [step for step, _ in together] == [step for step, _ in alone] == list(range(len(alone)))
    assert len(alone) >= 20
    apart = np.abs(np.subtract([loss for _, loss in together], [loss for _, loss in alone]))
    assert apart.max() <= 1e-5
    expected, found = metrics(one), metrics(two)
    scores = [name for name in expected if "f1" in name]
    assert len(scores) == 3 + 8
    assert (expected["fused_f1"] > 0).all(), "F1 of nothing would be equal to anything"
    pd.testing.assert_frame_equal(found[scores], expected[scores], check_exact=True)
    others = ["train_loss", "val_loss", "learning_rate", "steps", "epoch"]
    pd.testing.assert_frame_equal(found[others], expected[others], rtol=1e-5)
    half = replace(SHARED, optimiser=replace(SHARED.optimiser, learning_rate=5e-5, branch_learning_rate=5e-4))
    with pytest.raises(StoppedError):
        fit(opened(store), tmp_path / "half", half, progress=send_at(FEW_STEPS, signal.SIGTERM))
    wrong = scalars(RunFolder(tmp_path / "half"))
    assert len(wrong) == FEW_STEPS
    apart = np.abs(np.subtract([loss for _, loss in wrong], [loss for _, loss in alone[: len(wrong)]]))
    assert apart.max() > 1e-3, "gradients of half the size would be seen"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("F1 fused") == 1, "the first process speaks"


def _line(port: int) -> list[str]:
    """The README's command for several machines, on this one."""
    (line,) = [line for line in README.splitlines() if line.startswith("    torchrun ")]
    line = line.replace("--nproc-per-node 8", "--nproc-per-node 1").replace("HOST:29400", f"localhost:{port}")
    program, *rest = line.split()
    return [str(Path(sys.executable).with_name(program)), *rest]


@pytest.fixture
def folder(store: Path, tmp_path: Path) -> Path:
    """A working directory with a store and a recipe for several."""
    (tmp_path / "store").symlink_to(store)
    save_settings(SHORT, tmp_path / "short.yaml")
    return tmp_path


@pytest.fixture(scope="module")
def alone(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """The run of that recipe by one process."""
    return fit(corpus, tmp_path_factory.mktemp("parallel") / "one", SHORT)


def _assert_one_run(told: Sequence[str], folder: Path, alone: RunFolder) -> None:
    assert sum(text.count("F1 fused") for text in told) == 1, "the first process speaks"
    together, expected = scalars(RunFolder(folder / "runs/first")), scalars(alone)
    assert [step for step, _ in together] == [step for step, _ in expected]
    np.testing.assert_allclose([loss for _, loss in together], [loss for _, loss in expected], atol=1e-5)


@pytest.mark.slow
def test_the_readmes_line_for_several_machines_trains_one_run(folder: Path, alone: RunFolder) -> None:
    line = [*_line(free_port()), "--settings", "short.yaml"]
    env = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ["PYTHONPATH"]])}
    nodes = [subprocess.Popen(line, cwd=folder, env=env, stdout=PIPE, stderr=STDOUT, text=True) for _ in range(2)]
    told = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], told
    _assert_one_run(told, folder, alone)


@pytest.mark.slow
def test_tasks_of_slurm_train_one_run(folder: Path, alone: RunFolder) -> None:
    words = ["train", "--store", "store", "--run", "runs/first", "--settings", "short.yaml"]
    _assert_one_run(run_tasks(2, words, folder, at=folder), folder, alone)


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("node[07-09,12]", "node07"), ("a1,b2", "a1"), ("gpu5", "gpu5"), ("rack2-n[3]x,other", "rack2-n3x")],
)
def test_the_first_of_slurms_hosts_is_where_they_meet(nodes: str, first: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _as_task(monkeypatch, SLURM_STEP_NUM_TASKS="8", SLURM_STEP_TASKS_PER_NODE="4(x2)", SLURM_STEP_NODELIST=nodes)
    join_slurm_step()
    found = {name: os.environ[name] for name in ("MASTER_ADDR", "WORLD_SIZE", "LOCAL_WORLD_SIZE", "RANK", "LOCAL_RANK")}
    assert found == {"MASTER_ADDR": first, "WORLD_SIZE": "8", "LOCAL_WORLD_SIZE": "4", "RANK": "5", "LOCAL_RANK": "1"}
    assert strategy_of(ComputeSettings())["num_nodes"] == 2


def test_tasks_of_slurm_that_cannot_be_one_run_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    _as_task(monkeypatch, SLURM_STEP_NUM_TASKS="3", SLURM_STEP_TASKS_PER_NODE="2,1", SLURM_STEP_NODELIST="n[1-2]")
    with pytest.raises(SettingsError, match=r"different numbers of tasks.*--ntasks-per-node"):
        join_slurm_step()
    monkeypatch.delenv("SLURM_STEP_NODELIST")
    with pytest.raises(SettingsError, match=r"of the step are not set; found 'no SLURM_STEP_NODELIST'.*srun"):
        join_slurm_step()
    monkeypatch.delenv("SLURM_STEP_NUM_TASKS")
    with pytest.raises(SettingsError, match="one of several tasks of SLURM"):
        join_slurm_step()
    monkeypatch.setenv("SLURM_PROCID", "0")  # of a job's script, which is one process
    join_slurm_step()
    assert "RANK" not in os.environ


def _as_task(monkeypatch: pytest.MonkeyPatch, **variables: str) -> None:
    """The environment of one task of a step; afterwards it is as it was."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "GROUP_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "")
    monkeypatch.delenv("TORCHELASTIC_RUN_ID")
    for name, value in {**variables, "SLURM_PROCID": "5", "SLURM_LOCALID": "1", "SLURM_NODEID": "1"}.items():
        monkeypatch.setenv(name, value)


def test_parts_of_a_batch_need_the_number_of_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=r"--compute\.micro-batch needs the number of processes.*--devices"):
        strategy_of(ComputeSettings(micro_batch=4))
    assert strategy_of(ComputeSettings(micro_batch=4, devices=2))["devices"] == 2


@pytest.mark.parametrize(("devices", "nodes"), [(3, 1), (2, 2)])
def test_settings_for_another_number_of_processes_are_refused(
    devices: int, nodes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in (("TORCHELASTIC_RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "2")):
        monkeypatch.setenv(name, value)
    with pytest.raises(SettingsError, match=f"2 processes, and settings for {devices * nodes}.*Leave out --devices"):
        strategy_of(ComputeSettings(devices=devices, nodes=nodes))
    assert strategy_of(ComputeSettings())["devices"] == 2
    assert strategy_of(ComputeSettings(devices=2))["num_nodes"] == 1
