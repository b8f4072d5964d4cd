"""The clock of the frames, whatever their stamps say: joins, jumps and strays are repaired, and slow videos are not."""

from collections.abc import Sequence
from fractions import Fraction

import av
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from abaw_expr.data.media.timestamps import Clock, clock_of, time_stamps_of

BASE = Fraction(1, 1000)
STEP = 40
HOURS = 20 * 3_600_000


def packets(shown: Sequence[int | None], decoded: Sequence[int | None] | None = None) -> list[av.Packet]:
    made = []
    for pts, dts in zip(shown, shown if decoded is None else decoded, strict=True):
        packet = av.Packet(b"x")
        packet.pts, packet.dts = pts, dts
        made.append(packet)
    return made


def clock(shown: Sequence[int | None], decoded: Sequence[int | None] | None = None) -> Clock:
    return clock_of(time_stamps_of(packets(shown, decoded)), BASE)


def even(count: int, start: int = 0) -> list[int]:
    return [start + STEP * i for i in range(count)]


def moved(count: int, size: int, first: int, last: int) -> list[int | None]:
    """Even stamps, of which some are off."""
    return [stamp + (size if first <= i < last else 0) for i, stamp in enumerate(even(count))]


def is_even(found: Clock, count: int) -> bool:
    return found.positions.tolist() == list(range(count)) and np.allclose(found.times, np.arange(count) * 0.04)


def test_even_stamps_are_their_times() -> None:
    found = clock(even(50, start=700))
    assert is_even(found, 50)
    assert found.zero == pytest.approx(0.7)
    assert (found.shifts, found.problem) == ((0.0,), None)


@pytest.mark.parametrize("size", [HOURS, -HOURS, 120_000, -5_000, 5_000, -700])
@pytest.mark.parametrize(("first", "count"), [(20, 1), (20, 3), (47, 2)])
def test_a_few_stamps_that_are_off_move_nothing(size: int, first: int, count: int) -> None:
    found = clock(moved(50, size, first, first + count))
    assert is_even(found, 50)
    assert found.problem is not None
    assert f"by {size / 1000 + 0.04:+.1f} s" in found.problem


@pytest.mark.parametrize("size", [HOURS, -HOURS, -5_000, -1_960])
def test_a_clock_that_is_set_anew_goes_on(size: int) -> None:
    found = clock(moved(50, size, 25, 50))
    assert is_even(found, 50)
    assert found.shifts == (0.0, -size / 1000)


def test_a_video_joined_to_itself_three_times_goes_on() -> None:
    found = clock(even(50) * 3)
    assert is_even(found, 150)
    assert found.shifts == (0.0, 2.0, 4.0)


def test_a_frame_may_be_shown_for_long() -> None:
    stamps = [0, 40, 80, 30_000, 30_040, 85_000, 85_040]
    found = clock(stamps)
    assert found.times == pytest.approx(np.array(stamps) / 1000)
    assert found.problem is None


def test_frames_out_of_order_are_in_the_order_of_showing() -> None:
    """As H.264 stores them, joined: B frames come after what they refer to."""
    shown = [0, 120, 40, 80, 240, 160, 200]
    decoded = [i * STEP - 80 for i in range(7)]
    found = clock([*shown, *shown], [*decoded, *decoded])
    assert found.times == pytest.approx(np.arange(14) * 0.04)
    assert found.positions.tolist() == [0, 3, 1, 2, 6, 4, 5, 7, 10, 8, 9, 13, 11, 12]


def test_a_frame_shown_absurdly_late_is_shown_in_its_turn() -> None:
    shown: list[int | None] = [*even(50)]
    shown[20] = HOURS
    assert is_even(clock(shown, even(50)), 50)


def test_stamps_that_are_missing_are_a_step_later() -> None:
    shown: list[int | None] = [*even(50)]
    shown[10:13] = [None] * 3
    assert is_even(clock(shown), 50)
    assert is_even(clock([None] * 50), 50)


def test_a_clock_that_stands_still_says_nothing() -> None:
    still = clock([700] * 50)
    assert still.times == pytest.approx(np.arange(50) / 25)
    assert still.zero == pytest.approx(0.7)
    assert still.problem == "time stamps of its 50 frames are all the same; it gets 25 frames a second"
    assert clock([700]).problem is None


def test_nothing_has_no_times() -> None:
    assert len(clock([]).times) == 0
    assert clock([]).end == 0.0


@given(st.lists(st.none() | st.integers(-(2**40), 2**40), max_size=40), st.data())
def test_no_stamps_are_too_strange(shown: list[int | None], data: st.DataObject) -> None:
    decoded = data.draw(st.lists(st.none() | st.integers(-(2**40), 2**40), min_size=len(shown), max_size=len(shown)))
    found = clock(shown, decoded)
    assert sorted(found.positions.tolist()) == list(range(len(shown)))
    assert (np.diff(found.times) >= 0).all()
    if shown:
        assert found.times[0] == 0
        assert found.end <= 300 * len(shown) + 3000  # a few minutes a frame at most, whatever the stamps
