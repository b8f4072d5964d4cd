"""The table that a run predicts: every frame once, null where a modality is missing, interpolated between."""

from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
import pytest
import torch

from abaw_expr.data.batches.audio_chunks import cut_for_prediction
from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.loading import load
from abaw_expr.data.store.store import Store, open_store
from abaw_expr.errors import RunError, StoreError
from abaw_expr.models.network import build_network
from abaw_expr.outputs.table import Outputs, Source, branch_columns, read_outputs, write_outputs
from abaw_expr.settings import ComputeSettings, DataSettings, ModelSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from abaw_expr.training.evaluation import reader
from abaw_expr.training.predict import Wanted, interpolate, predict, wanted_by_name, wanted_of_split
from abaw_expr.training.run import RunFolder
from submissions.template import read_template
from tests.helpers.branches import BRANCHES

pytestmark = pytest.mark.slow  # trainings


torch.set_num_threads(1)

SETTINGS = Settings(precision="32-true", compute=ComputeSettings(accelerator="cpu"))
ONE_PASS = replace(SETTINGS, data=DataSettings(sequence=4))
PRIOR = [0.3, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1, 0.1]
CLOSE = 1e-5
"""How far the same frame's probabilities may differ between batches of different sizes."""


def make_run(root: Path, settings: Settings = SETTINGS) -> RunFolder:
    """A run whose networks nobody trained: what is predicted does not matter here, only where it goes.

    Their last layers are scaled up, so that frames get probabilities that differ.
    """
    run = RunFolder(root)
    save_settings(settings, run.settings)
    last, best = weights_of(settings, 5), weights_of(settings, 4)
    state = Checkpoint("the signature", PRIOR, [], 0, 0.0, 0.0, 0.0, network=best, ema={}, optimiser={})
    save_checkpoint(run.best, state)
    save_checkpoint(run.last, replace(state, network=last))
    return run


def weights_of(settings: Settings, seed: int) -> dict[str, torch.Tensor]:
    torch.manual_seed(seed)
    weights = build_network(settings).state_dict()
    for name in settings.branches:
        weights[f"branches.{name}.head.1.weight"] *= 100
    return weights


def run_on(
    run: RunFolder,
    opened: Store,
    split: str,
    interval: float,
    wanted: list[Wanted] | None = None,
    checkpoint: Literal["best", "last"] = "best",
) -> Outputs:
    told: list[tuple[int, int]] = []
    chosen = wanted_of_split(opened, split) if wanted is None else wanted
    outputs = predict(
        run, opened, split, chosen, interval, "cpu", checkpoint, lambda done, total: told.append((done, total))
    )
    done, total = told[-1]
    assert done == total
    return outputs


@pytest.fixture(scope="module")
def opened(store: Path) -> Store:
    return open_store(store, EXPR)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    return make_run(tmp_path_factory.mktemp("inference") / "run")


@pytest.fixture(scope="module")
def exact(run: RunFolder, opened: Store) -> Outputs:
    """Every frame of the training split, which has two people and a sound that ends early."""
    return run_on(run, opened, "train", 0.0)


def test_the_table_keeps_the_contract(exact: Outputs, opened: Store, tmp_path: Path) -> None:
    write_outputs(tmp_path / "outputs.parquet", exact)
    read = read_outputs(tmp_path / "outputs.parquet")
    assert (read.split, read.branches) == (
        "train",
        dict.fromkeys(BRANCHES, Source("the signature", tuple(PRIOR), "best")),
    )
    videos = {video.name: video.frames for video in opened.split("train")}
    assert [video.name for video in read.videos()] == sorted(videos)
    for video in read.videos():
        frames = videos[video.name]
        assert video.frame.tolist() == list(range(1, len(frames) + 1))
        assert video.time.tolist() == frames.time.tolist()
        assert video.label.tolist() == frames.label.tolist()
        assert video.crop.tolist() == frames.has_crop.tolist()


def test_rows_are_null_exactly_where_the_modality_is_missing(exact: Outputs, opened: Store) -> None:
    index = FrameIndex(sorted(opened.split("train"), key=lambda video: video.name), EXPR)
    for name in BRANCHES:
        missing = np.isnan(exact.branch(name))
        assert (missing.all(axis=1) == ~index.has[name]).all()
        assert (missing.any(axis=1) == ~index.has[name]).all()
        assert 0 < missing.all(axis=1).sum() < len(missing)  # the corpus has both


def one_by_one(run: RunFolder, opened: Store, settings: Settings, places: np.ndarray) -> dict[str, np.ndarray]:
    """What the run's network says of frames of the training split, each in a batch of its own."""
    network = build_network(settings).eval()
    network.load_state_dict(load_checkpoint(run.best).network)
    index = FrameIndex(sorted(opened.split("train"), key=lambda video: video.name), EXPR)
    windows = reader(network, index, settings.data, cut_for_prediction)
    found: dict[str, list[np.ndarray]] = {name: [] for name in BRANCHES}
    with torch.inference_mode():
        for raw in load(windows, [Samples(places[row : row + 1]) for row in range(len(places))], workers=0):
            batch = windows.on(torch.device("cpu"), raw)
            for name, vote in network(**batch.given).items():
                found[name].append(vote.value[0].exp().numpy() if vote.present else np.full(8, np.nan))
    return {name: np.stack(rows) for name, rows in found.items()}


def test_interval_0_is_the_network_on_every_frame(exact: Outputs, run: RunFolder, opened: Store) -> None:
    found = one_by_one(run, opened, SETTINGS, np.arange(len(exact.table)))
    for name in BRANCHES:
        np.testing.assert_allclose(exact.branch(name), found[name], atol=CLOSE)
        assert np.nanstd(exact.branch(name), axis=0).max() > 100 * CLOSE  # frames differ by more than the tolerance


def test_a_run_that_heard_neighbours_together_hears_recordings_in_one_pass(
    exact: Outputs, opened: Store, tmp_path: Path
) -> None:
    """As each frame gets it alone; pictures do not care."""
    run = make_run(tmp_path / "run", ONE_PASS)
    whole = run_on(run, opened, "train", 0.0)
    places = np.arange(0, len(whole.table), 29)
    found = one_by_one(run, opened, ONE_PASS, places)
    for name in BRANCHES:
        np.testing.assert_allclose(whole.branch(name)[places], found[name], atol=CLOSE)
    np.testing.assert_allclose(whole.branch("visual"), exact.branch("visual"), atol=CLOSE)
    assert np.nanmax(np.abs(whole.branch("audio") - exact.branch("audio"))) > 100 * CLOSE  # the padding was silence


def test_the_last_checkpoint_can_be_asked_for(run: RunFolder, opened: Store, tmp_path: Path) -> None:
    """Where it keeps a moving mean of the weights, that is what predicts."""
    best, last = (run_on(run, opened, "val", 1.0, checkpoint=name) for name in ("best", "last"))
    averaged = make_run(tmp_path / "run")
    checkpoint = load_checkpoint(averaged.last)
    save_checkpoint(averaged.last, replace(checkpoint, ema=weights_of(SETTINGS, 4)))
    mean = run_on(averaged, opened, "val", 1.0, checkpoint="last")
    for name in BRANCHES:
        np.testing.assert_array_equal(mean.branch(name), best.branch(name))
        assert np.nanmax(np.abs(last.branch(name) - best.branch(name))) > 100 * CLOSE


@pytest.mark.parametrize("interval", [0.35, 1.0])
def test_frames_between_predicted_ones_are_interpolated_in_time(
    interval: float, exact: Outputs, run: RunFolder, opened: Store
) -> None:
    coarse = run_on(run, opened, "train", interval)
    same = ["video", "frame", "time", "crop", "label"]
    pd.testing.assert_frame_equal(coarse.table[same], exact.table[same])
    seen = np.zeros(len(exact.table), bool)
    for name in BRANCHES:
        table = exact.table[~np.isnan(exact.branch(name)[:, 0])]
        cells = table.assign(cell=np.floor(table["time"] / interval)).groupby(["video", "cell"], observed=True)
        seen[cells.head(1).index] = True
    assert 0 < seen.sum() < len(seen) / 2
    for name in BRANCHES:
        dense, sparse = exact.branch(name), coarse.branch(name)
        for _, rows in exact.table.groupby("video", observed=True):
            places = rows.index.to_numpy()
            has = places[~np.isnan(dense[places, 0])]
            anchors, time = has[seen[has]], exact.table["time"].to_numpy()
            expected = np.full((len(places), 8), np.nan)
            expected[np.isin(places, has)] = np.stack(
                [np.interp(time[has], time[anchors], dense[anchors, c]) for c in range(8)], axis=1
            )
            np.testing.assert_allclose(sparse[places], expected, atol=CLOSE)


def test_interpolation_is_linear_held_at_the_ends_and_skips_what_is_missing() -> None:
    time, known = np.array([0.0, 1.0, 1.5, 2.0, 5.0]), np.array([1.0, 1.6, 2.0])
    p = np.array([[1.0, 0.0], [np.nan, np.nan], [0.0, 1.0]], np.float32)
    assert interpolate(time, known, p)[:, 0].tolist() == [1.0, 1.0, 0.5, 0.0, 0.0]
    assert interpolate(time, known, p).sum(axis=1).tolist() == [1.0] * 5
    nothing = interpolate(time, known, np.full((3, 2), np.nan, np.float32))
    assert nothing.shape == (5, 2)
    assert np.isnan(nothing).all()


def test_a_branch_that_was_not_trained_is_not_there(opened: Store, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", SETTINGS.only(("visual",)))
    outputs = run_on(run, opened, "test", 1.0)
    assert list(outputs.branches) == ["visual"]
    assert (outputs.table[branch_columns("visual", EXPR)].notna().all(axis=1) == outputs.table["crop"]).all()
    write_outputs(tmp_path / "outputs.parquet", outputs)


def test_videos_without_the_modality_of_the_run_get_no_numbers(opened: Store, tmp_path: Path) -> None:
    """The test video has no sound."""
    run = make_run(tmp_path / "run", SETTINGS.only(("audio",)))
    wanted = wanted_of_split(opened, "test")
    outputs = predict(run, opened, "test", wanted, 1.0, "cpu", "best", lambda done, total: None)
    assert len(outputs.table) == sum(len(item.frames) for item in wanted)
    assert np.isnan(outputs.branch("audio")).all()
    write_outputs(tmp_path / "outputs.parquet", outputs)


# Templates


def test_a_template_gets_a_row_for_each_of_its_rows(run: RunFolder, opened: Store, release: Path) -> None:
    template = read_template(next(release.rglob("*_test_set_sample.txt")))
    wanted = wanted_by_name(opened, "test", {name: rows.frames for name, rows in template.videos.items()})
    rows = run_on(run, opened, "test", 1.0, wanted).table
    assert [f"{video}/{frame:05d}.jpg" for video, frame in zip(rows["video"], rows["frame"], strict=True)] == sorted(
        template.rows.to_pylist()
    )


def test_rows_beyond_the_video_have_nothing_but_a_time(run: RunFolder, opened: Store) -> None:
    (video,) = opened.split("test")
    count, last = len(video.frames), float(video.frames.time[-1])
    asked = np.array([count + 3, 1, count, count + 1, 5])
    table = run_on(run, opened, "test", 1.0, wanted_by_name(opened, "test", {video.name: asked})).table
    assert table["frame"].tolist() == sorted(asked)
    step = last / (count - 1)
    assert table["time"].tolist()[-3:] == pytest.approx([last, last + step, last + 3 * step])
    beyond = table["frame"] > count
    assert beyond.sum() == 2
    probabilities = [column for name in BRANCHES for column in branch_columns(name, EXPR)]
    assert table.loc[beyond, probabilities].isna().all(axis=None)
    assert not table.loc[beyond, "crop"].any()
    assert (table.loc[beyond, "label"] == -1).all()
    assert table.loc[~beyond & table["crop"], branch_columns("visual", EXPR)].notna().all(axis=None)


@pytest.mark.parametrize("settings", [SETTINGS, ONE_PASS])
def test_the_frames_asked_for_do_not_change_what_they_get(settings: Settings, opened: Store, tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", settings)
    (video,) = opened.split("test")
    whole = run_on(run, opened, "test", 0.5).table
    part = run_on(run, opened, "test", 0.5, wanted_by_name(opened, "test", {video.name: np.array([7, 30])})).table
    expected = whole[whole["frame"].isin([7, 30])].reset_index(drop=True)
    pd.testing.assert_frame_equal(part, expected, check_categorical=False, atol=CLOSE)


def test_a_video_that_the_store_lacks_is_named(opened: Store) -> None:
    rows = {opened.videos[0].name: np.array([1]), "nobody": np.array([1, 2])}
    with pytest.raises(StoreError, match=r"/store: the store lacks 1 videos: nobody\. Prepare a release that has"):
        wanted_by_name(opened, "test", rows)


# Runs that cannot predict


def test_a_folder_that_is_no_run_is_refused(opened: Store, tmp_path: Path) -> None:
    with pytest.raises(RunError, match=f"{tmp_path}: is not a run folder; expected a folder with settings.yaml"):
        run_on(RunFolder(tmp_path), opened, "val", 1.0)


def test_a_run_without_a_checkpoint_is_refused(opened: Store, tmp_path: Path) -> None:
    save_settings(SETTINGS, tmp_path / "settings.yaml")
    with pytest.raises(RunError, match=r"best\.pt: cannot be read \(No such file"):
        run_on(RunFolder(tmp_path), opened, "val", 1.0)


def test_a_checkpoint_of_other_settings_is_refused(run: RunFolder, opened: Store, tmp_path: Path) -> None:
    other = make_run(tmp_path / "run", replace(SETTINGS, model=ModelSettings(attention=False)))
    save_settings(SETTINGS, other.settings)
    with pytest.raises(RunError, match=r"best\.pt: does not fit the settings of its run"):
        run_on(other, opened, "val", 1.0)
