"""Pages in a real Chromium: no error, every part there, cells filter, timelines tell the frame, nothing overflows."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Browser, Page

from abaw_expr.outputs.decision import equal_weights
from abaw_expr.report.media import Media
from abaw_expr.report.packing import Pack
from abaw_expr.report.page import write_page
from abaw_expr.report.result import task_sections
from abaw_expr.report.scored import Scored
from abaw_expr.tasks.task import EXPR, Task
from tests.helpers.challenges import EVERY, make_table, make_video
from tests.helpers.pages import browser, draw_everything, overflow, shown
from tests.report.test_page import ODD
from tests.test_challenges import names

pytestmark = pytest.mark.slow  # a real browser

LENGTHS = {"1-30-1280x720": 300, "v2_left": 200, "v2_right": 100, "v3": 150}


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


def scored_of(task: Task, lengths: dict[str, int]) -> Scored:
    table = make_table(task, [make_video(task, name, length) for name, length in lengths.items()])
    return Scored.of(table, equal_weights(table), None, lambda done, total: None)


def write(folder: Path, scored: Scored, title: str = "Report") -> Path:
    pack = Pack()
    sections = task_sections(scored, Media({}), pack, lambda done, total: None)
    write_page(folder / "page.html", title, sections, pack)
    return folder / "page.html"


@pytest.fixture(scope="module")
def expressions(tmp_path_factory: pytest.TempPathFactory) -> tuple[Scored, Path]:
    scored = scored_of(EXPR, LENGTHS)
    return scored, write(tmp_path_factory.mktemp("page"), scored)


WIDTHS = (1280, 400)


def assert_fits(page: Page) -> None:
    """Nothing reaches beyond the window, wide or narrow."""
    for width in WIDTHS:
        page.set_viewport_size({"width": width, "height": 900})
        page.wait_for_timeout(200)
        assert overflow(page) == [], width


@pytest.mark.parametrize("task", EVERY, ids=names)
def test_every_part_is_there_and_nothing_overflows(task: Task, tmp_path: Path, chromium: Browser) -> None:
    path = write(tmp_path, scored_of(task, LENGTHS))
    with shown(chromium, path) as page:
        draw_everything(page)
        figures = page.locator("[data-figure]")
        assert figures.count() == 2
        for number in range(figures.count()):
            assert figures.nth(number).locator("canvas").count() > 0
        titles = [f"{task.name.upper()}: result", f"{task.name.upper()}: where it fails"]
        assert page.locator("h2").all_inner_texts() == titles
        assert page.locator(".recordings > li").count() == 3
        assert page.locator(".timeline canvas").count() > 0
        assert_fits(page)


def test_a_cell_of_the_confusion_filters(expressions: tuple[Scored, Path], chromium: Browser) -> None:
    scored, path = expressions
    counts = np.stack([np.array(own) for own in scored.statistics])  # [V, C, C]
    truth, decided = divmod(int((counts.sum(axis=0) * (1 - np.eye(8, dtype=int))).argmax()), 8)
    with shown(chromium, path) as page:
        cell = page.locator(f'.confusion button[data-truth="{truth}"][data-decided="{decided}"]')
        assert cell.inner_text() == str(counts[:, truth, decided].sum())
        cell.focus()
        page.keyboard.press("Enter")
        assert cell.get_attribute("aria-pressed") == "true"
        frames = {cost.name: sum(counts[place, truth, decided] for place in cost.videos) for cost in scored.costs}
        visible = page.locator(".recordings > li:not([hidden])")
        assert visible.locator(".name").all_inner_texts() == [name for name, count in frames.items() if count]
        expected = [f"{count} of this cell" for count in frames.values() if count]
        assert visible.locator(".matching").all_inner_texts() == expected
        listed = page.locator(".behind-list button")
        jumped = listed.first.inner_text()
        listed.first.click()
        page.wait_for_selector(".timeline .readout .frame")
        video = page.locator(".video", has=page.locator(".timeline .readout"))
        told = video.locator(".readout .frame").first.inner_text()
        first = int(jumped.partition(" from ")[2].partition(" in ")[0].replace(",", ""))
        assert told.startswith(f"Frame {first}, ")
        assert f"annotated {EXPR.columns[truth]}, decided {EXPR.columns[decided]}" in told
        page.locator(".clear").click()
        assert page.locator(".recordings > li:not([hidden])").count() == 3


def frame_told(page: Page) -> str:
    return page.locator(".readout .frame").first.inner_text()


def test_the_timeline_tells_the_frame(expressions: tuple[Scored, Path], chromium: Browser) -> None:
    scored, path = expressions
    with shown(chromium, path) as page:
        draw_everything(page)
        place = int(page.locator("[data-video]").first.get_attribute("data-video") or 0)
        one = scored.videos[place]
        box = page.locator(".timeline .plot").first.bounding_box()
        assert box is not None
        left, width = box["x"] + 104, box["width"] - 104 - 14
        end = one.video.time[-1] + (one.video.time[-1] - one.video.time[0]) / (len(one.video.time) - 1)
        for part in (0.1, 0.5, 0.9):
            page.mouse.move(left + part * width, box["y"] + 40)
            row = (
                int(np.searchsorted(one.video.time, one.video.time[0] + part * (end - one.video.time[0]), "right")) - 1
            )
            told = frame_told(page)
            near = {
                f"Frame {one.video.frame[near]}," for near in (row - 1, row, row + 1) if near < len(one.video.frame)
            }
            assert any(told.startswith(text) for text in near), (told, near)
        slider = page.locator(".controls input").first
        slider.focus()
        before = int(slider.input_value())
        page.keyboard.press("ArrowRight")
        assert int(slider.input_value()) == before + 1
        label = one.video.label[before + 1]
        annotated = "not annotated" if label < 0 else EXPR.columns[label]
        assert frame_told(page) == (
            f"Frame {one.video.frame[before + 1]}, {one.video.time[before + 1]:.2f} s, annotated {annotated}, "
            f"decided {EXPR.columns[one.decided[before + 1]]}{'' if one.video.crop[before + 1] else ', no face crop'}"
        )
        stretch = page.locator(".stretches button").first
        stretch.click()
        assert float(frame_told(page).split(", ")[1].removesuffix(" s")) == pytest.approx(
            float(stretch.get_attribute("data-from") or 0), abs=0.02
        )
        page.get_by_role("button", name="Whole video").first.click()


def test_odd_names_are_shown_and_run_nothing(tmp_path: Path, chromium: Browser) -> None:
    scored = scored_of(EXPR, {f"v{number}": 40 for number in range(len(ODD))})
    videos = [replace(one, video=replace(one.video, name=name)) for one, name in zip(scored.videos, ODD, strict=True)]
    odd = Scored(scored.outputs, scored.decision, None, tuple(videos))
    with shown(chromium, write(tmp_path, odd, ODD[0])) as page:
        draw_everything(page)
        page.locator(".confusion td.wrong button").first.click()
        assert sorted(page.locator(".recordings .name").all_text_contents()) == sorted(ODD)
        assert page.locator("h1").text_content() == ODD[0]
        assert page.evaluate("window.ran") is None
        assert page.locator("img").count() == 0
        assert_fits(page)


def test_all_can_be_reached_by_keyboard(expressions: tuple[Scored, Path], chromium: Browser) -> None:
    with shown(chromium, expressions[1]) as page:
        reached = set()
        for _ in range(150):
            page.keyboard.press("Tab")
            reached.add(page.evaluate("document.activeElement.tagName + '.' + document.activeElement.className"))
            if "SUMMARY." in reached:
                break
        assert {"A.skip", "A.", "BUTTON.", "SUMMARY."} <= reached
        page.keyboard.press("Enter")
        page.wait_for_selector(".timeline .frame")
