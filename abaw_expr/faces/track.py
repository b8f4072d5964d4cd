"""Tracks faces: which detections of a video are one person, and the position of each face in the frames between.

From one searched frame to the next, faces are assigned to the extrapolated tracks at the least total cost, by position,
size and look. A track that is lost and continues later, after a cut or an occlusion, is joined to the person with the
same look who is never in the same frame. The result does not depend on the order of detections within a frame.

Distances are in sides of the face, times in searched frames ("steps").

Shapes: n detections, f frames of a track.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from abaw_expr.faces.detections import SURE, Detections

_REACH = 1.0
"""The largest distance of a face from its extrapolated position after a step; up to twice that after several steps."""
_DOUBTFUL_REACH, _DOUBTFUL_LOOK = 0.35, 0.15
"""The largest distance and difference in look while either the face or its whole track is doubtful, within BRIDGE
steps. Patterns on a wall are doubtful faces too."""
_GROWTH = 1.6
"""The largest factor by which a face's side may change while it is not seen."""
MOST_UNSEEN = 10
"""Steps without detection after which a face is lost."""
BRIDGE = 3
"""Steps between two detections over which a face is interpolated: two searches may miss it."""
_LOOK_WEIGHT = 6.0
"""Sides of a face that a difference in look of 1 (black to white) costs."""
_SAME_LOOK = 0.12
"""The largest root mean square difference of two looks of one person, at any position."""
_MEMORY = 0.7
"""The fraction of the known velocity and look that remains at a new detection."""
NO_TRACK = 0
"""The track of a detection that belongs to none."""


@dataclass
class _Track:
    """A face that is being tracked."""

    rows: list[int]
    frame: int
    centre: NDArray[np.float64]
    side: float
    look: NDArray[np.floating]
    sure: bool
    velocity: NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    """Pixels a frame."""


def find_tracks(detections: Detections) -> NDArray[np.int32]:
    """The track of each detection, int32 [n], numbered from 1 in the order of appearance, from left to right; 0 for
    none."""
    order = np.lexsort((*detections.box.T[::-1], detections.frame))
    tracks = _join_tracks(_follow(detections, order), detections)
    first = np.array([rows[0] for rows in tracks], int)
    position = np.empty(len(order), int)
    position[order] = np.arange(len(order))
    number = np.full(len(detections), NO_TRACK, np.int32)
    for count, track in enumerate(np.argsort(position[first]), start=1):
        number[tracks[track]] = count
    return number


def fill_track(detections: Detections, rows: NDArray[np.intp]) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """The positions of a track's face: its frames [f], ascending, and for each its box and five landmarks, [f, 14].

    They are interpolated linearly over gaps of up to BRIDGE steps. `rows` [k] are the track's detections.
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
    """The median look [LOOK * LOOK * 3] of the detections `rows` [k] of one face."""
    return np.median(detections.look[rows], axis=0)


def look_difference(one: NDArray[np.floating], other: NDArray[np.floating]) -> NDArray[np.float64]:
    """The root mean square difference [...] of looks [..., k]."""
    return np.sqrt(np.square(one - other).mean(axis=-1))


def _follow(detections: Detections, order: NDArray[np.intp]) -> list[_Track]:
    """The tracks of all faces, while they continue."""
    tracks: list[_Track] = []
    edges = np.flatnonzero(np.diff(detections.frame[order], prepend=-1, append=-1))
    for rows in map(order.__getitem__, map(slice, edges[:-1], edges[1:])):
        frame = int(detections.frame[rows[0]])
        live = [track for track in tracks if frame - track.frame <= MOST_UNSEEN * detections.every]
        pairs = _assign(live, rows, detections)
        for track, row in pairs:
            _extend(track, row, detections)
        new = set(rows.tolist()) - {row for _, row in pairs}
        tracks += [_begin(row, detections) for row in rows.tolist() if row in new]
    return [track for track in tracks if track.sure]


def _assign(live: list[_Track], rows: NDArray[np.intp], detections: Detections) -> list[tuple[_Track, int]]:
    """The pairs of tracks and detections of one frame with the least cost, each at most once."""
    if not live:
        return []
    centre, side = _centres(detections.box[rows])
    steps = (detections.frame[rows[0]] - np.array([track.frame for track in live])) / detections.every
    heading = np.stack([track.centre + track.velocity * steps[i] * detections.every for i, track in enumerate(live)])
    scale = np.array([track.side for track in live])[:, None]
    far = np.linalg.norm(heading[:, None] - centre, axis=-1) / scale  # [live, rows]
    growth = np.abs(np.log(side / scale))
    looks = np.stack([track.look for track in live])
    change = look_difference(looks[:, None], detections.look[rows])
    cost = far + growth + _LOOK_WEIGHT * change
    both_sure = np.array([track.sure for track in live])[:, None] & (detections.score[rows] >= SURE)
    sure = both_sure & (far <= _REACH * np.minimum(1 + steps / MOST_UNSEEN, 2)[:, None])
    doubtful = (far <= _DOUBTFUL_REACH) & (change <= _DOUBTFUL_LOOK) & (steps <= BRIDGE)[:, None]
    possible = (sure | doubtful) & (growth <= np.log(_GROWTH))
    never = 1e3
    from scipy.optimize import linear_sum_assignment  # slow to import, and first needed after the detection

    pairs = zip(*linear_sum_assignment(np.where(possible, cost, never)), strict=True)
    return [(live[i], int(rows[j])) for i, j in pairs if possible[i, j]]


def _begin(row: int, detections: Detections) -> _Track:
    centre, side = _centres(detections.box[row])
    sure = bool(detections.score[row] >= SURE)
    return _Track([row], int(detections.frame[row]), centre, float(side), detections.look[row], sure)


def _extend(track: _Track, row: int, detections: Detections) -> None:
    centre, side = _centres(detections.box[row])
    frames = int(detections.frame[row]) - track.frame
    velocity = (centre - track.centre) / frames
    kept = _MEMORY if len(track.rows) > 1 else 0.0
    track.velocity = kept * track.velocity + (1 - kept) * velocity
    track.look = _MEMORY * track.look + (1 - _MEMORY) * detections.look[row]
    track.frame, track.centre, track.side = track.frame + frames, centre, float(side)
    track.sure |= bool(detections.score[row] >= SURE)
    track.rows.append(row)


def _join_tracks(tracks: list[_Track], detections: Detections) -> list[list[int]]:
    """The detections of each person: tracks with the same look that never overlap in time, most similar first."""
    if not tracks:
        return []
    looks = np.stack([typical_look(detections, track.rows) for track in tracks])
    difference = look_difference(looks[:, None], looks)
    people = [[track] for track in tracks]
    owner = np.arange(len(tracks))
    one, other = np.nonzero(np.triu(difference <= _SAME_LOOK, 1))
    for pair in np.argsort(difference[one, other], kind="stable"):
        a, b = sorted((owner[one[pair]], owner[other[pair]]))
        if a != b and _never_overlap(people[a], people[b], detections.frame):
            people[a] += people[b]
            owner[owner == b] = a
    rows = [[row for track in people[i] for row in track.rows] for i in np.unique(owner)]
    return [sorted(mine, key=lambda row: int(detections.frame[row])) for mine in rows]


def _never_overlap(one: list[_Track], other: list[_Track], frame: NDArray[np.integer]) -> bool:
    """Whether no track of one person overlaps one of the other's in time."""
    first, last, from_, until = ([int(frame[t.rows[i]]) for t in p] for p in (one, other) for i in (0, -1))
    return all(e < f or u < s for s, e in zip(first, last, strict=True) for f, u in zip(from_, until, strict=True))


def _centres(box: NDArray[np.floating]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Centres [..., 2] and sides [...] (the root of the area) of boxes [..., 4]."""
    wide = box.astype(np.float64)
    size = np.maximum(wide[..., 2:] - wide[..., :2], 1)
    return (wide[..., :2] + wide[..., 2:]) / 2, np.sqrt(size.prod(axis=-1))
