"""Runs whose branch has one network for valence and one for arousal."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw_expr.data.store.store import Store, open_store
from abaw_expr.errors import RunError, StoppedError
from abaw_expr.settings import BranchSettings, DataSettings, ModelSettings
from abaw_expr.tasks.task import VA
from abaw_expr.training.checkpoint import load_checkpoint, save_tensors
from abaw_expr.training.predict import Wanted, predict
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import STEPS, assert_same_run, fit, metrics, next_second, send_at
from tests.helpers.networks import encoder
from tuning.features import cached_features

pytestmark = pytest.mark.slow  # trainings

PLAIN = ModelSettings(attention=False)
SETTINGS = replace(
    STEPS,
    task="va",
    model=PLAIN,
    data=DataSettings(stride=1.0, val_stride=1.0),
    branches={"voice": BranchSettings("mcnn", networks="each")},
    optimiser=replace(STEPS.optimiser, batch_size=8),
)


@pytest.fixture(scope="module")
def affect(store: Path) -> Store:
    return open_store(store, VA)


@pytest.fixture(scope="module")
def run(affect: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(affect, tmp_path_factory.mktemp("each") / "run", SETTINGS)


def test_a_run_predicts_both_columns(run: RunFolder, affect: Store) -> None:
    assert np.isfinite(metrics(run)[["ccc_valence", "ccc_arousal"]]).all(axis=None)
    video = affect.split("val")[0]
    wanted = [Wanted(video, np.arange(1, len(video.frames) + 1))]
    outputs = predict(run, affect, "val", wanted, 0, "cpu", "last", lambda done, total: None)
    numbers = outputs.branch("voice")
    assert numbers.shape == (len(video.frames), 2)
    assert not np.array_equal(numbers[:, 0], numbers[:, 1])


def test_it_resumes_to_the_bit(run: RunFolder, affect: Store, tmp_path: Path) -> None:
    at = int(metrics(run)["steps"][0]) + 1
    with pytest.raises(StoppedError):
        fit(affect, tmp_path / "run", SETTINGS, progress=send_at(at, signal.SIGTERM))
    next_second()
    assert_same_run(run, fit(affect, tmp_path / "run", SETTINGS, resume=True))


def test_a_file_of_weights_is_loaded_into_every_network(affect: Store, tmp_path: Path) -> None:
    """And frozen in every one."""
    torch.manual_seed(8)
    lent = encoder("mcnn", PLAIN).state_dict()
    save_tensors(tmp_path / "w.pt", lent)
    voice = replace(SETTINGS.branches["voice"], weights=str(tmp_path / "w.pt"), freeze=True)
    made = fit(affect, tmp_path / "run", replace(SETTINGS, branches={"voice": voice}))
    found = load_checkpoint(made.last).network
    for column in VA.columns:
        for key, tensor in lent.items():
            assert torch.equal(found[f"branches.voice.networks.{column}.streams.voice.encoder.{key}"], tensor), key


def test_another_run_may_begin_with_it(run: RunFolder, affect: Store, tmp_path: Path) -> None:
    still = replace(SETTINGS.optimiser, name="sgd", learning_rate=1e-30, branch_learning_rate=1e-30, epochs=1)
    settings = replace(SETTINGS, optimiser=replace(still, weight_decay=0.0, ema_decay=0.0))
    made = fit(affect, tmp_path / "run", settings, initial_weights=[run.root])
    begun, found = load_checkpoint(run.best).network, load_checkpoint(made.last).network
    parameters = [key for key in begun if "running" not in key and "num_batches" not in key]
    assert all(torch.equal(begun[key], found[key]) for key in parameters)


def test_its_heads_are_not_trained_by_themselves(run: RunFolder, affect: Store, tmp_path: Path) -> None:
    told = r"has a network for each column, so its heads cannot be trained by themselves; found 'voice'.*networks: one"
    with pytest.raises(RunError, match=told):
        cached_features(tmp_path / "f.pt", run, affect, 1.0, "cpu", lambda done, total: None)
