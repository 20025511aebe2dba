"""The report of a comparison: verdicts, files that say the same numbers, a page that names cannot break out of."""

import csv
import io
import json
import math
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from hf_genzoo import atomic
from hf_genzoo.evaluation import trilemma_page
from hf_genzoo.evaluation.trilemma import (
    MIXTURE,
    Comparison,
    Measured,
    Row,
    baseline_warnings,
    markdown_text,
    quantity,
    verdicts,
)

NASTY = "</script><script>document.title = 'broken'</script><img src=x onerror=\"alert(1)\"> | `a` *b* [c](d) $x$ é"
NAMES = ["comparison.json", "comparison.csv", "comparison.md", "comparison.png", "comparison.html"]


def around(value: float, reach: float) -> Measured:
    return Measured(value, value - reach, value + reach)


def row(name: str, ratio: float, coverage: float = 0.5, speed: float | None = 1.0, reach: float = 0.06) -> Row:
    metrics = {
        "frechet_ratio": around(ratio, reach * ratio),
        "coverage": around(coverage, reach),
        "kernel_distance": around(0.01 * (ratio - 1.2), 0.001),  # negative for good samples, as KID may be
        "coverage@pixels": Measured(coverage / 3),
    }
    timed = None if speed is None else around(speed, 0.1 * speed)
    return Row(name, "model", "ddpm", metrics, timed, 50.0, 3_940_000, 5400.5, 2_560_000, 3)


def calibration(name: str, ratio: float, coverage: float) -> Row:
    return Row(name, "calibration", metrics=row(name, ratio, coverage).metrics, num_seeds=3)


def compared(*rows: Row, **changes) -> Comparison:
    comparison = Comparison(
        dataset="digits",
        split="validation",
        fingerprint="5a1f9cc2",
        resolution=28,
        num_samples=500,
        seeds=(0, 1, 2),
        extractors=("lenet", "pixels"),
        device="cpu",
        versions={"torch": "2.6.0"},
        rows=rows,
    )
    return replace(comparison, **changes)


def full() -> Comparison:
    """Every kind of row: timed and not, without intervals, calibration, a name that is anything but plain."""
    bare = row("bare", 4.0)
    bare = replace(bare, metrics={key: Measured(value.value) for key, value in bare.metrics.items()})
    untimed = replace(row("untimed", 2.0), ms_per_image=None, family=None, parameters=None)
    few = Row("only coverage", metrics={"coverage": Measured(0.0, 0.0, 0.01)}, ms_per_image=Measured(3.0, -1.0, 7.0))
    return compared(
        row(NASTY, 3.1, 0.9, 120.0),
        bare,
        untimed,
        few,
        calibration("real train pictures", 1.0, 0.97),
        calibration(MIXTURE, 9.0, 0.55),
    )


# What is admitted


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_number_that_is_not_finite_is_refused_by_name(value: float) -> None:
    with pytest.raises(ValueError, match=r"^A: coverage is \(nan|^A: coverage is \(inf"):
        Row("A", metrics={"coverage": Measured(value)})
    with pytest.raises(ValueError, match="B: ms_per_image is"):
        Row("B", ms_per_image=Measured(1.0, 0.5, value))


def test_impossible_rows_and_comparisons_are_refused() -> None:
    with pytest.raises(ValueError, match="A: 'covrage' is not in"):
        Row("A", metrics={"covrage": Measured(1.0)})
    with pytest.raises(ValueError, match="one end only"):
        Row("A", metrics={"coverage": Measured(1.0, low=0.5)})
    with pytest.raises(ValueError, match="ends before it starts"):
        Row("A", metrics={"coverage": Measured(1.0, 2.0, 0.5)})
    with pytest.raises(ValueError, match="A: nfe is -1"):
        Row("A", nfe=-1)
    with pytest.raises(ValueError, match="these repeat: A"):
        compared(row("A", 1.0), row("A", 2.0))
    with pytest.raises(ValueError, match="A: coverage@pixels is by an extractor"):
        compared(row("A", 1.0), extractors=("lenet",))
    with pytest.raises(ValueError, match="'density' cannot be a headline"):
        compared(row("A", 1.0), headline="density")
    with pytest.raises(ValueError, match="at least one row with a number"):
        compared(Row("A"))


def test_numbers_show_as_many_digits_as_their_intervals_support() -> None:
    assert str(Measured(3.1, 2.9, 3.4)) == "3.1 [2.9, 3.4]"
    assert str(Measured(12.0, 11.5, 12.6)) == "12.0 [11.5, 12.6]"
    assert str(Measured(104.23, 104.01, 104.44)) == "104.2 [104.0, 104.4]"
    assert str(Measured(-3e-4, -6e-4, 1e-4)) == "-0.0003 [-0.0006, 0.0001]"
    assert str(Measured(12345.0, 11000.0, 14000.0)) == "12,345 [11,000, 14,000]"
    assert str(Measured(0.02413)) == "0.0241"
    assert full().rows[0].text("parameters") == "3.94 M"
    assert full().rows[0].text("training_seconds") == "1.5 h"


# Verdicts


def test_a_verdict_needs_intervals_that_do_not_touch() -> None:
    def verdict(a: Measured, b: Measured) -> str | None:
        rows = [Row(name, metrics={"frechet_ratio": value}) for name, value in (("A", a), ("B", b))]
        return verdicts(compared(*rows))[0].better

    assert verdict(Measured(1, 0.5, 1.5), Measured(3, 2, 4)) == "A"
    assert verdict(Measured(3, 2, 4), Measured(1, 0.5, 1.5)) == "B"
    assert verdict(Measured(1, 0.5, 2.1), Measured(3, 2, 4)) is None
    assert verdict(Measured(1, 0.5, 2), Measured(3, 2, 4)) is None, "touching"
    assert verdict(Measured(1), Measured(3, 2, 4)) is None, "no interval"


def test_verdicts_on_three_axes() -> None:
    fast = row("vae-digits", 12.0, 0.62, 0.4)
    good = row("ddpm-digits", 3.1, 0.9, 120.0)
    found = {verdict.axis: verdict for verdict in verdicts(compared(fast, good, calibration("real", 1.0, 0.97)))}
    assert {axis: verdict.better for axis, verdict in found.items()} == {
        "quality": "ddpm-digits",
        "coverage": "ddpm-digits",
        "speed": "vae-digits",
    }
    assert found["quality"].text == (
        "ddpm-digits has better quality than vae-digits: Frechet ratio 3.10 [2.91, 3.29] against 12.0 [11.3, 12.7]"
    )
    assert found["speed"].text == (
        "vae-digits is faster than ddpm-digits: Time per image 0.40 [0.36, 0.44] against 120 [108, 132] ms"
    )


def test_every_pair_of_models_is_judged_or_said_not_to_be() -> None:
    comparison = full()
    found = verdicts(comparison)
    assert len(found) == 3 * 6
    texts = [verdict.text for verdict in found]
    assert sum("Time per image was not measured for untimed" in text for text in texts) == 3
    assert any(text.endswith("(no interval for bare)") for text in texts)
    assert verdicts(compared(row("alone", 1.0))) == []


def test_models_that_do_not_beat_the_baseline_are_named() -> None:
    baseline = calibration(MIXTURE, 9.0, 0.5)
    rows = [row("good", 3.0), row("near", 8.5), row("bad", 12.0), row("same", 9.0), baseline]
    starts = [warning.split(":")[0] for warning in baseline_warnings(compared(*rows))]
    assert [start.split(" PCA")[0] for start in starts] == [
        "near is not shown to be better than",
        "bad loses to",
        "same loses to",
    ]
    assert baseline_warnings(compared(*rows[:-1])) == []


# Files


def test_json_round_trip_is_lossless() -> None:
    comparison = full()
    assert Comparison.from_json(comparison.to_json()) == comparison
    for text in ("[]", "{}", '{"rows": [{}]}', "nonsense"):
        with pytest.raises(ValueError, match=r"JSON|Expecting"):
            Comparison.from_json(text)


def test_csv_parses_back_to_the_same_numbers() -> None:
    comparison = full()
    found: dict[tuple[str, str], Measured] = {}
    for line in csv.DictReader(io.StringIO(comparison.to_csv())):
        numbers = [float(line[column]) if line[column] else None for column in ("value", "low", "high")]
        assert numbers[0] is not None
        found[line["name"], line["metric"]] = Measured(numbers[0], *numbers[1:])
    wanted = {
        (r.name, key): value
        for r in comparison.rows
        for key in comparison.measured_keys()
        if (value := r.measured(key))
    }
    assert found == wanted
    assert (NASTY, "ms_per_image") in found


def test_markdown_shows_every_row_and_escapes_names() -> None:
    text = full().to_markdown()
    tables = [line for line in text.splitlines() if line.startswith("|")]
    widths = {len(re.findall(r"(?<!\\)\|", line)) for line in tables}
    assert len(widths) <= 2, "a name opened a cell of its own"
    for name in (markdown_text(NASTY), "bare", "untimed", f"*{MIXTURE}*"):
        assert sum(line.startswith(f"| {name} |") for line in tables) == 2
    assert "<" not in text
    assert "Frechet ratio 3.10 [2.91, 3.29]" in text
    for key in full().measured_keys():
        assert quantity(key).explanation in text
    assert markdown_text("a|b\n# c") == r"a\|b # c"
    assert [markdown_text(name) for name in ("# a", "1. a", "wgan_gp-a", "_a_")] == [
        r"\# a",
        r"1\. a",
        "wgan_gp-a",
        r"\_a\_",
    ]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("matplotlib")
    folder = tmp_path_factory.mktemp("report")
    grid = Image.new("L", (30, 30), 200)
    grid.save(folder / "grid.png")
    comparison = full()
    written = trilemma_page.write_report(comparison, folder / "out", {NASTY: grid, MIXTURE: folder / "grid.png"})
    assert [path.name for path in written] == NAMES
    return folder / "out"


def test_report_holds_its_files_and_nothing_else(report: Path) -> None:
    assert sorted(os.listdir(report)) == sorted(NAMES)
    assert Comparison.from_json((report / NAMES[0]).read_text(encoding="utf-8")) == full()


def test_figure_opens_and_is_drawn_for_any_rows(report: Path) -> None:
    from hf_genzoo.evaluation.trilemma_figure import HEIGHT, WIDTH, draw_figure

    with Image.open(report / "comparison.png") as image:
        assert image.size == (WIDTH, HEIGHT)
        assert len(image.convert("L").getcolors()) > 50
    many = [row(f"model {number}", 2.0 + number, 0.1 * number, 1.0 + number) for number in range(9)]
    cases = [
        compared(row("one", 3.0)),
        compared(*many),
        compared(*many, headline="kernel_distance"),
        compared(row("no speed", 3.0, speed=None)),
        compared(row("not \udcff text", 3.0)),
        compared(Row("free", metrics={"coverage": Measured(0.0)}, ms_per_image=Measured(0.0))),
    ]
    for case in cases:
        assert Image.open(io.BytesIO(draw_figure(case))).size == (WIDTH, HEIGHT)


def test_drawing_leaves_matplotlib_as_it_was() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    from hf_genzoo.evaluation.trilemma_figure import draw_figure

    before = dict(matplotlib.rcParams)
    draw_figure(full())
    assert dict(matplotlib.rcParams) == before


class Page(HTMLParser):
    """A page's tags with their attributes, and the text behind each opening tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.open = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.texts.setdefault(tag, []).append("")
        self.open = True

    def handle_endtag(self, _: str) -> None:
        self.open = False

    def handle_data(self, data: str) -> None:
        if self.open:
            self.texts[self.tags[-1][0]][-1] += data


def test_page_loads_nothing_and_names_cannot_break_out(report: Path) -> None:
    text = (report / "comparison.html").read_text(encoding="utf-8")
    page = Page(text)
    loads = [attrs[name] for _, attrs in page.tags for name in ("src", "href", "srcset", "action") if name in attrs]
    assert loads
    assert all(load is not None and load.startswith("data:image/png;base64,") for load in loads)
    assert not re.search(r"https?://|@import|url\(", text)
    assert not [name for _, attrs in page.tags for name in attrs if name.startswith("on")]
    assert sum(tag == "script" for tag, _ in page.tags) == 2
    data = json.loads(page.texts["script"][0])
    assert [found["name"] for found in data["rows"]] == [found.name for found in full().rows]
    assert (data["x"], data["y"]) == ("ms_per_image", "frechet_ratio")
    assert data["rows"][0]["values"]["frechet_ratio"]["value"] == 3.1


def test_page_shows_every_row_without_its_script(report: Path) -> None:
    page = Page((report / "comparison.html").read_text(encoding="utf-8"))
    headers = [attrs["data-value"] for tag, attrs in page.tags if tag == "th" and attrs.get("scope") == "row"]
    assert headers == [found.name for found in full().rows]
    figures = [attrs["id"] for tag, attrs in page.tags if tag == "figure"]
    assert figures == ["row-0", "row-5"]
    assert page.texts["li"] == [verdict.text for verdict in verdicts(full())]


def test_page_runs_one_script_only_by_its_own_policy(report: Path) -> None:
    page = Page((report / "comparison.html").read_text(encoding="utf-8"))
    policy = next(attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv"))
    assert policy is not None
    wanted = trilemma_page._script_fingerprint(page.texts["script"][1])
    assert f"script-src 'sha256-{wanted}'" in " ".join(policy.split())
    assert policy.startswith("default-src 'none'")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "comparison.json").write_text("old")

    def fail(*_: object) -> None:
        raise OSError("no space")

    monkeypatch.setattr(atomic.os, "replace", fail)
    with pytest.raises(OSError, match="no space"):
        trilemma_page.write_report(full(), tmp_path, {})
    assert (tmp_path / "comparison.json").read_text() == "old"
    assert os.listdir(tmp_path) == ["comparison.json"]


def test_a_figure_that_fails_leaves_the_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: object) -> bytes:
        raise ImportError("the figure needs matplotlib")

    monkeypatch.setattr(trilemma_page, "draw_figure", fail)
    with pytest.raises(ImportError, match="matplotlib"):
        trilemma_page.write_report(full(), tmp_path, {})
    assert sorted(os.listdir(tmp_path)) == ["comparison.csv", "comparison.json", "comparison.md"]
    with pytest.raises(ValueError, match="of no row of the comparison: somebody"):
        trilemma_page.write_report(full(), tmp_path, {"somebody": Image.new("L", (2, 2))})


@pytest.mark.slow
@pytest.mark.parametrize("width", [1280, 390])
def test_page_in_a_browser(report: Path, width: int) -> None:
    browsers = pytest.importorskip("playwright.sync_api")
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium is installed")
    with browsers.sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_page(viewport={"width": width, "height": 844})
        problems: list[str] = []
        page.on("console", lambda message: problems.append(message.text))
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto((report / "comparison.html").as_uri())
        page.wait_for_selector(".mark")
        assert page.title() == full().title()
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        assert page.locator(".mark").count() == len(full().rows)

        page.select_option("#y", "kernel_distance")  # has negative values: all of them stay, on a linear axis
        drawn = page.locator(".mark").count()
        absent = page.locator("#absent").inner_text()
        assert (drawn, absent) == (6, "")
        assert "log" not in (page.locator(".axes .name").first.text_content() or "log")
        page.select_option("#y", "nfe")  # neither this nor the time was measured of calibration rows
        assert MIXTURE in page.locator("#absent").inner_text()
        page.select_option("#y", "coverage")

        page.focus("#y")
        page.keyboard.press("Tab")
        page.keyboard.press("Home")
        names = set()
        for _ in full().rows:
            names.add(page.locator("#panel h3").inner_text())
            page.keyboard.press("ArrowRight")
        assert len(names) == len(full().rows)
        page.locator('[data-row="0"] .shape').hover()
        assert page.locator("#panel img").count() == 1

        button = page.locator("thead button", has_text="Coverage").first
        button.focus()
        page.keyboard.press("Enter")
        order = page.locator("tbody th").all_inner_texts()
        assert order[0] == "real train pictures"
        assert page.locator("th[aria-sort]").get_attribute("aria-sort") == "descending"
        assert problems == []
        browser.close()
