"""Every defect of a release at once: each is told, nothing else is lost, and kills on the way change nothing."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import NamedTuple

import pytest

from abaw_expr.data.store import MANIFEST
from tests.defects import DEFECTS, drop_root_rights, write_defective, write_whole
from tests.tiny import contents, run

WHOLE = tuple(f"{number:02d}-10-64x64" for number in range(6))
FRAMES = 30


def start(release: Path, store: Path) -> subprocess.Popen[str]:
    """The command in a process group of its own, two workers with it."""
    command = [sys.executable, "-m", "abaw_expr", "prepare", "--release", str(release), "--store", str(store)]
    return subprocess.Popen(
        [*command, "--workers", "2"],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        process_group=0,
        preexec_fn=drop_root_rights,
    )


def kill_after(process: subprocess.Popen[str], store: Path, recordings: int, pause: float) -> None:
    """Kills a whole process group a moment after so many recordings are there."""
    while process.poll() is None and len(list(store.glob("recordings/[!.]*"))) < recordings:
        time.sleep(0.001)
    time.sleep(pause)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert process.returncode == -signal.SIGKILL


class Corpus(NamedTuple):
    """A release with every defect, what must be told of it, its store, and what the command said."""

    release: Path
    expected: dict[str, list[str]]
    store: Path
    said: str


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("defects")
    expected = write_defective(root / "release", WHOLE, FRAMES)
    process = start(root / "release", root / "store")
    said, _ = process.communicate()
    assert process.returncode == 1, said
    return Corpus(root / "release", expected, root / "store", said)


def test_each_defect_is_told_once_and_with_a_remedy(corpus: Corpus) -> None:
    problems = json.loads((corpus.store / "report.json").read_bytes())["problems"]
    found = defaultdict(list)
    for problem in problems:
        found[problem["video"]].append(problem["kind"])
        assert problem["remedy"].endswith(".")
    assert {name: sorted(kinds) for name, kinds in found.items()} == corpus.expected
    assert len({(p["kind"], p["video"], p["detail"]) for p in problems}) == len(problems)
    told = {line.split(":")[0].strip() for line in corpus.said.splitlines()}
    count = Counter(kind for kinds in corpus.expected.values() for kind in kinds)
    assert {f"{number} {kind}" for kind, number in count.items()} <= told


def test_nothing_else_is_lost(corpus: Corpus, tmp_path: Path) -> None:
    store = corpus.store
    write_whole(tmp_path / "release", [*WHOLE, *DEFECTS], FRAMES)
    assert run(tmp_path / "release", tmp_path / "store").problems == ()
    manifest = json.loads((store / MANIFEST).read_bytes())
    whole = json.loads((tmp_path / "store" / MANIFEST).read_bytes())
    assert whole["videos"].keys() - manifest["videos"].keys() == {"truncated", "unfilmed", "lost film"}
    for name in WHOLE:
        assert contents(store / "recordings" / name) == contents(tmp_path / "store/recordings" / name)
    lost = {"empty crop": 1, "one pixel": 1, "jumping": 10, "closed": FRAMES, "no crops": FRAMES}
    crops = {name: video["crops"] for name, video in manifest["videos"].items()}
    assert crops == {name: FRAMES - lost.get(name, 0) for name in manifest["videos"]}


def test_three_kills_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    store = tmp_path / "store"
    rng = random.Random(time.time_ns())
    for least in (1, 8, 16):
        at, pause = rng.randrange(least, least + 8), rng.uniform(0, 0.05)
        print(f"killed {pause:.3f} s after {at} recordings")  # shown where the test fails
        kill_after(start(corpus.release, store), store, at, pause)
        assert not (store / MANIFEST).exists()
    process = start(corpus.release, store)
    process.communicate()
    assert process.returncode == 1
    assert contents(store) == contents(corpus.store)
