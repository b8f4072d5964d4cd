"""The identity of a run: what differs from a frozen set of defaults, and nothing else."""

import json
from collections.abc import Mapping
from dataclasses import fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from abaw_expr.errors import RunError
from abaw_expr.settings import (
    BranchSettings,
    ComputeSettings,
    DataSettings,
    LossSettings,
    Settings,
    StreamSettings,
    two_branches,
)
from abaw_expr.settings_file import dump_settings
from abaw_expr.training import signature as module
from abaw_expr.training.run import RunFolder
from abaw_expr.training.signature import (
    FROZEN,
    FROZEN_BRANCH,
    FROZEN_BRANCHES,
    changed,
    differences,
    earlier_signature,
    signature,
)

AUDIO, VISUAL = two_branches().values()
SEVERAL = BranchSettings(streams={"face": StreamSettings("rhcnn"), "sound": StreamSettings("mcnn")})


# Frozen defaults


def settings_names() -> set[str]:
    """Every setting but those of branches and of `compute`, as `group.name`."""
    groups = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    del groups["compute"], groups["branches"]
    inner = {name: [field.name for field in fields(one)] for name, one in groups.items() if is_dataclass(one)}
    return {*(groups.keys() - inner.keys()), *(f"{group}.{name}" for group, names in inner.items() for name in names)}


def test_every_setting_has_its_first_default_kept() -> None:
    assert FROZEN.keys() == settings_names()
    assert FROZEN_BRANCH.keys() == {field.name for field in fields(BranchSettings)}
    assert {field.name for field in fields(StreamSettings)} <= FROZEN_BRANCH.keys()


def test_settings_at_their_first_defaults_leave_no_trace() -> None:
    assert changed(Settings()) == {}
    assert {name: branch["encoder"] for name, branch in FROZEN_BRANCHES.items()} == {
        name: branch.encoder for name, branch in two_branches().items()
    }


def test_only_what_differs_is_kept() -> None:
    settings = Settings(
        "va",
        seed=3,
        data=DataSettings(stride=0.5),
        branches={"audio": replace(AUDIO, weight=2, weights="/some/where.pt"), "both": SEVERAL},
        compute=ComputeSettings("cpu", workers=4),
    )
    several = {"streams": [("face", {"encoder": "rhcnn"}), ("sound", {"encoder": "mcnn"})]}
    assert changed(settings) == {
        "task": "va",
        "seed": 3,
        "data.stride": 0.5,
        "branches": [("audio", {"encoder": "mcnn", "weights": "a file", "weight": 2}), ("both", several)],
    }


def test_a_new_setting_at_its_default_keeps_every_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = Settings(seed=3, branches={"audio": replace(AUDIO, weight=2), "both": SEVERAL})
    before = signature(Settings(), "data"), signature(settings, "data")
    monkeypatch.setattr(module, "FROZEN", {**FROZEN, "loss.novel": 0.5, "brand_new": False})
    monkeypatch.setattr(module, "FROZEN_BRANCH", {**FROZEN_BRANCH, "novel": []})

    def dumped(given: Settings) -> dict[str, Any]:
        values = dump_settings(given)
        branches = {name: one | {"novel": novel_of_branch} for name, one in values["branches"].items()}
        return values | {"loss": values["loss"] | {"novel": novel}, "brand_new": False, "branches": branches}

    monkeypatch.setattr(module, "dump_settings", dumped)
    novel: float
    novel_of_branch: list[int]
    novel, novel_of_branch = 0.5, []
    assert (signature(Settings(), "data"), signature(settings, "data")) == before
    novel = 0.25
    assert signature(Settings(), "data") != before[0]
    novel, novel_of_branch = 0.5, [1]
    assert signature(Settings(), "data") != before[0]


def test_a_default_that_changes_later_is_a_setting_that_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signature(Settings(), "data")
    monkeypatch.setattr(module, "FROZEN", {**FROZEN, "model.dropout": 0.5})
    assert changed(Settings()) == {"model.dropout": 0.2}
    assert signature(Settings(), "data") != before


def test_signatures_stay_as_they_are() -> None:
    """The digests of this version: whatever comes later must give the same ones."""
    settings = Settings("va", seed=3, branches={"audio": replace(AUDIO, weight=2), "both": SEVERAL})
    found = [
        signature(Settings(), "data"),
        signature(settings, "data"),
        signature(settings, "data", "start", {"seed": 1}, {"audio.audio": "digest"}),
    ]
    assert found == ["58e9a0fb09eff468", "1b6043e3212f1100", "8bc30a52f36a4bcb"]


# Branches


def test_the_order_of_branches_is_part_of_the_identity() -> None:
    """It is that of the random numbers that initialise them."""
    turned = Settings(branches={"visual": VISUAL, "audio": AUDIO})
    assert turned == Settings(), "as dictionaries are"
    assert signature(turned, "data") != signature(Settings(), "data")
    assert differences(Settings(), turned) == ["branches: audio, visual -> visual, audio"]
    first, second = (
        Settings(branches={"both": replace(SEVERAL, streams=dict(streams))})
        for streams in (SEVERAL.streams.items(), reversed(SEVERAL.streams.items()))
    )
    assert signature(first, "data") != signature(second, "data")


def test_the_name_of_a_branch_is_part_of_the_identity() -> None:
    one, other = (Settings(branches={name: VISUAL}) for name in ("visual", "face"))
    assert signature(one, "data") != signature(other, "data")


@pytest.mark.parametrize(
    ("after", "told"),
    [
        (Settings(seed=2), ["seed: 0 -> 2"]),
        (Settings().only(["audio"]), ["branches: audio, visual -> audio"]),
        (
            Settings(seed=1, branches={"audio": replace(AUDIO, weight=3), "face": VISUAL}),
            ["branches: audio, visual -> audio, face", "seed: 0 -> 1", "branches.audio.weight: 1 -> 3"],
        ),
        (Settings(branches={"face": VISUAL}), ["branches: audio, visual -> face"]),
        (Settings(compute=ComputeSettings("cpu", workers=3)), []),
        (Settings(compute=ComputeSettings(micro_batch=8, workers=3)), ["compute.micro-batch: 0 -> 8"]),
        (Settings(loss=LossSettings(branch_weight=0.5)), ["loss.branch-weight: 0.0 -> 0.5"]),
    ],
)
def test_what_differs_is_told(after: Settings, told: list[str]) -> None:
    assert differences(Settings(), after) == told


# Files of weights


def file_of(path: Path, seed: int) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save({"w": torch.full((3,), float(seed))}, path)
    return path


def identity_with(path: Path, run: RunFolder) -> str:
    settings = Settings(branches={"audio": replace(AUDIO, weights=str(path)), "visual": VISUAL})
    run.start(settings, "data", resume=False)
    return run.identity(settings, "data")


def test_files_of_weights_are_known_by_what_is_in_them(tmp_path: Path) -> None:
    here, there = file_of(tmp_path / "here/w.pt", 1), tmp_path / "there/w.pt"
    there.parent.mkdir()
    there.write_bytes(here.read_bytes())
    other = file_of(tmp_path / "other/w.pt", 2)
    found = [identity_with(path, RunFolder(tmp_path / str(n))) for n, path in enumerate((here, there, other))]
    assert found[0] == found[1] != found[2]
    assert found[0] != signature(Settings(), "data")
    assert [*json.loads(RunFolder(tmp_path / "0").weights.read_text())] == ["audio.audio"]
    there.unlink()
    settings = Settings(branches={"audio": replace(AUDIO, weights=str(there)), "visual": VISUAL})
    assert RunFolder(tmp_path / "1").identity(settings, "data") == found[0], "it is known though the file is gone"


def test_a_file_of_weights_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"none\.pt: cannot be read .*It is the weights of branches\.audio\.audio\."):
        identity_with(tmp_path / "none.pt", RunFolder(tmp_path / "run"))


def test_a_run_is_not_gone_on_with_from_another_file(tmp_path: Path) -> None:
    path, run = file_of(tmp_path / "w.pt", 1), RunFolder(tmp_path / "run")
    identity_with(path, run)
    run.last.parent.mkdir(exist_ok=True)
    run.last.touch()
    settings = Settings(branches={"audio": replace(AUDIO, weights=str(path)), "visual": VISUAL})
    run.start(settings, "data", resume=True)
    file_of(path, 2)
    with pytest.raises(RunError, match=r"w\.pt: is another file of weights than branches\.audio\.audio began with"):
        run.start(settings, "data", resume=True)
    path.unlink()
    run.start(settings, "data", resume=True)  # it is not needed any more


# Earlier versions

EARLIER: Mapping[str, Any] = {
    "seed": 0,
    "precision": "auto",
    "data": {
        "stride": 0.3,
        "val_stride": 0.5,
        "frames_per_sample": 1,
        "spacing": 0.2,
        "balance": 0.0,
        "video_balance": 0.0,
        "sequence": 1,
    },
    "augment": {"frequency_mask": 8, "time_mask": 24, "flip": True, "crop": 0.8, "jitter": 0.3},
    "model": {
        "branches": ["audio", "visual"],
        "attention": True,
        "attention_groups": 1,
        "mixing_groups": 1,
        "dropout": 0.2,
    },
    "loss": {
        "m": 1,
        "n": 1,
        "mu12": 0.5,
        "mu13": 0.75,
        "mu14": 0.25,
        "mu23": 0.25,
        "mu24": 0.75,
        "mu34": 0.5,
        "every_error": 0.0,
        "class_weight": 0.0,
        "quadrants": [4, 2, 2, 2, 1, 3, 1, 0],
        "label_smoothing": 0.0,
        "branch_weight": 0.0,
    },
    "optimiser": {
        "name": "sgd",
        "learning_rate": 0.0001,
        "branch_learning_rate": 0.001,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "schedule": "constant",
        "epochs": 300,
        "batch_size": 16,
        "ema_decay": 0.0,
    },
    "compute": {
        "accelerator": "auto",
        "devices": 1,
        "nodes": 1,
        "micro_batch": 0,
        "compile": False,
        "workers": 0,
        "save_every": 300.0,
    },
}
"""The settings.yaml of the version before tasks and branches had settings (43dc4cb), with its defaults."""
IN_PARTS = {
    **EARLIER,
    "model": EARLIER["model"] | {"branches": ["audio"]},
    "compute": EARLIER["compute"] | {"devices": 2, "micro_batch": 4},
}
WEIGHED = {
    **EARLIER,
    "seed": 3,
    "loss": EARLIER["loss"] | {"m": 2, "n": 3, "mu12": 0.1, "class_weight": 0.5},
    "optimiser": EARLIER["optimiser"] | {"name": "adamw", "epochs": 7},
}
of_earlier_runs = pytest.mark.parametrize(
    ("values", "plain", "begun"),
    [
        (EARLIER, "3c142727b078a05a", "f9f3ef932dfc64cd"),
        (IN_PARTS, "db86e93cd2bbb7b7", "945ae4d64816654b"),
        (WEIGHED, "1b62ab730b54673c", "16ca93edcf79b4e5"),
    ],
    ids=["defaults", "in parts", "weighed"],
)
"""Signatures that the code of that version gave: of the data alone, and with a start and heads trained again."""


@of_earlier_runs
def test_the_signature_of_an_earlier_run_is_what_it_was(values: Mapping[str, Any], plain: str, begun: str) -> None:
    assert earlier_signature(values, "data") == plain
    assert earlier_signature(values, "data", "start", {"seed": 1}) == begun


@of_earlier_runs
def test_the_folder_of_an_earlier_run_has_its_signature_and_is_not_resumed(
    values: Mapping[str, Any], plain: str, begun: str, tmp_path: Path
) -> None:
    run = RunFolder(tmp_path)
    run.settings.write_text(yaml.safe_dump(dict(values), sort_keys=False))
    settings = run.load_settings()
    assert settings.weights == {
        name: values["loss"][weight]
        for name, weight in (("audio", "m"), ("visual", "n"))
        if name in values["model"]["branches"]
    }
    assert run.identity(settings, "data") == plain
    with pytest.raises(RunError, match=r"was made by an earlier version, so it cannot be resumed.*--initial-weights"):
        run.check_settings(settings)
