"""How long a trial of the six penalties takes with heads on cached features.

    python -m tests.benchmarks.heads [--samples 600000] [--trials 200] [--run RUN]

A whole search on made-up features of 256 (picture) and 128 (sound) numbers a frame: asking, training in stacks, the
exact grid over 19 ratios, and the study on SQLite. Two thirds of the samples are trained on, the others are validated
on, in 60 recordings. With --run, the time of a trial is held against that run's training, which is what a trial of full
fidelity costs; without, that claim is left out. Exit status 1 when short.
"""

import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import tyro

from abaw_expr.commands import console
from abaw_expr.errors import RunError
from abaw_expr.files import read_json
from abaw_expr.settings_file import load_settings, recipe
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import judge, print_facts
from tuning.features import Features, HeadSamples
from tuning.penalties import search_heads
from tuning.study import StudyOptions

WIDTHS = {"audio": 128, "visual": 256}
RECORDINGS = 60
SECONDS_ALLOWED = 300.0
"""For 200 trials on 600,000 samples; in proportion for fewer."""
CHEAPER = 100
K = EXPR.n_columns


def made_up(samples: int) -> Features:
    """Features that tell the class as little as real ones; one frame in ten lacks a modality."""
    generator = torch.Generator().manual_seed(0)
    means = {name: 0.1 * torch.randn(K, width, generator=generator) for name, width in WIDTHS.items()}

    def split(count: int) -> HeadSamples:
        label = torch.randint(K, (count,), generator=generator)
        lacks = torch.rand(count, generator=generator)
        present = {"audio": lacks > 0.05, "visual": lacks < 0.95}
        features = {
            name: torch.randn(count, 1, width, generator=generator).add_(means[name][label][:, None]).relu_()
            for name, width in WIDTHS.items()
        }
        return HeadSamples(features, present, label)

    held_out = samples // 3
    train, val = split(samples - held_out), split(held_out)
    frames = {
        "videos": [f"video {i:02d}" for i in range(RECORDINGS)],
        "video": torch.arange(held_out, dtype=torch.int64) * RECORDINGS // held_out,
        "frame": torch.arange(1, held_out + 1, dtype=torch.int32),
        "time": torch.arange(held_out, dtype=torch.float64) / 5,
        "crop": torch.ones(held_out, dtype=torch.bool),
        "label": val.target.to(torch.int8),
    }
    heads = {name: {"weight": torch.zeros(K, width), "bias": torch.zeros(K)} for name, width in WIDTHS.items()}
    even = [1 / K] * K
    draws = torch.full((len(train),), 1 / len(train), dtype=torch.float64)
    return Features({"samples": samples}, train, draws, val, frames, heads, even, even)


def benchmark(samples: int = 600_000, trials: int = 200, batch: int = 16, run: Path | None = None) -> int:
    """Runs the search, prints the times and the verdict, and returns the exit status.

    Args:
        samples: Cached samples, training and validation together.
        trials: Trials of the heads.
        batch: Trials that are trained at once.
        run: A complete run on a real corpus, to hold the time of a trial against.
    """
    features, settings = made_up(samples), load_settings(recipe("modern"))
    with tempfile.TemporaryDirectory() as folder, console.progress("Trials of the heads") as tell:
        shared = StudyOptions(Path(folder), f"sqlite:///{folder}/study.db")
        began, processor = time.perf_counter(), time.process_time()
        found = search_heads(features, settings, shared, trials, batch, tell)
        seconds, processor = time.perf_counter() - began, time.process_time() - processor
    print_facts()
    rows = [("search", seconds, processor), ("a trial", seconds / trials, processor / trials)]
    console.table(f"{trials} trials of the heads on {samples:,} samples", ("", "seconds", "of processors"), rows)
    f1 = np.array([row.macro_f1 for row in found.rows])
    console.OUT.print(f"macro F1 from {f1.min():.4f} to {f1.max():.4f}")
    allowed = SECONDS_ALLOWED * samples / 600_000 * trials / 200
    claims = [(seconds < allowed, f"{trials} trials in {seconds:.0f} s, allowed {allowed:.0f} s")]
    if run is not None:
        whole = read_json(RunFolder(run).manifest, RunError, "Name a complete run.")["seconds"]
        ratio = whole / (seconds / trials)
        claims.append((ratio >= CHEAPER, f"a whole training takes {ratio:.0f} trials' time, required {CHEAPER}"))
    return judge(*claims)


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
