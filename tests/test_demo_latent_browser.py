"""The latent explorer in a real browser: click the map, move a slider, upload pictures, send a file that is none."""

from pathlib import Path

import numpy as np
import pytest
from browser import DESKTOP, PHONE, overflow
from hub_toys import tiny_vae
from PIL import Image

pytest.importorskip("gradio", reason="the demo needs gradio")

from hf_genzoo.demo.app import build_app, start
from hf_genzoo.demo.examples import Examples

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def address():
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8, 1), dtype=np.uint8)
    examples = Examples(images, np.arange(60) % 3, ("zero", "one", "two"))
    app = build_app(tiny_vae(latent_dim=10), title="Tiny", examples=examples)
    yield start(app, server_name="127.0.0.1")
    app.close()


@pytest.fixture(params=[DESKTOP, PHONE], ids=["desktop", "phone"])
def page(request, browser, address: str):
    page = browser.new_page(viewport=request.param)
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(address)
    page.get_by_role("heading", name="Tiny").wait_for()
    yield page
    assert errors == []
    assert overflow(page) <= 0
    page.close()


def open_tab(page, name: str) -> None:
    """On a narrow page some tabs are behind a menu."""
    page.get_by_role("tab", name="Sample").wait_for()
    page.wait_for_timeout(500)  # the page measures its tabs and then hides those that do not fit
    tab = page.get_by_role("tab", name=name)
    if not tab.is_visible():
        page.locator("button.overflow-menu, .overflow-menu button").first.click()
        tab = page.locator(".overflow-dropdown button", has_text=name)
    tab.click()


def source(page, selector: str) -> str:
    image = page.locator(f"{selector} img")
    return (image.first.get_attribute("src") or "") if image.count() else ""


def changes(page, selector: str, before: str) -> str:
    """The picture's address once it is another."""
    page.wait_for_function(
        "([selector, before]) => { const image = document.querySelector(selector + ' img');"
        " return image && image.src !== before && image.complete; }",
        arg=[selector, before],
        timeout=60_000,
    )
    return source(page, selector)


def test_click_the_map(page, tmp_path: Path) -> None:
    open_tab(page, "Map")
    box = page.locator("#map img")
    box.wait_for()
    box.click(position={"x": 90, "y": 100})
    first = changes(page, "#map-decoded", "")
    said = page.locator("#map-place").inner_text()
    assert "The nearest picture is number" in said
    box.click(position={"x": 200, "y": 180})
    changes(page, "#map-decoded", first)
    assert page.locator("#map-place").inner_text() != said
    page.get_by_label("x", exact=True).fill("1000000")
    page.locator("#map-decode").press("Enter")  # by keyboard
    page.get_by_text("x must lie between").first.wait_for()
    assert "Traceback" not in page.content()
    page.screenshot(path=tmp_path / "map.png", full_page=True)


def test_move_a_slider(page, tmp_path: Path) -> None:
    open_tab(page, "Sliders")
    before = changes(page, "#sliders-decoded", "")
    slider, number = (page.locator(f"#slider-0 input[type={kind}]") for kind in ("range", "number"))
    value = float(number.input_value())
    slider.focus()
    for _ in range(30):
        slider.press("ArrowRight")
    moved = changes(page, "#sliders-decoded", before)
    assert float(number.input_value()) - value == pytest.approx(30 * 0.05, abs=0.05)
    track = page.locator("#slider-1 input[type=range]").bounding_box()
    page.mouse.move(track["x"] + 10, track["y"] + track["height"] / 2)
    page.mouse.down()
    page.mouse.move(track["x"] + 0.9 * track["width"], track["y"] + track["height"] / 2, steps=20)
    page.mouse.up()
    dragged = changes(page, "#sliders-decoded", moved)
    page.locator("#sliders-traverse").click()
    changes(page, "#sliders-rows", "")
    page.locator("#sliders-reset").click()
    changes(page, "#sliders-decoded", dragged)
    page.get_by_role("radio", name="An uploaded picture").check()
    (tmp_path / "text.png").write_text("no picture")
    page.locator("input[type=file]").first.set_input_files(tmp_path / "text.png")
    page.wait_for_timeout(1500)
    page.locator("#sliders-begin").click()
    page.get_by_text("cannot be read as a picture").first.wait_for()
    assert "Traceback" not in page.content()


def test_upload_and_go_between(page, tmp_path: Path) -> None:
    open_tab(page, "Between two")
    page.locator("#between-go").click()
    page.get_by_text("Please upload a picture first").first.wait_for()
    for number in (0, 1):
        pixels = np.full((40, 60), 90 + 100 * number, np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
        page.locator("input[type=file]").nth(number).set_input_files(tmp_path / f"{number}.png")
        page.wait_for_timeout(1500)
    page.locator("#between-go").click()
    first = changes(page, "#between-strip", "")
    assert page.locator("#between-film img").count() == page.locator("#between-pairs img").count() == 1
    with page.expect_download() as download:
        page.get_by_role("button", name="Download animation (GIF)").click()
    download.value.save_as(tmp_path / "taken.gif")
    assert Image.open(tmp_path / "taken.gif").format == "GIF"
    page.get_by_label("spherical").check()
    page.locator("#between-go").click()
    changes(page, "#between-strip", first)
