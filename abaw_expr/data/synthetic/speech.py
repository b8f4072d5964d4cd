"""Synthesises the speech of the synthetic corpus from harmonics.

Speech is a row of syllables; each glides from one vowel to another, a periodic wave (harmonics shaped by a spectral
tilt and three formants) on a gliding pitch, with breath noise and an envelope, and ends in a consonant, a burst of
noise. A class sets the *manner*, six numbers; a speaker sets pitch, vocal tract, pace and level. No real voice is
involved, but a detector of voices hears one.

Shapes: n samples, s segments.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE

# The difficulty of the voices. Larger values lower every class's F1.
_MANNER_SPREAD = 0.6
"""A segment's manner around its class's, in units of `_SPREAD_UNITS`."""
_SPEAKER_SPREAD = 0.4
"""A speaker's own manner around the mean speaker's, in the same units."""
_SPREAD_UNITS = np.array([2.0, 0.8, 0.6, 2.0, 1.5, 0.03])
"""One unit of spread for each column of the table below."""
_ROOM_NOISE = 0.004
"""Standard deviation of a room's noise, full scale 1; a room has half to twice of it."""

# One row a class, in the order of tasks.EXPR. Happiness and Surprise sound nearly alike on purpose (their faces do
# not); Anger, Fear and Sadness sound like nothing else (the faces of the last two are nearly alike).
#   pitch (semitones over the speaker's), its range (semitones), syllables a second, level (dB), tilt (dB an octave),
# breath (fraction of noise)
MANNERS = np.array(
    [
        (0.0, 1.0, 4.0, 0.0, -9.0, 0.025),  # Neutral
        (3.0, 2.5, 5.5, 7.0, -4.0, 0.05),  # Anger
        (-3.0, 2.0, 3.2, 1.0, -7.0, 0.075),  # Disgust
        (6.5, 1.5, 6.3, 0.0, -9.0, 0.14),  # Fear
        (5.0, 4.5, 5.0, 4.0, -8.0, 0.035),  # Happiness
        (-2.0, 0.7, 3.0, -6.0, -13.0, 0.10),  # Sadness
        (5.5, 4.8, 4.7, 4.0, -8.0, 0.045),  # Surprise
        (1.5, 2.5, 4.5, 2.0, -10.0, 0.05),  # Other
    ]
)

_VOWELS = np.array([(730, 1090, 2440), (530, 1840, 2480), (270, 2290, 3010), (570, 840, 2410), (300, 870, 2240)])
"""The first three formants of five vowels, Hz."""
_LEVEL = 0.05
"""Root mean square of a syllable at 0 dB, full scale 1."""

_GLIDE = 6
"""Vowels on the way from a syllable's first to its last."""
_CONSONANT = int(0.06 * SAMPLE_RATE)
"""Samples of a consonant."""
_TABLE = 1024  # samples of the table that holds one period of a vowel


@dataclass(frozen=True)
class _Speaker:
    """What is constant in a recording: pitch in Hz, formant factor, gain, noise level, own manner [6]."""

    pitch: float
    tract: float
    gain: float
    room: float
    manner: np.ndarray


def _random_speaker(rng: np.random.Generator) -> _Speaker:
    """A new speaker in a new room."""
    depth = rng.uniform(0, 1)
    return _Speaker(
        pitch=210 - 100 * depth + rng.normal(0, 8),
        tract=1.12 - 0.22 * depth + rng.normal(0, 0.02),
        gain=10 ** (rng.normal(0, 2) / 20),
        room=_ROOM_NOISE * 2 ** rng.uniform(-1, 1),
        manner=_SPEAKER_SPREAD * _SPREAD_UNITS * rng.standard_normal(MANNERS.shape[1]),
    )


class Speech(NamedTuple):
    """One speaker's audio, and how it sounds."""

    audio: np.ndarray
    """int16 [n], 16 kHz."""
    manners: np.ndarray
    """The manner of each segment in this voice, [s, 6]."""


def synthesise_speech(classes: list[int], seconds: list[float], rng: np.random.Generator) -> Speech:
    """One new speaker's audio for segments of these classes and lengths in seconds."""
    speaker = _random_speaker(rng)
    ends = np.round(np.cumsum(seconds) * SAMPLE_RATE).astype(int)
    starts = np.concatenate([[0], ends[:-1]])
    audio = rng.standard_normal(ends[-1]) * speaker.room
    manners = []
    for label, start, end in zip(classes, starts, ends, strict=True):
        manner = (
            MANNERS[label] + speaker.manner + _MANNER_SPREAD * _SPREAD_UNITS * rng.standard_normal(MANNERS.shape[1])
        )
        audio[start:end] += speaker.gain * _phrase(speaker, manner, end - start, rng)
        manners.append(manner)
    return Speech((np.clip(audio, -1, 1) * 32767).astype(np.int16), np.stack(manners))


def _phrase(speaker: _Speaker, manner: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Syllables of one manner [6], [n] for n = `samples`."""
    rate = max(manner[2], 1.0)
    syllables, total = [], 0
    while total < samples:
        length = int(SAMPLE_RATE / rate * rng.uniform(0.8, 1.2))
        syllables.append(_syllable(speaker, manner, length, rng))
        total += length
    return np.concatenate(syllables)[:samples]


def _syllable(speaker: _Speaker, manner: np.ndarray, samples: int, rng: np.random.Generator) -> np.ndarray:
    """Two vowels of a manner [6] and the consonant after them, [n] for n = `samples`."""
    pitch, span, _, level, tilt, breath = manner.tolist()
    first, last = pitch + max(span, 0.2) * rng.standard_normal(2)
    hertz = speaker.pitch * 2 ** (np.linspace(first, last, samples) / 12)
    formants = _VOWELS[rng.permutation(len(_VOWELS))[:2]] * speaker.tract
    glide = [_period(hertz.mean(), tilt, between) for between in np.linspace(formants[0], formants[1], _GLIDE)]
    phase = np.cumsum(hertz) / SAMPLE_RATE
    at = np.minimum(np.linspace(0, _GLIDE, samples).astype(int), _GLIDE - 1)
    voiced = np.stack(glide)[at, (phase % 1 * _TABLE).astype(int)]
    noise = np.diff(rng.standard_normal(samples + 1)) / np.sqrt(2)  # breath is brighter than white noise
    noise_fraction = np.clip(breath, 0, 0.8)
    wave = ((1 - noise_fraction) * voiced + noise_fraction * noise) * _envelope(samples)
    return _LEVEL * 10 ** (level / 20) * (wave + _consonant(noise))


def _consonant(noise: np.ndarray) -> np.ndarray:
    """A short burst of this noise [n] at the end of a syllable's vowels, [n]."""
    length = min(_CONSONANT, len(noise) // 3)
    start = int(0.8 * len(noise)) - length // 2
    burst = np.zeros_like(noise)
    burst[start : start + length] = 0.5 * np.hanning(length) * noise[start : start + length]
    return burst


def _period(pitch: float, tilt: float, formants: np.ndarray) -> np.ndarray:
    """One period of a vowel at a pitch (Hz) with formants [3], [1024], root mean square 1."""
    harmonics = np.arange(1, max(int(7000 / pitch), 2))
    away = (harmonics[:, None] * pitch - formants) / (40 + 0.03 * formants)
    shaped = 10 ** (tilt * np.log2(harmonics) / 20) * (0.03 + (1 / (1 + away**2)).sum(axis=1))
    spectrum = np.zeros(_TABLE // 2 + 1, complex)
    spectrum[harmonics] = shaped * np.exp(1j * harmonics**2)  # spread phases keep the peaks low
    wave = np.fft.irfft(spectrum, _TABLE)
    return wave / np.sqrt(np.mean(wave**2))


def _envelope(samples: int) -> np.ndarray:
    """An envelope [n] that rises and falls over the first 0.7 of it and is 0 after them."""
    voiced = int(0.7 * samples)
    return np.pad(np.sin(np.linspace(0, np.pi, voiced)) ** 0.7, (0, samples - voiced))
