"""The bundle: all that explains a submission, the same bytes wherever it is made, whole or not at all."""

import hashlib
import json
import os
import platform
import shutil
import tracemalloc
from importlib.metadata import version
from pathlib import Path
from zipfile import ZipFile

import pytest

from abaw_expr.files import write_json
from abaw_expr.outputs.table import read_outputs
from abaw_expr.settings import Settings
from abaw_expr.settings_file import load_settings, save_settings
from abaw_expr.tasks.task import AU, EXPR, VA
from abaw_expr.version import VERSION
from submissions.bundle import write_bundle
from submissions.checking.checker import check_submission
from submissions.ledger import attempts
from tests.commands.test_main import Files, call, fails, files, on_test
from tests.commands.test_submit import TABLES, tables, write_decision
from tests.helpers.paths import SUBMISSIONS

__all__ = ["files", "tables"]  # the fixtures, so that they are found here too


def write_run(root: Path, signature: str | None = "run", seed: int = 7) -> Path:
    """A run folder as `train` leaves it; without a signature one that was stopped."""
    save_settings(Settings(seed=seed), root / "settings.yaml")
    if signature is not None:
        write_json(root / "manifest.json", {"signature": signature, "store": "a digest"})
    return root


def members(path: Path) -> dict[str, bytes]:
    with ZipFile(path) as archive:
        assert archive.testzip() is None
        return {name: archive.read(name) for name in archive.namelist()}


def test_a_bundle_holds_all_that_explains_a_submission(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, stopped = write_run(tmp_path / "run"), write_run(tmp_path / "stopped", None, seed=8)
    out, bundle = tmp_path / "p.txt", tmp_path / "bundle.zip"
    capsys.readouterr()
    assert call("submit", *on_test(files), "--out", out, "--bundle", bundle, "--runs", run, stopped) == 0
    captured = capsys.readouterr()
    assert f"Bundle {bundle}, checked: clean" in captured.out
    assert "--runs" not in captured.err
    found = members(bundle)
    assert list(found) == [
        "predictions.txt",
        "decisions/expr.json",
        "runs/1/settings.yaml",
        "runs/1/manifest.json",
        "runs/2/settings.yaml",
        "check.json",
        "environment.json",
        "manifest.json",
    ]
    assert found["predictions.txt"] == out.read_bytes() == files.predictions.read_bytes()
    assert found["decisions/expr.json"] == files.decision.read_bytes()
    for number, root in (("1", run), ("2", stopped)):
        (tmp_path / "s.yaml").write_bytes(found[f"runs/{number}/settings.yaml"])
        assert load_settings(tmp_path / "s.yaml") == load_settings(root / "settings.yaml")
    told = json.loads(found["check.json"])
    assert (told["file"], told["verdict"], told["findings"]) == ("predictions", "clean", [])
    environment = json.loads(found["environment.json"])
    assert (environment["abaw-expr"], environment["python"]) == (VERSION, platform.python_version())
    assert {name: environment["packages"][name] for name in ("numpy", "torch")} == {
        name: version(name) for name in ("numpy", "torch")
    }


def test_the_manifest_has_the_hash_of_everything(files: Files, tmp_path: Path) -> None:
    bundle, run = tmp_path / "bundle.zip", write_run(tmp_path / "run")
    assert call("submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", bundle, "--runs", run) == 0
    found = members(bundle)
    manifest = json.loads(found.pop("manifest.json"))
    assert manifest.pop("options")["edition"] == "one-file"
    assert manifest == {
        "format": 1,
        "branches": {"expr": {"audio": "run", "visual": "run"}},
        "runs": {"1": "run"},
        "made_from": {
            "template": hashlib.sha256(files.template.read_bytes()).hexdigest(),
            "outputs": [hashlib.sha256(files.test.read_bytes()).hexdigest()],
        },
        "members": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in found.items()
        },
    }


def bundle_here(files: Files, base: Path, number: int) -> bytes:
    """A bundle made in the current folder, `base`, of copies with names and times of their own."""
    copies = {path: base / f"{number}-{path.name}" for path in (files.test, files.template, files.decision)}
    for path, copy in copies.items():
        shutil.copy(path, copy)
    run = write_run(base / f"run-{number}")
    for copy in base.rglob("*"):
        os.utime(copy, (10**9 * (number + 1),) * 2)
    test, template, decision = copies.values()
    command = ["submit", "--outputs", test, "--template", template, "--decision", decision, "--runs", run]
    assert call(*command, "--out", base / f"{number}.txt", "--bundle", base / f"{number}.zip") == 0
    return (base / f"{number}.zip").read_bytes()


def test_the_same_inputs_give_the_same_bytes(files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two folders, one named relatively; other names, times and permissions."""
    bundles = []
    for number, mask in enumerate((0o022, 0o077)):
        folder = tmp_path / f"folder-{number}" / ("deeper" * number)
        folder.mkdir(parents=True)
        monkeypatch.chdir(folder)
        before = os.umask(mask)
        try:
            bundles.append(bundle_here(files, folder if number else Path(), number))
        finally:
            os.umask(before)
    assert bundles[0] == bundles[1]
    bundle = tmp_path / "folder-0" / "0.zip"
    with ZipFile(bundle) as archive:
        for info in archive.infolist():
            assert (info.date_time, info.create_system) == ((1980, 1, 1, 0, 0, 0), 3)
            assert info.external_attr >> 16 == 0o100644
    told = b"".join([bundles[0], *members(bundle).values()])
    for word in (str(tmp_path), "folder-0", str(Path.home())):
        assert word.encode() not in told


def test_other_inputs_give_other_bytes(files: Files, tmp_path: Path) -> None:
    def bundle(name: str, *runs: Path) -> bytes:
        command = ["submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", tmp_path / name]
        assert call(*command, *(["--runs", *runs] if runs else [])) == 0
        return (tmp_path / name).read_bytes()

    first, other = write_run(tmp_path / "run"), write_run(tmp_path / "other", seed=9)
    assert len({bundle("a.zip"), bundle("b.zip", first), bundle("c.zip", other), bundle("d.zip", first, other)}) == 4


def test_the_folder_of_the_3rd_edition_is_bundled_too(files: Files, tmp_path: Path) -> None:
    out, bundle = tmp_path / "folder", tmp_path / "bundle.zip"
    assert call("submit", *on_test(files), "--edition", "per-video", "--out", out, "--bundle", bundle) == 0
    found = members(bundle)
    names = [name for name in found if name.startswith("predictions")]
    assert names == ["predictions/a.txt", "predictions/b_left.txt", "predictions/b_right.txt", "predictions/c.txt"]
    assert all(found[name] == (out / Path(name).name).read_bytes() for name in names)
    assert json.loads(found["check.json"])["verdict"] == "clean"


def test_a_multi_task_submission_is_bundled_and_recorded(tables: dict[str, str], tmp_path: Path) -> None:
    golden, bundle, book = SUBMISSIONS / "multi-task", tmp_path / "b.zip", tmp_path / "ledger.db"
    decisions = [write_decision(tmp_path / f"mine-{challenge.name}.json", challenge) for challenge in (AU, EXPR, VA)]
    command = ["--template", golden / "template.txt", "--decision", *decisions]
    own, out = [tables[name] for name in TABLES["multi-task/"]], tmp_path / "p.txt"
    assert call("submit", "--outputs", *own, *command, "--out", out, "--bundle", bundle) == 0
    found = members(bundle)
    assert found["predictions.txt"] == (golden / "predictions.txt").read_bytes()
    assert [name for name in found if "decisions" in name] == [
        f"decisions/{name}.json" for name in ("au", "expr", "va")
    ]
    manifest = json.loads(found["manifest.json"])
    assert {name: list(branches) for name, branches in manifest["branches"].items()} == {
        name: ["predictions"] for name in ("va", "expr", "au")
    }
    assert json.loads(found["check.json"])["verdict"] == "clean"
    assert call("ledger", "add", out, *command, "--ledger", book) == 0
    (attempt,) = attempts(book)
    assert (attempt.challenge, attempt.number, attempt.checked) == ("multi-task", 1, True)
    assert attempt.sha256 == manifest["members"]["predictions.txt"]["sha256"]


def test_what_lacks_settings_is_told(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", tmp_path / "b.zip"]
    assert call(*command) == 0
    assert "The bundle has no settings of run; --runs FOLDER adds those of a run." in capsys.readouterr().err
    assert json.loads(members(tmp_path / "b.zip")["manifest.json"])["runs"] == {}


def test_a_run_that_made_nothing_of_it_is_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", tmp_path / "b.zip", "--runs"]
    other = write_run(tmp_path / "other", "another")
    text = fails(capsys, *command, other)
    assert f"{other}: made none of the outputs; found 'another'; expected a run that made the outputs: run" in text
    assert f"{tmp_path}: is not a run folder" in fails(capsys, *command, tmp_path)
    (other / "manifest.json").write_text("[]")
    assert f"{other}/manifest.json: has no signature" in fails(capsys, *command, other)
    (other / "manifest.json").write_text("{")
    assert f"{other}/manifest.json: is not JSON" in fails(capsys, *command, other)
    assert [path.name for path in tmp_path.iterdir()] == ["other"], "refused before anything is written"


def test_runs_without_a_bundle_are_a_mistake(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(capsys, "submit", *on_test(files), "--out", tmp_path / "p.txt", "--runs", tmp_path)
    assert "--runs are for the bundle. Give --bundle too." in text
    assert not list(tmp_path.iterdir())


def test_faults_are_in_the_bundle(files: Files, tmp_path: Path) -> None:
    faulty, bundle = tmp_path / "faulty.txt", tmp_path / "b.zip"
    faulty.write_text(files.predictions.read_text().replace("a/00002.jpg", "a/2.jpg"))
    verdict = check_submission(faulty, files.template)
    assert not verdict.clean
    check = verdict.under_names({faulty: "predictions.txt"}).to_json()
    write_bundle(bundle, faulty, files.template, [files.decision], [read_outputs(files.test)], check)
    found = members(bundle)
    told = json.loads(found["check.json"])
    assert told["verdict"] == "faults"
    (shown,) = told["findings"]
    assert (shown["kind"], shown["file"], shown["lines"]) == ("row name", "predictions.txt", [3])
    assert str(tmp_path).encode() not in b"".join(found.values())
    assert found["predictions.txt"] == faulty.read_bytes()


def test_a_bundle_is_written_whole_or_not_at_all(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    bundle = tmp_path / "b.zip"
    bundle.write_text("what was here before")

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("submissions.bundle._json", full)  # when the predictions are in the zip
    assert call("submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", bundle) == 2
    assert f"{bundle}: No space left on device. Nothing was left half-written." in capsys.readouterr().err
    assert bundle.read_text() == "what was here before"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["b.zip", "p.txt"]


def test_a_bundle_overwrites_no_input(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = {path: path.read_bytes() for path in (files.test, files.template, files.decision)}
    for path in kept:
        text = fails(capsys, "submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", path)
        assert f"{path}: is read by this command" in text
    text = fails(capsys, "submit", *on_test(files), "--out", tmp_path / "p.txt", "--bundle", tmp_path / "p.txt")
    assert "p.txt: is read by this command" in text
    assert kept == {path: path.read_bytes() for path in kept}
    assert not list(tmp_path.iterdir())


def test_predictions_are_streamed(files: Files, tmp_path: Path) -> None:
    """As long a file as that of EXPR's test set, 1,022,655 rows, which the checker alone reads whole."""
    large, outputs = tmp_path / "large.txt", read_outputs(files.test)
    large.write_bytes(b"14-30-1920x1080/00001.jpg,0\n" * 1_022_655)
    tracemalloc.start()
    try:
        write_bundle(tmp_path / "b.zip", large, files.template, [files.decision], [outputs], {})
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 5e6 < large.stat().st_size / 5
    assert members(tmp_path / "b.zip")["predictions.txt"] == large.read_bytes()
