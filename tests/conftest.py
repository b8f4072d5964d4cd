"""Settings of all tests, and the small corpus that many of them share."""

import os
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from abaw_expr.data.store.store import Store

# The machines that run the tests are shared and slow at times: how long an example takes says nothing about the code.
settings.register_profile("shared", deadline=None)
settings.load_profile("shared")

# Small tensors on a shared machine: threads that wait for each other cost more than they give.
os.environ["OMP_NUM_THREADS"] = "1"

LONGEST = (
    *("test_every_combination.py", "test_parallel.py", "test_cross_validation.py", "test_ablation.py"),
    *("test_recipes.py", "test_mixture.py", "test_keeping.py", "test_survival.py", "test_storage.py"),
)
"""Files that take the longest, which begin first; the others with slow tests follow."""

signal.signal(signal.SIGINT, signal.default_int_handler)  # what runs in the background of a shell ignores Ctrl-C


def pytest_configure(config: pytest.Config) -> None:
    """Leaves torchmetrics out of the processes that tests start, as a user's environment does.

    Fabric asks for its version where it is installed, and so imports it, and with it parts of SciPy and Matplotlib.
    """
    folder = tempfile.TemporaryDirectory(prefix="abaw-")
    config.add_cleanup(folder.cleanup)
    Path(folder.name, "torchmetrics.py").write_text("raise ImportError\n")
    before = os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([folder.name, *([before] if before else [])])


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files come first, so that no core waits at the end for a long file that another began late."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (places.get(item.path.name, len(LONGEST)), item.path not in slow))


@pytest.fixture(scope="session")
def release(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small synthetic release with all its quirks. Never write into it: copy it first."""
    from tests.helpers.tiny import small_release

    root = tmp_path_factory.mktemp("corpus") / "release"
    small_release(root)
    return root


@pytest.fixture(scope="session")
def store(release: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The store prepared from `release`. Never write into it: copy it first."""
    from abaw_expr.data.store.prepare import prepare

    root = tmp_path_factory.mktemp("corpus") / "store"
    prepare(release, root, workers=1, on_progress=lambda done, total: None)
    return root


@pytest.fixture(scope="module")
def corpus(store: Path) -> "Store":
    """The store, opened."""
    from tests.helpers.fitting import opened

    return opened(store)
