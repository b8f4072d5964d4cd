"""A training step, and how much of an epoch is spent waiting for data.

    python -m tests.benchmarks.step [--store STORE] [--batch SAMPLES] [--compile]

Baseline: the same networks in plain eager float32, channels first, every sample with its own window of sound. Ours: as
the training loop has them, by Fabric in the machine's native precision, channels last, neighbouring windows in chunks
of sound. Both make forward, loss, backward and optimiser step of the same samples, which lie on the device already. On
a CPU two epochs are then trained with two workers. Exit status 1 when short.
"""

import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import tyro

from abaw_expr.commands import console
from abaw_expr.data.batches.audio_chunks import Cut, cut_for_training, merged_windows
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import Samples
from abaw_expr.data.batches.sampling import sample_epoch, usable_frames
from abaw_expr.data.batches.windows import Batch, Windows
from abaw_expr.data.store.store import Store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.models.describe import describe
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.losses import CoarseFineLoss, sample_counts
from abaw_expr.models.network import build_network
from abaw_expr.settings import Settings, load_settings, recipe
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
    frames, size = usable_frames(store, "train", settings), settings.optimiser.batch_size
    enough = 1 + size // len(sample_epoch(frames, settings, 1))
    samples = [sample_epoch(frames, settings, epoch) for epoch in range(1, 1 + enough)]
    indices, noise = (np.concatenate([getattr(one, name) for one in samples])[:size] for name in ("indices", "noise"))
    device, augment = torch.device("cuda" if torch.cuda.is_available() else "cpu"), Augment(settings.augment)
    return Windows(frames.frame_index, settings.data, cut, augment)[Samples(indices, noise)].to(device, augment)


def plain_step(batch: Batch, settings: Settings) -> Callable[[], None]:
    """The baseline."""
    network = build_network(settings.model, EXPR.n_columns).to(batch.label.device)
    network.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
    audio = batch.inputs["audio"][batch.windows["audio"][:, 0]]  # frames of one step share a window: no longer
    inputs = {"audio": audio.contiguous(), "visual": batch.inputs["visual"].contiguous()}
    optimiser = build_optimiser(network, settings.optimiser)
    criterion = CoarseFineLoss(settings.loss, EVEN).to(batch.label.device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        log_p = network(inputs, batch.rows, {}, len(batch))
        criterion(log_p, batch.present, batch.label).backward()
        optimiser.step()

    return step


def our_step(batch: Batch, settings: Settings) -> Callable[[], None]:
    """What the training loop does with a batch of one part."""
    fabric = build_fabric(settings)
    network = build_network(settings.model, EXPR.n_columns)
    if settings.compute.compile:
        network.compile_encoders()
    module, optimiser = fabric.setup(network, build_optimiser(network, settings.optimiser))
    criterion = CoarseFineLoss(settings.loss, EVEN).to(fabric.device)

    def step() -> None:
        optimiser.zero_grad(set_to_none=True)
        log_p = module(batch.inputs, batch.rows, batch.windows, len(batch))
        fabric.backward(criterion(log_p, batch.present, batch.label, sample_counts(batch.present)))
        optimiser.step()

    return step


def operations(batch: Batch, settings: Settings) -> float:
    """Floating-point operations of a step: 2 a multiply-add, and backward twice as many as forward."""
    cost = describe(settings.model)["multiply_adds"]
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
        device = batches[0].label.device.type
        claims = [(raced.ratio >= REQUIRED[device], f"{raced.ratio:.2f} times plain, required {REQUIRED[device]:g}")]
        if device == "cpu":
            share, seconds = waiting(opened)
            claim = f"{share:.1%} of an epoch of {seconds:.0f} s is waiting for data, allowed {MOST_WAITING:.0%}"
            claims.append((share < MOST_WAITING, claim))
    return judge(*claims)


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
