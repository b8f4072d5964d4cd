"""A task's outputs under a decision: everything that the page shows of them is computed from this.

Shapes: T frames of one video, V videos, R recordings, C numbers of a row, F fields with K statistics each.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from abaw_expr.data.workers import OnProgress
from abaw_expr.errors import OutputsError
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, VideoOutputs
from abaw_expr.report.kind import TaskKind
from abaw_expr.report.registry import kind_of
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.report import Report
from abaw_expr.tasks.statistics import Statistics, Values, is_annotated, resample, sum_recordings, with_crop

ASSUMED_RATE = 30.0
"""Frames a second of a table without times, on the page; decisions take the times as they are."""


@dataclass(frozen=True, eq=False)
class DecidedVideo:
    """A video with what was decided of it."""

    video: VideoOutputs
    rows: NDArray[np.floating]
    """[T, C], fused."""
    decided: NDArray[Any]
    """[T] or [T, F]"""


@dataclass(frozen=True)
class RecordingCost:
    """How much a recording costs the metric."""

    name: str
    cost: float
    """The metric without the recording, minus the metric with it: above 0 the recording lowers it."""
    frames: int
    """Annotated ones: the maximum over fields."""
    videos: tuple[int, ...]
    """The places of its videos, the people in it."""


@dataclass(frozen=True, eq=False)
class Scored:
    """Outputs with annotations, decided and counted."""

    outputs: Outputs
    decision: Decision
    path: Path | None
    """The decision's file; None without one."""
    videos: tuple[DecidedVideo, ...]

    @classmethod
    def of(cls, outputs: Outputs, decision: Decision, path: Path | None, on_progress: OnProgress) -> Self:
        """Decides every video. `on_progress` counts videos. Raises OutputsError where no frame is annotated."""
        if not is_annotated(outputs.label(), outputs.task).any():
            remedy = "Give the outputs of a split that has annotations, such as val."
            raise OutputsError("has no annotated frame, so there is nothing to score", path=outputs.path, remedy=remedy)
        videos = []
        every = outputs.videos()
        for number, video in enumerate(every, start=1):
            rows = decision.probabilities(video)
            videos.append(DecidedVideo(_timed(video), rows, decision.metric.decide(rows, decision.thresholds)))
            on_progress(number, len(every))
        return cls(outputs, decision, path, tuple(videos))

    @property
    def metric(self) -> Metric:
        """The metric of the task."""
        return self.decision.metric

    @cached_property
    def kind(self) -> TaskKind:
        """How the task is shown."""
        return kind_of(self.outputs.task)

    @property
    def names(self) -> list[str]:
        """Of the videos, [V]."""
        return [one.video.name for one in self.videos]

    @cached_property
    def statistics(self) -> Statistics:
        """Of each video, [V, F, K]."""
        return self._statistics([one.video.label for one in self.videos])

    @cached_property
    def by_recording(self) -> Statistics:
        """Of each recording that has an annotated frame, in the order of names, [R, F, K]."""
        return sum_recordings(self.names, self.statistics)

    @cached_property
    def reports(self) -> dict[str, Report]:
        """The scores on all annotated frames, with a crop and without; those without a frame are left out."""
        crops = [one.video.crop for one in self.videos]
        found = {"all annotated frames": self.metric.report(self.names, self.statistics)}
        if not any(crop.any() for crop in crops):
            return found  # nothing is known of crops, as of an imported table
        for title, has in (("frames with a crop", crops), ("frames without a crop", [~crop for crop in crops])):
            labels = [
                with_crop(one.video.label, kept, self.outputs.task) for one, kept in zip(self.videos, has, strict=True)
            ]
            statistics = self._statistics(labels)
            if statistics.any():
                found[title] = self.metric.report(self.names, statistics)
        return found

    @cached_property
    def costs(self) -> list[RecordingCost]:
        """The recordings that have an annotated frame, those that cost most first."""
        names = sorted({recording_of(name) for name, own in zip(self.names, self.statistics, strict=True) if own.any()})
        whole = self.by_recording.sum(axis=0)
        costs = self.metric.score(whole - self.by_recording) - self.metric.score(whole)
        frames = self.metric.annotated(self.by_recording).max(axis=-1)
        places: dict[str, list[int]] = {}
        for place, name in enumerate(self.names):
            places.setdefault(recording_of(name), []).append(place)
        found = [
            RecordingCost(name, float(cost), int(count), tuple(places[name]))
            for name, cost, count in zip(names, costs, frames, strict=True)
        ]
        return sorted(found, key=lambda one: (-one.cost, one.name))

    @cached_property
    def stacked(self) -> tuple[NDArray[np.floating], NDArray[Any], NDArray[Any]]:
        """The fused rows [N, C], annotations and decisions, [N] or [N, F] both, of the N frames with an annotation."""
        parts = []
        for one in self.videos:
            fields = is_annotated(one.video.label, self.outputs.task)
            known = fields.reshape(len(fields), -1).any(axis=1)
            parts.append((one.rows[known], one.video.label[known], one.decided[known]))
        rows, labels, decided = (np.concatenate(column) for column in zip(*parts, strict=True))
        return rows, labels, decided

    def _statistics(self, labels: Sequence[NDArray[Any]]) -> Statistics:
        return self.metric.statistics(labels, [one.decided for one in self.videos])


def has_times(video: VideoOutputs) -> bool:
    """Whether the frames of a video have different times, as those of a table without times have not."""
    return len(video.time) < 2 or bool(video.time[-1] > video.time[0])


def _timed(video: VideoOutputs) -> VideoOutputs:
    """The video; without times, as if it had `ASSUMED_RATE`."""
    return video if has_times(video) else replace(video, time=(video.frame - 1) / ASSUMED_RATE)


def column_intervals(scored: Scored, seed: int = 0, resamples: int = 1000) -> list[tuple[float, float]]:
    """The 95 % interval over recordings of the score of each column; none with fewer than two recordings."""
    if len(scored.by_recording) < 2:
        return []
    drawn: Values = resample(scored.by_recording, scored.metric.by_column, seed, resamples)  # [resamples, C]
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    return list(zip(low.tolist(), high.tolist(), strict=True))
