"""Every combination of task, branches and temporal model, as the registries have them.

Shapes: B samples, F fields of a task.
"""

import os
import signal
from dataclasses import dataclass, replace
from itertools import cycle
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from abaw_expr.data.store.store import open_store
from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.models.join import JOINS
from abaw_expr.models.temporal import NO_TEMPORAL, TEMPORALS
from abaw_expr.settings import (
    BranchSettings,
    ComputeSettings,
    DataSettings,
    LossSettings,
    ModelSettings,
    OptimiserSettings,
    Settings,
    StreamSettings,
)
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import TASKS, Task
from abaw_expr.training.run import RunFolder
from tests.helpers.commands import Forked, run_tasks
from tests.helpers.fitting import assert_same_run, fit, scalars

LATE = "late fusion"
SEQUENCE = 4
QUICK = ("mcnn", "rhcnn")
"""Encoders that take small inputs, and so are tested in every combination."""
HUGE = ("vggish", "vgg-logmel")
"""Encoders of 72 million parameters, which are not trained here."""
LARGE = [name for name in ENCODERS if name not in (*QUICK, *HUGE)]
"""Encoders that need inputs of their full size: tested alone."""


@dataclass(frozen=True)
class Combination:
    """One of them."""

    task: str
    branches: str
    """The name of an encoder alone, of a join, or `LATE`."""
    temporal: str

    def __str__(self) -> str:
        return f"{self.task}, {self.branches}, {self.temporal}"

    @property
    def views(self) -> dict[str, tuple[int, int, int]]:
        """Shapes of one view, [C, H, W] by modality: small ones where the encoder takes them."""
        if self.branches not in LARGE:
            return {"audio": (1, 32, 32), "visual": (3, 32, 32)}
        with torch.device("meta"):
            encoder = ENCODERS[self.branches](ModelSettings())
        return {encoder.modality: encoder.input_shape}

    def settings(self, precision: Literal["32-true", "64-true"] = "32-true") -> Settings:
        """Small and quick settings, without attention and dropout."""
        return Settings(
            task=self.task,
            precision=precision,
            branches=self._branches(),
            data=DataSettings(stride=0.5, val_stride=3.0, sequence=SEQUENCE),
            model=ModelSettings(attention=False, dropout=0.0),
            loss=LossSettings(branch_weight=0.5),
            optimiser=OptimiserSettings("adamw", 1e-3, 1e-3, epochs=2, batch_size=8, ema_decay=0.5),
            compute=ComputeSettings(accelerator="cpu", save_every=0),
        )

    def _branches(self) -> dict[str, BranchSettings]:
        if self.branches in JOINS:
            streams = {name: StreamSettings(name) for name in QUICK}
            return {"joint": BranchSettings(streams=streams, join=self.branches, temporal=self.temporal)}
        names = QUICK if self.branches == LATE else [self.branches]
        return {name: BranchSettings(name, temporal=self.temporal) for name in names}


def combinations() -> list[Combination]:
    """All of them, but for large encoders."""
    return [
        Combination(task, branches, temporal)
        for branches in (*QUICK, LATE, *JOINS)
        for temporal in (NO_TEMPORAL, *TEMPORALS)
        for task in TASKS
    ]


def large() -> list[Combination]:
    """Each large encoder alone, without a temporal model, with one of the tasks in turn."""
    return [Combination(task, name, NO_TEMPORAL) for name, task in zip(LARGE, cycle(TASKS), strict=False)]


def some() -> list[Combination]:
    """Every branches with every temporal model, each with one of the tasks in turn."""
    count = len(TASKS)
    return [one for number, one in enumerate(combinations()) if number % count == number // count % count]


def made_up_target(task: Task, samples: int) -> tuple[Tensor, list[float]]:
    """A target of B samples, of which the second is not annotated and the third in part; and its mean label."""
    generator = torch.Generator().manual_seed(1)
    if task.one_class:
        target = torch.randint(task.n_columns, (samples,), generator=generator)
        target[1] = -1
        return target, [1 / task.n_columns] * task.n_columns
    target = torch.rand(samples, task.n_columns, generator=generator)
    target = target * 1.6 - 0.8 if task.kind == "values" else (target > 0.5).float()
    target[1], target[2, 0] = torch.nan, torch.nan
    return target, [0.0 if task.kind == "values" else 0.5] * task.n_columns


def check_resume(one: Combination, store: Path, folder: Path) -> None:
    """A run that is killed within its second epoch ends as an undisturbed one."""
    settings, opened = one.settings(), open_store(store, one.settings().task_of)
    killed = RunFolder(folder / "killed")
    steps: list[int] = []
    undisturbed = fit(opened, folder / "undisturbed", settings, progress=lambda done, total: steps.append(total))
    at = steps[0] // 2 + 2
    child = Forked(train_and_be_killed, one, store, killed, at, printed=folder / "killed.txt")
    assert child.wait() == -signal.SIGKILL, child.text
    assert killed.last.exists()
    assert not killed.complete
    fit(opened, killed.root, settings, resume=True)
    assert_same_run(undisturbed, killed)


def check_processes(one: Combination, store: Path, folder: Path, steps: int = 20) -> None:
    """Two processes have the losses of one, within 1e-5 over that many steps."""
    whole = steps >= 20
    data = replace(one.settings().data, stride=0.15 if whole else 0.5, val_stride=3.0)
    settings = replace(one.settings("64-true"), data=data)
    # At a small rate: at 1e-3 the rounding of float64 grows by 1e8 in 20 steps, through BN over one or two samples.
    plain = OptimiserSettings("sgd", 1e-5, 1e-5, epochs=2 if whole else 1, batch_size=8)
    settings = replace(settings, optimiser=plain, compute=replace(settings.compute, save_every=300))
    alone = fit(open_store(store, settings.task_of), folder / "one", settings)
    shared = RunFolder(folder / "two")
    recipe = folder / "two.yaml"
    save_settings(settings, recipe)
    run_tasks(2, ["train", "--store", store, "--run", shared.root, "--settings", recipe], folder)
    expected, found = np.array(scalars(alone))[:steps], np.array(scalars(shared))[:steps]
    assert len(expected) == steps
    np.testing.assert_allclose(found, expected, atol=1e-5)


def train_and_be_killed(one: Combination, store: Path, run: RunFolder, step: int) -> None:
    """Trains, and kills this process after a step of the run, counted from 1."""

    def kill(done: int, total: int) -> None:
        if done == step:
            os.kill(os.getpid(), signal.SIGKILL)

    fit(open_store(store, one.settings().task_of), run.root, one.settings(), progress=kill)
