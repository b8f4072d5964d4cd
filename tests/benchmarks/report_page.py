"""The page of a whole validation split, 70 recordings of 284,230 frames, beside `score` of the same; and how it opens.

    python -m tests.benchmarks.report_page [FOLDER]

Whole commands are timed, each in a process of its own, start-up and all. The baseline is `score`, which reads, decides
and counts the same frames, and shows nothing of them. Outputs, annotations and store are made up: probabilities that
wander, annotations in stretches, the crops of a drawn face. The page is opened in Chromium from the disk, until its
data is unpacked, its first plots are drawn and its buttons work. Exit status 1 when short.
"""

import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from abaw_expr.commands import console
from abaw_expr.data.media.logmel import MEL_BANDS, STEP
from abaw_expr.data.media.voice import VOICE_STEP
from abaw_expr.data.store.store import MANIFEST, RECORDING_FILE, RECORDINGS, STORE_FORMAT, Store, summary_of
from abaw_expr.data.store.tar import pack
from abaw_expr.data.synthetic.corpus import CorpusPlan
from abaw_expr.files import file_digest, write_json
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.table import Outputs, Source, branch_columns, write_outputs
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from tests.benchmarks.common import corpus, judge, print_facts
from tests.benchmarks.million_rows import Cost, cost
from tests.helpers.branches import BRANCHES
from tests.helpers.pages import browser, shown
from tests.helpers.stored import write_tables

VIDEOS, FRAMES, RATE = 70, 284_230, 30.0
SECONDS, MEMORY, OPENS, WITH, WITHOUT = 20.0, 1.5e9, 3.0, 30e6, 6e6
"""What is required: seconds and bytes of the command, seconds until the page works, bytes with and without store."""
TURNS = 3


def lengths() -> list[int]:
    """The frames of each video: from half to one and a half of the mean."""
    parts = np.linspace(0.5, 1.5, VIDEOS)
    counts = np.floor(FRAMES * parts / parts.sum()).astype(int)
    counts[-1] += FRAMES - counts.sum()
    return counts.tolist()


def write_table(path: Path) -> None:
    """Outputs of two branches that know the annotation a little; each misses a tenth of its stretches."""
    rng, parts = np.random.default_rng(0), []
    for number, count in enumerate(lengths()):
        label = rng.integers(0, EXPR.n_columns, count // 60 + 1).repeat(60)[:count]
        columns: dict[str, Any] = {
            "video": f"{number:03d}-30-1280x720",
            "frame": np.arange(1, count + 1, dtype=np.int32),
        }
        columns |= {"time": np.arange(count) / RATE, "crop": rng.random(count // 90 + 1).repeat(90)[:count] > 0.1}
        for branch in BRANCHES:
            logits = np.cumsum(rng.normal(size=(count, EXPR.n_columns)), axis=0) * 0.05
            logits[np.arange(count), label] += 1.5
            p = np.exp(logits - logits.max(axis=1, keepdims=True))
            p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
            p[~columns["crop"] if branch == "visual" else rng.random(count // 90 + 1).repeat(90)[:count] < 0.1] = np.nan
            columns |= dict(zip(branch_columns(branch, EXPR), p.T, strict=True))
        columns["label"] = np.where(rng.random(count) < 0.02, EXPR.ignore_value, label).astype(np.int8)
        parts.append(pd.DataFrame(columns))
    source = Source("random", (1 / EXPR.n_columns,) * EXPR.n_columns)
    write_outputs(path, Outputs(EXPR, pd.concat(parts, ignore_index=True), "val", dict.fromkeys(BRANCHES, source)))


def write_store(root: Path, source: Store) -> None:
    """A store of these videos, with the crops of another store over and over, and noise as audio."""
    known = next(video for video in source.videos if video.frames.has_crop.any())
    crops = [bytes(crop) for row in range(len(known.frames)) if (crop := known.jpeg(row)) is not None]
    entries: dict[str, dict[str, Any]] = {}
    for number, count in enumerate(lengths()):
        name, rng = f"{number:03d}-30-1280x720", np.random.default_rng(number)
        folder = root / RECORDINGS / name
        folder.mkdir(parents=True)
        places = pack(folder / f"{name}.tar", ((crop_name(i + 1), crop) for i, crop in enumerate(crops)))
        offset, size = np.array(places, np.int64)[np.arange(count) % len(crops)].T
        time_of = np.arange(count) / RATE
        write_tables(folder, name, time_of, np.zeros(count, np.int8), offset, size.astype(np.int32))
        np.save(folder / "sound.npy", rng.normal(size=(int(count / RATE / STEP), MEL_BANDS)).astype(np.float16))
        np.save(folder / "voice.npy", rng.random(int(count / RATE / VOICE_STEP)).astype(np.float16))
        files = {path.name: file_digest(path) for path in sorted(folder.iterdir())}
        seconds = count / RATE
        counts = {"frames": count, "lines": {"expr": count}, "crops": count}
        entries[name] = {
            **{"source": "made up", "seconds": seconds, "rate": RATE, "problems": [], "files": files},
            "sound": {"seconds": seconds, "mean": [0.0] * MEL_BANDS, "std": [1.0] * MEL_BANDS},
            "videos": {name: {"splits": {"expr": "val"}, **counts, "unreadable": []}},
            "bytes": {path.name: path.stat().st_size for path in sorted(folder.iterdir())},
        }
        write_json(folder / RECORDING_FILE, entries[name])
    manifest = {
        "format": STORE_FORMAT,
        "recordings": {name: file_digest(root / RECORDINGS / name / RECORDING_FILE) for name in entries},
        **summary_of(entries, {"expr": EXPR.columns}),
    }
    write_json(root / MANIFEST, manifest)


def opening(path: Path) -> float:
    """Seconds until the page works, the median of several openings."""
    found = []
    with browser() as opened:
        for _ in range(TURNS):
            with shown(opened, path) as page:
                page.wait_for_selector("[data-figure] canvas")
                found.append(page.evaluate("performance.now()") / 1000)  # since the page was asked for
    return statistics.median(found)


def make(folder: Path) -> None:
    """Writes outputs, decision and store, where they are not there yet."""
    if (folder / "store" / MANIFEST).exists():
        return
    write_table(folder / "val.parquet")
    prior = (0.3, 0.05, 0.05, 0.05, 0.2, 0.1, 0.05, 0.2)
    votes = {name: Vote(prior, weight, 0.5) for name, weight in zip(BRANCHES, (2, 3), strict=True)}
    Decision(votes, smoothing=2.0, smoother="median").save(folder / "decision.json")
    with corpus(None, CorpusPlan(1, 1, 1, 6)) as source:
        write_store(folder / "store", source)


def benchmark(folder: Path) -> int:
    """Prints what the commands take, how the page opens, and the verdict; returns the exit status."""
    make(folder)
    asked = ("--outputs", folder / "val.parquet", "--decision", folder / "decision.json")
    pages = {name: folder / f"{name}.html" for name in ("with", "without")}
    more = {"with": ("--store", folder / "store"), "without": ()}
    scored = cost("abaw_expr", "score", *asked)
    costs = {name: cost("abaw_expr", "report", *asked, *more[name], "--out", path) for name, path in pages.items()}
    sizes, opens = {n: p.stat().st_size for n, p in pages.items()}, {n: opening(p) for n, p in pages.items()}
    columns = ("", "s", "CPU s", "memory, MB", "file, MB", "opens, s")
    rows: list[tuple[object, ...]] = [("score, the baseline", *shown_cost(scored), None, None)]
    rows += [(f"report {n} a store", *shown_cost(costs[n]), sizes[n] / 1e6, opens[n]) for n in pages]
    console.table(f"{VIDEOS} recordings, {FRAMES:,} frames", columns, rows)
    slowest, most = max(one.seconds for one in costs.values()), max(one.memory for one in costs.values())
    return judge(
        (slowest < SECONDS, f"made in {slowest:.1f} s, under {SECONDS:g} s"),
        (most < MEMORY, f"{most / 1e9:.2f} GB of memory, under {MEMORY / 1e9:g} GB"),
        (max(opens.values()) < OPENS, f"opens in {max(opens.values()):.1f} s, under {OPENS:g} s"),
        (sizes["with"] < WITH, f"{sizes['with'] / 1e6:.1f} MB with thumbnails, under {WITH / 1e6:g} MB"),
        (sizes["without"] < WITHOUT, f"{sizes['without'] / 1e6:.1f} MB without, under {WITHOUT / 1e6:g} MB"),
    )


def shown_cost(own: Cost) -> tuple[float, float, int]:
    return own.seconds, own.work, round(own.memory / 1e6)


if __name__ == "__main__":
    print_facts()
    if len(sys.argv) > 1:
        sys.exit(benchmark(Path(sys.argv[1])))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(Path(temporary)))
