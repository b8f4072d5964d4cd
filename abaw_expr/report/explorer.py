"""The data of the interactive part of a page: confusion, recordings by cost, and the worst stretches of their videos.

Shapes: T frames of one video, F fields with L levels each.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from abaw_expr.data.workers import OnProgress
from abaw_expr.report.media import Media
from abaw_expr.report.packing import Pack
from abaw_expr.report.scored import DecidedVideo, Scored
from abaw_expr.report.stretches import Stretch, worst_stretches
from abaw_expr.report.timeline import sampled_times, task_value, video_value


def explorer(scored: Scored, media: Media | None, pack: Pack, on_progress: OnProgress) -> dict[str, Any]:
    """Everything that the interactive part of a task shows; arrays go into `pack`. `on_progress` counts videos."""
    kind = scored.kind
    confusion = np.zeros((len(kind.fields), len(kind.levels), len(kind.levels)), np.int64)
    videos = []
    for number, one in enumerate(scored.videos, start=1):
        truth, decided = kind.codes(one.video.label), kind.codes(one.decided)
        confusion += kind.confusion(truth, decided)
        audio = None if media is None else media.audio(one.video.name, sampled_times(one.video))
        videos.append(video_value(kind, one, audio, pack) | {"stretches": _stretches(scored, one, media)})
        on_progress(number, len(scored.videos))
    own = {video.name: video for report in [next(iter(scored.reports.values()))] for video in _by_video(report)}
    return {
        **task_value(kind, [*scored.outputs.branches]),
        "metric": scored.metric.name,
        "by_field": len(kind.fields) > 1 and len(kind.levels) == 2,
        "confusion_title": kind.confusion_title,
        "confusion": confusion.tolist(),
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
