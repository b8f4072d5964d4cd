"""Arrays that are mapped from disk leave the process's memory when they are released."""

from pathlib import Path

import numpy as np

from abaw_expr.data.store.arrays import read_array, release

MEGABYTES = 64


def mapped() -> int:
    """Bytes of files that are mapped into this process and in memory."""
    lines = dict(line.split(":") for line in Path("/proc/self/status").read_text().splitlines())
    return int(lines["RssFile"].split()[0]) * 1024


def test_rows_are_let_go_and_read_again(tmp_path: Path) -> None:
    rows = np.random.default_rng(0).normal(size=(MEGABYTES * 2**10, 512)).astype(np.float16)
    np.save(tmp_path / "rows.npy", rows)
    found, before = read_array(tmp_path / "rows.npy", None, np.float16, (512,)), mapped()
    np.testing.assert_array_equal(found, rows)
    held = mapped()
    assert held - before > 0.9 * MEGABYTES * 2**20
    release(found)
    assert held - mapped() > 0.9 * MEGABYTES * 2**20
    np.testing.assert_array_equal(found[-3:], rows[-3:])


def test_an_array_in_memory_stays() -> None:
    rows = np.ones((2, 3))
    release(rows)
    assert rows.sum() == 6
