"""Pieces of sound laid on the clock of the pictures: by their samples, checked against their time stamps.

A gap that stamps leave is silence where they stay ahead and it ends while there are pictures. Otherwise stamps that
contradict the samples are not followed: the samples go on end to end, as in players.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.media.stamps import Clock

_JITTER = 0.05
"""Seconds by which stamps and samples may differ without meaning anything."""
_STAYS = 4
"""Pieces that must agree with a stamp for it to be followed; fewer at the end."""
_DRIFT = 0.005
"""The fraction of the samples that may be dropped to keep step with stamps: clocks of devices differ by less."""
_SMALL, _MANY, _MOST_SMALL = 0.15, 5, 0.02
"""Seconds of a small gap; how many, and what fraction of the sound, make that the stamps are doubted as a whole."""
_PLAUSIBLE = 60.0
"""Seconds of a gap in sound without pictures."""


class Piece(NamedTuple):
    """Sound as it comes out of a decoder."""

    stamp: float | None
    """Seconds on the file's clock."""
    samples: NDArray[np.float32]


def lay(
    pieces: Sequence[Piece], clock: Clock, limit: float | None, rate: int
) -> tuple[NDArray[np.float32], str | None]:
    """The samples on the clock of the pictures, and how the stamps contradict them.

    `limit` is the second at which the last gap may end; None: there are no pictures.
    """
    track = _Track(pieces, clock, limit, rate).follow()
    if track.behind:  # they run behind the samples: nothing is dropped for them
        track = _Track(pieces, clock, limit, rate, drops=False).follow()
    if track.doubtful:
        whole = sum(len(piece.samples) for piece in pieces)
        ignored = _Track(pieces, clock, limit, rate, drops=False, gaps=False).follow()
        end = clock.end * rate if len(clock.times) else float(whole)
        track = min(track, ignored, key=lambda one: abs(one.length - end))
    return np.concatenate([np.zeros(0, np.float32), *track.laid]), track.said()


@dataclass
class _Track:
    """Pieces laid end to end, with silence where time stamps leave a gap."""

    pieces: Sequence[Piece]
    clock: Clock
    limit: float | None
    rate: int
    drops: bool = True
    """Whether samples are dropped where stamps are a little behind."""
    gaps: bool = True
    laid: list[NDArray[np.float32]] = field(default_factory=list)
    length: int = 0
    shift: float = 0.0
    """Seconds that are added to stamps."""
    dropped: int = 0
    small: list[int] = field(default_factory=list)
    """Samples of each small gap."""
    leaps: list[tuple[float, float]] = field(default_factory=list)
    """Where stamps were not followed, and by how much they differed, in seconds."""

    @property
    def behind(self) -> bool:
        return self.drops and any(size < 0 for _, size in self.leaps)

    @property
    def doubtful(self) -> bool:
        return len(self.small) >= _MANY and sum(self.small) > _MOST_SMALL * self.length

    def said(self) -> str | None:
        if not self.leaps:
            return None
        at, size = self.leaps[0]
        whole = sum(size for _, size in self.leaps)
        times = "once" if len(self.leaps) == 1 else f"{len(self.leaps)} times, by {whole:+.1f} s in all"
        return f"time stamps leave the samples {times}, first at {at:.1f} s by {size:+.1f} s; samples go on end to end"

    def follow(self) -> "_Track":
        for number, piece in enumerate(self.pieces):
            gap = self._gap(number, self.shift)
            if gap is None or (self.length and (abs(gap) <= self._jitter or not self._stays(number, gap))):
                self._append(piece.samples)
            else:
                self._step(number, gap)
        return self

    @property
    def _jitter(self) -> int:
        return round(_JITTER * self.rate)

    def _gap(self, number: int, shift: float, ahead: int = 0) -> int | None:
        """Samples by which a piece's stamp is ahead of what is laid, and of `ahead` more."""
        stamp = self.pieces[number].stamp
        if stamp is None:
            return None
        return round((stamp + shift - self.clock.zero) * self.rate) - self.length - ahead

    def _stays(self, number: int, gap: int) -> bool:
        """Whether the next stamps differ from the samples to the same side."""
        ahead = 0
        for later in range(number + 1, min(number + _STAYS, len(self.pieces))):
            ahead += len(self.pieces[later - 1].samples)
            there = self._gap(later, self.shift, ahead)
            if there is not None and (abs(there) <= self._jitter / 2 or (there > 0) != (gap > 0)):
                return False
        return True

    def _step(self, number: int, gap: int) -> None:
        """A piece whose stamp is somewhere else than the samples before it end."""
        shift = next((s for s in self._shifts(number) if self._fits(self._gap(number, s) or 0, number)), None)
        samples = self.pieces[number].samples
        if shift is None:
            self.leaps.append((self.length / self.rate, gap / self.rate))
            self.shift -= gap / self.rate
        else:
            self.shift = shift
            gap = self._gap(number, shift) or 0
            jitter = self._jitter if self.length else 0
            if gap > jitter:
                self.small += [gap] if self.length and gap <= _SMALL * self.rate else []
                self._append(np.zeros(gap, np.float32))
            elif gap < -jitter:
                self.dropped += -gap if self.length else 0
                samples = samples[-gap:]
        self._append(samples)

    def _shifts(self, number: int) -> list[float]:
        """What may be added to a stamp: what was before, else what the pictures' clock took to, the nearest first."""
        others = sorted(set(self.clock.shifts) - {self.shift}, key=lambda s: abs(self._gap(number, s) or 0))
        return [self.shift, *others]

    def _fits(self, gap: int, number: int) -> bool:
        """Whether stamps that are `gap` samples ahead can be followed."""
        if gap > 0:
            end = (self.length + gap) / self.rate
            there = gap <= _PLAUSIBLE * self.rate if self.limit is None else end <= self.limit
            return gap <= self._jitter or (there and (self.gaps or not self.length))
        if not self.length:  # sound before the first picture is dropped, unless that is all of it
            return -gap < sum(len(piece.samples) for piece in self.pieces[number:])
        most = max(2 * self._jitter, _DRIFT * self.length)
        return -gap <= self._jitter or (self.drops and self.dropped - gap <= most)

    def _append(self, samples: NDArray[np.float32]) -> None:
        self.laid.append(samples)
        self.length += len(samples)
