"""What the sound of a recording is like: its level, whether it is clipped, how much of it is voice."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import webrtcvad

from abaw_expr.data.media import SAMPLE_RATE
from abaw_expr.data.problems import Problem

FRAME = SAMPLE_RATE * 30 // 1000
"""Samples that the detector judges at a time: 30 ms."""
AGGRESSIVENESS = 2
"""Of WebRTC's detector, 0 to 3: the higher, the surer it must be of a voice."""
SILENCE = -60.0
"""dBFS: sound whose root mean square is below is as good as none."""
FULL = 0.99
"""Full scale is 1; resampling and lossy coding leave what was clipped about here."""
MOST_CLIPPED = 0.001
"""The share of samples at full scale beyond which it is told."""
LEAST_VOICE = 0.05
"""The share of voice below which it is told."""
_FLOOR = 1e-6
_BLOCK = 2**20
"""Samples at a time, so that memory stays flat over an hour of sound."""


@dataclass(frozen=True)
class SoundCheck:
    """How loud, how clean and how much voice."""

    rms_dbfs: float
    """Root mean square, decibels below full scale; digital silence is -120."""
    peak_dbfs: float
    clipped: float
    """The share of samples at full scale."""
    voice: float
    """The share of 30 ms pieces in which a voice is detected."""


def check_sound(samples_n: np.ndarray) -> SoundCheck:
    """Measures float32 mono sound at 16 kHz, one sample at least."""
    blocks = [samples_n[start : start + _BLOCK] for start in range(0, len(samples_n), _BLOCK)]
    power = sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks) / len(samples_n)
    peak = max(float(np.abs(block).max()) for block in blocks)
    clipped = sum(int((np.abs(block) >= FULL).sum()) for block in blocks) / len(samples_n)
    return SoundCheck(_decibels(power**0.5), _decibels(peak), round(clipped, 4), round(_voice(samples_n), 4))


def sound_check_problems(name: str, check: SoundCheck) -> Iterator[Problem]:
    """What is to be told about the sound of a recording; none of it keeps the sound out of the store."""
    remedy = "None needed; listen whether it is the right sound."
    if check.rms_dbfs < SILENCE:
        yield Problem("silent sound", name, f"its level is {check.rms_dbfs:.0f} dBFS", remedy)
    elif check.voice < LEAST_VOICE:
        yield Problem("hardly a voice", name, f"a voice is heard in {check.voice:.0%} of the sound", remedy)
    if check.clipped > MOST_CLIPPED:
        yield Problem("clipped sound", name, f"{check.clipped:.1%} of its samples are at full scale", remedy)


def _voice(samples_n: np.ndarray) -> float:
    detector = webrtcvad.Vad(AGGRESSIVENESS)
    count = len(samples_n) // FRAME
    voiced = 0
    for start in range(0, count, _BLOCK // FRAME):
        pieces = samples_n[start * FRAME : min(start + _BLOCK // FRAME, count) * FRAME].reshape(-1, FRAME)
        whole = (np.clip(pieces, -1, 1) * 32767).astype(np.int16)
        voiced += sum(detector.is_speech(piece, SAMPLE_RATE) for piece in map(bytes, whole))
    return voiced / count if count else 0.0


def _decibels(amplitude: float) -> float:
    return round(float(20 * np.log10(max(amplitude, _FLOOR))), 2)
