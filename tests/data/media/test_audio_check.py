"""Level, clipping and voice of audio whose level, clipping and voice are known."""

import numpy as np
import pytest

from abaw_expr.data.media.audio_check import AudioCheck, audio_check_problems, check_audio
from abaw_expr.data.media.decode import SAMPLE_RATE
from abaw_expr.data.media.voice import voice_probabilities
from abaw_expr.data.synthetic.speech import synthesise_speech

SECONDS = 6


def check(samples: np.ndarray) -> AudioCheck:
    return check_audio(samples, voice_probabilities(samples))


def sine(amplitude: float, hertz: float = 220) -> np.ndarray:
    clock = np.arange(SECONDS * SAMPLE_RATE) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * hertz * clock)).astype(np.float32)


def voice() -> np.ndarray:
    return synthesise_speech([0, 4, 7], [2.0, 2.0, 2.0], np.random.default_rng(0)).audio.astype(np.float32) / 2**15


@pytest.mark.parametrize("amplitude", [1.0, 0.5, 0.01])
def test_level_of_a_sine(amplitude: float) -> None:
    measured = check(sine(amplitude))
    assert measured.peak_dbfs == pytest.approx(20 * np.log10(amplitude), abs=0.01)
    assert measured.rms_dbfs == pytest.approx(20 * np.log10(amplitude) - 3.01, abs=0.01)


def test_silence_has_a_level_that_json_can_hold() -> None:
    assert check(np.zeros(SAMPLE_RATE, np.float32)) == AudioCheck(-120, -120, 0, 0)


def test_clipped_fraction_is_that_of_the_samples() -> None:
    samples = sine(0.5)
    samples[::100] = 1.0
    assert check(samples).clipped == 0.01


def test_fraction_of_voice_is_that_of_the_time() -> None:
    """Speech, then as much silence; the detector hangs on for a moment."""
    spoken = check(voice()).voice
    assert spoken > 0.9
    half = check(np.concatenate([voice(), np.zeros(SECONDS * SAMPLE_RATE, np.float32)])).voice
    assert half == pytest.approx(spoken / 2, abs=0.05)
    assert check(sine(0.3)).voice < 0.05


def test_less_than_a_step_has_no_voice() -> None:
    assert check(np.full(100, 0.5, np.float32)).voice == 0


def test_blocks_do_not_change_what_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = check(voice())
    monkeypatch.setattr("abaw_expr.data.media.audio_check._BLOCK", 4_800)
    assert check(voice()) == whole


@pytest.mark.parametrize(
    ("samples", "kinds"),
    [
        (voice(), []),
        (sine(0.0005), ["silent audio"]),
        (sine(0.3), ["little voice"]),
        (np.clip(20 * voice(), -1, 1), ["clipped audio"]),
    ],
)
def test_what_is_reported(samples: np.ndarray, kinds: list[str]) -> None:
    problems = list(audio_check_problems("a", check(samples)))
    assert [problem.kind for problem in problems] == kinds
    assert all(problem.remedy.startswith("None needed") for problem in problems)
