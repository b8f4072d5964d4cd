"""A generator is trained, stopped, killed, samples clips; no run learns from what it holds out."""

import json
import shutil
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image

from abaw_expr.commands.main import main
from abaw_expr.data.datasets.options import ClipOptions
from abaw_expr.data.datasets.provenance import MARK, PROVENANCE
from abaw_expr.data.store.mixture import open_mixture
from abaw_expr.data.store.store import Store, open_store
from abaw_expr.errors import DivergedError, ReleaseError, RunError, StoppedError, StoreError, UserError
from abaw_expr.generate import training
from abaw_expr.generate.clips import class_path, clips_of, frames_of, write_clips
from abaw_expr.generate.faces import Batches, faces_of
from abaw_expr.generate.folder import GeneratorFolder
from abaw_expr.generate.sampling import load_sampler
from abaw_expr.generate.settings import GeneratorSettings
from abaw_expr.generate.training import train_generator
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint, load_tensors
from tests.helpers.commands import command
from tests.helpers.fitting import AUDIO, fit
from tests.helpers.layouts import prepare_kind

TINY = GeneratorSettings(steps=4, batch_size=4, width=4, identity=8, sheet_every=2, save_every=0, accelerator="cpu")
FLAGS = ["--steps", "4", "--batch-size", "4", "--width", "4", "--identity", "8", "--save-every", "0"]


@pytest.fixture(scope="module")
def generator(corpus: Store, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("generator") / "generator"
    train_generator([corpus], root, TINY)
    return root


@pytest.fixture(scope="module")
def clips(generator: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("clips") / "clips"
    write_clips(load_sampler(generator), out, 12, seconds=0.4)
    return out


@pytest.fixture(scope="module")
def clip_store(clips: Path) -> Path:
    options = ClipOptions(images_are_faces=True, val_fraction=0)
    prepare_kind("clips", clips / "clips.csv", clips.parent / "store", options)
    return clips.parent / "store"


def weights(root: Path) -> Mapping[str, torch.Tensor]:
    found = load_tensors(GeneratorFolder(root).last)
    return {f"{part}.{name}": x for part in ("generator", "discriminator", "ema") for name, x in found[part].items()}


def assert_same(one: Path, other: Path) -> None:
    mine, theirs = weights(one), weights(other)
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(mine[name], theirs[name]) for name in mine)


# Training


def test_the_folder_says_what_it_is(generator: Path, corpus: Store) -> None:
    folder = GeneratorFolder(generator)
    names = {recording_of(video.name) for video in corpus.split("train")}
    assert set(folder.read_provenance().recordings) == names
    assert not names & {recording_of(video.name) for video in corpus.split("val")}
    classes = faces_of([corpus], "train").classes
    with Image.open(folder.sheet(4)) as sheet:
        assert sheet.size == (10 * 66 + 2, len(classes) * 66 + 2)
    assert json.loads(folder.manifest.read_text())["steps"] == 4


def test_one_seed_is_one_generator_and_a_second_call_does_nothing(
    generator: Path, corpus: Store, tmp_path: Path
) -> None:
    train_generator([corpus], tmp_path / "again", TINY)
    assert_same(generator, tmp_path / "again")
    before = GeneratorFolder(tmp_path / "again").last.stat().st_mtime_ns
    train_generator([corpus], tmp_path / "again", TINY)
    assert GeneratorFolder(tmp_path / "again").last.stat().st_mtime_ns == before
    train_generator([corpus], tmp_path / "other", replace(TINY, seed=1))
    assert not torch.equal(weights(generator)["ema.start.weight"], weights(tmp_path / "other")["ema.start.weight"])


def test_a_longer_training_goes_on(generator: Path, corpus: Store, tmp_path: Path) -> None:
    train_generator([corpus], tmp_path / "longer", replace(TINY, steps=2))
    train_generator([corpus], tmp_path / "longer", TINY)
    assert_same(generator, tmp_path / "longer")


def test_a_stopped_training_goes_on_to_the_same_weights(
    generator: Path, corpus: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = training.Training._train_step

    def stopping(self: training.Training, *given: torch.Tensor) -> None:
        step(self, *given)
        self._stop.signal = 15

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_train_step", stopping)
        with pytest.raises(StoppedError, match="Run the command again to continue"):
            train_generator([corpus], tmp_path / "run", TINY)
    assert load_tensors(GeneratorFolder(tmp_path / "run").last)["step"] == 1
    train_generator([corpus], tmp_path / "run", TINY)
    assert_same(generator, tmp_path / "run")


@pytest.mark.slow
def test_a_killed_training_goes_on_to_the_same_weights(generator: Path, store: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    words = ["generate", "train", "--store", store, "--out", run, *FLAGS, "--accelerator", "cpu"]
    process = command([*words, "--steps", 400], tmp_path / "printed")
    while not GeneratorFolder(run).last.exists():
        time.sleep(0.02)
    process.kill()
    process.wait()
    state = load_tensors(GeneratorFolder(run).last)
    done = state["step"]
    train_generator([open_store(store, EXPR)], tmp_path / "whole", replace(TINY, steps=done + 2))
    train_generator([open_store(store, EXPR)], run, replace(TINY, steps=done + 2))
    assert_same(run, tmp_path / "whole")


def test_a_loss_that_is_not_finite_stops_it_with_what_was_saved(
    corpus: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train_generator([corpus], tmp_path / "run", replace(TINY, steps=2))
    before = GeneratorFolder(tmp_path / "run").last.read_bytes()
    monkeypatch.setattr(training.Training, "_update_generator", lambda self, count: float("nan"))
    with pytest.raises(DivergedError, match=r"a loss of step 3 is not finite; found 'discriminator .*, generator nan'"):
        train_generator([corpus], tmp_path / "run", TINY)
    assert GeneratorFolder(tmp_path / "run").last.read_bytes() == before
    assert load_sampler(tmp_path / "run").step == 2


def test_another_generator_in_the_folder_is_refused(generator: Path, corpus: Store) -> None:
    with pytest.raises(RunError, match="has a generator with other settings or stores"):
        train_generator([corpus], generator, replace(TINY, width=5))


def test_classes_are_balanced_and_half_the_faces_mirrored(corpus: Store) -> None:
    faces = faces_of([corpus], "train")
    batches = Batches(faces, 64, 64, seed=0)
    labels = torch.cat([batches[step][1] for step in range(8)])
    counts = torch.bincount(labels)[list(faces.classes)]
    assert counts.sum() == 512
    assert counts.min() > 512 / len(faces.classes) * 0.6
    assert torch.equal(batches[3][0], batches[3][0])
    assert not torch.equal(batches[3][0], batches[4][0])


@pytest.mark.parametrize(
    ("flag", "value"), [("--steps", "0"), ("--batch-size", "1"), ("--learning-rate", "1"), ("--ema-decay", "1")]
)
def test_settings_out_of_range_are_refused(
    flag: str, value: str, store: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["generate", "train", str(store), "--out", str(tmp_path / "g"), flag, value]) == 2
    assert f"{flag} cannot be used; found {value}" in " ".join(capsys.readouterr().err.split())
    assert not (tmp_path / "g").exists()


def test_a_folder_without_a_generator_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"provenance\.json.*generate train"):
        load_sampler(tmp_path)


# Clips


def test_clips_turn_from_neutral_to_each_class(generator: Path, clips: Path, clip_store: Path) -> None:
    table = pd.read_csv(clips / "clips.csv")
    assert set(table["split"]) == {"train"}
    assert set(table["provenance"]) == {PROVENANCE}
    videos = {video.name: video for video in open_store(clip_store, EXPR).videos}
    assert len(videos) == 12
    assert {video.subject for video in videos.values()} == {"generated-0-00000", "generated-0-00001"}
    for name, video in videos.items():
        label = EXPR.columns.index(name.rpartition("-")[2])
        assert video.frames.label.tolist() == [0] * 10 if label == 0 else [0, 0] + [-1] * 4 + [label] * 4
        assert video.frames.has_crop.all()
        assert video.audio is None


def test_every_image_says_that_it_is_generated(clips: Path) -> None:
    images = sorted(clips.rglob("*.jpg"))
    assert len(images) == 120
    for path in images:
        with Image.open(path) as image:
            assert image.info["comment"].decode().startswith(MARK)


def test_one_seed_is_one_data_set(generator: Path, clips: Path, tmp_path: Path) -> None:
    sampler = load_sampler(generator)
    write_clips(sampler, tmp_path / "same", 12, seconds=0.4)
    for path in clips.rglob("*.*"):
        assert (tmp_path / "same" / path.relative_to(clips)).read_bytes() == path.read_bytes()
    one, other = (clips_of(sampler, 1, seed)[0] for seed in (0, 1))
    assert not torch.equal(frames_of(sampler, one, 5), frames_of(sampler, other, 5))


def test_a_class_path_begins_neutral_and_ends_in_the_class(generator: Path) -> None:
    path = class_path(3, 50, load_sampler(generator))
    np.testing.assert_allclose(path.sum(dim=1), 1, rtol=1e-6)
    assert path[:10, 0].tolist() == [1] * 10
    assert path[30:, 3].tolist() == [1] * 20
    assert (path[:, 3].diff() >= 0).all()


def test_an_existing_folder_is_kept(generator: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(UserError, match="exists already"):
        write_clips(load_sampler(generator), tmp_path, 1)
    assert (tmp_path / "mine").read_text() == "mine"


# What is held out


def test_a_store_keeps_what_its_clips_were_learned_from(clip_store: Path, generator: Path) -> None:
    recordings = GeneratorFolder(generator).read_provenance().recordings
    for video in open_store(clip_store, EXPR).videos:
        assert video.generated_from == recordings


def _holding_out(store: Path, corpus: Store, tmp_path: Path) -> Path:
    """A copy of the store in which the first training recording validates."""
    copy = tmp_path / "held"
    shutil.copytree(store, copy)
    name = corpus.split("train")[0].name
    entry = json.loads((copy / "recordings" / recording_of(name) / "recording.json").read_text())
    entry["videos"][name]["splits"]["expr"] = "val"
    (copy / "recordings" / recording_of(name) / "recording.json").write_text(json.dumps(entry))
    from tests.helpers.tiny import seal

    seal(copy)
    return copy


def test_a_run_does_not_learn_from_what_it_holds_out(
    store: Path, corpus: Store, clip_store: Path, tmp_path: Path
) -> None:
    assert open_mixture([str(store), f"{clip_store}=0.2"], EXPR).extras
    held = _holding_out(store, corpus, tmp_path)
    with pytest.raises(StoreError, match="would train on clips generated from 1 recordings that the first store"):
        open_mixture([str(held), f"{clip_store}=0.2"], EXPR)


def test_clips_in_the_first_store_are_checked_too(clip_store: Path, corpus: Store, tmp_path: Path) -> None:
    store = open_store(clip_store, EXPR)
    first, *others = store.videos
    renamed = replace(first, name=first.generated_from[0], split="val")
    from abaw_expr.data.store.mixture import mix

    with pytest.raises(StoreError, match="clips generated from 1 recordings"):
        mix(replace(store, videos=(renamed, *others)), [])


@pytest.mark.slow
def test_folds_refuse_clips_learned_from_the_fold_that_is_held_out(store: Path, clip_store: Path) -> None:
    from abaw_expr.data.store.folds import split_for_training

    mixture = open_mixture([str(store), f"{clip_store}=0.2"], EXPR)
    data = replace(AUDIO.data, folds=2, fold=0)
    with pytest.raises(StoreError, match="clips generated from"):
        split_for_training(mixture, data)


@pytest.mark.slow
def test_a_checkpoint_names_what_the_clips_were_learned_from(
    corpus: Store, store: Path, clip_store: Path, tmp_path: Path
) -> None:
    from abaw_expr.settings import BranchSettings

    settings = replace(AUDIO, branches={"visual": BranchSettings("rhcnn")})
    run = fit(open_mixture([str(store), f"{clip_store}=0.2"], EXPR), tmp_path / "run", settings)
    seen = set(load_checkpoint(run.last).videos)
    assert seen >= {video.name for video in open_store(clip_store, EXPR).videos}
    assert seen >= set(open_store(clip_store, EXPR).videos[0].generated_from)


@pytest.mark.parametrize("fault", ["no column", "no file", "another file"])
def test_clips_without_their_provenance_are_refused(fault: str, clips: Path, tmp_path: Path) -> None:
    shutil.copytree(clips, tmp_path / "clips")
    table = pd.read_csv(tmp_path / "clips/clips.csv", dtype=str)
    if fault == "no column":
        table = table.drop(columns="provenance")
    elif fault == "no file":
        (tmp_path / "clips" / PROVENANCE).unlink()
    else:
        (tmp_path / "clips" / PROVENANCE).write_text("{}")
    table.to_csv(tmp_path / "clips/clips.csv", index=False)
    where = r"clips\.csv:2: is generated, and names no file" if fault == "no column" else r"provenance\.json"
    with pytest.raises(ReleaseError, match=where):
        prepare_kind("clips", tmp_path / "clips/clips.csv", tmp_path / "store")


# The whole way


@pytest.mark.slow
def test_the_commands_from_stores_to_a_scored_generator(
    clips: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    generator, store, weights_file = str(tmp_path / "generator"), tmp_path / "store", tmp_path / "weights.pt"
    pd.read_csv(clips / "clips.csv").drop(columns="split").to_csv(clips / "split.csv", index=False)
    prepare_kind("clips", clips / "split.csv", store, ClipOptions(images_are_faces=True, val_fraction=0.5))
    torch.save(timm.create_model("mobilenetv3_small_050").state_dict(), weights_file)
    assert main(["generate", "train", str(store), "--out", generator, *FLAGS, "--accelerator", "cpu"]) == 0
    words = ["--model", generator, "--faces", "4", "--weights", str(weights_file)]
    assert main(["generate", "score", str(store), *words, "--encoder", "timm:mobilenetv3_small_050"]) == 0
    found = json.loads((tmp_path / "generator/score/score.json").read_text())
    distances = {name: one["frechet"] for name, one in found["distances"].items()}
    assert distances.keys() == {"generated", "training faces", "class means", "noise"}
    assert distances["training faces"] < distances["noise"]
    assert found["recognition"]["held_out"].keys() == found["distances"]["generated"]["by_class"].keys()
    assert 0 <= found["copies"]["closer_than_most"] <= 1
    with Image.open(tmp_path / "generator/score/neighbours.png") as picture:
        assert picture.size == (16 * 66 + 2, 2 * 66 + 2)
    printed = " ".join(capsys.readouterr().out.split())
    assert "Named right by a classifier of real faces" in printed
    assert main(["generate", "score", str(store), *words[:2], "--encoder", "ge2e", "--weights", "default"]) == 2
