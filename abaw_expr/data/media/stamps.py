"""Time stamps of pictures, mended where they contradict each other.

Stamps are trusted as far as they go on. A clock that starts again, as where files were joined, goes on; a stamp far
off is taken for the next one. n packets, each a picture, in the order in which they are decoded.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fractions import Fraction
from itertools import pairwise

import av
import numpy as np
from numpy.typing import NDArray

STILL = 60.0
"""Seconds that one picture may be shown; a longer step of the clock is a jump."""
UNKNOWN = 0.04
"""Seconds from one picture to the next where no stamp says so."""
_NEAR = 1.0
"""Seconds around where the clock would go on in which a stamp is taken for going on."""
_BACK = 0.1
"""Seconds by which stamps may go back and are only out of order."""
_STRAYS = 3
"""Packets in a row that may have strayed, before others go on where the clock was."""
_REORDERED = 17
"""Pictures by which the order of decoding may be ahead of that of showing: H.264 keeps 16."""

Ticks = NDArray[np.int64]
Stamp = tuple[int | None, int | None]
"""When a picture is shown and when it is decoded, in ticks, as far as a packet says so."""


@dataclass(frozen=True)
class Clock:
    """When the pictures of a video are shown."""

    times: NDArray[np.float64]
    """[n] seconds from the first picture, ascending."""
    places: NDArray[np.intp]
    """[n] the place among the times of each packet's picture."""
    zero: float = 0.0
    """The first picture's stamp, in seconds."""
    shifts: tuple[float, ...] = (0.0,)
    """Seconds to be added to stamps, in the order in which the clock took to them."""
    problem: str | None = None
    """What was mended, or None."""
    cut: str | None = None
    """Why reading ended before the file did, or None."""

    @classmethod
    def none(cls) -> "Clock":
        """That of a file without pictures."""
        return cls(np.zeros(0), np.zeros(0, np.intp))

    @property
    def end(self) -> float:
        """Seconds of the last picture."""
        return float(self.times[-1]) if len(self.times) else 0.0


def stamps_of(packets: Iterable[av.Packet]) -> list[Stamp]:
    """When the pictures of packets are shown and decoded, by order of decoding."""
    return [(packet.pts, packet.dts) for packet in packets if not packet.is_discard]


def clock_of(pairs: Sequence[Stamp], base: Fraction, still: float = STILL) -> Clock:
    """The clock that stamps say; `base` is a tick of theirs in seconds.

    A picture is shown for `still` seconds at most.
    """
    if not pairs:
        return Clock.none()
    tick = float(base)
    decoded, offset = _orders(pairs, tick)
    shift, shifts, jumps = _shifts(decoded, tick, _BACK if pairs[-1][1] is not None else None, still)
    shown = decoded + shift + offset
    order = np.argsort(shown, kind="stable")
    places = np.empty(len(order), np.intp)
    places[order] = np.arange(len(order))
    first = int(shown[order[0]])
    times = (shown[order] - first).astype(np.float64) * tick
    problem = None
    if len(times) > 1 and not times.any():
        times = np.arange(len(times), dtype=np.float64) * UNKNOWN
        problem = f"time stamps of its {len(times)} pictures are all the same; {1 / UNKNOWN:g} a second are taken"
    elif jumps:
        at, size = jumps[0]
        more = f" and {len(jumps) - 1} times more" if len(jumps) > 1 else ""
        problem = f"time stamps of its pictures jump by {size * tick:+.1f} s at {(at - first) * tick:.1f} s{more}"
    return Clock(times, places, first * tick, tuple(float(s) * tick for s in shifts), problem)


def _orders(pairs: Sequence[Stamp], tick: float) -> tuple[Ticks, Ticks]:
    """Each packet's stamp of decoding, and how much later its picture is shown, in ticks.

    Where only one of the two is known it stands for both; a picture shown absurdly long after it is decoded is shown
    as late as the others; where none is known, a step after the one before.
    """
    decoded = np.array([np.nan if dts is None else dts for _, dts in pairs])
    shown = np.array([np.nan if pts is None else pts for pts, _ in pairs])
    offset = shown - decoded
    usual = float(np.median(offset[~np.isnan(offset)])) if not np.isnan(offset).all() else 0.0
    decoded = np.where(np.isnan(decoded), shown - usual, decoded)
    known = np.flatnonzero(~np.isnan(decoded))
    places = np.arange(len(pairs))
    step = _step(decoded[known], tick)
    if not len(known):
        decoded = places * round(UNKNOWN / tick)
    else:
        before = known[np.maximum(np.searchsorted(known, places, side="right") - 1, 0)]
        decoded = np.where(np.isnan(decoded), decoded[before] + (places - before) * step, decoded)
    late = np.abs(offset - usual)
    moved = np.abs(np.argsort(np.argsort(decoded + np.nan_to_num(offset), kind="stable")) - places) > _REORDERED
    strayed = (late > STILL / tick) | (moved & (late > max(_NEAR / tick, _REORDERED * step)))
    offset = np.where(np.isnan(offset) | strayed, usual, offset)
    return np.rint(decoded).astype(np.int64), np.rint(offset).astype(np.int64)


def _step(stamps: NDArray[np.float64], tick: float) -> float:
    """The usual ticks from one stamp to the next, 1 at least, and `STILL` at most."""
    steps = np.diff(stamps)
    return min(float(np.median(steps[steps > 0])), STILL / tick) if (steps > 0).any() else 1.0


def _shifts(
    stamps: Ticks, tick: float, back: float | None, still: float
) -> tuple[Ticks, list[int], list[tuple[int, int]]]:
    """What is added to each stamp [n], all that is added anywhere, and the jumps: (mended stamp before it, ticks).

    `back` is the seconds by which stamps may go back; None: they are in the order of showing, which is another.
    """
    step = round(_step(stamps.astype(np.float64), tick))
    near = max(round(_NEAR / tick), 2 * step)
    jitter = max(near, _REORDERED * step) if back is None else max(round(back / tick), 2 * step)
    steps = np.diff(stamps)
    starts = [0, *(np.flatnonzero((steps < -jitter) | (steps > step + jitter)) + 1).tolist(), len(stamps)]
    shift = np.zeros(len(stamps), np.int64)
    shifts, jumps = [0], list[tuple[int, int]]()
    last = int(stamps[: starts[1]].max())  # the latest, mended
    for start, stop in pairwise(starts[1:]):
        before, due = last, last + step - int(stamps[start])
        if _strayed(stamps, start, stop, due + int(stamps[start]) - shifts[-1], step, near):
            new, late = due, shifts[-1] - due
            last += (stop - start) * step
        else:
            new, late = _going_on(shifts, due, jitter, near, min(still / tick, 2.0**62))
            last = max(last, int(stamps[start:stop].max()) + new)
            shifts += [new] if new != shifts[-1] else []
        jumps += [(before, late)] if late else []
        shift[start:stop] = new
    return shift, shifts, jumps


def _going_on(shifts: Sequence[int], due: int, jitter: int, near: int, still: float) -> tuple[int, int]:
    """What is to be added from here on, in ticks, and by how much the clock jumps; `due` makes it go on at once."""
    close = [s for s in shifts if -jitter <= s - due <= near]
    if close:
        return min(close, key=lambda s: (abs(s - due), s != shifts[-1])), 0
    if 0 < shifts[-1] - due <= still:
        return shifts[-1], 0
    return due, shifts[-1] - due


def _strayed(stamps: Ticks, start: int, stop: int, due: int, step: int, near: int) -> bool:
    """Whether a few stamps are off and the next goes on where the clock, `due` at `start`, would be without them."""
    if stop - start > _STRAYS or stop == len(stamps):
        return False
    return abs(int(stamps[stop]) - due - (stop - start) * step) <= near // 4 + step
