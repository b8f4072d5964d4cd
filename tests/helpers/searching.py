"""Searches on made-up features, and a worker of one."""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from unittest.mock import patch

import numpy as np
import torch

from abaw_expr.settings import Settings
from abaw_expr.tasks.task import EXPR
from tuning import heads
from tuning.features import Features, HeadSamples
from tuning.penalties import PenaltySearch, search_heads
from tuning.study import StudyOptions

K = EXPR.n_columns
SHARES = [0.3, 0.05, 0.02, 0.02, 0.2, 0.1, 0.01, 0.3]
WIDTHS = {"audio": 3, "visual": 5}
READY, GO = "ready", "go"


def made_up(samples: int, seed: int = 0, views: int = 1, missing: float = 0.3) -> Features:
    """Random features of both splits, which tell the class a little; some samples lack one modality, none both."""
    rng = np.random.default_rng(seed)

    def split() -> HeadSamples:
        label = torch.from_numpy(rng.integers(K, size=samples))
        lacks = rng.random(samples)
        present = {"audio": torch.from_numpy(lacks > missing / 2), "visual": torch.from_numpy(lacks < 1 - missing / 2)}
        features = {}
        for name, width in WIDTHS.items():
            means = np.random.default_rng(width).normal(size=(K, 1, width))
            x = rng.normal(size=(samples, views if name == "visual" else 1, width)) + means[label]
            features[name] = torch.from_numpy(x).float() * present[name][:, None, None]
        return HeadSamples(features, present, label)

    trained = {
        name: {
            "weight": torch.from_numpy(0.1 * rng.normal(size=(K, width))).float(),
            "bias": torch.from_numpy(0.1 * rng.normal(size=K)).float(),
        }
        for name, width in WIDTHS.items()
    }
    draw_probabilities = torch.from_numpy(rng.dirichlet(np.ones(samples)))
    train, val = split(), split()
    frames = {
        "videos": list("abcd"),
        "video": torch.arange(samples, dtype=torch.int32) * 4 // samples,
        "frame": torch.arange(1, samples + 1, dtype=torch.int32),
        "time": torch.arange(samples, dtype=torch.float64),
        "crop": torch.ones(samples, dtype=torch.bool),
        "label": val.target.to(torch.int8),
    }
    return Features({"seed": seed}, train, draw_probabilities, val, frames, trained, SHARES, SHARES)


def few_steps() -> AbstractContextManager[object]:
    """Within it heads are trained for no longer than a test needs."""
    return patch.object(heads, "STEPS", 20)


def search(
    out: Path,
    trials: int,
    url: str = "",
    sampler: str = "tpe",
    seed: int = 0,
    batch: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> PenaltySearch:
    """A search with heads on 200 made-up frames of four recordings, by default on SQLite in that folder."""
    torch.set_num_threads(1)
    shared = StudyOptions(out, url or f"sqlite:///{out / 'study.db'}", sampler, seed, heartbeat=1)
    with few_steps():
        return search_heads(made_up(200), Settings(), shared, trials, batch, progress)


def worker(url: str, out: Path, trials: int) -> None:
    """Says that it is ready, waits for the others, and takes part."""
    (out / f"{READY}-{time.time_ns()}").touch()
    while not (out / GO).exists():
        time.sleep(0.01)
    search(out, trials, url)
