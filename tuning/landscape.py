"""What a page shows of a decision: the scores around it, its thresholds, and the members of its ensemble.

Shapes: R recordings, k branches, F fields with K tuning statistics each, C columns with H thresholds each.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from abaw_expr.data.workers import OnProgress
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.fusion import SMOOTHERS, WEIGHTS, reduced
from abaw_expr.outputs.style import branch_colours, branch_dashes, styled_series
from abaw_expr.outputs.table import Outputs
from abaw_expr.report.blocks import Block, Figure, Part, Table, Text
from abaw_expr.report.figures import Line, heat, lines
from abaw_expr.tasks.statistics import Statistics, bootstrap_interval
from tuning.selection import Search, search
from tuning.space import MEANS, MEDIANS, NO_SMOOTHING, Candidate, Smoothing, Space


def landscape_section(outputs: Outputs, decision: Decision, on_progress: OnProgress) -> Part:
    """How the score depends on weights, smoothing and thresholds, each with the others as decided.

    `on_progress` counts smoothings. Raises OutputsError as `search` does.
    """
    branches = {name: source for name, source in outputs.branches.items() if name in decision.branches}
    own, chosen = replace(outputs, branches=branches), _candidate(decision, [*branches])
    blocks: list[Block] = []
    title = f"{outputs.task.name.upper()}: fusion, smoothing{', thresholds' if decision.thresholds else ''}"
    if str(decision.refinement):
        blocks.append(Text(f"Without the decision's refinement ({decision.refinement})."))
    if chosen is None:
        return Part(title, [Text("The branches have different tau, which no search has: nothing to compare with.")])
    if len(branches) > 1:
        blocks.append(_weights(own, decision, chosen, on_progress))
    windows = _search(own, decision, chosen, [chosen.weights], _windows(chosen), on_progress)
    blocks.append(_smoothing(windows, chosen))
    blocks += _thresholds(windows, chosen, decision)
    return Part(title, blocks, f"Scores on the outputs of the page, {len(outputs.videos())} videos.")


def _candidate(decision: Decision, names: Sequence[str]) -> Candidate | None:
    """The decision as a point of the search; None where no search has it, as of three branches with different tau."""
    votes = [decision.branches[name] for name in names]
    window = Smoothing(float(decision.smoothing), decision.smoother) if decision.smoothing else NO_SMOOTHING
    used = {float(vote.tau) for vote in votes if vote.weight}
    if len(votes) > 2 and len(used) > 1:
        return None
    shared = used.pop() if len(votes) > 2 else None
    taus = [shared if shared is not None else float(vote.tau) if vote.weight else 0.0 for vote in votes]
    return Candidate(reduced([vote.weight for vote in votes]), window, tuple(taus))


def _windows(chosen: Candidate) -> tuple[Smoothing, ...]:
    return tuple(dict.fromkeys((NO_SMOOTHING, *MEANS, *MEDIANS, chosen.smoothing)))


def _search(
    outputs: Outputs,
    decision: Decision,
    chosen: Candidate,
    weights: Sequence[tuple[int, ...]],
    windows: Sequence[Smoothing],
    on_progress: OnProgress,
) -> Search:
    """The search over some weights and windows, with the prior correction as decided."""
    tau = tuple(sorted({0.0, *chosen.tau}))
    space = Space(len(chosen.weights), tuple(dict.fromkeys(weights)), tuple(windows), tau, decision.missing, zero=True)
    return search(outputs, space, on_progress=on_progress)


def _at(found: Search, chosen: Candidate, **change: Any) -> Statistics:
    """The tuning statistics of the chosen candidate with something changed, [R, F, K]."""
    wanted = replace(chosen, **change)
    if not found.metric.distribution or wanted.tau not in found.space.taus:
        wanted = replace(wanted, tau=(0.0,) * len(wanted.tau))  # a correction without effect is not searched
    return found.counts[found.space.candidates().index(wanted)]


def _score(found: Search, statistics: Statistics) -> float:
    return float(found.metric.tuned_score(statistics.sum(axis=0)))


def _weights(outputs: Outputs, decision: Decision, chosen: Candidate, on_progress: OnProgress) -> Figure:
    names = [*outputs.branches]
    if len(names) == 2:
        return _weight_map(outputs, decision, chosen, names, on_progress)
    return _weight_lines(outputs, decision, chosen, names, on_progress)


def _weight_map(
    outputs: Outputs, decision: Decision, chosen: Candidate, names: Sequence[str], on_progress: OnProgress
) -> Figure:
    """The score over both weights."""
    pairs = [[reduced((m, n)) for n in WEIGHTS] for m in WEIGHTS]
    every = [pair for row in pairs for pair in row]
    found = _search(outputs, decision, chosen, every, [chosen.smoothing], on_progress)
    cells = [[_score(found, _at(found, chosen, weights=pair)) for pair in row] for row in pairs]
    framed = [(m, n) for m, row in enumerate(pairs) for n, pair in enumerate(row) if pair == chosen.weights]
    labels = [str(weight) for weight in WEIGHTS]
    axes = f"weight of {names[1]}, n", f"weight of {names[0]}, m", found.metric.name
    return heat(f"{found.metric.title} over the weights", axes, labels, labels, cells, framed)


def _weight_lines(
    outputs: Outputs, decision: Decision, chosen: Candidate, names: Sequence[str], on_progress: OnProgress
) -> Figure:
    """The score over the weight of each branch, with the others as decided."""
    full = [decision.branches[name].weight for name in names]
    moved = {
        name: [[*full[:place], weight, *full[place + 1 :]] for weight in (0, *WEIGHTS)]
        for place, name in enumerate(names)
    }
    every = [reduced(weights) for own in moved.values() for weights in own if any(weights)]
    found = _search(outputs, decision, chosen, every, [chosen.smoothing], on_progress)
    colours, dashes = branch_colours(names), branch_dashes(names)
    drawn = [
        Line(
            f"{name}, decided {full[place]}",
            [0, *WEIGHTS],
            [
                _score(found, _at(found, chosen, weights=reduced(weights))) if any(weights) else None
                for weights in moved[name]
            ],
            colours[name],
            dashes[name],
            "circle",
        )
        for place, name in enumerate(names)
    ]
    axes = "weight of the branch", found.metric.name
    return lines(f"{found.metric.title} over the weight of each branch, the others as decided", axes, drawn)


def _smoothing(found: Search, chosen: Candidate) -> Figure:
    """The score over the width of the window, with its interval."""
    drawn = []
    for number, smoother in enumerate(SMOOTHERS):
        windows = sorted(one for one in found.space.smoothing if one.smoother == smoother or one == NO_SMOOTHING)
        counts = [_at(found, chosen, smoothing=window) for window in windows]
        ends: list[tuple[float, float]] = []
        if len(counts[0]) > 1:
            ends = [bootstrap_interval(one, found.metric.tuned_score, seed=0) for one in counts]
        seconds, scores = [one.seconds for one in windows], [_score(found, one) for one in counts]
        low, high = [low for low, _ in ends], [high for _, high in ends]
        drawn.append(
            Line(f"{smoother} of a window", seconds, scores, low=low, high=high, **styled_series(2 * number))
        )  # beside the colour of what was chosen
    title = f"{found.metric.title} over the smoothing, with the 95 % interval over recordings"
    axes = "window, s", found.metric.name
    return lines(title, axes, drawn, {f"decided: {chosen.smoothing.seconds:g} s": chosen.smoothing.seconds})


def _thresholds(found: Search, chosen: Candidate, decision: Decision) -> list[Block]:
    """The score of each unit over its threshold, for tasks that have any."""
    by_threshold = found.metric.by_threshold(_at(found, chosen).sum(axis=0))
    if by_threshold is None:
        return []
    cuts, scores = by_threshold
    names = list(found.task.columns)
    taken = decision.thresholds or (0.5,) * len(names)
    framed = [
        (len(names) - 1 - row, min(range(len(cuts)), key=lambda place: abs(cuts[place] - taken[row])))
        for row in range(len(names))
    ]
    axes = "threshold", "unit", found.metric.short.upper()
    columns = [f"{cut:.2f}" for cut in cuts]
    title = f"{found.metric.short.upper()} of each unit over its threshold"
    cells = scores[::-1].tolist()
    return [replace(heat(title, axes, columns, names[::-1], cells, framed, digits=2), wide=True)]


def members_section(decision: Decision, name: str) -> Part:
    """The branches of a decision, what each gives alone, and what is lost without it."""
    scores, estimate, metric = decision.scores or {}, decision.estimate or {}, decision.metric
    alone, without = _mapping(scores.get("alone")), _mapping(estimate.get("without"))
    runs, members = (_mapping((decision.outputs or {}).get(key)) for key in ("runs", "members"))
    rows = [
        (branch, vote.weight, alone.get(branch), without.get(branch), _origin(branch, runs, members))
        for branch, vote in decision.branches.items()
    ]
    columns = ("branch", "weight", f"{metric.name} alone", "nested without it", "run")
    table = Table("Branches that vote, with their weights", columns, rows)
    nested = f"nested_{metric.key}"
    steps = [("equal weights, nothing tuned", scores.get("equal")), ("tuned", scores.get(metric.key))]
    steps += [("tuned, frames with a crop", scores.get(f"{metric.key}_with_crop")), ("nested", estimate.get(nested))]
    steps += [(f"nested, refined by {kind}", value) for kind, value in _mapping(estimate.get("refinements")).items()]
    shown = [(title, value) for title, value in steps if value is not None]
    blocks: list[Block] = [Text(f"{name}: {decision}."), table]
    if shown:
        blocks.append(Table(f"{metric.title} when it was tuned", ("", metric.name), shown))
    if decision.thresholds is not None:
        pairs = [(unit, f"{cut:g}") for unit, cut in zip(decision.task.columns, decision.thresholds, strict=True)]
        blocks.append(Table("A unit is active from", ("unit", "probability"), pairs, folded=True))
    return Part(f"{decision.task.name.upper()}: members", blocks)


def _origin(branch: str, runs: Mapping[str, Any], members: Mapping[str, Any]) -> str:
    of = members.get(branch)
    return f"average of {len(of)} runs" if isinstance(of, list) else str(runs.get(branch, "-"))


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}
