"""The bundle of EXPR's test set, 1,022,655 rows, against the same files put into a zip by the standard library.

    python -m tests.benchmarks.bundle [TURNS]

Beside the zip the bundle holds a hash of everything, and the same inputs give the same bytes; the baseline has neither.
The check of the predictions is left out of both. Claimed: at most a third slower, and no more than 8 MB of memory for a
file of 29 MB. Exit status 1 when short.
"""

import sys
import tempfile
import tracemalloc
from pathlib import Path
from zipfile import ZIP_DEFLATED, ZipFile

import numpy as np

from abaw_expr.outputs.table import Outputs
from abaw_expr.tasks.names import frame_name
from abaw_expr.tasks.task import EXPR
from submissions import bundle
from tests.benchmarks.common import judge, print_facts, print_races, race

ROWS, VIDEOS = 1_022_655, 228
STRETCH = 30
"""Rows in a row that have the same class."""
SLOWEST, MOST_BYTES = 0.75, 8e6


def write_files(folder: Path) -> tuple[Path, Path, Path]:
    """Predictions in stretches, their template and a decision."""
    frames = [range(1, len(part) + 1) for part in np.array_split(np.arange(ROWS), VIDEOS)]
    rows = [frame_name(f"{video}-30-1920x1080", frame) for video, numbers in enumerate(frames) for frame in numbers]
    labels = np.random.default_rng(0).integers(0, 8, ROWS // STRETCH + 1).repeat(STRETCH)[:ROWS].tolist()
    paths = (folder / "predictions.txt", folder / "template.txt", folder / "decision.json")
    lines = (f"{row},{label}\n" for row, label in zip(rows, labels, strict=True))
    for path, body in zip(paths, (lines, (f"{row},\n" for row in rows)), strict=False):
        path.write_text(f"{EXPR.submission_header}\n{''.join(body)}")
    paths[2].write_text('{"task": "expr"}\n')
    return paths


def benchmark(folder: Path, turns: int) -> int:
    """Prints the race and the verdict, and returns the exit status."""
    predictions, template, decision = write_files(folder)
    outputs = Outputs(EXPR, None, "test", {})

    def plain() -> None:
        with ZipFile(folder / "plain.zip", "w", ZIP_DEFLATED) as archive:
            for path in (predictions, decision):
                archive.write(path, path.name)

    def ours() -> None:
        bundle.write_bundle(folder / "ours.zip", predictions, template, [decision], [outputs], {})

    result = race(plain, ours, turns)
    print_races("Zips of one submission", "row", ROWS, [("zip", result)])
    tracemalloc.start()
    ours()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return judge(
        (result.ratio >= SLOWEST, f"{result.ratio:.2f} of the baseline's speed, at least {SLOWEST}"),
        (peak < MOST_BYTES, f"{peak / 1e6:.1f} MB at most, under {MOST_BYTES / 1e6:.0f} MB"),
    )


if __name__ == "__main__":
    print_facts()
    with tempfile.TemporaryDirectory() as temporary:
        sys.exit(benchmark(Path(temporary), int(sys.argv[1]) if len(sys.argv) > 1 else 5))
