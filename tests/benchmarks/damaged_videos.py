"""Time and memory of `prepare` and `infer` of 500 randomly damaged films, against those of the films undamaged.

    python -m tests.benchmarks.damaged_videos [FILMS] [FIRST SEED]

About 8 minutes on two cores. Six films of two seconds in MP4, Matroska, AVI, transport stream and WebM; every damage
(bits, time stamps, ends cut off, splices) follows from its number. Each is prepared, and answered for, in a process of
its own, forked where everything is imported; its processor time and peak memory are the system's figures, and a film
beyond the claim is weighed again. Claimed: at most twice the time and memory of the same film undamaged, and no command
ends otherwise than by its answer or by naming what is wrong (exit status 0, 1 or 2). Exit status 1 when short.
"""

import contextlib
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from abaw_expr.commands import console
from abaw_expr.commands.main import main as command
from tests.benchmarks.common import judge, print_facts
from tests.helpers.damage import damage, write_videos

MOST = 2.0
"""Times the undamaged film's."""
LEAST_SECONDS = 0.05
"""Processor time below which a ratio says nothing but how the machine was."""


class Cost(NamedTuple):
    """What a command took."""

    status: int
    seconds: float
    """Of the processor."""
    megabytes: float
    """At the peak."""


def cost(arguments: Sequence[str]) -> Cost:
    """Runs a command in a forked process."""
    child = os.fork()
    if child == 0:
        status = 99
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                console.OUT.quiet = console.ERR.quiet = True
                status = command(list(arguments))
        except SystemExit as end:
            status = int(end.code or 0)
        finally:
            os._exit(status)
    _, status, usage = os.wait4(child, 0)
    return Cost(os.waitstatus_to_exitcode(status), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def commands(film: Path, folder: Path, run: Path) -> dict[str, list[str]]:
    """Both commands of a film, in a new folder."""
    folder.mkdir()
    (folder / "clips.csv").write_text(f"path,label,subject,split\n{film},happy,a,train\n")
    prepare = ["prepare", "--kind", "clips", "--release", str(folder / "clips.csv"), "--store", str(folder / "store")]
    infer = ["infer", str(film), "--run", str(run), "--out", str(folder / "out"), "--accelerator", "cpu"]
    return {"prepare": [*prepare, "--workers", "1"], "infer": infer}


def warm_up() -> None:
    """Imports everything that the commands import, without work of torch's threads, which a fork would lose."""
    import importlib

    import torch

    torch.set_num_threads(1)
    for name in ("data.prepare", "data.recording", "data.logmel", "data.datasets.kinds", "answer.answer"):
        importlib.import_module(f"abaw_expr.{name}")
    for name in ("answer.annotate", "fusion", "faces.extract", "inference"):
        importlib.import_module(f"abaw_expr.{name}")
    importlib.import_module("facenet_pytorch.models.mtcnn")


def main(count: int = 500, first: int = 0) -> int:
    """Damages, measures, and judges."""
    from tests.training.test_predict import make_run

    print_facts()
    claims: list[tuple[bool, str]] = []
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        films, run = write_videos(root), make_run(root / "run").root
        warm_up()
        whole = {f.suffix + f.stem: {n: _best(c) for n, c in commands(f, root / f.stem, run).items()} for f in films}
        worst: dict[str, list[tuple[float, float, int]]] = {"prepare": [], "infer": []}
        ended = list[str]()
        with console.progress("Damaging films") as tell:
            for seed in range(first, first + count):
                film = damage(films, root, seed)
                source = films[seed % len(films)]
                for name, arguments in commands(film, root / f"w{seed}", run).items():
                    base, took = whole[source.suffix + source.stem][name], cost(arguments)
                    ratio = _ratio(took, base)
                    if max(ratio) > MOST:
                        again = cost(arguments if name == "infer" else commands(film, root / f"x{seed}", run)[name])
                        ratio = min(ratio, _ratio(again, base), key=max)
                    worst[name].append((*ratio, seed))
                    if took.status not in (0, 1, 2):
                        ended.append(f"{name} {seed}: {took.status}")
                tell(seed - first + 1, count)
    rows = []
    for name, ratios in worst.items():
        time, memory = max(ratios), max(ratios, key=lambda one: one[1])
        rows += [(f"{name}, time", time[0], time[2]), (f"{name}, memory", memory[1], memory[2])]
        claims.append((time[0] <= MOST, f"{name}: at most {time[0]:.2f} times the time (film {time[2]})"))
        claims.append((memory[1] <= MOST, f"{name}: at most {memory[1]:.2f} times the memory (film {memory[2]})"))
    console.table("At worst, as a multiple of the undamaged film", ("", "times", "film"), rows)
    undamaged = [(film, name, *each[1:]) for film, both in whole.items() for name, each in both.items()]
    console.table("Undamaged", ("film", "command", "seconds", "MB"), undamaged)
    claims.append((not ended, f"of {2 * count} commands {len(ended)} ended: {ended[:5]}"))
    return judge(*claims)


def _best(arguments: Sequence[str]) -> Cost:
    found = cost(arguments)
    assert found.status in (0, 2), (found, arguments)
    return found


def _ratio(took: Cost, base: Cost) -> tuple[float, float]:
    return (max(took.seconds, LEAST_SECONDS) / max(base.seconds, LEAST_SECONDS), took.megabytes / base.megabytes)


if __name__ == "__main__":
    sys.exit(main(*map(int, sys.argv[1:])))
