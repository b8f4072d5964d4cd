"""The data of the timelines of a page.

Annotations and decisions are there of every frame; the numbers of the branches are sampled, at most `POINTS` frames of
a video, and rounded to 1/508 of their range, so that a page of a whole validation split stays small.

Shapes: T frames of one video, n sampled ones, C numbers of a row, F fields, k branches.
"""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.outputs.style import FUSED, TRUTH
from abaw_expr.outputs.table import VideoOutputs
from abaw_expr.report.kind import TaskKind
from abaw_expr.report.media import QUIETEST, AudioLevels
from abaw_expr.report.packing import Pack, codes
from abaw_expr.report.scored import DecidedVideo

POINTS = 900
"""The largest number of frames of a video whose numbers are shown."""
TICK = 1e-4
"""Seconds of the unit in which times are kept."""


def task_value(kind: TaskKind, branches: Sequence[str]) -> dict[str, Any]:
    """What all timelines of a task share."""
    votes = kind.votes(branches)
    return {
        "task": kind.task.name,
        "columns": list(kind.task.columns),
        "fields": list(kind.fields),
        "levels": list(kind.levels),
        "steps": kind.steps,
        "range": [kind.low, kind.high],
        "colours": list(kind.colours),
        "patterns": list(kind.patterns),
        "truth_colour": TRUTH,
        "votes": votes,
        "panels": [asdict(panel) for panel in kind.panels({vote["key"]: vote["key"] for vote in votes})],
        "quietest": QUIETEST,
    }


def sampled_times(frames: VideoOutputs) -> NDArray[np.float64]:
    """The times of the frames whose numbers are shown, [n]."""
    return frames.time[:: _step(frames)]


def video_value(kind: TaskKind, one: DecidedVideo, audio: AudioLevels | None, pack: Pack) -> dict[str, Any]:
    """One video: references to its arrays. `audio` is of the sampled times."""
    frames, step = one.video, _step(one.video)
    has = np.stack([~np.isnan(rows[:, 0]) for rows in frames.p.values()]).astype(np.uint8)  # [k, T]
    numbers = {FUSED: one.rows, **frames.p}
    return {
        "name": frames.name,
        "count": len(frames.frame),
        "step": step,
        "frames": pack.add(np.diff(frames.frame, prepend=0).astype(np.uint32)),
        "ticks": pack.add(_ticks(frames.time)),
        "crop": pack.add(frames.crop.astype(np.uint8)),
        "has": pack.add(has),
        "truth": pack.add(kind.codes(frames.label)),
        "decided": pack.add(kind.codes(one.decided)),
        "p": {key: pack.add(codes(rows[::step].T, kind.low, kind.high)) for key, rows in numbers.items()},
        "audio": None if audio is None else _audio(audio, pack),
    }


def _step(frames: VideoOutputs) -> int:
    return max(1, -(-len(frames.frame) // POINTS))


def _ticks(time: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The steps of time between frames, in units of `TICK`: they take little room once compressed."""
    return np.diff(np.rint(np.maximum(time, 0) / TICK).astype(np.int64), prepend=0).clip(0).astype(np.uint32)


def _audio(audio: AudioLevels, pack: Pack) -> dict[str, Any]:
    return {"level": pack.add(codes(audio.level, QUIETEST, 0)), "voice": pack.add(codes(audio.voice, 0, 1))}
