"""Frame times from time stamps, repaired where stamps contradict each other.

Stamps are trusted while they increase. A clock that restarts, as in joined files, continues; a stray stamp is replaced
by the expected one.

Shapes: n packets, each a frame, in decoding order.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from numpy.typing import NDArray

_MOST_STILL = 60.0
"""The longest time, in seconds, that a frame is shown; a longer step of the clock is a jump."""
_UNKNOWN_STEP = 0.04
"""Seconds from frame to frame where no stamp gives them."""
_NEAR = 1.0
"""Seconds around its expected value within which a stamp continues the clock."""
_BACK = 0.1
"""Seconds by which stamps may decrease and count as out of order only."""
_MOST_STRAYS = 3
"""Consecutive packets that may be stray before later stamps continue the clock."""
_REORDERED = 17
"""Frames by which decoding order may be ahead of display order: H.264 keeps 16."""

_Ticks = NDArray[np.int64]
Stamp = tuple[int | None, int | None]
"""When a frame is shown and when it is decoded, in ticks; None where the packet does not say."""


@dataclass(frozen=True)
class Clock:
    """When the frames of a video are shown."""

    times: NDArray[np.float64]
    """[n] seconds from the first frame, ascending."""
    positions: NDArray[np.intp]
    """[n] position among the times of each packet's frame."""
    zero: float = 0.0
    """The first frame's stamp, in seconds."""
    shifts: tuple[float, ...] = (0.0,)
    """Seconds that were added to stamps, in the order in which they were first needed."""
    problem: str | None = None
    """What was repaired, or None."""
    cut: str | None = None
    """The error that ended reading before the end of the file, or None."""

    @classmethod
    def none(cls) -> "Clock":
        """The clock of a file without frames."""
        return cls(np.zeros(0), np.zeros(0, np.intp))

    @property
    def end(self) -> float:
        """Seconds of the last frame."""
        return float(self.times[-1]) if len(self.times) else 0.0


def time_stamps_of(packets: Iterable[av.Packet]) -> list[Stamp]:
    """When the frames of packets are shown and decoded, in decoding order."""
    return [(packet.pts, packet.dts) for packet in packets if not packet.is_discard]


def clock_of(pairs: Sequence[Stamp], base: Fraction, most_still: float = _MOST_STILL) -> Clock:
    """The clock given by stamps; `base` is their tick in seconds.

    A frame is shown for `most_still` seconds at most.
    """
    if not pairs:
        return Clock.none()
    tick = float(base)
    decoded, offset = _orders(pairs, tick)
    shift, shifts, jumps = _shifts(decoded, tick, _BACK if pairs[-1][1] is not None else None, most_still)
    shown = decoded + shift + offset
    order = np.argsort(shown, kind="stable")
    positions = np.empty(len(order), np.intp)
    positions[order] = np.arange(len(order))
    first = int(shown[order[0]])
    times = (shown[order] - first).astype(np.float64) * tick
    problem = None
    if len(times) > 1 and not times.any():
        times = np.arange(len(times), dtype=np.float64) * _UNKNOWN_STEP
        problem = (
            f"time stamps of its {len(times)} frames are all the same; it gets {1 / _UNKNOWN_STEP:g} frames a second"
        )
    elif jumps:
        at, size = jumps[0]
        more = f" and {len(jumps) - 1} times more" if len(jumps) > 1 else ""
        problem = f"time stamps of its frames jump by {size * tick:+.1f} s at {(at - first) * tick:.1f} s{more}"
    return Clock(times, positions, first * tick, tuple(float(s) * tick for s in shifts), problem)


def _orders(pairs: Sequence[Stamp], tick: float) -> tuple[_Ticks, _Ticks]:
    """Each packet's decoding stamp [n] and the delay until its frame is shown [n], in ticks.

    Where one of the two is unknown, the other stands for both; a frame with an implausible delay gets the usual one;
    where none is known, the stamp is one step after the last.
    """
    decoded = np.array([np.nan if dts is None else dts for _, dts in pairs])
    shown = np.array([np.nan if pts is None else pts for pts, _ in pairs])
    offset = shown - decoded
    usual = float(np.median(offset[~np.isnan(offset)])) if not np.isnan(offset).all() else 0.0
    decoded = np.where(np.isnan(decoded), shown - usual, decoded)
    known = np.flatnonzero(~np.isnan(decoded))
    positions = np.arange(len(pairs))
    step = _step(decoded[known], tick)
    if not len(known):
        decoded = positions * round(_UNKNOWN_STEP / tick)
    else:
        before = known[np.maximum(np.searchsorted(known, positions, side="right") - 1, 0)]
        decoded = np.where(np.isnan(decoded), decoded[before] + (positions - before) * step, decoded)
    late = np.abs(offset - usual)
    moved = np.abs(np.argsort(np.argsort(decoded + np.nan_to_num(offset), kind="stable")) - positions) > _REORDERED
    stray = (late > _MOST_STILL / tick) | (moved & (late > max(_NEAR / tick, _REORDERED * step)))
    offset = np.where(np.isnan(offset) | stray, usual, offset)
    return np.rint(decoded).astype(np.int64), np.rint(offset).astype(np.int64)


def _step(stamps: NDArray[np.float64], tick: float) -> float:
    """The median step between stamps, in ticks, at least 1 and at most `_MOST_STILL`."""
    steps = np.diff(stamps)
    return min(float(np.median(steps[steps > 0])), _MOST_STILL / tick) if (steps > 0).any() else 1.0


def _shifts(
    stamps: _Ticks, tick: float, back: float | None, most_still: float
) -> tuple[_Ticks, list[int], list[tuple[int, int]]]:
    """What is added to each stamp [n], all values added, and the jumps: (repaired stamp before each, size) in ticks.

    `back` is the seconds by which stamps may decrease; None: they are in display order, which is not decoding order.
    """
    step = round(_step(stamps.astype(np.float64), tick))
    near = max(round(_NEAR / tick), 2 * step)
    jitter = max(near, _REORDERED * step) if back is None else max(round(back / tick), 2 * step)
    steps = np.diff(stamps)
    starts = [0, *(np.flatnonzero((steps < -jitter) | (steps > step + jitter)) + 1).tolist(), len(stamps)]
    shift = np.zeros(len(stamps), np.int64)
    shifts, jumps = [0], list[tuple[int, int]]()
    last = int(stamps[: starts[1]].max())  # the latest, repaired
    for start, stop in pairwise(starts[1:]):
        before, due = last, last + step - int(stamps[start])
        if _is_stray(stamps, start, stop, due + int(stamps[start]) - shifts[-1], step, near):
            new, late = due, shifts[-1] - due
            last += (stop - start) * step
        else:
            new, late = _continued(shifts, due, jitter, near, min(most_still / tick, 2.0**62))
            last = max(last, int(stamps[start:stop].max()) + new)
            shifts += [new] if new != shifts[-1] else []
        jumps += [(before, late)] if late else []
        shift[start:stop] = new
    return shift, shifts, jumps


def _continued(shifts: Sequence[int], due: int, jitter: int, near: int, most_still: float) -> tuple[int, int]:
    """The shift from here on, in ticks, and the size of the jump; the shift `due` would continue the clock without
    one."""
    close = [s for s in shifts if -jitter <= s - due <= near]
    if close:
        return min(close, key=lambda s: (abs(s - due), s != shifts[-1])), 0
    if 0 < shifts[-1] - due <= most_still:
        return shifts[-1], 0
    return due, shifts[-1] - due


def _is_stray(stamps: _Ticks, start: int, stop: int, due: int, step: int, near: int) -> bool:
    """Whether a few stamps are stray: the stamp after them is where the clock, `due` at `start`, would be without
    them."""
    if stop - start > _MOST_STRAYS or stop == len(stamps):
        return False
    return abs(int(stamps[stop]) - due - (stop - start) * step) <= near // 4 + step
