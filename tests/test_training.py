"""A training run: repeatable, resumable, refusing what is not its own, and telling what it did."""

import math
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from abaw_expr.cli import main
from abaw_expr.data.store import Store, open_store
from abaw_expr.data.windows import FrameIndex
from abaw_expr.errors import RunError, StoreError
from abaw_expr.files import read_json
from abaw_expr.models.gcsa import GCSA
from abaw_expr.models.network import build_network
from abaw_expr.settings import (
    ComputeSettings,
    DataSettings,
    ModelSettings,
    OptimiserSettings,
    Settings,
    save_settings,
    signature,
)
from abaw_expr.tasks import EXPR
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abaw_expr.training.loop import (
    Frames,
    build_optimiser,
    class_shares,
    class_weights,
    draw_epoch,
    one_cycle,
    set_learning_rates,
    train,
)
from abaw_expr.training.run import Epoch, RunFolder

torch.set_num_threads(1)

SETTINGS = Settings(
    precision="32-true",
    data=DataSettings(interval=0.6, val_interval=1.0, balance=0.5),
    optimiser=OptimiserSettings("adamw", 1e-3, 1e-3, weight_decay=0.05, schedule="one-cycle", epochs=3, batch_size=16),
    compute=ComputeSettings(accelerator="cpu"),
)
AUDIO = replace(
    SETTINGS,
    model=ModelSettings(branches=("audio",)),
    data=replace(SETTINGS.data, interval=1.0),
    optimiser=replace(SETTINGS.optimiser, epochs=1),
)
TIMINGS = ["waiting", "seconds"]


def fit(
    store: Store,
    root: Path,
    settings: Settings = SETTINGS,
    resume: bool = False,
    on_epoch: Callable[[Epoch], None] = lambda epoch: None,
) -> RunFolder:
    run = RunFolder(root)
    train(store, run, settings, EXPR, resume, on_epoch, lambda done, total: None)
    return run


def metrics(run: RunFolder) -> pd.DataFrame:
    return pd.read_csv(run.metrics)


def assert_same_weights(one: Path, other: Path) -> None:
    """Bit for bit, the optimiser's state too."""
    first, second = load_checkpoint(one), load_checkpoint(other)
    assert first.network.keys() == second.network.keys()
    for name, tensor in first.network.items():
        assert torch.equal(tensor, second.network[name]), name
    states, others = first.optimiser.get("state", {}), second.optimiser.get("state", {})
    assert states.keys() == others.keys()
    for key, state in states.items():
        for name, value in state.items():
            assert torch.equal(value, others[key][name]), (key, name)


def assert_same_run(one: RunFolder, other: RunFolder) -> None:
    assert_same_weights(one.last, other.last)
    assert_same_weights(one.best, other.best)
    pd.testing.assert_frame_equal(metrics(one).drop(columns=TIMINGS), metrics(other).drop(columns=TIMINGS))


@pytest.fixture(scope="module")
def opened(store: Path) -> Store:
    return open_store(store, EXPR)


@pytest.fixture(scope="module")
def run(opened: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Both branches, three epochs, undisturbed."""
    return fit(opened, tmp_path_factory.mktemp("training") / "run")


@pytest.fixture(scope="module")
def audio(opened: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(opened, tmp_path_factory.mktemp("training") / "audio", AUDIO)


# What a run leaves


def test_metrics_have_a_row_an_epoch(run: RunFolder) -> None:
    table = metrics(run)
    assert table["epoch"].tolist() == [1, 2, 3]
    scores = table[["audio_f1", "visual_f1", "fused_f1"]]
    assert ((scores >= 0) & (scores <= 1)).all(axis=None)
    assert (table[["train_loss", "val_loss", "seconds"]] > 0).all(axis=None)
    assert table["waiting"].between(0, 1).all()
    assert table.to_dict("records") == load_checkpoint(run.last).history


def test_loss_goes_down(run: RunFolder) -> None:
    loss = metrics(run)["train_loss"]
    assert loss.iloc[-1] < loss.iloc[0]


def test_best_and_last_checkpoint(run: RunFolder, opened: Store) -> None:
    table, last, best = metrics(run), load_checkpoint(run.last), load_checkpoint(run.best)
    assert last.epoch == 3
    assert best.epoch == table["epoch"][table["fused_f1"] == table["fused_f1"].max()].max()
    assert last.signature == best.signature == signature(SETTINGS, opened.digest)
    assert last.optimiser
    assert not best.optimiser


def test_the_manifest_comes_last_and_sums_up(run: RunFolder, opened: Store) -> None:
    manifest = read_json(run.manifest, RunError, "")
    assert manifest["epochs"] == 3
    assert manifest["signature"] == signature(SETTINGS, opened.digest)
    assert manifest["store"] == opened.digest
    best = metrics(run).set_index("epoch").loc[load_checkpoint(run.best).epoch]
    assert manifest["best"]["fused_f1"] == best["fused_f1"]
    others = [path for path in run.root.rglob("*") if path.is_file() and path != run.manifest]
    assert {path.name for path in others} == {"settings.yaml", "metrics.csv", "last.pt", "best.pt"}
    assert run.manifest.stat().st_mtime_ns >= max(path.stat().st_mtime_ns for path in others)


def test_a_run_that_goes_on_is_not_complete(opened: Store, tmp_path: Path) -> None:
    seen: list[bool] = []
    run = fit(opened, tmp_path / "run", AUDIO, on_epoch=lambda epoch: seen.append(RunFolder(tmp_path / "run").complete))
    assert seen == [False]
    assert run.complete


@pytest.mark.parametrize("branch", ["audio", "visual"])
def test_one_branch_alone(branch: str, opened: Store, tmp_path: Path) -> None:
    run = fit(opened, tmp_path / "run", replace(AUDIO, model=ModelSettings(branches=(branch,))))
    table, other = metrics(run), {"audio": "visual", "visual": "audio"}[branch]
    assert table[f"{other}_f1"].isna().all()
    assert table["fused_f1"].equals(table[f"{branch}_f1"])
    assert {name.split(".")[1] for name in load_checkpoint(run.last).network} == {branch}


def test_the_settings_of_a_run_are_written_resolved(run: RunFolder) -> None:
    assert run.load_settings() == SETTINGS


# Repeatable


def test_a_seed_makes_two_runs_identical(run: RunFolder, opened: Store, tmp_path: Path) -> None:
    torch.rand(5)  # whatever the global state, the seed decides
    assert_same_run(run, fit(opened, tmp_path / "twin"))


def test_another_seed_makes_another_run(audio: RunFolder, opened: Store, tmp_path: Path) -> None:
    other = load_checkpoint(fit(opened, tmp_path / "run", replace(AUDIO, seed=1)).last)
    weight = "branches.audio.head.1.weight"
    assert not torch.equal(other.network[weight], load_checkpoint(audio.last).network[weight])


def test_worker_processes_change_nothing(audio: RunFolder, opened: Store, tmp_path: Path) -> None:
    assert_same_run(audio, fit(opened, tmp_path / "run", replace(AUDIO, compute=ComputeSettings("cpu", workers=1))))


def test_a_killed_run_resumes_to_the_same_weights(run: RunFolder, store: Path, tmp_path: Path) -> None:
    killed, recipe = RunFolder(tmp_path / "run"), tmp_path / "settings.yaml"
    save_settings(SETTINGS, recipe)
    command = ["train", "--store", str(store), "--run", str(killed.root)]
    process = subprocess.Popen(
        [sys.executable, "-m", "abaw_expr", *command, "--settings", str(recipe)],
        cwd=Path(__file__).parent.parent,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stderr=subprocess.DEVNULL,
    )
    while not killed.last.exists() and process.poll() is None:
        time.sleep(0.01)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not killed.complete
    assert 1 <= len(metrics(killed)) < 3
    assert main([*command, "--resume"]) == 0
    assert_same_run(run, killed)


def test_a_complete_run_is_left_as_it_is(run: RunFolder, opened: Store) -> None:
    files = sorted(path for path in run.root.rglob("*") if path.is_file())
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in files]
    epochs: list[Epoch] = []
    fit(opened, run.root, resume=True, on_epoch=epochs.append)
    assert epochs == []
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in files] == before


# Refusals


def test_a_folder_with_a_run_needs_resume(audio: RunFolder, opened: Store) -> None:
    with pytest.raises(RunError, match=f"{audio.root}: holds a run already.*--resume"):
        fit(opened, audio.root, AUDIO)


@pytest.mark.parametrize(
    "other",
    [
        replace(AUDIO, seed=1),
        replace(AUDIO, optimiser=replace(AUDIO.optimiser, epochs=2)),
        replace(AUDIO, model=ModelSettings(branches=("visual",))),
    ],
    ids=["seed", "epochs", "branches"],
)
def test_resuming_with_other_settings_is_refused(other: Settings, audio: RunFolder, opened: Store) -> None:
    with pytest.raises(RunError, match=r"settings\.yaml: holds a run of other settings"):
        fit(opened, audio.root, other, resume=True)


def test_resuming_on_another_store_is_refused(audio: RunFolder, opened: Store) -> None:
    with pytest.raises(RunError, match=r"last\.pt: is of another run or another store"):
        fit(replace(opened, digest="another"), audio.root, AUDIO, resume=True)


def test_resuming_elsewhere_is_no_other_run(audio: RunFolder, opened: Store) -> None:
    fit(opened, audio.root, replace(AUDIO, compute=ComputeSettings("auto", workers=3)), resume=True)


@pytest.mark.parametrize(("batch_size", "kind"), [(4, "training"), (1000, "validation")])
def test_a_loss_that_is_no_number_ends_the_run(batch_size: int, kind: str, opened: Store, tmp_path: Path) -> None:
    # With one step an epoch the training loss is the initial one; only validation sees what the step did.
    wild = OptimiserSettings("sgd", 1e30, 1e30, epochs=1, batch_size=batch_size)
    with pytest.raises(RunError, match=f"the {kind} loss of epoch 1 is (nan|inf).*Lower the learning rate"):
        fit(opened, tmp_path / "run", replace(AUDIO, optimiser=wild))
    assert not RunFolder(tmp_path / "run").complete
    assert not RunFolder(tmp_path / "run").last.exists()


def test_a_store_without_validation_frames_is_refused(opened: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="holds no val video"):
        fit(replace(opened, videos=opened.split("train")), tmp_path / "a", AUDIO)
    unlabelled = tuple(replace(video, split="val") for video in opened.split("test"))
    with pytest.raises(StoreError, match="has no annotated val frame with audio input"):
        fit(replace(opened, videos=opened.split("train") + unlabelled), tmp_path / "b", AUDIO)


# Checkpoints


class Evil:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_a_checkpoint_cannot_run_code(bare: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "last.pt"
    content = {**vars(Checkpoint(1, "x", [], {}, {}, [])), "network": Evil(marker)}
    if bare:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(RunError, match=r"last\.pt: is not a checkpoint of this project"):
        load_checkpoint(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes()) if bare else torch.load(path, weights_only=False)
    assert marker.exists(), "the test's own pickle does not do what it should"


def test_a_run_does_not_load_a_checkpoint_that_runs_code(audio: RunFolder, opened: Store, tmp_path: Path) -> None:
    copy = RunFolder(tmp_path / "run")
    save_settings(AUDIO, copy.settings)
    copy.last.parent.mkdir()
    torch.save({"network": Evil(tmp_path / "ran")}, copy.last)
    with pytest.raises(RunError, match="is not a checkpoint of this project"):
        fit(opened, copy.root, AUDIO, resume=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(garbage=st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail))
@settings(max_examples=100)
def test_garbage_is_no_checkpoint(garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.pt"
    path.write_bytes(garbage)
    with pytest.raises(RunError, match=r"garbage\.pt: is not a checkpoint of this project"):
        load_checkpoint(path)


def test_other_things_that_torch_saved_are_no_checkpoint(audio: RunFolder, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"epoch": 1}, path)
    with pytest.raises(RunError, match="is not a checkpoint"):
        load_checkpoint(path)
    path.write_bytes(audio.last.read_bytes()[:-1000])
    with pytest.raises(RunError, match="is not a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(RunError, match=r"none\.pt: cannot be read"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    saved = Checkpoint(2, "abc", [0.5, 0.5], {"w": torch.arange(3.0)}, {"state": {}}, [{"epoch": 1, "audio_f1": None}])
    save_checkpoint(tmp_path / "x.pt", saved)
    loaded = asdict(load_checkpoint(tmp_path / "x.pt"))
    assert torch.equal(loaded.pop("network")["w"], torch.arange(3.0))
    assert loaded == {key: value for key, value in asdict(saved).items() if key != "network"}


# Learning rates


def test_one_cycle_goes_up_and_down_by_half_cosines() -> None:
    shares = [0.0, 0.075, 0.15, 0.3, 0.65, 1.0]
    quarter = (1 - 2**-0.5) / 2  # of half a cosine, a quarter of the way
    expected = [0.04, 0.04 + 0.96 * quarter, 0.52, 1.0, 0.50005, 1e-4]
    assert [one_cycle(share) for share in shares] == pytest.approx(expected)


def test_learning_rates_follow_the_schedule_from_their_own_peaks() -> None:
    chosen = OptimiserSettings("sgd", 1e-4, 1e-3, schedule="one-cycle")
    optimiser = build_optimiser(build_network(ModelSettings(), 8), chosen)
    set_learning_rates(optimiser, chosen, 0.15)
    assert {round(group["lr"], 9) for group in optimiser.param_groups} == {5.2e-5, 5.2e-4}
    set_learning_rates(optimiser, replace(chosen, schedule="constant"), 0.15)
    assert {group["lr"] for group in optimiser.param_groups} == {1e-4, 1e-3}


def test_metrics_tell_the_learning_rate_of_the_last_step(run: RunFolder, opened: Store) -> None:
    frames = frames_of(opened)
    for epoch, rate in enumerate(metrics(run)["learning_rate"]):
        steps = math.ceil(len(draw_epoch(frames, SETTINGS, np.ones(8), epoch + 1)) / 16)
        assert rate == pytest.approx(1e-3 * one_cycle((epoch + (steps - 1) / steps) / 3))


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_every_parameter_is_in_the_group_it_belongs_to(name: str) -> None:
    network = build_network(ModelSettings(), 8)
    chosen = OptimiserSettings(name, 1e-4, 1e-3, momentum=0.9, weight_decay=0.05)  # type: ignore[arg-type]
    found: dict[int, tuple[float, float]] = {}
    for group in build_optimiser(network, chosen).param_groups:
        assert name == "adamw" or group["momentum"] == 0.9
        for parameter in group["params"]:
            assert id(parameter) not in found
            found[id(parameter)] = group["lr"], group["weight_decay"]
    attention = [prefix for prefix, module in network.named_modules() if isinstance(module, GCSA)]
    assert len(attention) == 2
    for path, parameter in network.named_parameters():
        owner = network.get_submodule(path.rpartition(".")[0])
        slow = ".head." in path or any(path.startswith(f"{prefix}.") for prefix in attention)
        decays = path.endswith(".weight") and not isinstance(owner, nn.BatchNorm2d)
        assert found.pop(id(parameter)) == (1e-4 if slow else 1e-3, 0.05 if decays else 0.0), path
    assert not found


# Which frames are drawn


def frames_of(opened: Store) -> Frames:
    index = FrameIndex(opened.split("train"))
    return Frames(index, (index.label >= 0) & index.present(("audio", "visual")))


def test_class_weights_are_powers_of_counts() -> None:
    labels = np.repeat([0, 1, 7], [9, 4, 1])
    for balance, expected in ((0.0, [1, 1, 1]), (0.5, [1 / 3, 1 / 2, 1]), (1.0, [1 / 9, 1 / 4, 1])):
        weights = class_weights(labels, balance, EXPR)
        assert weights[[0, 1, 7]] == pytest.approx(expected)
        assert not weights[2:7].any(), "a class that is not there is not drawn"


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_the_prior_is_the_share_of_classes_that_training_draws(balance: float, opened: Store) -> None:
    frames = frames_of(opened)
    labels = frames.index.label[frames.usable]
    counts = np.bincount(labels, minlength=8).astype(float)
    expected = np.where(counts > 0, counts ** (1 - balance), 0) / (counts[counts > 0] ** (1 - balance)).sum()
    weights = class_weights(labels, balance, EXPR)
    assert class_shares(frames, weights, EXPR) == pytest.approx(expected)
    chosen = replace(SETTINGS, data=DataSettings(interval=0.0, balance=balance))
    drawn = [place for epoch in range(20) for place, _ in draw_epoch(frames, chosen, weights, epoch)]
    shares = np.bincount(frames.index.label[drawn], minlength=8) / len(drawn)
    assert shares == pytest.approx(expected, abs=0.03)


def test_the_run_keeps_its_prior(run: RunFolder, opened: Store) -> None:
    frames = frames_of(opened)
    weights = class_weights(frames.index.label[frames.usable], 0.5, EXPR)
    assert load_checkpoint(run.best).prior == class_shares(frames, weights, EXPR)


def test_an_epoch_takes_every_usable_frame_once_at_interval_0(opened: Store) -> None:
    frames = frames_of(opened)
    draws = draw_epoch(frames, replace(SETTINGS, data=DataSettings(interval=0.0)), np.ones(8), 1)
    places = [place for place, _ in draws]
    assert sorted(places) == np.flatnonzero(frames.usable).tolist()
    assert places != sorted(places)
    assert len({seed for _, seed in draws}) == len(draws)


def test_an_epoch_takes_one_frame_an_interval_of_a_moving_grid(opened: Store) -> None:
    frames = frames_of(opened)
    chosen = replace(SETTINGS, data=DataSettings(interval=1.0))
    epochs = [sorted(place for place, _ in draw_epoch(frames, chosen, np.ones(8), epoch)) for epoch in range(1, 9)]
    for places in epochs:
        assert frames.usable[places].all()
        for video in range(len(frames.index.videos)):
            times = frames.index.time[[place for place in places if frames.index.video[place] == video]]
            end = frames.index.time[frames.index.video == video][-1]
            assert 1 <= len(times) <= end + 2
            assert (times[2:] - times[:-2] > 1).all()  # cells of a second: from one to the next but one is more
    assert len({tuple(places) for places in epochs}) > 1
    assert draw_epoch(frames, chosen, np.ones(8), 1) == draw_epoch(frames, chosen, np.ones(8), 1)
