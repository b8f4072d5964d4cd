"""Settings: every shipped file loads, bad values are refused by their flag, the signature is the run's identity."""

import re
from dataclasses import asdict, fields, is_dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from abaw_expr.errors import SettingsError
from abaw_expr.settings import QUADRANT_PAIRS, BranchSettings, ComputeSettings, Settings, two_branches
from abaw_expr.settings_file import RECIPES, dump_settings, load_settings, recipe, save_settings, settings_from
from abaw_expr.training.signature import signature

SHIPPED = (
    "au",
    "clip-adapter",
    "clip-lstm",
    "ddamfn",
    "ddamfn-lstm",
    "demo",
    "mecs",
    "mixed",
    "modern",
    "paper",
    "pretrained",
    "va",
    "va-tcn",
)


def test_every_shipped_file_is_known() -> None:
    assert tuple(sorted(path.stem for path in RECIPES.iterdir())) == SHIPPED


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_file_loads_by_path_and_by_name(name: str) -> None:
    settings = load_settings(recipe(name))
    assert load_settings(Path(name)) == settings
    resolved = dump_settings(settings)
    assert holds(resolved, yaml.safe_load(recipe(name).read_text()))


def holds(resolved: Any, written: Any) -> bool:
    """Whether all that is written stands in what it was resolved to."""
    if isinstance(written, dict):
        return all(holds(resolved[key], value) for key, value in written.items())
    return bool(resolved == written)


def test_paper_is_the_papers_recipe() -> None:
    settings = load_settings(recipe("paper"))
    optimiser = settings.optimiser
    assert (optimiser.name, optimiser.momentum, optimiser.schedule) == ("sgd", 0.9, "constant")
    assert (optimiser.learning_rate, optimiser.branch_learning_rate) == (1e-4, 1e-3)
    assert (optimiser.batch_size, optimiser.epochs, optimiser.weight_decay) == (16, 300, 0)
    assert settings.augment.frequency_mask > 0
    assert settings.augment.time_mask == 0
    assert (settings.augment.flip, settings.augment.crop, settings.augment.jitter) == (False, 1, 0), "it names none"
    assert settings.data.stride > 0, "frames at equal intervals, it says"
    assert (settings.data.balance, settings.data.video_balance) == (0, 0)
    model = settings.model
    assert [*settings.branches.items()] == [*two_branches().items()]
    assert (model.attention, model.dropout) == (True, 0.2)
    assert (model.attention_groups, model.mixing_groups) == (1, 1)
    loss = settings.loss
    assert settings.weights == {"audio": 1, "visual": 1}
    assert (loss.label_smoothing, loss.branch_weight) == (0, 0)
    assert dict(zip(QUADRANT_PAIRS, loss.mu, strict=True)) == {
        (1, 2): 0.5,
        (1, 3): 0.75,
        (1, 4): 0.25,
        (2, 3): 0.25,
        (2, 4): 0.75,
        (3, 4): 0.5,
    }
    assert (loss.quadrants or settings.task_of.quadrants) == (4, 2, 2, 2, 1, 3, 1, 0)


def test_modern_costs_a_seventh_of_the_paper() -> None:
    modern, paper = load_settings(recipe("modern")), load_settings(recipe("paper"))
    assert modern.data.stride == paper.data.stride
    assert modern.optimiser.epochs <= paper.optimiser.epochs / 7
    assert modern.optimiser.epochs < paper.optimiser.epochs
    assert (modern.optimiser.name, modern.optimiser.schedule) == ("adamw", "one-cycle")
    assert modern.loss.label_smoothing > 0
    assert modern.data.balance > 0


def write(folder: Path, text: str) -> Path:
    path = folder / "mine.yaml"
    path.write_text(text)
    return path


def test_what_a_file_leaves_out_keeps_its_default(tmp_path: Path) -> None:
    assert load_settings(write(tmp_path, "")) == Settings()
    assert load_settings(write(tmp_path, "# nothing\n")) == Settings()
    settings = load_settings(write(tmp_path, "seed: 4\nloss: {m: 3}\noptimiser: {learning_rate: 3e-5}\n"))
    assert settings == replace(
        Settings(),
        seed=4,
        branches={"audio": BranchSettings("mcnn", weight=3), "visual": BranchSettings("rhcnn")},
        optimiser=replace(Settings().optimiser, learning_rate=3e-5),
    )


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("sed: 1", "sed"),
        ("data: {intervall: 1}", "data.intervall"),
        ("data: {val-stride: 1}", "data.val-stride"),
        ("loss: {mu: [0, 0, 0, 0, 0, 0]}", "loss.mu"),
        ("optimizer: {}", "optimizer"),
        ("branches: {audio: {encoder: mcnn, weigth: 2}}", "branches.audio.weigth"),
        ("branches: {both: {streams: {face: {encoder: rhcnn, join: x}}}}", "branches.both.streams.face.join"),
    ],
)
def test_unknown_key_is_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"mine\.yaml: {re.escape(key)} is not a setting"):
        load_settings(write(tmp_path, text))


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("seed: many", "seed"),
        ("precision: 16", "precision"),
        ("data: 5", "data"),
        ("data: {stride: [1]}", "data.stride"),
        ("data: {frames_per_sample: 1.5}", "data.frames_per_sample"),
        ("augment: {flip: sometimes}", "augment.flip"),
        ("branches: audio", "branches"),
        ("branches: [audio]", "branches"),
        ("branches: {audio: mcnn}", "branches.audio"),
        ("branches: {audio: {encoder: [1]}}", "branches.audio.encoder"),
        ("branches: {audio: {encoder: mcnn, weight: heavy}}", "branches.audio.weight"),
        ("branches: {audio: {streams: [mcnn]}}", "branches.audio.streams"),
        ("loss: {quadrants: [a, 2, 2, 2, 1, 3, 1, 0]}", "loss.quadrants.0"),
        ("optimiser: {name: adagrad}", "optimiser.name"),
        ("optimiser: {epochs: some}", "optimiser.epochs"),
        ("compute: {accelerator: tpu}", "compute.accelerator"),
    ],
)
def test_wrong_type_is_refused(tmp_path: Path, text: str, key: str) -> None:
    with pytest.raises(SettingsError, match=rf"mine\.yaml: {re.escape(key)} cannot be used: .*; found"):
        load_settings(write(tmp_path, text))


@pytest.mark.parametrize(("text", "found"), [("- seed", "list"), ("seed", "str")])
def test_what_holds_no_settings_is_refused(tmp_path: Path, text: str, found: str) -> None:
    expected = rf"mine\.yaml: is not a settings file; found '{found}'; expected groups of settings"
    with pytest.raises(SettingsError, match=expected):
        load_settings(write(tmp_path, text))


OUT_OF_RANGE: dict[str, list[Any]] = {
    "seed": [-1, 2**63],
    "data.stride": [-0.1, float("nan"), float("inf")],
    "data.val_stride": [-1, float("inf")],
    "data.frames_per_sample": [0, -1],
    "data.train_on": ["val", "test"],
    "data.folds": [1, -1],
    "data.fold": [-1, 1],
    "data.spacing": [0, -0.2, float("inf")],
    "data.balance": [-0.1, 1.1, float("nan")],
    "data.video_balance": [-0.1, 1.1, float("nan")],
    "data.sequence": [0, -1, 3, 32],
    "data.hop": [-1, 2],
    "augment.frequency_mask": [-1],
    "augment.time_mask": [-1],
    "augment.crop": [0, 0.05, 1.01],
    "augment.jitter": [-0.1, 1],
    "branches.weight": [0, 6],
    "branches.embedding_width": [-1],
    "branches.projection": [-1],
    "branches.release": [[0], [-1, 2], [2, 2], [3, 2]],
    "model.attention_groups": [0, 2, 8],
    "model.dilations": [[], [0, 1], [1, -1]],
    "model.mixing_groups": [0, 2],
    "model.dropout": [-0.1, 1],
    **{f"loss.mu{j}{k}": [-0.1, 1.1, float("nan")] for j, k in QUADRANT_PAIRS},
    "loss.quadrants": [[1, 2], [5, 2, 2, 2, 1, 3, 1, 0], [-1, 2, 2, 2, 1, 3, 1, 0]],
    "loss.every_error": [-0.1, 1.1, float("nan")],
    "loss.class_weight": [-0.1, 1.1, float("nan")],
    "loss.label_smoothing": [-0.1, 1],
    "loss.branch_weight": [-1, float("inf")],
    "loss.diversity": [-1, float("inf"), float("nan")],
    "loss.per_stretch": [True],
    "optimiser.learning_rate": [0, -1e-3, float("inf"), float("nan")],
    "optimiser.branch_learning_rate": [0, float("inf")],
    "optimiser.pretrained_learning_rate": [-1e-3, float("inf"), float("nan")],
    "optimiser.momentum": [-0.1, 1],
    "optimiser.weight_decay": [-1, float("inf")],
    "optimiser.epochs": [0],
    "optimiser.batch_size": [0, 1],
    "optimiser.ema_decay": [-0.1, 1, float("nan")],
    "compute.devices": [0, -1],
    "compute.nodes": [0, -1],
    "compute.micro_batch": [-1, 1],
    "compute.workers": [-1],
    "compute.save_every": [-1, float("inf"), float("nan")],
}
UNRANGED = {
    "task",
    "precision",
    *(f"branches.{name}" for name in ("encoder", "attention", "weights", "norm", "temporal", "streams")),
    *(f"branches.{name}" for name in ("join", "head", "key_frames", "freeze", "networks")),
    *(f"model.{name}" for name in ("prompts", "text_encoder", "text_weights")),
    "augment.flip",
    "model.attention",
    "model.attention_place",
    "model.squared_gate",
    "model.strips",
    "optimiser.name",
    "optimiser.schedule",
    "compute.accelerator",
    "compute.compile",
}


def nested(key: str, value: object) -> dict[str, Any]:
    """A file that says one setting; `branches.` stands for the audio branch."""
    group, _, name = key.rpartition(".")
    if group == "branches":
        encoder: dict[str, Any] = {} if name == "streams" else {"encoder": "mcnn"}
        encoder |= {"freeze": True} if name == "release" else {}
        return {"branches": {"audio": encoder | {name: value}, "visual": {"encoder": "rhcnn"}}}
    return {group: {name: value}} if group else {name: value}


@pytest.mark.parametrize(("key", "value"), [(key, value) for key, values in OUT_OF_RANGE.items() for value in values])
def test_value_out_of_its_range_is_refused_by_the_flags_name(tmp_path: Path, key: str, value: object) -> None:
    flag = re.escape(key.replace("_", "-"))
    with pytest.raises(SettingsError, match=rf"mine\.yaml: the setting {flag} cannot be used; found .*; expected "):
        load_settings(write(tmp_path, yaml.safe_dump(nested(key, value))))


def keys() -> list[str]:
    """Every setting, as `group.name`; `branches.name` of a branch, whatever it is called."""
    groups = {field.name: getattr(Settings(), field.name) for field in fields(Settings)}
    groups["branches"] = groups["branches"]["audio"]
    return [
        f"{group}.{name}" if name else group
        for group, value in groups.items()
        for name in ([field.name for field in fields(value)] if is_dataclass(value) else [""])
    ]


TWO = {"face": {"encoder": "rhcnn"}, "scene": {"encoder": "rhcnn", "temporal": "tcn"}}


@pytest.mark.parametrize(
    ("branches", "message"),
    [
        ({}, "branches cannot be used; found 'none'; expected a branch at least"),
        ({"fused": {"encoder": "mcnn"}}, "the name cannot be used; found 'fused'; expected another one"),
        ({"": {"encoder": "mcnn"}}, "the name cannot be used; found ''; expected letters, digits and hyphens"),
        ({"an_ear": {"encoder": "mcnn"}}, "the name cannot be used; found 'an_ear'; expected letters"),
        ({"a": {"streams": {"x.y": {"encoder": "mcnn"}}}}, "the name cannot be used; found 'x.y'; expected letters"),
        ({"a": {}}, "a branch cannot be used; found 'nothing'; expected an encoder or streams, one of the two"),
        ({"a": {"encoder": "mcnn", "streams": TWO}}, "a branch cannot be used; found 'mcnn'; expected an encoder or"),
        (
            {"a": {"weights": "w.pt", "streams": TWO}},
            "branches.weights cannot be used; found 'w.pt'; expected that of each",
        ),
        (
            {"a": {"freeze": True, "streams": TWO}},
            "branches.freeze cannot be used; found True; expected that of each",
        ),
        (
            {"a": {"encoder": "mcnn", "release": [3]}},
            "branches.release cannot be used; found (3,); expected none with",
        ),
        ({"a": {"streams": {"b": {"encoder": "mcnn", "release": [3]}}}}, "branches.release cannot be used; found (3,)"),
        (
            {"a": {"encoder": "mcnn", "networks": "each"}},
            "branches.networks cannot be used; found 'each'; expected one",
        ),
        ({"a": {"streams": TWO}}, "data.sequence cannot be used; found 1; expected 2 frames or more, for the temporal"),
        ({"a": {"encoder": "mcnn", "temporal": "lstm"}}, "data.sequence cannot be used; found 1; expected 2 frames"),
    ],
)
def test_branches_that_cannot_be_are_refused(branches: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=re.escape(message)) as error:
        load_settings(write(tmp_path, yaml.safe_dump({"branches": branches})))
    assert str(error.value).startswith(f"{tmp_path}/mine.yaml: the setting ")


def test_an_unknown_task_is_refused_with_the_names_that_there_are(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"mine\.yaml: the task is unknown; found 'exp'; expected expr or va or au"):
        load_settings(write(tmp_path, "task: exp"))


@pytest.mark.parametrize(
    ("earlier", "now"),
    [
        ("model: {branches: [visual]}", {"visual": BranchSettings("rhcnn")}),
        (
            "model: {branches: [visual, audio], dropout: 0.2}\nloss: {n: 2}",
            {"visual": BranchSettings("rhcnn", weight=2)},
        ),
        (
            "loss: {m: 4, n: 2}",
            {"audio": BranchSettings("mcnn", weight=4), "visual": BranchSettings("rhcnn", weight=2)},
        ),
        ("model: {branches: [audio]}\nloss: {m: 5, n: 1}", {"audio": BranchSettings("mcnn", weight=5)}),
    ],
)
def test_what_an_earlier_version_wrote_is_read(earlier: str, now: dict[str, BranchSettings], tmp_path: Path) -> None:
    found = load_settings(write(tmp_path, earlier))
    both = {"audio": BranchSettings("mcnn"), **now} if "audio]" in earlier and "visual" in earlier else now
    assert [*found.branches.items()] == [*both.items()], "audio stands before visual, as it did"
    assert replace(found, branches=two_branches()) == Settings()


def test_settings_with_some_of_their_branches() -> None:
    settings = replace(Settings(), seed=4)
    assert settings.only(("visual",)) == replace(settings, branches={"visual": BranchSettings("rhcnn")})
    assert [*settings.only(("visual", "audio")).branches] == ["audio", "visual"]
    with pytest.raises(SettingsError, match="the branch is unknown; found 'vis'; expected audio or visual"):
        settings.only(("vis",))


def test_every_number_has_a_range() -> None:
    assert sorted(keys()) == sorted([*OUT_OF_RANGE, *UNRANGED])


@pytest.mark.parametrize(
    ("text", "message"),
    [("seed: [", r"mine\.yaml: is not YAML"), ("seed: 1\n\tdata: 2", r"mine\.yaml: is not YAML")],
)
def test_file_that_is_no_yaml_is_refused(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(SettingsError, match=message):
        load_settings(write(tmp_path, text))


def test_missing_file_is_refused_with_the_shipped_names(tmp_path: Path) -> None:
    with pytest.raises(
        SettingsError, match=r"none\.yaml: cannot be read .*one of: au, clip-adapter, clip-lstm, ddamfn, .*, va-tcn\."
    ):
        load_settings(tmp_path / "none.yaml")


CHANGES: dict[str, Any] = {
    "task": "va",
    "seed": 1,
    "precision": "bf16-mixed",
    "data.train_on": "both",
    "data.folds": 5,
    "augment.flip": False,
    "branches.encoder": "rhcnn",
    "branches.attention": "mecs",
    "branches.weights": "weights.pt",
    "branches.freeze": True,
    "branches.release": [3, 5],
    "branches.temporal": "lstm",
    "branches.streams": {"face": {"encoder": "rhcnn"}, "sound": {"encoder": "mcnn"}},
    "branches.join": "another",
    "branches.key_frames": True,
    "branches.norm": "batch",
    "branches.networks": "each",
    "branches.head": "cosine",
    "model.prompts": ["a", "b", "c", "d", "e", "f", "g", "h"],
    "model.text_encoder": "ViT-B-32",
    "model.text_weights": "clip.safetensors",
    "model.attention": False,
    "model.attention_place": "middle",
    "model.attention_groups": 4,
    "model.strips": "sequential",
    "model.dilations": [1, 2],
    "model.squared_gate": False,
    "model.mixing_groups": 4,
    "loss.quadrants": [1, 2, 2, 2, 1, 3, 1, 0],
    "loss.per_stretch": True,
    "optimiser.name": "adamw",
    "optimiser.schedule": "one-cycle",
    "augment.crop": 0.9,
}


STRETCHES = {"data": {"sequence": 2}}
NEEDED: dict[str, dict[str, Any]] = {
    "branches.temporal": STRETCHES,
    "branches.networks": {"task": "va"},
    "branches.release": nested("branches.freeze", True),
    "loss.per_stretch": {"task": "va", **STRETCHES},
    "data.fold": {"data": {"folds": 2}},
}
"""What a setting needs beside it."""


def merged(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both files' settings; where both have a group, the settings of both in it."""
    both = {name: first[name] | second[name] for name in first.keys() & second.keys() if isinstance(first[name], dict)}
    return first | second | both


def changed(key: str) -> Settings:
    """The defaults but for one setting, which has another good value."""
    group, _, name = key.rpartition(".")
    above: Any = getattr(Settings(), group) if group else Settings()
    default = getattr(above["audio"] if group == "branches" else above, name)
    other = default + 1 if type(default) is int else default / 2 + 0.01 if type(default) is float else None
    return settings_from(merged(NEEDED.get(key, {}), nested(key, CHANGES.get(key, other))))


@pytest.mark.parametrize("key", [key for key in keys() if not key.startswith("compute.")])
def test_signature_changes_with_every_setting(key: str) -> None:
    before = settings_from(NEEDED.get(key, {}))
    assert changed(key) != before
    assert signature(changed(key), "data") != signature(before, "data")


def test_signature_ignores_where_the_work_is_done() -> None:
    compute = ComputeSettings("cpu", devices=2, nodes=3, micro_batch=4, compile=True, workers=7, save_every=1.0)
    assert all(vars(compute)[name] != default for name, default in vars(ComputeSettings()).items())
    elsewhere = replace(Settings(), compute=compute)
    assert signature(elsewhere, "data") == signature(Settings(), "data")


def test_signature_changes_with_the_data() -> None:
    assert signature(Settings(), "data") != signature(Settings(), "other data")


@pytest.mark.parametrize(
    "settings",
    [
        Settings(),
        *(load_settings(recipe(name)) for name in SHIPPED),
        changed("branches.weight"),
        changed("branches.streams"),
    ],
)
def test_yaml_round_trip(tmp_path: Path, settings: Settings) -> None:
    path = tmp_path / "run/settings.yaml"
    save_settings(settings, path)
    assert load_settings(path) == settings
    assert signature(load_settings(path), "data") == signature(settings, "data")
    written = yaml.safe_load(path.read_text())
    assert written == dump_settings(settings)
    assert written.keys() == asdict(settings).keys()
    assert all(written[group].keys() == asdict(settings)[group].keys() for group in ("data", "loss", "compute"))
