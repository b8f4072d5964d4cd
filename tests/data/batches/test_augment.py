"""Augmentation: a sample's own random numbers decide its change, by the formulas written out."""

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from torch import Tensor

from abaw_expr.data.batches.augment import NOISE, Augment, Noise, check_masks
from abaw_expr.data.batches.frame_index import draw_noise
from abaw_expr.data.media.images import CROP_SIDE
from abaw_expr.errors import SettingsError
from abaw_expr.models.encoders.mcnn import AUDIO_WINDOW
from abaw_expr.settings import AugmentSettings

torch.set_num_threads(1)

NONE = AugmentSettings(frequency_mask=0, time_mask=0, flip=False, crop=1.0, jitter=0.0)
UNIFORM = st.floats(0, 1, exclude_max=True, width=32)


def only(**settings: object) -> Augment:
    """Augmentation by these settings alone."""
    return Augment(AugmentSettings(**{**vars(NONE), **settings}))


def noise_of(samples: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(draw_noise(np.random.default_rng(seed), samples))


def audio(chunks: int) -> Tensor:
    """Audio [g, 1, t, m] without a zero."""
    return torch.rand((chunks, 1, 184, 64), generator=torch.Generator().manual_seed(0)) + 1


def images(samples: int, frames: int = 2, side: int = 8) -> Tensor:
    """Images [b, f, 3, h, w] in [-1, 1], far enough from both ends not to be clipped."""
    return torch.rand((samples, frames, 3, side, side), generator=torch.Generator().manual_seed(1)) - 0.5


def grid() -> Tensor:
    """Three equal frames, uint8 [3, 3, h, w], whose first two channels are the row and the column of the pixel."""
    row = torch.arange(CROP_SIDE, dtype=torch.uint8)[:, None].expand(CROP_SIDE, CROP_SIDE)
    return torch.stack([row, row.T, row])[None].repeat(3, 1, 1, 1)


def edges(channel: Tensor) -> tuple[int, int]:
    """Where a cropped part of `grid` begins and its length: its outermost rows keep their values."""
    return int(channel.min()), int(channel.max()) - int(channel.min()) + 1


def test_random_numbers_are_uniform_and_the_generators_own() -> None:
    noise, again = noise_of(4000), noise_of(4000)
    assert noise.dtype == torch.float32
    assert noise.shape == (4000, NOISE)
    assert torch.equal(noise, again)
    assert noise.min() >= 0
    assert noise.max() < 1
    torch.testing.assert_close(noise.mean(0), torch.full((NOISE,), 0.5), atol=0.03, rtol=0)


def test_no_torch_randomness_is_used() -> None:
    augment, before = Augment(AugmentSettings()), torch.random.get_rng_state()
    augment.crop(grid(), noise_of(1)[0])
    augment.jitter_(images(2), noise_of(2))
    augment.mask(audio(2), noise_of(2))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_sample_changes_alike_in_any_batch() -> None:
    augment, noise = Augment(AugmentSettings()), noise_of(5)
    relit, masked = augment.jitter_(images(5), noise), augment.mask(audio(5), noise)
    order = torch.tensor([3, 0, 4])
    torch.testing.assert_close(augment.jitter_(images(5)[order], noise[order]), relit[order])
    assert torch.equal(augment.mask(audio(5)[order], noise[order]), masked[order])
    assert torch.equal(augment.crop(grid(), noise[3]), augment.crop(grid(), noise[3]))


def test_another_sample_changes_otherwise() -> None:
    augment, noise = Augment(AugmentSettings()), noise_of(2)
    same_frames, same_audio = images(1).repeat(2, 1, 1, 1, 1), audio(1).repeat(2, 1, 1, 1)
    assert not torch.equal(*augment.jitter_(same_frames, noise))
    assert not torch.equal(*augment.mask(same_audio, noise))
    assert not torch.equal(*(augment.crop(grid(), row) for row in noise))


def test_zero_strength_changes_nothing() -> None:
    augment, noise = Augment(NONE), noise_of(20)
    assert torch.equal(augment.jitter_(images(20), noise), images(20))
    assert torch.equal(augment.mask(audio(20), noise), audio(20))
    for row in noise:
        assert torch.equal(augment.crop(grid(), row), grid())


def test_what_is_given_is_left_as_it_was() -> None:
    augment, noise, given_frames, given_audio = Augment(AugmentSettings()), noise_of(3), grid(), audio(3)
    for row in noise:
        augment.crop(given_frames, row)
    augment.mask(given_audio, noise)
    assert torch.equal(given_frames, grid())
    assert torch.equal(given_audio, audio(3))


def test_nothing_to_change_stays_nothing() -> None:
    augment, none = Augment(AugmentSettings()), noise_of(0)
    assert augment.jitter_(images(0), none).shape == images(0).shape
    assert augment.mask(audio(0), none).shape == audio(0).shape


# Images


@hypothesis_settings(max_examples=60)
@given(smallest=st.floats(0.1, 0.99), u=st.lists(UNIFORM, min_size=4, max_size=4))
def test_crop_keeps_a_fraction_of_the_area_near_a_square(smallest: float, u: list[float]) -> None:
    noise = torch.full((NOISE,), 0.5)
    for kind, value in zip((Noise.AREA, Noise.ASPECT, Noise.TOP, Noise.LEFT), u, strict=True):
        noise[kind] = value
    cropped = only(crop=smallest).crop(grid(), noise)
    assert cropped.shape == grid().shape
    assert cropped.dtype == torch.uint8
    assert all(torch.equal(frame, cropped[0]) for frame in cropped)  # all frames of a sample alike
    (top, height), (left, width) = edges(cropped[0, 0]), edges(cropped[0, 1])

    area, aspect = smallest + u[0] * (1 - smallest), 1.1 ** (2 * u[1] - 1)
    assert height == pytest.approx(min(CROP_SIDE * (area / aspect) ** 0.5, CROP_SIDE), abs=0.51)
    assert width == pytest.approx(min(CROP_SIDE * (area * aspect) ** 0.5, CROP_SIDE), abs=0.51)
    assert top == pytest.approx(u[2] * (CROP_SIDE - height), abs=0.51)
    assert left == pytest.approx(u[3] * (CROP_SIDE - width), abs=0.51)
    assert top + height <= CROP_SIDE
    assert left + width <= CROP_SIDE


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_crop_goes_from_the_smallest_fraction_to_all(u: float) -> None:
    noise = torch.full((NOISE,), 0.5)
    noise[Noise.AREA] = u
    (_, height), (_, width) = (edges(channel) for channel in only(crop=0.25).crop(grid(), noise)[0, :2])
    assert height == width == (CROP_SIDE if u else CROP_SIDE // 2)


def test_flip_alone_mirrors_half() -> None:
    noise = noise_of(4000)
    mirrored = noise[:, Noise.FLIP] < 0.5
    frames, augment = grid()[:, :, :2, :2], only(flip=True)
    for row, mirror in zip(noise, mirrored, strict=True):
        assert torch.equal(augment.crop(frames, row), frames.flip(-1) if mirror else frames)
    assert mirrored.float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_brightness_scales_from_black_and_contrast_about_the_mean() -> None:
    strength, noise, frames = 0.3, noise_of(6), images(6)
    changed = only(jitter=strength).jitter_(frames.clone(), noise)
    for sample in range(6):
        brightness, contrast = (
            1 + strength * (2 * noise[sample, kind].item() - 1) for kind in (Noise.BRIGHTNESS, Noise.CONTRAST)
        )
        for shown, actual in zip(frames[sample], changed[sample], strict=True):
            bright = (shown + 1) * brightness - 1
            mean = bright.mean()
            torch.testing.assert_close(actual, ((bright - mean) * contrast + mean).clamp(-1, 1))


def test_jitter_stays_between_black_and_white() -> None:
    noise = torch.full((1, NOISE), 1 - 2**-24)
    white, black = torch.ones(1, 1, 3, 4, 4), -torch.ones(1, 1, 3, 4, 4)
    augment = only(jitter=0.9)
    assert torch.equal(augment.jitter_(white.clone(), noise), white)
    torch.testing.assert_close(augment.jitter_(black.clone(), noise), black)


# Audio


@pytest.mark.parametrize(("setting", "axis"), [("frequency_mask", 1), ("time_mask", 0)])
def test_mask_hides_one_whole_band(setting: str, axis: int) -> None:
    widest, given_audio = 8, audio(300)
    masked = only(**{setting: widest}).mask(given_audio, noise_of(300))
    widths, positions = set(), set()
    for changed_tm, own_tm in zip(masked[:, 0], given_audio[:, 0], strict=True):
        hidden_tm = changed_tm == 0
        hidden = hidden_tm.all(dim=1 - axis)
        assert torch.equal(hidden_tm, hidden.unsqueeze(1 - axis).expand_as(hidden_tm))
        assert torch.equal(changed_tm[~hidden_tm], own_tm[~hidden_tm])
        rows = hidden.nonzero().flatten().tolist()
        assert rows == list(range(min(rows, default=0), max(rows, default=-1) + 1))
        widths.add(len(rows))
        positions.update(rows)
    assert widths == set(range(widest + 1))
    assert positions >= {0, given_audio.shape[2 + axis] - 1}  # every row is masked by some numbers
    assert len(positions) > 0.9 * given_audio.shape[2 + axis]


@given(u=st.lists(UNIFORM, min_size=4, max_size=4), bands=st.integers(0, 63), steps=st.integers(0, 183))
@example(u=[0.65, 0.0, 0.0, 0.0], bands=19, steps=0)  # 13 in float32, just below it in float64
def test_mask_is_where_the_numbers_say(u: list[float], bands: int, steps: int) -> None:
    noise = torch.zeros(1, NOISE)
    kinds = (Noise.BAND_WIDTH, Noise.BAND, Noise.STRETCH_WIDTH, Noise.STRETCH)
    for kind, value in zip(kinds, u, strict=True):
        noise[0, kind] = value
    hidden_tm = only(frequency_mask=bands, time_mask=steps).mask(audio(1), noise)[0, 0] == 0
    for size, widest, (width, position), hidden in (
        (64, bands, u[:2], hidden_tm.all(0)),
        (184, steps, u[2:], hidden_tm.all(1)),
    ):
        length = int(np.float32(width) * np.float32(widest + 1))  # in float32, as the noise is
        assert hidden.sum() == length
        assert length <= widest
        if length:
            assert hidden.nonzero()[0].item() == pytest.approx(position * (size - length + 1), abs=1)


@pytest.mark.parametrize(
    ("widest", "too_wide", "flag"),
    [
        (AugmentSettings(frequency_mask=63), AugmentSettings(frequency_mask=64), "frequency-mask"),
        (AugmentSettings(time_mask=183), AugmentSettings(time_mask=184), "time-mask"),
    ],
)
def test_a_mask_of_all_the_audio_is_refused(widest: AugmentSettings, too_wide: AugmentSettings, flag: str) -> None:
    check_masks(widest, AUDIO_WINDOW.steps)
    with pytest.raises(SettingsError, match=f"augment.{flag} cannot be used"):
        check_masks(too_wide, AUDIO_WINDOW.steps)
