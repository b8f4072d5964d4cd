"""Do two revisions give the same numbers, file by file, whatever their modules, flags and keys are called?

    python -m tests.benchmarks.same_numbers BEFORE AFTER [FOLDER]

Checks both out, runs the same commands in each, side by side and in one thread each, and compares all that they write:
bytes, else values, to the bit. About 10 minutes on 2 cores. A FOLDER that is named keeps what they wrote, and what is
there of a revision already is not made again. Exit status 1 on any difference.
"""

import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from abaw_expr.commands import console
from tests.benchmarks.common import judge
from tests.benchmarks.same_files import Names, compare

FLAGS: dict[str, str] = {
    "--interval": "--stride",
    "--data.interval": "--data.stride",
    "--data.val-interval": "--data.val-stride",
}
"""Commands and flags by what they were called before; a tree that does not know the old name is given the new one."""
NAMES = Names(
    renamed={
        "interval": ("stride",),
        "val_interval": ("val_stride",),
        "pictures": ("frames_per_sample",),
        "neighbours": ("sequence",),
        "light": ("jitter",),
        "average": ("ema", "ema_decay"),
        "part": ("micro_batch",),
        "figures": ("scores",),
        "shares": ("fractions",),
        "share": ("fraction",),
        "chances": ("draw_probabilities",),
    },
    patterns=(),
    left_out=frozenset({"version", "seconds", "waiting", "source"}),
    files_left_out=("inputs/*", "*.png", "*.svg", "*.md", "*.log", "*.db"),
)
"""What is called otherwise now. Left out are times, and pictures and reports, whose words change."""

QUICK = "--optimiser.epochs 1 --data.interval 3 --data.val-interval 3"
RUN = "--store demo/store --run demo/run"
FILM = "demo/release/videos/batch2/6-8-160x128.mp4"
TABLES = {"va": ("one", "two"), "au": ("one", "two"), "expr": ("one", "two", "three")}
"""The models whose numbers are imported, by challenge."""
COLUMNS = {
    "va": "valence,arousal",
    "au": "AU1,AU2,AU4,AU6,AU7,AU10,AU12,AU15,AU23,AU24,AU25,AU26",
    "expr": "Neutral,Anger,Disgust,Fear,Happiness,Sadness,Surprise,Other",
}
LENGTHS = {"1-30-1280x720": 240, "v2_left": 200, "v2_right": 160, "v3": 180}


def imported(task: str) -> list[str]:
    """The commands that take other models' numbers to a submission."""
    tables = [f"{task}/{model}.parquet" for model in TABLES[task]]
    outputs, decision = f"--outputs {' '.join(tables)}", f"--decision {task}/decision.json"
    template = f"--template inputs/{task}.txt"
    return [
        *(
            f"import inputs/{task}-{model}.csv --name {model} --annotations inputs/{task} --rate 10 --out {table}"
            for model, table in zip(TABLES[task], tables, strict=True)
        ),
        f"tune {outputs} --out {task}/decision.json --leave-out",
        f"score {outputs} {decision} --out {task}/score.json",
        f"submit {outputs} {decision} {template} --out {task}/predictions.txt",
        f"check {task}/predictions.txt {template}",
    ]


COMMANDS = [
    "demo --out demo",
    f"train --store demo/store --run modern --settings modern {QUICK}",
    f"train --store demo/store --run paper --settings paper {QUICK}",
    "predict --store demo/store --run paper --split val --out paper/val.parquet --checkpoint last --interval 1",
    "tune --outputs demo/val.parquet --out tuned/decision.json --leave-out",
    "score --outputs demo/val.parquet --decision tuned/decision.json --out tuned/score.json",
    "score --predictions demo/predictions.txt --annotations demo/release/hidden_test_labels --out tuned/test.json",
    "convert demo/predictions.txt --out per-video",
    f"penalties {RUN} --out penalties --trials 4 --batch 2 --interval 2",
    f"refit {RUN} --out refit --interval 2",
    f"infer {FILM} --run demo/run --decision demo/decision.json --out infer",
    f"ablate --store demo/store --out ablation --seeds 1 --rows v-base v-gcsa --jobs 2 {QUICK}",
    *(command for task in TABLES for command in imported(task)),
]


def write_inputs(folder: Path) -> None:
    """Writes made-up annotations, models' numbers that know them too little, and a template, of each challenge."""
    for task, models in TABLES.items():
        columns, rng = COLUMNS[task].split(","), np.random.default_rng(len(task))
        (folder / task).mkdir(parents=True)
        rows: dict[str, list[pd.DataFrame]] = {model: [] for model in models}
        for video, length in LENGTHS.items():
            truth = made_up(task, length // 5, rng).repeat(5, axis=0)
            written = truth.argmax(axis=1)[:, None] if task == "expr" else truth
            lines = [",".join(f"{number:g}" for number in line) for line in written]
            (folder / task / f"{video}.txt").write_text("\n".join([COLUMNS[task], *lines]) + "\n")
            for model in models:
                known = pd.DataFrame((truth + 2 * made_up(task, length, rng)) / 3, columns=columns)
                known.insert(0, "frame", np.arange(1, length + 1))
                rows[model].append(known.assign(video=video)[rng.random(length) < 0.9])
        for model in models:
            pd.concat(rows[model]).to_csv(folder / f"{task}-{model}.csv", index=False)
        asked = [f"{video}/{frame:05d}.jpg," for video, length in LENGTHS.items() for frame in range(1, length + 1)]
        (folder / f"{task}.txt").write_text("\n".join([f"image_location,{COLUMNS[task]}", *asked]) + "\n")


def made_up(task: str, frames: int, rng: np.random.Generator) -> np.ndarray:
    """Any annotations of frames, [frames, columns], of a class as ones and zeros."""
    width = len(COLUMNS[task].split(","))
    if task == "expr":
        return np.eye(width)[rng.integers(width, size=frames)]
    return rng.uniform(-1, 1, (frames, width)).round(3) if task == "va" else rng.integers(2, size=(frames, width)) * 1.0


@contextmanager
def checked_out(commit: str) -> Iterator[Path]:
    """The tree of a commit, gone afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        git("worktree", "add", "--detach", str(tree), commit)
        try:
            yield tree
        finally:
            git("worktree", "remove", "--force", str(tree))


def git(*words: str) -> str:
    return subprocess.run(["git", *words], check=True, capture_output=True, text=True).stdout.strip()


def make(commit: str, out: Path) -> None:
    """Runs all commands in the tree of a commit and fills `out`, unless that was done before."""
    done = out / "done.log"
    if done.exists():
        return
    shutil.rmtree(out, ignore_errors=True)  # of a run that did not get to its end
    for folder in ("tuned", *TABLES):
        (out / folder).mkdir(parents=True)
    write_inputs(out / "inputs")
    with checked_out(commit) as tree:
        for command in COMMANDS:
            began = time.perf_counter()
            call(tree, out, spelt(tree, out, command))
            console.note(f"{out.name}: {time.perf_counter() - began:.0f} s: {command}")
    done.touch()


def spelt(tree: Path, out: Path, command: str) -> list[str]:
    """A command's words as that tree knows them."""
    name, *words = command.split()
    name = known(name, call(tree, out, ["--help"])) if name in FLAGS else name
    shown = call(tree, out, [name, "--help"]) if FLAGS.keys() & set(words) else ""
    return [name, *(known(word, shown) for word in words)]


def known(word: str, shown: str) -> str:
    """A command or flag, or what it is called now where the help does not show it."""
    return word if re.search(rf"(?<![\w.-]){re.escape(word)}(?![\w.-])", shown) else FLAGS.get(word, word)


def call(tree: Path, out: Path, words: Sequence[str]) -> str:
    """What a command of that tree printed; paths in it are relative to `out`, so they are the same of both trees."""
    # Bits depend on the number of threads; on a GPU also on chance.
    alone = {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    line = [sys.executable, "-m", "abaw_expr", *words]
    ended = subprocess.run(line, cwd=out, env=os.environ | alone, capture_output=True, text=True)
    if ended.returncode:
        raise SystemExit(f"{out.name}: {' '.join(words)} ended with {ended.returncode}:\n{ended.stderr[-2000:]}")
    return ended.stdout


def benchmark(before: str, after: str, folder: Path) -> int:
    """Runs both, prints a row a folder of what they wrote and the verdict, and returns the exit status."""
    commits = [git("rev-parse", "--verify", f"{revision}^{{commit}}") for revision in (before, after)]
    old, new = folder / commits[0][:12], folder / (commits[1][:12] + "-again" * (commits[0] == commits[1]))
    with ThreadPoolExecutor() as pool:
        list(pool.map(make, commits, (old, new)))
    found = compare(old, new, NAMES)
    rows = [(name, one.files, one.values, one.difference or "same") for name, one in found.items()]
    console.table(f"{before} and {after}", ("", "files", "values", "difference"), rows)
    same = sum(one.difference is None for one in found.values())
    return judge((same == len(found), f"{same} of {len(found)} folders hold the same numbers, to the bit"))


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    if len(sys.argv) == 4:
        sys.exit(benchmark(sys.argv[1], sys.argv[2], Path(sys.argv[3]).resolve()))
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(sys.argv[1], sys.argv[2], Path(temporary)))
