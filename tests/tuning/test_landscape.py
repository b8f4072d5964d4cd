"""What a page shows around a decision is what the decision scores when it is changed."""

import json
from dataclasses import replace

import numpy as np
import pytest

from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.fusion import reduced
from abaw_expr.report.blocks import Figure, Part, Table
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, VA, Task
from tests.helpers.challenges import EVERY, make_table, make_video
from tests.test_challenges import names
from tuning.landscape import landscape_section, members_section
from tuning.selection import decide, search
from tuning.space import MEANS, NO_SMOOTHING, Space


def ignore(done: int, total: int) -> None:
    pass


def sources(figure: Figure) -> list[dict[str, list[float]]]:
    """The data of a figure's glyphs."""
    found: list[dict[str, list[float]]] = []

    def walk(value: object) -> None:
        if isinstance(value, dict):
            if value.get("name") == "ColumnDataSource":
                entries = value["attributes"]["data"]["entries"]
                found.append(dict(entries))
            for one in value.values():
                walk(one)
        elif isinstance(value, list):
            for one in value:
                walk(one)

    walk(figure.item)
    return found


def figures(section: Part) -> list[Figure]:
    return [block for block in section.blocks if isinstance(block, Figure)]


def tuned(task: Task, branches: tuple[str, ...] = ("audio", "visual")) -> tuple[Decision, object]:
    table = make_table(task, [make_video(task, name, 60, branches=branches) for name in "abc"])
    space = Space(len(branches), smoothing=(NO_SMOOTHING, MEANS[1]), zero=len(branches) > 2)
    return decide(table, search(table, space)), table


@pytest.mark.parametrize("task", EVERY, ids=names)
def test_the_map_of_weights_is_what_the_decision_scores(task: Task) -> None:
    decision, table = tuned(task)
    section = landscape_section(table, decision, ignore)  # type: ignore[arg-type]
    cells = next(data for data in sources(figures(section)[0]) if "value" in data)
    metric, videos = metric_of(task), table.videos()  # type: ignore[attr-defined]
    for m, n, value in zip(cells["y"], cells["x"], cells["value"], strict=True):
        weights = reduced((int(m), int(n)))
        votes = zip(decision.branches.items(), weights, strict=True)
        changed = replace(decision, branches={name: replace(vote, weight=weight) for (name, vote), weight in votes})
        statistics = [metric.tuning_counter(video.label)(changed.probabilities(video)[None])[0] for video in videos]
        assert value == pytest.approx(float(metric.tuned_score(np.sum(statistics, axis=0))), abs=1e-9), (m, n)


def test_three_branches_have_a_line_each() -> None:
    decision, table = tuned(VA, ("audio", "visual", "clip"))
    figure = figures(landscape_section(table, decision, ignore))[0]  # type: ignore[arg-type]
    assert [key.name.partition(",")[0] for key in figure.keys] == [*decision.branches]
    lines = [data for data in sources(figure) if "y" in data and len(data["x"]) == 6]
    at_decided = [data["y"][vote.weight] for data, vote in zip(lines, decision.branches.values(), strict=True)]
    score = (decision.scores or {})["mean_ccc"]
    assert at_decided == pytest.approx([score] * 3, abs=1e-6)


def test_the_thresholds_of_units_are_framed() -> None:
    decision, table = tuned(AU)
    figure = figures(landscape_section(table, decision, ignore))[-1]  # type: ignore[arg-type]
    cells = next(data for data in sources(figure) if "value" in data)
    framed = next(data for data in sources(figure) if "value" not in data and len(data.get("x", [])) == 12)
    best = {name: max(v for y, v in zip(cells["y"], cells["value"], strict=True) if y == name) for name in AU.columns}
    chosen = {(y, x): v for y, x, v in zip(cells["y"], cells["x"], cells["value"], strict=True)}
    assert {y: chosen[y, x] for y, x in zip(framed["y"], framed["x"], strict=True)} == pytest.approx(best)


def test_the_members_say_what_is_lost_without_them() -> None:
    decision, _ = tuned(AU)
    section = members_section(decision, "d.json")
    table = next(block for block in section.blocks if isinstance(block, Table))
    without = (decision.estimate or {})["without"]
    assert [(row[0], row[1], row[3]) for row in table.rows] == [
        (name, vote.weight, without.get(name)) for name, vote in decision.branches.items()
    ]
    assert json.dumps(str(decision))[1:-1] in json.dumps(section.blocks[0].text)  # type: ignore[union-attr]
