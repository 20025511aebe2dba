"""The report of a comparison: one page for the browser that needs nothing else, and the other files beside it."""

import base64
import hashlib
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from hf_genzoo.atomic import replacing
from hf_genzoo.evaluation.trilemma import Comparison, baseline_warnings, quantity, shown_unit, verdicts
from hf_genzoo.evaluation.trilemma_figure import COLOURS, MARKERS, draw_figure, shorten

Picture = Image.Image | str | Path


def write_report(comparison: Comparison, folder: str | Path, grids: Mapping[str, Picture]) -> list[Path]:
    """Write comparison.json, .csv, .md, .png and .html, each in one step: a reader never sees half a file.

    The numbers are written first, so that they survive whatever keeps the figure from being drawn.

    Args:
        comparison: What was measured.
        folder: Made if it does not exist; files of these names are replaced.
        grids: Sample grids by name of the row, as pictures or paths; rows may lack one.

    Returns:
        The paths, in the order above.

    Raises:
        ImportError: if matplotlib is not installed.
        ValueError: if a grid is of no row.
    """
    if unknown := set(grids) - {row.name for row in comparison.rows}:
        raise ValueError(f"these grids are of no row of the comparison: {', '.join(sorted(unknown))}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def write(name: str, content: str | bytes) -> None:
        # A name taken from the file system may hold what UTF-8 cannot say.
        data = content if isinstance(content, bytes) else content.encode("utf-8", "replace")
        written.append(_replace(folder / name, data))

    write("comparison.json", comparison.to_json())
    write("comparison.csv", comparison.to_csv())
    write("comparison.md", comparison.to_markdown())
    figure = draw_figure(comparison)
    write("comparison.png", figure)
    write("comparison.html", render_page(comparison, grids, figure))
    return written


def _replace(path: Path, data: bytes) -> Path:
    with replacing(path) as aside:
        aside.write_bytes(data)
    return path


def render_page(comparison: Comparison, grids: Mapping[str, Picture], figure: bytes) -> str:
    """The page as one HTML file: pictures, script and numbers are inside, and its own policy forbids any request.

    Args:
        comparison: What was measured.
        grids: Sample grids by name of the row.
        figure: PNG for readers without scripts.
    """
    environment = Environment(
        loader=PackageLoader("hf_genzoo.evaluation", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.policies["json.dumps_kwargs"] = {"sort_keys": False}  # the order of menus and of the panel
    environment.filters["fingerprint"] = _script_fingerprint
    keys = comparison.measured_keys()
    found = verdicts(comparison)
    return environment.get_template("trilemma.html").render(
        comparison=comparison,
        keys=keys,
        quantity=quantity,
        shown_unit=shown_unit,
        axes=("quality", "coverage", "speed"),
        verdicts={axis: [v.text for v in found if v.axis == axis] for axis in ("quality", "coverage", "speed")},
        warnings=baseline_warnings(comparison),
        grids={name: _embedded(grid) for name, grid in grids.items()},
        figure=base64.b64encode(figure).decode(),
        data=_page_data(comparison, keys),
    )


def _page_data(comparison: Comparison, keys: list[str]) -> dict[str, Any]:
    """What the page's script draws from."""
    abouts = {key: quantity(key) for key in keys}
    models = [row.name for row in comparison.models]
    rows = []
    for row in comparison.rows:
        values = {}
        for key in keys:
            if found := row.measured(key):
                low, high = found.interval or (None, None)
                values[key] = {
                    "value": found.value,
                    "low": low,
                    "high": high,
                    "text": f"{row.text(key)} {shown_unit(key)}".strip(),
                }
        number = models.index(row.name) if row.kind == "model" else None
        rows.append(
            {
                "name": row.name,
                "short": shorten(row.name, 22),
                "about": f"{row.kind}, {row.family}" if row.family else row.kind,
                "seeds": row.num_seeds,
                "colour": None if number is None else number % len(COLOURS),
                "marker": 0 if number is None else number % len(MARKERS),
                "values": values,
            }
        )
    axes = {
        key: {"title": about.title, "unit": about.unit, "direction": about.direction, "log": about.log}
        for key, about in abouts.items()
    }
    quality, _, speed = comparison.headlines
    start = {"x": speed if speed in keys else keys[-1], "y": quality if quality in keys else keys[0]}
    return {"rows": rows, "axes": axes, **start}


def _embedded(picture: Picture) -> str:
    """A picture as base64 of a PNG, written anew: whatever else a file holds stays out of the page."""
    image = picture if isinstance(picture, Image.Image) else Image.open(picture)
    stream = io.BytesIO()
    image.convert("RGB").save(stream, format="PNG", optimize=True)
    return base64.b64encode(stream.getvalue()).decode()


def _script_fingerprint(script: Markup) -> str:
    """How a content security policy names the one script that may run."""
    return base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode()
