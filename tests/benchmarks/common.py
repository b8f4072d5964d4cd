"""What the benchmarks share: a corpus to run on, two pieces of work that take turns, and the verdict."""

import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from abaw_expr.commands import console
from abaw_expr.settings import Settings
from abaw_expr.tasks.task import EXPR

if TYPE_CHECKING:
    from abaw_expr.data.store.store import Store
    from abaw_expr.data.synthetic.corpus import CorpusPlan


class Race(NamedTuple):
    """Seconds of two pieces of work, medians over the turns, and the median of their ratios."""

    baseline: float
    ours: float
    ratio: float


def race(
    baseline: Callable[[], object],
    ours: Callable[[], object],
    turns: int,
    clock: Callable[[], float] = time.perf_counter,
) -> Race:
    """Times both, a turn each, so that what else the machine does befalls them alike; the first turn is not counted."""
    times = np.array([[_seconds(work, clock) for work in (baseline, ours)] for _ in range(1 + turns)])[1:]
    first, second = np.median(times, axis=0).tolist()
    return Race(first, second, float(np.median(times[:, 0] / times[:, 1])))


def _seconds(work: Callable[[], object], clock: Callable[[], float]) -> float:
    _wait()
    began = clock()
    work()
    _wait()
    return clock() - began


def _wait() -> None:
    torch = sys.modules.get("torch")  # work without it is timed, and weighed, without it
    if torch is not None and torch.cuda.is_available():
        torch.cuda.synchronize()


@contextmanager
def corpus(store: Path | None, plan: "CorpusPlan") -> "Iterator[Store]":
    """The store that is named, or one of a made-up release, gone afterwards."""
    from abaw_expr.data.store.prepare import prepare
    from abaw_expr.data.store.store import open_store
    from abaw_expr.data.synthetic.corpus import write_release

    if store is not None:
        yield open_store(store, EXPR)
        return
    with tempfile.TemporaryDirectory() as folder:
        release, made = Path(folder) / "release", Path(folder) / "store"
        with console.progress("Filming the corpus") as tell:
            write_release(release, plan, 0, tell)
        with console.progress("Preparing recordings") as tell:
            prepare(release, made, 1, tell)
        yield open_store(made, EXPR)


def print_facts() -> None:
    """Prints what the figures depend on."""
    import torch
    import torchvision

    from abaw_expr.training.evaluation import native_precision

    device = torch.cuda.get_device_name() if torch.cuda.is_available() else torch.backends.cpu.get_cpu_capability()
    console.OUT.print(
        f"{os.cpu_count()} cores, {torch.get_num_threads()} threads, {device}, torch {torch.__version__}, "
        f"torchvision {torchvision.__version__}, bf16 units: {native_precision(Settings()) == 'bf16-mixed'}",
        soft_wrap=True,
    )


def print_races(title: str, unit: str, amount: int, races: Sequence[tuple[str, Race]]) -> None:
    """Prints both speeds in `unit` a second, of `amount` units a turn, and their ratio."""
    rows = [(name, round(amount / r.baseline), round(amount / r.ours), r.ratio) for name, r in races]
    console.table(title, ("", f"baseline, {unit}/s", f"ours, {unit}/s", "ratio"), rows)


def judge(*claims: tuple[bool, str]) -> int:
    """Prints the verdict over what was claimed, and returns the exit status."""
    for holds, claim in claims:
        console.OUT.print(f"{'holds' if holds else 'SHORT'}: {claim}", soft_wrap=True)
    whole = all(holds for holds, _ in claims)
    console.OUT.print(f"verdict: {'holds' if whole else 'SHORT'}")
    return 0 if whole else 1
