"""Every defect of a release at once: each is reported, nothing else is lost, and kills on the way change nothing."""

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

import pytest

from abaw_expr.data.store.store import MANIFEST
from tests.helpers.defects import (
    DEFECTS,
    LEFT_OUT,
    kill_three_times,
    reported,
    start_prepare,
    usable_crops,
    write_defective,
    write_whole,
)
from tests.helpers.tiny import contents, run

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


WHOLE = tuple(f"{number:02d}-10-64x64" for number in range(6))
FRAMES = 30


class Corpus(NamedTuple):
    """A release with every defect, what must be reported of it, its store, and what the command printed."""

    release: Path
    expected: dict[str, list[str]]
    store: Path
    said: str


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    root = tmp_path_factory.mktemp("defects")
    expected = write_defective(root / "release", WHOLE, FRAMES)
    process = start_prepare(root / "release", root / "store")
    said, _ = process.communicate()
    assert process.returncode == 1, said
    return Corpus(root / "release", expected, root / "store", said)


def test_each_defect_is_reported_once_and_with_a_remedy(corpus: Corpus) -> None:
    assert reported(corpus.store) == corpus.expected
    lines = {line.split(":")[0].strip() for line in corpus.said.splitlines()}
    count = Counter(kind for kinds in corpus.expected.values() for kind in kinds)
    assert {f"{number} {kind}" for kind, number in count.items()} <= lines


def test_nothing_else_is_lost(corpus: Corpus, tmp_path: Path) -> None:
    write_whole(tmp_path / "release", [*WHOLE, *DEFECTS], FRAMES)
    assert run(tmp_path / "release", tmp_path / "store").problems == ()
    for name in WHOLE:
        assert contents(corpus.store / "recordings" / name) == contents(tmp_path / "store/recordings" / name)
    videos = json.loads((corpus.store / MANIFEST).read_bytes())["videos"]
    assert videos.keys() == {*WHOLE, *DEFECTS} - LEFT_OUT
    assert {name: video["crops"] for name, video in videos.items()} == {n: usable_crops(n, FRAMES) for n in videos}


def test_three_kills_change_nothing(corpus: Corpus, tmp_path: Path) -> None:
    store = tmp_path / "store"
    kill_three_times(corpus.release, store, len(WHOLE) + len(DEFECTS))
    process = start_prepare(corpus.release, store)
    process.communicate()
    assert process.returncode == 1
    assert contents(store) == contents(corpus.store)
