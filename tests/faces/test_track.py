"""Faces are tracked through made-up detections: people are not confused, and nothing is invented."""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abaw_expr.faces.align import ARCFACE_TEMPLATE
from abaw_expr.faces.choose import IGNORE, LEFT, MAIN, RIGHT, choose, people_of, tracks_of
from abaw_expr.faces.detections import LOOK, Detections
from abaw_expr.faces.track import BRIDGE, MOST_UNSEEN, NO_TRACK, find_tracks

EVERY = 5
SIDE = 100.0
Path = Callable[[int], tuple[float, float]]
"""Where the middle of a face is, by frame."""


def look(shade: float) -> np.ndarray:
    return np.full(LOOK * LOOK * 3, shade, np.float32)


def planted(
    people: Sequence[tuple[Path, float, set[int]]],
    steps: int = 40,
    score: float = 0.99,
    noise: float = 0.0,
    side: float = SIDE,
) -> tuple[Detections, np.ndarray]:
    """Detections of people (where, how bright, in which steps they are hidden), and whose each is, from 0."""
    rng = np.random.default_rng(0)
    seen = [(1 + EVERY * s, who) for s in range(steps) for who, (_, _, hidden) in enumerate(people) if s not in hidden]
    frame, whose = np.array(seen).T
    middle = np.array([people[who][0](f) for f, who in seen]) + rng.normal(0, noise, (len(seen), 2))
    box = np.concatenate([middle - side / 2, middle + side / 2], axis=1)
    points = middle[:, None] + (ARCFACE_TEMPLATE - 56) * side / 112
    looks = np.stack([look(people[who][1]) for who in whose]) + rng.normal(0, noise / 200, (len(seen), 192))
    detections = Detections(
        frame=frame.astype(np.int32),
        box=box.astype(np.float32),
        score=np.full(len(seen), score, np.float32),
        points=points.astype(np.float32),
        look=looks.astype(np.float32),
        every=EVERY,
        frame_count=1 + EVERY * (steps - 1),
        width=640,
        height=360,
    )
    return detections, whose


def taken(detections: Detections, rows: np.ndarray) -> Detections:
    names = ("frame", "box", "score", "points", "look")
    return replace(detections, **{name: getattr(detections, name)[rows] for name in names})


def line(x: float, y: float, dx: float = 0.0, dy: float = 0.0) -> Path:
    return lambda frame: (x + dx * frame, y + dy * frame)


LEFT_ONE = (line(150, 180), 0.4, set[int]())
RIGHT_ONE = (line(450, 180), 0.7, set[int]())
CROSSING = [(line(100, 180, dx=2.2), 0.4, set[int]()), (line(540, 190, dx=-2.2), 0.7, set[int]())]
HIDDEN = {18, 19, 20, 21, 22}
"""The steps in which the one of the crossing people who is behind cannot be seen."""


def assert_nobody_swapped(number: np.ndarray, whose: np.ndarray) -> None:
    for who in np.unique(whose):
        assert len(set(number[whose == who])) == 1
    assert len(set(number)) == len(set(whose))


@pytest.mark.parametrize("noise", [0.0, 4.0])
@pytest.mark.parametrize("hidden", [set[int](), HIDDEN])
def test_two_who_cross_stay_who_they_are(noise: float, hidden: set[int]) -> None:
    people = [CROSSING[0], (*CROSSING[1][:2], hidden)]
    detections, whose = planted(people, noise=noise)
    assert_nobody_swapped(find_tracks(detections), whose)


def test_two_who_meet_and_turn_back_are_kept_apart_by_their_looks() -> None:
    """By their directions they crossed; by their looks they did not."""
    there = line(100, 180, dx=2.0), line(500, 185, dx=-2.0)
    back = line(100 + 2.0 * 190, 180, dx=-2.0), line(500 - 2.0 * 190, 185, dx=2.0)
    paths = [lambda f, i=i: there[i](f) if f <= 95 else back[i](f) for i in range(2)]
    detections, whose = planted([(paths[0], 0.35, set()), (paths[1], 0.7, set())])
    assert_nobody_swapped(find_tracks(detections), whose)


def test_two_who_look_alike_are_kept_apart_by_their_positions() -> None:
    detections, whose = planted([(line(150, 180), 0.5, set()), (line(450, 180), 0.5, {7, 8, 9})], noise=3.0)
    assert_nobody_swapped(find_tracks(detections), whose)


@settings(max_examples=25)
@given(st.integers(0, 2**32 - 1))
def test_the_order_of_detections_changes_nothing(seed: int) -> None:
    detections, _ = planted([CROSSING[0], (*CROSSING[1][:2], {9, 10})], noise=5.0)
    number = find_tracks(detections)
    rng = np.random.default_rng(seed)
    order = np.lexsort((rng.random(len(detections)), detections.frame))  # shuffled within each frame
    assert find_tracks(taken(detections, order)).tolist() == number[order].tolist()


@settings(max_examples=40)
@given(st.lists(st.tuples(st.floats(60, 580), st.floats(60, 300)), min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_nobody_is_in_two_places(positions: list[tuple[float, float]], seed: int) -> None:
    """Whatever is detected, a track has one face a frame, and every sure face has a track."""
    rng = np.random.default_rng(seed)
    people = [(line(x, y, *rng.normal(0, 2, 2)), rng.random(), set(rng.integers(0, 40, 15))) for x, y in positions]
    detections, _ = planted(people, noise=10.0)
    number = find_tracks(detections)
    assert NO_TRACK not in number
    pairs = list(zip(number.tolist(), detections.frame.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


def test_a_doubtful_face_belongs_to_a_track_that_is_sure_once() -> None:
    detections, _ = planted([LEFT_ONE])
    doubt = np.full(len(detections), 0.55, np.float32)
    assert set(find_tracks(replace(detections, score=doubt))) == {NO_TRACK}
    assert set(find_tracks(replace(detections, score=np.where(detections.frame == 101, np.float32(0.9), doubt)))) == {1}


def test_a_pattern_on_the_wall_is_no_part_of_a_face_that_passes() -> None:
    """Always doubtful and in one place: no person's track begins or continues with it."""
    passing = (line(-100, 190, dx=3.0), 0.7, set(range(25, 40)))
    pattern = (line(230, 170), 0.45, set[int]())
    detections, whose = planted([passing, pattern])
    number = find_tracks(replace(detections, score=np.where(whose == 1, np.float32(0.6), detections.score)))
    assert number.tolist() == np.where(whose == 1, NO_TRACK, 1).tolist()


@pytest.mark.parametrize(("missed", "gap"), [(BRIDGE - 1, False), (BRIDGE, True)])
def test_short_gaps_are_filled_and_long_ones_are_not(missed: int, gap: bool) -> None:
    detections, _ = planted([(line(150, 180, dx=1.0), 0.5, set(range(10, 10 + missed)))])
    (track,) = tracks_of(detections)
    away = set(range(1 + EVERY * 9 + 1, 1 + EVERY * (10 + missed)))
    everyone = set(range(1, detections.frame_count + 1))
    assert set(track.frames.tolist()) == (everyone - away if gap else everyone)


def test_faces_move_in_straight_lines_between_sightings() -> None:
    detections, _ = planted([(line(150, 180, dx=1.5, dy=-0.5), 0.5, {11})])
    (track,) = tracks_of(detections)
    middle = np.array([line(150, 180, dx=1.5, dy=-0.5)(frame) for frame in track.frames])
    assert track.positions[:, :2] == pytest.approx(middle - SIDE / 2, abs=1e-3)
    expected = middle[:, None] + (ARCFACE_TEMPLATE - 56) * SIDE / 112
    assert track.positions[:, 4:].reshape(-1, 5, 2) == pytest.approx(expected, abs=1e-3)


def test_a_person_who_returns_elsewhere_is_one_person_if_they_look_the_same() -> None:
    away = set(range(15, 15 + MOST_UNSEEN + 5))

    def elsewhere(frame: int) -> tuple[float, float]:
        return (150, 180) if frame < 80 else (480, 150)

    same, _ = planted([(elsewhere, 0.5, away)])
    assert set(find_tracks(same)) == {1}
    other = replace(same, look=np.where(same.frame[:, None] < 80, same.look, same.look + np.float32(0.3)))
    assert set(find_tracks(other)) == {1, 2}


def choices(people: Sequence[tuple[Path, float, set[int]]], wanted: set[str] | None = None) -> dict[int, str]:
    detections, _ = planted(people)
    return choose(tracks_of(detections), detections.width, wanted)


def test_one_person_is_the_main_one_and_two_are_left_and_right() -> None:
    assert choices([LEFT_ONE]) == {1: MAIN}
    assert choices([LEFT_ONE, RIGHT_ONE]) == {1: LEFT, 2: RIGHT}
    assert choices([RIGHT_ONE, LEFT_ONE]) == {1: LEFT, 2: RIGHT}


def test_a_person_who_passes_by_is_ignored() -> None:
    passing = (line(450, 180), 0.7, set(range(6, 40)))
    assert choices([LEFT_ONE, passing]) == {1: MAIN, 2: IGNORE}


def test_a_person_elsewhere_after_a_cut_is_known_by_the_look() -> None:
    """Of two people; a third, who is far smaller, is no part of them."""
    cut = set(range(25, 40))
    after = (line(300, 120), 0.68, set(range(27)))
    people = [(*LEFT_ONE[:2], cut), (*RIGHT_ONE[:2], cut), after]
    detections, _ = planted(people)
    apart = replace(detections, look=detections.look + 0.2 * (detections.frame[:, None] > 130).astype(np.float32))
    tracks = tracks_of(apart)
    assert choose(tracks, detections.width) == {1: LEFT, 2: RIGHT, 3: RIGHT}
    small = [
        replace(tracks[2], positions=tracks[2].positions * np.float32(0.3)) if t is tracks[2] else t for t in tracks
    ]
    assert choose(small, detections.width) == {1: LEFT, 2: RIGHT, 3: IGNORE}


def test_nobody_is_chosen_where_nobody_is() -> None:
    assert choose([], 640) == {}


@pytest.mark.parametrize(
    ("wanted", "both", "left_alone"),
    [
        ({MAIN}, {1: MAIN, 2: IGNORE}, MAIN),
        ({LEFT, RIGHT}, {1: LEFT, 2: RIGHT}, LEFT),
        ({MAIN, RIGHT}, {1: MAIN, 2: RIGHT}, MAIN),
        ({MAIN, LEFT}, {1: LEFT, 2: MAIN}, MAIN),
        ({RIGHT}, {1: IGNORE, 2: RIGHT}, RIGHT),
    ],
)
def test_a_release_gives_the_people_wanted(wanted: set[str], both: dict[int, str], left_alone: str) -> None:
    late = (*RIGHT_ONE[:2], {0, 1})
    assert choices([LEFT_ONE, late], wanted) == both
    assert choices([LEFT_ONE], wanted) == {1: left_alone}


def test_tracks_with_one_choice_are_one_person() -> None:
    detections, _ = planted([(line(150, 180), 0.3, set(range(20, 40))), (line(450, 180), 0.9, set(range(18)))])
    tracks = tracks_of(detections)
    first, second = tracks
    surer = replace(second, confidence=first.confidence + 0.001)
    (person,) = people_of([first, surer], {1: MAIN, 2: MAIN}).values()
    assert list(person) == list(range(1, detections.frame_count + 1))
    both = set(first.frames.tolist()) & set(second.frames.tolist())
    assert both
    assert all(person[frame][0] == pytest.approx(450 - SIDE / 2) for frame in both)
