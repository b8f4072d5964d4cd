"""Frames at equal intervals, the windows around them, and augmentation that a seed decides."""

import tempfile
from collections.abc import Mapping, Sequence
from fractions import Fraction
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from abaw_expr.data.augment import Augment
from abaw_expr.data.store import Frames, StoredVideo, open_store, pack, write_frames
from abaw_expr.data.windows import Batch, FrameIndex, Windows, load, sound_window, split_batches
from abaw_expr.settings import AugmentSettings, DataSettings
from abaw_expr.tasks import BRANCHES, CROP_SIDE, EXPR, crop_name
from tests.tiny import broken_jpeg, jpeg

CPU = torch.device("cpu")
NONE = AugmentSettings(frequency_mask=0, time_mask=0, flip=False, crop=1.0, light=0.0)
TICKS = 64
"""Times in the properties are whole ticks of 1/64 s, so that they are exact."""


def stored(
    folder: Path,
    times: Sequence[float],
    labels: Sequence[int] | None = None,
    crops: Mapping[int, bytes] | None = None,
    sound: np.ndarray | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> StoredVideo:
    """A video of a store: crops by row, sound [steps, 64] with this mean and deviation in every band."""
    crops = crops or {}
    offset, size = np.zeros(len(times), np.int64), np.zeros(len(times), np.int32)
    places = pack(folder / "a.tar", ((crop_name(row + 1), data) for row, data in crops.items()))
    for row, place in zip(crops, places, strict=True):
        offset[row], size[row] = place
    label = np.array(labels if labels is not None else [0] * len(times), np.int8)
    write_frames(folder / "a.parquet", Frames(np.array(times, np.float64), label, offset, size))
    if sound is None:
        return StoredVideo("a", "train", folder, None, None)
    np.save(folder / "sound.npy", sound.astype(np.float16))
    return StoredVideo("a", "train", folder, np.full(64, mean, np.float32), np.full(64, std, np.float32))


def ramp(steps: int) -> np.ndarray:
    """Sound whose every step tells its number, which float16 holds exactly up to 2048."""
    return np.repeat(np.arange(steps)[:, None], 64, axis=1)


@st.composite
def timed_videos(draw: st.DrawFn) -> list[list[tuple[int, bool]]]:
    """Some videos: when each frame is shown (ticks, ascending) and whether it is usable."""
    one = st.lists(st.tuples(st.integers(0, 600), st.booleans()), min_size=1, max_size=40, unique_by=lambda f: f[0])
    return [sorted(video) for video in draw(st.lists(one, min_size=1, max_size=3))]


@hypothesis_settings(max_examples=60)
@given(timed_videos(), st.integers(1, 120), st.integers(0, 7))
def test_every_interval_with_a_usable_frame_gives_its_first(
    videos: list[list[tuple[int, bool]]], interval: int, phase: int
) -> None:
    chosen: set[tuple[int, int]] = set()
    seen: set[tuple[int, int]] = set()
    for number, video in enumerate(videos):
        for row, (tick, usable) in enumerate(video):
            cell = floor(Fraction(tick, interval) + Fraction(phase, 8))
            if usable and (number, cell) not in seen:
                seen.add((number, cell))
                chosen.add((number, row))
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(number) for number in range(len(videos))]
        for folder in folders:
            folder.mkdir()
        index = FrameIndex(
            [stored(f, [tick / TICKS for tick, _ in video]) for f, video in zip(folders, videos, strict=True)]
        )
        good = np.array([usable for video in videos for _, usable in video])
        places = index.at_intervals(good, interval / TICKS, phase / 8)
        everything = index.at_intervals(good, 0)
    assert places.tolist() == sorted(places)
    assert {(int(index.video[place]), int(index.row[place])) for place in places} == chosen
    assert len(places) == len(chosen)
    assert everything.tolist() == np.flatnonzero(good).tolist()


@pytest.mark.parametrize("rate", [7.5, 15.45, 24_000 / 1001, 30_000 / 1001, 30])
def test_frames_are_an_interval_apart(tmp_path: Path, rate: float) -> None:
    """As near to it as whole frames allow, whatever the rate; a phase moves all but the first."""
    index = FrameIndex([stored(tmp_path, (np.arange(round(20 * rate)) / rate).tolist())])
    whole = np.ones(len(index), bool)
    at = {phase: index.time[index.at_intervals(whole, 0.3, phase)] for phase in (0.0, 0.5)}
    for times in at.values():
        gaps = np.diff(times)[1:]
        assert np.abs(gaps - 0.3).max() < 1 / rate + 1e-9
        assert len(times) == pytest.approx(20 / 0.3, abs=1.5)
    assert at[0.0][1] > at[0.5][1]


def test_index_tells_what_each_frame_has(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = stored(tmp_path / "a", [0, 0.1, 0.2], [1, -1, 2], {1: jpeg()}, ramp(7))  # sound up to 6 x 16 ms
    index = FrameIndex([first, stored(tmp_path / "b", [0, 0.1], [3, 4], {0: jpeg()})])
    assert index.video.tolist() == [0, 0, 0, 1, 1]
    assert index.row.tolist() == [0, 1, 2, 0, 1]
    assert index.time.tolist() == [0, 0.1, 0.2, 0, 0.1]
    assert index.label.tolist() == [1, -1, 2, 3, 4]
    assert index.has["audio"].tolist() == [True, True, False, False, False]
    assert index.has["visual"].tolist() == [False, True, False, True, False]
    assert index.present(["audio"]).tolist() == index.has["audio"].tolist()
    assert index.present(["audio", "visual"]).tolist() == [True, True, False, True, False]


@pytest.mark.parametrize("time", [0.0, 0.5, 2.0, 4.007, 4.009, 7.9, 8.5])
def test_window_is_centred_on_its_time_and_zero_outside(tmp_path: Path, time: float) -> None:
    steps = 501  # 8 s
    video = stored(tmp_path, [0], sound=ramp(steps) + 1)
    window = sound_window(video, time)
    assert window.shape == (1, 184, 64)
    assert window.dtype == torch.float32
    centre = round(time / 0.016)
    expected = [step + 1 if 0 <= step < steps else 0 for step in range(centre - 92, centre + 92)]
    assert window[0, :, 0].tolist() == window[0, :, 63].tolist() == expected


def test_sound_is_standardised_over_the_recording(tmp_path: Path) -> None:
    window = sound_window(stored(tmp_path, [0], sound=ramp(400), mean=150.0, std=4.0), 3.2)
    assert window[0, :, 7].tolist() == [(step - 150) / 4 for step in range(108, 292)]


def test_sound_without_variation_stays_finite(tmp_path: Path) -> None:
    window = sound_window(stored(tmp_path, [0], sound=np.full((400, 64), -13.8), mean=-13.8, std=0.0), 3.2)
    assert window.abs().max() < 0.05


def batch_of(video: StoredVideo, data: DataSettings | None = None, augment: Augment | None = None) -> Batch:
    """All frames of a video in one batch, as the networks get it."""
    data = data or DataSettings()
    index = FrameIndex([video])
    draws = [(place, None if augment is None else place) for place in range(len(index))]
    (batch,) = load(Windows(index, data, augment), [draws], data.pictures, workers=0)
    return batch.to(CPU)


def test_missing_modality_is_marked_and_zero(tmp_path: Path) -> None:
    crops = {0: jpeg(0), 2: broken_jpeg(), 3: jpeg(255)}
    batch = batch_of(stored(tmp_path, [0, 0.1, 0.2, 5], [1, 2, -1, 4], crops, ramp(100) + 1))
    assert batch.present["visual"].tolist() == [True, False, False, True]
    assert batch.present["audio"].tolist() == [True, True, True, False]
    assert batch.label.tolist() == [1, 2, -1, 4]
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert batch.inputs["audio"].shape == (4, 1, 184, 64)
    assert batch.inputs["visual"].shape == (4, 1, 3, CROP_SIDE, CROP_SIDE)
    for name, x in batch.inputs.items():
        assert x.dtype == torch.float32
        assert not x[~batch.present[name]].any()
    assert batch.inputs["visual"][0].unique().tolist() == [-1]
    assert batch.inputs["visual"][3].unique().tolist() == [1]
    assert batch.label.dtype == batch.index.dtype == torch.int64


def test_video_without_sound_has_pictures_only(tmp_path: Path) -> None:
    batch = batch_of(stored(tmp_path, [0, 0.1], crops={0: jpeg(), 1: jpeg()}))
    assert batch.present["audio"].tolist() == [False, False]
    assert batch.present["visual"].tolist() == [True, True]
    assert not batch.inputs["audio"].any()


def shades(batch: Batch, sample: int) -> list[int]:
    """The gray of each picture of a sample."""
    return [round((float(picture.mean()) + 1) * 127.5) for picture in batch.inputs["visual"][sample]]


def test_pictures_of_a_sample_are_the_nearest_in_time(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 0.33, 0.4, 0.5, 1.5]
    video = stored(tmp_path, times, crops={row: jpeg(20 * row) for row in (0, 2, 3, 5, 6)})
    batch = batch_of(video, DataSettings(pictures=3, spacing=0.2))
    assert batch.inputs["visual"].shape == (7, 3, 3, CROP_SIDE, CROP_SIDE)
    assert batch.present["visual"].tolist() == [True, False, True, True, False, True, True]
    expected = {0: [0, 0, 2], 2: [0, 2, 3], 3: [2, 3, 5], 5: [3, 5, 5], 6: [6, 6, 6]}
    assert {sample: shades(batch, sample) for sample in expected} == {
        sample: [20 * row for row in rows] for sample, rows in expected.items()
    }


def test_broken_picture_among_several_is_replaced(tmp_path: Path) -> None:
    crops = {0: jpeg(40), 1: broken_jpeg(), 2: jpeg(80)}
    batch = batch_of(stored(tmp_path, [0, 0.2, 0.4], crops=crops), DataSettings(pictures=3, spacing=0.2))
    assert batch.present["visual"].tolist() == [True, True, True]
    assert {shade for sample in range(3) for shade in shades(batch, sample)} == {40, 80}


def test_draws_are_cut_into_batches() -> None:
    draws = [(place, None) for place in range(5)]
    assert split_batches(draws, 2) == [draws[:2], draws[2:4], draws[4:]]


@pytest.fixture
def noisy() -> tuple[torch.Tensor, torch.Tensor]:
    """Sound [1, t, m] without a zero, and three equal pictures [f, 3, h, w]."""
    random = torch.Generator().manual_seed(0)
    sound = torch.rand((1, 184, 64), generator=random) + 1
    picture = torch.randint(0, 256, (1, 3, CROP_SIDE, CROP_SIDE), dtype=torch.uint8, generator=random)
    return sound, picture.repeat(3, 1, 1, 1)


def test_seed_decides_the_change(noisy: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augment(AugmentSettings(), CROP_SIDE)
    before = torch.random.get_rng_state()
    first, again, other = (augment(*noisy, seed) for seed in (5, 5, 6))
    for x, y, z in zip(first, again, other, strict=True):
        assert x is not None
        assert y is not None
        assert z is not None
        assert torch.equal(x, y)
        assert not torch.equal(x, z)
    assert torch.equal(torch.random.get_rng_state(), before)  # the training's own randomness is untouched


def test_missing_stays_missing(noisy: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augment(AugmentSettings(), CROP_SIDE)
    assert augment(None, None, 0) == (None, None)
    assert augment(noisy[0], None, 0)[1] is None
    assert augment(None, noisy[1], 0)[0] is None


def test_pictures_of_a_sample_change_alike(noisy: tuple[torch.Tensor, torch.Tensor]) -> None:
    _, pictures = Augment(AugmentSettings(), CROP_SIDE)(*noisy, seed=1)
    assert pictures is not None
    assert pictures.shape == noisy[1].shape
    assert pictures.dtype == torch.uint8
    assert torch.equal(pictures[0], pictures[1])
    assert torch.equal(pictures[0], pictures[2])
    assert not torch.equal(pictures, noisy[1])


def test_zero_strength_changes_nothing(noisy: tuple[torch.Tensor, torch.Tensor]) -> None:
    for seed in range(10):
        sound, pictures = Augment(NONE, CROP_SIDE)(*noisy, seed)
        assert sound is not None
        assert pictures is not None
        assert torch.equal(sound, noisy[0])
        assert torch.equal(pictures, noisy[1])


@pytest.mark.parametrize(("setting", "axis"), [("frequency_mask", 1), ("time_mask", 0)])
def test_mask_hides_one_whole_band(noisy: tuple[torch.Tensor, torch.Tensor], setting: str, axis: int) -> None:
    widest = 8
    augment = Augment(AugmentSettings(**{**vars(NONE), setting: widest}), CROP_SIDE)
    widths, places = set(), set()
    for seed in range(60):
        sound, _ = augment(noisy[0], None, seed)
        assert sound is not None
        hidden_tm = sound[0] == 0
        hidden = hidden_tm.all(dim=1 - axis)
        assert torch.equal(hidden_tm, hidden.unsqueeze(1 - axis).expand_as(hidden_tm))
        assert torch.equal(sound[0][~hidden_tm], noisy[0][0][~hidden_tm])
        rows = hidden.nonzero().flatten().tolist()
        assert rows == list(range(min(rows, default=0), max(rows, default=-1) + 1))
        widths.add(len(rows))
        places.update(rows)
    assert max(widths) <= widest
    assert max(widths) >= widest - 2
    assert len(places) > 32


def test_flip_alone_mirrors_about_half(noisy: tuple[torch.Tensor, torch.Tensor]) -> None:
    augment = Augment(AugmentSettings(**{**vars(NONE), "flip": True}), CROP_SIDE)
    mirrored = 0
    for seed in range(60):
        _, pictures = augment(None, noisy[1], seed)
        assert pictures is not None
        same, flipped = torch.equal(pictures, noisy[1]), torch.equal(pictures, noisy[1].flip(-1))
        assert same != flipped
        mirrored += flipped
    assert 15 <= mirrored <= 45


def same(x: object, y: object) -> bool:
    assert isinstance(x, torch.Tensor)
    assert isinstance(y, torch.Tensor)
    return torch.equal(x, y)


def test_without_a_seed_nothing_is_augmented(store: Path) -> None:
    index = FrameIndex(open_store(store, EXPR).split("train"))
    plain, augmented = (
        Windows(index, DataSettings()),
        Windows(index, DataSettings(), Augment(AugmentSettings(), CROP_SIDE)),
    )
    place = int(np.flatnonzero(index.has["audio"] & index.has["visual"])[0])
    for branch, name in enumerate(BRANCHES):
        own = plain[place, None][branch]
        changed = [seed for seed in (None, *range(5)) if not same(own, augmented[place, seed][branch])]
        assert None not in changed, name
        assert changed, name


def test_workers_do_not_change_a_batch(store: Path) -> None:
    data = DataSettings(pictures=2)
    index = FrameIndex(open_store(store, EXPR).split("train"))
    windows = Windows(index, data, Augment(AugmentSettings(), CROP_SIDE))
    draws = [(place, place) for place in range(0, len(index), 9)]
    batches = split_batches(draws, 4)
    alone, helped = (list(load(windows, batches, data.pictures, workers)) for workers in (0, 2))
    assert len(alone) == len(helped) == len(batches)
    assert sum(len(batch.label) for batch in alone) == len(draws)
    for one, two in zip(alone, helped, strict=True):
        for name in one.inputs:
            assert torch.equal(one.inputs[name], two.inputs[name])
            assert torch.equal(one.present[name], two.present[name])
        assert torch.equal(one.label, two.label)
        assert torch.equal(one.index, two.index)
