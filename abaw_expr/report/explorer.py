"""The data of the interactive part of a page: confusion, recordings by cost, and the timelines of their videos.

Annotations and decisions are there of every frame; the numbers of the branches are sampled, at most `POINTS` frames of
a video, and rounded to 1/508 of their range, so that a page of a whole validation split stays small.

Shapes: T frames of one video, n sampled ones, C numbers of a row, F fields with L levels each, k branches.
"""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.workers import OnProgress
from abaw_expr.outputs.style import FUSED, TRUTH
from abaw_expr.report.kind import Codes
from abaw_expr.report.media import QUIETEST, Media
from abaw_expr.report.packing import Pack, codes
from abaw_expr.report.scored import DecidedVideo, Scored
from abaw_expr.report.stretches import Stretch, worst_stretches

POINTS = 900
"""The largest number of frames of a video whose numbers are shown."""
TICK = 1e-4
"""Seconds of the unit in which times are kept."""


def explorer(scored: Scored, media: Media | None, pack: Pack, on_progress: OnProgress) -> dict[str, Any]:
    """Everything that the interactive part of a task shows; arrays go into `pack`. `on_progress` counts videos."""
    kind, branches = scored.kind, [*scored.outputs.branches]
    votes = kind.votes(branches)
    titles = {vote["key"]: "fused" if vote["key"] == FUSED else vote["key"] for vote in votes}
    confusion = np.zeros((len(kind.fields), len(kind.levels), len(kind.levels)), np.int64)
    videos = []
    for number, one in enumerate(scored.videos, start=1):
        truth, decided = kind.codes(one.video.label), kind.codes(one.decided)
        confusion += kind.confusion(truth, decided)
        videos.append(_video(scored, one, truth, decided, media, pack))
        on_progress(number, len(scored.videos))
    own = {video.name: video for report in [next(iter(scored.reports.values()))] for video in _by_video(report)}
    return {
        "task": scored.outputs.task.name,
        "metric": scored.metric.name,
        "columns": list(scored.outputs.task.columns),
        "fields": list(kind.fields),
        "levels": list(kind.levels),
        "steps": kind.steps,
        "range": [kind.low, kind.high],
        "colours": list(kind.colours),
        "patterns": list(kind.patterns),
        "truth_colour": TRUTH,
        "by_field": len(kind.fields) > 1 and len(kind.levels) == 2,
        "confusion_title": kind.confusion_title,
        "confusion": confusion.tolist(),
        "votes": votes,
        "panels": [asdict(panel) for panel in kind.panels(titles)],
        "quietest": QUIETEST,
        "videos": videos,
        "recordings": [
            {
                "name": one.name,
                "cost": one.cost,
                "frames": one.frames,
                "videos": list(one.videos),
                "scores": [_score(own, scored, place) for place in one.videos],
            }
            for one in scored.costs
        ],
    }


def _by_video(report: Any) -> Any:
    return report.videos


def _score(own: Mapping[str, Any], scored: Scored, place: int) -> float | None:
    """A video's own score; None where no frame of it is annotated."""
    video = own.get(scored.names[place])
    return None if video is None else float(getattr(video, scored.metric.key))


def _video(
    scored: Scored, one: DecidedVideo, truth: Codes, decided: Codes, media: Media | None, pack: Pack
) -> dict[str, Any]:
    """One video: references to its arrays, and its worst stretches."""
    kind, frames = scored.kind, one.video
    step = max(1, -(-len(frames.frame) // POINTS))
    sampled = slice(None, None, step)
    numbers = {FUSED: one.rows, **frames.p}
    has = np.stack([~np.isnan(rows[:, 0]) for rows in frames.p.values()]).astype(np.uint8)
    return {
        "name": frames.name,
        "count": len(frames.frame),
        "step": step,
        "frames": pack.add(np.diff(frames.frame, prepend=0).astype(np.uint32)),
        "ticks": pack.add(_ticks(frames.time)),
        "crop": pack.add(frames.crop.astype(np.uint8)),
        "has": pack.add(has),
        "truth": pack.add(truth),
        "decided": pack.add(decided),
        "p": {key: pack.add(codes(rows[sampled].T, kind.low, kind.high)) for key, rows in numbers.items()},
        "audio": _audio(media, frames.name, frames.time[sampled], pack),
        "stretches": _stretches(scored, one, media),
    }


def _ticks(time: NDArray[np.float64]) -> NDArray[np.uint32]:
    """The steps of time between frames, in units of `TICK`: they take little room once compressed."""
    return np.diff(np.rint(np.maximum(time, 0) / TICK).astype(np.int64), prepend=0).clip(0).astype(np.uint32)


def _audio(media: Media | None, name: str, time: NDArray[np.float64], pack: Pack) -> dict[str, Any] | None:
    found = None if media is None else media.audio(name, time)
    if found is None:
        return None
    return {"level": pack.add(codes(found.level, QUIETEST, 0)), "voice": pack.add(codes(found.voice, 0, 1))}


def _stretches(scored: Scored, one: DecidedVideo, media: Media | None) -> list[dict[str, Any]]:
    """The worst stretches of a video in words, with a thumbnail of each where there is one."""
    kind, frames = scored.kind, one.video
    return [
        {
            "first": int(frames.frame[found.first]),
            "last": int(frames.frame[found.last]),
            "from": float(frames.time[found.first]),
            "to": float(frames.time[found.last]),
            "text": kind.in_words(frames.label[_rows(found)], one.decided[_rows(found)]),
            "thumbnail": None
            if media is None
            else media.thumbnail(frames.name, int(frames.frame[found.first]), int(frames.frame[found.last])),
        }
        for found in worst_stretches(kind.errors(frames.label, one.decided), frames.time)
    ]


def _rows(found: Stretch) -> slice:
    return slice(found.first, found.last + 1)
