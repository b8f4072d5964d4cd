"""Frames at a stride, the chunks of audio and the images around them, and batches of both."""

import io
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from math import floor
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from PIL import Image

from abaw_expr.data.batches.audio import fill_audio
from abaw_expr.data.batches.audio_chunks import (
    Chunks,
    Cut,
    cut_for_prediction,
    cut_for_training,
    merged_windows,
    segments,
)
from abaw_expr.data.batches.augment import Augment
from abaw_expr.data.batches.frame_index import FrameIndex, Samples, draw_noise
from abaw_expr.data.batches.loading import load, split_segments
from abaw_expr.data.batches.windows import Batch, Windows, modalities
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.data.media.logmel import MEL_BANDS
from abaw_expr.data.store.store import Frames, StoredVideo, open_store
from abaw_expr.data.store.tar import pack
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.models.network import build_network
from abaw_expr.settings import AugmentSettings, DataSettings, Settings
from abaw_expr.tasks.names import crop_name
from abaw_expr.tasks.task import AU, EXPR, VA
from tests.helpers.batches import split_batches
from tests.helpers.stored import write_tables
from tests.helpers.tiny import broken_jpeg, jpeg

torch.set_num_threads(1)

CPU = torch.device("cpu")
ALONE = merged_windows(AUDIO_WINDOW, 0.0)
SEGMENTS = segments(AUDIO_WINDOW)
NONE = AugmentSettings(frequency_mask=0, time_mask=0, flip=False, crop=1.0, jitter=0.0)
TICKS = 64
"""Times in the properties are whole ticks of 1/64 s, so that they are exact."""


def stored(
    folder: Path,
    times: Sequence[float],
    labels: Sequence[int] | None = None,
    crops: Mapping[int, bytes] | None = None,
    audio: np.ndarray | None = None,
    mean: float = 0.0,
    std: float = 1.0,
) -> StoredVideo:
    """A video of a store: crops by row, audio [steps, 64] with this mean and deviation in every band."""
    crops = crops or {}
    offset, size = np.zeros(len(times), np.int64), np.zeros(len(times), np.int32)
    indices = pack(folder / "a.tar", ((crop_name(row + 1), data) for row, data in crops.items()))
    for row, i in zip(crops, indices, strict=True):
        offset[row], size[row] = i
    label = np.array(labels if labels is not None else [0] * len(times), np.int8)
    known = None
    if audio is not None:
        known = np.full(64, mean, np.float32), np.full(64, std, np.float32)
        np.save(folder / "sound.npy", audio.astype(np.float16))
    return write_tables(folder, "a", np.array(times, np.float64), label, offset, size, known)


def in_memory(times: Sequence[float] | np.ndarray, audio: np.ndarray | None = None) -> StoredVideo:
    """A video of a store without files: its properties are filled in as if they had been read."""
    size = np.zeros(len(times), np.int32)
    known = None if audio is None else (np.zeros(64, np.float32), np.ones(64, np.float32))
    video = StoredVideo("a", "train", Path(), *(known or (None, None)))
    frames = Frames(np.array(times, np.float64), np.zeros(len(times), np.int8), size.astype(np.int64), size)
    vars(video).update(frames=frames, audio=None if audio is None else audio.astype(np.float16))
    return video


def ramp(steps: int) -> np.ndarray:
    """Audio whose every step is its number, which float16 holds exactly up to 2048."""
    return np.repeat(np.arange(steps)[:, None], 64, axis=1)


@st.composite
def timed_videos(draw: st.DrawFn) -> list[list[tuple[int, bool]]]:
    """Some videos: when each frame is shown (ticks, ascending) and whether it is usable."""
    one = st.lists(st.tuples(st.integers(0, 600), st.booleans()), min_size=1, max_size=40, unique_by=lambda f: f[0])
    return [sorted(video) for video in draw(st.lists(one, min_size=1, max_size=3))]


@pytest.mark.slow
@hypothesis_settings(max_examples=60)
@given(timed_videos(), st.integers(1, 120), st.integers(0, 7))
def test_every_stride_with_a_usable_frame_gives_its_first(
    videos: list[list[tuple[int, bool]]], stride: int, phase: int
) -> None:
    chosen: set[tuple[int, int]] = set()
    found: set[tuple[int, int]] = set()
    for number, video in enumerate(videos):
        for row, (tick, usable) in enumerate(video):
            cell = floor(Fraction(tick, stride) + Fraction(phase, 8))
            if usable and (number, cell) not in found:
                found.add((number, cell))
                chosen.add((number, row))
    with tempfile.TemporaryDirectory() as root:
        folders = [Path(root) / str(number) for number in range(len(videos))]
        for folder in folders:
            folder.mkdir()
        index = FrameIndex(
            [stored(f, [tick / TICKS for tick, _ in video]) for f, video in zip(folders, videos, strict=True)], EXPR
        )
        good = np.array([usable for video in videos for _, usable in video])
        indices = index.at_stride(good, stride / TICKS, phase / 8)
        everything = index.at_stride(good, 0)
    assert indices.tolist() == sorted(indices)
    assert {(int(index.video[i]), int(index.row[i])) for i in indices} == chosen
    assert len(indices) == len(chosen)
    assert everything.tolist() == np.flatnonzero(good).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("every", [1, 2, 3, 5])
@pytest.mark.parametrize("rate", [7.5, 10, 12.5, 15, 24_000 / 1001, 25, 30_000 / 1001, 30, 50, 60])
@pytest.mark.parametrize("phase", [0.0, 0.1, 1 / 3, 0.5, 0.9, 0.999])
def test_a_stride_of_whole_frames_loses_none(tmp_path: Path, rate: float, every: int, phase: float) -> None:
    """Whatever the rounding of a time: 25 frames a second at a stride of 0.04 s are all frames."""
    index = FrameIndex([stored(tmp_path, (np.arange(1500) / rate).tolist())], EXPR)
    indices = index.at_stride(np.ones(1500, bool), every / rate, phase)
    first = 0 if phase == 0 else int(np.ceil((1 - phase) * every - 1e-6))
    assert indices.tolist() == sorted({0, *range(first, 1500, every)})


@pytest.mark.parametrize("rate", [7.5, 24_000 / 1001, 25, 30_000 / 1001, 30, 60_000 / 1001, 60])
@pytest.mark.parametrize("phase", [0.0, 0.1, 0.5, 0.98])
def test_stamps_in_milliseconds_lose_no_frame(tmp_path: Path, rate: float, phase: float) -> None:
    """As Matroska writes them: 30 frames a second at 0, 33, 67 and 100 ms."""
    index = FrameIndex([stored(tmp_path, np.round(np.arange(1500) / rate, 3).tolist())], EXPR)
    assert index.at_stride(np.ones(1500, bool), 1 / rate, phase).tolist() == [*range(1500)]


@pytest.mark.parametrize("rate", [7.5, 15.45, 24_000 / 1001, 30_000 / 1001, 30])
def test_frames_are_a_stride_apart(tmp_path: Path, rate: float) -> None:
    """As near to the stride as whole frames allow, whatever the rate; a phase moves all but the first."""
    index = FrameIndex([stored(tmp_path, (np.arange(round(20 * rate)) / rate).tolist())], EXPR)
    whole = np.ones(len(index), bool)
    at = {phase: index.time[index.at_stride(whole, 0.3, phase)] for phase in (0.0, 0.5)}
    for times in at.values():
        gaps = np.diff(times)[1:]
        assert np.abs(gaps - 0.3).max() < 1 / rate + 1e-9
        assert len(times) == pytest.approx(20 / 0.3, abs=1.5)
    assert at[0.0][1] > at[0.5][1]


def test_index_has_the_modalities_of_each_frame(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    first = stored(tmp_path / "a", [0, 0.1, 0.2], [1, -1, 2], {1: jpeg()}, ramp(7))  # audio up to 6 x 16 ms
    index = FrameIndex([first, stored(tmp_path / "b", [0, 0.1], [3, 4], {0: jpeg()})], EXPR)
    assert index.video.tolist() == [0, 0, 0, 1, 1]
    assert index.row.tolist() == [0, 1, 2, 0, 1]
    assert index.time.tolist() == [0, 0.1, 0.2, 0, 0.1]
    assert index.label.tolist() == [1, -1, 2, 3, 4]
    assert index.has["audio"].tolist() == [True, True, False, False, False]
    assert index.has["visual"].tolist() == [False, True, False, True, False]
    assert index.present(["audio"]).tolist() == index.has["audio"].tolist()
    assert index.present(["audio", "visual"]).tolist() == [True, True, False, True, False]


# Audio


def audio_of(video: StoredVideo, first: int, steps: int = AUDIO_WINDOW.steps) -> np.ndarray:
    """A stretch of a video's audio, [steps, 64]."""
    out = np.zeros((steps, MEL_BANDS), np.float32)
    fill_audio(video, first, out)
    return out


@pytest.mark.parametrize("time", [0.0, 0.5, 2.0, 4.007, 4.009, 7.9, 8.5, 30.0])
def test_window_is_centred_on_its_time_and_zero_outside(tmp_path: Path, time: float) -> None:
    steps = 501  # 8 s
    index = FrameIndex([stored(tmp_path, [0, time], audio=ramp(steps) + 1)], EXPR)
    (start,) = AUDIO_WINDOW.start(index.time[np.array([1])])
    window = audio_of(index.videos[0], start)
    centre = round(time / 0.016)
    expected = [step + 1 if 0 <= step < steps else 0 for step in range(centre - 92, centre + 92)]
    assert window[:, 0].tolist() == window[:, 63].tolist() == expected


@given(first=st.integers(-300, 500), steps=st.integers(1, 700))
def test_audio_of_any_stretch_is_the_recordings_or_zero(first: int, steps: int) -> None:
    video = in_memory([0], np.repeat(np.arange(1, 301)[:, None], 64, axis=1))
    expected = [step + 1 if 0 <= step < 300 else 0 for step in range(first, first + steps)]
    assert audio_of(video, first, steps)[:, 5].tolist() == expected


def test_audio_is_standardised_over_the_recording(tmp_path: Path) -> None:
    window = audio_of(stored(tmp_path, [0], audio=ramp(400), mean=150.0, std=4.0), 108)
    assert window[:, 7].tolist() == [(step - 150) / 4 for step in range(108, 292)]


def test_audio_without_variation_stays_finite(tmp_path: Path) -> None:
    window = audio_of(stored(tmp_path, [0], audio=np.full((400, 64), -13.8), mean=-13.8, std=0.0), 108)
    assert np.abs(window).max() < 0.05


# Chunks


def reading(
    index: FrameIndex,
    data: DataSettings | None = None,
    cut: Cut = ALONE,
    augment: Augment | None = None,
    names: Sequence[str] = ("audio", "visual"),
) -> Windows:
    """The samples of an index with these modalities."""
    return Windows(index, modalities(names, data or DataSettings(), {"audio": cut}), augment)


STARTS = st.lists(st.tuples(st.integers(0, 3), st.integers(-92, 6000)), max_size=40)
"""Windows in any order: the video and the first step of each."""


def arrays_of(windows: Sequence[tuple[int, int]]) -> tuple[np.ndarray, np.ndarray]:
    table = np.array(windows, np.int64).reshape(-1, 2)
    return table[:, 0], table[:, 1]


def check_chunks(cut: Chunks, video: np.ndarray, start: np.ndarray, context: int) -> None:
    """What holds for the chunks of every `Cut`."""
    assert len(cut.chunk) == len(start)
    assert np.unique(cut.chunk).tolist() == list(range(len(cut.first)))  # no chunk is empty
    assert cut.steps % AUDIO_WINDOW.stride == 0
    begin = start - cut.first[cut.chunk]
    assert (begin >= context).all()
    assert (begin + AUDIO_WINDOW.steps + context <= cut.steps).all()
    for chunk in range(len(cut.first)):
        assert len(set(video[cut.chunk == chunk])) == 1


@given(STARTS, st.floats(0, 20), st.sampled_from([0, 8, AUDIO_WINDOW.context]))
def test_merged_windows_lie_in_a_chunk_of_their_video(
    windows: list[tuple[int, int]], seconds: float, context: int
) -> None:
    video, start = arrays_of(windows)
    cut = merged_windows(AUDIO_WINDOW, seconds, context)(video, start)
    check_chunks(cut, video, start, context)
    for chunk in range(len(cut.first)):
        own = np.sort(start[cut.chunk == chunk])
        assert cut.first[chunk] == own[0] - context
        assert (
            own[-1] - own[0] < seconds / 0.016 + AUDIO_WINDOW.stride
        )  # whole rows of the map: a little more than asked


@given(STARTS, st.floats(0, 20))
def test_merged_opens_a_chunk_only_where_the_last_has_no_room(windows: list[tuple[int, int]], seconds: float) -> None:
    video, start = arrays_of(windows)
    cut = merged_windows(AUDIO_WINDOW, seconds, AUDIO_WINDOW.context)(video, start)
    for one in range(len(cut.first)):
        for other in range(one + 1, len(cut.first)):
            if video[cut.chunk == one][0] == video[cut.chunk == other][0]:
                first, last = sorted((one, other), key=lambda chunk: int(cut.first[chunk]))
                apart = start[cut.chunk == last].min() + AUDIO_WINDOW.steps + AUDIO_WINDOW.context - cut.first[first]
                assert apart > cut.steps - AUDIO_WINDOW.context


def test_windows_alone_have_chunks_of_their_own_size() -> None:
    cut = ALONE(np.array([0, 0, 1]), np.array([5, 6, 5]))
    assert cut.steps == AUDIO_WINDOW.steps
    assert cut.first[cut.chunk].tolist() == [5, 6, 5]
    assert len(cut.first) == 3


@given(STARTS)
def test_the_segment_of_a_window_does_not_depend_on_the_others(windows: list[tuple[int, int]]) -> None:
    """The other windows change neither where a window's chunk begins nor its length."""
    video, start = arrays_of(windows)
    cut = SEGMENTS(video, start)
    check_chunks(cut, video, start, AUDIO_WINDOW.context)
    assert len(cut.first) == len({(v, s // AUDIO_WINDOW.segment) for v, s in windows})
    for i in range(len(start)):
        alone = SEGMENTS(video[i : i + 1], start[i : i + 1])
        assert alone.first[0] == cut.first[cut.chunk[i]]
        assert alone.steps == cut.steps
        assert (alone.first[0] + AUDIO_WINDOW.context) % AUDIO_WINDOW.stride == 0


def test_sequences_fraction_a_chunk_and_only_they_are_predicted_in_segments() -> None:
    video, start = np.zeros(4, np.int64), np.array([0, 19, 38, 57])  # 0.3 s apart
    alone, together = DataSettings(stride=0.3), DataSettings(stride=0.3, sequence=4)
    assert len(cut_for_training(alone, AUDIO_WINDOW)(video, start).first) == 4
    assert cut_for_training(alone, AUDIO_WINDOW)(video, start).steps == AUDIO_WINDOW.steps
    assert len(cut_for_training(together, AUDIO_WINDOW)(video, start).first) == 1
    check_chunks(cut_for_training(together, AUDIO_WINDOW)(video, start), video, start, AUDIO_WINDOW.context)
    assert (
        cut_for_training(replace(together, stride=0), AUDIO_WINDOW)(video, start).steps
        > AUDIO_WINDOW.steps + 2 * AUDIO_WINDOW.context
    )
    assert cut_for_prediction(alone, AUDIO_WINDOW)(video, start).steps == AUDIO_WINDOW.steps
    assert (
        cut_for_prediction(together, AUDIO_WINDOW)(video, start).steps
        == AUDIO_WINDOW.segment + AUDIO_WINDOW.steps + 2 * AUDIO_WINDOW.context
    )


@pytest.mark.slow
def test_segments_give_the_features_of_one_pass_over_the_recording() -> None:
    """What the network computes of a window depends on nothing beyond the context of its segment."""
    steps = 3 * AUDIO_WINDOW.segment
    audio = np.random.default_rng(0).normal(size=(steps, MEL_BANDS))
    times = 0.016 * np.array([0, 3, 500, 1010, 1023 + 92, 1024 + 92, 1700, 2100, steps - 1])
    index = FrameIndex([in_memory(times, audio)], EXPR)
    torch.manual_seed(0)
    network = build_network(Settings().only(("audio",))).double().eval()

    def whole(video: np.ndarray, start: np.ndarray) -> Chunks:
        return Chunks(np.array([-AUDIO_WINDOW.steps]), np.zeros(len(start), np.int64), steps + 2 * AUDIO_WINDOW.steps)

    found = {}
    one_pass = Cut(AUDIO_WINDOW, whole)
    for cut in (SEGMENTS, one_pass):
        batch = reading(index, cut=cut, names=("audio",))[Samples(np.arange(len(index)))]
        with torch.inference_mode():
            votes = network({"audio": batch.inputs["audio"].double()}, batch.rows, batch.windows, batch.valid)
        assert votes["audio"].present.all()
        found[cut] = votes["audio"].value
    torch.testing.assert_close(found[SEGMENTS], found[one_pass], rtol=0, atol=1e-12)
    assert found[SEGMENTS].std(0).min() > 1e-6  # the windows differ by more


@given(
    st.lists(st.tuples(st.integers(1, 300), st.integers(1, 40)), min_size=1, max_size=4),
    st.sampled_from([1, 3, 10]),
)
def test_batches_of_prediction_never_cut_a_segment(videos: list[tuple[int, int]], every: int) -> None:
    index = FrameIndex([in_memory(np.arange(count) * tenths / 10) for count, tenths in videos], EXPR)
    indices = np.arange(0, len(index), every)
    batches = split_segments(reading(index, cut=SEGMENTS), index, indices)
    assert np.concatenate([batch.indices for batch in batches]).tolist() == indices.tolist()
    assert all(batch.noise is None for batch in batches)
    keys = [
        [(index.video[p], AUDIO_WINDOW.start(index.time[p]) // AUDIO_WINDOW.segment) for p in batch.indices]
        for batch in batches
    ]
    for before, after in pairwise(keys):
        assert before[-1] != after[0]
        assert len(before) >= 64
        assert (
            len([key for key in before if key != before[-1]]) < 64
        )  # the batch ended at the first edge after 64 frames


def test_nothing_to_predict_gives_no_batch() -> None:
    index = FrameIndex([in_memory([0.0, 1.0])], EXPR)
    for names in (("audio", "visual"), ("visual",)):
        assert split_segments(reading(index, cut=SEGMENTS, names=names), index, np.empty(0, np.int64)) == []


def test_without_audio_batches_of_prediction_have_64_frames() -> None:
    index = FrameIndex([in_memory(np.arange(count) / 10) for count in (150, 30, 20, 70)], EXPR)
    batches = split_segments(reading(index, names=("visual",)), index, np.arange(len(index)))
    assert np.concatenate([batch.indices for batch in batches]).tolist() == list(range(len(index)))
    assert all(64 <= len(batch) < 128 for batch in batches[:-1])


# Batches


def batch_of(
    video: StoredVideo,
    data: DataSettings | None = None,
    augment: Augment | None = None,
    noise: np.ndarray | None = None,
    cut: Cut = ALONE,
) -> Batch:
    """All frames of a video in one batch, as the networks get it."""
    index = FrameIndex([video], EXPR)
    samples = Samples(np.arange(len(index)), noise)
    windows = reading(index, data, cut, augment)
    (batch,) = load(windows, [samples], workers=0)
    return windows.on(CPU, batch)


def window_of(batch: Batch, sample: int) -> torch.Tensor:
    """The audio window of a sample of a batch, [184, 64]."""
    (i,) = (batch.rows["audio"] == sample).nonzero().flatten().tolist()
    chunk, step = batch.windows["audio"][i].tolist()
    return batch.inputs["audio"][chunk, 0, step : step + AUDIO_WINDOW.steps]


def test_missing_modality_is_left_out(tmp_path: Path) -> None:
    crops = {0: jpeg(0), 2: broken_jpeg(), 3: jpeg(255)}
    batch = batch_of(stored(tmp_path, [0, 0.1, 0.2, 5], [1, 2, -1, 4], crops, ramp(100) + 1))
    assert batch.present(["visual"]).tolist() == [True, False, False, True]
    assert batch.present(["audio"]).tolist() == [True, True, True, False]
    assert batch.rows["visual"].tolist() == [0, 3]
    assert batch.rows["audio"].tolist() == [0, 1, 2]
    assert batch.target.tolist() == [1, 2, -1, 4]
    assert batch.index.tolist() == [0, 1, 2, 3]
    assert batch.noise is None
    assert len(batch) == 4
    assert batch.inputs["audio"].shape == (3, 1, AUDIO_WINDOW.steps, MEL_BANDS)
    assert batch.windows["audio"].tolist() == [[0, 0], [1, 0], [2, 0]]
    assert batch.inputs["visual"].shape == (2, 1, 3, CROP_SIDE, CROP_SIDE)
    assert all(x.dtype == torch.float32 for x in batch.inputs.values())
    assert batch.inputs["visual"][0].unique().tolist() == [-1]
    assert batch.inputs["visual"][1].unique().tolist() == [1]
    whole_numbers = (batch.target, batch.index, *batch.rows.values(), *batch.windows.values())
    assert {x.dtype for x in whole_numbers} == {torch.int64}


@pytest.mark.parametrize("cut", [ALONE, merged_windows(AUDIO_WINDOW, 1.0, AUDIO_WINDOW.context), SEGMENTS])
def test_every_sample_has_its_own_window_however_audio_is_cut(tmp_path: Path, cut: Cut) -> None:
    times = [0.0, 0.1, 0.35, 3.2, 5.0, 5.0, 20.0, 21.5]
    batch = batch_of(stored(tmp_path, times, audio=ramp(1600) + 1), cut=cut)
    for sample, time in enumerate(times):
        first = round(time / 0.016) - 92
        expected = [step + 1 if 0 <= step < 1600 else 0 for step in range(first, first + AUDIO_WINDOW.steps)]
        assert window_of(batch, sample)[:, 9].tolist() == expected
    assert len(batch.inputs["audio"]) < len(times)  # some share a chunk; two frames at one time always do


@pytest.mark.parametrize("cut", [ALONE, merged_windows(AUDIO_WINDOW, 1.0, AUDIO_WINDOW.context), SEGMENTS])
def test_a_video_without_audio_has_images_only(tmp_path: Path, cut: Cut) -> None:
    batch = batch_of(stored(tmp_path, [0, 0.1], crops={0: jpeg(), 1: jpeg()}), cut=cut)
    assert batch.present(["audio"]).tolist() == [False, False]
    assert batch.present(["visual"]).tolist() == [True, True]
    assert batch.inputs["audio"].shape[0] == 0
    assert batch.windows["audio"].shape == (0, 2)


@pytest.mark.parametrize("frames_per_sample", [1, 3])
@pytest.mark.parametrize("augmented", [False, True])
def test_no_samples_give_an_empty_batch(tmp_path: Path, frames_per_sample: int, augmented: bool) -> None:
    index = FrameIndex([stored(tmp_path, [0, 0.1], crops={0: jpeg()}, audio=ramp(50))], EXPR)
    augment = Augment(AugmentSettings()) if augmented else None
    samples = Samples(np.arange(2), draw_noise(np.random.default_rng(0), 2) if augmented else None)[2:]
    windows = reading(index, DataSettings(frames_per_sample=frames_per_sample), augment=augment)
    batch = windows.on(CPU, windows[samples])
    assert len(batch) == 0
    assert batch.inputs["audio"].shape == (0, 1, AUDIO_WINDOW.steps, MEL_BANDS)
    assert batch.inputs["visual"].shape == (0, frames_per_sample, 3, CROP_SIDE, CROP_SIDE)
    assert batch.windows["audio"].shape == (0, 2)
    present = [batch.present([name]) for name in batch.parts]
    assert {len(x) for x in (*batch.rows.values(), *present, batch.target, batch.index, batch.valid)} == {0}


def shades_of(batch: Batch) -> list[list[int]]:
    """The grey of each image, by sample that has images."""
    return [[round((float(image.mean()) + 1) * 127.5) for image in shown] for shown in batch.inputs["visual"]]


def test_frames_of_a_sample_are_the_nearest_in_time(tmp_path: Path) -> None:
    times = [0, 0.1, 0.2, 0.33, 0.4, 0.5, 1.5]
    video = stored(tmp_path, times, crops={row: jpeg(20 * row) for row in (0, 2, 3, 5, 6)})
    batch = batch_of(video, DataSettings(frames_per_sample=3, spacing=0.2))
    assert batch.inputs["visual"].shape == (5, 3, 3, CROP_SIDE, CROP_SIDE)
    assert batch.rows["visual"].tolist() == [0, 2, 3, 5, 6]
    expected = [[0, 0, 2], [0, 2, 3], [2, 3, 5], [3, 5, 5], [6, 6, 6]]
    assert shades_of(batch) == [[20 * row for row in rows] for rows in expected]


def test_a_broken_image_among_several_is_replaced(tmp_path: Path) -> None:
    crops = {0: jpeg(40), 1: broken_jpeg(), 2: jpeg(80)}
    batch = batch_of(stored(tmp_path, [0, 0.2, 0.4], crops=crops), DataSettings(frames_per_sample=3, spacing=0.2))
    assert batch.present(["visual"]).tolist() == [True, True, True]
    assert {shade for shown in shades_of(batch) for shade in shown} == {40, 80}


def test_crop_of_another_size_is_fitted(tmp_path: Path) -> None:
    file = io.BytesIO()
    Image.new("RGB", (60, 80), (30, 30, 30)).save(file, "JPEG", quality=95)
    batch = batch_of(stored(tmp_path, [0, 1], crops={0: file.getvalue(), 1: jpeg(200)}))
    assert batch.inputs["visual"].shape == (2, 1, 3, CROP_SIDE, CROP_SIDE)
    assert shades_of(batch) == [[30], [200]]


@pytest.mark.parametrize("frames_per_sample", [1, 3])
def test_a_sample_whose_images_are_all_broken_has_none(tmp_path: Path, frames_per_sample: int) -> None:
    crops = {0: broken_jpeg(), 1: broken_jpeg(), 60: jpeg(200)}
    video = stored(tmp_path, [row / 10 for row in range(61)], crops=crops)
    batch = batch_of(video, DataSettings(frames_per_sample=frames_per_sample, spacing=0.1))
    assert batch.rows["visual"].tolist() == [60]
    assert shades_of(batch) == [[200] * frames_per_sample]


def test_samples_are_split_into_batches() -> None:
    samples = Samples(np.arange(5), draw_noise(np.random.default_rng(0), 5))
    batches = split_batches(samples, 2)
    assert [batch.indices.tolist() for batch in batches] == [[0, 1], [2, 3], [4]]
    assert samples.noise is not None
    assert np.array_equal(np.concatenate([batch.noise for batch in batches if batch.noise is not None]), samples.noise)
    assert split_batches(Samples(np.arange(3)), 2)[1].noise is None


# Stretches and targets


@pytest.mark.parametrize("cut", [ALONE, merged_windows(AUDIO_WINDOW, 1.0, AUDIO_WINDOW.context), SEGMENTS])
def test_nothing_is_read_beyond_the_end_of_a_video(tmp_path: Path, cut: Cut) -> None:
    """A stretch that is filled up with its last frame, which has everything, between stretches that are whole."""
    video = stored(tmp_path, [0, 0.1, 0.2], [3, 5, 6], {row: jpeg(40 * row) for row in range(3)}, ramp(200) + 1)
    index = FrameIndex([video], EXPR)
    indices = np.array([0, 1, 2, 2, 2, 0, 1, 2])
    beyond = np.array([False, False, False, True, True, False, False, False])
    windows = reading(index, cut=cut)
    batch, whole = windows[Samples(indices, beyond=beyond)], windows[Samples(indices[~beyond])]
    assert batch.valid.tolist() == (~beyond).tolist()
    assert batch.target.tolist() == [3, 5, 6, -1, -1, 3, 5, 6]
    assert batch.index.tolist() == indices.tolist()
    assert whole.valid.all()
    for name, part in batch.parts.items():
        assert part.rows.tolist() == [0, 1, 2, 5, 6, 7]
        assert batch.present([name]).tolist() == (~beyond).tolist()
        assert torch.equal(part.x, whole.parts[name].x), "nothing more is read"
    assert torch.equal(batch.windows["audio"], whole.windows["audio"])


def test_samples_that_are_cut_out_keep_what_lies_beyond() -> None:
    beyond = np.array([False, True, False, True])
    samples = Samples(np.arange(4), draw_noise(np.random.default_rng(0), 4), np.arange(4) // 2, beyond)
    assert samples.noise is not None
    part = samples[1:3]
    assert part.indices.tolist() == [1, 2]
    assert part.noise is not None
    assert np.array_equal(part.noise, samples.noise[1:3])
    assert part.group is not None
    assert part.group.tolist() == [0, 1]
    assert part.beyond is not None
    assert part.beyond.tolist() == [True, False]


def labelled(labels: np.ndarray) -> StoredVideo:
    """A video without modalities whose frames have these labels, [T, F]."""
    video = in_memory(np.arange(len(labels)) / 10)
    vars(video)["frames"] = replace(video.frames, label=labels)
    return video


def test_targets_of_values_are_nan_where_a_value_is_not_annotated() -> None:
    labels = np.array([[0.25, -0.5], [-5, 1], [-1, -5], [-5, -5], [0.1, 0]], np.float32)
    index = FrameIndex([labelled(labels)], VA)
    assert index.annotated.tolist() == [True, True, True, False, True]
    beyond = np.array([False, False, False, False, False, True])
    batch = reading(index)[Samples(np.array([0, 1, 2, 3, 4, 4]), beyond=beyond)]
    nan = np.float32(np.nan)
    expected = [[0.25, -0.5], [nan, 1], [-1, nan], [nan, nan], [np.float32(0.1), 0], [nan, nan]]
    assert batch.target.dtype == torch.float32
    np.testing.assert_array_equal(batch.target.numpy(), np.array(expected, np.float32))
    assert np.array_equal(index.label, labels), "labels stay as they are"


def test_targets_of_units_are_nan_where_a_unit_is_not_annotated() -> None:
    labels = np.array([[0, 1] * 6, [-1] * 12, [-1, 0, 1] * 4], np.int8)
    index = FrameIndex([labelled(labels)], AU)
    assert index.annotated.tolist() == [True, False, True]
    batch = reading(index)[Samples(np.array([2, 0, 1, 0]), beyond=np.array([False, False, False, True]))]
    nan = np.nan
    expected = np.array([[nan, 0, 1] * 4, [0, 1] * 6, [nan] * 12, [nan] * 12], np.float32)
    assert batch.target.dtype == torch.float32
    np.testing.assert_array_equal(batch.target.numpy(), expected)
    assert np.array_equal(index.label, labels), "labels stay as they are"


# Augmentation of batches


def test_without_random_numbers_nothing_is_augmented(tmp_path: Path) -> None:
    video = stored(tmp_path, [0, 0.1], crops={0: jpeg(), 1: jpeg(90)}, audio=ramp(100) + 1)
    augment, noise = Augment(AugmentSettings()), draw_noise(np.random.default_rng(0), 2)
    plain, same = batch_of(video), batch_of(video, augment=augment)
    changed, none = (batch_of(video, augment=a, noise=noise) for a in (augment, Augment(NONE)))
    assert plain.inputs.keys() == {"audio", "visual"}
    for name, x in plain.inputs.items():
        assert torch.equal(x, same.inputs[name])
        assert torch.equal(x, none.inputs[name])
        assert not torch.equal(x, changed.inputs[name])


def test_a_sample_is_augmented_by_its_own_numbers(tmp_path: Path) -> None:
    """The random numbers of samples that lack the modality are not used."""
    video = stored(tmp_path, [0, 0.1, 0.2, 5], crops={1: jpeg(50), 3: jpeg(90)}, audio=ramp(100) + 1)
    augment, noise = Augment(AugmentSettings()), draw_noise(np.random.default_rng(3), 4)
    batch, plain = batch_of(video, augment=augment, noise=noise), batch_of(video)
    expected = augment.jitter_(plain.inputs["visual"], torch.from_numpy(noise[[1, 3]]))
    torch.testing.assert_close(batch.inputs["visual"], expected)  # a grey image is the same however it is cropped
    assert torch.equal(batch.inputs["audio"], augment.mask(plain.inputs["audio"], torch.from_numpy(noise[[0, 1, 2]])))


def test_a_chunk_has_one_mask_its_first_samples(tmp_path: Path) -> None:
    times = [9.0, 0.0, 9.3, 0.3, 0.6]
    video = stored(tmp_path, sorted(times), audio=ramp(900) + 1)
    index, augment = FrameIndex([video], EXPR), Augment(AugmentSettings())
    noise = draw_noise(np.random.default_rng(3), 5)
    samples = Samples(np.argsort(np.argsort(times)), noise)  # in the order of `times`
    windows = reading(index, None, merged_windows(AUDIO_WINDOW, 1.0, AUDIO_WINDOW.context), augment)
    plain = windows[samples]
    assert plain.windows["audio"][:, 0].tolist() == [1, 0, 1, 0, 0]
    expected = augment.mask(plain.inputs["audio"], torch.from_numpy(noise[[1, 0]]))
    assert torch.equal(windows.on(CPU, plain).inputs["audio"], expected)


def test_workers_do_not_change_a_batch(store: Path) -> None:
    data = DataSettings(frames_per_sample=2)
    index, augment = FrameIndex(open_store(store, EXPR).split("train"), EXPR), Augment(AugmentSettings())
    windows = reading(index, data, merged_windows(AUDIO_WINDOW, 1.0, AUDIO_WINDOW.context), augment)
    indices = np.arange(0, len(index), 9)
    batches = split_batches(Samples(indices, draw_noise(np.random.default_rng(0), len(indices))), 4)
    alone, helped = (list(load(windows, batches, workers)) for workers in (0, 2))
    assert len(alone) == len(helped) == len(batches)
    assert sum(len(batch) for batch in alone) == len(indices)
    for one, two in zip(alone, helped, strict=True):
        assert one.parts.keys() == two.parts.keys() == {"audio", "visual"}
        pairs = [(getattr(one, name), getattr(two, name)) for name in ("target", "index", "noise", "valid")]
        for name, part in one.parts.items():
            pairs += zip(vars(part).values(), vars(two.parts[name]).values(), strict=True)
        assert sum(x is None and y is None for x, y in pairs) == 3, "images share nothing, and neither has activity"
        assert all(torch.equal(x, y) for x, y in pairs if x is not None)
