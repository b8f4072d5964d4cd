"""What is typed wrongly minutes before a deadline: refused before the work, and nothing that was there is lost."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from abaw_expr.data.store.prepare import REPORT
from abaw_expr.data.store.store import MANIFEST
from abaw_expr.data.synthetic.corpus import TEST_LISTS
from tests.commands.test_main import Files, call, fails, files, on_test
from tests.helpers.tiny import add, add_validation, contents, run

__all__ = ["files"]  # the fixture, so that it is found here too


def twice(template: Path) -> list[object]:
    return ["--template", template, "--out", template]


def test_an_input_is_never_overwritten(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {path: path.read_bytes() for path in (files.outputs, files.test, files.template, files.decision)}
    for command in (
        ["tune", "--outputs", files.outputs, "--out", files.outputs],
        ["submit", *on_test(files), "--out", files.template],
        ["submit", *on_test(files), "--out", files.decision],
        ["score", "--outputs", files.outputs, "--decision", files.decision, "--out", files.decision],
        ["predict", "--run", "r", "--store", "s", "--split", "test", *twice(files.template)],
    ):
        assert "is read by this command and cannot be its --out. Name another file." in fails(capsys, *command)
    assert kept == {path: path.read_bytes() for path in kept}


def test_a_file_is_not_checked_against_itself(files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(capsys, "check", files.predictions, "--template", files.predictions)
    assert "is named as predictions and as template" in text


def test_a_store_is_made_in_no_other_folder(
    release: Path, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    papers = tmp_path / "papers"
    papers.mkdir()
    (papers / "thesis.txt").write_text("mine")
    for folder, found in ((papers, "thesis.txt"), (release, "6th_ABAW_Annotations")):
        before = sorted(path.name for path in folder.iterdir())
        text = fails(capsys, "prepare", "--release", release, "--store", folder)
        assert f"{folder}: is not a store; found '{found}" in text
        assert sorted(path.name for path in folder.iterdir()) == before
    text = fails(capsys, "prepare", "--release", release, "--store", papers / "thesis.txt")
    assert "thesis.txt: is not a folder; expected a new folder" in text


def test_a_run_is_started_in_no_other_folder(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = contents(store)
    text = fails(capsys, "train", "--store", store, "--run", store)
    assert f"{store}: is not empty and not a run; found 'manifest.json, recordings, report.json'. Name a new" in text
    assert contents(store) == before
    (tmp_path / "file").touch()
    assert "file: is not a folder" in fails(capsys, "train", "--store", store, "--run", tmp_path / "file")


@pytest.mark.skipif(torch.cuda.is_available(), reason="needs a machine without a GPU")
def test_a_gpu_that_is_not_there(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(capsys, "train", "--store", store, "--run", tmp_path / "run", "--compute.accelerator", "cuda")
    assert "the accelerator cuda cannot be used: no GPU is found. Use auto or cpu" in text
    assert not (tmp_path / "run").exists()


def test_numbers_out_of_range(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for stride in ("nan", "-1", "inf"):
        command = ["predict", "--run", "r", "--store", "s", "--split", "val", "--out", tmp_path / "x", "--stride"]
        assert "--stride cannot be used; found" in fails(capsys, *command, stride)
    text = fails(capsys, "prepare", "--release", release, "--store", tmp_path / "store", "--workers", "-3")
    assert "--workers cannot be used; found -3" in text
    assert not (tmp_path / "store").exists()


def test_a_release_without_a_test_list_is_told(release: Path, tmp_path: Path) -> None:
    shutil.copytree(release, tmp_path / "release")
    for name in TEST_LISTS.values():
        (tmp_path / "release" / name).unlink()
    assert call("prepare", "--release", tmp_path / "release", "--store", tmp_path / "store", "--workers", 1) == 0
    problems = json.loads((tmp_path / "store" / REPORT).read_bytes())["problems"]
    (told,) = [problem for problem in problems if problem["kind"] == "not annotated"]
    assert told["detail"] == "no annotation, and the release has no list of test videos of EXPR and VA and AU"
    assert "add the organisers' list" in told["remedy"]


def test_a_folder_that_is_no_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folder in (tmp_path, tmp_path / "none"):
        text = fails(capsys, "train", "--store", folder, "--run", tmp_path / "run")
        assert f"{folder}: is not a store; expected a folder that `prepare` made. Check the path." in text


@pytest.mark.slow
def test_ctrl_c_leaves_nothing_half_made(tmp_path: Path) -> None:
    release, store = tmp_path / "release", tmp_path / "store"
    for number in range(60):
        add(release, f"{number:02d}")
    add_validation(release)
    command = [sys.executable, "-m", "abaw_expr", "prepare", "--release", str(release), "--store", str(store)]
    # A group of its own, so that Ctrl-C reaches the workers too, as it does in a terminal.
    running = subprocess.Popen([*command, "--workers", "2"], stderr=subprocess.PIPE, text=True, process_group=0)
    deadline = time.monotonic() + 60
    while not list(store.glob("recordings/*/recording.json")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(running.pid, signal.SIGINT)
    _, text = running.communicate(timeout=60)
    assert running.returncode == 130
    assert "interrupted. What was finished is kept" in text
    assert "Traceback" not in text
    assert not list(store.glob("recordings/.*"))
    assert not (store / MANIFEST).exists()
    kept = len(list(store.glob("recordings/*")))
    assert 0 < kept < 60
    assert run(release, store).kept == kept


def test_a_full_disk_names_the_file(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    text = fails(capsys, "submit", *on_test(files), "--out", tmp_path / "predictions.txt")
    assert f"{tmp_path}/predictions.txt: No space left on device. Nothing was left half-written." in text
    assert not list(tmp_path.iterdir())
