"""Which frames an epoch draws, in which order, and what each process reads of them."""

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

from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.sampling import UsableFrames, flatten, sample_epoch, split_steps, usable_frames
from abaw_expr.settings import ComputeSettings, DataSettings, LossSettings, OptimiserSettings, Settings
from abaw_expr.tasks.task import EXPR
from abaw_expr.training.checkpoint import load_checkpoint
from tests.data.batches.test_windows import stored
from tests.helpers.branches import BRANCHES
from tests.helpers.fitting import AUDIO, SETTINGS, fit, opened
from tests.helpers.stored import write_tables


@pytest.fixture(scope="module")
def frames(store: Path) -> UsableFrames:
    return usable_frames(opened(store), "train", EXPR, BRANCHES)


def sampling_settings(**changes: object) -> Settings:
    """Settings with these data settings."""
    data = DataSettings(**({"stride": 0.0} | changes))  # type: ignore[arg-type]
    return replace(SETTINGS, data=data)


def counts(values: np.ndarray, size: int) -> np.ndarray:
    return np.bincount(values, minlength=size).astype(float)


# Probabilities and class fractions


@pytest.mark.parametrize(("balance", "video_balance"), [(0.0, 0.0), (0.5, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_a_frame_weighs_by_the_sizes_of_its_class_and_video(
    balance: float, video_balance: float, frames: UsableFrames
) -> None:
    index, usable = frames.frame_index, frames.usable
    indices = np.flatnonzero(usable)[::7]
    probabilities = frames.probabilities(
        DataSettings(stride=0, balance=balance, video_balance=video_balance), indices, 0
    )
    assert probabilities.sum() == pytest.approx(1)
    alike = np.array([(usable & (index.label == index.label[i])).sum() for i in indices], float)
    beside = np.array([(usable & (index.video == index.video[i])).sum() for i in indices], float)
    expected = alike**-balance * beside**-video_balance
    assert probabilities == pytest.approx(expected / expected.sum())


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
def test_class_fractions_are_those_of_the_frames_that_are_drawn(balance: float, frames: UsableFrames) -> None:
    labels = counts(frames.frame_index.label[frames.usable], 8)
    expected = np.where(labels > 0, labels ** (1 - balance), 0) / (labels[labels > 0] ** (1 - balance)).sum()
    settings = sampling_settings(balance=balance)
    assert frames.mean_label(settings) == pytest.approx(expected)
    drawn = np.concatenate([sample_epoch(frames, settings, epoch).indices for epoch in range(20)])
    assert counts(frames.frame_index.label[drawn], 8) / len(drawn) == pytest.approx(expected, abs=0.03)


@pytest.mark.parametrize("video_balance", [0.5, 1.0])
def test_videos_are_evened_out(video_balance: float, frames: UsableFrames) -> None:
    # As if most frames of two videos were not annotated, so that the third has nearly all.
    rare = frames.usable & ((frames.frame_index.video == 0) | (frames.frame_index.row % 8 == 0))
    uneven = UsableFrames(frames.frame_index, rare)
    sizes = counts(frames.frame_index.video[rare], 3)
    expected = sizes ** (1 - video_balance) / (sizes ** (1 - video_balance)).sum()
    settings = sampling_settings(video_balance=video_balance)
    drawn = np.concatenate([sample_epoch(uneven, settings, epoch).indices for epoch in range(40)])
    assert rare[drawn].all()
    assert counts(frames.frame_index.video[drawn], 3) / len(drawn) == pytest.approx(expected, abs=0.03)


@pytest.mark.slow
def test_the_run_keeps_the_prior_that_its_loss_weighs_by(store: Path, frames: UsableFrames, tmp_path: Path) -> None:
    settings = replace(AUDIO, data=replace(AUDIO.data, stride=2.0), loss=LossSettings(class_weight=0.5))
    run = fit(opened(store), tmp_path / "run", settings)
    drawn = np.array(usable_frames(opened(store), "train", EXPR, ("audio",)).mean_label(settings))
    assert load_checkpoint(run.best).prior == pytest.approx(drawn**0.5 / (drawn**0.5).sum())


# Frame rates


@pytest.fixture
def mixed(tmp_path: Path) -> UsableFrames:
    """A minute of class 0 at 30 frames a second, and one of class 1 at 7.5."""
    videos = []
    for label, rate in ((0, 30.0), (1, 7.5)):
        time = np.arange(round(60 * rate)) / rate
        size, offset = np.ones(len(time), np.int32), np.zeros(len(time), np.int64)
        labels = np.full(len(time), label, np.int8)
        videos.append(write_tables(tmp_path, f"{rate:g}", time, labels, offset, size))
    index = FrameIndex(videos, EXPR)
    return UsableFrames(index, np.ones(len(index), bool))


@pytest.mark.parametrize("balance", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("stride", [0.2, 0.3, 1.0])
def test_the_frame_rate_does_not_change_the_classes_drawn(balance: float, stride: float, mixed: UsableFrames) -> None:
    """Both classes last a minute, so an epoch has as many frames of each, and so has the prior."""
    settings = sampling_settings(stride=stride, balance=balance)
    assert mixed.mean_label(settings)[:2] == pytest.approx([0.5, 0.5], abs=0.01)
    drawn = np.concatenate([sample_epoch(mixed, settings, epoch).indices for epoch in range(20)])
    assert counts(mixed.frame_index.label[drawn], 2) / len(drawn) == pytest.approx([0.5, 0.5], abs=0.03)


def test_every_frame_makes_four_of_the_faster_video_where_none_is_left_out(mixed: UsableFrames) -> None:
    assert mixed.mean_label(sampling_settings(balance=0.0))[:2] == pytest.approx([0.8, 0.2])
    assert mixed.mean_label(sampling_settings(balance=1.0))[:2] == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("grid", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("changes", [{"balance": 0.5}, {"balance": 1.0, "video_balance": 0.5}, {"video_balance": 1.0}])
def test_frames_of_another_grid_are_drawn_as_the_epochs_draw(
    grid: float, changes: dict[str, float], mixed: UsableFrames
) -> None:
    """Heads are trained on a grid of their own, with the class and video probabilities of training."""
    settings = sampling_settings(stride=0.3, **changes)
    label = (mixed.frame_index.time < 20).astype(np.int8)  # so that each video has both classes
    mixed = UsableFrames(mixed.frame_index, mixed.usable)
    mixed.frame_index.label = label
    indices = mixed.frame_index.at_stride(mixed.usable, grid)
    probabilities = mixed.probabilities(settings.data, indices, grid)
    assert np.bincount(label[indices], probabilities) == pytest.approx(mixed.mean_label(settings)[:2], abs=0.01)
    assert np.bincount(mixed.frame_index.video[indices], probabilities) == pytest.approx([0.5, 0.5], abs=0.01)


@settings_of_hypothesis(max_examples=50)
@given(st.lists(st.integers(0, 40), min_size=1, max_size=60), st.integers(1, 30), st.randoms(use_true_random=False))
def test_frequency_is_the_mean_of_the_grids_over_their_phases(gaps: list[int], stride: int, random: Random) -> None:
    with tempfile.TemporaryDirectory() as folder:
        time = np.cumsum(gaps) / 100
        none = np.zeros(len(time), np.int32)
        none8, none64 = none.astype(np.int8), none.astype(np.int64)
        index = FrameIndex([write_tables(Path(folder), "v", time, none8, none64, none)], EXPR)
    usable = np.array([random.random() < 0.7 for _ in gaps])
    phases = (np.arange(stride) + 0.5) / stride  # one between every two edges that a frame can have
    grids = [np.isin(np.arange(len(time)), index.at_stride(usable, stride / 100, phase)) for phase in phases]
    assert index.frequency(usable, stride / 100) == pytest.approx(np.mean(grids, axis=0), abs=2e-6)


# Epochs


def test_class_fractions_count_the_frames_that_sequences_bring(tmp_path: Path) -> None:
    """A rare class that balancing draws often brings the frames around it, which are of the other class."""
    label = [1 if frame % 40 < 2 else 0 for frame in range(400)]
    index = FrameIndex([stored(tmp_path, (np.arange(400) / 10).tolist(), label)], EXPR)
    frames, settings = UsableFrames(index, np.ones(400, bool)), sampling_settings(sequence=4, stride=0.1, balance=1.0)
    drawn = np.concatenate([index.label[sample_epoch(frames, settings, epoch).indices] for epoch in range(200)])
    found = frames.mean_label(settings)
    assert found[1] == pytest.approx((drawn == 1).mean(), abs=0.01)
    assert 0.1 < found[1] < 0.4


def test_an_epoch_takes_every_usable_frame_once_at_stride_0(frames: UsableFrames) -> None:
    samples = sample_epoch(frames, sampling_settings(), 1)
    indices = samples.indices.tolist()
    assert sorted(indices) == np.flatnonzero(frames.usable).tolist()
    assert indices != sorted(indices)
    assert samples.noise is not None
    assert len(np.unique(samples.noise, axis=0)) == len(samples)
    assert ((samples.noise >= 0) & (samples.noise < 1)).all()


def test_an_epoch_takes_one_frame_a_stride_of_a_moving_grid(frames: UsableFrames) -> None:
    settings = sampling_settings(stride=1.0)
    epochs = [np.sort(sample_epoch(frames, settings, epoch).indices) for epoch in range(1, 9)]
    for indices in epochs:
        assert frames.usable[indices].all()
        for video in range(len(frames.frame_index.videos)):
            times = frames.frame_index.time[indices[frames.frame_index.video[indices] == video]]
            end = frames.frame_index.time[frames.frame_index.video == video][-1]
            assert 1 <= len(times) <= end + 2
            assert (times[2:] - times[:-2] > 1).all()  # cells of a second: from one to the next but one is more
    assert len({tuple(indices) for indices in epochs}) > 1


def test_an_epoch_is_drawn_from_the_seed_and_its_number(frames: UsableFrames) -> None:
    settings = sampling_settings(stride=0.3, balance=0.5, sequence=4)

    def drawn(seed: int, epoch: int) -> tuple[bytes, bytes]:
        samples = sample_epoch(frames, replace(settings, seed=seed), epoch)
        assert samples.noise is not None
        return samples.indices.tobytes(), samples.noise.tobytes()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 1), drawn(0, 2), drawn(1, 1)}) == 3


@pytest.mark.parametrize("changes", [{"balance": 1.0}, {"balance": 1.0, "stride": 0.3}])
@pytest.mark.parametrize("length", [2, 4, 8])
def test_a_sequence_has_the_frame_that_was_drawn(length: int, changes: dict[str, float], frames: UsableFrames) -> None:
    """Where only one video has a class, as many sequences lie in that video as draw the class."""
    index, only = frames.frame_index, frames.frame_index.video == 1
    label = np.where(only, 1, 0).astype(np.int8)
    one = UsableFrames(copy(index), frames.usable)
    one.frame_index.label = label
    settings = sampling_settings(sequence=length, **changes)
    samples = [sample_epoch(one, settings, epoch).indices for epoch in range(10)]
    sequences = label[np.concatenate(samples)].reshape(-1, length)
    assert (sequences == sequences[:, :1]).all()
    assert sequences[:, 0].mean() == pytest.approx(0.5, abs=0.06)


@pytest.mark.parametrize("changes", [{}, {"balance": 1.0}, {"video_balance": 1.0, "stride": 0.3}])
@pytest.mark.parametrize("length", [2, 8])
def test_a_sequence_has_consecutive_frames_of_one_video(
    length: int, changes: dict[str, float], frames: UsableFrames
) -> None:
    settings = sampling_settings(sequence=length, **changes)
    for epoch in range(1, 5):
        rng = np.random.default_rng([settings.seed, epoch])
        indices = frames.frame_index.at_stride(frames.usable, settings.data.stride, rng.random())
        samples = sample_epoch(frames, settings, epoch)
        assert len(samples) == -(-len(indices) // length) * length
        sequences = np.searchsorted(indices, samples.indices).reshape(-1, length)
        assert (np.diff(sequences, axis=1) == 1).all()
        videos = frames.frame_index.video[samples.indices].reshape(-1, length)
        assert (videos == videos[:, :1]).all()


def test_without_balance_sequences_cover_the_grid(frames: UsableFrames) -> None:
    settings = sampling_settings(sequence=8)
    missed = [
        set(np.flatnonzero(frames.usable)) - set(sample_epoch(frames, settings, epoch).indices) for epoch in range(4)
    ]
    # As many sequences as cover all frames of all videos laid end to end: the last of each video may be one too many.
    assert all(len(indices) <= 8 * (len(frames.frame_index.videos) - 1) for indices in missed)


def test_a_video_shorter_than_the_sequence_repeats_its_last_frame(frames: UsableFrames) -> None:
    first = {int(np.flatnonzero(frames.usable & (frames.frame_index.video == video))[0]) for video in range(3)}
    few = UsableFrames(
        frames.frame_index, np.isin(np.arange(len(frames.frame_index)), [*first, *(i + 1 for i in first)])
    )
    samples = sample_epoch(few, sampling_settings(sequence=4), 1)
    for sequence in samples.indices.reshape(-1, 4):
        assert sequence[0] in first
        assert sequence.tolist() == [sequence[0], *[sequence[0] + 1] * 3]


# Processes and micro-batches


@st.composite
def layouts(draw: st.DrawFn) -> tuple[Samples, Settings, int]:
    """Samples in whole sequences, settings that split them, and a number of processes."""
    sequence = draw(st.integers(1, 5))
    size = sequence * draw(st.integers(2 if sequence == 1 else 1, 8))
    micro_batch = draw(st.sampled_from([0, 2, 3, 4, 7, 64]))
    count = sequence * draw(st.integers(1, 60))
    noise = np.arange(count, dtype=np.float32)[:, None]
    settings = replace(
        SETTINGS,
        data=DataSettings(sequence=sequence),
        optimiser=OptimiserSettings(batch_size=max(size, 2)),
        compute=ComputeSettings(micro_batch=micro_batch),
    )
    return Samples(np.arange(count) * 3, noise), settings, draw(st.integers(1, 5))


@given(layouts())
def test_all_processes_together_take_the_batch_in_its_order(layout: tuple[Samples, Settings, int]) -> None:
    samples, settings, processes = layout
    size, sequence = settings.optimiser.batch_size, settings.data.sequence
    taken = [split_steps(samples, settings, process, processes) for process in range(processes)]
    assert {len(steps) for steps in taken} == {-(-len(samples) // size)}
    for number, micro_batches in enumerate(zip(*taken, strict=True)):
        assert len({len(each) for each in micro_batches}) == 1, (
            "every process has as many micro-batches: they are computed together"
        )
        pieces = flatten(micro_batches)
        batch = samples[number * size : (number + 1) * size]
        assert list(chain.from_iterable(piece.indices for piece in pieces)) == batch.indices.tolist()
        assert all(piece.noise is not None and (piece.noise[:, 0] * 3 == piece.indices).all() for piece in pieces)
        sizes = [len(piece) for piece in pieces]
        assert all(piece % sequence == 0 for piece in sizes), "sequences stay whole"
        assert max(sizes) - min(sizes) <= sequence
        if settings.compute.micro_batch:
            assert max(sizes) <= -(-settings.compute.micro_batch // sequence) * sequence
        else:
            assert len(pieces) == processes


@given(layouts(), st.data())
def test_steps_do_not_depend_on_the_ones_before(layout: tuple[Samples, Settings, int], data: st.DataObject) -> None:
    """What is left after a resume is what was left before it."""
    samples, settings, processes = layout
    steps = split_steps(samples, settings, 0, processes)
    done = data.draw(st.integers(0, len(steps)))
    rest = split_steps(samples[done * settings.optimiser.batch_size :], settings, 0, processes)
    assert [micro_batch.indices.tolist() for micro_batch in flatten(steps[done:])] == [
        micro_batch.indices.tolist() for micro_batch in flatten(rest)
    ]
