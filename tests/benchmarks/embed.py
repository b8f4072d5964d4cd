"""Embeddings: how fast they are made, and how fast a model over time is trained on them.

    python -m tests.benchmarks.embed [made] [killed] [trained]

About 15 minutes on 2 cores. Exit status 1 when short.

- `made`: frames a second of `embed`, from the store to the rows on disk, against the bare forward pass of the same
  encoder, front end and network, in the same batches, on crops that are tensors in memory. One process, one thread, in
  turns, a small and a large network without trained weights. Required: 0.9.
- `killed`: ten SIGKILLs at random moments of `embed`, by two processes, and then to the end: the same bytes as
  undisturbed. Once more: nothing is done.
- `trained`: an epoch of the recipe `va-tcn` on made-up embeddings of 600,000 frames (512, 128 and 256 features), with
  its validation. Required: under 3 minutes, every process under 3 GB.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import chain
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import torch
import tyro

from abaw_expr.commands import console
from abaw_expr.data.store.embeddings import EMBEDDINGS, write_entry, write_manifest
from abaw_expr.data.store.store import Store, open_store
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.files import file_digest
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.models.network import fold_batch_norm
from abaw_expr.settings import ModelSettings, StreamSettings
from abaw_expr.tasks.task import VA
from abaw_expr.training.embed import embed
from abaw_expr.training.embedding_source import Source
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import Race, corpus, judge, print_facts, print_races, race
from tests.benchmarks.memory import FRAMES, MEGABYTE, memory, processes, write_store

NETWORKS = {"small": "timm:mobilenetv3_small_100", "large": "timm:resnet50"}
TURNS, BATCH, KILLS = 3, 16, 10
WIDTHS = {"faces": 512, "vggish": 128, "logmel": 256}
LEAST, MOST_SECONDS, MOST_BYTES = 0.9, 180.0, 3e9


def forward_against_embed(store: Store, encoder: str, folder: Path) -> tuple[int, Race]:
    """Frames, and seconds of the bare encoder and of `embed` on all of them."""
    torch.manual_seed(0)
    built: Any = build_encoder(StreamSettings(encoder), ModelSettings()).eval()
    weights = folder / "weights.pt"
    torch.save(built.network.state_dict(), weights)
    fold_batch_norm(built)
    frames = sum(int(video.frames.has_crop.sum()) for video in store.videos)
    crops = torch.rand(BATCH, 1, *built.input_shape) * 2 - 1
    turn = iter(range(1 + TURNS))

    def bare() -> None:
        with torch.inference_mode():
            for start in range(0, frames, BATCH):
                built.features(crops[: frames - start])

    def whole() -> None:
        embed(store.root, Source(encoder, str(weights)), f"{folder.name}{next(turn)}", accelerator="cpu")

    return frames, race(bare, whole, TURNS)


def made() -> list[tuple[bool, str]]:
    """What is claimed of `embed`."""
    torch.set_num_threads(1)
    claims = []
    with corpus(None, CorpusPlan(2, 1, 1, 8)) as store, tempfile.TemporaryDirectory() as temporary:
        for size, encoder in NETWORKS.items():
            folder = Path(temporary) / size
            folder.mkdir()
            frames, found = forward_against_embed(store, encoder, folder)
            print_races(f"{frames} frames, one thread", "frames", frames, [(encoder, found)])
            claims.append((found.ratio >= LEAST, f"{encoder}: {found.ratio:.2f} of the bare encoder, at least {LEAST}"))
    return claims


def contents(folder: Path) -> dict[str, str]:
    """The digest of every file of embeddings."""
    return {str(path.relative_to(folder)): file_digest(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def killed() -> list[tuple[bool, str]]:
    """What is claimed of an `embed` that is killed."""
    torch.manual_seed(0)
    kills, random = 0, np.random.default_rng(0)
    with corpus(None, CorpusPlan(6, 2, 2, 8)) as store, tempfile.TemporaryDirectory() as temporary:
        weights = Path(temporary) / "weights.pt"
        built: Any = build_encoder(StreamSettings(NETWORKS["small"]), ModelSettings())
        torch.save(built.network.state_dict(), weights)

        def start(name: str) -> subprocess.Popen[bytes]:
            words = ["embed", str(store.root), "--encoder", NETWORKS["small"], "--weights", str(weights)]
            options = ["--name", name, "--workers", "2", "--accelerator", "cpu"]
            return subprocess.Popen([sys.executable, "-m", "abaw_expr", *words, *options], stdout=subprocess.DEVNULL)

        began = time.perf_counter()
        assert start("whole").wait() == 0
        seconds, folder = time.perf_counter() - began, store.root / EMBEDDINGS
        while kills < KILLS:
            process = start("killed")
            with suppress(subprocess.TimeoutExpired):
                process.wait(random.uniform(0.3, 1.0) * seconds)
            if process.poll() is None:
                kills += 1
                process.kill()
                console.note(f"kill {kills}: {len([*(folder / 'killed').glob('[!.]*/*.npy')])} recordings are made")
            else:
                shutil.rmtree(folder / "killed")  # it was done before it could be killed
            process.wait()
        assert start("killed").wait() == 0
        same, before = contents(folder / "whole") == contents(folder / "killed"), contents(folder / "killed")
        times = [path.stat().st_mtime_ns for path in folder.rglob("*.npy")]
        assert start("killed").wait() == 0
        nothing = times == [path.stat().st_mtime_ns for path in folder.rglob("*.npy")]
        nothing &= before == contents(folder / "killed")
    return [(same, f"{kills} SIGKILLs: the same bytes at the end"), (nothing, "a second call makes nothing")]


def write_embeddings(store: Store) -> None:
    """Made-up rows of every recording, which are on the disk once."""
    for name, width in WIDTHS.items():
        rows = np.random.default_rng(0).normal(size=(FRAMES, width)).astype(np.float16)
        root, first = store.root / EMBEDDINGS / name, store.root / "rows.npy"
        np.save(first, rows)
        for video in store.videos:
            folder = root / video.folder.name
            folder.mkdir(parents=True)
            os.link(first, folder / f"{video.name}.npy")
            write_entry(folder, "made up", [video.name])
        first.unlink()
        write_manifest(root, {"encoder": "made up"}, width, [video.folder.name for video in store.videos])


@contextmanager
def training(store: Path, run: RunFolder) -> Iterator[subprocess.Popen[bytes]]:
    words = ["train", "--store", str(store), "--run", str(run.root), "--settings", "va-tcn", "--optimiser.epochs", "1"]
    with subprocess.Popen([sys.executable, "-m", "abaw_expr", *words, "--compute.accelerator", "cpu"]) as process:
        try:
            yield process
        finally:
            process.terminate()


def trained() -> list[tuple[bool, str]]:
    """What is claimed of an epoch."""
    peaks = dict[int, int]()
    with corpus(None, CorpusPlan(1, 1, 1, 6)) as source, tempfile.TemporaryDirectory() as temporary:
        root, run = Path(temporary) / "store", RunFolder(Path(temporary) / "run")
        write_store(root, source, VA)
        write_embeddings(open_store(root, VA))
        with training(root, run) as process:
            while process.poll() is None:
                for each in processes(process.pid):
                    peaks[each] = max(peaks.get(each, 0), memory(each).get("VmHWM", 0))
                time.sleep(0.5)
        assert process.returncode == 0, f"training ended with {process.returncode}"
        seconds = float(pd.read_csv(run.metrics)["seconds"].iloc[0])
    most = max(peaks.values())
    console.table("An epoch of va-tcn", ("seconds", "processes", "MB"), [(seconds, len(peaks), most // MEGABYTE)])
    return [
        (seconds < MOST_SECONDS, f"an epoch took {seconds:.0f} s, under {MOST_SECONDS:.0f} s"),
        (most < MOST_BYTES, f"{most / 1e9:.2f} GB at most in a process, under {MOST_BYTES / 1e9:.0f} GB"),
    ]


def benchmark(parts: tyro.conf.Positional[tuple[Literal["made", "killed", "trained"], ...]] = ()) -> int:
    """Measures these parts, or all, prints the verdict and returns the exit status."""
    print_facts()
    every = {"made": made, "killed": killed, "trained": trained}
    return judge(*chain.from_iterable(every[part]() for part in parts or every))


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
