"""A large release with every defect: each told, nothing else lost, and three kills that change nothing.

    python -m tests.benchmarks.defects [--videos 100] [--frames 3000]

About 5 minutes on 2 cores and 3 GB of disk, gone afterwards. Beside the whole videos there is one as long for each
defect. It is prepared once without a stop, and once with its whole process group killed three times at random moments.
Exit status 1 when short.
"""

import hashlib
import json
import sys
import tempfile
import time
from pathlib import Path

import tyro

from abaw_expr.commands import console
from abaw_expr.data.store.store import MANIFEST
from tests.benchmarks.common import judge
from tests.helpers.defects import (
    DEFECTS,
    LEFT_OUT,
    kill_three_times,
    reported,
    start_prepare,
    usable_crops,
    write_defective,
)


def digests(root: Path) -> dict[str, str]:
    """Every file under a folder by a hash of its bytes."""
    found = {}
    for path in sorted(root.rglob("*")):
        if path.is_file():
            with open(path, "rb") as file:
                found[str(path.relative_to(root))] = hashlib.file_digest(file, "sha256").hexdigest()
    return found


def timed_prepare(release: Path, store: Path) -> float:
    """Seconds until the command is done."""
    began = time.perf_counter()
    process = start_prepare(release, store)
    said, _ = process.communicate()
    assert process.returncode == 1, said  # videos are left out
    return time.perf_counter() - began


def benchmark(videos: int = 100, frames: int = 3_000) -> int:
    """Runs it, prints what was found and the verdict, and returns the exit status.

    Args:
        videos: Whole videos.
        frames: Frames of each video, all of them with a crop.
    """
    names = [f"{number:04d}-10-64x64" for number in range(videos)]
    with tempfile.TemporaryDirectory() as folder:
        release, store, killed = (Path(folder) / name for name in ("release", "store", "killed"))
        expected = write_defective(release, names, frames)
        seconds = timed_prepare(release, store)
        kill_three_times(release, killed, videos + len(DEFECTS))
        timed_prepare(release, killed)
        found = json.loads((store / MANIFEST).read_bytes())["videos"]
        crops = {name: video["crops"] for name, video in found.items()}
        usable = {name: usable_crops(name, frames) for name in {*names, *DEFECTS} - LEFT_OUT}
        claims = (
            (reported(store) == expected, f"{sum(map(len, expected.values()))} defects told, each once with a remedy"),
            (
                crops == usable,
                f"{sum(crops.values()):,} crops of {len(crops)} videos in the store, every usable one",
            ),
            (digests(store) == digests(killed), "the same bytes after three kills"),
        )
    console.OUT.print(f"prepared in {seconds:.0f} s by 2 processes")
    return judge(*claims)


if __name__ == "__main__":
    sys.exit(tyro.cli(benchmark))
