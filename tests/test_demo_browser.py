"""The demos as a person meets them: driven in a real browser, on a desktop and on a phone, with mouse and keyboard."""

import os
import re
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from demo_models import tiny_ddpm, tiny_stable_diffusion
from PIL import Image

pytest.importorskip("gradio", reason="needs gradio for the demos")
os.environ.setdefault("GRADIO_ANALYTICS_ENABLED", "False")

from browser import DESKTOP, PHONE, overflow

from hf_genzoo.demo import playground_server
from hf_genzoo.demo.app import build_app, start
from hf_genzoo.demo.examples import Examples

pytestmark = pytest.mark.browser

PATIENCE = 120_000  # milliseconds: the machine may be busy


@pytest.fixture(scope="module")
def sampling() -> Iterator[str]:
    app = build_app(tiny_ddpm(), title="Tiny shapes", about="Noise, mostly.", card_url="https://example.org/card")
    yield start(app)
    app.close()


@pytest.fixture(scope="module")
def changing() -> Iterator[str]:
    pictures = np.random.default_rng(0).integers(0, 255, (3, 32, 32, 3), dtype=np.uint8)
    app = build_app(tiny_stable_diffusion(image=True), title="Tiny changes", examples=Examples(pictures))
    yield start(app)
    app.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request: pytest.FixtureRequest, browser: Any) -> Iterator[Any]:
    context = browser.new_context(viewport=request.param, has_touch=request.param is PHONE)
    opened = context.new_page()
    opened.set_default_timeout(PATIENCE)
    opened.foreign = []
    opened.on("request", lambda sent: None if is_local(sent.url) else opened.foreign.append(sent.url))
    yield opened
    context.close()


def is_local(url: str) -> bool:
    return url.startswith(("http://127.0.0.1", "http://localhost", "data:", "blob:"))


def visit(page: Any, url: str) -> None:
    page.goto(url)
    page.wait_for_selector("#go")


def told(page: Any, words: str) -> None:
    """Wait until the status says so."""
    page.locator("#status", has_text=words).wait_for()


def sources(page: Any) -> list[str]:
    """Addresses of the pictures in the gallery."""
    page.locator("#gallery img").first.wait_for()
    return [image.get_attribute("src") for image in page.locator("#gallery img").all()]


def content(source: str) -> str:
    """The hash of a picture's content, which its address holds."""
    return source.split("/")[-2]


def choose(page: Any, label: str, value: str) -> None:
    """Type a number into the control of that name."""
    field = page.locator(f"label:has-text('{label}') input, [aria-label*='number input for {label}']").first
    field.fill(value)
    field.press("Tab")


def test_sampling_and_seeds(page: Any, sampling: str) -> None:
    visit(page, sampling)
    assert page.get_by_role("link", name="Model card").get_attribute("href") == "https://example.org/card"
    assert overflow(page) <= 0
    choose(page, "Pictures", "4")
    choose(page, "Steps", "200")  # long enough that pictures on the way are seen
    page.click("#go")
    page.locator("#preview img").wait_for()
    assert overflow(page) <= 0
    told(page, "Done.")
    first = sources(page)
    assert len(first) == 4
    assert overflow(page) <= 0
    page.locator("#preview").wait_for(state="hidden")

    seed = page.get_by_label("Seed").first
    seed.fill("1")
    page.click("#go")
    page.wait_for_function("before => document.querySelector('#gallery img').src !== before", arg=first[0])
    told(page, "Done.")
    assert content(sources(page)[0]) == content(first[1])  # each picture has its own seed: the second of before
    seed.fill("0")
    page.click("#go")
    page.wait_for_function("before => document.querySelector('#gallery img').src === before", arg=first[0])
    page.get_by_role("button", name="New seed").click()
    page.wait_for_function("() => [...document.querySelectorAll('input')].every(i => i.value !== '0')")
    with page.expect_download() as download:
        page.get_by_role("button", name=re.compile("ZIP")).or_(
            page.get_by_role("link", name=re.compile("ZIP"))
        ).click()
    assert download.value.suggested_filename == "samples.zip"
    assert not page.foreign  # it works without the internet


def test_by_keyboard(page: Any, sampling: str) -> None:
    visit(page, sampling)
    choose(page, "Pictures", "1")
    choose(page, "Steps", "3")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.id || document.activeElement.closest('[id]')?.id") == "go":
            break
    page.keyboard.press("Enter")
    told(page, "Done.")
    assert len(sources(page)) == 1


def test_bad_input_is_told_in_the_page(page: Any, sampling: str) -> None:
    visit(page, sampling)
    page.get_by_label("Seed").first.fill("-5")
    page.click("#go")
    page.get_by_text("The seed must lie between 0 and").first.wait_for()
    told(page, "This did not work")
    page.get_by_label("Seed").first.fill("5")
    choose(page, "Steps", "2")
    page.click("#go")
    told(page, "Done.")
    assert "Traceback" not in page.content()
    assert overflow(page) <= 0


def test_stop_stops(page: Any, sampling: str) -> None:
    visit(page, sampling)
    choose(page, "Pictures", "36")
    choose(page, "Steps", "250")
    page.click("#go")
    told(page, "Step ")
    page.click("#stop")
    told(page, "Stopped.")
    deadline = time.monotonic() + 20
    while any(thread.name == "sampling" for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    choose(page, "Pictures", "1")
    choose(page, "Steps", "2")
    page.click("#go")
    told(page, "Done.")


def test_a_picture_goes_in_and_a_slider_shows_both(page: Any, changing: str, tmp_path: Path) -> None:
    picture, note = tmp_path / "photo.png", tmp_path / "note.png"
    Image.new("RGB", (90, 60), "orange").save(picture)
    note.write_text("not a picture")
    visit(page, changing)
    assert overflow(page) <= 0
    page.get_by_label("Prompt").fill("a star")
    choose(page, "Steps", "4")
    page.click("#go")
    page.get_by_text("Please upload a picture first.").first.wait_for()

    page.set_input_files("input[type=file]", str(note))
    page.wait_for_selector("img[src*='note.png']")
    page.click("#go")
    page.get_by_text("cannot be read as a picture").first.wait_for()

    page.reload()
    page.wait_for_selector("#go")
    page.get_by_label("Prompt").fill("a star")
    choose(page, "Steps", "4")
    page.set_input_files("input[type=file]", str(picture))
    page.wait_for_selector("img[src*='photo.png']")
    page.click("#go")
    told(page, "Done.")
    page.wait_for_function("() => document.querySelectorAll('#pair img').length >= 2")
    assert overflow(page) <= 0


def test_dark(browser: Any, sampling: str) -> None:
    page = browser.new_page(color_scheme="dark")
    visit(page, sampling)
    page.wait_for_function("() => document.body.classList.contains('dark')")
    colours = page.evaluate(
        "() => [document.body, document.querySelector('h1')].map(e => getComputedStyle(e))"
        ".map((s, i) => i ? s.color : s.backgroundColor)"
    )
    back, front = (sum(int(part) for part in re.findall(r"\d+", colour)[:3]) for colour in colours)
    assert front - back > 300
    page.close()


def test_the_playground_learns(page: Any) -> None:
    server, url = playground_server.serve()
    try:
        errors: list[str] = []
        page.on("pageerror", lambda error: errors.append(str(error)))
        page.goto(url)
        page.wait_for_selector("canvas")
        assert overflow(page) <= 0
        assert not errors
        assert not page.foreign
    finally:
        server.shutdown()
        server.server_close()
