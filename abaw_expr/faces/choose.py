"""Tracks -> people: whose crops are kept and under which name, in a table that a person can correct.

`tracks.csv` has a row a track: what it is, and in its last column, `choice`, what becomes of it: main (the video's own
name), left or right (the name with that ending, two people as ABAW has them) or ignore. Several tracks may have the
same choice: they are then one person, and where two of them show a face the surer track counts.
"""

import csv
import io
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.release.reader import read_lines
from abaw_expr.errors import ReleaseError
from abaw_expr.faces.detections import Detections
from abaw_expr.faces.track import NONE, fill_track, find_tracks, look_difference, typical_look
from abaw_expr.files import check_name, write_text
from abaw_expr.tasks.names import PERSON_SUFFIXES

IGNORE, MAIN, LEFT, RIGHT = "ignore", "main", "left", "right"
SUFFIXES = {MAIN: "", **dict(zip((LEFT, RIGHT), PERSON_SUFFIXES, strict=True))}
"""What is added to the video's name, by choice."""
CHOICES = (*SUFFIXES, IGNORE)
COLUMNS = ("video", "track", "first", "last", "frames", "confidence", "left", "top", "right", "bottom", "choice")
SECOND_SIZE = 0.5
"""The least side of a second person's face, as a share of the first's: who is further off stands in the background."""
SECOND_TIME = 0.25
"""The least time that a second person is seen beside the first, as a share of the first's."""
Row = dict[str, str]
"""A row of the table, by column."""
_ANEW = "Mend it, or delete it to have it made anew."


@dataclass(frozen=True, eq=False)
class Track:
    """One face through a video."""

    number: int
    """From 1, as they appear."""
    frames: NDArray[np.int32]
    """[f], ascending: where the face is seen or known to be."""
    places: NDArray[np.float32]
    """[f, 14]: its box (left, top, right, bottom) and five points (x, y)."""
    confidence: float
    """The detector's mean score."""
    look: NDArray[np.floating]
    """What it typically looks like."""

    @property
    def box(self) -> NDArray[np.floating]:
        """The mean box, [4]."""
        return self.places[:, :4].mean(axis=0)

    @property
    def side(self) -> float:
        """The root of the mean box's area, in pixels."""
        left, top, right, bottom = self.box.tolist()
        return float(np.sqrt(max(right - left, 0) * max(bottom - top, 0)))

    def middle(self, frames: NDArray[np.int32] | None = None) -> float:
        """Where it is between left and right, in pixels; of some frames, if it is seen in any of them."""
        of = np.isin(self.frames, self.frames if frames is None else frames)
        return float(self.places[of if of.any() else slice(None)][:, [0, 2]].mean())


def tracks_of(detections: Detections) -> list[Track]:
    """The tracks of a video, filled between sightings."""
    number = find_tracks(detections)
    tracks = []
    for track in range(NONE + 1, int(number.max(initial=NONE)) + 1):
        rows = np.flatnonzero(number == track)
        score, look = float(detections.score[rows].mean()), typical_look(detections, rows)
        tracks.append(Track(track, *fill_track(detections, rows), score, look))
    return tracks


def choose(tracks: Sequence[Track], width: int, wanted: Collection[str] | None = None) -> dict[int, str]:
    """The choice for each track, by number; `width` is the picture's, in pixels.

    The main person is who is seen longest and largest. Who is seen beside them for long enough, and large enough, makes
    two people, left and right. Other tracks are taken for pieces of one of these where they may be. Where a release
    says which people it wants (`wanted`, of main, left and right), that decides how many there are and their names.
    """
    if not tracks:
        return {}
    first, *others = sorted(tracks, key=lambda track: (-len(track.frames) * track.side, track.number))
    others.sort(key=lambda track: not _beside(first, track))
    two = bool(others) and (_beside(first, others[0]) if wanted is None else set(wanted) != {MAIN})
    chosen = {track.number: IGNORE for track in tracks}
    if two:
        together = np.intersect1d(first.frames, others[0].frames)
        left, right = sorted((first, others[0]), key=lambda track: track.middle(together))
        chosen |= {left.number: LEFT, right.number: RIGHT}
    else:
        chosen[first.number] = MAIN
    for track in others:
        if chosen[track.number] == IGNORE:
            chosen[track.number] = _resembled(track, tracks, chosen)
    if wanted is None:
        return chosen
    side = RIGHT if first.middle() > width / 2 else LEFT
    names = {
        **{name: name if name in wanted else MAIN if MAIN in wanted else IGNORE for name in (LEFT, RIGHT)},
        MAIN: MAIN if MAIN in wanted else side if side in wanted else min(wanted),
        IGNORE: IGNORE,
    }
    return {number: names[name] for number, name in chosen.items()}


def people_of(tracks: Sequence[Track], chosen: Mapping[int, str]) -> dict[str, dict[int, NDArray[np.float32]]]:
    """Where each person's face is: by choice and frame, its box and points, [14]."""
    people: dict[str, dict[int, NDArray[np.float32]]] = {}
    for track in sorted(tracks, key=lambda track: track.confidence):
        if (name := chosen[track.number]) != IGNORE:
            people.setdefault(name, {}).update(zip(track.frames.tolist(), track.places, strict=True))
    return {name: dict(sorted(people[name].items())) for name in SUFFIXES if name in people}


def rows_of(video: str, tracks: Sequence[Track], chosen: Mapping[int, str]) -> list[Row]:
    """A video's rows of the table."""
    rows = []
    for t in tracks:
        ends, box = (int(t.frames[0]), int(t.frames[-1])), [round(side) for side in t.box.tolist()]
        values = (video, t.number, *ends, len(t.frames), f"{t.confidence:.3f}", *box, chosen[t.number])
        rows.append(dict(zip(COLUMNS, map(str, values), strict=True)))
    return rows


def choices_in(rows: Sequence[Row]) -> dict[int, str]:
    """The choices that a video's rows say, by track."""
    return {int(row["track"]): row["choice"] for row in rows}


def write_table(path: Path, table: Mapping[str, Sequence[Row]]) -> None:
    """Writes the rows of every video, whole or not at all."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for video in sorted(table) for row in table[video])
    write_text(path, text.getvalue())


def read_table(path: Path) -> dict[str, list[Row]]:
    """The rows of the table, by video; nothing where there is no table.

    Raises ReleaseError, with the line, for a row that is none or names what can be no video.
    """
    if not path.exists():
        return {}
    reader = csv.DictReader(io.StringIO("\n".join(read_lines(path))))
    if tuple(reader.fieldnames or ()) != COLUMNS:
        found, expected = ",".join(reader.fieldnames or ()), ",".join(COLUMNS)
        raise ReleaseError("has a wrong header", path=path, line=1, found=found, expected=expected, remedy=_ANEW)
    table: dict[str, list[Row]] = {}
    for row in _rows(reader, path):
        track, choice = (str(row[name]).strip() for name in ("track", "choice"))
        if not track.isdecimal() or len(track) > 9 or None in row or choice.lower() not in CHOICES:
            found = f"track {track}, choice {choice}"
            expected = f"the number of a track, and {', '.join(CHOICES[:-1])} or {CHOICES[-1]}"
            raise ReleaseError("has an unknown row", path=path, line=reader.line_num, found=found, expected=expected)
        check_name(row["video"], ReleaseError, path, reader.line_num)
        table.setdefault(row["video"], []).append(row | {"track": track, "choice": choice.lower()})
    return table


def _rows(reader: "csv.DictReader[str]", path: Path) -> Iterator[Row]:
    try:
        yield from reader
    except csv.Error as error:
        raise ReleaseError(f"is not CSV ({error})", path=path, line=reader.line_num, remedy=_ANEW) from error


def _resembled(track: Track, tracks: Sequence[Track], chosen: Mapping[int, str]) -> str:
    """Whose piece a track may be, after a cut: of those who are about as large and never seen beside it, who looks most
    like it; nobody's where there is none."""
    kept = [other for other in tracks if chosen[other.number] != IGNORE]
    beside = {chosen[other.number] for other in kept if _together(track, other)}
    like = {
        float(look_difference(track.look, other.look)): chosen[other.number]
        for other in kept
        if chosen[other.number] not in beside and SECOND_SIZE <= track.side / other.side <= 1 / SECOND_SIZE
    }
    return like[min(like)] if like else IGNORE


def _together(one: Track, other: Track) -> int:
    """Frames that show both."""
    return int(np.intersect1d(one.frames, other.frames).size)


def _beside(first: Track, other: Track) -> bool:
    """Whether somebody is seen with the first, for long enough and large enough."""
    return other.side >= SECOND_SIZE * first.side and _together(first, other) >= SECOND_TIME * len(first.frames)
