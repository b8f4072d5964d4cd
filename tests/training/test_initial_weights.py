"""A run with initial weights of other runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError
from abaw_expr.files import read_json
from abaw_expr.models.network import build_network
from abaw_expr.settings import ModelSettings, OptimiserSettings, Settings, save_settings, signature
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.run import RunFolder
from tests.helpers.fitting import AUDIO, SETTINGS, STEPS, assert_same_run, fit, stopped_train
from tuning.features import cached_features

pytestmark = pytest.mark.slow  # trainings, processes, or a release of many videos


STILL = replace(SETTINGS, optimiser=OptimiserSettings("sgd", 1e-30, 1e-30, momentum=0.0, epochs=1, batch_size=64))
"""Both branches, one epoch that moves nothing but the statistics of BN."""


@pytest.fixture(scope="module")
def audio(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(corpus, tmp_path_factory.mktemp("starting") / "audio", AUDIO)


def assert_begun(last: Mapping[str, Tensor], begun: Mapping[str, Tensor], settings: Settings) -> None:
    """Where nothing is learnt, all weights are those that were begun with."""
    for name, _ in build_network(settings.model, EXPR.n_columns).named_parameters():
        assert torch.allclose(last[name], begun[name], rtol=0.0, atol=1e-20), name


def test_the_branch_of_another_run_is_taken_and_the_other_drawn_from_the_seed(
    corpus: Store, audio: RunFolder, tmp_path: Path
) -> None:
    made = fit(corpus, tmp_path / "run", STILL, initial_weights=[audio.root])
    last, lent = load_checkpoint(made.last).network, load_checkpoint(audio.best).network
    torch.manual_seed(STILL.seed)
    drawn = build_network(STILL.model, EXPR.n_columns).state_dict()
    assert_begun(last, {name: (lent if "audio" in name else drawn)[name] for name in drawn}, STILL)


def test_two_runs_lend_a_branch_each(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    pictures = replace(AUDIO, model=ModelSettings(branches=("visual",)), seed=5)
    visual = fit(corpus, tmp_path / "visual", pictures)
    made = fit(corpus, tmp_path / "run", STILL, initial_weights=[audio.root, visual.last])
    last = load_checkpoint(made.last).network
    lent = load_checkpoint(audio.best).network | load_checkpoint(visual.last).network
    assert_begun(last, lent, STILL)


def test_the_moving_mean_of_a_run_is_what_it_lends(corpus: Store, tmp_path: Path) -> None:
    lender = load_checkpoint(fit(corpus, tmp_path / "lender", STEPS).last)
    made = fit(
        corpus,
        tmp_path / "run",
        replace(STILL, model=AUDIO.model),
        initial_weights=[tmp_path / "lender/checkpoints/last.pt"],
    )
    last = load_checkpoint(made.last).network
    assert_begun(last, lender.ema, AUDIO)


def test_what_it_begins_with_is_part_of_its_identity(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    made = fit(corpus, tmp_path / "run", AUDIO, initial_weights=[audio.root])
    found = read_json(made.manifest, RunError, "")["signature"]
    assert found == load_checkpoint(made.last).signature == made.identity(AUDIO, corpus.digest)
    assert found != signature(AUDIO, corpus.digest) == audio.identity(AUDIO, corpus.digest)
    features = cached_features(tmp_path / "f.pt", made, corpus, EXPR, 1.0, "cpu", lambda done, total: None)
    assert features.key["run"] == found


def test_it_is_resumed_as_if_nothing_had_happened(
    corpus: Store, store: Path, audio: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = fit(corpus, tmp_path / "whole", STEPS, initial_weights=[audio.root])
    save_settings(STEPS, tmp_path / "steps.yaml")
    where = ["--store", store, "--run", tmp_path / "cut"]
    new = [*where, "--settings", tmp_path / "steps.yaml", "--initial-weights", audio.root]
    assert stopped_train(monkeypatch, 3, new) == 143
    assert main(["train", *map(str, where), "--resume"]) == 0
    assert_same_run(whole, RunFolder(tmp_path / "cut"))


def test_a_run_killed_before_its_first_checkpoint_keeps_what_it_began_with_if_resumed(
    corpus: Store, audio: RunFolder, tmp_path: Path
) -> None:
    run = fit(corpus, tmp_path / "run", AUDIO, initial_weights=[audio.root])
    begun = run.initial_weights.read_bytes()
    for path in (run.last, run.best, run.metrics, run.curves, run.manifest):
        path.unlink()
    assert fit(corpus, run.root, AUDIO, resume=True, initial_weights=[]).initial_weights.read_bytes() == begun
    for path in (run.last, run.best, run.metrics, run.curves, run.manifest):
        path.unlink()
    assert not fit(corpus, run.root, AUDIO, initial_weights=[]).initial_weights.exists()


def test_resuming_with_the_same_start_is_fine_and_with_another_is_not(
    corpus: Store, audio: RunFolder, tmp_path: Path
) -> None:
    run = fit(corpus, tmp_path / "run", AUDIO, initial_weights=[audio.root])
    fit(corpus, run.root, AUDIO, resume=True, initial_weights=[audio.root])
    with pytest.raises(RunError, match=r"was started with other initial weights\. Resume without --initial"):
        fit(corpus, run.root, AUDIO, resume=True, initial_weights=[run.root])
    with pytest.raises(RunError, match="was started with other initial weights"):
        fit(corpus, audio.root, AUDIO, resume=True, initial_weights=[run.root])


def test_starts_that_do_not_fit(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pictures = replace(AUDIO, model=ModelSettings(branches=("visual",)))
    grouped = replace(AUDIO, model=replace(AUDIO.model, attention_groups=4))
    for settings, start, message in (
        (AUDIO, [tmp_path / "none"], r"none: cannot be read"),
        (AUDIO, [tmp_path / "empty"], r"best.pt: cannot be read"),
        (AUDIO, [audio.settings], r"settings.yaml: is not a checkpoint"),
        (AUDIO, [audio.root, audio.last], r"last.pt: has the branch audio, which another source of initial weights"),
        (pictures, [audio.root], r"best.pt: has no branch that this run trains.*; expected a run of visual"),
        (grouped, [audio.root], r"best.pt: has other layers than this run.*Give the settings under `model`"),
    ):
        with pytest.raises(RunError, match=message):
            fit(corpus, tmp_path / "run", settings, initial_weights=start)
    assert not (tmp_path / "run" / "checkpoints").exists()
