"""Several processes of one run learn what one process does with the same batches."""

import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw_expr.errors import SettingsError
from abaw_expr.settings import (
    ComputeSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    Settings,
    save_settings,
)
from abaw_expr.training.parallel import strategy_of
from abaw_expr.training.run import RunFolder
from abaw_expr.training.sampling import draw_epoch, split_steps, usable_frames
from tests.fitting import fit, metrics, opened, scalars

SHARED = Settings(
    seed=2,
    # In float32 rounding alone, as one thread more makes it, turns a gradient of the picture branch by 1 in 100.
    precision="64-true",
    data=DataSettings(interval=0.6, val_interval=0.5, balance=0.5),
    model=ModelSettings(dropout=0.0),
    loss=LossSettings(class_weight=0.5, branch_weight=0.5),
    optimiser=OptimiserSettings("sgd", 1e-4, 1e-3, epochs=2, batch_size=3),
    compute=ComputeSettings(accelerator="cpu"),
)


def in_processes(
    count: int, stores: Sequence[Path | str], run: RunFolder, settings: Settings
) -> subprocess.CompletedProcess[str]:
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
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )


def test_two_processes_learn_what_one_does(store: Path, tmp_path: Path) -> None:
    frames = usable_frames(opened(store), "train", SHARED)
    shares = [len(part) for (part,) in split_steps(draw_epoch(frames, SHARED, 1), SHARED, 0, 2)]
    assert shares == [1] * 10 + [0], "of a batch of 3 the first process takes 1, of the last, of 1, nothing"
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
    half = replace(SHARED.optimiser, learning_rate=5e-5, branch_learning_rate=5e-4, epochs=1)
    wrong = scalars(fit(opened(store), tmp_path / "half", replace(SHARED, optimiser=half)))
    apart = np.abs(np.subtract([loss for _, loss in wrong], [loss for _, loss in alone[: len(wrong)]]))
    assert apart.max() > 1e-3, "gradients of half the size would be seen"
    assert "Traceback" not in done.stderr
    assert done.stderr.count("(macro F1)") == 1, "the first process speaks"


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
