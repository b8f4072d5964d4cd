"""The decision, `decision.json`: how the numbers of the branches become labels, and how this was chosen.

Shapes: T frames of one video, V videos, C numbers of a row, F fields with K statistics each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from math import isfinite
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from abaw_expr.errors import DecisionError
from abaw_expr.files import read_json, write_json
from abaw_expr.outputs.fusion import (
    MAX_TAU,
    MAX_WEIGHT,
    MISSING,
    SMOOTHERS,
    WEIGHTS,
    correct_prior,
    fill,
    fuse,
    fuse_priors,
    smooth_branch,
)
from abaw_expr.outputs.refinement import NO_REFINEMENT, Refinement
from abaw_expr.outputs.table import Outputs, Source, VideoOutputs
from abaw_expr.tasks.metric import Metric, Rows
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.report import Report
from abaw_expr.tasks.statistics import Statistics, with_crop
from abaw_expr.tasks.task import EXPR, Task
from abaw_expr.version import VERSION

_OPTIONAL = ("task", "thresholds", "missing", "refinement")
"""Fields that a file does not have, or only where they are not as by default."""
_REMEDY = "Make the decision again with `abaw-expr tune`."


@dataclass(frozen=True)
class Vote:
    """One branch's part in the decision. Raises DecisionError for a value out of range."""

    prior: tuple[float, ...]
    """[C], the average over its training data: class fractions, fractions of active frames of units, or mean values."""
    weight: int = 1
    """1 to 5, m (audio) or n (visual) of the proportional fusion; 0: the branch is left out."""
    tau: float = 0.0
    """The exponent of its prior correction, from 0 (none) to 2; only for class probabilities."""

    def __post_init__(self) -> None:
        whole = type(self.weight) is int and self.weight in (0, *WEIGHTS)
        _require(whole, "weight", self.weight, f"a whole number from 0 to {MAX_WEIGHT}")
        _require(_is_number(self.tau) and 0 <= self.tau <= MAX_TAU, "tau", self.tau, f"a number from 0 to {MAX_TAU:g}")


@dataclass(frozen=True)
class Decision:
    """How the numbers of the branches become labels. Raises DecisionError for a value out of range."""

    branches: Mapping[str, Vote]
    """By name."""
    smoothing: float = 0.0
    """Width of the whole smoothing window in seconds; 0: no smoothing."""
    smoother: str = "mean"
    """The statistic over the window: mean or median."""
    mu: Mapping[str, float] | None = None
    """The coefficients of the coarse-fine loss that the run was trained with, where these were tuned."""
    outputs: Mapping[str, Any] | None = None
    """The tables that it was tuned on; None, as are scores and estimate, where nothing was tuned."""
    scores: Mapping[str, Any] | None = None
    """Scores on these tables: of this decision (macro_f1 and macro_f1_with_crop, or mean_ccc and so on), and without
    post-processing of each branch alone (alone) and of all branches fused with equal weights (equal)."""
    estimate: Mapping[str, Any] | None = None
    """Its expected score on other data: nested_macro_f1 (nested_mean_ccc), its interval, optimism, method."""
    task: Task = EXPR
    thresholds: tuple[float, ...] | None = None
    """The probability from which each action unit counts as active; None: 0.5, and always None for other tasks."""
    missing: str = MISSING[0]
    """How smoothing treats a frame whose modality is missing, see `MISSING`."""
    refinement: Refinement = NO_REFINEMENT
    """Temperatures, a gate, or factors of classes; none by default."""

    def __post_init__(self) -> None:
        _require(len(self.branches) > 0, "branches", self.branches, "at least one")
        _require(len(self.voting) > 0, "branches", self.branches, "at least one with a weight above 0")
        for name, vote in self.branches.items():
            _require(self.metric.is_prior(vote.prior), f"{name}'s prior", vote.prior, self.metric.prior_expected)
            expected = f"0, as {self.metric.columns_are} have no prior correction"
            _require(not vote.tau or self.metric.distribution, f"{name}'s tau", vote.tau, expected)
        _require(_is_number(self.smoothing) and self.smoothing >= 0, "smoothing", self.smoothing, "0 or more seconds")
        _require(self.smoother in SMOOTHERS, "smoother", self.smoother, " or ".join(SMOOTHERS))
        _require(self.missing in MISSING, "missing", self.missing, " or ".join(MISSING))
        expected = "a probability for each action unit, or null"
        _require(self.metric.are_thresholds(self.thresholds), "thresholds", self.thresholds, expected)
        self.refinement.check(self.task, self.branches)
        for name in ("mu", "outputs", "scores", "estimate"):
            value = getattr(self, name)
            _require(value is None or isinstance(value, Mapping), name, value, "an object of names and values, or null")

    @property
    def metric(self) -> Metric:
        """The metric of the task."""
        return metric_of(self.task)

    def probabilities(self, video: VideoOutputs) -> Rows:
        """The fused rows of one video, float32 [T, C], none missing; those of classes sum to 1.

        Each branch is smoothed over the frames that have it, then its prior is corrected; then the branches are fused
        and missing rows filled. What the refinement does comes before the correction (temperature), after the fusion
        (gate) and last (factors).
        """
        return self.from_smoothed({name: self.smoothed(name, video) for name in self.voting}, video)

    def from_smoothed(self, smoothed: Mapping[str, Rows], video: VideoOutputs) -> Rows:
        """The fused rows of one video from the smoothed rows [T, C] of the branches that vote."""
        p = {name: self._corrected(name, rows) for name, rows in smoothed.items()}
        fused = self.refinement.gated(fuse([*p.values()], self._weights), p)
        return self.refinement.weighed(fill(fused, video.time, self.fallback())).astype(np.float32)

    @property
    def voting(self) -> dict[str, Vote]:
        """The branches with a weight above 0."""
        return {name: vote for name, vote in self.branches.items() if vote.weight}

    def prepared(self, branch: str, video: VideoOutputs) -> Rows:
        """A branch's rows [T, C] before the fusion: smoothed, with the prior corrected."""
        return self._corrected(branch, self.smoothed(branch, video))

    def smoothed(self, branch: str, video: VideoOutputs) -> Rows:
        """A branch's rows [T, C], smoothed."""
        window = self.smoothing, self.smoother, self.metric.distribution
        return smooth_branch(video.p[branch], video.time, *window, self.missing)

    def _corrected(self, branch: str, smoothed: Rows) -> Rows:
        vote = self.branches[branch]
        return correct_prior(self.refinement.sharpened(branch, smoothed, self.task), vote.prior, vote.tau)

    def fallback(self) -> Rows:
        """The row [C] of a video for which no branch has a row: the fused priors."""
        return fuse_priors([vote.prior for vote in self.voting.values()], self._weights)

    def labels(self, video: VideoOutputs) -> NDArray[Any]:
        """The predicted labels: the most probable class, int64 [T], the lower index of equal ones; values, float32
        [T, F]; or which units are active, int64 [T, F]."""
        return self.metric.decide(self.probabilities(video), self.thresholds)

    def statistics(self, videos: Sequence[VideoOutputs]) -> Statistics:
        """The statistics of each video's annotated frames, [V, F, K]; of classes confusion matrices, [V, C, C]."""
        return self.metric.statistics([video.label for video in videos], [self.labels(video) for video in videos])

    def reports(self, outputs: Outputs) -> dict[str, Report]:
        """The scores as the organisers compute them, on `all annotated frames` and on `frames with a crop`.

        Raises DecisionError where the decision does not fit the outputs, UserError where no frame is annotated.
        """
        self.check(outputs)
        videos = outputs.videos()
        truths, predicted = [video.label for video in videos], [self.labels(video) for video in videos]
        names, has_crop = [video.name for video in videos], [video.crop for video in videos]
        return self.metric.reports(names, truths, predicted, has_crop)

    def check(self, outputs: Outputs) -> None:
        """Raises DecisionError where the outputs have another task or class order, or lack a branch."""
        if outputs.task != self.task:
            found, expected = f"{outputs.task.name}: {outputs.task.header}", f"{self.task.name}: {self.task.header}"
            raise DecisionError("the decision does not fit the outputs", found=found, expected=expected, remedy=_REMEDY)
        if not set(self.voting) <= set(outputs.branches):
            found, expected = ", ".join(outputs.branches), ", ".join(self.voting)
            remedy = "Name the same outputs, under the same names, as `tune` was given."
            raise DecisionError(
                "the outputs lack a branch", path=outputs.path, found=found, expected=expected, remedy=remedy
            )

    @property
    def checkpoint(self) -> Literal["best", "last"] | None:
        """The checkpoint whose outputs it was tuned on; None where that is unknown or not the same for all branches."""
        names = {_tuned_on(self.outputs or {}, "checkpoints", name) for name in self.voting}
        return "last" if names == {"last"} else "best" if names == {"best"} else None

    def source_mismatches(self, branches: Mapping[str, Source]) -> list[str]:
        """The differences between the sources of these branches and those that it was tuned on, in words.

        Empty where nothing was tuned. Imported branches have another file in each split, so only their priors are
        compared.
        """
        tuned, found = self.outputs or {}, []
        for name, vote in self.voting.items():
            source = branches.get(name)
            run, checkpoint = (_tuned_on(tuned, key, name) for key in ("runs", "checkpoints"))
            if run is None or source is None:
                continue
            before = Source(run, vote.prior, checkpoint)
            if run != source.run and (before.of_run or source.of_run):
                found.append(f"{name} is of run {source.run}, not of {run}")
            elif checkpoint and source.checkpoint not in (None, checkpoint):  # None: a table of an older version
                found.append(f"{name} is of checkpoint {source.checkpoint}, not of {checkpoint}")
            elif not np.allclose(source.prior, vote.prior, atol=1e-6):
                found.append(f"{name} has another prior")
        return found

    def __str__(self) -> str:
        """For example `audio 2 : visual 3, mean of 2 s, tau 0.5 : 0`."""
        weights = " : ".join(f"{name} {vote.weight}" for name, vote in self.branches.items())
        window = f"{self.smoother} of {self.smoothing:g} s" if self.smoothing else "no smoothing"
        window += ", missing masked" if self.smoothing and self.missing == "masked" else ""
        parts = [weights, window]
        if self.metric.distribution:
            parts.append(f"tau {' : '.join(f'{vote.tau:g}' for vote in self.branches.values())}")
        if self.thresholds is not None:
            parts.append(f"thresholds {' '.join(f'{threshold:g}' for threshold in self.thresholds)}")
        parts += [str(self.refinement)] if str(self.refinement) else []
        return ", ".join(parts)

    @property
    def _weights(self) -> list[int]:
        return [vote.weight for vote in self.voting.values()]

    def save(self, path: Path) -> None:
        """Writes `decision.json` atomically."""
        values = {name: getattr(self, name) for name in _field_names()}
        branches = {name: asdict(vote) for name, vote in self.branches.items()}
        more: dict[str, Any] = {} if self.thresholds is None else {"thresholds": self.thresholds}
        more |= {} if self.missing == MISSING[0] else {"missing": self.missing}
        more |= {"refinement": refined} if (refined := self.refinement.to_json()) else {}
        write_json(path, {"version": VERSION, "task": self.task.name, **values, "branches": branches, **more})

    @classmethod
    def load(cls, path: Path, task: Task = EXPR) -> Self:
        """Reads `decision.json`.

        Raises DecisionError where the file is not a decision, has another version or task, or a field is missing or
        out of range.
        """
        value = read_json(path, DecisionError, _REMEDY)
        try:
            _require(isinstance(value, dict), "the file", value, "an object of names and values")
            missing = [name for name in ("version", "task", *_field_names()) if name not in value]
            _require(not missing, "the file", f"no {', no '.join(missing)}", "all fields of a decision")
            _require(_major(value["version"]) == _major(VERSION), "version", value["version"], f"{_major(VERSION)}.x")
            _require(value["task"] == task.name, "task", value["task"], task.name)
            _require(isinstance(value["branches"], dict), "branches", value["branches"], "branches by name")
            branches = {name: _vote(name, fields) for name, fields in value["branches"].items()}
            named = {name: value[name] for name in _field_names()}
            cuts = value.get("thresholds")
            cuts = tuple(cuts) if isinstance(cuts, list) else cuts
            more: dict[str, Any] = {"thresholds": cuts, "missing": value.get("missing", MISSING[0])}
            more["refinement"] = Refinement.from_json(value.get("refinement", {}))
            return cls(**named | {"branches": branches, "task": task} | more)
        except DecisionError as error:
            error.path = path
            raise
        except (ArithmeticError, LookupError, TypeError, ValueError) as error:  # values of an unexpected type
            raise DecisionError(f"is not a decision ({error})", path=path, remedy=_REMEDY) from error


def untuned(outputs: Outputs, weights: Mapping[str, int]) -> Decision:
    """The decision that fuses these branches by their weights, and does nothing else."""
    votes = {name: Vote(source.prior, weights[name]) for name, source in outputs.branches.items()}
    return Decision(votes, task=outputs.task)


def equal_weights(outputs: Outputs) -> Decision:
    """The decision without tuning: all branches of the table have weight 1, nothing is smoothed."""
    return Decision({name: Vote(source.prior) for name, source in outputs.branches.items()}, task=outputs.task)


def scores(decision: Decision, videos: Sequence[VideoOutputs]) -> dict[str, Any]:
    """The scores of a decision on annotated videos, and the scores of its branches alone and of equal weights.

    `alone` and `equal` use no tuned values. A score is None where a branch has no rows or no frame is annotated.
    """
    cropped = [replace(video, label=with_crop(video.label, video.crop, decision.task)) for video in videos]
    untuned = {
        name: Vote(vote.prior)
        for name, vote in decision.branches.items()
        if not all(np.isnan(video.p[name]).all() for video in videos)
    }
    key = decision.metric.key
    return {
        key: _score(decision, videos),
        f"{key}_with_crop": _score(decision, cropped),
        "alone": {
            name: _score(Decision({name: untuned[name]}, task=decision.task), videos) if name in untuned else None
            for name in decision.branches
        },
        "equal": _score(Decision(untuned, task=decision.task), videos) if len(untuned) > 1 else None,
    }


def _score(decision: Decision, videos: Sequence[VideoOutputs]) -> float | None:
    """The score over the annotated frames of all videos; None where no frame is annotated."""
    pooled = decision.statistics(videos).sum(axis=0)
    return float(decision.metric.score(pooled)) if pooled.any() else None


def _tuned_on(tuned: Mapping[str, Any], key: str, branch: str) -> str | None:
    """The run or checkpoint (`key`) that a branch was tuned on; None where the decision does not have it."""
    by_branch = tuned.get(key)
    value = by_branch.get(branch) if isinstance(by_branch, Mapping) else None
    return value if isinstance(value, str) else None


def _vote(name: str, value: object) -> Vote:
    names = [field.name for field in fields(Vote)]
    whole = isinstance(value, dict) and set(value) == set(names) and isinstance(value["prior"], list)
    _require(whole, name, value, f"an object with {', '.join(names)}")
    assert isinstance(value, dict)
    return Vote(**value | {"prior": tuple(value["prior"])})


def _field_names() -> list[str]:
    """The fields of a decision that every file has under the same name."""
    return [field.name for field in fields(Decision) if field.name not in _OPTIONAL]


def _require(holds: bool, name: str, found: object, expected: str) -> None:
    if not holds:
        raise DecisionError(f"{name} cannot be used", found=str(found), expected=expected, remedy=_REMEDY)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and isfinite(value)


def _major(version: object) -> str:
    """The part of a version that changes when the meaning of a file's fields changes."""
    return str(version).partition(".")[0]
