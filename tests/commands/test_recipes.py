"""Every recipe of pretrained systems goes the whole way on the demo's corpus, to a submission that is checked clean."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import normalize

from abaw_expr.commands.main import main
from abaw_expr.data.store.store import open_store
from abaw_expr.data.synthetic.corpus import TEMPLATES
from abaw_expr.models.encoders.registry import build_encoder
from abaw_expr.settings import ModelSettings, StreamSettings
from abaw_expr.settings_file import recipe
from abaw_expr.tasks.task import EXPR

pytestmark = pytest.mark.slow  # trainings

SMALL = {
    "pretrained": ("expr", ["--data.stride", 0.5, "--data.sequence", 4, "--data.hop", 2, "--optimiser.batch-size", 16]),
    "va-tcn": ("va", ["--data.stride", 0.2, "--data.sequence", 12, "--data.hop", 8, "--optimiser.batch-size", 24]),
    "ddamfn": ("au", ["--data.stride", 2, "--optimiser.batch-size", 4]),
    "ddamfn-lstm": ("va", ["--data.stride", 1, "--data.sequence", 2, "--data.hop", 2, "--optimiser.batch-size", 4]),
    "clip-lstm": ("expr", ["--data.stride", 0.5, "--data.sequence", 4, "--data.hop", 2, "--optimiser.batch-size", 16]),
    "clip-adapter": ("expr", ["--data.stride", 1, "--optimiser.batch-size", 16]),
}
"""The challenge that each is tried on, and the settings of a small corpus."""


def call(*words: object) -> int:
    return main([str(word) for word in words])


@pytest.fixture(scope="module")
def embedded(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with all embeddings that the recipes name: of untrained encoders, and of made-up rows for CLIP."""
    root = tmp_path_factory.mktemp("recipes")
    shutil.copytree(store, root / "store")
    torch.manual_seed(0)
    for name, encoder in (("faces", "rhcnn"), ("voices", "ge2e"), ("vggish", "ge2e"), ("logmel", "mcnn")):
        built = build_encoder(StreamSettings(encoder), ModelSettings())
        torch.save(built.state_dict(), root / "w.pt")
        words = ("--encoder", encoder, "--weights", root / "w.pt", "--name", name, "--stride", 0.2)
        assert call("embed", root / "store", *words, "--workers", 1, "--accelerator", "cpu") == 0
    (root / "clip").mkdir()
    rng = np.random.default_rng(0)
    for video in open_store(root / "store", EXPR).videos:
        np.save(root / "clip" / f"{video.name}.npy", rng.normal(size=(len(video.frames), 512)))
    assert call("import", root / "clip", "--embeddings", "--store", root / "store", "--name", "clip") == 0
    return root / "store"


@pytest.mark.parametrize("name", SMALL)
def test_it_goes_the_whole_way(
    name: str, embedded: Path, release: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made_up(texts: tuple[str, ...], encoder: str, weights: str) -> torch.Tensor:
        return normalize(torch.randn(len(texts), 512, generator=torch.Generator().manual_seed(0)), dim=1)

    monkeypatch.setattr("abaw_expr.models.texts.encode_texts", made_up)
    task, words = SMALL[name]
    run, template = tmp_path / "run", release / TEMPLATES[task]
    few = ["--optimiser.epochs", 2, "--data.val-stride", 1, "--compute.accelerator", "cpu"]
    assert call("train", embedded, "--run", run, "--settings", name, "--task", task, *words, *few) == 0
    for split, more in (("val", []), ("test", ["--template", template])):
        out = tmp_path / f"{split}.parquet"
        assert call("predict", run, embedded, "--split", split, "--checkpoint", "last", "--out", out, *more) == 0
    val, test, decision = tmp_path / "val.parquet", tmp_path / "test.parquet", tmp_path / "decision.json"
    assert call("tune", val, "--out", decision) == 0
    assert call("score", val, "--decision", decision) == 0
    predictions = tmp_path / "predictions.txt"
    assert call("submit", test, "--decision", decision, "--template", template, "--out", predictions) == 0
    assert call("check", predictions, "--template", template) == 0


def test_a_recipe_of_embeddings_works_end_to_end(store: Path, tmp_path: Path) -> None:
    """Encoders in the place of embeddings, one of them frozen, with a front end of its own; a network a value."""
    torch.manual_seed(0)
    torch.save(build_encoder(StreamSettings("ge2e"), ModelSettings()).state_dict(), tmp_path / "voices.pt")
    streams = {"faces": "rhcnn", "vggish": "ge2e", "logmel": "mcnn"}
    flags = [word for name, one in streams.items() for word in (f"--branches.va.streams.{name}.encoder", one)]
    voices = ["--branches.va.streams.vggish.weights", tmp_path / "voices.pt", "--branches.va.streams.vggish.freeze"]
    words = ["--data.stride", 1, "--data.sequence", 4, "--data.hop", 3, "--optimiser.batch-size", 8]
    more = ["--optimiser.epochs", 1, "--branches.va.networks", "each", "--compute.accelerator", "cpu"]
    run = tmp_path / "run"
    assert call("train", store, "--run", run, "--settings", "va-tcn", *flags, *voices, *words, *more) == 0
    assert call("predict", run, store, "--split", "val", "--checkpoint", "last", "--out", tmp_path / "val.parquet") == 0


def test_all_recipes_of_pretrained_systems_are_tried() -> None:
    texts = {path.stem: path.read_text() for path in recipe("paper").parent.glob("*.yaml")}
    named = {name for name, text in texts.items() if "embedding:" in text or "ddamfn" in text}
    assert named == SMALL.keys()
