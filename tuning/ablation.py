"""The paper's ablation: the gain by attention and the coarse-fine loss, for images alone and with audio, with controls.

Every row is trained with the same seeds. Only the ratio m:n is chosen on validation (as in the paper; quote the nested
estimate instead): the weights are those of the last epoch, and nothing is smoothed or corrected.

Shapes: S seeds, R recordings, C classes.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from abaw_expr.outputs.table import read_outputs
from abaw_expr.settings import QUADRANT_PAIRS, Settings
from abaw_expr.settings_file import dump_settings, settings_from
from abaw_expr.tasks.metric_classes import macro_f1
from abaw_expr.tasks.statistics import Counts, bootstrap_difference, bootstrap_interval
from abaw_expr.tasks.task import Task
from tuning.jobs import Job
from tuning.selection import search
from tuning.space import RATIOS_ONLY, Space

Changes = Mapping[str, Mapping[str, Any]]
_VISUAL = ("visual",)
_NO_ATTENTION = {"attention": False}
_NO_MU = {f"mu{j}{k}": 0.0 for j, k in QUADRANT_PAIRS}


@dataclass(frozen=True)
class AblationRow:
    """One row of the table: its changes to the recipe, and the row that it is compared with."""

    name: str
    title: str
    modality: str
    changes: Changes
    against: str | None = None
    """The row that it is compared with."""
    paper: float | None = None
    """The published macro F1 on Aff-Wild2's validation set (arXiv 2503.11935, table 1)."""
    trained_as: str | None = None
    """The row whose networks it uses, with another decision; None: it trains its own."""
    space: Space = RATIOS_ONLY
    branches: tuple[str, ...] = ()
    """The branches that it trains; none: all of the recipe."""
    attention: str = ""
    """Attention of the visual encoder; empty: the recipe's."""
    join: str = ""
    """What joins the streams of all branches to a single one; empty: proportional fusion of their votes."""
    key_frames: bool = False
    """Whether key frames weigh the joined streams."""
    data: tuple[str, ...] = ()
    """What else it is trained on: names of `MORE_DATA`."""


MORE_DATA = ("others", "generated")
"""What rows can be trained on beside the store: other data sets, and generated clips."""
ABLATION_ROWS = (
    AblationRow("v-base", "base", "V", {"model": _NO_ATTENTION, "loss": _NO_MU}, None, 0.3189, branches=_VISUAL),
    AblationRow("v-gcsa", "base + GCSA", "V", {"loss": _NO_MU}, "v-base", 0.3353, branches=_VISUAL),
    AblationRow("v-full", "base + GCSA + coarse-fine", "V", {}, "v-gcsa", 0.3559, branches=_VISUAL),
    AblationRow("av-base", "base", "V + A", {"model": _NO_ATTENTION, "loss": _NO_MU}, None, 0.4262),
    AblationRow("av-gcsa", "base + GCSA", "V + A", {"loss": _NO_MU}, "av-base", 0.4592),
    AblationRow("av-full", "base + GCSA + coarse-fine", "V + A", {}, "av-gcsa", 0.4651),
    AblationRow("av-uniform", "control: one uniform mu", "V + A", {"loss": _NO_MU | {"every_error": 0.5}}, "av-full"),
    AblationRow("av-weighted", "control: class-weighted", "V + A", {"loss": _NO_MU | {"class_weight": 1.0}}, "av-full"),
    AblationRow("av-grouped", "control: GCSA in 4 groups", "V + A", {"model": {"attention_groups": 4}}, "av-full"),
    AblationRow(
        "av-equal",
        "control: fused 1:1",
        "V + A",
        {},
        "av-full",
        trained_as="av-full",
        space=replace(RATIOS_ONLY, weights=((1, 1),)),
    ),
    AblationRow("av-mecs", "MECS for GCSA on images", "V + A", {}, "av-full", attention="mecs"),
    AblationRow("av-dilated", "dilated for proportional fusion", "V + A", {}, "av-full", join="dilated"),
    AblationRow("av-mecs-dilated", "both", "V + A", {}, "av-full", attention="mecs", join="dilated"),
    AblationRow(
        "av-key-frames",
        "both, weighed by key frames",
        "V + A",
        {},
        "av-mecs-dilated",
        attention="mecs",
        join="dilated",
        key_frames=True,
    ),
    AblationRow("av-others", "+ other data sets", "V + A", {}, "av-full", data=("others",)),
    AblationRow("av-generated", "+ generated clips", "V + A", {}, "av-full", data=("generated",)),
    AblationRow("av-mixed", "+ both", "V + A", {}, "av-full", data=("others", "generated")),
    AblationRow("v-others", "+ other data sets", "V", {}, "v-full", branches=_VISUAL, data=("others",)),
    AblationRow("v-generated", "+ generated clips", "V", {}, "v-full", branches=_VISUAL, data=("generated",)),
    AblationRow("v-mixed", "+ both", "V", {}, "v-full", branches=_VISUAL, data=("others", "generated")),
)
"""The paper's six rows, the controls, the parts of its first version, and its mixture of data; its dilated fusion
weighs both modalities equally where nothing else is said. The uniform mu is the mean of the six."""
Data = Mapping[str, tuple[str, ...]]
"""The stores of each name of `MORE_DATA`, as STORE=FRACTION."""


def rows_with(data: Data) -> tuple[AblationRow, ...]:
    """The rows whose data are there."""
    return tuple(row for row in ABLATION_ROWS if all(data.get(name) for name in row.data))


def with_needed(names: Sequence[str]) -> tuple[AblationRow, ...]:
    """The rows of these names, those whose networks they use and those they are compared with, in the table's order.

    Rows that only stand for comparison are compared with none.
    """
    asked = [row for row in ABLATION_ROWS if row.name in names]
    needed = {*names, *(other for row in asked for other in (row.against, row.trained_as))}
    return tuple(row for row in ABLATION_ROWS if row.name in needed)


@dataclass(frozen=True)
class RowResult:
    """The scores of a row over its seeds."""

    row: AblationRow
    f1: tuple[float, ...]
    """Macro F1 of each seed, with the ratio m:n chosen on the same frames."""
    nested: float | None
    """Mean over seeds of the nested estimate."""
    interval: tuple[float, float]
    """95 % bootstrap interval over recordings of the mean over seeds."""
    difference: tuple[float, float, float] | None
    """The difference to the row it is compared with: mean, and 95 % interval of a paired bootstrap over recordings."""
    parameters: int
    seconds: float
    """Mean training time."""

    @property
    def mean(self) -> float:
        return float(np.mean(self.f1))

    @property
    def deviation(self) -> float | None:
        """Standard deviation over seeds; None for one seed."""
        return float(np.std(self.f1, ddof=1)) if len(self.f1) > 1 else None


def apply(row: AblationRow, base: Settings, seed: int) -> Settings:
    """The settings of a row: those of the recipe with the row's changes."""
    values = dump_settings(base.only(row.branches) if row.branches else base)
    for group, change in row.changes.items():
        values[group] |= change
    branches = values["branches"]
    if row.attention:
        branches["visual"]["attention"] = row.attention
    if row.join:
        streams = {
            name: {key: one[key] for key in ("encoder", "attention", "weights")} for name, one in branches.items()
        }
        values["branches"] = {"joint": {"streams": streams, "join": row.join, "key_frames": row.key_frames}}
    return settings_from(values | {"seed": seed})


def jobs_of(rows: Sequence[AblationRow], base: Settings, seeds: int, out: Path, data: Data | None = None) -> list[Job]:
    """The trainings of these rows, one for each seed; rows that use another row's networks have none."""
    return [job_of(row, base, seed, out, data) for seed in range(seeds) for row in rows if row.trained_as is None]


def job_of(row: AblationRow, base: Settings, seed: int, out: Path, data: Data | None = None) -> Job:
    """The training whose networks a row uses."""
    trained = row if row.trained_as is None else next(x for x in ABLATION_ROWS if x.name == row.trained_as)
    extras = tuple(store for name in trained.data for store in (data or {}).get(name, ()))
    return Job(f"{trained.name}-{seed}", apply(trained, base, seed), out / "runs", extras=extras)


def results(
    out: Path, base: Settings, rows: Sequence[AblationRow], seeds: int, task: Task, data: Data | None = None
) -> list[RowResult]:
    """The scores of every row, computed from the outputs of its runs."""
    chosen: dict[str, Counts] = {}
    table = []
    for row in rows:
        jobs = [job_of(row, base, seed, out, data) for seed in range(seeds)]
        searches = [search(read_outputs(job.outputs("val"), task), row.space) for job in jobs]
        chosen[row.name] = np.stack([one.counts[one.choose(one.scores)] for one in searches])  # [S, R, C, C]
        nested = [one.nested for one in searches]
        confusions = chosen[row.name]
        against = chosen.get(row.against or "")
        table.append(
            RowResult(
                row=row,
                f1=tuple(macro_f1(confusions.sum(axis=1)).tolist()),
                nested=None if None in nested else float(np.mean(np.array(nested, float))),
                interval=bootstrap_interval(confusions, macro_f1, seed=0),
                difference=None if against is None else bootstrap_difference(confusions, against, macro_f1, seed=0),
                parameters=_parameters(apply(row, base, 0)),
                seconds=float(np.mean([job.run.read_summary()["seconds"] for job in jobs])),
            )
        )
    return table


def _parameters(settings: Settings) -> int:
    from abaw_expr.models.describe import describe

    return sum(describe(settings)["parameters"].values())
