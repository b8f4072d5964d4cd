"""What happens to long runs: killed, stopped, out of numbers, of disk, of memory; and that nothing is lost by it."""

import os
import resource
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError, StoppedError
from abaw_expr.models.network import Network
from abaw_expr.settings import ComputeSettings, OptimiserSettings, two_branches
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.names import frame_name
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder
from tests.helpers.commands import command as forked
from tests.helpers.fitting import STEPS, assert_same_run, fit, metrics, next_second, opened, scalars, stopped_train
from tests.helpers.tiny import seal

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


EVERY_STEP = ["--compute.save-every", "0"]
BOTH = replace(STEPS, branches=two_branches())


@pytest.fixture(scope="module")
def undisturbed(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(corpus, tmp_path_factory.mktemp("survival") / "run", STEPS)


def command(store: Path, run: RunFolder) -> list[str]:
    """Arguments of `train` for a new run of `STEPS`, or of what is in the folder."""
    recipe = run.root.with_suffix(".yaml")
    save_settings(STEPS, recipe)
    return ["--store", str(store), "--run", str(run.root), "--settings", str(recipe), *EVERY_STEP]


# Killed


def test_a_killed_run_resumes_to_the_same_weights(corpus: Store, store: Path, tmp_path: Path) -> None:
    whole = fit(corpus, tmp_path / "whole", BOTH)
    killed, recipe = RunFolder(tmp_path / "killed"), tmp_path / "settings.yaml"
    save_settings(BOTH, recipe)
    steps = int(metrics(whole)["steps"].sum())
    saves = int(np.random.default_rng().integers(2, steps))
    arguments = ["train", "--store", str(store), "--run", str(killed.root), *EVERY_STEP]
    process = forked([*arguments, "--settings", recipe], tmp_path / "printed.txt")
    seen: set[int] = set()
    while len(seen) < saves and process.poll() is None:
        if killed.last.exists():
            seen.add(killed.last.stat().st_mtime_ns)
        time.sleep(0.002)
    process.kill()
    assert process.wait() == -signal.SIGKILL
    assert not killed.complete
    at = load_checkpoint(killed.last)
    next_second()
    assert main([*arguments, "--resume"]) == 0
    where = f"killed after {len(at.history)} epochs and {at.step} steps"
    assert_same_run(whole, killed)
    assert [step for step, _ in scalars(killed)] == list(range(steps)), where
    assert scalars(killed) == scalars(whole), where


# Stopped


@pytest.mark.parametrize(
    ("number", "status", "step"), [(signal.SIGTERM, 143, 3), (signal.SIGINT, 130, 6)], ids=["SIGTERM", "Ctrl-C"]
)
def test_a_stopped_run_is_saved_and_resumes_to_the_same_weights(
    number: int,
    status: int,
    step: int,
    undisturbed: RunFolder,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = command(store, run)[:-2]  # saved because of the signal, not because it was time to
    before = signal.getsignal(number)
    assert stopped_train(monkeypatch, step, arguments, number) == status
    assert signal.getsignal(number) is before
    text = capsys.readouterr().err
    assert f"{run.root}: was stopped; its state is saved. Resume it with --resume." in text
    assert "Traceback" not in text
    checkpoint = load_checkpoint(run.last)
    assert sum(epoch["steps"] for epoch in checkpoint.history) + checkpoint.step == step
    assert checkpoint.step > 0, "in the middle of an epoch"
    assert not run.complete
    assert main(["train", *arguments, "--resume"]) == 0
    assert_same_run(undisturbed, run)
    assert scalars(run) == scalars(undisturbed)


def test_a_second_signal_is_obeyed_at_once(corpus: Store, tmp_path: Path) -> None:
    def twice(done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(KeyboardInterrupt):
        fit(corpus, tmp_path / "run", STEPS, progress=twice)
    assert not RunFolder(tmp_path / "run").last.exists()


def test_a_second_sigterm_changes_nothing(corpus: Store, tmp_path: Path) -> None:
    def twice(done: int, total: int) -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError) as stopped:
        fit(corpus, tmp_path / "run", STEPS, progress=twice)
    assert stopped.value.signal == signal.SIGTERM
    assert load_checkpoint(RunFolder(tmp_path / "run").last).step == 1


# No number


def with_broken_sound(store: Path, root: Path) -> Store:
    """A copy of the store in which one training recording's sound is no number after its second second."""
    shutil.copytree(store, root)
    broken = opened(root)
    video = broken.split("train")[0]
    audio = np.load(video.folder / "sound.npy")
    audio[125:] = np.nan
    np.save(video.folder / "sound.npy", audio)
    seal(root)
    return opened(root)


def test_a_loss_that_is_no_number_names_and_saves_its_batch(store: Path, tmp_path: Path) -> None:
    broken, run = with_broken_sound(store, tmp_path / "store"), RunFolder(tmp_path / "run")
    settings = replace(STEPS, compute=replace(STEPS.compute, save_every=0.0))
    with pytest.raises(
        RunError, match=r"bad-batch\.pt: the loss of step \d of epoch 1 is nan; found 'a batch of"
    ) as no:
        fit(broken, run.root, settings)
    bad = torch.load(run.bad_batch, weights_only=True)
    assert f"the loss of step {bad['step'] + 1} of epoch 1 " in str(no.value)
    assert f"a batch of {bad['frames'][0]}, {bad['frames'][1]} and 2 more" in str(no.value)
    assert "lower the learning rate" in str(no.value)
    (part,) = bad["parts"]
    train = broken.split("train")
    names = [frame_name(video.name, row + 1) for video in train for row in range(len(video.frames))]
    assert bad["frames"] == [names[place] for place in part["index"]]
    assert part["inputs"]["audio"].isnan().any()
    assert train[0].name in {name.split("/")[0] for name in bad["frames"]}
    last = load_checkpoint(run.last)
    assert last.step == bad["step"], "the last checkpoint is the one before that batch"
    assert all(tensor.isfinite().all() for tensor in last.network.values())
    assert not run.complete


def test_a_learning_rate_that_is_too_high_ends_the_run(corpus: Store, tmp_path: Path) -> None:
    wild = replace(STEPS, optimiser=OptimiserSettings("sgd", 1e30, 1e30, epochs=1, batch_size=4))
    with pytest.raises(RunError, match=r"the loss of step \d of epoch 1 is (nan|inf).*lower the learning rate"):
        fit(corpus, tmp_path / "run", wild)
    assert not RunFolder(tmp_path / "run").complete
    assert not RunFolder(tmp_path / "run").last.exists()
    assert RunFolder(tmp_path / "run").bad_batch.exists()


# No room


def test_a_full_disk_leaves_the_checkpoint_before_it(
    undisturbed: RunFolder,
    store: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run = RunFolder(tmp_path / "run")
    arguments = command(store, run)
    assert stopped_train(monkeypatch, 3, arguments) == 143
    before = run.last.read_bytes()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    capsys.readouterr()
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) // 2, hard))  # as a full disk: the write fails midway
        assert main(["train", *arguments, "--resume"]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    text = capsys.readouterr().err
    assert f"{run.last}: File too large. Nothing was left half-written." in text
    assert "Traceback" not in text
    assert run.last.read_bytes() == before
    assert [path.name for path in run.last.parent.iterdir()] == ["last.pt"]
    assert main(["train", *arguments, "--resume"]) == 0
    assert_same_run(undisturbed, run)


@pytest.mark.parametrize("part", [0, 2])
def test_out_of_memory_says_which_setting_to_lower(
    part: int, corpus: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forward(*inputs: object, **named: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB")

    monkeypatch.setattr(Network, "forward", forward)
    settings = replace(STEPS, compute=ComputeSettings("cpu", micro_batch=part))
    with pytest.raises(
        RunError, match=f"out of memory. Lower --compute.micro-batch .{part or 4} samples at a time are too"
    ):
        fit(corpus, tmp_path / "run", settings)
