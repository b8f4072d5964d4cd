"""Checks of a recording's audio: its level, clipping, fraction of voice, and length beside the video.

Shapes: n samples, v steps of 32 ms.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from abaw_expr.data.media.decode import SAMPLE_RATE, Audio
from abaw_expr.data.media.sources import NOMINAL_RATE, MediaSource
from abaw_expr.data.media.voice import VOICED
from abaw_expr.data.problems import Problem
from abaw_expr.tasks.names import VIDEO_SUFFIXES

_LENGTH_TOLERANCE = 1.0
"""Seconds by which audio and video may differ in length without a report."""
_SILENCE = -60.0
"""dBFS: audio whose root mean square is lower is as good as silent."""
_FULL_SCALE = 0.99
"""Full scale is 1; resampling and lossy coding leave clipped samples at about this value."""
_MOST_CLIPPED = 0.001
"""The largest fraction of samples at full scale without a report."""
_LEAST_VOICE = 0.05
"""The smallest fraction of voice without a report."""
_FLOOR = 1e-6
_BLOCK = 2**20
"""Samples at a time, so that memory does not grow with an hour of audio."""


@dataclass(frozen=True)
class AudioCheck:
    """Level, clipping and fraction of voice of a recording's audio."""

    rms_dbfs: float
    """Root mean square, decibels below full scale; digital silence is -120."""
    peak_dbfs: float
    clipped: float
    """The fraction of samples at full scale."""
    voice: float
    """The fraction of 32 ms steps in which a voice is detected."""


def check_audio(samples_n: np.ndarray, voice_v: np.ndarray) -> AudioCheck:
    """Measures mono audio at 16 kHz, float32 [n] with n >= 1, given its probabilities of a voice, [v]."""
    blocks = [samples_n[start : start + _BLOCK] for start in range(0, len(samples_n), _BLOCK)]
    power = sum(float(np.square(block, dtype=np.float64).sum()) for block in blocks) / len(samples_n)
    peak = max(float(np.abs(block).max()) for block in blocks)
    clipped = sum(int((np.abs(block) >= _FULL_SCALE).sum()) for block in blocks) / len(samples_n)
    voice = float(np.mean(voice_v >= VOICED))
    return AudioCheck(_decibels(power**0.5), _decibels(peak), round(clipped, 4), round(voice, 4))


def audio_check_problems(name: str, check: AudioCheck) -> Iterator[Problem]:
    """The reports about the audio of a recording; the audio is stored all the same."""
    remedy = "None needed; check by listening that it is the right audio."
    if check.rms_dbfs < _SILENCE:
        yield Problem("silent audio", name, f"its level is {check.rms_dbfs:.0f} dBFS", remedy)
    elif check.voice < _LEAST_VOICE:
        yield Problem("little voice", name, f"a voice is detected in {check.voice:.0%} of the audio", remedy)
    if check.clipped > _MOST_CLIPPED:
        yield Problem("clipped audio", name, f"{check.clipped:.1%} of its samples are at full scale", remedy)


def source_problems(name: str, path: Path, read: MediaSource) -> Iterator[Problem]:
    """The reports about the time stamps of a recording, and about its audio beside its video."""
    if read.clock is not None and read.clock.problem:
        remedy = "None needed: the jumps are removed; check that its frames match its labels."
        yield Problem("jumping time stamps", name, read.clock.problem, remedy)
    if read.clock is not None and read.clock.cut:
        detail = f"reading ended after {read.clock.end:.1f} s ({read.clock.cut})"
        yield Problem("damaged video", name, detail, "Download the video again and run prepare again.")
    if read.kind == "audio" and path.suffix.lower() in VIDEO_SUFFIXES:
        detail = f"it holds no frame, so it gets {NOMINAL_RATE} frames a second"
        yield Problem("video without frames", name, detail, "None needed if it is audio alone.")
    if read.audio is not None:
        yield from _audio_problems(name, read.audio, float(read.times[-1]))
    elif read.kind == "video":
        yield Problem("no audio", name, "the video has no audio", "None needed: it is predicted from its frames alone.")


def _audio_problems(name: str, audio: Audio, end: float) -> Iterator[Problem]:
    seconds = len(audio.samples) / SAMPLE_RATE
    if audio.streams > 1:
        remedy = "None needed if that is the right one; else leave only the right one in the file."
        yield Problem("several audio streams", name, f"the first of {audio.streams} audio streams is used", remedy)
    if audio.problem is not None:
        detail = f"{audio.problem}; {seconds:.1f} s of audio are kept"
        yield Problem("damaged audio", name, detail, "Download it again and run prepare again.")
    if audio.stamp_problem is not None:
        remedy = "None needed; check by listening that audio and video are in step."
        yield Problem("audio time stamps", name, f"{audio.stamp_problem}; {seconds:.1f} s are kept", remedy)
    detail = f"audio {'continues after' if audio.cut else 'ends at'} {seconds:.1f} s, the video ends at {end:.1f} s"
    if seconds < end - _LENGTH_TOLERANCE:
        yield Problem("short audio", name, detail, "None needed: later frames are predicted without audio.")
    elif seconds > end + _LENGTH_TOLERANCE:
        yield Problem("long audio", name, detail, "None needed: audio after the last frame is not used.")


def _decibels(amplitude: float) -> float:
    return round(float(20 * np.log10(max(amplitude, _FLOOR))), 2)
