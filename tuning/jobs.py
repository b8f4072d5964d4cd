"""Trainings as jobs: each is a run in its own processes, and is resumed if it was interrupted.

`ablate`, `folds` and `retrain` plan jobs, and this is what trains them.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path
from queue import SimpleQueue

from abaw_expr.data.store.mixture import open_mixture
from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import RunError
from abaw_expr.files import file_digest
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.training.run import RunFolder
from abaw_expr.training.signature import signature
from abaw_expr.training.stopping import PARENT

_ONE_AFTER_ANOTHER = """
import json, sys
from abaw_expr.commands.main import main
sys.exit(next((status for line in json.loads(sys.argv[1]) if (status := main(line))), 0))
"""
"""Runs command lines up to the first that fails, in one process, since imports take longer than short predictions."""


@dataclass(frozen=True)
class Job:
    """One training, and its outputs on some splits."""

    name: str
    """The name of its run in the folder of all jobs."""
    settings: Settings
    folder: Path
    """The folder of all jobs."""
    splits: tuple[str, ...] = ("val",)
    """The splits that its last epoch predicts."""
    template: Path | None = None
    """The organisers' template, whose rows the test split has; None: all frames."""
    extras: tuple[str, ...] = ()
    """Stores that it is trained on too, as STORE=FRACTION, beside those of all jobs."""

    @property
    def run(self) -> RunFolder:
        return RunFolder(self.folder / self.name)

    def outputs(self, split: str) -> Path:
        """The table of a split; with another template it is another table."""
        rows = f"-{file_digest(self.template)}" if split == "test" and self.template else ""
        return self.run.root / "outputs" / f"{split}{rows}.parquet"

    @property
    def done(self) -> bool:
        """Whether it is trained and all its tables are there."""
        return all(self.outputs(split).exists() for split in self.splits)

    @property
    def log(self) -> Path:
        return self.folder / f"{self.name}.log"

    @property
    def settings_file(self) -> Path:
        return self.log.with_suffix(".yaml")

    @property
    def epochs(self) -> int:
        """Finished epochs."""
        metrics = self.run.metrics
        return len(metrics.read_text().splitlines()) - 1 if metrics.exists() else 0


def gpus_of(settings: Settings) -> int:
    """How many GPUs trainings can be spread over."""
    import torch

    return 0 if settings.compute.accelerator == "cpu" else torch.cuda.device_count()


def train_jobs(jobs: Sequence[Job], stores: Sequence[str], workers: int, gpus: int, on_progress: OnProgress) -> None:
    """Trains every job and predicts its splits with its last epoch; finished jobs are skipped.

    `stores` are a store, or several with their fractions; the first one is predicted. `workers` jobs run at a time,
    each on one of `gpus` devices, or on the CPU with an equal part of the cores. `on_progress(epochs done, total
    epochs)` is called every second. Raises RunError where the folder of a job has other settings or another store, and,
    at the end, where a training failed.
    """
    task = jobs[0].settings.task_of
    digests = {extras: open_mixture([*stores, *extras], task).digest for extras in {job.extras for job in jobs}}
    for job in jobs:
        _check(job, digests[job.extras])
    for job in jobs:
        save_settings(job.settings, job.settings_file)
    total = sum(job.settings.optimiser.epochs for job in jobs)
    trainer = _Trainer(stores, workers, gpus)
    failed = trainer.train(
        [job for job in jobs if not job.done],
        lambda: on_progress(sum(job.epochs for job in jobs), total),
    )
    if failed:
        names = ", ".join(job.name for job in failed)
        last = failed[0].log.read_text(errors="replace").strip().splitlines()[-1:]
        raise RunError(f"{len(failed)} trainings failed: {names}", path=failed[0].log, found=(last or ["nothing"])[0])


def _check(job: Job, digest: str) -> None:
    """Raises RunError where the folder has a training with other settings or another store."""
    if job.settings_file.exists():
        before = load_settings(job.settings_file)
        if signature(before, "") != signature(job.settings, ""):
            remedy = "Name a new folder, or the settings that it was started with."
            raise RunError("was started with other settings", path=job.settings_file, remedy=remedy)
    if job.run.complete and job.run.read_summary().get("store") != digest:
        raise RunError("is of another store", path=job.run.root, remedy="Name a new folder.")


class _Trainer:
    """Trains jobs, several at a time, with the commands of the command line."""

    def __init__(self, stores: Sequence[str], workers: int, gpus: int) -> None:
        self._stores, self._workers, self._gpus = stores, workers, gpus
        self._slots: SimpleQueue[int] = SimpleQueue()
        for slot in range(workers):
            self._slots.put(slot)
        self._running: set[subprocess.Popen[bytes]] = set()

    def train(self, jobs: Sequence[Job], on_tick: Callable[[], None]) -> list[Job]:
        """Trains the jobs and returns those that failed; calls `on_tick` at least every second."""
        failed: list[Job] = []
        with ThreadPoolExecutor(self._workers) as pool:
            try:
                waiting = {pool.submit(self._train, job): job for job in jobs}
                while waiting:
                    done, _ = wait(waiting, timeout=1, return_when=FIRST_COMPLETED)
                    failed += [waiting[future] for future in done if future.result()]
                    waiting = {future: job for future, job in waiting.items() if future not in done}
                    on_tick()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                for process in list(self._running):
                    process.terminate()  # it saves its state and ends; the pool waits for it
                raise
        return failed

    def _train(self, job: Job) -> int:
        """Runs one training and its predictions, and returns the first exit status that is not 0."""
        run = ["--run", str(job.run.root)]
        lines = [
            ["train", *run, "--settings", str(job.settings_file), "--resume", "--store", *self._stores, *job.extras]
        ]
        for split in job.splits:
            if not job.outputs(split).exists():
                where = [*run, "--store", self._stores[0], "--split", split, "--out", str(job.outputs(split))]
                template = ["--template", str(job.template)] if split == "test" and job.template else []
                lines.append(["predict", *where, "--checkpoint", "last", *template])
        slot = self._slots.get()
        try:
            return self._run(lines, job.log, slot)
        finally:
            self._slots.put(slot)

    def _run(self, lines: Sequence[Sequence[str]], log: Path, slot: int) -> int:
        """Runs command lines in a process with its output in the log, and returns its exit status."""
        threads = max((os.cpu_count() or 1) // self._workers, 1)
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), PARENT: str(os.getpid())}
        if self._gpus:
            environment["CUDA_VISIBLE_DEVICES"] = str(slot % self._gpus)
        with open(log, "ab") as file:
            command = [sys.executable, "-c", _ONE_AFTER_ANOTHER, json.dumps(lines)]
            process = subprocess.Popen(command, stdout=file, stderr=file, env=environment)
            self._running.add(process)
            status = process.wait()
            self._running.discard(process)
        return status
