"""Voice activity of sounds that are known to be a voice or none."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.voice import VOICE_SAMPLES, VOICED, voice_probabilities
from abaw_expr.data.synthetic.speech import synthesise_speech
from abaw_expr.tasks.task import EXPR

CLOCK = np.arange(20 * SAMPLE_RATE) / SAMPLE_RATE


def speech(label: int, seconds: float, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng([seed, label])
    return synthesise_speech([label], [seconds], rng).audio.astype(np.float32) / 2**15


def voiced(samples: np.ndarray) -> float:
    return float(np.mean(voice_probabilities(samples) >= VOICED))


@pytest.mark.parametrize("level", [0.01, 0.1, 0.5])
def test_noise_and_tones_are_no_voice(level: float) -> None:
    noise = np.random.default_rng(0).normal(0, level, len(CLOCK))
    sounds = [noise, *(level * np.sin(2 * np.pi * hertz * CLOCK) for hertz in (100, 220, 440, 3_000))]
    assert all(voiced(sound.astype(np.float32)) < 0.05 for sound in sounds)


def test_synthetic_speech_of_every_class_is_a_voice() -> None:
    """The demo's voices, over four speakers each."""
    fractions = [np.mean([voiced(speech(label, 8.0, seed)) for seed in range(4)]) for label in range(EXPR.n_columns)]
    assert min(fractions) > 0.7
    assert np.mean(fractions) > 0.9


def test_steps_lie_where_the_voice_is() -> None:
    silence = np.zeros(4 * SAMPLE_RATE, np.float32)
    probabilities = voice_probabilities(np.concatenate([silence, speech(0, 4.0), silence]))
    second = SAMPLE_RATE / VOICE_SAMPLES
    said = np.zeros(len(probabilities), bool)
    said[round(4 * second) : round(8 * second)] = True
    assert np.mean((probabilities >= VOICED) == said) > 0.95


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 5_000))
def test_there_is_a_step_for_every_512_samples_begun(samples: int) -> None:
    probabilities = voice_probabilities(np.full(samples, 0.1, np.float32))
    assert probabilities.shape == (-(-samples // 512),)
    assert probabilities.dtype == np.float16
    assert np.all((probabilities >= 0) & (probabilities <= 1))


def test_blocks_do_not_change_the_probabilities(monkeypatch: pytest.MonkeyPatch) -> None:
    samples = speech(4, 6.0)
    whole = voice_probabilities(samples)
    monkeypatch.setattr("abaw_expr.data.media.voice._BLOCK", 7)
    np.testing.assert_array_equal(voice_probabilities(samples), whole)
