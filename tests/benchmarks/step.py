"""A training step, and how much of an epoch is spent waiting for data.

    python -m tests.benchmarks.step [--store STORE] [--batch SAMPLES] [--compile]

Baseline: the same networks in plain eager float32, channels first, every sample with its own window of sound. Ours: as
the training loop has them, by Fabric in the machine's native precision, channels last, neighbouring windows in chunks
of sound. Both make forward, loss, backward and optimiser step of the same samples, which lie on the device already. On
a CPU two epochs are then trained with two workers. Exit status 1 when short.

    cd TREE && PYTHONPATH=. python .../tests/benchmarks/step.py

The same script measures another tree, as far back as 43dc4cb, on the same machine: networks and losses that were
rewritten are as fast as those before where a step of ours takes as many ms.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import tyro
from torch import Tensor, nn

from abaw_expr.commands import console
from abaw_expr.data.batches.audio_chunks import Cut, cut_for_training, merged_windows
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import Samples
from abaw_expr.data.batches.sampling import UsableFrames, sample_epoch, usable_frames
from abaw_expr.data.batches.windows import Batch, Windows
from abaw_expr.data.store.store import Store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.models.describe import describe
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.network import Network, build_network
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.evaluation import build_fabric
from abaw_expr.training.optimiser import build_optimiser
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import Race, corpus, judge, print_facts, race

NEIGHBOURS = 4
REQUIRED = {"cpu": 1.5, "cuda": 3.0}
MOST_WAITING = 0.05
TURNS = 15
PEAK = 790e12
"""Floating-point operations a second of an H200 in bf16, measured by large dense products."""
EVEN = [1 / EXPR.n_columns] * EXPR.n_columns
"""Shares of the classes; no step's time depends on them."""
Loss = Callable[[nn.Module, Batch, dict[str, Tensor], dict[str, Tensor]], Tensor]
"""Forward pass and loss of a batch, whose inputs and windows may be given otherwise."""


class Tree:
    """What a step is made of in this tree; modules that an earlier tree lacks are imported here only."""

    def frames(self, store: Store, settings: Settings) -> UsableFrames:
        """The frames that are trained on."""
        return usable_frames(store, "train", EXPR, ["audio", "visual"])

    def read(self, frames: UsableFrames, samples: Samples, settings: Settings, cut: Cut, device: torch.device) -> Batch:
        """A batch on the device, augmented."""
        from abaw_expr.data.batches.windows import modalities

        read = modalities(["audio", "visual"], settings.data, {"audio": cut})
        windows = Windows(frames.frame_index, read, Augment(settings.augment))
        return windows.on(device, windows[samples])

    def network(self, settings: Settings) -> Network:
        """The network with fresh weights."""
        return build_network(settings)

    def loss(self, settings: Settings, device: torch.device) -> Loss:
        """The loss of training."""
        from abaw_expr.models.objectives import build_objective

        criterion = build_objective(settings, EVEN).to(device)

        def loss(module: nn.Module, batch: Batch, inputs: dict[str, Tensor], windows: dict[str, Tensor]) -> Tensor:
            votes = module(inputs, batch.rows, windows, batch.valid)
            counts = criterion.counts({name: batch.present([name]) for name in inputs}, batch.target)
            found: Tensor = criterion(votes, batch.target, counts)
            return found

        return loss

    def costs(self, settings: Settings) -> dict[str, int]:
        """Multiply-adds of a sample by encoder."""
        found: dict[str, int] = describe(settings)["multiply_adds"]
        return found


class EarlierTree(Tree):
    """The same of a tree without objectives, up to 43dc4cb."""

    def frames(self, store: Store, settings: Settings) -> UsableFrames:
        usable: Any = usable_frames
        found: UsableFrames = usable(store, "train", settings)
        return found

    def read(self, frames: UsableFrames, samples: Samples, settings: Settings, cut: Cut, device: torch.device) -> Batch:
        windows: Any = Windows
        augment = Augment(settings.augment)
        found: Batch = windows(frames.frame_index, settings.data, cut, augment)[samples].to(device, augment)
        return found

    def network(self, settings: Settings) -> Network:
        build: Any = build_network
        found: Network = build(settings.model, EXPR.n_columns)
        return found

    def loss(self, settings: Settings, device: torch.device) -> Loss:
        losses: Any = import_module("abaw_expr.models.losses")
        criterion = losses.CoarseFineLoss(settings.loss, EVEN).to(device)

        def loss(module: nn.Module, batch: Any, inputs: dict[str, Tensor], windows: dict[str, Tensor]) -> Tensor:
            log_p = module(inputs, batch.rows, windows, len(batch))
            found: Tensor = criterion(log_p, batch.present, batch.label, losses.sample_counts(batch.present))
            return found

        return loss

    def costs(self, settings: Settings) -> dict[str, int]:
        described: Any = describe
        found: dict[str, int] = described(settings.model)["multiply_adds"]
        return found


TREE = Tree() if find_spec("abaw_expr.models.objectives") else EarlierTree()


def settings_for(batch: int, compiled: bool) -> Settings:
    """The recipe `modern` with neighbours; `batch` samples a step (0: the recipe's on a CPU, 1,024 on a GPU)."""
    settings = load_settings(recipe("modern"))
    size = batch or (1024 if torch.cuda.is_available() else settings.optimiser.batch_size)
    return replace(
        settings,
        data=replace(settings.data, sequence=NEIGHBOURS),
        optimiser=replace(settings.optimiser, batch_size=size),
        compute=replace(settings.compute, compile=compiled),
    )


def read(store: Store, settings: Settings, cut: Cut) -> Batch:
    """A batch as an epoch begins with, or of as many epochs as it takes, on the device and augmented."""
    frames, size = TREE.frames(store, settings), settings.optimiser.batch_size
    enough = 1 + size // len(sample_epoch(frames, settings, 1))
    samples = [sample_epoch(frames, settings, epoch) for epoch in range(1, 1 + enough)]
    indices, noise = (np.concatenate([getattr(one, name) for one in samples])[:size] for name in ("indices", "noise"))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return TREE.read(frames, Samples(indices, noise), settings, cut, device)


def plain_step(batch: Batch, settings: Settings) -> Callable[[], None]:
    """The baseline."""
    device = batch.inputs["audio"].device
    network = TREE.network(settings).to(device)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    audio = batch.inputs["audio"][batch.windows["audio"][:, 0]]  # frames of one step share a window: no longer
    inputs = {"audio": audio.contiguous().unsqueeze(1), "visual": batch.inputs["visual"].contiguous()}
    optimiser, loss = build_optimiser(network, settings.optimiser), TREE.loss(settings, device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        loss(network, batch, inputs, {}).backward()
        optimiser.step()

    return step


def our_step(batch: Batch, settings: Settings) -> Callable[[], None]:
    """What the training loop does with a batch of one part."""
    fabric = build_fabric(settings)
    network = TREE.network(settings)
    if settings.compute.compile:
        network.compile_encoders()
    module, optimiser = fabric.setup(network, build_optimiser(network, settings.optimiser))
    loss = TREE.loss(settings, fabric.device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        fabric.backward(loss(module, batch, batch.inputs, batch.windows))
        optimiser.step()

    return step


def operations(batch: Batch, settings: Settings) -> float:
    """Floating-point operations of a step: 2 a multiply-add, and backward twice as many as forward."""
    cost = TREE.costs(settings)
    pictures, audio = batch.inputs["visual"], batch.inputs["audio"]
    windows = (
        audio.shape[0] * audio.shape[2] / AUDIO_WINDOW.steps
    )  # of sound that is run, chunks with all that is in them
    return 6 * (cost["rhcnn"] * pictures.shape[0] * pictures.shape[1] + cost["mcnn"] * windows)


def waiting(store: Store) -> tuple[float, float]:
    """Share of the second epoch's time that a real run waits for data with two workers, and its seconds."""
    with tempfile.TemporaryDirectory() as folder:
        run = RunFolder(Path(folder) / "run")
        words = f"--settings modern --data.sequence {NEIGHBOURS} --data.stride 0 --data.val-stride 1"
        words += " --optimiser.epochs 2 --compute.accelerator cpu --compute.workers 2"
        command = [sys.executable, "-m", "abaw_expr", "train", "--store", str(store.root), "--run", str(run.root)]
        subprocess.run([*command, *words.split()], check=True, stdout=subprocess.DEVNULL)
        last = pd.read_csv(run.metrics).iloc[-1]
    return float(last["waiting"]), float(last["seconds"])


def print_steps(settings: Settings, batches: tuple[Batch, Batch], raced: Race) -> None:
    """Prints both speeds and, on a GPU, the share of its peak."""
    rows = []
    for name, batch, seconds in zip(("baseline", "ours"), batches, raced, strict=False):
        peak = operations(batch, settings) / seconds / PEAK if torch.cuda.is_available() else None
        rows.append((name, round(len(batch) / seconds), 1e3 * seconds, peak))
    columns = ("", "samples/s", "ms a step", "share of an H200's bf16 peak")
    console.table(f"Training step of {settings.optimiser.batch_size} samples, both branches", columns, rows)


def benchmark(store: Path | None = None, batch: int = 0, compile: bool = False) -> int:  # noqa: A002
    """Runs everything, prints the tables and the verdict, and returns the exit status.

    Args:
        store: A prepared store to read, a small one: every frame is trained on, twice; else one is made up.
        batch: Samples a step; 0: the recipe's on a CPU, 1,024 on a GPU.
        compile: Have our encoders compiled.
    """
    settings = settings_for(batch, compile)
    with corpus(store, CorpusPlan(train_videos=12, val_videos=2, test_videos=1, seconds=45)) as opened:
        batches = (
            read(opened, settings, merged_windows(AUDIO_WINDOW, 0.0)),
            read(opened, settings, cut_for_training(settings.data, AUDIO_WINDOW)),
        )
        raced = race(plain_step(batches[0], settings), our_step(batches[1], settings), TURNS)
        print_facts()
        print_steps(settings, batches, raced)
        device = batches[0].inputs["audio"].device.type
        claims = [(raced.ratio >= REQUIRED[device], f"{raced.ratio:.2f} times plain, required {REQUIRED[device]:g}")]
        if device == "cpu":
            share, seconds = waiting(opened)
            claim = f"{share:.1%} of an epoch of {seconds:.0f} s is waiting for data, allowed {MOST_WAITING:.0%}"
            claims.append((share < MOST_WAITING, claim))
    return judge(*claims)


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
