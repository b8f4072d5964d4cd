"""Stretches for temporal models: which frames they have, and how an epoch draws them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st

from abaw_expr.data.batches.frame_index import FrameIndex, Samples
from abaw_expr.data.batches.sampling import UsableFrames, sample_epoch, usable_frames
from abaw_expr.data.batches.stretches import Stretches, cut_stretches, time_grid
from abaw_expr.data.store.mixture import mix
from abaw_expr.data.store.store import Extra, Frames, Store, StoredVideo
from abaw_expr.settings import DataSettings, OptimiserSettings, Settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from tests.helpers.networks import over_time

RATE = 10
"""Frames a second of the videos here."""


def video(name: str, labels: Sequence[object] | np.ndarray, dtype: type = np.int8) -> StoredVideo:
    """A training video with audio throughout and these labels, [T] or [T, F]."""
    label: np.ndarray = np.array(labels, dtype)
    made = StoredVideo(name, "train", Path(), np.zeros(64, np.float32), np.ones(64, np.float32))
    none, times = np.zeros(len(label), np.int64), np.arange(len(label)) / RATE
    audio = np.zeros((1 + int(len(label) / RATE / 0.016), 64), np.float16)
    vars(made).update(frames=Frames(times, label, none, none.astype(np.int32)), audio=audio)
    return made


def usable_of(videos: Sequence[StoredVideo], task: Task = EXPR) -> UsableFrames:
    return usable_frames(Store(Path(), "0", tuple(videos)), "train", task, ["audio"])


def settings_of(task: Task = EXPR, **data: float) -> Settings:
    """A temporal model over stretches, with these data settings."""
    base = replace(Settings(), task=task.name, optimiser=OptimiserSettings(batch_size=240))
    sequence = int(data.pop("sequence", 4))
    long = over_time("tcn", sequence, base)
    changes: dict[str, Any] = {"stride": 1 / RATE} | data
    return replace(long, data=replace(long.data, **changes))


def rows_of(samples: Samples, size: int) -> Stretches:
    """The samples of an epoch as the stretches that they are."""
    assert samples.beyond is not None
    return Stretches(samples.indices.reshape(-1, size), samples.beyond.reshape(-1, size))


# The stretches of a grid


@st.composite
def grids(draw: st.DrawFn) -> tuple[FrameIndex, np.ndarray, DataSettings]:
    """Some videos, a grid of some of their frames, and a cut."""
    lengths = draw(st.lists(st.integers(1, 40), min_size=1, max_size=4))
    index = FrameIndex([video(str(i), [0] * length) for i, length in enumerate(lengths)], EXPR)
    kept = draw(st.lists(st.integers(0, len(index) - 1), min_size=1, max_size=len(index), unique=True))
    size = draw(st.integers(2, 12))
    return index, np.sort(kept), DataSettings(sequence=size, hop=draw(st.integers(0, size)))


@given(grids())
def test_stretches_cover_every_frame_of_the_grid_and_lie_in_one_video(
    case: tuple[FrameIndex, np.ndarray, DataSettings],
) -> None:
    index, grid, data = case
    cut = cut_stretches(index, grid, data)
    assert cut.indices.shape == cut.beyond.shape == (len(cut), data.sequence)
    assert set(cut.indices[~cut.beyond].tolist()) == set(grid.tolist())
    videos = index.video[cut.indices]
    assert (videos == videos[:, :1]).all()
    assert not cut.beyond[:, 0].any(), "every stretch begins with a frame"


@given(grids())
def test_stretches_step_by_the_hop_to_the_first_that_reaches_the_end(
    case: tuple[FrameIndex, np.ndarray, DataSettings],
) -> None:
    """Written out: a stretch begins every hop frames of its video, until one has the last frame."""
    index, grid, data = case
    size, hop, expected = data.sequence, data.hop or data.sequence, []
    for number in np.unique(index.video[grid]):
        own = grid[index.video[grid] == number].tolist()
        start = 0
        while True:
            frames = own[start : start + size]
            expected.append((frames + [own[-1]] * (size - len(frames)), len(frames)))
            if start + size >= len(own):
                break
            start += hop
    cut = cut_stretches(index, grid, data)
    assert cut.indices.tolist() == [frames for frames, _ in expected]
    assert cut.beyond.tolist() == [[place >= count for place in range(size)] for _, count in expected]


@given(st.integers(1, 7), st.integers(0, 8))
def test_a_video_shorter_than_the_stretch_gives_one_that_is_filled_up(length: int, hop: int) -> None:
    index = FrameIndex([video("a", [0] * length), video("b", [0] * 8)], EXPR)
    cut = cut_stretches(index, np.arange(len(index)), DataSettings(sequence=8, hop=hop))
    assert len(cut) == 2
    assert cut.indices[0].tolist() == [*range(length), *[length - 1] * (8 - length)]
    assert cut.beyond[0].tolist() == [False] * length + [True] * (8 - length)
    assert cut.indices[1].tolist() == [*range(length, length + 8)]
    assert not cut.beyond[1].any()


def test_some_of_the_stretches_are_those_rows() -> None:
    index = FrameIndex([video("a", [0] * 10)], EXPR)
    cut = cut_stretches(index, np.arange(10), DataSettings(sequence=4))
    assert len(cut) == 3
    some = cut[np.array([2, 0, 2])]
    assert some.indices.tolist() == [[8, 9, 9, 9], [0, 1, 2, 3], [8, 9, 9, 9]]
    assert some.beyond.tolist() == [[False, False, True, True], [False] * 4, [False, False, True, True]]


def test_the_clock_of_a_temporal_model_does_not_depend_on_what_frames_have() -> None:
    """Frames that are not annotated, or lack every modality, are on it too."""
    labels = [0, -1, -1, 3, -1, -1, -1, -1, -1, -1, -1, -1]
    one, same = (FrameIndex([video("a", own)], EXPR) for own in (labels, [0] * len(labels)))
    for phase in (0.0, 0.4):
        grid = time_grid(one, 0.3, phase)
        assert grid.tolist() == time_grid(same, 0.3, phase).tolist()
        assert len(grid) in (4, 5)
    assert time_grid(one, 0.3).tolist() == [0, 3, 6, 9]


# Epochs


@st.composite
def corpora(draw: st.DrawFn) -> list[StoredVideo]:
    """Videos in which many frames are not annotated, at least one is."""
    label = st.sampled_from([-1, -1, -1, 0, 1, 5])
    videos = draw(st.lists(st.lists(label, min_size=1, max_size=30), min_size=1, max_size=4))
    return [video(str(i), labels) for i, labels in enumerate([[2], *videos])]


@examples(max_examples=40)
@given(
    corpora(),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([(4, 0), (4, 1), (8, 3), (2, 2)]),
    st.sampled_from([0.1, 0.2]),
    st.integers(1, 5),
)
def test_an_epoch_has_stretches_with_a_usable_frame_only(
    videos: list[StoredVideo],
    balance: float,
    video_balance: float,
    cut: tuple[int, int],
    stride: float,
    epoch: int,
) -> None:
    frames, (size, hop) = usable_of(videos), cut
    settings = settings_of(balance=balance, video_balance=video_balance, stride=stride, sequence=size, hop=hop)
    phase = np.random.default_rng([settings.seed, epoch]).random()
    if not frames.usable[time_grid(frames.frame_index, stride, phase)].any():
        return  # the grid of this epoch has no usable frame
    known, _ = frames.stretches(settings.data, phase)
    samples = sample_epoch(frames, settings, epoch)
    found = rows_of(samples, size)
    assert len(found) == len(known), "as many as the grid has"
    assert (frames.usable[found.indices] & ~found.beyond).any(axis=1).all()
    pairs = {(tuple(i), tuple(b)) for i, b in zip(known.indices.tolist(), known.beyond.tolist(), strict=True)}
    drawn = [(tuple(i), tuple(b)) for i, b in zip(found.indices.tolist(), found.beyond.tolist(), strict=True)]
    assert set(drawn) <= pairs
    if not balance and not video_balance:
        assert sorted(drawn) == sorted(pairs), "each once"


@given(corpora(), st.sampled_from([0.0, 1.0]))
def test_every_frame_of_a_stretch_has_the_same_random_numbers_and_group(
    videos: list[StoredVideo], balance: float
) -> None:
    samples = sample_epoch(usable_of(videos), settings_of(balance=balance), 1)
    assert samples.noise is not None
    assert samples.group is not None
    noise = samples.noise.reshape(-1, 4, samples.noise.shape[1])
    assert (noise == noise[:, :1]).all()
    assert len(np.unique(noise[:, 0], axis=0)) == len(noise), "stretches differ"
    assert ((noise >= 0) & (noise < 1)).all()
    assert samples.group.tolist() == np.arange(len(noise)).repeat(4).tolist()


@pytest.mark.parametrize("balance", [0.0, 0.5])
def test_stretches_are_drawn_from_the_seed_and_the_epochs_number(balance: float) -> None:
    frames = usable_of([video("a", [0, 1] * 100), video("b", [3] * 50)])
    settings = settings_of(balance=balance, stride=0.2)

    def drawn(seed: int, epoch: int) -> tuple[bytes, ...]:
        samples = sample_epoch(frames, replace(settings, seed=seed), epoch)
        assert samples.noise is not None
        assert samples.beyond is not None
        return samples.indices.tobytes(), samples.noise.tobytes(), samples.beyond.tobytes()

    assert drawn(0, 1) == drawn(0, 1)
    assert len({drawn(0, 1), drawn(0, 2), drawn(1, 1)}) == 3


def fractions_drawn(frames: UsableFrames, settings: Settings, epochs: int) -> np.ndarray:
    """Fractions of the classes among the usable frames of many epochs."""
    labels = []
    for epoch in range(epochs):
        samples = sample_epoch(frames, settings, epoch)
        assert samples.beyond is not None
        labels.append(frames.frame_index.label[samples.indices[frames.usable[samples.indices] & ~samples.beyond]])
    return np.bincount(np.concatenate(labels), minlength=8) / sum(map(len, labels))


def test_balanced_drawing_prefers_stretches_of_rare_classes() -> None:
    """Of pure stretches the classes come as often as balancing asks for."""
    frames = usable_of([video("common", [0] * 360), video("rare", [1] * 40)])
    natural = np.array([0.9, 0.1])
    for balance in (0.0, 0.5, 1.0):
        expected = natural ** (1 - balance) / (natural ** (1 - balance)).sum()
        found = fractions_drawn(frames, settings_of(balance=balance, stride=0.0), 40)
        assert found[:2] == pytest.approx(expected, abs=0.02)


def test_balanced_videos_are_drawn_alike() -> None:
    frames = usable_of([video("long", [0] * 360), video("short", [1] * 40)])
    found = fractions_drawn(frames, settings_of(video_balance=1.0), 40)
    assert found[:2] == pytest.approx([0.5, 0.5], abs=0.02)


def test_balanced_drawing_prefers_rare_values() -> None:
    """Of valence and arousal bins are drawn: here as often the few frames that are high as the many that are low."""
    high, low = np.full((40, 2), 0.9), np.full((360, 2), -0.9)
    frames = usable_of([video("low", low, np.float32), video("high", high, np.float32)], VA)
    for balance, expected in ((0.0, 0.1), (1.0, 0.5)):
        settings = settings_of(VA, balance=balance)
        drawn = np.concatenate([sample_epoch(frames, settings, epoch).indices for epoch in range(40)])
        label = frames.frame_index.label[drawn]
        assert (label[:, 0] > 0).mean() == pytest.approx(expected, abs=0.02)
        mean = 0.9 * (2 * expected - 1)
        assert frames.mean_label(settings) == pytest.approx([mean, mean], abs=0.01)


@examples(max_examples=40)
@given(
    st.lists(st.floats(0.05, 0.3), min_size=1, max_size=3),
    st.sampled_from([0.0, 0.5, 1.0]),
    st.integers(1, 5),
    st.data(),
)
def test_other_stores_have_their_fractions_of_the_stretches(
    fractions: list[float], balance: float, epoch: int, data: st.DataObject
) -> None:
    labels = st.lists(st.sampled_from([-1, 0, 1, 2]), min_size=1, max_size=40).map(lambda own: [0, *own])
    stores = [
        Store(Path(), str(number), tuple(video(f"{number}-{i}", data.draw(labels)) for i in range(2)))
        for number in range(len(fractions) + 1)
    ]
    whole = mix(stores[0], [Extra(store, part) for store, part in zip(stores[1:], fractions, strict=True)])
    settings = settings_of(balance=balance, stride=0.0)
    frames = usable_frames(whole, "train", EXPR, ["audio"])
    alone = sample_epoch(usable_frames(stores[0], "train", EXPR, ["audio"]), settings, epoch)
    samples = sample_epoch(frames, settings, epoch)
    first = samples.indices.reshape(-1, 4)[:, 0]
    counts = np.bincount(frames.store_of(first), minlength=len(stores))
    main = 1 - sum(fractions)
    assert counts.tolist() == [round(len(alone) / 4 * part / main) for part in (main, *fractions)]
    cut, probabilities = frames.stretches(settings.data, 0.0)
    sums = np.bincount(frames.store_of(cut.indices[:, 0]), probabilities, len(stores))
    assert sums == pytest.approx([main, *fractions])
    if not balance:
        own = samples.indices.reshape(-1, 4)[frames.store_of(first) == 0]
        assert sorted(map(tuple, own.tolist())) == sorted(map(tuple, alone.indices.reshape(-1, 4).tolist()))


@pytest.mark.parametrize("balance", [0.0, 1.0])
def test_a_store_without_a_usable_frame_on_an_epochs_grid_is_left_out_of_it(balance: float) -> None:
    main, sparse = video("0", [0] * 40), video("1", [-1, 1, -1, -1])
    store = mix(Store(Path(), "0", (main,)), [Extra(Store(Path(), "1", (sparse,)), 0.5)])
    frames = usable_frames(store, "train", EXPR, ["audio"])
    settings = settings_of(balance=balance, stride=0.4)  # its second frame is the first of a stride every fourth time
    drawn = [sample_epoch(frames, settings, epoch).indices for epoch in range(40)]
    counts = [np.bincount(frames.store_of(indices[::4]), minlength=2).tolist() for indices in drawn]
    assert {tuple(count) for count in counts} == {(3, 0), (3, 3)}


# The mean label


def mixed_labels(task: Task) -> list[StoredVideo]:
    """Videos of different lengths, whose labels are partly missing and change within a stretch."""
    rng = np.random.default_rng(0)
    label: np.ndarray
    videos = []
    for number, length in enumerate((203, 90, 47, 3)):
        if task is EXPR:
            label = rng.choice([-1, 0, 1, 7], length, p=[0.3, 0.5, 0.15, 0.05]).astype(np.int8)
            if number == 1:  # as if every second frame were annotated, and the last ones have another class
                label = np.where(np.arange(length) % 2, -1, np.where(np.arange(length) < length - 12, 1, 4))
        elif task is VA:
            label = np.clip(rng.normal(0.5 - 0.3 * number, 0.3, (length, 2)), -1, 1).astype(np.float32)
            label[rng.random(length) < 0.3] = -5
        else:
            label = (rng.random((length, 12)) < 0.1 + 0.2 * number).astype(np.int8)
            label[rng.random((length, 12)) < 0.3] = -1
        videos.append(video(str(number), label, np.float32 if task is VA else np.int8))
    return videos


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "changes"),
    [
        (EXPR, {"balance": 1.0}),
        (EXPR, {"balance": 0.5, "video_balance": 1.0, "stride": 0.2, "hop": 2}),
        (EXPR, {}),
        (EXPR, {"stride": 0.2}),
        (EXPR, {"hop": 1}),
        (VA, {"balance": 1.0, "video_balance": 0.5}),
        (VA, {"stride": 0.2}),
        (AU, {"video_balance": 1.0}),
        (AU, {}),
    ],
)
def test_the_mean_label_is_that_of_many_epochs(task: Task, changes: dict[str, float]) -> None:
    """Of the annotated labels of the frames that an epoch trains on, each field by itself."""
    frames, settings = usable_of(mixed_labels(task), task), settings_of(task, **changes)
    labels = []
    for epoch in range(300):
        samples = sample_epoch(frames, settings, epoch)
        assert samples.beyond is not None
        labels.append(frames.frame_index.label[samples.indices[~samples.beyond]])
    drawn = np.concatenate(labels)
    if task is EXPR:
        expected = np.bincount(drawn[drawn >= 0], minlength=8) / (drawn >= 0).sum()
    else:
        known = drawn != np.array([field.ignore_value for field in task.fields], drawn.dtype)
        expected = np.where(known, drawn, 0).sum(axis=0, dtype=float) / known.sum(axis=0)
    assert frames.mean_label(settings) == pytest.approx(expected, abs=0.01)
    assert metric_of(task).is_prior(frames.mean_label(settings))
