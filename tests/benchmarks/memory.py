"""Training on 600,000 frames with two worker processes: memory of every process, and time until the first step.

    python -m tests.benchmarks.memory [SECONDS]

About 2 minutes. The store is made up: 500 recordings of 40 seconds, labels in stretches, and the same crops and sound
in all of them (hard links: on the disk once, in a process's memory as often as they are read). Claimed: every process
stays under 3 GB at its peak, files that it has mapped included, and the first step is done after 10 s. A minute is not
an epoch, so one more process reads all that an epoch reads. Exit status 1 when short.
"""

import multiprocessing
import os
import signal
import subprocess
import sys
import tempfile
import time
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

import numpy as np

from abaw_expr.commands import console
from abaw_expr.data.labels import Labels, label_type
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.store import (
    MANIFEST,
    RECORDING_FILE,
    RECORDINGS,
    STORE_FORMAT,
    Store,
    open_store,
    summary_of,
)
from abaw_expr.data.store.tar import pack
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.files import file_digest, write_json
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR, Task
from abaw_expr.training.run import RunFolder
from tests.benchmarks.common import corpus, judge, print_facts
from tests.helpers.stored import write_tables

TRAINING, VALIDATION = 500, 10
"""Recordings of one person each."""
FRAMES, RATE = 1200, 30
"""Frames of a recording, and frames a second."""
MOST_BYTES, MOST_SECONDS = 3e9, 10.0
MEGABYTE = 10**6


def write_store(root: Path, source: Store, task: Task = EXPR) -> None:
    """A store of many recordings that are all the same, with the crops of another store over and over."""
    first = root / RECORDINGS / "0000"
    first.mkdir(parents=True)
    known = next(video for video in source.videos if video.frames.has_crop.any())
    crops = [bytes(crop) for row in range(len(known.frames)) if (crop := known.jpeg(row)) is not None]
    places = pack(first / "0000.tar", ((crop_name(i + 1), crops[i % len(crops)]) for i in range(FRAMES)))
    offset, size = np.array(places, np.int64).T
    write_tables(first, "0000", np.arange(FRAMES) / RATE, made_up(task), offset, size.astype(np.int32), task=task)
    audio = np.random.default_rng(0).normal(size=(FRAMES * 1000 // RATE // 16, MEL_BANDS)).astype(np.float16)
    np.save(first / "sound.npy", audio)
    kinds = ("parquet", "tar", f"{task.name}.parquet")
    digests = {kind: file_digest(first / f"0000.{kind}") for kind in kinds}  # of all: they are links
    whole, entries = {"sound.npy": file_digest(first / "sound.npy")}, dict[str, dict[str, Any]]()
    for number in range(TRAINING + VALIDATION):
        name = f"{number:04d}"
        folder = root / RECORDINGS / name
        folder.mkdir(exist_ok=True)
        files = whole | {f"{name}.{kind}": known for kind, known in digests.items()}
        for file in files if number else ():
            os.link(first / file.replace(name, "0000"), folder / file)
        split = "train" if number < TRAINING else "val"
        counts = {"frames": FRAMES, "lines": {task.name: FRAMES}, "crops": FRAMES}
        video = {"splits": {task.name: split}, **counts, "unreadable": []}
        seconds = (FRAMES - 1) / RATE
        entries[name] = {
            **{"source": "made up", "seconds": seconds, "rate": float(RATE), "problems": []},
            "sound": {"seconds": seconds, "mean": [0.0] * MEL_BANDS, "std": [1.0] * MEL_BANDS},
            "videos": {name: video},
            "files": files,
            "bytes": {file: (folder / file).stat().st_size for file in files},
        }
        write_json(folder / RECORDING_FILE, entries[name])
    manifest = {
        "format": STORE_FORMAT,
        "recordings": {name: file_digest(root / RECORDINGS / name / RECORDING_FILE) for name in entries},
        **summary_of(entries, {task.name: task.columns}),
    }
    write_json(root / MANIFEST, manifest)


def made_up(task: Task) -> Labels:
    """Labels [T] of classes in stretches, or [T, F] of values that swing, each at its own pace."""
    frames = np.arange(FRAMES)
    if task.one_class:
        return (frames // 150 % task.n_columns).astype(np.int8)
    return np.sin(frames[:, None] / np.linspace(60, 90, len(task.fields))).astype(label_type(task))


def processes(parent: int) -> list[int]:
    """A process and its children."""
    children = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
    return [parent, *map(int, children)]


def memory(process: int) -> dict[str, int]:
    """Bytes of a process by the names of /proc: VmHWM is the peak of all, RssAnon its own and RssFile mapped now."""
    lines = Path(f"/proc/{process}/status").read_text().splitlines()
    pairs = (line.split(":") for line in lines if line.startswith(("VmHWM", "RssAnon", "RssFile", "RssShmem")))
    return {name: int(value.split()[0]) * 1024 for name, value in pairs}


def read_everything(root: Path, answer: "Queue[dict[str, int]]") -> None:
    """Reads the store as an epoch of training reads it, and tells this process's memory after that."""
    for video in open_store(root, EXPR).split("train"):
        for row in range(len(video.frames)):
            crop = video.jpeg(row)
            assert crop
        assert video.audio is not None
        assert np.isfinite(video.audio).all()
    answer.put(memory(os.getpid()))


def reader_memory(root: Path) -> dict[str, int]:
    """The memory of a fresh process that has read every crop and all sound."""
    fresh = multiprocessing.get_context("spawn")
    answer: Queue[dict[str, int]] = fresh.Queue()
    process = fresh.Process(target=read_everything, args=(root, answer))
    process.start()
    found = answer.get()
    process.join()
    return found


def has_stepped(run: RunFolder) -> bool:
    """Whether the loss of a step is told."""
    return any(b"step/loss" in file.read_bytes() for file in run.events.glob("*"))


def watch(process: subprocess.Popen[bytes], run: RunFolder, seconds: float) -> tuple[float, dict[int, dict[str, int]]]:
    """Seconds until the first step, and the memory of every process so long after it."""
    began = time.perf_counter()
    while not has_stepped(run):
        assert process.poll() is None, f"training ended with {process.returncode} before its first step"
        time.sleep(0.02)
    started = time.perf_counter() - began
    time.sleep(seconds)
    assert process.poll() is None, f"training ended with {process.returncode}"
    return started, {each: memory(each) for each in processes(process.pid)}


def benchmark(folder: Path, seconds: float) -> int:
    """Trains for a while, prints the memory of each process and the verdict, and returns the exit status."""
    run = RunFolder(folder / "run")
    with corpus(None, CorpusPlan(1, 1, 1, 6)) as source:
        write_store(folder / "store", source)
    arguments = ["--store", str(folder / "store"), "--run", str(run.root), "--settings", "demo"]
    everything = ["--data.stride", "0", "--compute.workers", "2"]
    with subprocess.Popen([sys.executable, "-m", "abaw_expr", "train", *arguments, *everything]) as process:
        try:
            started, found = watch(process, run, seconds)
        finally:
            process.send_signal(signal.SIGTERM)
    names = ["training", *(f"worker {number}" for number in range(1, len(found)))]
    assert len(names) >= 3, "no worker processes"
    names.append("reader of an epoch")
    found[0] = reader_memory(folder / "store")  # no process has this number
    kinds = ("VmHWM", "RssAnon", "RssFile", "RssShmem")
    rows = [
        (name, *(round(each[kind] / MEGABYTE) for kind in kinds))
        for name, each in zip(names, found.values(), strict=True)
    ]
    columns = ("process", "peak", "its own", "files mapped", "shared")
    console.table(f"Memory, MB, {seconds:.0f} s after the first step, of {TRAINING * FRAMES:,} frames", columns, rows)
    most = max(each["VmHWM"] for each in found.values())
    return judge(
        (most < MOST_BYTES, f"{most / 1e9:.2f} GB at most in a process, under {MOST_BYTES / 1e9:.0f} GB"),
        (started < MOST_SECONDS, f"first step done after {started:.1f} s, under {MOST_SECONDS:.0f} s"),
    )


if __name__ == "__main__":
    print_facts()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(Path(temporary), float(sys.argv[1]) if len(sys.argv) > 1 else 60.0))
