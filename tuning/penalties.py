"""The search over the six penalties of the coarse-fine loss, mu in [0, 1]^6.

A trial's macro F1 is that of the best of the 19 ratios m:n on validation, counted exactly, so the search has six
dimensions and not eight. Three fidelities: `heads` trains the classification heads alone, on the cached features of a
run, many trials at once; `further` and `full` train networks (`tuning.trainings`). No penalties, the default ones and
six equal ones are trials of every study: a 2026 study found a uniform cost as good as one by the circumplex.
"""

import base64
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import FloatDistribution
from optuna.pruners import BasePruner
from optuna.trial import FrozenTrial, Trial, TrialState

from abaw_expr.files import digest, write_json
from abaw_expr.fusion import fuse
from abaw_expr.kinds import kind_of
from abaw_expr.outputs import Outputs
from abaw_expr.scoring import Counts, sum_recordings
from abaw_expr.settings import QUADRANT_PAIRS, LossSettings, Settings, save_settings
from abaw_expr.tasks import EXPR, Task
from tuning.selection import Choose, highest, nested_figure, search
from tuning.space import RATIOS_ONLY
from tuning.study import Result, SharedStudy

if TYPE_CHECKING:
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
FURTHER = "further"
"""The fidelity whose trials are judged by cross-entropy, which tells penalties apart where macro F1 tells seeds."""
_FORMAT = 2
"""Of what a trial keeps."""
_F1, _NESTED, _RATIO, _CONFUSIONS, _LOSSES = "macro_f1", "nested", "ratio", "confusions", "losses"


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
    """Of the vote that the networks are trained through, in nats a frame, without penalties."""

    @property
    def worth(self) -> float:
        """What its fidelity judges it by, the higher the better."""
        if self.macro_f1 is None or self.cross_entropy is None:
            return -np.inf
        return -self.cross_entropy if self.fidelity == FURTHER else self.macro_f1


@dataclass(frozen=True)
class Search:
    """What a study found. Its best is the best of many on the frames that chose it; `nested` is the honest figure."""

    rows: tuple[Row, ...]
    """In the order of slots: the controls first."""
    nested: float | None
    """Macro F1 where each recording is decided by the mu and the ratio that the others choose, over all trials."""

    @property
    def best(self) -> Row:
        """The first, so a control, of equals."""
        return max(self.rows, key=lambda row: row.worth)

    @property
    def controls(self) -> tuple[Row, ...]:
        return self.rows[: len(CONTROLS)]


def search_heads(
    features: "Features", settings: Settings, task: Task, shared: Shared, trials: int, batch: int, progress: Progress
) -> Search:
    """Searches with heads trained on the features of a run of these settings, `batch` trials at a time."""

    def evaluate(asked: Sequence[Trial]) -> list[Result]:
        mus = [mu_of(trial.params) for trial in asked]
        found = outputs_of_heads(features, mus, settings, task, shared.seed)
        return [result_of("heads", outputs, settings.loss) for outputs in found]

    study = study_of("heads", features.key, list(CONTROLS.values()), shared, trials)
    study.work(batch, evaluate, progress)
    return search_of("heads", study.done())


def outputs_of_heads(
    features: "Features", mus: Sequence[Mu], settings: Settings, task: Task, seed: int
) -> Iterator[Outputs]:
    """Trains heads with each of these penalties, at once; what each says of the validation frames."""
    from tuning.heads import said_of_validation, train_heads

    heads = train_heads(features, mus, settings.loss, settings.optimiser.weight_decay, seed)
    yield from said_of_validation(features, heads, task)


def save_best(out: Path, settings: Settings, searches: Sequence[Search]) -> Row:
    """Writes best.yaml, settings for `train`, and best.json, all figures; returns the best trial of the last search."""
    best = searches[-1].best
    save_settings(replace(settings, loss=settings.loss.with_mu(best.mu)), out / "best.yaml")
    value = {
        "mu": dict(zip(NAMES, best.mu, strict=True)),
        "best": best.name,
        "fidelity": best.fidelity,
        "macro_f1": best.macro_f1,
        "caveat": "macro_f1 is the best of all trials on the validation frames that chose it; quote search_nested",
        "search_nested": {search.best.fidelity: search.nested for search in searches},
        "trials": [asdict(row) for search in searches for row in search.rows],
    }
    write_json(out / "best.json", value)
    return best


def study_of(
    fidelity: str,
    identity: Mapping[str, object],
    planned: Sequence[Mu],
    shared: Shared,
    total: int,
    pruner: BasePruner | None = None,
) -> SharedStudy:
    """The study of this name and of all that its figures depend on: workers of one search meet in it, others do not."""
    whole = {**identity, "planned": planned, "sampler": shared.sampler, "seed": shared.seed, "format": _FORMAT}
    name = f"{fidelity}-{digest(whole)}"
    parameters = [dict(zip(NAMES, mu, strict=True)) for mu in planned]
    return SharedStudy(
        shared.storage, name, SPACE, total, parameters, shared.sampler, shared.seed, shared.heartbeat, pruner
    )


def result_of(fidelity: str, outputs: Outputs, loss: LossSettings) -> Result:
    """What a trial is told to be worth: the best ratio on these outputs, exactly, and the cross-entropy."""
    found = search(outputs, RATIOS_ONLY)  # counts [ratios, R, C, C]
    place, losses = int(found.choose(found.figures)), cross_entropies(outputs, loss)
    f1, total = float(found.figures[place]), losses.sum(axis=0)
    attributes = {
        _F1: f1,
        _RATIO: found.space.candidates()[place].weights,
        _NESTED: found.nested,
        _CONFUSIONS: _packed(found.counts),
        _LOSSES: losses.tolist(),
    }
    return Result(-float(total[0] / total[1]) if fidelity == FURTHER else f1, attributes)


def cross_entropies(outputs: Outputs, loss: LossSettings) -> NDArray[np.float64]:
    """Sum of the cross-entropies of a recording's frames, in nats, and how many are annotated, [R, 2].

    Of the vote that the loss is computed on, without its penalties. A frame that lacks every modality has all classes
    alike.
    """
    weights = [{"audio": loss.m, "visual": loss.n}[name] for name in outputs.branches]
    sums, videos = [], outputs.videos()
    for video in videos:
        p = fuse([*video.p.values()], weights)
        p[np.isnan(p[:, 0])] = 1 / p.shape[1]
        known = np.flatnonzero(video.label >= 0)
        true = p[known, video.label[known]].astype(np.float64)
        sums.append([[-np.log(true.clip(np.finfo(np.float32).tiny)).sum(), len(known)]])
    return sum_recordings([video.name for video in videos], np.array(sums))[:, 0]


def search_of(fidelity: str, done: Mapping[int, FrozenTrial], names: Sequence[str] = ()) -> Search:
    """What the trials of a study gave; `names` are those of the first slots after the controls."""
    named = dict(enumerate([*CONTROLS, *names]))
    rows = tuple(_row(named.get(slot, f"trial {slot}"), fidelity, trial) for slot, trial in done.items())
    whole = [trial.user_attrs for trial in done.values() if _CONFUSIONS in trial.user_attrs]
    counts = np.array([_unpacked(values[_CONFUSIONS]) for values in whole])  # [trials, ratios, R, C, C]
    losses = np.array([values[_LOSSES] for values in whole])  # [trials, R, 2]
    choose = _by_cross_entropy(losses) if fidelity == FURTHER else highest
    return Search(rows, nested_figure(counts.reshape(-1, *counts.shape[2:]), kind_of(EXPR), choose))


def _by_cross_entropy(losses: NDArray[np.float64]) -> Choose:
    """Chooses the trial whose cross-entropy on the other recordings is lowest, then its ratio, of [trials, R, 2]."""
    rest = losses.sum(axis=1)[:, None] - losses
    trial = (rest[..., 0] / rest[..., 1]).argmin(axis=0)  # [R]

    def choose(figures: NDArray[np.float64]) -> NDArray[np.intp]:
        of_trials = figures.reshape(len(losses), -1, len(trial))  # [trials, ratios, R]
        ratios = of_trials.shape[1]
        return trial * ratios + of_trials[trial, :, np.arange(len(trial))].argmax(axis=1)

    return choose


def mu_of(params: Mapping[str, float]) -> Mu:
    """The penalties among a trial's parameters."""
    return tuple(params[name] for name in NAMES)


def _row(name: str, fidelity: str, trial: FrozenTrial) -> Row:
    values = trial.user_attrs
    if trial.state == TrialState.PRUNED:
        return Row(name, fidelity, mu_of(trial.params), None, None, None, None)
    total, frames = np.sum(values[_LOSSES], axis=0)
    ratio = tuple(values[_RATIO])
    return Row(name, fidelity, mu_of(trial.params), values[_F1], values[_NESTED], ratio, float(total / frames))


def _packed(tensor: Counts) -> dict[str, Any]:
    """Counts as a JSON value; most are 0, and the storage keeps one of these for each trial."""
    data = base64.b85encode(zlib.compress(tensor.astype("<i4").tobytes(), 9)).decode()
    return {"shape": tensor.shape, "data": data}


def _unpacked(value: Mapping[str, Any]) -> Counts:
    data = zlib.decompress(base64.b85decode(value["data"]))
    return np.frombuffer(data, "<i4").astype(np.int64).reshape(value["shape"])
