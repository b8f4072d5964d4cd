"""The page of a prediction: the video beside its timeline, in which a click seeks."""

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from urllib.parse import unquote

import numpy as np
import pytest
from playwright.sync_api import Browser

from abaw_expr.data.synthetic.corpus import write_video
from abaw_expr.infer.page import address, write_person_page
from abaw_expr.infer.prediction import PersonPrediction
from abaw_expr.infer.registry import PREDICTIONS, person_prediction
from abaw_expr.outputs.decision import equal_weights
from abaw_expr.report.media import AudioLevels
from abaw_expr.tasks.task import TASKS, Task
from tests.helpers.challenges import make_table, make_video
from tests.helpers.pages import PageData, browser, overflow, shown
from tests.test_challenges import names

RATE = 10
FRAMES = 60


def prediction_of(task: Task, name: str = "v") -> PersonPrediction:
    """A prediction of 6 s, nothing of which is annotated, with audio."""
    video = make_video(task, "v", FRAMES)
    video = replace(video, time=np.arange(FRAMES) / RATE, label=np.full_like(video.label, task.ignore_value))
    one = person_prediction(video, equal_weights(make_table(task, [video])))
    steps = np.linspace(0, 1, FRAMES)
    return replace(one, name=name, frames=replace(one.frames, name=name), audio=AudioLevels(-60 * steps, steps))


@pytest.fixture(scope="module")
def chromium() -> Iterator[Browser]:
    with browser() as opened:
        yield opened


@pytest.mark.parametrize("task", TASKS.values(), ids=names)
def test_a_page_has_every_frame_and_names_the_video(task: Task, tmp_path: Path) -> None:
    one = prediction_of(task)
    assert type(one) is PREDICTIONS[task.kind]
    (tmp_path / "out").mkdir()
    write_person_page(one, [tmp_path / "a b#1.mp4"], tmp_path / "out/v.html")
    page = PageData.read(tmp_path / "out/v.html")
    (player,) = page.data["players"]
    decided = page.array(player["video"]["decided"]).reshape(len(task.fields), -1)
    if task.kind != "values":
        assert (decided == one.label.reshape(FRAMES, -1).T).all()
    assert set(page.array(player["video"]["truth"]).tolist()) == {255}
    assert '<source src="../a%20b%231.mp4">' in page.text


@pytest.mark.parametrize("name", ["a.mp4", "with space#?%&.mp4", 'quote"<b>.mp4', "é漢.mp4"])
def test_the_address_of_a_file_is_its_way_from_the_page(name: str, tmp_path: Path) -> None:
    (tmp_path / "deep").mkdir()
    found = address(tmp_path / name, tmp_path / "deep")
    assert unquote(found) == f"../{name}"
    assert not set(found) & set(' #?"<>&')


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS.values(), ids=names)
def test_a_click_seeks_and_the_video_moves_the_cursor(task: Task, tmp_path: Path, chromium: Browser) -> None:
    film = tmp_path / "film #1.mp4"
    write_video(film, Fraction(RATE), (np.full((64, 64, 3), 4 * i, np.uint8) for i in range(FRAMES)), None)
    write_person_page(prediction_of(task, "<b>'v'"), [film], tmp_path / "v.html")
    with shown(chromium, tmp_path / "v.html") as page:
        for _ in range(100):  # the page's policy forbids what Playwright would wait with
            if page.evaluate("document.querySelector('video').readyState > 0"):
                break
            page.wait_for_timeout(50)
        box = page.locator(".timeline .plot").bounding_box()
        assert box is not None
        page.mouse.click(box["x"] + 104 + 0.5 * (box["width"] - 118), box["y"] + 30)
        asked = page.evaluate("document.querySelector('video').currentTime")
        assert asked == pytest.approx(3.0, abs=0.15)
        assert page.locator(".readout .frame").inner_text().startswith(f"Frame {round(asked * RATE) + 1}, ")
        page.locator(".controls input").focus()
        page.keyboard.press("ArrowRight")
        assert page.evaluate("document.querySelector('video').currentTime") == pytest.approx(asked + 0.1, abs=0.01)
        page.evaluate("document.querySelector('video').currentTime = 1.05")
        page.locator(".readout .frame", has_text="Frame 11,").wait_for()
        assert page.locator("h1").text_content() == "<b>'v'"
        for width in (1280, 400):
            page.set_viewport_size({"width": width, "height": 900})
            page.wait_for_timeout(200)
            assert overflow(page) == [], width


@pytest.mark.slow
def test_a_video_that_is_gone_is_told(tmp_path: Path, chromium: Browser) -> None:
    write_person_page(prediction_of(TASKS["expr"]), [tmp_path / "gone.mp4"], tmp_path / "v.html")
    page = chromium.new_page()
    page.goto((tmp_path / "v.html").as_uri())
    page.locator(".unplayable").wait_for(state="visible")
    page.close()
