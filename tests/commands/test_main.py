"""The front door: exit statuses, errors that say what to do, overrides, and answers without torch."""

import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score

from abaw_expr.commands.main import OPEN_FILES, main
from abaw_expr.data.store.store import STORE_FORMAT
from abaw_expr.errors import UserError
from abaw_expr.outputs.table import Outputs, Source, branch_columns, write_outputs
from abaw_expr.settings import ModelSettings, OptimiserSettings, Settings
from abaw_expr.settings_file import load_settings, recipe, save_settings
from abaw_expr.tasks.names import crop_name, frame_name
from abaw_expr.tasks.task import EXPR, Task
from abaw_expr.training.run import Epoch
from tests.helpers.branches import BRANCHES
from tests.helpers.fitting import made_epoch
from tests.helpers.paths import ROOT

COMMANDS = ("demo", "prepare", "train", "predict", "tune", "score", "submit", "check", "describe")
FRAMES = {"a": 60, "b_left": 40, "b_right": 40, "c": 50}
TAIL = 2
"""Rows of the template beyond each video's annotations."""


@dataclass(frozen=True)
class Files:
    """What a team has around a submission; made up, without a network."""

    truth: dict[str, np.ndarray]
    annotations: Path
    outputs: Path
    test: Path
    template: Path
    decision: Path
    predictions: Path


def make_table(truth: dict[str, np.ndarray], rng: np.random.Generator, task: Task = EXPR) -> Outputs:
    """Branch outputs that know the truth a little; the sound of `c` and some pictures are missing."""
    parts = []
    for name, labels in truth.items():
        columns: dict[str, Any] = {
            "video": name,
            "frame": np.arange(len(labels)) + 1,
            "time": np.arange(len(labels)) / 10,
        }
        columns["crop"] = rng.random(len(labels)) > 0.1
        for branch, missing in zip(BRANCHES, (np.full(len(labels), name == "c"), ~columns["crop"]), strict=True):
            p = rng.dirichlet(np.ones(8), len(labels)) + np.eye(8)[np.maximum(labels, 0)]
            rows = np.where(missing[:, None], np.nan, p / p.sum(axis=1, keepdims=True))
            columns |= dict(zip(branch_columns(branch, task), rows.T, strict=True))
        columns["label"] = labels
        parts.append(pd.DataFrame(columns))
    branches = dict.fromkeys(BRANCHES, Source("run", (0.3,) + (0.1,) * 7))
    return Outputs(task, pd.concat(parts, ignore_index=True), "val", branches)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """An outputs table and annotations, a template with a few rows more, and what tune and submit make of them."""
    rng, root = np.random.default_rng(0), tmp_path_factory.mktemp("cli")
    truth = {name: rng.integers(-1, 8, count) for name, count in FRAMES.items()}
    names = ("annotations", "val.parquet", "test.parquet", "template.txt", "decision.json", "predictions.txt")
    files = Files(truth, *(root / name for name in names))
    write_outputs(files.outputs, make_table(truth, rng))
    longer = {name: np.append(labels, [-1] * TAIL) for name, labels in truth.items()}
    write_outputs(files.test, make_table(longer, rng))
    files.annotations.mkdir()
    for name, labels in truth.items():
        (files.annotations / f"{name}.txt").write_text("\n".join([EXPR.header, *map(str, labels)]))
    rows = [f"{frame_name(name, i + 1)}," for name, labels in longer.items() for i in range(len(labels))]
    files.template.write_text("\n".join([EXPR.submission_header, *rows]) + "\n")
    assert call("tune", "--outputs", files.outputs, "--out", files.decision) == 0
    assert call("submit", *on_test(files), "--out", files.predictions) == 0
    return files


def on_test(files: Files) -> list[object]:
    return ["--outputs", files.test, "--decision", files.decision, "--template", files.template]


def call(*arguments: object) -> int:
    return main([str(argument) for argument in arguments])


def fails(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """Runs a command that must end with status 2 and one paragraph of error on stderr; returns the paragraph."""
    capsys.readouterr()
    assert call(*arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert lines[-1].startswith("abaw-expr: error: ")
    assert captured.err.count("abaw-expr: error: ") == 1
    assert "Traceback" not in captured.err
    return lines[-1]


def process(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "abaw_expr", *map(str, arguments)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


# Help, and what is loaded


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([command, "--help"] if command else ["--help"]) == 0
    text = capsys.readouterr().out
    assert f"abaw-expr {command}".strip() in text
    for other in () if command else COMMANDS:
        assert other in text


def test_train_shows_the_values_of_the_named_settings(capsys: pytest.CaptureFixture[str]) -> None:
    shown = {}
    for name in ("paper", "demo"):
        assert main(["train", "--settings", name, "--help"]) == 0
        text = " ".join(capsys.readouterr().out.split())
        found = re.search(r"--optimiser\.epochs INT .*?\(default: (\d+)\)", text)
        assert found is not None
        shown[name] = int(found[1])
    assert shown == {name: load_settings(recipe(name)).optimiser.epochs for name in shown}


def test_a_command_may_hold_as_many_files_open_as_the_system_lets_it() -> None:
    """A store of 1,000 recordings is read by a file or two for each; many shells allow 1,024."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    few, most = 256, before[1] if before[1] != resource.RLIM_INFINITY else OPEN_FILES
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, before[1]))
        assert main(["--help"]) == 0
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (min(most, OPEN_FILES), before[1])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_system_without_a_limit_of_open_files() -> None:
    """Windows, as far as can be told elsewhere: it has no module `resource`."""
    code = """
import sys, abaw_expr.commands.table, importlib.metadata, platform
sys.modules["resource"], sys.platform = None, "win32"
from abaw_expr.commands.main import main
assert main(["--help"]) == 0
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_light_commands_stay_off_torch(files: Files, tmp_path: Path) -> None:
    """In one process, one after the other; the first command to import torch is named."""
    commands: list[list[object]] = [[command, "--help"] for command in COMMANDS]
    commands += [
        ["--help"],
        ["check", files.predictions, "--template", files.template],
        ["score", "--outputs", files.outputs, "--decision", files.decision],
        ["score", "--predictions", files.predictions, "--annotations", files.annotations],
        ["submit", *on_test(files), "--out", tmp_path / "predictions.txt"],
        ["tune", "--outputs", files.outputs, "--out", tmp_path / "decision.json"],
    ]
    code = f"""
import sys
from abaw_expr.commands.main import OPEN_FILES, main
from abaw_expr.data.store.store import STORE_FORMAT
for command in {[[str(word) for word in words] for words in commands]!r}:
    assert main(command) == 0, command
    assert "torch" not in sys.modules, command
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


# Exit statuses


def test_exit_statuses_of_check(files: Files, tmp_path: Path) -> None:
    clean = process("check", files.predictions, "--template", files.template)
    assert (clean.returncode, clean.stdout) == (0, f"{files.predictions}: clean\n")
    faulty = tmp_path / "faulty.txt"
    faulty.write_text(files.predictions.read_text().replace("a/00002.jpg", "a/2.jpg"))
    found = process("check", faulty, "--template", files.template)
    assert found.returncode == 1
    assert f"{faulty}:3: row name" in found.stdout
    assert found.stdout.endswith(": 1 kind of fault\n")
    absent = process("check", tmp_path / "none.txt", "--template", files.template)
    assert (absent.returncode, absent.stdout) == (2, "")
    assert absent.stderr.startswith(f"abaw-expr: error: {tmp_path}/none.txt: cannot be read")
    assert absent.stderr.count("\n") == 1


@pytest.mark.slow
def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = ["score", "--predictions", tmp_path, "--annotations", tmp_path]
    plain, debug = process(*command), process(*command, "--debug")
    assert plain.returncode == 2
    assert "Traceback" not in plain.stderr
    assert debug.returncode != 0
    assert "Traceback" in debug.stderr
    assert "holds no annotation" in debug.stderr


def test_debug_may_stand_anywhere(tmp_path: Path) -> None:
    for command in (["--debug", "tune"], ["tune", "--debug"]):
        with pytest.raises(UserError, match="cannot be read"):
            main([*command, "--outputs", str(tmp_path / "none"), "--out", str(tmp_path / "out")])


@pytest.mark.parametrize("arguments", [["bogus"], ["tune"], ["predict", "--split", "validation"]])
def test_arguments_that_make_no_sense(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert "abaw-expr" in captured.err


@pytest.mark.slow
def test_an_interrupted_command_leaves_nothing_half_written(
    files: Files, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = Path.write_bytes

    def half(path: Path, data: bytes) -> int:
        whole(path, data[: len(data) // 2])
        raise KeyboardInterrupt

    kept = tmp_path / "decision.json"
    kept.write_text("what was here before")
    monkeypatch.setattr(Path, "write_bytes", half)
    assert call("tune", "--outputs", files.outputs, "--out", kept) == 130
    assert call("submit", *on_test(files), "--edition", "per-video", "--out", tmp_path / "folder") == 130
    assert kept.read_text() == "what was here before"
    assert list(tmp_path.iterdir()) == [kept]
    assert capsys.readouterr().err.count("interrupted") == 2


# prepare


def test_prepare_says_what_it_left_out(release: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "release"
    shutil.copytree(release, broken)
    video = next((broken / "videos").rglob("3-*.mp4"))
    video.write_bytes(video.read_bytes()[:200])
    command = ["prepare", "--release", broken, "--store", tmp_path / "store", "--workers", 1]
    assert call(*command) == 1
    captured = capsys.readouterr()
    assert "1 videos were left out" in captured.err
    assert video.stem[:5] in captured.out
    problems = json.loads((tmp_path / "store" / "report.json").read_text())["problems"]
    assert ("unreadable video", video.stem) in [(problem["kind"], problem["video"]) for problem in problems]
    assert call(*command, "--skip-broken") == 0


def test_an_empty_release_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    empty = tmp_path / "release"
    empty.mkdir()
    text = fails(capsys, "prepare", "--release", empty, "--store", tmp_path / "store")
    assert f"{empty}: holds no annotation folder; expected EXPR_Classification_Challenge or" in text
    assert "top folder" in text
    assert "is not a folder" in fails(capsys, "prepare", "--release", tmp_path / "x", "--store", tmp_path / "store")


# train


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Settings, bool]]:
    """What `train` is asked for, without doing it: settings, and whether to resume."""
    asked: list[tuple[Settings, bool]] = []

    def fit(store: object, run: object, settings: Settings, resume: bool, *tell: object) -> list[Epoch]:
        asked.append((settings, resume))
        return [made_epoch(1, 0.125)]

    monkeypatch.setattr("abaw_expr.training.loop.train", fit)
    return asked


def test_the_command_line_beats_the_settings_file(
    store: Path, tmp_path: Path, trained: list[tuple[Settings, bool]]
) -> None:
    command = ["train", "--store", store, "--run", tmp_path / "run", "--settings", "paper"]
    overrides = ["--optimiser.epochs", 2, "--branches", "audio", "--seed", 7, "--augment.no-flip"]
    assert call(*command) == 0
    assert call(*command, *overrides) == 0
    (plain, _), (changed, _) = trained
    assert plain == load_settings(recipe("paper"))
    assert changed == replace(
        plain.only(("audio",)),
        seed=7,
        optimiser=replace(plain.optimiser, epochs=2),
        augment=replace(plain.augment, flip=False),
    )


def test_settings_by_name_by_path_and_by_default(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trained: list[tuple[Settings, bool]]
) -> None:
    own = Settings(optimiser=OptimiserSettings(epochs=7), model=ModelSettings(attention=False))
    save_settings(own, tmp_path / "own.yaml")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "demo").mkdir()  # a folder by the name of a recipe is none
    command = ["train", "--store", store, "--run", tmp_path / "run"]
    for arguments in (["--settings", "own.yaml"], [f"--settings={tmp_path}/own.yaml"], ["--settings", "demo"], []):
        assert call(*command, *arguments) == 0
    names = [load_settings(recipe(name)) for name in ("demo", "modern")]
    assert [settings for settings, _ in trained] == [own, own, *names]


def test_resuming_keeps_the_settings_of_the_run(
    store: Path, tmp_path: Path, trained: list[tuple[Settings, bool]]
) -> None:
    own = Settings(optimiser=OptimiserSettings(epochs=7))
    save_settings(own, tmp_path / "run" / "settings.yaml")
    command = ["train", "--store", store, "--run", tmp_path / "run"]
    assert call(*command, "--resume") == 0
    assert call(*command, "--resume", "--settings", "demo") == 0
    assert call(*command) == 0
    demo, modern = (load_settings(recipe(name)) for name in ("demo", "modern"))
    assert trained == [(own, True), (demo, True), (modern, False)]


def test_settings_that_cannot_be_used(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["train", "--store", store, "--run", tmp_path / "run"]
    text = fails(capsys, *command, "--settings", tmp_path / "none.yaml")
    assert f"{tmp_path}/none.yaml: cannot be read" in text
    assert "demo, mecs, mixed, modern, paper" in text
    (tmp_path / "typo.yaml").write_text("optimizer: {epochs: 3}\n")
    assert "typo.yaml: optimizer is not a setting" in fails(capsys, *command, "--settings", tmp_path / "typo.yaml")
    text = fails(capsys, *command, "--optimiser.epochs", 0)
    assert "optimiser.epochs cannot be used; found 0; expected a count of at least 1" in text
    assert not (tmp_path / "run").exists()


def test_a_store_of_another_version_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = json.loads((store / "manifest.json").read_text())
    (tmp_path / "manifest.json").write_text(json.dumps(manifest | {"format": 99}))
    text = fails(capsys, "train", "--store", tmp_path, "--run", tmp_path / "run")
    assert f"{tmp_path}/manifest.json: the store has another format; found 99; expected {STORE_FORMAT}." in text
    assert "Run `prepare`" in text


def test_a_run_is_not_trained_over(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_settings(Settings(), tmp_path / "settings.yaml")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "last.pt").touch()
    text = fails(capsys, "train", "--store", store, "--run", tmp_path)
    assert f"{tmp_path}: holds a run already. Resume it with --resume" in text
    text = fails(capsys, "train", "--store", store, "--run", tmp_path, "--resume", "--seed", 1)
    assert "holds a run of other settings" in text


def test_a_run_writes_the_settings_that_the_command_line_gave(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["train", "--store", store, "--run", tmp_path / "run", "--settings", "demo", "--seed", 3]
    monkeypatch.setattr("abaw_expr.training.loop.load_weights_files", interrupt)
    assert call(*command, "--precision", "auto") == 130
    written = load_settings(tmp_path / "run" / "settings.yaml")
    assert written.precision in ("32-true", "bf16-mixed")  # what this machine made of it
    assert written == replace(load_settings(recipe("demo")), seed=3, precision=written.precision)
    assert "What was finished is kept" in capsys.readouterr().err


def interrupt(*arguments: object) -> None:
    raise KeyboardInterrupt


# predict


def test_a_folder_that_is_no_run_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", "--run", tmp_path, "--store", store, "--split", "val", "--out", tmp_path / "o.parquet"]
    assert f"{tmp_path}: is not a run folder; expected" in fails(capsys, *command)


def test_predicting_an_unknown_video_is_refused(
    files: Files, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save_settings(Settings(), tmp_path / "settings.yaml")
    command = ["predict", "--run", tmp_path, "--store", store, "--split", "test", "--out", tmp_path / "o.parquet"]
    text = fails(capsys, *command, "--template", files.template)
    assert f"{store}: the store lacks 4 videos: a, b_left, b_right, c. Prepare a release" in text


# score


def expected_scores(truth: np.ndarray, predicted: np.ndarray) -> float:
    kept = truth >= 0
    return f1_score(truth[kept], predicted[kept], labels=range(8), average="macro", zero_division=0)


def predicted_labels(path: Path) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for line in path.read_text().splitlines()[1:]:
        row, label = line.split(",")
        found.setdefault(row.split("/")[0], []).append(int(label))
    return found


def test_score_of_predictions_is_the_organisers_figure(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    roots = (tmp_path / "cropped_aligned", tmp_path / "cropped_aligned_new_50_vids")
    rng, has = np.random.default_rng(1), {}
    for i, (name, labels) in enumerate(files.truth.items()):
        has[name] = rng.random(len(labels)) > (1 if name == "c" else 0.3)  # c has no folder at all
        for place in np.flatnonzero(has[name]).tolist():
            path = roots[i % 2] / name / crop_name(place + 1)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
    command = ["score", "--predictions", files.predictions, "--annotations", files.annotations]
    assert call(*command, "--crops", *roots, "--out", tmp_path / "score.json") == 0
    found = json.loads((tmp_path / "score.json").read_text())
    predicted = predicted_labels(files.predictions)
    truth = np.concatenate(list(files.truth.values()))
    labels = np.concatenate([predicted[name][: len(t)] for name, t in files.truth.items()])
    masked = np.where(np.concatenate(list(has.values())), truth, -1)
    for name, expected in (("all annotated frames", truth), ("frames with a crop", masked)):
        assert found[name]["macro_f1"] == pytest.approx(expected_scores(expected, labels))
        assert found[name]["frames"] == (expected >= 0).sum()
    assert f"macro F1 {found['all annotated frames']['macro_f1']:.4f}" in capsys.readouterr().out


def test_score_of_outputs_is_the_organisers_figure(files: Files, tmp_path: Path) -> None:
    out = tmp_path / "score.json"
    assert call("score", "--outputs", files.outputs, "--decision", files.decision, "--out", out) == 0
    found, decision = json.loads(out.read_text()), json.loads(files.decision.read_text())
    assert found["all annotated frames"]["macro_f1"] == pytest.approx(decision["scores"]["macro_f1"])
    assert found["frames with a crop"]["macro_f1"] == pytest.approx(decision["scores"]["macro_f1_with_crop"])
    confusion = np.array(found["all annotated frames"]["confusion"])
    truth, predicted = np.repeat(np.indices((8, 8)).reshape(2, -1), confusion.ravel(), axis=1)
    assert found["all annotated frames"]["macro_f1"] == pytest.approx(expected_scores(truth, predicted))
    assert confusion.sum() == sum((labels >= 0).sum() for labels in files.truth.values())


def test_a_folder_of_predictions_scores_as_the_one_file(files: Files, tmp_path: Path) -> None:
    assert call("submit", *on_test(files), "--edition", "per-video", "--out", tmp_path / "folder") == 0
    for predictions, out in ((tmp_path / "folder", "folder.json"), (files.predictions, "file.json")):
        command = ["score", "--predictions", predictions, "--annotations", files.annotations]
        assert call(*command, "--out", tmp_path / out) == 0
    assert (tmp_path / "folder.json").read_bytes() == (tmp_path / "file.json").read_bytes()


@pytest.mark.parametrize(
    "names",
    ["", "decision", "predictions", "annotations", "outputs annotations", "decision predictions",
     "outputs decision predictions", "outputs predictions annotations", "outputs decision predictions annotations"],
)  # fmt: skip
def test_score_needs_one_pair_of_files(names: str, files: Files, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = [word for name in names.split() for word in (f"--{name}", getattr(files, name))]
    text = fails(capsys, "score", *arguments)
    assert "score needs --outputs [--decision], or --predictions with --annotations" in text


def test_crops_of_other_videos_are_refused(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["score", "--predictions", files.predictions, "--annotations", files.annotations]
    assert f"{tmp_path}: holds no crops" in fails(capsys, *command, "--crops", tmp_path)


def test_predictions_of_another_set_are_refused(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "other.txt").write_text(f"{EXPR.header}\n1\n")
    text = fails(capsys, "score", "--predictions", files.predictions, "--annotations", tmp_path)
    assert "no prediction for the annotated video other" in text
    (tmp_path / "other.txt").write_text(f"{EXPR.header}\n9\n")
    text = fails(capsys, "score", "--predictions", files.predictions, "--annotations", tmp_path)
    assert f"{tmp_path}/other.txt:2: has a label outside its range; found '9'; expected an integer from 0 to 7" in text


# Files that do not fit


def test_an_output_that_is_a_folder(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "mine").touch()
    for command in (
        ["tune", "--outputs", files.outputs],
        ["score", "--outputs", files.outputs, "--decision", files.decision],
        ["submit", *on_test(files)],
        ["submit", *on_test(files), "--edition", "per-video"],
    ):
        assert call(*command, "--out", folder) == 2
        text = capsys.readouterr().err.strip()
        assert f"error: {folder}: " in text
        assert "Traceback" not in text
    assert [path.name for path in tmp_path.rglob("*")] == ["folder", "mine"]


def test_outputs_of_another_task(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = make_table(files.truth, np.random.default_rng(0), replace(EXPR, name="va"))
    write_outputs(tmp_path / "va.parquet", other)
    for command in (
        ["tune", "--outputs", tmp_path / "va.parquet", "--out", tmp_path / "d.json"],
        ["score", "--outputs", tmp_path / "va.parquet", "--decision", files.decision],
        ["submit", *on_test(files), "--outputs", tmp_path / "va.parquet", "--out", tmp_path / "p.txt"],
    ):
        assert f"{tmp_path}/va.parquet: has other values or another order of them; found" in fails(capsys, *command)


def test_outputs_that_are_none(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = fails(capsys, "tune", "--outputs", files.template, "--out", tmp_path / "d.json")
    assert f"{files.template}: is not a Parquet file" in text
    text = fails(capsys, "tune", "--outputs", tmp_path / "none.parquet", "--out", tmp_path / "d.json")
    assert f"{tmp_path}/none.parquet: cannot be read" in text


def test_outputs_without_annotations_cannot_be_tuned_on(
    files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    nothing = {name: np.full(len(labels), -1) for name, labels in files.truth.items()}
    write_outputs(tmp_path / "o.parquet", make_table(nothing, np.random.default_rng(0)))
    text = fails(capsys, "tune", "--outputs", tmp_path / "o.parquet", "--out", tmp_path / "d.json")
    assert f"{tmp_path}/o.parquet: no frame is annotated" in text
    assert "validation split" in text


def test_a_decision_of_another_task(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    decision = json.loads(files.decision.read_text())
    path = tmp_path / "decision.json"
    path.write_text(json.dumps(decision | {"task": "va"}))
    command = ["score", "--outputs", files.outputs, "--decision", path]
    assert f"{path}: task cannot be used; found 'va'; expected expr" in fails(capsys, *command)
    path.write_text("{")
    assert f"{path}: is not JSON" in fails(capsys, *command)


def test_a_template_with_an_unknown_video(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    template = tmp_path / "template.txt"
    template.write_text(files.template.read_text() + "b/00001.jpg,\n")
    line = len(template.read_text().splitlines())
    text = fails(capsys, "submit", *on_test(files), "--template", template, "--out", tmp_path / "p.txt")
    assert f"{template}:{line}: 1 of 5 videos have no predictions: b." in text
    assert not (tmp_path / "p.txt").exists()


def test_the_template_sets_the_order(files: Files, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    header, *rows = files.template.read_text().splitlines()
    turned = tmp_path / "template.txt"
    turned.write_text("\n".join([header, *reversed(rows)]) + "\n")
    out = tmp_path / "p.txt"
    assert call("submit", *on_test(files), "--template", turned, "--out", out) == 0
    first, *written = out.read_text().splitlines()
    assert [f"{line.split(',')[0]}," for line in written] == rows[::-1]
    assert [first, *reversed(written)] == files.predictions.read_text().splitlines()
    assert call("check", out, "--template", turned) == 0
    capsys.readouterr()
    assert call("check", out, "--template", files.template) == 1
    assert f"{out}:2: row order" in capsys.readouterr().out


# describe


def test_describe_counts_the_parameters(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert call("describe", "--json") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == {"mcnn": 513384, "rhcnn": 1906024}
    save_settings(Settings(model=ModelSettings(attention=False)), tmp_path / "plain.yaml")
    assert call("describe", "--json", "--settings", tmp_path / "plain.yaml") == 0
    assert json.loads(capsys.readouterr().out)["parameters"] == {"mcnn": 103144, "rhcnn": 266344}
    assert call("describe") == 0
    text = capsys.readouterr().out
    assert "513,384" in text
    assert "1,906,024" in text


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    done = subprocess.run([sys.executable, "-m", "abaw_expr", "--help"], stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert (done.returncode, done.stderr) == (128 + signal.SIGPIPE, b"")
