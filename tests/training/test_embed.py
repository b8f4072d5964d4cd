"""Embeddings: every row is what the encoder gives, they are made once, and training reads them."""

import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw_expr.commands.main import main
from abaw_expr.data.batches.frame_index import FrameIndex
from abaw_expr.data.store.embeddings import EMBEDDINGS, read_manifest
from abaw_expr.data.store.store import open_store
from abaw_expr.data.store.stored_crops import decode_crop
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.ge2e import WINDOW
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.settings import ModelSettings, StreamSettings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training import embed as making
from abaw_expr.training.embedding_source import Source
from abaw_expr.training.run import RunFolder
from tests.helpers.paths import ROOT

CPU = ("--accelerator", "cpu", "--workers", "1")


def call(*words: object) -> int:
    return main([str(word) for word in words])


def encoder_file(folder: Path, name: str, seed: int = 0) -> tuple[Encoder, Path]:
    """An encoder in evaluation with weights of a seed, and the file of them."""
    torch.manual_seed(seed)
    encoder = build_encoder(StreamSettings(name), ModelSettings())
    encoder.initialise()
    path = folder / f"{name}-{seed}.pt"
    torch.save(encoder.state_dict(), path)
    return encoder.eval(), path


@pytest.fixture(scope="module")
def root(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of one's own with embeddings of images, `faces`, and of sound, `voices`."""
    folder = tmp_path_factory.mktemp("embedded")
    shutil.copytree(store, folder / "store")
    for encoder, name in (("rhcnn", "faces"), ("ge2e", "voices")):
        _, path = encoder_file(folder, encoder)
        assert call("embed", folder / "store", "--encoder", encoder, "--weights", path, "--name", name, *CPU) == 0
    return folder / "store"


def test_rows_are_what_the_encoder_gives_for_each_crop(root: Path, tmp_path: Path) -> None:
    encoder, _ = encoder_file(tmp_path, "rhcnn")
    video = open_store(root, EXPR).videos[0]
    rows = video.embedding("faces")
    assert rows.shape == (len(video.frames), encoder.width)
    assert rows.dtype == np.float16
    has = video.frames.has_crop
    assert has.any()
    assert not has.all()
    assert np.isnan(rows[~has]).all()
    for row in np.flatnonzero(has)[:3].tolist():
        image = decode_crop(video, row)
        assert image is not None
        with torch.inference_mode():
            expected = encoder.features((image.float() / 127.5 - 1)[None, None])[0, 0]
        np.testing.assert_allclose(rows[row], expected.numpy(), atol=2e-3)


def test_rows_of_sound_are_of_the_window_around_each_frame(root: Path, tmp_path: Path) -> None:
    encoder, _ = encoder_file(tmp_path, "ge2e")
    video = next(one for one in open_store(root, EXPR).videos if one.audio is not None)
    assert video.waveform is not None
    rows, samples = video.embedding("voices"), video.waveform.astype(np.float32) / 2**15
    length = WINDOW.steps * WINDOW.hop
    padded = np.pad(samples, (2 * length, 2 * length))
    has = FrameIndex([video], EXPR).has["waveform"]
    assert (np.isnan(rows[:, 0]) == ~has).all()
    for row in np.flatnonzero(has)[::20].tolist():
        begin = 2 * length + int(WINDOW.start(video.frames.time[row : row + 1])[0]) * WINDOW.hop
        margin = 2 * WINDOW.hop  # a row of the spectrogram at the edge sees sound beyond it
        own = torch.from_numpy(padded[begin - margin : begin + length + margin])[None, None, None]
        with torch.inference_mode():
            expected = encoder.features(own, torch.tensor([[0, 2]]))[0, 0]
        np.testing.assert_allclose(rows[row], expected.numpy(), atol=2e-3)


def test_with_a_stride_the_frames_between_have_the_nearest_row(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    _, path = encoder_file(tmp_path, "rhcnn")
    words = ("embed", tmp_path / "store", "--encoder", "rhcnn", "--weights", path, *CPU)
    assert call(*words, "--name", "every") == 0
    assert call(*words, "--name", "some", "--stride", 0.5) == 0
    for video in open_store(tmp_path / "store", EXPR).videos:
        every, some = video.embedding("every"), video.embedding("some")
        index = FrameIndex([video], EXPR)
        seen = index.at_stride(index.has["visual"], 0.5)
        if not len(seen):
            continue
        np.testing.assert_allclose(some[seen], every[seen], atol=2e-3)
        for row in np.flatnonzero(index.has["visual"]).tolist():
            apart = np.abs(index.time[seen] - index.time[row])
            assert any(np.array_equal(some[row], some[at]) for at in seen[apart <= apart.min() + 1e-9])


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_it_makes_only_what_is_missing(root: Path, tmp_path: Path) -> None:
    folder, name = root / EMBEDDINGS / "faces", next((root / EMBEDDINGS / "faces").glob("*/")).name
    before, times = contents(folder), {path: path.stat().st_mtime_ns for path in folder.glob("*/*")}
    shutil.rmtree(folder / name)
    _, path = encoder_file(tmp_path, "rhcnn")
    assert call("embed", root, "--encoder", "rhcnn", "--weights", path, "--name", "faces", *CPU) == 0
    assert contents(folder) == before
    kept = {path for path in times if path.parent.name != name}
    assert kept
    assert all(path.stat().st_mtime_ns == times[path] for path in kept)


def test_several_processes_make_the_same_bytes(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "store", ignore=shutil.ignore_patterns(EMBEDDINGS))
    _, path = encoder_file(tmp_path, "rhcnn")
    words = ("--encoder", "rhcnn", "--weights", path, "--name", "faces", "--accelerator", "cpu", "--workers", 2)
    assert call("embed", tmp_path / "store", *words) == 0
    assert contents(tmp_path / "store" / EMBEDDINGS / "faces") == contents(root / EMBEDDINGS / "faces")


def test_a_file_of_weights_that_changes_is_read_again(store: Path, tmp_path: Path) -> None:
    """By the next call of the same process, under the same path."""
    shutil.copytree(store, tmp_path / "store")
    found = []
    for seed in (0, 1):
        _, path = encoder_file(tmp_path, "rhcnn", seed)
        shutil.copy(path, tmp_path / "w.pt")
        source = Source("rhcnn", str(tmp_path / "w.pt"))
        made = making.embed(tmp_path / "store", source, f"seed{seed}", stride=1.0, accelerator="cpu")
        found.append((made.made["weights"], open_store(tmp_path / "store", EXPR).videos[0].embedding(f"seed{seed}")))
    (first, rows), (second, others) = found
    assert first != second
    assert np.nanmax(np.abs(rows.astype(np.float32) - others)) > 0.01


@pytest.mark.slow
def test_a_killed_run_goes_on_to_the_same_bytes(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "store", ignore=shutil.ignore_patterns(EMBEDDINGS))
    _, path = encoder_file(tmp_path, "rhcnn")
    folder = tmp_path / "store" / EMBEDDINGS / "faces"
    words = ["embed", str(tmp_path / "store"), "--encoder", "rhcnn", "--weights", str(path), "--name", "faces", *CPU]
    child = subprocess.Popen([sys.executable, "-m", "abaw_expr", *words], cwd=ROOT, stderr=subprocess.DEVNULL)
    while child.poll() is None and not [*folder.glob("[!.]*/embedding.json")]:
        pass
    child.send_signal(signal.SIGKILL)
    child.wait()
    assert not (folder / "manifest.json").exists()
    assert main(words) == 0
    assert contents(folder) == contents(root / EMBEDDINGS / "faces")


def said(capsys: pytest.CaptureFixture[str]) -> str:
    return " ".join(capsys.readouterr().err.replace("'", "").split())


def test_what_cannot_be_embedded_is_told(root: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, other = encoder_file(tmp_path, "rhcnn", seed=1)
    (tmp_path / "text").write_text("weights")
    for words, message in (
        (("--encoder", "rhcnn"), "the encoder rhcnn has no weights: its rows would be random. Name --weights"),
        (("--encoder", "rhcn", "--weights", other), "the encoder is unknown; found rhcn;"),
        (("--encoder", "rhcnn", "--weights", tmp_path / "none"), "none: cannot be read"),
        (("--encoder", "rhcnn", "--weights", tmp_path / "text"), "text: is no file of weights"),
        (("--encoder", "ge2e", "--weights", other), "does not fit the encoder"),
        (("--encoder", "ge2e", "--weights", "default"), "has no weights to download. Name a file"),
        (("--encoder", "rhcnn", "--weights", other, "--name", "faces"), "were made otherwise"),
        (("--encoder", "rhcnn", "--weights", other, "--name", "../faces"), "../faces"),
        (("--encoder", "rhcnn", "--weights", other, "--stride", "-1"), "--stride cannot be used"),
    ):
        assert call("embed", root, *words, *CPU) == 2
        assert message in said(capsys), words
    assert {path.name for path in (root / EMBEDDINGS).iterdir()} == {"faces", "voices"}


SETTINGS = """
branches:
  joint:
    streams:
      faces: {encoder: "embedding:faces", norm: unit, projection: 16, temporal: tcn}
      voices: {encoder: "embedding:voices", temporal: tcn}
    join: concatenation
data: {stride: 0.5, sequence: 4}
optimiser: {name: adamw, epochs: 1, batch_size: 8}
"""


@pytest.fixture(scope="module")
def run(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "mine.yaml").write_text(SETTINGS)
    words = ("--settings", folder / "mine.yaml", "--compute.accelerator", "cpu")
    assert call("train", root, "--run", folder / "run", *words) == 0
    return folder / "run"


def test_a_run_is_trained_on_embeddings_and_predicts(root: Path, run: Path, tmp_path: Path) -> None:
    settings = RunFolder(run).load_settings()
    widths = {name: one.embedding_width for name, one in settings.branches["joint"].streams.items()}
    assert widths == {"faces": 256, "voices": 256}
    digests = RunFolder(run).weights_digests()
    assert digests["joint.faces"].split()[1] == read_manifest(root, "faces").digest
    assert call("predict", run, root, "--split", "val", "--out", tmp_path / "val.parquet") == 0


def test_embeddings_made_otherwise_are_refused(
    root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "store")
    store, folder = tmp_path / "store", tmp_path / "store" / EMBEDDINGS / "faces"
    predict = ("predict", run, store, "--split", "val", "--out", tmp_path / "val.parquet")
    words = ("train", store, "--settings", run / "settings.yaml")
    shutil.rmtree(folder)
    assert call(*predict) == 2
    assert "has no embeddings faces; found voices. Make them: abaw-expr embed" in said(capsys)
    assert call(*words, "--run", tmp_path / "run") == 2
    assert "has no embeddings faces" in said(capsys)
    assert not (tmp_path / "run").exists()
    _, other = encoder_file(tmp_path, "rhcnn", seed=1)
    assert call("embed", store, "--encoder", "rhcnn", "--weights", other, "--name", "faces", *CPU) == 0
    capsys.readouterr()
    assert call(*predict) == 2
    assert "the embeddings of branches.joint.faces were made otherwise than those of the run" in said(capsys)
    shutil.copytree(run, tmp_path / "resumed", ignore=shutil.ignore_patterns("manifest.json"))
    assert call(*words, "--run", tmp_path / "resumed", "--resume") == 2
    assert "was trained on other embeddings than the store has for branches.joint.faces now" in said(capsys)
    wide = (run / "settings.yaml").read_text().replace("embedding_width: 256", "embedding_width: 64")
    (tmp_path / "wide.yaml").write_text(wide)
    assert call("train", root, "--settings", tmp_path / "wide.yaml", "--run", tmp_path / "wide") == 2
    assert "embedding-width is not that of the store; found 64; expected 256" in said(capsys)


@pytest.mark.parametrize("damage", ["flipped", "gone", "cut"])
def test_damaged_rows_are_told(
    damage: str, root: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(root, tmp_path / "store")
    video = open_store(root, EXPR).split("val")[0]
    path = tmp_path / "store" / EMBEDDINGS / "faces" / video.folder.name / f"{video.name}.npy"
    data = bytearray(path.read_bytes())
    changes: dict[str, Callable[[], object]] = {
        "flipped": lambda: path.write_bytes(bytes([*data[:-1], data[-1] ^ 1])),
        "gone": path.unlink,
        "cut": lambda: path.write_bytes(data[:-100]),
    }
    changes[damage]()
    assert call("prepare", tmp_path / "store", "--verify") == 1
    assert "embeddings/faces: " in said(capsys)
    assert call("predict", run, tmp_path / "store", "--split", "val", "--out", tmp_path / "val.parquet") == 2
    assert path.name in said(capsys)


def test_a_whole_store_with_embeddings_has_no_damage(root: Path) -> None:
    assert call("prepare", root, "--verify") == 0


def test_a_video_has_no_embeddings(
    run: Path, release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    film = next(release.rglob("*.mp4"))
    assert call("infer", film, "--run", run, "--out", tmp_path / "out") == 2
    assert "reads embeddings, which a video has not; found embedding:faces, embedding:voices" in said(capsys)


def test_the_encoder_of_a_run_makes_embeddings(store: Path, tmp_path: Path) -> None:
    shutil.copytree(store, tmp_path / "store")
    words = ("--branches", "visual", "--optimiser.epochs", 1, "--data.stride", 2, "--compute.accelerator", "cpu")
    assert call("train", tmp_path / "store", "--run", tmp_path / "run", *words) == 0
    source = Source("visual", str(tmp_path / "run"), of_run=True)
    made = making.embed(tmp_path / "store", source, "own", stride=1.0, accelerator="cpu")
    assert made.width == 256
    assert made.made["encoder"] == "visual of a run"
    with pytest.raises(Exception, match=r"has no such stream; found 'audio'; expected visual\.visual"):
        replace(source, encoder="audio").build()
