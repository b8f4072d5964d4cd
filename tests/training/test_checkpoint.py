"""Checkpoints: whole or refused, and a stranger's file runs no code."""

import pickle
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.errors import RunError
from abaw_expr.settings_file import save_settings
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import AUDIO, fit, opened

SAVED = Checkpoint(
    signature="abc",
    prior=[0.25, 0.75],
    history=[{"epoch": 1, "audio_f1": None}],
    step=3,
    loss=1.5,
    waiting=0.1,
    seconds=2.0,
    network={"w": torch.arange(3.0)},
    ema={"w": torch.ones(3)},
    optimiser={"state": {0: {"step": torch.tensor(4.0)}}},
)


class Evil:
    """Pickled, it makes a file when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("bare", [False, True], ids=["torch", "pickle"])
def test_a_checkpoint_cannot_run_code(bare: bool, tmp_path: Path) -> None:
    marker, path = tmp_path / "ran", tmp_path / "last.pt"
    content = {**vars(SAVED), "network": Evil(marker)}
    if bare:
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path)
    with pytest.raises(RunError, match=r"last\.pt: is not a checkpoint of this project"):
        load_checkpoint(path)
    assert not marker.exists()
    pickle.loads(path.read_bytes()) if bare else torch.load(path, weights_only=False)
    assert marker.exists(), "the test's own pickle does not do what it should"


def test_a_run_does_not_load_a_checkpoint_that_runs_code(store: Path, tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "run")
    save_settings(AUDIO, run.settings)
    run.last.parent.mkdir()
    torch.save({"network": Evil(tmp_path / "ran")}, run.last)
    with pytest.raises(RunError, match="is not a checkpoint of this project"):
        fit(opened(store), run.root, AUDIO, resume=True)
    assert not (tmp_path / "ran").exists()


@pytest.mark.filterwarnings("ignore:Detected pickle protocol")
@given(garbage=st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: b"\x80\x02" + tail))
@settings(max_examples=100)
def test_garbage_is_no_checkpoint(garbage: bytes, tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.getbasetemp() / "garbage.pt"
    path.write_bytes(garbage)
    with pytest.raises(RunError, match=r"garbage\.pt: is not a checkpoint of this project"):
        load_checkpoint(path)


def test_other_things_that_torch_saved_are_no_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    torch.save({"epoch": 1}, path)
    with pytest.raises(RunError, match="is not a checkpoint"):
        load_checkpoint(path)
    save_checkpoint(path, SAVED)
    path.write_bytes(path.read_bytes()[:-500])
    with pytest.raises(RunError, match="is not a checkpoint"):
        load_checkpoint(path)
    with pytest.raises(RunError, match=r"none\.pt: cannot be read"):
        load_checkpoint(tmp_path / "none.pt")


def test_a_checkpoint_comes_back_as_it_was(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "x.pt", SAVED)
    loaded = asdict(load_checkpoint(tmp_path / "x.pt"))
    expected = asdict(SAVED)
    for name, key in (("network", "w"), ("ema", "w")):
        assert torch.equal(loaded.pop(name)[key], expected.pop(name)[key])
    assert loaded == expected
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
