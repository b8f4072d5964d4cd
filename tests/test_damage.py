"""Damaged files of our own are told, by name, whatever a library would have said; 200 mutants of each."""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.data.store.store import MANIFEST, open_store
from abaw_expr.errors import UserError
from abaw_expr.faces.choose import TRACK_COLUMNS, read_table
from abaw_expr.faces.detect import detect
from abaw_expr.faces.detections import load_detections, save_detections
from abaw_expr.outputs.decision import Decision, Vote
from abaw_expr.outputs.table import read_outputs, write_outputs
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from tests.helpers.challenges import make_table, make_video
from tests.helpers.clips import write_people
from tests.helpers.tiny import prepared_in, seal

MUTANTS = 200
DEEP = b'{"a": ' * 900 + b"1" + b"}" * 900


def mutant(data: bytes, rng: np.random.Generator) -> bytes:
    """The data with a few bytes changed, left out, doubled or cut; or something else altogether."""
    changed = bytearray(data)
    kind, place = rng.integers(6), int(rng.integers(len(data)))
    if kind <= 1:
        for _ in range(int(rng.integers(1, 5))):
            changed[int(rng.integers(len(data)))] ^= 1 << int(rng.integers(8))
    elif kind == 2:
        del changed[place : place + int(rng.integers(1, 40))]
    elif kind == 3:
        changed[place:place] = changed[place : place + int(rng.integers(1, 40))]
    elif kind == 4:
        del changed[place:]
    else:
        other = [b"", b"null", b"[]", b'"\\ud800"', DEEP, b"9" * 5000, b"\xff\xfe\x00", b"PK\x03\x04", b"PAR1PAR1"]
        return other[int(rng.integers(len(other)))]
    return bytes(changed)


@dataclass(frozen=True)
class Format:
    """A file of ours, and how it is read again."""

    path: Path
    read: Callable[[], object]


STORED = ("sound.npy", "voice.npy", "waveform.npy", "a.entropy.npy", "a.parquet", "a.expr.parquet", "recording.json")
"""What a store holds against a digest: any change of it is told."""


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return prepared_in(tmp_path_factory.mktemp("damage")) / "store"


def read_store(store: Path) -> object:
    videos = open_store(store, EXPR).videos
    return [(video.frames.label.tolist(), video.audio, video.voice, video.waveform, video.entropy) for video in videos]


def write_formats(store: Path, root: Path) -> dict[str, Format]:
    """A file of every format, those of the store in a copy of it."""
    copy = Path(shutil.copytree(store, root / "store"))
    formats = {}
    for name in STORED:
        formats[name] = Format(copy / "recordings/a" / name, lambda: read_store(copy))
    formats[MANIFEST] = Format(copy / MANIFEST, lambda: read_store(copy))
    decision, tracks, settings = root / "decision.json", root / "tracks.csv", root / "settings.yaml"
    Decision({"audio": Vote(metric_of(EXPR).unknown_prior, 2, 0.5)}, 1.5, scores={"macro_f1": 0.5}).save(decision)
    formats[decision.name] = Format(decision, lambda: Decision.load(decision))
    tracks.write_text(
        "\n".join([",".join(TRACK_COLUMNS), "a,1,1,9,9,0.990,1,2,3,4,main", "b,2,1,9,9,0.990,1,2,3,4,left"])
    )
    formats[tracks.name] = Format(tracks, lambda: read_table(tracks))
    save_settings(Settings(), settings)
    formats[settings.name] = Format(settings, lambda: load_settings(settings))
    outputs, last = root / "outputs.parquet", root / "last.pt"
    write_outputs(outputs, make_table(EXPR, [make_video(EXPR, "a", 20)]))
    formats[outputs.name] = Format(outputs, lambda: read_outputs(outputs))
    save_checkpoint(last, Checkpoint("s", [0.5, 0.5], [], 1, 0.5, 0.5, 0.5, {}, {}, {}))
    formats[last.name] = Format(last, lambda: load_checkpoint(last))
    return formats


NAMES = [*STORED, MANIFEST, "decision.json", "tracks.csv", "settings.yaml", "outputs.parquet", "last.pt"]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_mutants_are_reported_in_our_own_words(name: str, store: Path, tmp_path: Path) -> None:
    chosen = write_formats(store, tmp_path)[name]
    whole, rng, told = chosen.path.read_bytes(), np.random.default_rng(1), 0
    chosen.read()
    for _ in range(MUTANTS):
        data = mutant(whole, rng)
        chosen.path.write_bytes(data)
        try:
            chosen.read()
            assert name not in STORED or data == whole
        except UserError as error:
            told += chosen.path.name in str(error)
    assert told > MUTANTS / 4


@pytest.mark.slow
@pytest.mark.parametrize("name", STORED)
def test_mutants_with_right_digests_are_reported_in_our_own_words(name: str, store: Path, tmp_path: Path) -> None:
    """Damaged before they were sealed: no library's error comes out, and no array of another kind."""
    chosen = write_formats(store, tmp_path)[name]
    copy = tmp_path / "store"
    whole, rng, told = chosen.path.read_bytes(), np.random.default_rng(2), 0
    manifest, recording = (copy / MANIFEST).read_bytes(), (copy / "recordings/a/recording.json").read_bytes()
    for _ in range(MUTANTS):
        (copy / "recordings/a/recording.json").write_bytes(recording)
        chosen.path.write_bytes(mutant(whole, rng))
        (copy / MANIFEST).write_bytes(manifest)
        try:
            seal(copy)
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError):  # which reads JSON itself
            continue
        try:
            chosen.read()
        except UserError:
            told += 1
    assert told > 10


def test_a_manifest_says_nothing_that_its_recordings_do_not(store: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(store, tmp_path / "store"))
    manifest = json.loads((copy / MANIFEST).read_bytes())
    changes: list[dict[str, object]] = [{"digest": "0" * 16}, {"videos": {}}]
    for change in [*changes, {"recordings": {"../x": "0"}}, {"recordings": {"a": 1}}]:
        (copy / MANIFEST).write_text(json.dumps(manifest | change))
        with pytest.raises(UserError, match=r"manifest\.json: "):
            open_store(copy, EXPR)


@pytest.mark.slow
def test_mutants_of_detections_are_made_anew(tmp_path: Path) -> None:
    kept = detect(write_people(tmp_path / "two.mp4", 6), 3)
    path, rng = tmp_path / "kept.parquet", np.random.default_rng(3)
    save_detections(path, kept, ["two", 1])
    whole = path.read_bytes()
    assert load_detections(path, 3, ["two", 1]) is not None
    for _ in range(MUTANTS):
        path.write_bytes(mutant(whole, rng))
        found = load_detections(path, 3, ["two", 1])
        assert found is None or all(np.array_equal(getattr(found, name), value) for name, value in vars(kept).items())
