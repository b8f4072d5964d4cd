"""Which frames an epoch draws, in which order, and what each process takes of them."""

import tempfile
from copy import copy
from dataclasses import replace
from itertools import chain
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as settings_of_hypothesis
from hypothesis import strategies as st

from abaw_expr.data.batches.frames import Draws, FrameIndex
from abaw_expr.data.batches.sampling import Frames, draw_epoch, flatten, split_steps, usable_frames
from abaw_expr.data.store.store import Frames as StoredFrames
from abaw_expr.data.store.store import StoredVideo, write_frames
from abaw_expr.settings import ComputeSettings, DataSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from tests.data.batches.test_windows import stored
from tests.helpers.fitting import AUDIO, SETTINGS, fit, opened


@pytest.fixture(scope="module")
def frames(store: Path) -> Frames:
    return usable_frames(opened(store), "train", SETTINGS)


def drawing(**changes: object) -> Settings:
    """Settings that draw as these data settings say."""
    data = DataSettings(**({"interval": 0.0} | changes))  # type: ignore[arg-type]
    return replace(SETTINGS, data=data)


def counts(values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(values, minlength=size).astype(float)


# Weights and shares


@pytest.mark.parametrize(("balance", "video_balance"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_a_frame_weighs_by_the_sizes_of_its_class_and_video(
    balance: float, video_balance: float, frames: Frames
) -> None:
    index, usable = frames.index, frames.usable
    places = np.flatnonzero(usable)[::7]
    chances = frames.chances(DataSettings(interval=0, balance=balance, video_balance=video_balance), places, 0)
    assert chances.sum() == pytest.approx(1)
    alike = np.array([(usable & (index.label == index.label[place])).sum() for place in places], float)
    beside = np.array([(usable & (index.video == index.video[place])).sum() for place in places], float)
    expected = alike**-balance * beside**-video_balance
    assert chances == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_class_shares_are_those_of_the_frames_that_are_drawn(balance: float, frames: Frames) -> None:
    labels = counts(frames.index.label[frames.usable], 8)
    expected = np.where(labels > 0, labels ** (1 - balance), 0) / (labels[labels > 0] ** (1 - balance)).sum()
    settings = drawing(balance=balance)
    assert frames.class_shares(settings.data, EXPR) == pytest.approx(expected)
    drawn = np.concatenate([draw_epoch(frames, settings, epoch).place for epoch in range(20)])
    assert counts(frames.index.label[drawn], 8) / len(drawn) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("video_balance", [0.5, 1.0])
def test_videos_are_evened_out(video_balance: float, frames: Frames) -> None:
    # As if most frames of two videos were not annotated, so that the third swamps them.
    rare = frames.usable & ((frames.index.video == 0) | (frames.index.row % 8 == 0))
    uneven = Frames(frames.index, rare)
    sizes = counts(frames.index.video[rare], 3)
    expected = sizes ** (1 - video_balance) / (sizes ** (1 - video_balance)).sum()
    settings = drawing(video_balance=video_balance)
    drawn = np.concatenate([draw_epoch(uneven, settings, epoch).place for epoch in range(40)])
    assert rare[drawn].all()
    assert counts(frames.index.video[drawn], 3) / len(drawn) == pytest.approx(expected, abs=0.03)


def test_the_run_keeps_the_prior_that_its_loss_weighs_by(store: Path, frames: Frames, tmp_path: Path) -> None:
    settings = replace(AUDIO, data=replace(AUDIO.data, interval=2.0), loss=LossSettings(class_weight=0.5))
    run = fit(opened(store), tmp_path / "run", settings)
    drawn = np.array(usable_frames(opened(store), "train", settings).class_shares(settings.data, EXPR))
    assert load_checkpoint(run.best).prior == pytest.approx(drawn**0.5 / (drawn**0.5).sum())


# Frames a second


@pytest.fixture
def mixed(tmp_path: Path) -> Frames:
    """A minute of class 0 at 30 frames a second, and one of class 1 at 7.5."""
    videos = []
    for label, rate in ((0, 30.0), (1, 7.5)):
        time = np.arange(round(60 * rate)) / rate
        size, offset = np.ones(len(time), np.int32), np.zeros(len(time), np.int64)
        labels = np.full(len(time), label, np.int8)
        write_frames(tmp_path / f"{rate:g}.parquet", StoredFrames(time, labels, offset, size))
        videos.append(StoredVideo(f"{rate:g}", "train", tmp_path, None, None))
    index = FrameIndex(videos)
    return Frames(index, np.ones(len(index), bool))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("interval", [0.2, 0.3, 1.0])
def test_frames_a_second_have_no_say_in_the_classes_drawn(balance: float, interval: float, mixed: Frames) -> None:
    """Both classes last a minute, so an epoch has as many frames of each, and so has the prior."""
    settings = drawing(interval=interval, balance=balance)
    assert mixed.class_shares(settings.data, EXPR)[:2] == pytest.approx([0.5, 0.5], abs=0.01)
    drawn = np.concatenate([draw_epoch(mixed, settings, epoch).place for epoch in range(20)])
    assert counts(mixed.index.label[drawn], 2) / len(drawn) == pytest.approx([0.5, 0.5], abs=0.03)


def test_every_frame_makes_four_of_the_faster_video_where_none_is_left_out(mixed: Frames) -> None:
    assert mixed.class_shares(drawing(balance=0.0).data, EXPR)[:2] == pytest.approx([0.8, 0.2])
    assert mixed.class_shares(drawing(balance=1.0).data, EXPR)[:2] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("grid", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("changes", [{"balance": 0.5}, {"balance": 1.0, "video_balance": 0.5}, {"video_balance": 1.0}])
def test_frames_of_another_grid_are_drawn_as_the_epochs_draw(
    grid: float, changes: dict[str, float], mixed: Frames
) -> None:
    """Heads are trained on one grid of their own, with the chances of the classes and videos of training."""
    data = drawing(interval=0.3, **changes).data
    label = (mixed.index.time < 20).astype(np.int8)  # so that each video has both classes
    mixed = Frames(mixed.index, mixed.usable)
    mixed.index.label = label
    places = mixed.index.at_intervals(mixed.usable, grid)
    chances = mixed.chances(data, places, grid)
    assert np.bincount(label[places], chances) == pytest.approx(mixed.class_shares(data, EXPR)[:2], abs=0.01)
    assert np.bincount(mixed.index.video[places], chances) == pytest.approx([0.5, 0.5], abs=0.01)


@settings_of_hypothesis(max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 30), st.randoms(use_true_random=False))
def test_frequency_is_the_mean_of_the_grids_over_their_phases(gaps: list[int], interval: int, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        time = np.cumsum(gaps) / 100
        none = np.zeros(len(time), np.int32)
        write_frames(Path(folder) / "v.parquet", StoredFrames(time, none.astype(np.int8), none.astype(np.int64), none))
        index = FrameIndex([StoredVideo("v", "train", Path(folder), None, None)])
    usable = np.array([random.random() < 0.7 for _ in gaps])
    phases = (np.arange(interval) + 0.5) / interval  # one between each two borders that a frame can have
    grids = [np.isin(np.arange(len(time)), index.at_intervals(usable, interval / 100, phase)) for phase in phases]
    assert index.frequency(usable, interval / 100) == pytest.approx(np.mean(grids, axis=0), abs=2e-6)


# Epochs


def test_shares_are_those_of_what_groups_of_neighbours_bring_along(tmp_path: Path) -> None:
    """A rare class that balance draws often brings the frames around it, which are of the other class."""
    label = [1 if frame % 40 < 2 else 0 for frame in range(400)]
    index = FrameIndex([stored(tmp_path, (np.arange(400) / 10).tolist(), label)])
    frames, settings = Frames(index, np.ones(400, bool)), drawing(neighbours=4, interval=0.1, balance=1.0)
    drawn = np.concatenate([index.label[draw_epoch(frames, settings, epoch).place] for epoch in range(200)])
    found = frames.class_shares(settings.data, EXPR)
    assert found[1] == pytest.approx((drawn == 1).mean(), abs=0.01)
    assert 0.1 < found[1] < 0.4


def test_an_epoch_takes_every_usable_frame_once_at_interval_0(frames: Frames) -> None:
    draws = draw_epoch(frames, drawing(), 1)
    places = draws.place.tolist()
    assert sorted(places) == np.flatnonzero(frames.usable).tolist()
    assert places != sorted(places)
    assert draws.noise is not None
    assert len(np.unique(draws.noise, axis=0)) == len(draws)
    assert ((draws.noise >= 0) & (draws.noise < 1)).all()


def test_an_epoch_takes_one_frame_an_interval_of_a_moving_grid(frames: Frames) -> None:
    settings = drawing(interval=1.0)
    epochs = [np.sort(draw_epoch(frames, settings, epoch).place) for epoch in range(1, 9)]
    for places in epochs:
        assert frames.usable[places].all()
        for video in range(len(frames.index.videos)):
            times = frames.index.time[places[frames.index.video[places] == video]]
            end = frames.index.time[frames.index.video == video][-1]
            assert 1 <= len(times) <= end + 2
            assert (times[2:] - times[:-2] > 1).all()  # cells of a second: from one to the next but one is more
    assert len({tuple(places) for places in epochs}) > 1


def test_an_epoch_is_drawn_from_the_seed_and_its_number(frames: Frames) -> None:
    settings = drawing(interval=0.3, balance=0.5, neighbours=4)

    def drawn(seed: int, epoch: int) -> tuple[bytes, bytes]:
        draws = draw_epoch(frames, replace(settings, seed=seed), epoch)
        assert draws.noise is not None
        return draws.place.tobytes(), draws.noise.tobytes()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 1), drawn(0, 2), drawn(1, 1)}) == 3


@pytest.mark.parametrize("changes", [{"balance": 1.0}, {"balance": 1.0, "interval": 0.3}])
@pytest.mark.parametrize("neighbours", [2, 4, 8])
def test_a_group_has_the_frame_that_was_drawn(neighbours: int, changes: dict[str, float], frames: Frames) -> None:
    """Where only one video has a class, as many groups lie in that video as draw the class."""
    index, only = frames.index, frames.index.video == 1
    label = np.where(only, 1, 0).astype(np.int8)
    one = Frames(copy(index), frames.usable)
    one.index.label = label
    settings = drawing(neighbours=neighbours, **changes)
    draws = [draw_epoch(one, settings, epoch).place for epoch in range(10)]
    groups = label[np.concatenate(draws)].reshape(-1, neighbours)
    assert (groups == groups[:, :1]).all()
    assert groups[:, 0].mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("changes", [{}, {"balance": 1.0}, {"video_balance": 1.0, "interval": 0.3}])
@pytest.mark.parametrize("neighbours", [2, 8])
def test_neighbours_are_frames_in_a_row_of_one_video(
    neighbours: int, changes: dict[str, float], frames: Frames
) -> None:
    settings = drawing(neighbours=neighbours, **changes)
    for epoch in range(1, 5):
        rng = np.random.default_rng([settings.seed, epoch])
        places = frames.index.at_intervals(frames.usable, settings.data.interval, rng.random())
        draws = draw_epoch(frames, settings, epoch)
        assert len(draws) == -(-len(places) // neighbours) * neighbours
        groups = np.searchsorted(places, draws.place).reshape(-1, neighbours)
        assert (np.diff(groups, axis=1) == 1).all()
        videos = frames.index.video[draws.place].reshape(-1, neighbours)
        assert (videos == videos[:, :1]).all()


def test_without_balance_groups_of_neighbours_cover_the_grid(frames: Frames) -> None:
    settings = drawing(neighbours=8)
    missed = [set(np.flatnonzero(frames.usable)) - set(draw_epoch(frames, settings, epoch).place) for epoch in range(4)]
    # As many groups as cover all frames of all videos laid end to end: the last of each video may be one too many.
    assert all(len(places) <= 8 * (len(frames.index.videos) - 1) for places in missed)


def test_a_video_of_fewer_frames_than_neighbours_repeats_its_last(frames: Frames) -> None:
    first = {int(np.flatnonzero(frames.usable & (frames.index.video == video))[0]) for video in range(3)}
    few = Frames(frames.index, np.isin(np.arange(len(frames.index)), [*first, *(place + 1 for place in first)]))
    draws = draw_epoch(few, drawing(neighbours=4), 1)
    for group in draws.place.reshape(-1, 4):
        assert group[0] in first
        assert group.tolist() == [group[0], *[group[0] + 1] * 3]


# Processes and parts


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Draws, Settings, int]:
    """Draws of whole groups, settings that split them, and a number of processes."""
    group = draw(st.integers(1, 5))
    size = group * draw(st.integers(2 if group == 1 else 1, 8))
    part = draw(st.sampled_from([0, 2, 3, 4, 7, 64]))
    count = group * draw(st.integers(1, 60))
    noise = np.arange(count, dtype=np.float32)[:, None]
    settings = replace(
        SETTINGS,
        data=DataSettings(neighbours=group),
        optimiser=OptimiserSettings(batch_size=max(size, 2)),
        compute=ComputeSettings(part=part),
    )
    return Draws(np.arange(count) * 3, noise), settings, draw(st.integers(1, 5))


@given(layouts())
def test_all_processes_together_take_the_batch_in_its_order(layout: tuple[Draws, Settings, int]) -> None:
    draws, settings, processes = layout
    size, group = settings.optimiser.batch_size, settings.data.neighbours
    taken = [split_steps(draws, settings, process, processes) for process in range(processes)]
    assert {len(steps) for steps in taken} == {-(-len(draws) // size)}
    for number, parts in enumerate(zip(*taken, strict=True)):
        assert len({len(each) for each in parts}) == 1, "every process has as many parts: they go together"
        pieces = flatten(parts)
        batch = draws[number * size : (number + 1) * size]
        assert list(chain.from_iterable(piece.place for piece in pieces)) == batch.place.tolist()
        assert all(piece.noise is not None and (piece.noise[:, 0] * 3 == piece.place).all() for piece in pieces)
        sizes = [len(piece) for piece in pieces]
        assert all(piece % group == 0 for piece in sizes), "neighbours stay together"
        assert max(sizes) - min(sizes) <= group
        if settings.compute.part:
            assert max(sizes) <= -(-settings.compute.part // group) * group
        else:
            assert len(pieces) == processes


@given(layouts(), st.data())
def test_steps_do_not_depend_on_the_ones_before(layout: tuple[Draws, Settings, int], data: st.DataObject) -> None:
    """What is left after a resume is what was left before it."""
    draws, settings, processes = layout
    steps = split_steps(draws, settings, 0, processes)
    done = data.draw(st.integers(0, len(steps)))
    rest = split_steps(draws[done * settings.optimiser.batch_size :], settings, 0, processes)
    assert [part.place.tolist() for part in flatten(steps[done:])] == [part.place.tolist() for part in flatten(rest)]
