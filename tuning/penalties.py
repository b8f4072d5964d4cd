"""The search over the six penalties of the coarse-fine loss, mu in [0, 1]^6.

The value of a trial is the best macro F1 over the 19 ratios m:n on validation, counted exactly, so the search has six
dimensions instead of eight. Penalties for another training are chosen by cross-entropy, as the macro F1 of whole
trainings ranks them differently for two seeds (`tests.benchmarks.faithful`). There are two fidelities: `heads` trains
only the classification heads, on the cached features of a run, many trials at once; `full` is a sweep of whole
trainings (`sweep`). No penalties, the default ones and six equal ones are trials of every study: a 2026 study found a
uniform cost as good as one by the circumplex.

Shapes: R recordings, C classes.
"""

import base64
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from optuna.distributions import FloatDistribution
from optuna.trial import FrozenTrial, Trial

from abaw_expr.data.store.store import Store
from abaw_expr.data.workers import OnProgress
from abaw_expr.files import digest, write_json
from abaw_expr.outputs.table import Outputs
from abaw_expr.settings import QUADRANT_PAIRS, LossSettings, Settings
from abaw_expr.settings_file import save_settings
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Counts
from abaw_expr.tasks.task import EXPR
from tuning.selection import nested_score, search
from tuning.space import RATIOS_ONLY
from tuning.study import SharedStudy, StudyOptions, TrialResult
from tuning.sweep import Sweep, TrialOfSweep, cross_entropy, run_sweep
from tuning.sweep_plots import DEFAULT, Axis, Point

if TYPE_CHECKING:
    from tuning.features import Features

Mu = tuple[float, ...]
"""Six penalties in the order of `QUADRANT_PAIRS`."""

MU_NAMES = tuple(f"mu{j}{k}" for j, k in QUADRANT_PAIRS)
SETTINGS = tuple(f"loss.{name}" for name in MU_NAMES)
SPACE = {name: FloatDistribution(0.0, 1.0) for name in MU_NAMES}
AXES = {name: Axis(f"µ{name.removeprefix('mu')}", distribution) for name, distribution in SPACE.items()}
"""How plots show them."""
SCORE = "macro F1, ratio tuned on these frames"
_DEFAULT = LossSettings().mu
CONTROLS: Mapping[str, Mu] = {
    "no penalty": (0.0,) * len(MU_NAMES),
    DEFAULT: _DEFAULT,
    "uniform": (float(np.mean(_DEFAULT)),) * len(MU_NAMES),
}
"""The first trials of every study; the uniform one is the mean of the default."""
_CONFUSIONS, _ENTROPY = "confusions", "cross_entropy"
_FORMAT = 2
"""The version of the attributes that a trial stores."""


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
    def points(self) -> list[Point]:
        """The trials that have a score, for plots."""
        scored = [(row, row.macro_f1) for row in self.rows if row.macro_f1 is not None]
        return [Point(row.name, dict(zip(MU_NAMES, row.mu, strict=True)), score) for row, score in scored]

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

    study = _study(features, options, trials)
    study.work(batch, evaluate, on_progress)
    return _search(study.done())


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

    It is a sweep of the six penalties, whose controls are never ended early. `on_progress(epochs done, in all)`.
    """
    top = _top(found, count)
    planned = [_values(mu) for mu in (*CONTROLS.values(), *(row.mu for row in top))]
    space = dict(zip(SETTINGS, SPACE.values(), strict=True))
    sweep = Sweep(settings, space, planned, len(CONTROLS) + count, "tuned", kept=len(CONTROLS))
    result = run_sweep(sweep, store, options, on_progress)
    named = dict(enumerate([*CONTROLS, *(row.name for row in top)]))
    rows = tuple(_row_of_sweep(named.get(trial.slot, f"trial {trial.slot}"), trial) for trial in result.trials)
    return PenaltySearch(rows, result.nested)


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


def _study(features: "Features", options: StudyOptions, total: int) -> SharedStudy:
    """The study of heads; its name has a hash of all that its scores depend on, so only equal searches share it."""
    planned = [*CONTROLS.values()]
    key = {**features.key, "planned": planned, "sampler": options.sampler, "seed": options.seed, "format": _FORMAT}
    parameters = [dict(zip(MU_NAMES, mu, strict=True)) for mu in planned]
    return SharedStudy(
        options.storage,
        f"heads-{digest(key)}",
        SPACE,
        total,
        parameters,
        options.sampler,
        options.seed,
        options.heartbeat,
    )


def _result(outputs: Outputs, settings: Settings) -> TrialResult:
    """The best ratio on these outputs, with its score, and their cross-entropy."""
    found = search(outputs, RATIOS_ONLY)  # counts [ratios, R, C, C]
    index = int(found.choose(found.scores))
    attributes = {
        "ratio": found.space.candidates()[index].weights,
        "nested": found.nested,
        _CONFUSIONS: _packed(found.counts),
        _ENTROPY: cross_entropy(outputs, settings.weights),
    }
    return TrialResult(float(found.scores[index]), attributes)


def _top(found: PenaltySearch | None, count: int) -> list[TrialRow]:
    """The best trials of a search without its controls."""
    rows = () if found is None else found.rows[len(CONTROLS) :]
    return sorted(rows, key=_entropy)[:count]


def _entropy(row: TrialRow) -> float:
    return np.inf if row.cross_entropy is None else row.cross_entropy


def _search(done: Mapping[int, FrozenTrial]) -> PenaltySearch:
    """The results of the trials of heads."""
    named = dict(enumerate(CONTROLS))
    rows = tuple(_row(named.get(slot, f"trial {slot}"), trial) for slot, trial in done.items())
    tensors = [_unpacked(trial.user_attrs[_CONFUSIONS]) for trial in done.values()]
    return PenaltySearch(rows, nested_score(np.concatenate(tensors), metric_of(EXPR)))


def _row(name: str, trial: FrozenTrial) -> TrialRow:
    ratio, nested, entropy = (trial.user_attrs[name] for name in ("ratio", "nested", _ENTROPY))
    return TrialRow(name, "heads", _mu(trial.params), trial.value, nested, tuple(ratio), entropy)


def _row_of_sweep(name: str, trial: TrialOfSweep) -> TrialRow:
    ratio, nested, entropy = (trial.found.get(key) for key in ("ratio", "nested", _ENTROPY))
    mu = tuple(trial.values[name] for name in SETTINGS)
    return TrialRow(name, "full", mu, trial.objective, nested, ratio and tuple(ratio), entropy)


def _values(mu: Mu) -> dict[str, float]:
    """The penalties by the names of their settings."""
    return dict(zip(SETTINGS, mu, strict=True))


def _mu(params: Mapping[str, float]) -> Mu:
    return tuple(params[name] for name in MU_NAMES)


def _packed(tensor: Counts) -> dict[str, Any]:
    """Counts as a compressed JSON value; most are 0, and the storage has one for each trial."""
    data = base64.b85encode(zlib.compress(tensor.astype("<i4").tobytes(), 9)).decode()
    return {"shape": tensor.shape, "data": data}


def _unpacked(value: Mapping[str, Any]) -> Counts:
    data = zlib.decompress(base64.b85decode(value["data"]))
    return np.frombuffer(data, "<i4").astype(np.int64).reshape(value["shape"])
