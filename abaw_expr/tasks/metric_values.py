"""The metric of valence and arousal: the mean of their concordance correlation coefficients (CCC), as the organisers
compute it.

Conventions
- CCC = 2 s_xy / (s_x^2 + s_y^2 + (mean_x - mean_y)^2), Lin (Biometrics 1989), with variances over n, not n - 1.
- A value of -5 (not annotated) is dropped, independently in each field; frames are pooled over all videos.
- Where truth or prediction does not vary, CCC is 0, as the formula gives. It is also 0 where both are the same
  constant, where the formula is 0/0.
- The statistics of a field are its count and its sums of x, y, x^2, y^2 and xy, float64 [..., F, 6]. With values of at
  most 1 the variance over a million frames is exact to 1e-14; a variance below `CONSTANT` counts as 0.

Shapes: T frames, V videos, F fields.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from abaw_expr.errors import OutputsError
from abaw_expr.tasks.metric import Counter, FieldMetric, Rows
from abaw_expr.tasks.report import Report, Section, in_words
from abaw_expr.tasks.statistics import (
    Statistics,
    Values,
    annotated_fields,
    interval_over_recordings,
    is_annotated,
    pool,
    safe_divide,
)
from abaw_expr.tasks.task import Task

CONSTANT = 1e-12
"""A variance below this counts as 0: values are written to about 1e-3, and float32 represents them to 1e-7."""

BINS = 5
"""Bins of each value from its lowest to its highest, for balanced training (D): 25 of valence and arousal."""


def moments(truth: NDArray[np.floating], predicted: NDArray[np.floating], task: Task) -> Values:
    """The statistics of a video's frames: [T, F], [T, F] -> [F, 6].

    Raises UserError where the shapes differ, or an annotated value or the prediction for it is out of range.
    """
    annotated_fields(truth, predicted, task)
    return moment_counter(truth, task)(predicted[None])[0]


def moment_counter(truth: NDArray[np.floating], task: Task) -> Counter:
    """`moments` as a function of the predictions of N candidates, all in range: [T, F] -> ([N, T, F] -> [N, F, 6]).

    What depends on the truth alone is computed once.
    """
    kept = is_annotated(truth, task).T  # [F, T]

    def by_field(values: NDArray[np.floating]) -> Values:
        """Frames are contiguous, so that numpy adds them pairwise: [..., T, F] -> [..., F, T], 0 if not annotated."""
        return np.where(kept, values.swapaxes(-2, -1), 0).astype(np.float64, order="C")

    x = by_field(truth)
    n, sum_x, sum_xx = (values.sum(axis=-1, dtype=np.float64) for values in (kept, x, x * x))

    def count(predicted: NDArray[np.floating]) -> Values:
        y = by_field(predicted)
        columns = n, sum_x, y.sum(axis=-1), sum_xx, (y * y).sum(axis=-1), (x * y).sum(axis=-1)
        return np.stack(np.broadcast_arrays(*columns), axis=-1)

    return count


def ccc(statistics: Values) -> Values:
    """The CCC of each field: [..., F, 6] -> [..., F]."""
    mean_x, mean_y, var_x, var_y, cov = _central(statistics)
    varies = (var_x > CONSTANT) & (var_y > CONSTANT)
    return safe_divide(np.where(varies, 2 * cov, 0), var_x + var_y + (mean_x - mean_y) ** 2)


def mean_ccc(statistics: Values) -> Values:
    """The organisers' metric: [..., F, 6] -> [...]."""
    return ccc(statistics).mean(axis=-1)


@dataclass(frozen=True)
class ValueScore:
    """Scores of one field over its annotated frames."""

    name: str
    ccc: float
    pearson: float
    """Pearson correlation: the CCC if mean and scale were right; 0 where truth or prediction does not vary."""
    bias: float
    """The mean of prediction minus truth."""
    scale: float
    """The standard deviation of the prediction as a fraction of the truth's; 0 where the truth does not vary."""
    frames: int


@dataclass(frozen=True)
class VideoValues:
    """Scores of one video on its annotated frames."""

    name: str
    frames: int
    mean_ccc: float
    ccc: tuple[float, ...]
    """Of each field."""


@dataclass(frozen=True)
class ValueReport(Report):
    """All scores of predicted values."""

    mean_ccc: float
    """The organisers' metric."""
    interval: tuple[float, float] | None
    """The 95 % bootstrap interval of `mean_ccc` over recordings; None where there are fewer than two."""
    frames: int
    """Number of annotated frames: the maximum over fields."""
    fields: tuple[ValueScore, ...]
    videos: tuple[VideoValues, ...]
    """The videos that have an annotated frame, in the order given."""

    def headline(self) -> str:
        each = ", ".join(f"{field.name} {field.ccc:.4f}" for field in self.fields)
        return f"{in_words('mean CCC', self.mean_ccc, self.interval)}, {each}"

    def sections(self) -> Iterator[Section]:
        rows = [(f.name, f.ccc, f.pearson, f.bias, f.scale, f.frames) for f in self.fields]
        yield Section("By field", ("", "CCC", "Pearson", "bias", "scale", "frames"), rows)
        names = tuple(field.name for field in self.fields)
        videos = [(v.name, v.mean_ccc, *v.ccc, v.frames) for v in self.videos]
        yield Section("By video (CCC)", ("video", "mean", *names, "frames"), videos)


def value_report(task: Task, videos: Sequence[str], statistics: Values, seed: int = 0) -> ValueReport:
    """Scores predictions from the statistics of each video, [V, F, 6]; `seed` seeds the bootstrap.

    Raises UserError where no frame is annotated.
    """
    pooled = pool(statistics)
    return ValueReport(
        mean_ccc=float(mean_ccc(pooled)),
        interval=interval_over_recordings(videos, statistics, mean_ccc, seed),
        frames=_frames(pooled),
        fields=_scores(task, pooled),
        videos=tuple(
            VideoValues(name, _frames(one), float(mean_ccc(one)), tuple(ccc(one).tolist()))
            for name, one in zip(videos, statistics, strict=True)
            if one.any()
        ),
    )


def _scores(task: Task, pooled: Values) -> tuple[ValueScore, ...]:
    mean_x, mean_y, var_x, var_y, cov = _central(pooled)
    sd_x, sd_y = (np.sqrt(np.where(var > CONSTANT, var, 0)) for var in (var_x, var_y))
    columns = (
        ccc(pooled),
        safe_divide(cov, sd_x * sd_y),
        mean_y - mean_x,
        safe_divide(sd_y, sd_x),
        pooled[:, 0].astype(np.int64),
    )
    names = [field.name for field in task.fields]
    return tuple(ValueScore(*row) for row in zip(names, *(column.tolist() for column in columns), strict=True))


def _central(statistics: Statistics) -> tuple[Values, ...]:
    """Means, variances and covariance of truth x and prediction y, 0 where no frame is annotated: [..., F] each."""
    n, x, y, xx, yy, xy = np.moveaxis(statistics, -1, 0)
    mean_x, mean_y = safe_divide(x, n), safe_divide(y, n)
    return (
        mean_x,
        mean_y,
        safe_divide(xx, n) - mean_x**2,
        safe_divide(yy, n) - mean_y**2,
        safe_divide(xy, n) - mean_x * mean_y,
    )


def _frames(statistics: Values) -> int:
    return int(statistics[:, 0].max())


class ValueMetric(FieldMetric):
    """Values such as valence and arousal; a model gives the values themselves."""

    name, key, short, noun, columns_are = "mean CCC", "mean_ccc", "ccc", "values", "values"
    remedy = "Clip or scale them."

    def from_logits(self, rows: Rows) -> Rows:
        expected = f"the values themselves, {self._expected}"
        raise OutputsError(f"{self.task.header} cannot be given as logits", expected=expected)

    def decide(self, rows: Rows, thresholds: Sequence[float] | None = None) -> NDArray[np.float32]:
        low, high = self._low.astype(np.float32), self._high.astype(np.float32)
        return rows.astype(np.float32).clip(low, high)  # a weighted mean of ones can round to more than 1

    def count(self, truth: NDArray[Any], predicted: NDArray[Any]) -> Statistics:
        return moments(truth, predicted, self.task)

    def score(self, statistics: Statistics) -> Values:
        return mean_ccc(statistics)

    def by_column(self, statistics: Statistics) -> Values:
        return ccc(statistics)

    def strata(self, labels: NDArray[Any]) -> NDArray[np.intp]:
        """Bins of all fields together, `BINS` equal ones a field; a value that is not annotated is in the lowest."""
        bins = np.clip((labels - self._low) / (self._high - self._low) * BINS, 0, BINS - 1).astype(np.intp)
        return bins @ BINS ** np.arange(bins.shape[1])

    def tuning_counter(self, truth: NDArray[Any]) -> Counter:
        count = moment_counter(truth, self.task)
        return lambda rows: count(self.decide(rows))

    def annotated(self, statistics: Statistics) -> NDArray[Any]:
        return statistics[..., 0]

    def report(self, videos: Sequence[str], statistics: Statistics) -> Report:
        return value_report(self.task, videos, statistics)
