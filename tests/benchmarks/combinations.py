"""Every task with every kind of branches and every temporal model: killed and resumed, and in two processes.

    python -m tests.benchmarks.combinations [PART ...]

For each of them, or those whose name contains a PART, such as `va, late`: a run that SIGKILL ends within its second
epoch is resumed and equals an undisturbed one to the bit; two processes have the losses of one over 20 steps in
float64, within 1e-5. About a minute each on 2 idle cores. Exit status 1 when one does not.
"""

import sys
import tempfile
from pathlib import Path

from abaw_expr.commands import console
from abaw_expr.data.store.prepare import prepare
from tests.benchmarks.common import judge
from tests.helpers.combinations import Combination, check_processes, check_resume, combinations
from tests.helpers.tiny import small_release


def holds(one: Combination, store: Path) -> tuple[str, str, str]:
    """A row of the table."""
    found = [str(one)]
    for check in (check_resume, check_processes):
        with tempfile.TemporaryDirectory() as folder:
            try:
                check(one, store, Path(folder))
                found.append("holds")
            except AssertionError as error:
                found.append(f"SHORT: {str(error)[:200]}")
    console.note(", ".join(found))
    return found[0], found[1], found[2]


def benchmark(parts: list[str]) -> int:
    """Runs all and returns the exit status."""
    chosen = [one for one in combinations() if not parts or any(part in str(one) for part in parts)]
    with tempfile.TemporaryDirectory() as folder:
        small_release(Path(folder) / "release")
        store = Path(folder) / "store"
        prepare(Path(folder) / "release", store, 1, lambda done, total: None)
        rows = [holds(one, store) for one in chosen]
    console.table("Combinations", ("", "killed and resumed", "two processes"), rows)
    kept = sum(row[1:] == ("holds", "holds") for row in rows)
    return judge((kept == len(rows), f"{kept} of {len(rows)} combinations hold"))


if __name__ == "__main__":
    sys.exit(benchmark(sys.argv[1:]))
