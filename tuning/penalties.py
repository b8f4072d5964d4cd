"""The search over the six penalties of the coarse-fine loss, mu in [0, 1]^6.

The value of a trial is the best macro F1 over the 19 ratios m:n on validation, counted exactly, so the search has six
dimensions instead of eight. Penalties for another training are chosen by cross-entropy, as the macro F1 of whole
trainings ranks them differently for two seeds (`tests.benchmarks.faithful`). There are two fidelities: `heads` trains
only the classification heads, on the cached features of a run, many trials at once; `full` trains whole networks, and
prunes trials with low scores (successive halving, Jamieson and Talwalkar, AISTATS 2016; asynchronous, Li et al., MLSys
2020). No penalties, the default ones and six equal ones are trials of every study: a 2026 study found a uniform cost as
good as one by the circumplex.

Shapes: R recordings, C classes.
"""

import base64
import csv
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from abaw_expr.data.store.store import Store
from abaw_expr.data.workers import OnProgress
from abaw_expr.files import digest, write_json
from abaw_expr.outputs.fusion import fuse
from abaw_expr.outputs.table import Outputs
from abaw_expr.settings import QUADRANT_PAIRS, LossSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Counts
from abaw_expr.tasks.task import EXPR
from tuning.selection import nested_score, search
from tuning.space import RATIOS_ONLY
from tuning.study import SLOT, SharedStudy, TrialResult

if TYPE_CHECKING:
    from abaw_expr.training.run import RunFolder
    from tuning.features import Features

Mu = tuple[float, ...]
"""Six penalties in the order of `QUADRANT_PAIRS`."""

MU_NAMES = tuple(f"mu{j}{k}" for j, k in QUADRANT_PAIRS)
SPACE = {name: FloatDistribution(0.0, 1.0) for name in MU_NAMES}
_DEFAULT = LossSettings().mu
CONTROLS: Mapping[str, Mu] = {
    "no penalty": (0.0,) * len(MU_NAMES),
    "default": _DEFAULT,
    "uniform": (float(np.mean(_DEFAULT)),) * len(MU_NAMES),
}
"""The first trials of every study; the uniform one is the mean of the default."""
_REDUCTION = 3
"""Successive halving continues one of this many whole trainings at each rung."""
_CONFUSIONS, _ENTROPY = "confusions", "cross_entropy"
_FORMAT = 2
"""The version of the attributes that a trial stores."""


@dataclass(frozen=True)
class StudyOptions:
    """The options of a search and the location of its files."""

    out: Path
    """The folder of features and runs, which are too large for the storage."""
    storage: str
    """URL of the database."""
    sampler: str = "tpe"
    seed: int = 0
    heartbeat: int = 10
    """Seconds."""
    stride: float = 0.2
    """Seconds between the frames that networks are run on; 0: every frame."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class TrialRow:
    """One finished trial."""

    name: str
    fidelity: str
    mu: Mu
    macro_f1: float | None
    """Macro F1 with the ratio that is best on the same frames; None: pruned."""
    nested: float | None
    """The nested estimate: each recording is decided by the ratio that is chosen on the others."""
    ratio: tuple[int, ...] | None
    """(m, n)"""
    cross_entropy: float | None
    """Of the fused probabilities that the loss is computed on, without penalties, in nats per frame."""


@dataclass(frozen=True)
class PenaltySearch:
    """The results of a study. The score of its best trial is biased, as it is chosen by it; `nested` is not."""

    rows: tuple[TrialRow, ...]
    """In the order of slots: the controls first."""
    nested: float | None
    """Macro F1 with each recording decided by the mu and the ratio that are chosen on the others, over all trials."""

    @property
    def best(self) -> TrialRow:
        """The trial with the highest macro F1; of equal ones the first, so rather a control."""
        return max(self.rows, key=lambda row: -1.0 if row.macro_f1 is None else row.macro_f1)

    @property
    def lowest_entropy(self) -> TrialRow:
        """The trial with the lowest cross-entropy, whose penalties are used for another training; of equal ones the
        first."""
        return min(self.rows, key=_entropy)

    @property
    def controls(self) -> tuple[TrialRow, ...]:
        return self.rows[: len(CONTROLS)]


def search_heads(
    features: "Features",
    settings: Settings,
    options: StudyOptions,
    trials: int,
    batch: int,
    on_progress: OnProgress,
) -> PenaltySearch:
    """Searches with heads trained on the features of a run with these settings, `batch` trials at a time."""

    def evaluate(asked: Sequence[Trial]) -> list[TrialResult]:
        mus = [_mu(trial.params) for trial in asked]
        found = outputs_of_heads(features, mus, settings, options.seed)
        return [_result(outputs, settings) for outputs in found]

    study = _study("heads", features.key, list(CONTROLS.values()), options, trials)
    study.work(batch, evaluate, on_progress)
    return _search("heads", study.done())


def outputs_of_heads(features: "Features", mus: Sequence[Mu], settings: Settings, seed: int) -> Iterator[Outputs]:
    """Trains heads with each of these penalties, at once, and yields the validation outputs of each."""
    from tuning.heads import train_heads, validation_outputs

    heads = train_heads(features, mus, settings, seed)
    yield from validation_outputs(features, heads, settings.task_of)


def search_networks(
    found: PenaltySearch | None,
    store: Store,
    settings: Settings,
    options: StudyOptions,
    count: int,
    on_progress: OnProgress,
) -> PenaltySearch:
    """Trains whole networks: the controls, and `count` more, first those with the lowest cross-entropy in `found`.

    Each is a run under `runs`, with these settings except for the penalties, and is resumed if it was interrupted.
    Controls are never pruned. The last weights are scored on one frame every `stride` seconds, with the outputs between
    these interpolated. `on_progress(steps done, total steps)` is that of the current run.
    """
    from abaw_expr.training.predict import predict, wanted_of_split
    from abaw_expr.training.run import RunFolder

    settings = replace(settings, compute=replace(settings.compute, accelerator=options.accelerator))
    top, wanted = _top(found, count), wanted_of_split(store, "val")

    def evaluate(asked: Sequence[Trial]) -> list[TrialResult]:
        (trial,) = asked
        mu = _mu(trial.params)
        run = RunFolder(options.out / "runs" / digest(mu))
        try:
            _train(trial, run, store, replace(settings, loss=settings.loss.with_mu(mu)), on_progress)
        except optuna.TrialPruned:
            return [TrialResult(None)]
        outputs = predict(run, store, "val", wanted, options.stride, options.accelerator, "last")
        return [_result(outputs, settings)]

    from abaw_expr.training.signature import signature

    identity = {"run": signature(settings, store.digest), "interval": options.stride}
    planned = [*CONTROLS.values(), *(row.mu for row in top)]
    epochs = settings.optimiser.epochs
    pruner = SuccessiveHalvingPruner(min_resource=max(epochs // _REDUCTION**2, 1), reduction_factor=_REDUCTION)
    study = _study("full", identity, planned, options, len(CONTROLS) + count, pruner)
    study.work(1, evaluate)
    return _search("full", study.done(), [row.name for row in top])


def save_best(out: Path, settings: Settings, searches: Sequence[PenaltySearch]) -> TrialRow:
    """Writes best.yaml, settings for `train`, and best.json, all scores; returns the trial with the best penalties.

    It is the trial of the last search with the lowest cross-entropy.
    """
    best = searches[-1].lowest_entropy
    save_settings(replace(settings, loss=settings.loss.with_mu(best.mu)), out / "best.yaml")
    value = {
        "mu": dict(zip(MU_NAMES, best.mu, strict=True)),
        "best": best.name,
        "fidelity": best.fidelity,
        "cross_entropy": best.cross_entropy,
        "macro_f1": best.macro_f1,
        "caveat": "scores of trials are on the validation frames that chose them; quote search_nested of the best F1",
        "search_nested": {search.best.fidelity: search.nested for search in searches},
        "trials": [asdict(row) for search in searches for row in search.rows],
    }
    write_json(out / "best.json", value)
    return best


def _study(
    fidelity: str,
    identity: Mapping[str, object],
    planned: Sequence[Mu],
    options: StudyOptions,
    total: int,
    pruner: SuccessiveHalvingPruner | None = None,
) -> SharedStudy:
    """The study of a search; its name has a hash of all that its scores depend on, so only equal searches share it."""
    key = {**identity, "planned": planned, "sampler": options.sampler, "seed": options.seed, "format": _FORMAT}
    name = f"{fidelity}-{digest(key)}"
    parameters = [dict(zip(MU_NAMES, mu, strict=True)) for mu in planned]
    return SharedStudy(
        options.storage, name, SPACE, total, parameters, options.sampler, options.seed, options.heartbeat, pruner
    )


def validation_cross_entropy(outputs: Outputs, weights: Mapping[str, int]) -> float:
    """Mean cross-entropy in nats of the fused probabilities on the annotated frames, as in the loss without penalties.

    A frame that lacks every modality has uniform probabilities.
    """
    fused = fuse([outputs.branch(name) for name in outputs.branches], [weights[name] for name in outputs.branches])
    label, p = outputs.label(), fused
    p[np.isnan(p[:, 0])] = 1 / p.shape[1]
    known = np.flatnonzero(label >= 0)
    return float(-np.log(p[known, label[known]].clip(np.finfo(np.float32).tiny)).mean(dtype=np.float64))


def _result(outputs: Outputs, settings: Settings) -> TrialResult:
    """The best ratio on these outputs, with its score, and their cross-entropy."""
    found = search(outputs, RATIOS_ONLY)  # counts [ratios, R, C, C]
    index = int(found.choose(found.scores))
    attributes = {
        "ratio": found.space.candidates()[index].weights,
        "nested": found.nested,
        _CONFUSIONS: _packed(found.counts),
        _ENTROPY: validation_cross_entropy(outputs, settings.weights),
    }
    return TrialResult(float(found.scores[index]), attributes)


def _train(trial: Trial, run: "RunFolder", store: Store, settings: Settings, on_progress: OnProgress) -> None:
    """Trains a run, or resumes it. Raises TrialPruned where the pruner ends it."""
    from abaw_expr.training.loop import train

    control = trial.user_attrs[SLOT] < len(CONTROLS)

    def report(epoch: int, f1: float) -> None:
        trial.report(f1, epoch)
        if trial.should_prune() and not control:
            raise optuna.TrialPruned

    if run.metrics.exists():
        with open(run.metrics) as file:
            for row in csv.DictReader(file):
                report(int(row["epoch"]), float(row["fused_f1"]))
    train(store, run, settings, True, lambda epoch: report(epoch.epoch, epoch.score), on_progress)


def _top(found: PenaltySearch | None, count: int) -> list[TrialRow]:
    """The best trials of a search without its controls."""
    rows = () if found is None else found.rows[len(CONTROLS) :]
    return sorted(rows, key=_entropy)[:count]


def _entropy(row: TrialRow) -> float:
    return np.inf if row.cross_entropy is None else row.cross_entropy


def _search(fidelity: str, done: Mapping[int, FrozenTrial], names: Sequence[str] = ()) -> PenaltySearch:
    """The results of the trials of a study; `names` are those of the first slots after the controls."""
    named = dict(enumerate([*CONTROLS, *names]))
    rows = tuple(_row(named.get(slot, f"trial {slot}"), fidelity, trial) for slot, trial in done.items())
    tensors = [_unpacked(trial.user_attrs[_CONFUSIONS]) for trial in done.values() if _CONFUSIONS in trial.user_attrs]
    return PenaltySearch(rows, nested_score(np.concatenate(tensors), metric_of(EXPR)))


def _row(name: str, fidelity: str, trial: FrozenTrial) -> TrialRow:
    pruned = trial.state == TrialState.PRUNED
    ratio, nested, entropy = (trial.user_attrs.get(name) for name in ("ratio", "nested", _ENTROPY))
    value = None if pruned else trial.value
    return TrialRow(name, fidelity, _mu(trial.params), value, nested, ratio and tuple(ratio), entropy)


def _mu(params: Mapping[str, float]) -> Mu:
    return tuple(params[name] for name in MU_NAMES)


def _packed(tensor: Counts) -> dict[str, Any]:
    """Counts as a compressed JSON value; most are 0, and the storage has one for each trial."""
    data = base64.b85encode(zlib.compress(tensor.astype("<i4").tobytes(), 9)).decode()
    return {"shape": tensor.shape, "data": data}


def _unpacked(value: Mapping[str, Any]) -> Counts:
    data = zlib.decompress(base64.b85decode(value["data"]))
    return np.frombuffer(data, "<i4").astype(np.int64).reshape(value["shape"])
