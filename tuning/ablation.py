"""The paper's table, trained: what attention and the coarse-fine loss add, for pictures alone and both, with controls.

Every row is trained over the same seeds. Nothing but the ratio m:n is chosen on validation (the paper's way; the nested
figure beside it is the honest one): the weights are those of the last epoch, and nothing is smoothed or corrected.
Shapes: S seeds, R recordings, C classes.
"""

import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from abaw_expr.data.store.entries import StoreIdentity
from abaw_expr.data.store.store import MANIFEST
from abaw_expr.errors import RunError, StoreError
from abaw_expr.files import read_json
from abaw_expr.outputs.table import read_outputs
from abaw_expr.settings import (
    QUADRANT_PAIRS,
    Settings,
    dump_settings,
    load_settings,
    save_settings,
    settings_from,
    signature,
)
from abaw_expr.tasks.classes import macro_f1
from abaw_expr.tasks.statistics import Counts, bootstrap_difference, bootstrap_interval
from abaw_expr.tasks.task import Task
from abaw_expr.training.run import RunFolder
from tuning.selection import search
from tuning.space import RATIOS_ONLY, Space

Changes = Mapping[str, Mapping[str, Any]]
_PICTURES = {"branches": ["visual"]}
_NO_ATTENTION = {"attention": False}
_NO_MU = {f"mu{j}{k}": 0.0 for j, k in QUADRANT_PAIRS}


@dataclass(frozen=True)
class Row:
    """One row of the table: a name, what it changes of the recipe, and what it is held against."""

    name: str
    title: str
    modality: str
    changes: Changes
    against: str | None = None
    """The row that it is compared with."""
    paper: float | None = None
    """The published macro F1 on Aff-Wild2's validation set (arXiv 2503.11935, table 1)."""
    trained_as: str | None = None
    """The row whose networks it decides differently; it trains none of its own."""
    space: Space = RATIOS_ONLY


ROWS = (
    Row("v-base", "base", "V", {"model": _PICTURES | _NO_ATTENTION, "loss": _NO_MU}, None, 0.3189),
    Row("v-gcsa", "base + GCSA", "V", {"model": _PICTURES, "loss": _NO_MU}, "v-base", 0.3353),
    Row("v-full", "base + GCSA + coarse-fine", "V", {"model": _PICTURES}, "v-gcsa", 0.3559),
    Row("av-base", "base", "V + A", {"model": _NO_ATTENTION, "loss": _NO_MU}, None, 0.4262),
    Row("av-gcsa", "base + GCSA", "V + A", {"loss": _NO_MU}, "av-base", 0.4592),
    Row("av-full", "base + GCSA + coarse-fine", "V + A", {}, "av-gcsa", 0.4651),
    Row("av-uniform", "control: one uniform mu", "V + A", {"loss": _NO_MU | {"every_error": 0.5}}, "av-full"),
    Row("av-weighted", "control: class-weighted", "V + A", {"loss": _NO_MU | {"class_weight": 1.0}}, "av-full"),
    Row("av-grouped", "control: GCSA in 4 groups", "V + A", {"model": {"attention_groups": 4}}, "av-full"),
    Row(
        "av-equal",
        "control: fused 1:1",
        "V + A",
        {},
        "av-full",
        trained_as="av-full",
        space=replace(RATIOS_ONLY, weights=((1, 1),)),
    ),
)
"""The paper's six, then the controls. One uniform mu is as large as the six are on average."""


def with_needed(names: Sequence[str]) -> tuple[Row, ...]:
    """The rows of these names, and those whose networks they decide with or are held against, in the table's order."""
    needed = set(names)
    for row in reversed(ROWS):
        if row.name in needed:
            needed |= {other for other in (row.against, row.trained_as) if other is not None}
    return tuple(row for row in ROWS if row.name in needed)


@dataclass(frozen=True)
class Result:
    """What a row gave over its seeds."""

    row: Row
    f1: tuple[float, ...]
    """Macro F1 of each seed, its ratio m:n chosen on the same frames."""
    nested: float | None
    """Mean over seeds of the nested estimate, each recording decided by what the others choose."""
    interval: tuple[float, float]
    """95 % bootstrap interval over recordings of the mean over seeds."""
    difference: tuple[float, float, float] | None
    """Against the row it is held against: mean, and the 95 % interval of a paired bootstrap over recordings."""
    parameters: int
    seconds: float
    """Mean time of training."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.f1))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None of one seed."""
        return float(np.std(self.f1, ddof=1)) if len(self.f1) > 1 else None


@dataclass(frozen=True)
class Job:
    """One training: a row, a seed, and the folder of the ablation."""

    row: Row
    seed: int
    out: Path

    @property
    def run(self) -> Path:
        return self.out / "runs" / f"{self.row.name}-{self.seed}"

    @property
    def outputs(self) -> Path:
        return self.run / "outputs" / "val.parquet"

    @property
    def log(self) -> Path:
        return self.out / "runs" / f"{self.row.name}-{self.seed}.log"

    @property
    def settings(self) -> Path:
        return self.log.with_suffix(".yaml")

    @property
    def manifest(self) -> Path:
        return RunFolder(self.run).manifest

    @property
    def epochs(self) -> int:
        """Epochs that are done."""
        metrics = RunFolder(self.run).metrics
        return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def apply(changes: Changes, base: Settings, seed: int) -> Settings:
    """The settings of a row: the recipe's, changed."""
    values = dump_settings(base)
    for group, change in changes.items():
        values[group] |= change
    return settings_from(values | {"seed": seed})


def train_rows(
    store: Path,
    out: Path,
    base: Settings,
    rows: Sequence[Row],
    seeds: int,
    workers: int,
    gpus: int,
    progress: Callable[[int, int], None],
) -> None:
    """Trains every row over its seeds, and predicts validation; what is done already is left as it is.

    `workers` trainings at a time, each in processes of its own, on one of `gpus` devices or with its share of the
    cores. `progress(epochs done, epochs in all)`. Raises RunError, at the end, where a training failed.
    """
    jobs = [Job(row, seed, out) for seed in range(seeds) for row in rows if row.trained_as is None]
    digest = read_json(store / MANIFEST, StoreError, "Run `prepare` first.", StoreIdentity)["digest"]
    for job in jobs:
        _check(job, apply(job.row.changes, base, job.seed), digest)
    for job in jobs:
        save_settings(apply(job.row.changes, base, job.seed), job.settings)
    slots: SimpleQueue[int] = SimpleQueue()
    for slot in range(workers):
        slots.put(slot)
    total = len(jobs) * base.optimiser.epochs
    running: set[subprocess.Popen[bytes]] = set()
    failed: list[Job] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            left = [job for job in jobs if not job.outputs.exists()]
            waiting = {pool.submit(_train, job, store, slots, workers, gpus, running): job for job in left}
            while waiting:
                done, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                failed += [waiting[future] for future in done if future.result()]
                waiting = {future: job for future, job in waiting.items() if future not in done}
                progress(sum(job.epochs for job in jobs), total)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(running):
                process.terminate()  # it saves and ends; the pool waits for that
            raise
    if failed:
        names = ", ".join(f"{job.row.name} (seed {job.seed})" for job in failed)
        last = failed[0].log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RunError(f"{len(failed)} trainings failed: {names}", path=failed[0].log, found=(last or ["nothing"])[0])


def _check(job: Job, settings: Settings, digest: str) -> None:
    """Raises RunError where the folder holds a training of other settings or of another store."""
    if job.settings.exists():
        before = load_settings(job.settings)
        if signature(before, "") != signature(settings, ""):
            remedy = "Name a new folder, or the settings that it was begun with."
            raise RunError("the ablation was begun with other settings", path=job.settings, remedy=remedy)
    if RunFolder(job.run).complete and RunFolder(job.run).read_summary().get("store") != digest:
        raise RunError("is of another store", path=job.run, remedy="Name a new folder for the ablation.")


def _train(
    job: Job, store: Path, slots: "SimpleQueue[int]", workers: int, gpus: int, running: set[subprocess.Popen[bytes]]
) -> int:
    """One training and its validation outputs, by the same commands that a team types; returns the exit status."""
    slot = slots.get()
    threads = max((os.cpu_count() or 1) // workers, 1)
    environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
    if gpus:
        environment["CUDA_VISIBLE_DEVICES"] = str(slot % gpus)
    where = ["--run", str(job.run), "--store", str(store)]
    train = ["train", *where, "--settings", str(job.settings), "--resume"]
    predict = ["predict", *where, "--split", "val", "--out", str(job.outputs), "--checkpoint", "last"]
    status = 0
    try:
        for command in (train, predict):
            with open(job.log, "ab") as log:
                line = [sys.executable, "-m", "abaw_expr", *command]
                process = subprocess.Popen(line, stdout=log, stderr=log, env=environment)
                running.add(process)
                status = process.wait()
                running.discard(process)
            if status:
                break
    finally:
        slots.put(slot)
    return status


def results(out: Path, base: Settings, rows: Sequence[Row], seeds: int, task: Task) -> list[Result]:
    """The figures of every row, from the outputs of its runs."""
    chosen: dict[str, Counts] = {}
    table = []
    for row in rows:
        jobs = [Job(row if row.trained_as is None else _row(row.trained_as), seed, out) for seed in range(seeds)]
        found = [search(read_outputs(job.outputs, task), row.space) for job in jobs]
        chosen[row.name] = np.stack([one.counts[one.choose(one.figures)] for one in found])  # [S, R, C, C]
        nested = [one.nested for one in found]
        confusions = chosen[row.name]
        against = chosen.get(row.against or "")
        table.append(
            Result(
                row=row,
                f1=tuple(macro_f1(confusions.sum(axis=1)).tolist()),
                nested=None if None in nested else float(np.mean(np.array(nested, float))),
                interval=bootstrap_interval(confusions, macro_f1, seed=0),
                difference=None if against is None else bootstrap_difference(confusions, against, macro_f1, seed=0),
                parameters=_parameters(apply(row.changes, base, 0)),
                seconds=float(np.mean([RunFolder(job.run).read_summary()["seconds"] for job in jobs])),
            )
        )
    return table


def _row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def _parameters(settings: Settings) -> int:
    from abaw_expr.models.describe import describe

    return sum(describe(settings.model)["parameters"].values())
