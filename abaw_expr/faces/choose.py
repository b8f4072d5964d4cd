"""Chooses the people of a video among its face tracks, in a table that a user can correct.

`tracks.csv` has a row a track, with its last column, `choice`: main (crops under the video's own name), left or right
(under the name with that suffix, for two people as ABAW names them) or ignore. Tracks of one choice are one person;
where two of them have the same frame, the track of higher confidence is used.

Shapes: f frames of a track.
"""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.release.reader import read_text_lines
from abaw_expr.errors import ReleaseError
from abaw_expr.faces.detections import Detections
from abaw_expr.faces.track import NO_TRACK, fill_track, find_tracks, look_difference, typical_look
from abaw_expr.files import check_name, write_text
from abaw_expr.tasks.names import PERSON_SUFFIXES

IGNORE, MAIN, LEFT, RIGHT = "ignore", "main", "left", "right"
CHOICE_SUFFIXES = {MAIN: "", **dict(zip((LEFT, RIGHT), PERSON_SUFFIXES, strict=True))}
"""The suffix of the video's name, by choice."""
_CHOICES = (*CHOICE_SUFFIXES, IGNORE)
TRACK_COLUMNS = ("video", "track", "first", "last", "frames", "confidence", "left", "top", "right", "bottom", "choice")
_SECOND_SIZE = 0.5
"""The smallest size of a second person's face as a fraction of the first's: smaller ones are in the background."""
_SECOND_TIME = 0.25
"""The shortest time that a second person is seen beside the first, as a fraction of the first's time."""
TrackRow = dict[str, str]
"""A row of the table, by column."""
_REMAKE = "Correct it, or delete it to have it made again."


@dataclass(frozen=True, eq=False)
class Track:
    """One face through a video."""

    number: int
    """From 1, in the order of appearance."""
    frames: NDArray[np.int32]
    """[f], ascending: the frames in which the face is detected or interpolated."""
    positions: NDArray[np.float32]
    """[f, 14]: its box (left, top, right, bottom) and five landmarks (x, y)."""
    confidence: float
    """The detector's mean score."""
    look: NDArray[np.floating]
    """[LOOK * LOOK * 3]: its median appearance."""

    @property
    def box(self) -> NDArray[np.floating]:
        """The mean box, [4]."""
        return self.positions[:, :4].mean(axis=0)

    @property
    def side(self) -> float:
        """The root of the mean box's area, in pixels."""
        left, top, right, bottom = self.box.tolist()
        return float(np.sqrt(max(right - left, 0) * max(bottom - top, 0)))

    def centre_x(self, frames: NDArray[np.int32] | None = None) -> float:
        """The mean centre between left and right, in pixels; over frames [k], if the face is in any of them."""
        of = np.isin(self.frames, self.frames if frames is None else frames)
        return float(self.positions[of if of.any() else slice(None)][:, [0, 2]].mean())


def tracks_of(detections: Detections) -> list[Track]:
    """The tracks of a video, interpolated between detections."""
    number = find_tracks(detections)
    tracks = []
    for track in range(NO_TRACK + 1, int(number.max(initial=NO_TRACK)) + 1):
        rows = np.flatnonzero(number == track)
        score, look = float(detections.score[rows].mean()), typical_look(detections, rows)
        tracks.append(Track(track, *fill_track(detections, rows), score, look))
    return tracks


def choose(tracks: Sequence[Track], width: int, wanted: Collection[str] | None = None) -> dict[int, str]:
    """The choice for each track, by number; `width` is the frame's, in pixels.

    The main person has the most frames times size. A person who is seen beside them for long enough, and is large
    enough, makes two people, left and right. Other tracks are assigned to the most similar person, if possible.
    `wanted` are the people that a release has in the video (of main, left and right): it decides their number and their
    names.
    """
    if not tracks:
        return {}
    first, *others = sorted(tracks, key=lambda track: (-len(track.frames) * track.side, track.number))
    others.sort(key=lambda track: not _is_second_person(first, track))
    two = bool(others) and (_is_second_person(first, others[0]) if wanted is None else set(wanted) != {MAIN})
    choices = {track.number: IGNORE for track in tracks}
    if two:
        together = np.intersect1d(first.frames, others[0].frames)
        left, right = sorted((first, others[0]), key=lambda track: track.centre_x(together))
        choices |= {left.number: LEFT, right.number: RIGHT}
    else:
        choices[first.number] = MAIN
    for track in others:
        if choices[track.number] == IGNORE:
            choices[track.number] = _most_similar_person(track, tracks, choices)
    if wanted is None:
        return choices
    side = RIGHT if first.centre_x() > width / 2 else LEFT
    names = {
        **{name: name if name in wanted else MAIN if MAIN in wanted else IGNORE for name in (LEFT, RIGHT)},
        MAIN: MAIN if MAIN in wanted else side if side in wanted else min(wanted),
        IGNORE: IGNORE,
    }
    return {number: names[name] for number, name in choices.items()}


def people_of(tracks: Sequence[Track], choices: Mapping[int, str]) -> dict[str, dict[int, NDArray[np.float32]]]:
    """The box and landmarks [14] of each person, by choice and frame."""
    people: dict[str, dict[int, NDArray[np.float32]]] = {}
    for track in sorted(tracks, key=lambda track: track.confidence):
        if (name := choices[track.number]) != IGNORE:
            people.setdefault(name, {}).update(zip(track.frames.tolist(), track.positions, strict=True))
    return {name: dict(sorted(people[name].items())) for name in CHOICE_SUFFIXES if name in people}


def rows_of(video: str, tracks: Sequence[Track], choices: Mapping[int, str]) -> list[TrackRow]:
    """A video's rows of the table."""
    rows = []
    for t in tracks:
        ends, box = (int(t.frames[0]), int(t.frames[-1])), [round(side) for side in t.box.tolist()]
        values = (video, t.number, *ends, len(t.frames), f"{t.confidence:.3f}", *box, choices[t.number])
        rows.append(dict(zip(TRACK_COLUMNS, map(str, values), strict=True)))
    return rows


def choices_in(rows: Sequence[TrackRow]) -> dict[int, str]:
    """The choices in a video's rows, by track."""
    return {int(row["track"]): row["choice"] for row in rows}


def write_table(path: Path, table: Mapping[str, Sequence[TrackRow]]) -> None:
    """Writes the rows of every video, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, TRACK_COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for video in sorted(table) for row in table[video])
    write_text(path, text.getvalue())


def read_table(path: Path) -> dict[str, list[TrackRow]]:
    """The rows of the table, by video; none without a table.

    Raises ReleaseError, with the line, for an invalid row or video name.
    """
    if not path.exists():
        return {}
    reader = csv.DictReader(io.StringIO("\n".join(read_text_lines(path))))
    if tuple(reader.fieldnames or ()) != TRACK_COLUMNS:
        found, expected = ",".join(reader.fieldnames or ()), ",".join(TRACK_COLUMNS)
        raise ReleaseError("has a wrong header", path=path, line=1, found=found, expected=expected, remedy=_REMAKE)
    table: dict[str, list[TrackRow]] = {}
    for row in _rows(reader, path):
        track, choice = (str(row[name]).strip() for name in ("track", "choice"))
        if not track.isdecimal() or len(track) > 9 or None in row or choice.lower() not in _CHOICES:
            found = f"track {track}, choice {choice}"
            expected = f"the number of a track, and {', '.join(_CHOICES[:-1])} or {_CHOICES[-1]}"
            raise ReleaseError("has an unknown row", path=path, line=reader.line_num, found=found, expected=expected)
        check_name(row["video"], ReleaseError, path, reader.line_num)
        table.setdefault(row["video"], []).append(row | {"track": track, "choice": choice.lower()})
    return table


def _rows(reader: "csv.DictReader[str]", path: Path) -> Iterator[TrackRow]:
    try:
        yield from reader
    except csv.Error as error:
        raise ReleaseError(f"is not CSV ({error})", path=path, line=reader.line_num, remedy=_REMAKE) from error


def _most_similar_person(track: Track, tracks: Sequence[Track], choices: Mapping[int, str]) -> str:
    """The choice of the person whose piece a track may be, after a cut: of the people who are of similar size and never
    in the same frame, the one with the most similar look; IGNORE without any."""
    kept = [other for other in tracks if choices[other.number] != IGNORE]
    beside = {choices[other.number] for other in kept if _shared_frames(track, other)}
    similar = {
        float(look_difference(track.look, other.look)): choices[other.number]
        for other in kept
        if choices[other.number] not in beside and _SECOND_SIZE <= track.side / other.side <= 1 / _SECOND_SIZE
    }
    return similar[min(similar)] if similar else IGNORE


def _shared_frames(one: Track, other: Track) -> int:
    """The number of frames that show both."""
    return int(np.intersect1d(one.frames, other.frames).size)


def _is_second_person(first: Track, other: Track) -> bool:
    """Whether a person is seen beside the first, for long enough and large enough."""
    return other.side >= _SECOND_SIZE * first.side and _shared_frames(first, other) >= _SECOND_TIME * len(first.frames)
