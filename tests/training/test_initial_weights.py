"""A run with initial weights of other runs."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import Store
from abaw_expr.errors import RunError
from abaw_expr.files import file_digest, read_json
from abaw_expr.models.encoders.encoder import Encoder
from abaw_expr.models.encoders.gcsa import GCSA
from abaw_expr.models.encoders.registry import ENCODERS
from abaw_expr.models.network import build_network
from abaw_expr.settings import BranchSettings, OptimiserSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, load_tensors, save_checkpoint, save_tensors
from abaw_expr.training.initial_weights import trained_weights
from abaw_expr.training.predict import load_network
from abaw_expr.training.run import RunFolder
from abaw_expr.training.signature import signature
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
    for name, _ in build_network(settings).named_parameters():
        assert torch.allclose(last[name], begun[name], rtol=0.0, atol=1e-20), name


def test_the_branch_of_another_run_is_taken_and_the_other_drawn_from_the_seed(
    corpus: Store, audio: RunFolder, tmp_path: Path
) -> None:
    made = fit(corpus, tmp_path / "run", STILL, initial_weights=[audio.root])
    last, lent = load_checkpoint(made.last).network, load_checkpoint(audio.best).network
    torch.manual_seed(STILL.seed)
    drawn = build_network(STILL).state_dict()
    assert_begun(last, {name: (lent if "audio" in name else drawn)[name] for name in drawn}, STILL)


def test_two_runs_lend_a_branch_each(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    pictures = replace(SETTINGS.only(("visual",)), optimiser=AUDIO.optimiser, seed=5)
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
        STILL.only(("audio",)),
        initial_weights=[tmp_path / "lender/checkpoints/last.pt"],
    )
    last = load_checkpoint(made.last).network
    assert_begun(last, lender.ema, AUDIO)


def test_what_it_begins_with_is_part_of_its_identity(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    made = fit(corpus, tmp_path / "run", AUDIO, initial_weights=[audio.root])
    found = read_json(made.manifest, RunError, "")["signature"]
    assert found == load_checkpoint(made.last).signature == made.identity(AUDIO, corpus.digest)
    assert found != signature(AUDIO, corpus.digest) == audio.identity(AUDIO, corpus.digest)
    features = cached_features(tmp_path / "f.pt", made, corpus, 1.0, "cpu", lambda done, total: None)
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


# Checkpoints of earlier versions


def as_earlier(checkpoint: Checkpoint) -> Checkpoint:
    """With the keys that it had when a branch was its only stream."""

    def named(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {key.replace(".streams.audio.encoder.", ".encoder."): tensor for key, tensor in weights.items()}

    return replace(checkpoint, network=named(checkpoint.network), ema=named(checkpoint.ema))


@pytest.mark.parametrize("settings", [AUDIO, STEPS], ids=["plain", "moving mean"])
def test_a_checkpoint_of_an_earlier_version_lends_and_predicts(
    settings: Settings, corpus: Store, tmp_path: Path
) -> None:
    run = fit(corpus, tmp_path / "lender", settings)
    now = load_checkpoint(run.last)
    earlier = as_earlier(now)
    keys = {*earlier.network, *earlier.ema}
    assert "branches.audio.encoder.temporal.0.0.0.weight" in keys
    assert not any(".streams." in key for key in keys)
    save_checkpoint(tmp_path / "earlier.pt", earlier)
    fits = load_network(tmp_path / "earlier.pt", settings, earlier)
    trained = trained_weights(now)
    assert fits.state_dict().keys() == trained.keys()
    assert all(tensor.equal(trained[key]) for key, tensor in fits.state_dict().items())
    made = fit(corpus, tmp_path / "run", STILL.only(("audio",)), initial_weights=[tmp_path / "earlier.pt"])
    assert_begun(load_checkpoint(made.last).network, trained, AUDIO)
    kept = load_tensors(made.initial_weights)
    assert kept.keys() == {"weights", "videos"}
    assert kept["weights"].keys() == trained.keys()
    assert kept["videos"] == tuple(sorted(now.videos))
    videos = {video.name for video in corpus.split("train")}
    assert {*load_checkpoint(made.last).videos} == videos


# Files of weights


def with_weights(settings: Settings, path: Path) -> Settings:
    audio = replace(settings.branches["audio"], weights=str(path))
    return replace(settings, branches=settings.branches | {"audio": audio})


def encoder_weights(seed: int) -> dict[str, Tensor]:
    torch.manual_seed(seed)
    (encoder,) = build_network(AUDIO).encoders()
    return encoder.state_dict()


def test_a_file_of_weights_is_what_training_starts_from(corpus: Store, tmp_path: Path) -> None:
    lent = encoder_weights(11)
    save_tensors(tmp_path / "w.pt", lent)
    settings = with_weights(STILL, tmp_path / "w.pt")
    made = fit(corpus, tmp_path / "run", settings)
    torch.manual_seed(STILL.seed)
    drawn = build_network(STILL).state_dict()
    encoder = {f"branches.audio.streams.audio.encoder.{key}": tensor for key, tensor in lent.items()}
    assert encoder.keys() <= drawn.keys()
    assert_begun(load_checkpoint(made.last).network, drawn | encoder, STILL)
    assert read_json(made.weights, RunError, "") == {"audio.audio": file_digest(tmp_path / "w.pt")}
    found = read_json(made.manifest, RunError, "")["signature"]
    assert found == load_checkpoint(made.last).signature == made.identity(settings, corpus.digest)
    assert found != signature(STILL, corpus.digest)
    (tmp_path / "w.pt").unlink()
    fit(corpus, made.root, settings, resume=True)  # it is in the checkpoint by now


def test_another_run_comes_before_a_file_of_weights(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    save_tensors(tmp_path / "w.pt", encoder_weights(11))
    settings = with_weights(STILL.only(("audio",)), tmp_path / "w.pt")
    made = fit(corpus, tmp_path / "run", settings, initial_weights=[audio.root])
    assert_begun(load_checkpoint(made.last).network, trained_weights(load_checkpoint(audio.best)), AUDIO)


def test_a_file_that_fits_in_part_is_refused_with_its_keys(corpus: Store, tmp_path: Path) -> None:
    whole, path = encoder_weights(11), tmp_path / "w.pt"
    less = {key: tensor for key, tensor in whole.items() if key != "join.0.0.weight"}
    cases: tuple[tuple[dict[str, Any], str], ...] = (
        (less, "join.0.0.weight is missing"),
        (whole | {"fc.bias": torch.zeros(3)}, "fc.bias is unknown"),
        (whole | {"join.0.0.weight": torch.zeros(2, 3)}, "join.0.0.weight has [2, 3], not [128, 192, 1, 1]"),
        (less | {"head": torch.zeros(1)}, "join.0.0.weight is missing, head is unknown"),
    )
    for number, (weights, found) in enumerate(cases):
        save_tensors(path, weights)
        with pytest.raises(RunError, match=r"w\.pt: does not fit the encoder of branches\.audio\.audio") as error:
            fit(corpus, tmp_path / f"run{number}", with_weights(AUDIO, path))
        assert error.value.found == found
        assert error.value.expected == f"the {len(whole)} tensors of MCNN, each of its shape"
    with pytest.raises(RunError, match=r"none\.pt: cannot be read .*It is the weights of branches\.audio\.audio"):
        fit(corpus, tmp_path / "run", with_weights(AUDIO, tmp_path / "none.pt"))
    save_tensors(path, whole | {"join.0.0.weight": "text"})
    with pytest.raises(RunError, match=r"w\.pt: is no file of weights; found 'join\.0\.0\.weight'"):
        fit(corpus, tmp_path / "other", with_weights(AUDIO, path))
    (tmp_path / "text.pt").write_text("weights")
    with pytest.raises(RunError, match=r"text\.pt: is no file of weights"):
        fit(corpus, tmp_path / "text", with_weights(AUDIO, tmp_path / "text.pt"))


class Preset(Encoder):
    """An encoder that comes with weights, of every kind that this project initialises."""

    modality = "visual"
    width = 4
    input_shape = (3, 112, 112)

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), GCSA(4))
        for number, tensor in enumerate(self.state_dict().values()):
            tensor.copy_(torch.arange(tensor.numel()).reshape(tensor.shape) + number)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.layers(x)
        return found


@pytest.mark.parametrize("seed", [0, 1])
def test_an_encoder_of_the_registry_keeps_the_weights_that_it_comes_with(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(ENCODERS, "preset", lambda model: Preset())
    branches = {"face": BranchSettings("preset"), "scene": BranchSettings("rhcnn")}
    torch.manual_seed(seed)
    first, _ = build_network(Settings(branches=branches)).encoders()
    expected = Preset().state_dict()
    assert first.state_dict().keys() == expected.keys()
    for key, tensor in first.state_dict().items():
        assert tensor.equal(expected[key]), key


def test_starts_that_do_not_fit(corpus: Store, audio: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    pictures = replace(SETTINGS.only(("visual",)), optimiser=AUDIO.optimiser)
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
