"""Short training runs on the shared store, and what many tests ask of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from abaw_expr.commands import console
from abaw_expr.commands.main import main
from abaw_expr.data.store.store import Store, open_store
from abaw_expr.settings import BranchSettings, ComputeSettings, DataSettings, OptimiserSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training import loop
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import Epoch, RunFolder
from tests.helpers.paths import ROOT

torch.set_num_threads(1)

SETTINGS = Settings(
    precision="32-true",
    data=DataSettings(stride=1.0, val_stride=1.0, balance=0.5),
    optimiser=OptimiserSettings("adamw", 1e-3, 1e-3, weight_decay=0.05, schedule="one-cycle", epochs=3, batch_size=16),
    compute=ComputeSettings(accelerator="cpu"),
)
AUDIO = replace(
    SETTINGS,
    branches={"audio": BranchSettings("mcnn")},
    optimiser=replace(SETTINGS.optimiser, epochs=1),
)
STEPS = replace(AUDIO, optimiser=replace(AUDIO.optimiser, epochs=2, batch_size=4, ema_decay=0.5))
"""Two epochs of several steps each, with a moving mean: a run to be disturbed."""
TIMINGS = ["waiting", "seconds"]


def opened(root: Path) -> Store:
    return open_store(root, EXPR)


def fit(
    store: Store,
    root: Path,
    settings: Settings = SETTINGS,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
    progress: Callable[[int, int], None] = lambda done, total: None,
    initial_weights: Sequence[Path] = (),
    curves: bool = False,
) -> RunFolder:
    """The run, whose picture of curves is drawn only if asked for: it takes longer than an epoch of these."""
    run = RunFolder(root)
    with pytest.MonkeyPatch.context() as patch:
        if not curves:
            patch.setattr(loop, "plot_curves", lambda history, task, path: path.write_bytes(b""))
        loop.train(store, run, settings, resume, on_epoch, progress, initial_weights)
    return run


def in_processes(
    count: int, stores: Sequence[Path | str], run: RunFolder, settings: Settings
) -> subprocess.CompletedProcess[str]:
    """Trains into a new run by the command line, in that many processes of this machine."""
    recipe = run.root.with_suffix(".yaml")
    save_settings(settings, recipe)
    arguments = [
        "--store",
        *map(str, stores),
        "--run",
        str(run.root),
        "--settings",
        str(recipe),
        "--devices",
        str(count),
    ]
    return subprocess.run(
        [sys.executable, "-m", "abaw_expr", "train", *arguments],
        cwd=ROOT,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def send_at(step: int, number: int) -> Callable[[int, int], None]:
    """A `progress` that sends this process a signal after a step of the run, counted from 1."""
    return lambda done, total: os.kill(os.getpid(), number) if done == step else None


def stopped_train(
    monkeypatch: pytest.MonkeyPatch, step: int, arguments: Sequence[object], number: int = signal.SIGTERM
) -> int:
    """The exit status of the command `train`, sent a signal after a step of the run."""

    @contextmanager
    def progress(what: str) -> Iterator[Callable[[int, int], None]]:
        yield send_at(step, number)

    with monkeypatch.context() as patch:
        patch.setattr(console, "progress", progress)
        status = main(["train", *map(str, arguments)])
    next_second()
    return status


def next_second() -> None:
    """Waits for a new second: TensorBoard reads event files in the order of their names, which have the second."""
    time.sleep(1 - time.time() % 1)


def metrics(run: RunFolder) -> pd.DataFrame:
    return pd.read_csv(run.metrics)


def scalars(run: RunFolder, name: str = "step/loss") -> list[tuple[int, float]]:
    """(step, value) of every event of that name, as TensorBoard shows them."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run.events))
    events.Reload()
    return [(event.step, event.value) for event in events.Scalars(name)]


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit, the moving mean and the optimiser's state too."""
    first, second = load_checkpoint(one), load_checkpoint(other)
    for mine, theirs in ((first.network, second.network), (first.ema, second.ema)):
        assert mine.keys() == theirs.keys()
        for name, tensor in mine.items():
            assert torch.equal(tensor, theirs[name]), name
    states, others = first.optimiser.get("state", {}), second.optimiser.get("state", {})
    assert states.keys() == others.keys()
    for key, state in states.items():
        for name, value in state.items():
            assert torch.equal(value, others[key][name]), (key, name)


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    """Equal but for what they took in time."""
    assert one.complete
    assert other.complete
    assert_same_weights(one.last, other.last)
    assert_same_weights(one.best, other.best)
    pd.testing.assert_frame_equal(metrics(one).drop(columns=TIMINGS), metrics(other).drop(columns=TIMINGS))


def made_epoch(number: int, f1: float) -> Epoch:
    """An epoch of a run of the audio branch, whose classes all have this F1."""
    return Epoch(
        epoch=number,
        steps=5,
        learning_rate=1e-3,
        train_loss=2.0,
        val_loss=2.1,
        metric="f1",
        scores={"audio": 0.2, "fused": 0.2},
        columns=dict.fromkeys(EXPR.columns, f1),
        waiting=0.0,
        seconds=1.0,
    )
