"""The ablation: its rows against the paper's table, its figures against the runs they come from, and its resuming."""

import csv
import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from abaw_expr.commands.main import main
from abaw_expr.files import write_json
from abaw_expr.outputs.table import Outputs, Source, branch_columns, read_outputs, write_outputs
from abaw_expr.settings import BranchSettings, Settings, StreamSettings
from abaw_expr.settings_file import load_settings
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.statistics import bootstrap_difference, bootstrap_interval
from abaw_expr.tasks.task import EXPR
from tests.helpers.paths import ROOT
from tuning.ablation import ABLATION_ROWS, AblationRow, apply, job_of, results, rows_with, with_needed
from tuning.grid import statistics_tensor
from tuning.space import NO_SMOOTHING, Space

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


TINY = [
    *("--seeds", "2", "--jobs", "2", "--rows", "v-base", "--data.stride", "6", "--data.val-stride", "3"),
    *("--optimiser.epochs", "1", "--optimiser.batch-size", "4", "--compute.accelerator", "cpu"),
]


@pytest.fixture(scope="module")
def ablation(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("ablation") / "out"
    assert main(["ablate", "--store", str(store), "--out", str(out), *TINY]) == 0
    return out


def table(out: Path) -> dict[str, dict[str, str]]:
    with open(out / "table.csv") as file:
        return {row["row"]: row for row in csv.DictReader(file)}


def test_rows_are_the_papers_and_their_controls() -> None:
    base = load_settings(Path("modern"))
    settings = {row.name: apply(row, base, 3) for row in ABLATION_ROWS}
    assert all(s.seed == 3 for s in settings.values())
    assert [row.paper for row in ABLATION_ROWS[:6]] == [0.3189, 0.3353, 0.3559, 0.4262, 0.4592, 0.4651]
    for metric, branches in (("v", ("visual",)), ("av", ("audio", "visual"))):
        assert tuple(settings[f"{metric}-base"].branches) == branches
        assert [settings[f"{metric}-{name}"].model.attention for name in ("base", "gcsa", "full")] == [
            False,
            True,
            True,
        ]
        assert [any(settings[f"{metric}-{name}"].loss.mu) for name in ("base", "gcsa", "full")] == [False, False, True]
    assert settings["av-full"] == replace(base, seed=3)
    uniform, weighted, grouped = (settings[f"av-{name}"] for name in ("uniform", "weighted", "grouped"))
    assert not any(uniform.loss.mu)
    assert uniform.loss.every_error == np.mean(Settings().loss.mu)
    assert not any(weighted.loss.mu)
    assert weighted.loss.class_weight == 1
    assert grouped.model.attention_groups == 4


def test_parts_of_the_first_version_take_the_place_of_the_systems() -> None:
    base = Settings(branches={"audio": BranchSettings("mcnn", weight=3), "visual": BranchSettings("rhcnn", weight=2)})
    settings = {row.name: apply(row, base, 0) for row in ABLATION_ROWS}
    mecs = {**base.branches, "visual": BranchSettings("rhcnn", "mecs", weight=2)}
    assert settings["av-mecs"] == replace(base, branches=mecs)
    joined = (("av-dilated", "", False), ("av-mecs-dilated", "mecs", False), ("av-key-frames", "mecs", True))
    for name, attention, key_frames in joined:
        streams = {"audio": StreamSettings("mcnn"), "visual": StreamSettings("rhcnn", attention)}
        joint = {"joint": BranchSettings(streams=streams, join="dilated", key_frames=key_frames)}
        assert settings[name] == replace(base, branches=joint)


def test_a_row_brings_what_it_is_held_against() -> None:
    assert [row.name for row in with_needed(["av-equal"])] == ["av-full", "av-equal"]


def test_rows_with_more_data_are_the_full_system_on_more_stores(tmp_path: Path) -> None:
    base = Settings()
    data = {"others": ("afew=0.2", "ck=0.1"), "generated": ("gan=0.1",)}
    assert not [row for row in rows_with({}) if row.data]
    assert {row.name for row in rows_with({"others": ("ck=0.1",)}) if row.data} == {"v-others", "av-others"}
    assert rows_with(data) == ABLATION_ROWS
    expected = {
        "others": data["others"],
        "generated": data["generated"],
        "mixed": (*data["others"], *data["generated"]),
    }
    rows = {row.name: row for row in ABLATION_ROWS}
    for system in ("v", "av"):
        for name, stores in expected.items():
            row = rows[f"{system}-{name}"]
            assert job_of(row, base, 0, tmp_path, data).extras == stores
            assert apply(row, base, 0) == apply(rows[f"{system}-full"], base, 0)
            assert row.against == f"{system}-full"


def test_a_row_without_its_data_is_refused(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["ablate", "--store", str(store), "--out", str(tmp_path / "out"), "--rows", "v-mixed"]
    assert main([*command, "--others", "ck=0.1"]) == 2
    assert "--rows needs more data; found ['v-mixed']" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "out").exists()


def invented(out: Path, rows: Sequence[AblationRow], seeds: int) -> None:
    """Outputs of trainings that never were: random probabilities that lean towards the truth, three recordings."""
    rng = np.random.default_rng(0)
    frames = 300
    label = rng.integers(8, size=frames).astype(np.int8)
    for row in rows:
        for seed in range(seeds):
            job = job_of(row, Settings(), seed, out)
            columns: dict[str, object] = {
                "video": pd.Categorical(np.repeat(["a", "b", "c"], frames // 3)),
                "frame": np.tile(np.arange(1, frames // 3 + 1, dtype=np.int32), 3),
                "time": np.tile(np.arange(frames // 3) / 10, 3),
                "crop": True,
            }
            branches = dict.fromkeys(apply(row, Settings(), seed).branches, Source("x", (1 / 8,) * 8))
            for name in branches:
                p = rng.dirichlet(np.ones(8), frames)
                p[np.arange(frames), label] += 0.3
                p = (p / p.sum(axis=1, keepdims=True)).astype(np.float32)
                columns |= dict(zip(branch_columns(name, EXPR), p.T, strict=True))
            write_outputs(job.outputs("val"), Outputs(EXPR, pd.DataFrame(columns | {"label": label}), "val", branches))
            write_json(job.run.manifest, {"seconds": 60.0 + seed})


def test_figures_are_those_of_the_outputs(tmp_path: Path) -> None:
    invented(tmp_path, [row for row in ABLATION_ROWS if row.trained_as is None], seeds=2)
    found = {result.row.name: result for result in results(tmp_path, Settings(), ABLATION_ROWS, 2, EXPR)}
    assert list(found) == [row.name for row in ABLATION_ROWS]
    for name in ("v-gcsa", "av-full"):
        f1s = []
        for seed in range(2):
            outputs = read_outputs(tmp_path / "runs" / f"{name}-{seed}" / "outputs" / "val.parquet", EXPR)
            tensor = statistics_tensor(outputs, Space(smoothing=(NO_SMOOTHING,), tau=(0.0,)).restricted_to(outputs))
            f1s.append(macro_f1(tensor.sum(axis=1)).max())
        result = found[name]
        assert result.f1 == pytest.approx(f1s)
        assert result.mean == pytest.approx(np.mean(f1s))
        assert result.deviation == pytest.approx(np.std(f1s, ddof=1))
        assert result.interval[0] <= result.mean <= result.interval[1]
        assert result.nested is not None
        assert result.nested <= result.mean
    assert found["v-base"].parameters == 266_344
    assert found["av-full"].parameters == 513_384 + 1_906_024
    assert found["av-grouped"].parameters == 103_144 + 109_184 + 266_344 + 435_456
    heads, joined, mecs_for_gcsa = 128 * 8 + 8 + 256 * 8 + 8, 1_035_776 + 49_408 + 128 * 8 + 8, 127_040 - 1_639_680
    assert found["av-mecs"].parameters == 2_419_408 + mecs_for_gcsa
    assert found["av-dilated"].parameters == 2_419_408 - heads + joined
    assert found["av-mecs-dilated"].parameters == 2_419_408 - heads + joined + mecs_for_gcsa
    full, equal = found["av-full"], found["av-equal"]
    assert equal.mean <= full.mean
    assert equal.seconds == full.seconds == 60.5
    assert equal.difference is not None
    assert equal.difference[0] == pytest.approx(equal.mean - full.mean)


def test_the_report_is_a_table_and_a_picture(ablation: Path) -> None:
    lines = (ablation / "table.md").read_text().splitlines()
    assert len(lines) == 2 + 1
    assert len({line.count("|") for line in lines}) == 1
    assert "31.89" in lines[2]
    assert (ablation / "figure.png").read_bytes().startswith(b"\x89PNG")


def test_run_again_it_trains_nothing(ablation: Path, store: Path) -> None:
    trained = {path: path.stat().st_mtime_ns for path in ablation.glob("runs/*/**/*.pt")}
    assert len(trained) == 2 * 2
    before = (ablation / "table.csv").read_bytes()
    assert main(["ablate", "--store", str(store), "--out", str(ablation), *TINY]) == 0
    assert {path: path.stat().st_mtime_ns for path in trained} == trained
    assert (ablation / "table.csv").read_bytes() == before


def test_other_settings_in_the_same_folder_are_refused(
    ablation: Path, store: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ablate", "--store", str(store), "--out", str(ablation), *TINY]
    assert main([*command, "--optimiser.epochs", "2"]) == 2
    assert "started with other settings" in " ".join(capsys.readouterr().err.split())


def test_a_training_that_fails_is_named_with_its_reason(
    store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["ablate", "--store", str(store), "--out", str(tmp_path), *TINY, "--seeds", "1", "--rows", "v-base"]
    assert main([*command, "--optimiser.branch-learning-rate", "1e30"]) == 2
    error = " ".join(capsys.readouterr().err.split())
    assert "1 trainings failed: v-base-0" in error
    assert "the loss of step 2 of epoch 1 is nan" in error


def test_an_unknown_row_is_named(store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["ablate", "--store", str(store), "--out", str(tmp_path / "out"), "--rows", "v-bsae"]) == 2
    assert "v-bsae" in capsys.readouterr().err


def test_ended_from_outside_it_ends_its_trainings(store: Path, tmp_path: Path) -> None:
    command = [
        "ablate",
        "--store",
        str(store),
        "--out",
        str(tmp_path),
        *TINY,
        "--rows",
        "v-base",
        "--optimiser.epochs",
        "99",
    ]
    process = subprocess.Popen([sys.executable, "-m", "abaw_expr", *command], cwd=ROOT)
    run = tmp_path / "runs" / "v-base-0"
    while not (run / "metrics.csv").exists() and process.poll() is None:
        time.sleep(0.05)
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 143
    assert not any(str(run) in line for line in _commands())
    assert "--resume" in (tmp_path / "runs" / "v-base-0.log").read_text()


def _commands() -> list[str]:
    """The command lines of all processes that this one may see."""
    found = []
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                found.append(Path(entry.path, "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
            except OSError:
                continue  # it has ended
    return found


def test_intervals_of_several_runs_are_those_of_their_mean() -> None:
    rng = np.random.default_rng(0)
    runs = rng.integers(0, 50, (3, 6, 8, 8))
    assert bootstrap_interval(runs[:1], macro_f1, seed=1) == bootstrap_interval(runs[0], macro_f1, seed=1)
    mean = macro_f1(runs.sum(axis=1)).mean()
    low, high = bootstrap_interval(runs, macro_f1, seed=1)
    assert low < mean < high
    assert bootstrap_difference(runs, runs, macro_f1, seed=1) == (0, 0, 0)
    other = rng.integers(0, 50, (3, 6, 8, 8))
    forth, back = (
        bootstrap_difference(runs, other, macro_f1, seed=1),
        bootstrap_difference(other, runs, macro_f1, seed=1),
    )
    assert forth == pytest.approx((-back[0], -back[2], -back[1]))
    assert forth[0] == pytest.approx(mean - macro_f1(other.sum(axis=1)).mean())
