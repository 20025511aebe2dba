"""A real browser for tests that drive pages: the installed chromium through Playwright. They skip without it."""

import shutil
from collections.abc import Iterator
from typing import Any

import pytest

_ARGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
DESKTOP, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """A running browser; `browser.new_page(viewport=PHONE)` opens a page."""
    api = pytest.importorskip("playwright.sync_api", reason="needs playwright to drive a browser")
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        pytest.skip("needs chromium to drive a browser")
    with api.sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=chromium, args=list(_ARGS))
        yield running
        running.close()


def overflow(page: Any) -> int:
    """Pixels by which a page is wider than its window: above 0 one has to scroll sideways."""
    return page.evaluate("document.documentElement.scrollWidth - document.documentElement.clientWidth")
