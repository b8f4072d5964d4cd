"""Assembles decoded audio on the clock of the frames, by sample counts that are checked against time stamps.

A gap in the stamps becomes silence if the following stamps confirm it and it ends while there are frames. Other stamps
that contradict the sample counts are not followed: the samples are placed end to end, as players do.

Shapes: n samples of a piece, m samples of the track.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.media.timestamps import Clock

_TOLERANCE = 0.05
"""Seconds by which stamps and sample counts may differ without meaning."""
_PERSISTENCE = 4
"""Pieces that must confirm a stamp before it is followed; fewer at the end."""
_DRIFT = 0.005
"""The fraction of the samples that may be dropped to follow stamps: clocks of devices differ by less."""
_SMALL, _MANY, _MOST_SMALL = 0.15, 5, 0.02
"""Seconds of a small gap; the number, and the fraction of the audio, of small gaps beyond which all stamps are
doubted."""
_PLAUSIBLE = 60.0
"""The longest gap, in seconds, in audio without frames."""


class Piece(NamedTuple):
    """Audio as the decoder returned it."""

    stamp: float | None
    """Seconds on the file's clock."""
    samples: NDArray[np.float32]
    """float32 [n]."""


def assemble_track(
    pieces: Sequence[Piece], clock: Clock, limit: float | None, rate: int
) -> tuple[NDArray[np.float32], str | None]:
    """Places pieces on the clock of the frames: samples float32 [m] at `rate`, and a problem of their stamps or None.

    `limit` is the second at which the last gap may end; None: there are no frames.
    """
    track = _Track(pieces, clock, limit, rate).follow()
    if track.behind:  # stamps lag far behind the samples: no sample is dropped
        track = _Track(pieces, clock, limit, rate, drops=False).follow()
    if track.unreliable:
        whole = sum(len(piece.samples) for piece in pieces)
        ignored = _Track(pieces, clock, limit, rate, drops=False, gaps=False).follow()
        end = clock.end * rate if len(clock.times) else float(whole)
        track = min(track, ignored, key=lambda one: abs(one.length - end))
    return np.concatenate([np.zeros(0, np.float32), *track.placed]), track.stamp_problem()


@dataclass
class _Track:
    """Pieces placed end to end, with silence where time stamps leave a gap."""

    pieces: Sequence[Piece]
    clock: Clock
    limit: float | None
    rate: int
    drops: bool = True
    """Whether samples are dropped where stamps lag a little behind."""
    gaps: bool = True
    placed: list[NDArray[np.float32]] = field(default_factory=list)
    length: int = 0
    shift: float = 0.0
    """Seconds added to stamps."""
    dropped: int = 0
    small: list[int] = field(default_factory=list)
    """Samples of each small gap."""
    jumps: list[tuple[float, float]] = field(default_factory=list)
    """Seconds at which stamps were not followed, and seconds by which they differed."""

    @property
    def behind(self) -> bool:
        """Whether stamps lag behind the samples by more than can be dropped."""
        return self.drops and any(size < 0 for _, size in self.jumps)

    @property
    def unreliable(self) -> bool:
        """Whether the stamps leave so many small gaps that they are likely wrong."""
        return len(self.small) >= _MANY and sum(self.small) > _MOST_SMALL * self.length

    def stamp_problem(self) -> str | None:
        """How the stamps contradict the samples, or None."""
        if not self.jumps:
            return None
        at, size = self.jumps[0]
        whole = sum(size for _, size in self.jumps)
        times = "once" if len(self.jumps) == 1 else f"{len(self.jumps)} times, by {whole:+.1f} s in all"
        return (
            f"time stamps contradict the samples {times}, first at {at:.1f} s by {size:+.1f} s; they are not followed"
        )

    def follow(self) -> "_Track":
        """Places all pieces."""
        for number, piece in enumerate(self.pieces):
            gap = self._gap(number, self.shift)
            if gap is None or (self.length and (abs(gap) <= self._tolerance or not self._persists(number, gap))):
                self._append(piece.samples)
            else:
                self._follow_stamp(number, gap)
        return self

    @property
    def _tolerance(self) -> int:
        return round(_TOLERANCE * self.rate)

    def _gap(self, number: int, shift: float, ahead: int = 0) -> int | None:
        """Samples by which a piece's stamp is ahead of the samples placed, and of `ahead` more."""
        stamp = self.pieces[number].stamp
        if stamp is None:
            return None
        return round((stamp + shift - self.clock.zero) * self.rate) - self.length - ahead

    def _persists(self, number: int, gap: int) -> bool:
        """Whether the next stamps differ from the samples in the same direction."""
        ahead = 0
        for later in range(number + 1, min(number + _PERSISTENCE, len(self.pieces))):
            ahead += len(self.pieces[later - 1].samples)
            there = self._gap(later, self.shift, ahead)
            if there is not None and (abs(there) <= self._tolerance / 2 or (there > 0) != (gap > 0)):
                return False
        return True

    def _follow_stamp(self, number: int, gap: int) -> None:
        """Places a piece whose stamp differs from the end of the samples before it."""
        shift = next((s for s in self._shifts(number) if self._can_follow(self._gap(number, s) or 0, number)), None)
        samples = self.pieces[number].samples
        if shift is None:
            self.jumps.append((self.length / self.rate, gap / self.rate))
            self.shift -= gap / self.rate
        else:
            self.shift = shift
            gap = self._gap(number, shift) or 0
            tolerance = self._tolerance if self.length else 0
            if gap > tolerance:
                self.small += [gap] if self.length and gap <= _SMALL * self.rate else []
                self._append(np.zeros(gap, np.float32))
            elif gap < -tolerance:
                self.dropped += -gap if self.length else 0
                samples = samples[-gap:]
        self._append(samples)

    def _shifts(self, number: int) -> list[float]:
        """Shifts to try for a piece: the last one, then the others of the frames' clock, the nearest first."""
        others = sorted(set(self.clock.shifts) - {self.shift}, key=lambda s: abs(self._gap(number, s) or 0))
        return [self.shift, *others]

    def _can_follow(self, gap: int, number: int) -> bool:
        """Whether stamps that are `gap` samples ahead can be followed."""
        if gap > 0:
            end = (self.length + gap) / self.rate
            there = gap <= _PLAUSIBLE * self.rate if self.limit is None else end <= self.limit
            return gap <= self._tolerance or (there and (self.gaps or not self.length))
        if not self.length:  # audio before the first frame is dropped, unless it is all of the audio
            return -gap < sum(len(piece.samples) for piece in self.pieces[number:])
        most = max(2 * self._tolerance, _DRIFT * self.length)
        return -gap <= self._tolerance or (self.drops and self.dropped - gap <= most)

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.placed.append(samples)
        self.length += len(samples)
