"""What a page shows of outputs is what `score` computes: metric, costs, confusion, and every frame of a timeline."""

from dataclasses import replace

import numpy as np
import pytest

from abaw_expr.outputs.decision import Decision, equal_weights
from abaw_expr.outputs.table import Outputs
from abaw_expr.report.packing import NO_CODE, Pack, codes
from abaw_expr.report.page import render
from abaw_expr.report.registry import KINDS, kind_of
from abaw_expr.report.result import task_sections
from abaw_expr.report.scored import Scored, column_intervals
from abaw_expr.report.stretches import MOST_STRETCHES, STRETCH_SECONDS, worst_stretches
from abaw_expr.report.timeline import POINTS, TICK
from abaw_expr.tasks.names import recording_of
from abaw_expr.tasks.registry import METRICS
from abaw_expr.tasks.statistics import is_annotated, with_crop
from abaw_expr.tasks.task import Task
from tests.helpers.challenges import EVERY, make_table, make_video
from tests.helpers.pages import PageData
from tests.test_challenges import names

LENGTHS = {"1-30-1280x720": 60, "v2_left": 2000, "v2_right": 40, "v3": 45}


def ignore(done: int, total: int) -> None:
    pass


@pytest.fixture(params=EVERY, ids=names, scope="module")
def scored(request: pytest.FixtureRequest) -> Scored:
    task: Task = request.param
    table = make_table(task, [make_video(task, name, length) for name, length in LENGTHS.items()])
    return Scored.of(table, equal_weights(table), None, ignore)


@pytest.fixture(scope="module")
def page(scored: Scored) -> PageData:
    pack = Pack()
    return PageData.of(render("Test", task_sections(scored, None, pack, ignore), pack))


def metric_without(scored: Scored, recording: str) -> float:
    """The metric of the table without a recording."""
    outputs = scored.outputs
    kept = outputs.table["video"].map(recording_of) != recording
    part = replace(outputs, table=outputs.table[kept].reset_index(drop=True))
    return metric_of_table(part, scored.decision)


def metric_of_table(outputs: Outputs, decision: Decision) -> float:
    report = decision.reports(outputs)["all annotated frames"]
    return float(vars(report)[decision.metric.key])


def test_every_kind_of_task_has_a_view() -> None:
    assert KINDS.keys() == METRICS.keys()


def test_the_headline_is_what_score_says(scored: Scored, page: PageData) -> None:
    reports = scored.decision.reports(scored.outputs)
    expected = vars(reports["all annotated frames"])
    assert page.facts()[f"{scored.metric.title} on these frames"] == f"{expected[scored.metric.key]:.4f}"
    assert page.facts()["Annotated frames"] == f"{expected['frames']:,}"
    for name, report in reports.items():
        assert scored.reports[name] == report


def test_frames_without_a_crop_are_the_others(scored: Scored) -> None:
    videos = scored.outputs.videos()
    table = scored.outputs.table.copy()
    labels = np.concatenate(
        [with_crop(v.label, ~v.crop, scored.outputs.task).reshape(len(v.frame), -1) for v in videos]
    )
    columns = [name for name in table if name.startswith("label")]
    table[columns] = labels
    expected = metric_of_table(replace(scored.outputs, table=table), scored.decision)
    assert vars(scored.reports["frames without a crop"])[scored.metric.key] == pytest.approx(expected, abs=1e-12)


def test_a_cost_is_the_metric_without_the_recording_minus_the_metric_with_it(scored: Scored) -> None:
    whole = metric_of_table(scored.outputs, scored.decision)
    assert {one.name for one in scored.costs} == {recording_of(name) for name in LENGTHS}
    for one in scored.costs:
        assert one.cost == pytest.approx(metric_without(scored, one.name) - whole, abs=1e-9), one.name
        assert {recording_of(scored.names[place]) for place in one.videos} == {one.name}
    costs = [one.cost for one in scored.costs]
    assert costs == sorted(costs, reverse=True)


def test_the_confusion_counts_every_annotated_frame(scored: Scored, page: PageData) -> None:
    kind, task = kind_of(scored.outputs.task), scored.outputs.task
    counts = sum(kind.confusion(kind.codes(one.video.label), kind.codes(one.decided)) for one in scored.videos)
    assert isinstance(counts, np.ndarray)
    annotated = np.concatenate([is_annotated(one.video.label, task) for one in scored.videos])
    assert counts.sum(axis=(1, 2)).tolist() == annotated.reshape(len(annotated), -1).sum(axis=0).tolist()
    if task.kind == "classes":
        assert (counts[0] == scored.statistics.sum(axis=0)).all()
    if task.kind == "units":
        assert (counts.reshape(-1, 4) == scored.statistics.sum(axis=0)).all()
    cells = page.text.count('aria-pressed="false"')
    assert cells == np.count_nonzero(counts)


def test_a_timeline_has_every_frame(scored: Scored, page: PageData) -> None:
    (explorer,) = page.data["explorers"]
    kind, task = scored.kind, scored.outputs.task
    fields = len(task.fields)
    for one, video in zip(scored.videos, explorer["videos"], strict=True):
        frames = one.video
        assert (video["name"], video["count"]) == (frames.name, len(frames.frame))
        assert np.cumsum(page.array(video["frames"])).tolist() == frames.frame.tolist()
        assert np.cumsum(page.array(video["ticks"])) * TICK == pytest.approx(frames.time, abs=TICK)
        assert page.array(video["crop"]).tolist() == frames.crop.tolist()
        truth, decided = (page.array(video[name]).reshape(fields, -1) for name in ("truth", "decided"))
        annotated = is_annotated(frames.label, task).reshape(-1, fields).T
        assert ((truth != NO_CODE) == annotated).all()
        for found, label in ((truth, frames.label), (decided, one.decided)):
            numbers = found / 254 * (kind.high - kind.low) + kind.low if task.kind == "values" else found
            label = label.reshape(-1, fields).T
            assert numbers[annotated] == pytest.approx(label[annotated], abs=(kind.high - kind.low) / 508 + 1e-6)
        step = video["step"]
        assert step == -(-video["count"] // POINTS)
        for branch, rows in {"fused": one.rows, **frames.p}.items():
            shown = page.array(video["p"][branch]).reshape(task.n_columns, -1).T
            expected = rows[::step]
            assert ((shown == NO_CODE) == np.isnan(expected)).all()
            values = shown / 254 * (kind.high - kind.low) + kind.low
            known = ~np.isnan(expected)
            assert values[known] == pytest.approx(expected[known], abs=(kind.high - kind.low) / 508 + 1e-6)
        has = page.array(video["has"]).reshape(len(frames.p), -1)
        assert (has == [~np.isnan(rows[:, 0]) for rows in frames.p.values()]).all()


def test_intervals_of_columns_hold_their_scores(scored: Scored) -> None:
    intervals = column_intervals(scored)
    values = scored.metric.by_column(scored.by_recording.sum(axis=0)).tolist()
    assert len(intervals) == scored.outputs.task.n_columns
    assert all(low <= value <= high for (low, high), value in zip(intervals, values, strict=True))


def test_equal_outputs_give_equal_pages(scored: Scored, page: PageData) -> None:
    pack = Pack()
    assert render("Test", task_sections(scored, None, pack, ignore), pack) == page.text


def test_a_stretch_says_what_is_wrong_in_it(scored: Scored) -> None:
    for one in scored.videos:
        errors = scored.kind.errors(one.video.label, one.decided)
        for found in worst_stretches(errors, one.video.time):
            rows = slice(found.first, found.last + 1)
            text = scored.kind.in_words(one.video.label[rows], one.decided[rows])
            assert text
            assert errors[found.first] > 0
            assert errors[found.last] > 0


def test_a_table_without_times_and_crops(scored: Scored) -> None:
    outputs = scored.outputs
    table = outputs.table.assign(time=0.0, crop=False)
    own = Scored.of(replace(outputs, table=table), scored.decision, None, ignore)
    pack = Pack()
    page = PageData.of(render("Test", task_sections(own, None, pack, ignore), pack))
    assert [*own.reports] == ["all annotated frames"]
    (first, *_) = page.data["explorers"][0]["videos"]
    assert first["count"] == LENGTHS["1-30-1280x720"]
    assert np.cumsum(page.array(first["ticks"]))[[0, 30]] * TICK == pytest.approx([0, 1])
    assert "Videos have no times: the page shows them at 30 frames a second." in page.text


# Stretches


def test_the_worst_stretches_do_not_overlap_and_are_the_worst() -> None:
    rng = np.random.default_rng(0)
    for _ in range(50):
        time = np.cumsum(rng.uniform(0.02, 0.3, 200))
        errors = rng.random(200) * (rng.random(200) < 0.2)
        found = worst_stretches(errors, time)
        assert 0 < len(found) <= MOST_STRETCHES
        taken = np.concatenate([np.arange(one.first, one.last + 1) for one in found])
        assert len(set(taken.tolist())) == len(taken)
        assert all(time[one.last] - time[one.first] < STRETCH_SECONDS for one in found)
        assert [one.error for one in found] == pytest.approx([errors[one.first : one.last + 1].sum() for one in found])
        windows = [errors[(time >= start) & (time < start + STRETCH_SECONDS)].sum() for start in time]
        assert found[0].error == pytest.approx(max(windows))


def test_a_video_without_an_error_has_no_stretch() -> None:
    assert worst_stretches(np.zeros(10), np.arange(10.0)) == []
    assert worst_stretches(np.zeros(0), np.zeros(0)) == []


# Packing


def test_codes_are_right_to_half_a_step() -> None:
    values = np.append(np.linspace(-1, 1, 1001), np.nan)
    found = codes(values, -1, 1)
    assert found[-1] == NO_CODE
    assert found[:-1] / 254 * 2 - 1 == pytest.approx(values[:-1], abs=1 / 254)
    assert found[:-1].max() == 254
