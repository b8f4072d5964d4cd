"""What the sound of a recording is like: its level, whether it is clipped, how much of it is voice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import webrtcvad

from abaw_expr.data.media.decode import SAMPLE_RATE, Sound
from abaw_expr.data.media.sources import NOMINAL_RATE, Source
from abaw_expr.data.problems import Problem
from abaw_expr.tasks.names import VIDEO_SUFFIXES

SOUND_OFF = 1.0
"""Seconds by which sound may end before or after the picture without being reported."""
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


def source_problems(name: str, path: Path, read: Source) -> Iterator[Problem]:
    """What is to be told about the clock of a recording and how its sound lies on it."""
    if read.clock is not None and read.clock.problem:
        remedy = "None needed: its clock goes on as if they did not; look whether its frames are those of its labels."
        yield Problem("clock that jumps", name, read.clock.problem, remedy)
    if read.clock is not None and read.clock.cut:
        detail = f"reading ended after {read.clock.end:.1f} s ({read.clock.cut})"
        yield Problem("damaged video", name, detail, "Download the video again and run prepare again.")
    if read.kind == "sound" and path.suffix.lower() in VIDEO_SUFFIXES:
        detail = f"it holds no picture, so {NOMINAL_RATE} frames a second are taken"
        yield Problem("video without pictures", name, detail, "None needed where it is sound alone.")
    if read.sound is not None:
        yield from _sound_problems(name, read.sound, float(read.times[-1]))
    elif read.kind == "video":
        yield Problem("no sound", name, "the video has no sound", "None needed: the picture decides alone.")


def _sound_problems(name: str, sound: Sound, end: float) -> Iterator[Problem]:
    seconds = len(sound.samples) / SAMPLE_RATE
    if sound.streams > 1:
        remedy = "None needed if that is the right one; else leave only the right one in the file."
        yield Problem("several sounds", name, f"{sound.streams} streams of sound, the first is taken", remedy)
    if sound.problem is not None:
        detail = f"{sound.problem}; {seconds:.1f} s of sound are kept"
        yield Problem("damaged sound", name, detail, "Download it again and run prepare again.")
    if sound.stamps is not None:
        remedy = "None needed; listen whether the sound agrees with the picture."
        yield Problem("sound off its clock", name, f"{sound.stamps}; {seconds:.1f} s are kept", remedy)
    detail = f"sound {'goes on after' if sound.cut else 'ends at'} {seconds:.1f} s, the picture at {end:.1f} s"
    if seconds < end - SOUND_OFF:
        yield Problem("short sound", name, detail, "None needed: the picture decides alone after that.")
    elif seconds > end + SOUND_OFF:
        yield Problem("long sound", name, detail, "None needed: what is heard after the last picture is not asked for.")


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
