"""What a run can be watched by: TensorBoard's events, each once, and the picture of its curves."""

import signal
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from abaw_expr.errors import StoppedError
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.monitoring import plot_curves
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import STEPS, fit, made_epoch, metrics, next_second, opened, scalars, send_at

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


@pytest.fixture(scope="module")
def run(store: Path, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three epochs, stopped after every few steps: in the middle of epochs, and at the end of one."""
    corpus, root = opened(store), tmp_path_factory.mktemp("watch") / "run"
    settings = replace(STEPS, optimiser=replace(STEPS.optimiser, epochs=3, batch_size=8))
    first = 3  # steps of the first epoch
    for number, step in enumerate((1, first, first + 1)):
        with pytest.raises(StoppedError):
            fit(corpus, root, settings, resume=number > 0, progress=send_at(step, signal.SIGTERM))
        next_second()
    return fit(corpus, root, settings, resume=True, curves=True)


def test_every_step_is_there_once_with_its_loss(run: RunFolder) -> None:
    events, table = scalars(run), metrics(run)
    assert [step for step, _ in events] == list(range(table["steps"].sum()))
    losses = [loss for _, loss in events]
    assert np.isfinite(losses).all()
    first = table["steps"][0]
    assert min(losses[:first]) <= table["train_loss"][0] <= max(losses[:first])


@pytest.mark.parametrize("name", ["fused_f1", "audio_f1", "val_loss", "learning_rate", "f1_Other", "waiting"])
def test_every_epoch_is_there_once_with_its_row(name: str, run: RunFolder) -> None:
    events, table = scalars(run, f"epoch/{name}"), metrics(run)
    assert [value for _, value in events] == pytest.approx(table[name].tolist(), rel=1e-6)
    assert [step for step, _ in events] == (table["steps"].cumsum() - 1).tolist()


def test_a_branch_that_is_not_trained_has_no_events(run: RunFolder) -> None:
    with pytest.raises(KeyError):
        scalars(run, "epoch/visual_f1")


def test_the_curves_are_a_picture(run: RunFolder) -> None:
    with Image.open(run.curves) as picture:
        assert picture.format == "PNG"
        pixels = np.asarray(picture.convert("RGB"))
    assert pixels.shape[0] > 300
    assert pixels.shape[1] > 1000
    assert len(np.unique(pixels.reshape(-1, 3), axis=0)) > EXPR.n_columns, "a line a class"


def test_curves_that_differ_look_different(tmp_path: Path) -> None:
    def drawn(f1: float) -> bytes:
        row = made_epoch(1, f1)
        plot_curves([row, replace(row, epoch=2, train_loss=1.5)], EXPR, tmp_path / "curves.png")
        return (tmp_path / "curves.png").read_bytes()

    assert drawn(0.2) == drawn(0.2)
    assert drawn(0.2) != drawn(0.7)
