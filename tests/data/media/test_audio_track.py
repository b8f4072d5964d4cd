"""Audio is placed by its sample counts: gaps are silence, and stamps that contradict the samples remove nothing."""

from collections.abc import Callable

import numpy as np
import pytest

from abaw_expr.data.media.audio_track import Piece, assemble_track
from abaw_expr.data.media.timestamps import Clock

RATE = 1000
LONG = 25
"""Samples of a piece."""
COUNT = 80
"""Pieces: two seconds."""


def clock(end: float = 2.0, shifts: tuple[float, ...] = (0.0,)) -> Clock:
    times = np.linspace(0, end, 51)
    return Clock(times, np.arange(51), 0.0, shifts)


def placed(stamp: Callable[[int], float | None], clock_: Clock | None = None) -> tuple[np.ndarray, str | None]:
    """Pieces of 1, 2, 3 ... whose stamps are off by some seconds; None: they have none."""
    clock_ = clock() if clock_ is None else clock_
    pieces = []
    for i in range(COUNT):
        off = stamp(i)
        pieces.append(Piece(None if off is None else i * LONG / RATE + off, np.full(LONG, i + 1, np.float32)))
    return assemble_track(pieces, clock_, clock_.end + 2.5 if len(clock_.times) else None, RATE)


WHOLE = np.repeat(np.arange(1, COUNT + 1, dtype=np.float32), LONG)


@pytest.mark.parametrize("stamp", [lambda i: 0.0, lambda i: None, lambda i: 0.04 * (-1) ** i, lambda i: 0.0005 * i])
def test_stamps_that_agree_change_nothing(stamp: Callable[[int], float | None]) -> None:
    samples, stamp_problem = placed(lambda i: stamp(i) if i else 0.0)
    assert samples.tolist() == WHOLE.tolist()
    assert stamp_problem is None


def test_a_gap_is_silence() -> None:
    samples, stamp_problem = placed(lambda i: 0.7 if i >= 30 else 0.0)
    gap = slice(30 * LONG, 30 * LONG + 700)
    assert not samples[gap].any()
    assert np.delete(samples, np.r_[gap]).tolist() == WHOLE.tolist()
    assert stamp_problem is None


def test_a_late_start_is_silence_and_an_early_one_is_dropped() -> None:
    late, _ = placed(lambda i: 0.01)
    assert late.tolist() == [0.0] * 10 + WHOLE.tolist()
    early, _ = placed(lambda i: -0.6)
    assert early.tolist() == WHOLE[600:].tolist()


@pytest.mark.parametrize(
    "stamp",
    [
        lambda i: -0.75 * i * LONG / RATE,  # a quarter of the speed
        lambda i: -0.1 * i * LONG / RATE,
        lambda i: -i * LONG / RATE,  # all zero
        lambda i: 3.0 * i * LONG / RATE,  # four times the speed
        lambda i: 0.2 * i * LONG / RATE,
        lambda i: 72_000.0 if i >= 40 else 0.0,
        lambda i: -72_000.0 if i >= 40 else 0.0,
        lambda i: 72_000.0,
        lambda i: -72_000.0,
        lambda i: 72_000.0 if i == 0 else 0.0,
    ],
)
def test_stamps_that_contradict_the_samples_remove_nothing(stamp: Callable[[int], float]) -> None:
    samples, stamp_problem = placed(stamp)
    assert samples.tolist() == WHOLE.tolist()
    assert stamp_problem is not None


@pytest.mark.parametrize("size", [1.0, -1.0, 72_000.0])
def test_a_stray_stamp_moves_nothing(size: float) -> None:
    samples, _ = placed(lambda i: size if i == 30 else 0.0)
    assert samples.tolist() == WHOLE.tolist()


def test_a_clock_that_starts_again_is_that_of_the_frames() -> None:
    """The first part's audio ends half a second before its frames do."""
    samples, stamp_problem = placed(lambda i: -40 * LONG / RATE if i >= 40 else 0.0, clock(3.0, (0.0, 1.5)))
    assert samples.tolist() == [*WHOLE[:1000].tolist(), *[0.0] * 500, *WHOLE[1000:].tolist()]
    assert stamp_problem is None


def test_a_gap_beyond_the_frames_is_not_filled() -> None:
    samples, stamp_problem = placed(lambda i: 30.0 if i >= 40 else 0.0)
    assert samples.tolist() == WHOLE.tolist()
    assert stamp_problem == "time stamps contradict the samples once, first at 1.0 s by +30.0 s; they are not followed"


def test_audio_alone_has_gaps_of_a_minute_at_most() -> None:
    nothing = Clock.none()
    assert len(placed(lambda i: 30.0 if i >= 40 else 0.0, nothing)[0]) == len(WHOLE) + 30 * RATE
    assert len(placed(lambda i: 90.0 if i >= 40 else 0.0, nothing)[0]) == len(WHOLE)
