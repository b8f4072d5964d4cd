"""Pages as a test reads them: the data inside one, and a browser that shows it."""

import base64
import gzip
import json
import re
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome", "chrome")
"""What a browser's program may be called."""
OPTIONS = ("--no-sandbox", "--disable-gpu", "--disable-background-networking")
READY = "html[data-state=ready]"


@dataclass(frozen=True)
class PageData:
    """What a page holds."""

    text: str
    data: dict[str, Any]
    arrays: bytes

    @classmethod
    def of(cls, text: str) -> "PageData":
        inside = dict(re.findall(r'<script type="[\w/]+" id="(page-\w+)">(.*?)</script>', text, re.DOTALL))
        return cls(text, json.loads(inside["page-data"]), gzip.decompress(base64.b64decode(inside["page-arrays"])))

    @classmethod
    def read(cls, path: Path) -> "PageData":
        return cls.of(path.read_text(encoding="utf-8"))

    def array(self, reference: Sequence[Any]) -> np.ndarray:
        """An array by its reference."""
        kind, offset, length = reference
        return np.frombuffer(self.arrays, f"<{kind}", length, offset)

    def headings(self) -> list[str]:
        """The titles of its parts."""
        return [unescape(title) for title in re.findall(r"<h2[^>]*>(.*?)</h2>", self.text)]

    def facts(self) -> dict[str, str]:
        """The numbers that are shown large, by their names."""
        return {unescape(k): v for k, v in re.findall(r"<dt>(.*?)</dt><dd><b>(.*?)</b>", self.text)}


@contextmanager
def browser() -> Iterator[Browser]:
    """The machine's browser; the test is skipped where there is none."""
    program = next((path for name in NAMES if (path := shutil.which(name))), None)
    if program is None:
        pytest.skip("no Chromium on this machine: apt-get install chromium")
    with sync_playwright() as playwright:
        opened = playwright.chromium.launch(executable_path=program, args=[*OPTIONS])
        try:
            yield opened
        finally:
            opened.close()


@contextmanager
def shown(opened: Browser, path: Path, width: int = 1280) -> Iterator[Page]:
    """A page in the browser, ready; in the end it must have made no error, and asked for nothing but itself."""
    page = opened.new_page(viewport={"width": width, "height": 900})
    faults: list[str] = []
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.on("console", lambda told: faults.append(told.text) if told.type in ("error", "warning") else None)
    page.on(
        "request", lambda asked: None if asked.url.startswith(("file:", "data:", "blob:")) else faults.append(asked.url)
    )
    try:
        page.goto(path.as_uri())
        page.wait_for_selector(READY, timeout=30_000)
        yield page
        assert not faults
    finally:
        page.close()


def draw_everything(page: Page) -> None:
    """Draws all plots, as printing does, and opens the first recording."""
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    if page.locator(".recordings details").count():
        page.locator(".recordings summary").first.click()
        page.wait_for_selector(".timeline .frame")
    page.wait_for_timeout(300)


def overflow(page: Page) -> list[str]:
    """What reaches beyond the window, but for what scrolls by itself."""
    found: list[str] = page.evaluate(
        """() => [
          ...(document.scrollingElement.scrollWidth > innerWidth ? ["the page"] : []),
          ...[...document.querySelectorAll("body *")].filter((one) => {
            const box = one.getBoundingClientRect();
            return box.width > 0 && box.right > innerWidth + 1 && !one.closest(".scroll, .skip");
          }).map((one) => `${one.tagName} ${one.className}`),
        ]"""
    )
    return found
