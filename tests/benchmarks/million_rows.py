"""The EXPR test set's 1,022,655 rows, written and checked, against the same by pandas; and 10,000 rows to 10 million.

    python -m tests.benchmarks.million_rows [ROWS ...]

Whole commands are timed, each in a process of its own, start-up and all: `submit` from an outputs table of two
branches, and `check` of what it wrote. The baselines read, join by image location and write as one would with pandas;
the files must be equal. 10 million rows take about 6 GB of memory and 2 GB of disk. Exit status 1 when short.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from abaw_expr.commands import console
from abaw_expr.tasks.task import EXPR
from tests.benchmarks.common import judge
from tests.helpers.branches import BRANCHES

if TYPE_CHECKING:
    import pyarrow as pa

ROWS = 1_022_655
SIZES = (10_000, 100_000, ROWS, 10_000_000)
VIDEO_ROWS = ROWS // 228
BLOCK = 1_000_000
TURNS = 3
SECONDS, BYTES, LINEAR = 4.0, 600e6, 1.5
OUTPUTS, DECISION, TEMPLATE, OURS, BASELINE = (
    "outputs.parquet",
    "decision.json",
    "template.txt",
    "ours.txt",
    "pandas.txt",
)


class Cost(NamedTuple):
    """What a command takes: seconds, seconds of all cores, and bytes of memory at its peak."""

    seconds: float
    work: float
    memory: float


def make(folder: Path, rows: int) -> None:
    """Writes a template, an outputs table of its rows with random probabilities, and a decision."""
    import pyarrow.parquet as pq

    from abaw_expr.outputs.decision import Decision, Vote
    from abaw_expr.outputs.table import Outputs, Source, write_outputs

    prior = (1 / EXPR.n_columns,) * EXPR.n_columns
    Decision({name: Vote(prior) for name in BRANCHES}).save(folder / DECISION)
    few = random_table(0, 10).to_pandas()
    write_outputs(folder / OUTPUTS, Outputs(EXPR, few, "test", dict.fromkeys(BRANCHES, Source("random", prior))))
    schema = pq.read_schema(folder / OUTPUTS)
    with (
        pq.ParquetWriter(folder / OUTPUTS, schema, compression="zstd") as outputs,
        open(folder / TEMPLATE, "w") as template,
    ):
        template.write(f"{EXPR.submission_header}\n")
        for start in range(0, rows, BLOCK):
            table = random_table(start, min(BLOCK, rows - start))
            outputs.write_table(table.cast(schema))
            pairs = zip(table["video"].to_pylist(), table["frame"].to_pylist(), strict=True)
            template.writelines(f"{video}/{frame:05d}.jpg,\n" for video, frame in pairs)


def random_table(start: int, rows: int) -> "pa.Table":
    """Rows of the outputs table from one on, with random probabilities, 30 frames a second."""
    import pyarrow as pa

    from abaw_expr.outputs.table import branch_columns

    rng = np.random.default_rng(start)
    video, frame = np.divmod(np.arange(start, start + rows), VIDEO_ROWS)
    names = [f"{number:05d}-30-1920x1080" for number in range(video[-1] + 1)]
    columns = {"video": pa.DictionaryArray.from_arrays(video.astype(np.int32), names), "frame": frame + 1}
    columns |= {"time": frame / 30, "crop": np.ones(rows, bool)}
    for name in BRANCHES:
        p = rng.random((rows, EXPR.n_columns), np.float32)
        p /= p.sum(axis=1, keepdims=True)
        columns |= dict(zip(branch_columns(name, EXPR), p.T.copy(), strict=True))
    columns["label"] = np.full(rows, EXPR.ignore_value, np.int8)
    return pa.table(columns)


def write_by_pandas(folder: Path) -> None:
    """The submission as one would write it down first."""
    import pandas as pd

    from abaw_expr.outputs.table import branch_columns

    table = pd.read_parquet(folder / OUTPUTS)
    template = pd.read_csv(folder / TEMPLATE, usecols=[0])
    p = sum(table[branch_columns(name, EXPR)].to_numpy() / 2 for name in BRANCHES)
    image = table["video"].astype(str) + "/" + table["frame"].astype(str).str.zfill(5) + ".jpg"
    found = pd.DataFrame({"image_location": image, "label": np.asarray(p).argmax(axis=1)})
    joined = template.merge(found, on="image_location", how="left", validate="one_to_one")
    assert joined["label"].notna().all()
    with open(folder / BASELINE, "w") as file:
        file.write(f"{EXPR.submission_header}\n")
        joined.to_csv(file, header=False, index=False)


def check_by_pandas(folder: Path) -> None:
    """Header, rows, order and labels, as one would look at them first; it says no line."""
    import pandas as pd

    with open(folder / OURS) as file:
        assert file.readline() == f"{EXPR.submission_header}\n"
    template = pd.read_csv(folder / TEMPLATE, usecols=[0])
    found = pd.read_csv(folder / OURS, skiprows=1, names=["image_location", "label"])
    joined = template.merge(found, on="image_location", how="outer", indicator=True, validate="one_to_one", sort=False)
    assert (joined["_merge"] == "both").all()
    assert (template["image_location"] == found["image_location"]).all()
    assert found["label"].between(0, EXPR.n_columns - 1).all()


STEPS = {"write": write_by_pandas, "check": check_by_pandas}


def cost(*arguments: str | Path) -> Cost:
    """What a Python program takes from its start to its end."""
    began = time.perf_counter()
    command = [sys.executable, "-m", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE) as process:
        assert process.stderr is not None
        said = process.stderr.read().decode()
        _, status, used = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - began
        process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"{arguments} ended with {process.returncode}: {said}"
    return Cost(seconds, used.ru_utime + used.ru_stime, used.ru_maxrss * 1024)


def ours(step: str, folder: Path) -> Cost:
    template = ("--template", folder / TEMPLATE)
    if step == "check":
        return cost("abaw_expr", "check", folder / OURS, *template)
    tables = ("--outputs", folder / OUTPUTS, "--decision", folder / DECISION)
    return cost("abaw_expr", "submit", *tables, *template, "--out", folder / OURS)


def by_pandas(step: str, folder: Path) -> Cost:
    return cost("tests.benchmarks.million_rows", step, folder)


def median(costs: list[Cost]) -> Cost:
    """The medians of the seconds, and the most memory."""
    seconds, work, memory = zip(*costs, strict=True)
    return Cost(statistics.median(seconds), statistics.median(work), max(memory))


def measure(rows: int) -> tuple[dict[str, Cost], dict[str, Cost], bool]:
    """What ours and the baselines take by step, in turns, and whether both wrote the same; beyond `ROWS` ours, once."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        cost("tests.benchmarks.million_rows", "make", folder, str(rows))
        alone = rows > ROWS
        found: dict[str, Cost] = {}
        baselines: dict[str, Cost] = {}
        for step in STEPS:
            turns = [
                (ours(step, folder), None if alone else by_pandas(step, folder)) for _ in range(1 if alone else TURNS)
            ]
            found[step] = median([first for first, _ in turns])
            if not alone:
                baselines[step] = median([second for _, second in turns if second])
        same = alone or (folder / OURS).read_bytes() == (folder / BASELINE).read_bytes()
        return found, baselines, same


def shown(own: Cost) -> tuple[str, str, int]:
    return f"{own.seconds:.2f}", f"{own.work:.2f}", round(own.memory / 1e6)


def benchmark(sizes: list[int]) -> int:
    """Runs all sizes, prints the tables and the verdict, and returns the exit status."""
    results = {}
    with console.progress("Writing and checking") as tell:
        for done, rows in enumerate(sizes):
            tell(done, len(sizes))
            results[rows] = measure(rows)
    for step in STEPS:
        table = []
        for rows, (found, baselines, _) in results.items():
            own, base = found[step], baselines.get(step)
            speed, ratio = round(rows / own.seconds), base and base.seconds / own.seconds
            table.append((f"{rows:,}", *shown(own), speed, *(shown(base) if base else (None,) * 3), ratio))
        own_columns, base_columns = ("s", "CPU s", "MB", "rows/s"), ("pandas: s", "CPU s", "MB", "ratio")
        console.table(f"{step}, medians of {TURNS} turns", ("rows", *own_columns, *base_columns), table)
    console.OUT.print(f"{os.cpu_count()} cores, {os.getloadavg()[0]:.1f} processes at work in the last minute")
    return judge(*(claim for step in STEPS for claim in claims(step, results)))


def claims(step: str, results: dict[int, tuple[dict[str, Cost], dict[str, Cost], bool]]) -> list[tuple[bool, str]]:
    """What is claimed of a step, where the sizes that it takes were run."""
    said = []
    if ROWS in results:
        found, baselines, same = results[ROWS]
        own, base = found[step], baselines[step]
        said.append((own.seconds < SECONDS, f"{step}: {ROWS:,} rows in {own.seconds:.1f} s, required {SECONDS:g}"))
        said.append((own.memory < BYTES, f"{step}: {own.memory / 1e6:.0f} MB, required {BYTES / 1e6:g}"))
        said.append(
            (same, f"{step}: the same as by pandas, which takes {base.seconds / own.seconds:.1f} times as long")
        )
    large = max(results)
    if ROWS in results and large > ROWS:
        growth = results[large][0][step].seconds / large / (results[ROWS][0][step].seconds / ROWS)
        said.append(
            (growth <= LINEAR, f"{step}: a row of {large:,} takes {growth:.2f} times as long, at most {LINEAR}")
        )
    return said


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(Path(sys.argv[2]), int(sys.argv[3]))
    elif sys.argv[1:2] and sys.argv[1] in STEPS:
        STEPS[sys.argv[1]](Path(sys.argv[2]))
    else:
        sys.exit(benchmark([int(rows) for rows in sys.argv[1:]] or list(SIZES)))
