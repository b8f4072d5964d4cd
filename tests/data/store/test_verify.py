"""A store read again: every changed bit is found, and prepare then makes the old store."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from abaw_expr.commands.main import main
from abaw_expr.data.problems import Problem
from abaw_expr.data.store.store import MANIFEST, StoredVideo
from abaw_expr.data.store.tables import write_frame_table, write_labels
from abaw_expr.data.store.tar import pack
from abaw_expr.data.store.verify import verify
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import EXPR
from tests.helpers.tiny import add, add_validation, broken_jpeg, contents, run, seal


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store of two recordings, `a` and `val`, beside its release."""
    add(tmp_path / "release", "a")
    add_validation(tmp_path / "release")
    run(tmp_path / "release", tmp_path / "store")
    return tmp_path / "store"


def found(store: Path, decode: bool = False) -> tuple[Problem, ...]:
    return verify(store, decode, 1, lambda done, total: None)


def flip(path: Path, place: int = -5) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 1
    path.write_bytes(data)


@pytest.mark.slow
def test_whole_store_has_no_damage(store: Path, tmp_path: Path) -> None:
    reported: list[tuple[int, int]] = []
    assert verify(store, True, 2, lambda done, total: reported.append((done, total))) == ()
    assert reported == [(1, 2), (2, 2)]


@pytest.mark.parametrize(
    ("damage", "detail"),
    [
        (lambda folder: flip(folder / "a.tar"), "a.tar was changed"),
        (lambda folder: flip(folder / "a.parquet"), "a.parquet was changed"),
        (lambda folder: flip(folder / "a.expr.parquet"), "a.expr.parquet was changed"),
        (lambda folder: flip(folder / "sound.npy"), "sound.npy was changed"),
        (lambda folder: (folder / "a.tar").unlink(), "a.tar is missing"),
        (lambda folder: (folder / "b.tar").touch(), "b.tar was not made by prepare"),
        (lambda folder: flip(folder / "recording.json", 14), "recording.json was changed"),
        (lambda folder: (folder / "recording.json").write_text("{"), "recording.json is not JSON"),
        (lambda folder: (folder / "recording.json").unlink(), "recording.json cannot be read"),
        (lambda folder: shutil.rmtree(folder), "recording.json cannot be read"),
    ],
)
def test_damage_is_named_and_its_remedy_mends_it(
    store: Path, tmp_path: Path, damage: Callable[[Path], object], detail: str
) -> None:
    before = contents(store)
    folder = store / "recordings/a"
    damage(folder)
    (problem,) = found(store)
    assert (problem.kind, problem.video) == ("damaged recording", "recordings/a")
    assert detail in problem.detail
    assert problem.remedy == "Delete this folder and run prepare again: it makes what is missing."
    shutil.rmtree(folder, ignore_errors=True)
    run(tmp_path / "release", store)
    assert contents(store) == before
    assert found(store) == ()


def repack(store: Path, change: Callable[[int, bytes], tuple[str, bytes]]) -> None:
    """Packs the crops of `a` anew, each as changed."""
    video = StoredVideo("a", "train", store / "recordings/a", None, None)
    rows = np.flatnonzero(video.frames.has_crop).tolist()
    crops = [change(row, bytes(video.jpeg(row) or b"")) for row in rows]
    for row, (offset, size) in zip(rows, pack(video.folder / "a.tar", crops), strict=True):
        assert (video.frames.offset[row], video.frames.size[row]) == (offset, size)
    seal(store)


def test_crop_that_is_another_frames_is_named(store: Path) -> None:
    repack(store, lambda row, data: (crop_name(3 - (row + 1)), data))
    (problem,) = found(store)
    assert (
        problem.detail
        == "a.tar: 00001.jpg is not where the table says it is, a.tar: 00002.jpg is not where the table says it is"
    )


def test_crop_that_is_no_frame_is_named(store: Path) -> None:
    repack(store, lambda row, data: (crop_name(row + 1), bytes(len(data)) if row == 1 else data))
    (problem,) = found(store)
    assert problem.detail == "a.tar: 00002.jpg is no image"


def test_crop_that_only_decoding_finds_broken(store: Path, tmp_path: Path) -> None:
    path = tmp_path / "release/cropped_aligned/a/00002.jpg"
    path.write_bytes(broken_jpeg())
    run(tmp_path / "release", store)
    assert found(store) == ()
    (problem,) = found(store, decode=True)
    assert problem.detail == "a.tar: 00002.jpg cannot be decoded"


def test_audio_of_another_length_is_named(store: Path) -> None:
    path = store / "recordings/a/sound.npy"
    np.save(path, np.load(path)[:-1])
    seal(store)
    (problem,) = found(store)
    assert problem.detail == "sound.npy has (64, 64) float16, where (65, 64) float16 is expected"


def test_table_of_another_length_is_named(store: Path) -> None:
    video = StoredVideo("a", "train", store / "recordings/a", None, None)
    path = video.folder / "a.parquet"
    write_frame_table(path, video.frames.time, video.frames.offset, np.zeros(10, np.int32))
    seal(store)
    (problem,) = found(store)
    assert problem.detail == "a.parquet has 10 frames, 0 crops, where 10 and 2 are expected"


def test_labels_of_another_length_are_named(store: Path) -> None:
    write_labels(store / "recordings/a/a.expr.parquet", np.zeros(9, np.int8), EXPR)
    seal(store)
    (problem,) = found(store)
    assert problem.detail == "a.expr.parquet has 9 frames, where 10 are expected"


@pytest.mark.parametrize("key", ["digest", "videos"])
def test_manifest_of_other_recordings_is_named(store: Path, key: str) -> None:
    manifest = json.loads((store / MANIFEST).read_bytes())
    (store / MANIFEST).write_text(json.dumps(manifest | {key: {}}))
    (problem,) = found(store)
    assert (problem.kind, problem.video) == ("damaged manifest", MANIFEST)


def test_command_names_damage_and_exits_with_1(store: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["prepare", "--store", str(store), "--verify", "--workers", "1"]
    assert main([*arguments, "--decode"]) == 0
    assert "every file is intact" in capsys.readouterr().out
    flip(store / "recordings/a/a.tar")
    assert main(arguments) == 1
    said = capsys.readouterr().err
    assert f"{store}/recordings/a: a.tar was changed" in said
    assert "Delete this folder and run prepare again" in said


def test_command_needs_a_release_or_verify(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    release = ["--release", str(tmp_path / "release")]
    for wrong in ([], ["--decode"], [*release, "--verify"], [*release, "--decode"]):
        assert main(["prepare", "--store", str(store), *wrong]) == 2
        assert "--store with --release, or --store with --verify" in capsys.readouterr().err
