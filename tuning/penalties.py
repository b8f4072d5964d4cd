"""The search over the six penalties of the coarse-fine loss, mu in [0, 1]^6.

What a trial is worth is the best macro F1 over the 19 ratios m:n on validation, counted exactly, so the search has six
dimensions and not eight. Penalties for another training are chosen by cross-entropy: by macro F1, whole trainings of
two seeds do not rank them alike (`tests.benchmarks.faithful`). Two fidelities: `heads` trains the classification heads
alone, on the cached features of a run, many trials at once; `full` trains whole networks, and ends those early that
fall behind (successive halving, Jamieson and Talwalkar, AISTATS 2016; asynchronous, Li et al., MLSys 2020). No
penalties, the default ones and six equal ones are trials of every study: a 2026 study found a uniform cost as good as
one by the circumplex.
"""

import base64
import csv
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import optuna
from optuna.distributions import FloatDistribution
from optuna.pruners import SuccessiveHalvingPruner
from optuna.trial import FrozenTrial, Trial, TrialState

from abaw_expr.data.store.store import Store
from abaw_expr.files import digest, write_json
from abaw_expr.outputs.fusion import fuse
from abaw_expr.outputs.table import Outputs
from abaw_expr.settings import QUADRANT_PAIRS, LossSettings, Settings, save_settings, signature
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.statistics import Counts
from abaw_expr.tasks.task import EXPR, Task
from tuning.selection import nested_figure, search
from tuning.space import RATIOS_ONLY
from tuning.study import SLOT, Result, SharedStudy

if TYPE_CHECKING:
    from abaw_expr.training.run import RunFolder
    from tuning.features import Features

Mu = tuple[float, ...]
"""Six penalties in the order of `QUADRANT_PAIRS`."""
Progress = Callable[[int, int], None]

NAMES = tuple(f"mu{j}{k}" for j, k in QUADRANT_PAIRS)
SPACE = {name: FloatDistribution(0.0, 1.0) for name in NAMES}
_DEFAULT = LossSettings().mu
CONTROLS: Mapping[str, Mu] = {
    "no penalty": (0.0,) * len(NAMES),
    "default": _DEFAULT,
    "uniform": (float(np.mean(_DEFAULT)),) * len(NAMES),
}
"""The first trials of every study; the uniform one is as large as the default is on average."""
_KEPT = 3
"""Of so many whole trainings, successive halving lets one go on at each rung."""
_CONFUSIONS, _ENTROPY = "confusions", "cross_entropy"
_FORMAT = 2
"""Of what a trial keeps."""


@dataclass(frozen=True)
class Shared:
    """Where a search lies, and how its workers work together."""

    out: Path
    """The folder of what is too large for the storage: features and runs."""
    storage: str
    """URL of the database."""
    sampler: str = "tpe"
    seed: int = 0
    heartbeat: int = 10
    """Seconds."""
    interval: float = 0.2
    """Seconds between the frames that networks see; 0: every frame."""
    accelerator: Literal["auto", "cpu", "cuda"] = "auto"


@dataclass(frozen=True)
class Row:
    """One trial that is done."""

    name: str
    fidelity: str
    mu: Mu
    macro_f1: float | None
    """With the ratio that is best on the same frames; None: pruned."""
    nested: float | None
    """Each recording decided by the ratio that the others choose."""
    ratio: tuple[int, ...] | None
    """m, n."""
    cross_entropy: float | None
    """Of the vote that the loss is computed on, without penalties, in nats a frame."""


@dataclass(frozen=True)
class Search:
    """What a study found. Its best is the best of many on the frames that chose it; `nested` is the honest figure."""

    rows: tuple[Row, ...]
    """In the order of slots: the controls first."""
    nested: float | None
    """Macro F1 where each recording is decided by the mu and the ratio that the others choose, over all trials."""

    @property
    def best(self) -> Row:
        """The highest; the first, so a control, of equals."""
        return max(self.rows, key=lambda row: -1.0 if row.macro_f1 is None else row.macro_f1)

    @property
    def surest(self) -> Row:
        """The lowest cross-entropy, by which penalties are chosen for another training; the first of equals."""
        return min(self.rows, key=_entropy)

    @property
    def controls(self) -> tuple[Row, ...]:
        return self.rows[: len(CONTROLS)]


def search_heads(
    features: "Features", settings: Settings, task: Task, shared: Shared, trials: int, batch: int, progress: Progress
) -> Search:
    """Searches with heads trained on the features of a run of these settings, `batch` trials at a time."""

    def evaluate(asked: Sequence[Trial]) -> list[Result]:
        mus = [_mu(trial.params) for trial in asked]
        found = outputs_of_heads(features, mus, settings, task, shared.seed)
        return [_result(outputs, settings.loss) for outputs in found]

    study = _study("heads", features.key, list(CONTROLS.values()), shared, trials)
    study.work(batch, evaluate, progress)
    return _search("heads", study.done())


def outputs_of_heads(
    features: "Features", mus: Sequence[Mu], settings: Settings, task: Task, seed: int
) -> Iterator[Outputs]:
    """Trains heads with each of these penalties, at once; what each says of the validation frames."""
    from tuning.heads import said_of_validation, train_heads

    heads = train_heads(features, mus, settings.loss, settings.optimiser.weight_decay, seed)
    yield from said_of_validation(features, heads, task)


def confirm(
    found: Search | None,
    store: Store,
    settings: Settings,
    task: Task,
    shared: Shared,
    count: int,
    progress: Progress,
) -> Search:
    """Trains whole networks: the controls, and `count` more, the best of the heads' search as far as that goes.

    Each is a run of its own under `runs`, with these settings but for the penalties, and is resumed where it stopped.
    A control is never ended early. Scored are the last weights, by one frame an interval (seconds), those between
    interpolated. `progress(steps done, steps in all)` is that of the run under way.
    """
    from abaw_expr.training.predict import predict, wanted_of_split
    from abaw_expr.training.run import RunFolder

    settings = replace(settings, compute=replace(settings.compute, accelerator=shared.accelerator))
    top, wanted = _top(found, count), wanted_of_split(store, "val")

    def evaluate(asked: Sequence[Trial]) -> list[Result]:
        (trial,) = asked
        mu = _mu(trial.params)
        run = RunFolder(shared.out / "runs" / digest(mu))
        try:
            _train(trial, run, store, replace(settings, loss=settings.loss.with_mu(mu)), task, progress)
        except optuna.TrialPruned:
            return [Result(None)]
        where = shared.interval, shared.accelerator
        outputs = predict(run, store, task, "val", wanted, *where, "last", lambda done, total: None)
        return [_result(outputs, settings.loss)]

    identity = {"run": signature(settings, store.digest), "interval": shared.interval}
    planned = [*CONTROLS.values(), *(row.mu for row in top)]
    epochs = settings.optimiser.epochs
    pruner = SuccessiveHalvingPruner(min_resource=max(epochs // _KEPT**2, 1), reduction_factor=_KEPT)
    study = _study("full", identity, planned, shared, len(CONTROLS) + count, pruner)
    study.work(1, evaluate)
    return _search("full", study.done(), [row.name for row in top])


def save_best(out: Path, settings: Settings, searches: Sequence[Search]) -> Row:
    """Writes best.yaml, settings for `train`, and best.json, all figures; returns the trial whose penalties they have.

    It is that of the last search with the lowest cross-entropy.
    """
    best = searches[-1].surest
    save_settings(replace(settings, loss=settings.loss.with_mu(best.mu)), out / "best.yaml")
    value = {
        "mu": dict(zip(NAMES, best.mu, strict=True)),
        "best": best.name,
        "fidelity": best.fidelity,
        "cross_entropy": best.cross_entropy,
        "macro_f1": best.macro_f1,
        "caveat": "figures of trials are on the validation frames that chose them; quote search_nested of the best F1",
        "search_nested": {search.best.fidelity: search.nested for search in searches},
        "trials": [asdict(row) for search in searches for row in search.rows],
    }
    write_json(out / "best.json", value)
    return best


def _study(
    fidelity: str,
    identity: Mapping[str, object],
    planned: Sequence[Mu],
    shared: Shared,
    total: int,
    pruner: SuccessiveHalvingPruner | None = None,
) -> SharedStudy:
    """The study of this name and of all that its figures depend on: workers of one search meet in it, others do not."""
    whole = {**identity, "planned": planned, "sampler": shared.sampler, "seed": shared.seed, "format": _FORMAT}
    name = f"{fidelity}-{digest(whole)}"
    parameters = [dict(zip(NAMES, mu, strict=True)) for mu in planned]
    return SharedStudy(
        shared.storage, name, SPACE, total, parameters, shared.sampler, shared.seed, shared.heartbeat, pruner
    )


def cross_entropy(outputs: Outputs, loss: LossSettings) -> float:
    """Mean cross-entropy of the annotated frames, in nats, of the vote that the loss is computed on, without penalties.

    A frame that lacks every modality has all classes alike.
    """
    weights = [{"audio": loss.m, "visual": loss.n}[name] for name in outputs.branches]
    label, p = outputs.label(), fuse([outputs.branch(name) for name in outputs.branches], weights)
    p[np.isnan(p[:, 0])] = 1 / p.shape[1]
    known = np.flatnonzero(label >= 0)
    return float(-np.log(p[known, label[known]].clip(np.finfo(np.float32).tiny)).mean(dtype=np.float64))


def _result(outputs: Outputs, loss: LossSettings) -> Result:
    """The best ratio on these outputs, exactly, and their cross-entropy."""
    found = search(outputs, RATIOS_ONLY)  # counts [ratios, R, C, C]
    place = int(found.choose(found.figures))
    attributes = {
        "ratio": found.space.candidates()[place].weights,
        "nested": found.nested,
        _CONFUSIONS: _packed(found.counts),
        _ENTROPY: cross_entropy(outputs, loss),
    }
    return Result(float(found.figures[place]), attributes)


def _train(trial: Trial, run: "RunFolder", store: Store, settings: Settings, task: Task, progress: Progress) -> None:
    """Trains a run, or what is left of it. Raises TrialPruned where it falls behind."""
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
    train(store, run, settings, task, True, lambda epoch: report(epoch.epoch, epoch.fused_f1), progress)


def _top(found: Search | None, count: int) -> list[Row]:
    """The best of a search beside its controls."""
    rows = () if found is None else found.rows[len(CONTROLS) :]
    return sorted(rows, key=_entropy)[:count]


def _entropy(row: Row) -> float:
    return np.inf if row.cross_entropy is None else row.cross_entropy


def _search(fidelity: str, done: Mapping[int, FrozenTrial], names: Sequence[str] = ()) -> Search:
    """What the trials of a study gave; `names` are those of the first slots after the controls."""
    named = dict(enumerate([*CONTROLS, *names]))
    rows = tuple(_row(named.get(slot, f"trial {slot}"), fidelity, trial) for slot, trial in done.items())
    tensors = [_unpacked(trial.user_attrs[_CONFUSIONS]) for trial in done.values() if _CONFUSIONS in trial.user_attrs]
    return Search(rows, nested_figure(np.concatenate(tensors), metric_of(EXPR)))


def _row(name: str, fidelity: str, trial: FrozenTrial) -> Row:
    pruned = trial.state == TrialState.PRUNED
    ratio, nested, entropy = (trial.user_attrs.get(name) for name in ("ratio", "nested", _ENTROPY))
    value = None if pruned else trial.value
    return Row(name, fidelity, _mu(trial.params), value, nested, ratio and tuple(ratio), entropy)


def _mu(params: Mapping[str, float]) -> Mu:
    return tuple(params[name] for name in NAMES)


def _packed(tensor: Counts) -> dict[str, Any]:
    """Counts as a JSON value; most are 0, and the storage keeps one of these for each trial."""
    data = base64.b85encode(zlib.compress(tensor.astype("<i4").tobytes(), 9)).decode()
    return {"shape": tensor.shape, "data": data}


def _unpacked(value: Mapping[str, Any]) -> Counts:
    data = zlib.decompress(base64.b85decode(value["data"]))
    return np.frombuffer(data, "<i4").astype(np.int64).reshape(value["shape"])
