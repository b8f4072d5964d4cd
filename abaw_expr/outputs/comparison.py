"""Compares two decisions on the same annotated frames, by a paired bootstrap over recordings.

Shapes: R recordings, F fields with K statistics each.
"""

from dataclasses import dataclass
from typing import NamedTuple

import pandas as pd

from abaw_expr.errors import OutputsError, UserError
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, label_columns
from abaw_expr.tasks.metric import Metric
from abaw_expr.tasks.statistics import Statistics, bootstrap_difference, bootstrap_interval, sum_recordings


class Interval(NamedTuple):
    """A score, or a difference of two, with its 95 % interval over recordings."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """Two decisions on the same recordings."""

    metric: Metric
    recordings: int
    first: Interval
    second: Interval
    difference: Interval
    """The first score minus the second; its resamples draw the same recordings for both."""

    @property
    def better(self) -> str | None:
        """`first` or `second`; None where the interval of the difference contains 0."""
        _, low, high = self.difference
        return None if low <= 0 <= high else "first" if low > 0 else "second"


def compare(first: tuple[Outputs, Decision], second: tuple[Outputs, Decision], seed: int = 0) -> Comparison:
    """Compares two decisions, each on its own outputs of the same frames.

    Raises OutputsError as `check_same_annotations` does, and UserError where there is only one recording.
    """
    check_same_annotations(first[0], second[0])
    metric = first[1].metric
    one, two = (_by_recording(*side) for side in (first, second))
    if len(one) < 2:
        raise UserError("recordings cannot be resampled", found="1 recording", expected="at least 2")
    scores = [
        Interval(float(metric.score(counts.sum(axis=0))), *bootstrap_interval(counts, metric.score, seed))
        for counts in (one, two)
    ]
    difference = Interval(*bootstrap_difference(one, two, metric.score, seed))
    return Comparison(metric, len(one), first=scores[0], second=scores[1], difference=difference)


def _by_recording(outputs: Outputs, decision: Decision) -> Statistics:
    """The statistics of each recording, [R, F, K]."""
    videos = outputs.videos()
    return sum_recordings([video.name for video in videos], decision.statistics(videos))


def check_same_annotations(first: Outputs, other: Outputs) -> None:
    """Raises OutputsError unless two tables have the same annotations of the same frames, of the same task."""
    remedy = "Compare tables of the same split, made with the same annotations."
    if other.task != first.task:
        found, expected = other.task.name, first.task.name
        raise OutputsError(
            "has other annotated frames, of another task",
            path=other.path,
            found=found,
            expected=expected,
            remedy=remedy,
        )
    one, two = (_annotated_rows(outputs) for outputs in (first, other))
    extra, lacking = two.index.difference(one.index), one.index.difference(two.index)
    if len(extra) or len(lacking):
        counts = f"{len(extra)} annotated only here, {len(lacking)} annotated only in the first file"
        video, frame = (extra if len(extra) else lacking)[0]
        found = f"{counts}, such as video {video}, frame {frame}"
        raise OutputsError("has other annotated frames", path=other.path, found=found, remedy=remedy)
    differ = (one != two.loc[one.index]).any(axis=1)
    if differ.any():
        (video, frame), rows = differ.idxmax(), int(differ.sum())
        found, expected = (part.loc[(video, frame)].tolist() for part in (two, one))
        problem = f"video {video}, frame {frame}: the annotation differs from the first file's; {rows} frames differ"
        raise OutputsError(problem, path=other.path, found=found, expected=expected, remedy=remedy)


def _annotated_rows(outputs: Outputs) -> pd.DataFrame:
    """The annotations of the annotated frames, indexed by video and frame."""
    columns = label_columns(outputs.task)
    ignored = [field.ignore_value for field in columns.values()]
    table = outputs.table[["video", "frame", *columns]]
    annotated = table[(table[[*columns]] != ignored).any(axis=1)]
    return annotated.assign(video=annotated["video"].astype(str)).set_index(["video", "frame"])
