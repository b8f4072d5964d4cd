"""Detections -> tracks: which faces of a video are one person, and where each face is in every picture between.

From one searched picture to the next a face goes on where it was heading, about as large, looking much the same; the
cheapest assignment of all faces at once decides. What is lost and comes back, after a cut or behind somebody, is one
person where it looks the same and was never seen beside itself. Pure arithmetic: the order in which a detector names
the faces of a picture changes nothing.

Distances are in sides of the face, times in searched pictures ("steps").
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from abaw_expr.faces.detections import SURE, Detections

REACH = 1.0
"""How far from where it was heading a face may be after a step; when it comes back it may be up to twice that."""
DOUBTFUL_REACH, DOUBTFUL_LOOK = 0.35, 0.15
"""How far from there, and how different in look, a face may be while either it or all of its track so far is doubtful;
it must also come within BRIDGE steps. Patterns on a wall are doubtful faces too."""
GROWTH = 1.6
"""The most by which a face's side may change while it is not seen."""
PATIENCE = 10
"""Steps after which a face that is not seen is lost."""
BRIDGE = 3
"""Steps between two sightings over which a face is taken to have been there: two searches that missed it."""
LOOKS = 6.0
"""Sides of a face that a difference in look of 1 (black to white) is worth."""
SAME_LOOK = 0.12
"""Root mean square difference up to which two looks may be one person's, wherever they are."""
MEMORY = 0.7
"""The share of the known velocity and look that remains at a new sighting."""
NONE = 0
"""The track of a detection that belongs to none."""


@dataclass
class _Track:
    """A face as it is followed."""

    rows: list[int]
    frame: int
    centre: NDArray[np.float64]
    side: float
    look: NDArray[np.floating]
    sure: bool
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Pixels a picture."""


def find_tracks(detections: Detections) -> NDArray[np.int32]:
    """The track of each detection, [n], numbered from 1 as they begin, from left to right; 0 for none."""
    order = np.lexsort((*detections.box.T[::-1], detections.frame))
    tracks = _joined(_followed(detections, order), detections)
    first = np.array([rows[0] for rows in tracks], int)
    place = np.empty(len(order), int)
    place[order] = np.arange(len(order))
    number = np.full(len(detections), NONE, np.int32)
    for count, track in enumerate(np.argsort(place[first]), start=1):
        number[tracks[track]] = count
    return number


def fill_track(detections: Detections, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """Where the face of a track is: its frames [f], ascending, and for each its box and five points, [f, 14].

    Between two sightings it moves in a straight line; a longer gap than BRIDGE stays one. `rows` are the track's
    detections.
    """
    frame = detections.frame[rows]
    known = np.concatenate([detections.box[rows], detections.points[rows].reshape(len(rows), 10)], axis=1)
    frames = np.arange(frame[0], frame[-1] + 1, dtype=np.int32)
    after = np.searchsorted(frame, frames)
    gap = frame[after] - frame[np.maximum(after - 1, 0)]
    there = (frame[after] == frames) | (gap <= BRIDGE * detections.every)
    frames = frames[there]
    filled = [np.interp(frames, frame, column) for column in known.T]
    return frames, np.stack(filled, axis=1).astype(np.float32)


def typical_look(detections: Detections, rows: Sequence[int] | NDArray[np.intp]) -> NDArray[np.floating]:
    """The median look of some detections of one face."""
    return np.median(detections.look[rows], axis=0)


def look_difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """Root mean square difference of looks [..., k]."""
    return np.sqrt(np.square(one - other).mean(axis=-1))


def _followed(detections: Detections, order: NDArray[np.intp]) -> list[_Track]:
    """Every face followed for as long as it goes on."""
    tracks: list[_Track] = []
    edges = np.flatnonzero(np.diff(detections.frame[order], prepend=-1, append=-1))
    for rows in map(order.__getitem__, map(slice, edges[:-1], edges[1:])):
        frame = int(detections.frame[rows[0]])
        live = [track for track in tracks if frame - track.frame <= PATIENCE * detections.every]
        pairs = _assigned(live, rows, detections)
        for track, row in pairs:
            _extend(track, row, detections)
        new = set(rows.tolist()) - {row for _, row in pairs}
        tracks += [_begin(row, detections) for row in rows.tolist() if row in new]
    return [track for track in tracks if track.sure]


def _assigned(live: list[_Track], rows: NDArray[np.intp], detections: Detections) -> list[tuple[_Track, int]]:
    """The cheapest pairs of tracks and detections of one picture, each at most once."""
    if not live:
        return []
    centre, side = _places(detections.box[rows])
    steps = (detections.frame[rows[0]] - np.array([track.frame for track in live])) / detections.every
    heading = np.stack([track.centre + track.velocity * steps[i] * detections.every for i, track in enumerate(live)])
    scale = np.array([track.side for track in live])[:, None]
    far = np.linalg.norm(heading[:, None] - centre, axis=-1) / scale  # [live, rows]
    growth = np.abs(np.log(side / scale))
    looks = np.stack([track.look for track in live])
    change = look_difference(looks[:, None], detections.look[rows])
    cost = far + growth + LOOKS * change
    both_sure = np.array([track.sure for track in live])[:, None] & (detections.score[rows] >= SURE)
    sure = both_sure & (far <= REACH * np.minimum(1 + steps / PATIENCE, 2)[:, None])
    doubtful = (far <= DOUBTFUL_REACH) & (change <= DOUBTFUL_LOOK) & (steps <= BRIDGE)[:, None]
    possible = (sure | doubtful) & (growth <= np.log(GROWTH))
    never = 1e3
    pairs = zip(*linear_sum_assignment(np.where(possible, cost, never)), strict=True)
    return [(live[i], int(rows[j])) for i, j in pairs if possible[i, j]]


def _begin(row: int, detections: Detections) -> _Track:
    centre, side = _places(detections.box[row])
    sure = bool(detections.score[row] >= SURE)
    return _Track([row], int(detections.frame[row]), centre, float(side), detections.look[row], sure)


def _extend(track: _Track, row: int, detections: Detections) -> None:
    centre, side = _places(detections.box[row])
    frames = int(detections.frame[row]) - track.frame
    velocity = (centre - track.centre) / frames
    kept = MEMORY if len(track.rows) > 1 else 0.0
    track.velocity = kept * track.velocity + (1 - kept) * velocity
    track.look = MEMORY * track.look + (1 - MEMORY) * detections.look[row]
    track.frame, track.centre, track.side = track.frame + frames, centre, float(side)
    track.sure |= bool(detections.score[row] >= SURE)
    track.rows.append(row)


def _joined(tracks: list[_Track], detections: Detections) -> list[list[int]]:
    """The detections of each person: tracks that look the same and never overlap in time, most alike first."""
    if not tracks:
        return []
    looks = np.stack([typical_look(detections, track.rows) for track in tracks])
    difference = look_difference(looks[:, None], looks)
    people = [[track] for track in tracks]
    owner = np.arange(len(tracks))
    one, other = np.nonzero(np.triu(difference <= SAME_LOOK, 1))
    for pair in np.argsort(difference[one, other], kind="stable"):
        a, b = sorted((owner[one[pair]], owner[other[pair]]))
        if a != b and _apart(people[a], people[b], detections.frame):
            people[a] += people[b]
            owner[owner == b] = a
    rows = [[row for track in people[i] for row in track.rows] for i in np.unique(owner)]
    return [sorted(mine, key=lambda row: int(detections.frame[row])) for mine in rows]


def _apart(one: list[_Track], other: list[_Track], frame: NDArray[np.integer]) -> bool:
    """Whether no track of one person overlaps any of the other's in time."""
    first, last, from_, until = ([int(frame[t.rows[i]]) for t in p] for p in (one, other) for i in (0, -1))
    return all(e < f or u < s for s, e in zip(first, last, strict=True) for f, u in zip(from_, until, strict=True))


def _places(box: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [..., 2] and sides [...] (the root of the area) of boxes [..., 4]."""
    wide = box.astype(np.float64)
    size = np.maximum(wide[..., 2:] - wide[..., :2], 1)
    return (wide[..., :2] + wide[..., 2:]) / 2, np.sqrt(size.prod(axis=-1))
