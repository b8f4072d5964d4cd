"""From two branches' probabilities to one decision a frame.

The proportion criterion of arXiv 2503.11935, P = (m P_a + n P_v) / (m + n) with integers 0 < m, n < 6, between steps
that the paper leaves open (our defaults): smoothing before it, filling and prior correction after it. All of it is
plain arithmetic on arrays. A row that is all NaN is a modality, or a decision, that is missing.

Shapes: T frames of one video, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from math import gcd, isfinite
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from abaw_expr.errors import DecisionError
from abaw_expr.files import read_json, write_json
from abaw_expr.outputs import Outputs, VideoOutputs, is_distribution
from abaw_expr.scoring import Counts, confusion_by_video, macro_f1, with_crop
from abaw_expr.tasks import BRANCHES, EXPR, Task
from abaw_expr.version import VERSION

Rows = NDArray[np.floating]
"""[T, C] probabilities; a row all NaN is missing."""

MOST = 5
"""The largest share m or n (arXiv 2503.11935)."""
MAX_TAU = 2.0
EDGE = 1e-6
"""Seconds of slack at a window's ends, so that a frame on the edge is inside whatever the last bit of its time."""
NEVER_SEEN = 1e-9
"""A prior below this belongs to a class that training never saw; no data set has 10^9 frames."""
REMEDY = "Make the decision again with `abaw-expr tune`."

SHARES = range(1, MOST + 1)
RATIOS: tuple[tuple[int, int], ...] = tuple(
    sorted(
        ((m, n) for m in SHARES for n in SHARES if gcd(m, n) == 1),
        key=lambda ratio: (sum(ratio), abs(ratio[0] - ratio[1]), ratio),
    )
)
"""The 19 distinct ratios (m, n) among the 25 pairs, the simplest first."""


def fuse(audio: Rows, visual: Rows, m: int, n: int) -> Rows:
    """The proportion criterion: [T, C], [T, C] -> [T, C]. A missing modality has no vote: P is the other's."""
    fused = audio * (m / (m + n)) + visual * (n / (m + n))
    lone = np.isnan(fused[:, 0])
    fused[lone] = np.where(np.isnan(audio[lone]), visual[lone], audio[lone])
    return fused


def smooth(p: Rows, time: NDArray[np.float64], seconds: float) -> Rows:
    """The mean of the rows that are present within `seconds` / 2 before and after each frame: [T, C], [T] -> [T, C].

    The window is on the video's own clock, so frame rates may vary. A missing row takes the mean of its window too; it
    stays missing where the window holds nothing. 0 seconds return the input.
    """
    if seconds == 0:
        return p
    present = ~np.isnan(p[:, 0])
    clock, half = time[present], seconds / 2 + EDGE
    first, last = np.searchsorted(clock, time - half, "left"), np.searchsorted(clock, time + half, "right")
    totals = np.zeros((len(clock) + 1, p.shape[1]))  # float64: a running sum loses float32's digits
    np.cumsum(p[present], axis=0, dtype=np.float64, out=totals[1:])
    counts = np.where(last > first, last - first, np.nan)
    return (totals[last] - totals[first]) / counts[:, None]


def fill(p: Rows, time: NDArray[np.float64], fallback: ArrayLike) -> Rows:
    """Fills missing rows: linear in time between the rows around them, held at both ends: [T, C], [T], [C] -> [T, C].

    Where no row is present at all, every row is `fallback`.
    """
    missing = np.isnan(p[:, 0])
    if not missing.any():
        return p
    if missing.all():
        return np.tile(np.asarray(fallback, dtype=np.float64), (len(p), 1))
    present, gaps = np.flatnonzero(~missing), np.flatnonzero(missing)
    following = np.searchsorted(present, gaps)
    before = present[np.maximum(following - 1, 0)]
    after = present[np.minimum(following, len(present) - 1)]
    span = time[after] - time[before]  # 0 at both ends of the video, where before and after are one row
    weight = np.divide(time[gaps] - time[before], span, out=np.zeros(len(gaps)), where=span > 0)[:, None]
    filled = p.copy()
    filled[gaps] = (1 - weight) * p[before] + weight * p[after]
    return filled


def correct_prior(p: Rows, prior: ArrayLike, tau: float) -> Rows:
    """Divides training's class shares out of probabilities: p prior^-tau, normalised: [T, C], [C] -> [T, C].

    Post-hoc logit adjustment (Menon et al., ICLR 2021): logits minus tau log prior. tau = 0 returns the input. A class
    that training never saw keeps the factor 1, the smallest of all: there is no evidence to raise it by.
    """
    if tau == 0:
        return p
    shares = np.asarray(prior, dtype=np.float64)
    corrected = p * np.where(shares < NEVER_SEEN, 1.0, shares) ** -tau
    return corrected / corrected.sum(axis=-1, keepdims=True)


def finish(
    fused: Rows,
    time: NDArray[np.float64],
    prior: Sequence[float],
    tau: float,
    kept: NDArray[np.intp] | None = None,
) -> Rows:
    """The steps after fusing: filling, then prior correction: [T, C], [T], [C] -> [T, C], no row missing.

    Of the rows only those at the indices `kept` are corrected and returned, where given; filling looks at every row.
    A video with nothing at all comes out as the prior itself. So the fallback is the row that the correction turns into
    the prior; the prior as fallback would come out as no preference, or with tau > 1 as the rarest class.
    """
    fallback = correct_prior(np.array([prior]), prior, -tau)[0]
    filled = fill(fused, time, fallback)
    return correct_prior(filled if kept is None else filled.take(kept, axis=0), prior, tau)


@dataclass(frozen=True)
class Decision:
    """How probabilities become labels, and what it was chosen by. Raises DecisionError for a value out of range."""

    prior: tuple[float, ...]
    """The share of each class that training saw."""
    m: int = 1
    """The sound's share, 1 to 5."""
    n: int = 1
    """The picture's share, 1 to 5."""
    smoothing: float = 0.0
    """Seconds, the width of the whole window; 0: none."""
    tau: float = 0.0
    """The exponent of the prior correction, 0 (none) to 2."""
    mu: Mapping[str, float] | None = None
    """The coarse-fine loss's coefficients that the outputs' run was trained with, where they were tuned."""
    outputs: Mapping[str, str | None] | None = None
    """The table it was chosen on: file, run, digest; None, like figures and estimate, where nothing was tuned."""
    figures: Mapping[str, float | None] | None = None
    """Macro F1 on that table: of this decision (macro_f1, macro_f1_with_crop), and without post-processing of sound
    alone (audio), pictures alone (visual) and both 1:1 (equal)."""
    estimate: Mapping[str, Any] | None = None
    """What to expect of it elsewhere: nested_macro_f1, optimism, method."""
    task: Task = EXPR

    def __post_init__(self) -> None:
        for name in ("m", "n"):
            value = getattr(self, name)
            _require(type(value) is int and value in SHARES, name, value, f"a whole number from 1 to {MOST}")
        _require(_is_number(self.smoothing) and self.smoothing >= 0, "smoothing", self.smoothing, "0 or more seconds")
        _require(_is_number(self.tau) and 0 <= self.tau <= MAX_TAU, "tau", self.tau, f"a number from 0 to {MAX_TAU:g}")
        n_classes = self.task.n_classes
        _require(is_distribution(self.prior, n_classes), "prior", self.prior, f"{n_classes} shares that sum to 1")
        for name in ("mu", "outputs", "figures", "estimate"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, Mapping), name, value, "an object of names and values, or null")

    def probabilities(self, video: VideoOutputs) -> Rows:
        """Decides one video: [T, C], every row present and summing to 1.

        Smooths each modality over the frames that have it, fuses, fills, corrects the prior.
        """
        audio, visual = (smooth(p, video.time, self.smoothing) for p in (video.audio, video.visual))
        return finish(fuse(audio, visual, self.m, self.n), video.time, self.prior, self.tau)

    def labels(self, video: VideoOutputs) -> NDArray[np.int64]:
        """The most probable class of every frame, [T]; the lower class where two are equal."""
        return self.probabilities(video).argmax(axis=1)

    def confusions(self, videos: Sequence[VideoOutputs]) -> Counts:
        """One confusion matrix a video over its annotated frames: [V, C, C]."""
        labels = [self.labels(video) for video in videos]
        return confusion_by_video([video.label for video in videos], labels, self.task.n_classes)

    def check(self, outputs: Outputs) -> None:
        """Raises DecisionError where the outputs are of another task or class order than this decision."""
        if outputs.task != self.task:
            found, expected = f"{outputs.task.name}: {outputs.task.header}", f"{self.task.name}: {self.task.header}"
            raise DecisionError("the decision does not fit the outputs", found=found, expected=expected, remedy=REMEDY)

    def save(self, path: Path) -> None:
        """Writes `decision.json`, whole or not at all."""
        values = {name: getattr(self, name) for name in _field_names()}
        write_json(path, {"version": VERSION, "task": self.task.name, **values})

    @classmethod
    def load(cls, path: Path, task: Task = EXPR) -> Self:
        """Reads `decision.json`.

        Raises DecisionError where it is no decision, of another version or task, or a field is missing or out of range.
        """
        value = read_json(path, DecisionError, REMEDY)
        try:
            _require(isinstance(value, dict), "the file", value, "an object of names and values")
            missing = [name for name in ("version", "task", *_field_names()) if name not in value]
            _require(not missing, "the file", f"no {', no '.join(missing)}", "all fields of a decision")
            _require(_major(value["version"]) == _major(VERSION), "version", value["version"], f"{_major(VERSION)}.x")
            _require(value["task"] == task.name, "task", value["task"], task.name)
            _require(isinstance(value["prior"], list), "prior", value["prior"], "a list of shares")
            named = {name: value[name] for name in _field_names()}
            return cls(**named | {"prior": tuple(value["prior"]), "task": task})
        except DecisionError as error:
            error.path = path
            raise


def figures(decision: Decision, videos: Sequence[VideoOutputs]) -> dict[str, float | None]:
    """Macro F1 of a decision on annotated videos, and of what it is to be compared with.

    `audio`, `visual` and `equal` (1:1) have nothing tuned. None where there is nothing to compare.
    """
    plain = Decision(prior=decision.prior, task=decision.task)
    absent = [name for name in BRANCHES if all(np.isnan(getattr(video, name)).all() for video in videos)]
    alone = {
        name: None if name in absent else _score(plain, [_without(other, video) for video in videos])
        for name, other in zip(BRANCHES, reversed(BRANCHES), strict=True)
    }
    cropped = [replace(video, label=with_crop(video.label, video.crop, decision.task)) for video in videos]
    return {
        "macro_f1": _score(decision, videos),
        "macro_f1_with_crop": _score(decision, cropped),
        **alone,
        "equal": None if absent else _score(plain, videos),
    }


def _score(decision: Decision, videos: Sequence[VideoOutputs]) -> float | None:
    """Macro F1 over the annotated frames of all videos; None where there is none."""
    pooled = decision.confusions(videos).sum(axis=0)
    return float(macro_f1(pooled)) if pooled.any() else None


def _without(branch: str, video: VideoOutputs) -> VideoOutputs:
    return replace(video, **{branch: np.full_like(getattr(video, branch), np.nan)})


def _field_names() -> list[str]:
    """The fields of a decision that the file holds under their own names."""
    return [field.name for field in fields(Decision) if field.name != "task"]


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise DecisionError(f"{name} cannot be used", found=str(found), expected=expected, remedy=REMEDY)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _major(version: object) -> str:
    """The part of a version that changes when a file's fields change their meaning."""
    return str(version).partition(".")[0]
