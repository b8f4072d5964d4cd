"""One run learns from several stores: in the given fractions, evaluated on the first alone, repeatably."""

import shutil
import signal
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.commands.main import main
from abaw_expr.data.batches.sampling import UsableFrames, sample_epoch, usable_frames
from abaw_expr.data.store.mixture import mix, open_mixture
from abaw_expr.data.store.store import Extra, Store, StoredVideo
from abaw_expr.data.store.store import Frames as Columns
from abaw_expr.errors import RunError, StoreError
from abaw_expr.files import read_json
from abaw_expr.settings import DataSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from abaw_expr.training.predict import wanted_of_split
from abaw_expr.training.run import RunFolder
from abaw_expr.training.signature import signature
from tests.helpers.branches import BRANCHES
from tests.helpers.commands import run_tasks
from tests.helpers.fitting import (
    AUDIO,
    SETTINGS,
    STEPS,
    assert_same_run,
    fit,
    metrics,
    opened,
    scalars,
    stopped_train,
)
from tests.helpers.layouts import LAYOUTS
from tests.training.test_parallel import SHARED
from tuning.features import cached_features


@pytest.fixture(scope="module")
def others(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Stores of other kinds: speech of seven classes without video, and described clips."""
    found = {}
    for layout in LAYOUTS:
        if layout.kind in ("ravdess", "clips"):
            root = tmp_path_factory.mktemp("mixture")
            layout.write(root / "set")
            layout.prepare(root / "set", root / "store")
            found[str(layout.kind)] = root / "store"
    return found


@pytest.fixture(scope="module")
def mixed(store: Path, others: dict[str, Path]) -> Store:
    return open_mixture([str(store), f"{others['ravdess']}=0.3", f"{others['clips']}=0.1"], EXPR)


# The mixture


def test_one_store_is_that_store(store: Path) -> None:
    alone = open_mixture([str(store)], EXPR)
    assert (alone.digest, alone.extras) == (opened(store).digest, ())


def test_identity_is_that_of_all_stores_and_fractions(store: Path, others: dict[str, Path]) -> None:
    ravdess, clips = others["ravdess"], others["clips"]
    texts = [
        [f"{ravdess}=0.3"],
        [f"{ravdess}=0.2"],
        [f"{clips}=0.3"],
        [f"{ravdess}=0.3", f"{clips}=0.3"],
        [f"{clips}=0.3", f"{ravdess}=0.3"],
    ]
    digests = {open_mixture([str(store), *text], EXPR).digest for text in texts} | {opened(store).digest}
    assert len(digests) == 1 + len(texts)
    assert open_mixture([str(store), "/".join((str(ravdess.parent), ".", "store=0.30"))], EXPR).digest in digests


@pytest.mark.parametrize(
    ("fractions", "message"),
    [
        ([""], r"a store after the first has no fraction; found '.*'; expected STORE=FRACTION, such as ravdess=0\.3"),
        (["=x"], r"a store after the first has no fraction; found '.*=x'"),
        (["=nan"], r"a store after the first has no fraction; found '.*=nan'"),
        (["=0"], r"the stores' fractions cannot be used; found '0'; expected each above 0, their sum below 1"),
        (["=-0.5"], r"the stores' fractions cannot be used; found '-0\.5'"),
        (["=0.6", "=0.4"], r"the stores' fractions cannot be used; found '0\.6, 0\.4'; expected each above 0"),
        (["=0.2", "=0.2"], r"store: is named twice\. Name each store once"),
    ],
)
def test_fractions_that_are_none_are_refused(
    fractions: list[str], message: str, store: Path, others: dict[str, Path]
) -> None:
    with pytest.raises(StoreError, match=message):
        open_mixture([str(store), *(f"{others['ravdess']}{fraction}" for fraction in fractions)], EXPR)


def test_what_is_held_out_is_not_trained_on(store: Path, others: dict[str, Path]) -> None:
    """As where two editions of a release split their videos differently."""
    first, other = opened(store), opened(others["ravdess"])
    leak = replace(first.split("val")[0], split="train", name=first.split("val")[0].name + "_left")
    name = leak.name.removesuffix("_left")
    message = f"store: would train on 1 recordings that the first store validates or tests on: {name}"
    with pytest.raises(StoreError, match=message):
        mix(first, [Extra(replace(other, videos=(*other.videos, leak)), 0.5)])
    held_out = replace(leak, split="val")
    assert mix(first, [Extra(replace(other, videos=(*other.videos, held_out)), 0.5)]).extras


# Sampling


def in_memory(name: str, labels: Sequence[int], rate: float = 10.0) -> StoredVideo:
    """A training video with audio throughout and these labels."""
    video = StoredVideo(name, "train", Path(), np.zeros(64, np.float32), np.ones(64, np.float32))
    none = np.zeros(len(labels), np.int64)
    times = np.arange(len(labels)) / rate
    vars(video)["frames"] = Columns(times, np.array(labels, np.int8), none, none.astype(np.int32))
    vars(video)["audio"] = np.zeros((1 + int(len(labels) / rate / 0.016), 64), np.float16)
    return video


def drawing(**changes: object) -> Settings:
    data = DataSettings(**({"stride": 0.0} | changes))  # type: ignore[arg-type]
    return replace(AUDIO, data=data)


@st.composite
def mixtures(draw: st.DrawFn) -> tuple[Store, np.ndarray]:
    """Stores of some videos of some labels, and their fractions."""
    fractions = draw(st.lists(st.floats(0.05, 0.3), min_size=1, max_size=3))
    videos = [
        [in_memory(f"{store}-{i}", draw(st.lists(st.integers(0, 7), min_size=2, max_size=12))) for i in range(2)]
        for store in range(len(fractions) + 1)
    ]
    first, *extras = [Store(Path(), str(number), tuple(own)) for number, own in enumerate(videos)]
    mixture = mix(first, [Extra(extra, fraction) for extra, fraction in zip(extras, fractions, strict=True)])
    return mixture, np.array([1 - sum(fractions), *fractions])


def store_of(frames: UsableFrames, indices: np.ndarray) -> np.ndarray:
    """The store of each index, by its video's name."""
    return np.array([int(frames.frame_index.videos[video].name[0]) for video in frames.frame_index.video[indices]])


@given(mixtures(), st.sampled_from([0.0, 0.5, 1.0]), st.sampled_from([1, 2, 4]), st.integers(1, 5))
def test_an_epoch_has_the_first_store_whole_and_fractions_of_the_others(
    mixture: tuple[Store, np.ndarray], balance: float, neighbours: int, epoch: int
) -> None:
    store, fractions = mixture
    settings = drawing(balance=balance, sequence=neighbours)
    frames = usable_frames(store, "train", EXPR, ["audio"])
    alone = sample_epoch(usable_frames(replace(store, extras=()), "train", EXPR, ["audio"]), settings, epoch)
    samples = sample_epoch(frames, settings, epoch)
    counts = np.bincount(store_of(frames, samples.indices), minlength=len(fractions)) / neighbours
    assert counts.tolist() == [round(len(alone) / neighbours * fraction / fractions[0]) for fraction in fractions]
    videos = frames.frame_index.video[samples.indices].reshape(-1, neighbours)
    assert (videos == videos[:, :1]).all(), "neighbours stay together"
    if not balance:
        own = samples.indices[store_of(frames, samples.indices) == 0]
        assert sorted(own) == sorted(alone.indices), "a pass over the first store, as without others"
    if not balance and neighbours == 1:
        for number in range(1, len(fractions)):
            times = np.bincount(samples.indices, minlength=len(frames.frame_index))[
                store_of(frames, np.arange(len(frames.frame_index))) == number
            ]
            assert times.max() - times.min() <= 1, "the others' frames come in turns"


@given(mixtures(), st.floats(0, 1), st.floats(0, 1))
def test_chances_sum_to_each_stores_fraction(
    mixture: tuple[Store, np.ndarray], balance: float, video_balance: float
) -> None:
    store, fractions = mixture
    settings = drawing(balance=balance, video_balance=video_balance)
    frames = usable_frames(store, "train", EXPR, ["audio"])
    for step in (1, 2):
        indices = np.arange(0, len(frames.frame_index), step)
        draw_probabilities = frames.probabilities(settings.data, indices, 0)
        assert np.bincount(store_of(frames, indices), draw_probabilities) == pytest.approx(fractions)
    classes = frames.mean_label(settings)
    assert sum(classes) == pytest.approx(1)
    there = set(frames.frame_index.label.tolist())
    assert {number for number, fraction in enumerate(classes) if fraction} == there


def test_classes_are_evened_out_over_all_stores() -> None:
    """The first store has eight classes and little Fear, the other lacks Other and half of it is Fear."""
    first = [0] * 60 + [1] * 10 + [2] * 10 + [3] * 2 + [4] * 30 + [5] * 20 + [6] * 10 + [7] * 58
    other = [3] * 30 + [0] * 5 + [1] * 5 + [2] * 5 + [4] * 5 + [5] * 5 + [6] * 5
    store = mix(
        Store(Path(), "0", (in_memory("0", first),)), [Extra(Store(Path(), "1", (in_memory("1", other),)), 0.3)]
    )
    frames = usable_frames(store, "train", EXPR, ["audio"])
    natural = 0.7 * np.bincount(first) / len(first) + 0.3 * np.bincount(other, minlength=8) / len(other)
    for balance in (0.0, 0.5, 1.0):
        expected = natural ** (1 - balance) / (natural ** (1 - balance)).sum()
        settings = drawing(balance=balance)
        assert frames.mean_label(settings) == pytest.approx(expected, abs=1e-6)
        drawn = np.concatenate([sample_epoch(frames, settings, epoch).indices for epoch in range(40)])
        assert np.bincount(frames.frame_index.label[drawn], minlength=8) / len(drawn) == pytest.approx(
            expected, abs=0.02
        )
        assert (store_of(frames, drawn) == 1).mean() == pytest.approx(0.3, abs=0.002)


def test_samples_of_the_stores_come_mixed(mixed: Store) -> None:
    settings = replace(AUDIO, data=DataSettings(stride=0.1))
    frames = usable_frames(mixed, "train", EXPR, ["audio"])
    order = frames.store_of(sample_epoch(frames, settings, 1).indices)
    halves = [np.bincount(half, minlength=3) / len(half) for half in np.array_split(order, 2)]
    assert halves[0] == pytest.approx([0.6, 0.3, 0.1], abs=0.1)
    assert halves[1] == pytest.approx([0.6, 0.3, 0.1], abs=0.1)
    first = [sample_epoch(frames, settings, epoch).indices.tolist() for epoch in (1, 1, 2)]
    assert first[0] == first[1] != first[2]


def test_a_store_with_nothing_for_the_run_is_named(mixed: Store, others: dict[str, Path]) -> None:
    with pytest.raises(StoreError, match=f"{others['ravdess']}: has no annotated train frame with visual input"):
        usable_frames(mixed, "train", EXPR, ["visual"])


# Training


def labels_of(videos: Sequence[StoredVideo]) -> list[int]:
    return [label for video in videos for label in video.frames.label.tolist() if label >= 0]


@pytest.fixture(scope="module")
def run(mixed: Store, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return fit(mixed, tmp_path_factory.mktemp("mixed") / "run", STEPS)


@pytest.mark.slow
def test_both_branches_learn_from_stores_of_other_classes_and_modalities(mixed: Store, tmp_path: Path) -> None:
    settings = replace(SETTINGS, optimiser=replace(SETTINGS.optimiser, epochs=1))
    run = fit(mixed, tmp_path / "run", settings)
    assert np.isfinite(metrics(run)[["train_loss", "val_loss", "audio_f1", "visual_f1"]]).all(axis=None)
    learnt = {label for label, fraction in enumerate(load_checkpoint(run.last).prior) if fraction}
    own, speech = (set(labels_of(each.split("train"))) for each in (mixed, mixed.extras[0].store))
    assert learnt == set(labels_of(usable_frames(mixed, "train", EXPR, BRANCHES).frame_index.videos))
    assert own - speech, "classes that the speech lacks"


def test_the_first_store_alone_validates_and_is_predicted(mixed: Store, store: Path) -> None:
    names = {video.name for video in opened(store).split("val")}
    assert {video.name for video in usable_frames(mixed, "val", EXPR, ["audio"]).frame_index.videos} == names
    assert {wanted.video.name for wanted in wanted_of_split(mixed, "val")} == names
    trained = {video.name for video in usable_frames(mixed, "train", EXPR, ["audio"]).frame_index.videos}
    assert trained > {video.name for video in opened(store).split("train")}
    assert not trained & names


@pytest.mark.slow
def test_a_run_tells_what_it_learnt_from(run: RunFolder, mixed: Store, others: dict[str, Path]) -> None:
    manifest = read_json(run.manifest, RunError, "")
    assert manifest["signature"] == load_checkpoint(run.best).signature == signature(STEPS, mixed.digest)
    assert manifest["store"] == mixed.digest
    digests = [opened(others[name]).digest for name in ("ravdess", "clips")]
    assert manifest["extras"] == [{"store": d, "share": s} for d, s in zip(digests, (0.3, 0.1), strict=True)]


@pytest.mark.slow
def test_a_stopped_run_goes_on_to_the_same_weights(
    run: RunFolder, store: Path, others: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stopped, recipe = RunFolder(tmp_path / "run"), tmp_path / "settings.yaml"
    save_settings(STEPS, recipe)
    fractions = [f"{others['ravdess']}=0.3", f"{others['clips']}=0.1"]
    arguments = ["--store", str(store), *fractions, "--run", str(stopped.root), "--settings", str(recipe)]
    assert stopped_train(monkeypatch, 3, arguments, signal.SIGTERM) == 143
    assert load_checkpoint(stopped.last).step == 3
    assert main(["train", *arguments, "--resume"]) == 0
    assert_same_run(run, stopped)
    assert scalars(stopped) == scalars(run)


@pytest.mark.slow
@pytest.mark.parametrize("stores", [[], ["ravdess=0.3"], ["ravdess=0.3", "clips=0.2"], ["clips=0.1", "ravdess=0.3"]])
def test_a_run_goes_on_with_its_own_stores_only(
    stores: list[str], run: RunFolder, store: Path, others: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(run.root, tmp_path / "run")
    texts = [f"{others[name]}={fraction}" for name, fraction in (text.split("=") for text in stores)]
    with pytest.raises(RunError, match=r"last\.pt: is of another run or another store"):
        fit(open_mixture([str(store), *texts], EXPR), tmp_path / "run", STEPS, resume=True)


@pytest.mark.slow
def test_two_processes_learn_what_one_does(store: Path, others: dict[str, Path], tmp_path: Path) -> None:
    optimiser = replace(SHARED.optimiser, epochs=1, batch_size=8)
    data = replace(SHARED.data, val_stride=2.0)
    model = replace(SHARED.model, attention=False)
    settings = replace(SHARED.only(("audio",)), data=data, model=model, optimiser=optimiser)
    texts = [str(store), f"{others['clips']}=0.3"]
    one, two = fit(open_mixture(texts, EXPR), tmp_path / "one", settings), RunFolder(tmp_path / "two")
    recipe = tmp_path / "two.yaml"
    save_settings(settings, recipe)
    run_tasks(2, ["train", "--store", *texts, "--run", two.root, "--settings", recipe], tmp_path)
    alone, together = scalars(one), scalars(two)
    assert [step for step, _ in together] == [step for step, _ in alone]
    assert np.abs(np.subtract([x for _, x in together], [x for _, x in alone])).max() <= 1e-5
    assert load_checkpoint(two.last).signature == load_checkpoint(one.last).signature


@pytest.mark.slow
def test_heads_are_searched_on_what_the_run_learnt_from(
    run: RunFolder, mixed: Store, store: Path, tmp_path: Path
) -> None:
    where = (0.0, "cpu", lambda done, total: None)
    features = cached_features(tmp_path / "features.pt", run, mixed, *where)  # type: ignore[arg-type]
    frames = usable_frames(mixed, "train", EXPR, ["audio"])
    fractions = np.bincount(frames.store_of(np.flatnonzero(frames.usable)), features.draw_probabilities.numpy())
    assert fractions == pytest.approx([0.6, 0.3, 0.1])
    with pytest.raises(RunError, match="was trained on another store"):
        cached_features(tmp_path / "other.pt", run, opened(store), *where)  # type: ignore[arg-type]
