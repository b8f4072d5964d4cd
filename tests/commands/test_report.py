"""`report` on the command line: each part where its input is, the numbers of `score`, and bad inputs."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from abaw_expr.commands.main import main
from abaw_expr.outputs.decision import Decision
from abaw_expr.outputs.table import Outputs, write_outputs
from abaw_expr.tasks.registry import metric_of
from abaw_expr.tasks.task import AU, EXPR, VA, Task
from submissions import ledger as book
from tests.helpers.challenges import EVERY, make_table, make_video
from tests.helpers.pages import PageData, browser, draw_everything, overflow, shown
from tests.test_challenges import names
from tests.training.test_runs import make_run
from tests.tuning.test_sweep_section import sweep  # noqa: F401

VIDEOS = {"1-30-1280x720": 60, "v2_left": 50, "v2_right": 40, "v3": 45}


def call(*words: object) -> int:
    return main([str(word) for word in words])


def write(folder: Path, task: Task) -> Path:
    table: Outputs = make_table(task, [make_video(task, name, length) for name, length in VIDEOS.items()])
    write_outputs(folder / f"{task.name}.parquet", table)
    return folder / f"{task.name}.parquet"


def ledger_with(path: Path, name: str) -> Path:
    """A ledger of two attempts, of which one has an official score."""
    for number, note in enumerate((name, "second")):
        entry = book.Entry("expr", "p.txt", f"{number:064x}", True, note, {}, {}, 0.5, 0.4 + 0.01 * number)
        book.add(path, entry, 10)
    book.score(path, 1, 0.35)
    return path


@pytest.mark.parametrize("task", EVERY, ids=names)
def test_the_numbers_are_those_of_score_and_tune(
    task: Task, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    outputs, decision, out = write(tmp_path, task), tmp_path / "d.json", tmp_path / "page.html"
    assert call("tune", outputs, "--out", decision) == 0
    assert call("score", outputs, "--decision", decision, "--out", tmp_path / "s.json") == 0
    capsys.readouterr()
    assert call("report", outputs, "--decision", decision, "--out", out) == 0
    assert f"{out}: 4 parts, " in capsys.readouterr().out
    page, metric = PageData.read(out), metric_of(task)
    scores = json.loads((tmp_path / "s.json").read_text())
    estimate = Decision.load(decision, task).estimate or {}
    facts = page.facts()
    assert facts[f"{metric.title} on these frames"] == f"{scores['all annotated frames'][metric.key]:.4f}"
    assert facts["Nested estimate: quote this one"] == f"{estimate[f'nested_{metric.key}']:.4f}"
    assert f"<bdi>{scores['frames with a crop'][metric.key]:.4f}</bdi>" in page.text
    assert out.stat().st_size < 1e6


def test_several_tasks_have_parts_of_their_own(tmp_path: Path) -> None:
    tables = [write(tmp_path, task) for task in (EXPR, VA, AU)]
    assert call("report", *tables, "--out", tmp_path / "page.html") == 0
    headings = PageData.read(tmp_path / "page.html").headings()
    assert [name.partition(":")[0] for name in headings] == [name for name in ("EXPR", "VA", "AU") for _ in range(3)]


def test_parts_without_outputs(
    tmp_path: Path,
    store: Path,
    sweep: Path,  # noqa: F811
    capsys: pytest.CaptureFixture[str],
) -> None:
    make_run(tmp_path / "runs/first")
    ledger = ledger_with(tmp_path / "ledger.db", "first")
    out = tmp_path / "page.html"
    more = ["--store", store, "--runs", tmp_path / "runs", "--sweep", sweep, "--ledger", ledger]
    assert call("report", *more, "--out", out, "--title", "All of it") == 0
    page = PageData.read(out)
    assert page.headings() == [
        "EXPR: runs and learning curves",
        f"Sweep: {sweep.name}",
        "Submissions: expr, edition 10",
        f"Store: {store.name}",
    ]
    assert "<h1><bdi>All of it</bdi></h1>" in page.text
    assert len(page.data["figures"]) == 4


def test_a_decision_alone(tmp_path: Path) -> None:
    outputs = write(tmp_path, AU)
    assert call("tune", outputs, "--out", tmp_path / "d.json") == 0
    assert call("report", "--decision", tmp_path / "d.json", "--out", tmp_path / "page.html") == 0
    assert PageData.read(tmp_path / "page.html").headings() == ["AU: members"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "report needs something to show; expected --outputs, "),
        (["{folder}/absent.parquet"], "absent.parquet: cannot be read"),
        (["--runs", "{folder}/absent"], "absent: is not a folder"),
        (["--sweep", "{folder}"], "table.csv: cannot be read"),
        (["--folds", "{folder}"], "table.csv: cannot be read"),
        (["--ledger", "{folder}/ledger.db"], "ledger.db: does not exist"),
        (["--store", "{folder}"], "is not a store"),
        (["--decision", "{folder}/d.json"], "d.json: cannot be read"),
        (["{folder}/expr.parquet", "--title", " "], "--title cannot be used"),
    ],
)
def test_what_cannot_be_used_is_one_line(
    words: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path, EXPR)
    assert call("report", *(word.format(folder=tmp_path) for word in words), "--out", tmp_path / "page.html") == 2
    text = capsys.readouterr().err
    assert message in text
    assert text.count("\n") == 1
    assert not (tmp_path / "page.html").exists()


def test_outputs_without_annotations_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table = make_table(EXPR, [make_video(EXPR, "v", 20)])
    table.table["label"] = table.table["label"] * 0 - 1
    write_outputs(tmp_path / "test.parquet", table)
    assert call("report", tmp_path / "test.parquet", "--out", tmp_path / "page.html") == 2
    assert "test.parquet: has no annotated frame, so there is nothing to score" in capsys.readouterr().err


def test_an_input_is_not_written_over(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = write(tmp_path, EXPR)
    assert call("report", outputs, "--out", outputs) == 2
    assert "is read by this command and cannot be its --out" in capsys.readouterr().err


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.slow
def test_every_part_in_a_browser(
    tmp_path: Path,
    store: Path,
    sweep: Path,  # noqa: F811
    chromium: Browser,
) -> None:
    odd = "<script>window.ran=1\nx" + "n" * 200
    for name in ("first", "x<" / Path("script><script>window.ran=1<")):
        make_run(tmp_path / "runs" / name)
    ledger = ledger_with(tmp_path / "ledger.db", odd)
    outputs, decision, out = write(tmp_path, AU), tmp_path / "d.json", tmp_path / "page.html"
    assert call("tune", outputs, "--out", decision) == 0
    more = ["--store", store, "--runs", tmp_path / "runs", "--sweep", sweep, "--ledger", ledger]
    assert call("report", outputs, "--decision", decision, *more, "--out", out) == 0
    with shown(chromium, out) as page:
        draw_everything(page)
        figures = page.locator("[data-figure]")
        assert figures.count() == 10
        for number in range(figures.count()):
            assert figures.nth(number).locator("canvas").count() > 0, number
        assert page.evaluate("window.ran") is None
        assert page.get_by_text(odd.replace("\n", " ")).count() == 1
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)
            assert overflow(page) == [], width
