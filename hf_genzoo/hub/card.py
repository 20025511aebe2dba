"""Render a family's model card. Prose is written by hand in `model_cards/<family>.md`; numbers are never typed there,
except a paper's own, with where they stand.

Every number of the model comes from `training` (what the run recorded) or from `results.json` in the folder (what was
measured). A value that the template asks for and nobody recorded is an error, not an empty cell.

`training` holds: family, command, args, steps, images_seen, seconds, loss (a number, {name: number} or None), versions
{package: version}, data {name, fingerprint, num_samples (None when streamed), split}, git_revision, parameters
{network: count}, device, seed, sample_grid (a picture's name in the folder, or None), sampling (the scheduler's name
and the arguments of the call that drew the grid; may be missing).
"""

import json
import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard, ModelCardData
from jinja2 import UndefinedError

from hf_genzoo.atomic import replacing
from hf_genzoo.families import FAMILIES, Family, get_family
from hf_genzoo.hub.card_data import data_kind, data_note, hub_dataset
from hf_genzoo.hub.card_templates import CardError, quoted, template
from hf_genzoo.hub.layout import CARD, INDEX, Index, code_files, read_index
from hf_genzoo.hub.load_calls import with_revision
from hf_genzoo.hub.measured import BEGIN, END, RESULTS, eval_results, read_results, renew, tables
from hf_genzoo.hub.paper import budget, compared_family, comparison, renew_comparison

IMAGE_TASK, TEXT_TASK, EDIT_TASK = "unconditional-image-generation", "text-to-image", "image-to-image"
LICENSE = "apache-2.0"

_LOCATION = re.compile(r"<!-- location: (\".*\") -->")
_PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")


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
    facts = _facts(about, folder, index)
    sampling = (training or {}).get("sampling") or {}
    context = {
        **facts,
        "location": str(folder),
        "training": training,
        "sampling": sampling,
        "options": {name: value for name, value in sampling.items() if name != "scheduler" and value is not None},
        "measured": _measured(results),
        "grid": grid,
        "data_kind": data_kind(training),
        "data_note": data_note(training),
        "budget": partial(budget, training),
        "comparison": comparison(about.name, facts, results),
    }
    try:
        body = template(f"{about.name}.md").render(context)
    except (UndefinedError, KeyError) as error:
        raise CardError(f"the card of {about.name} states a value that was not recorded: {error}") from error
    head = _metadata(about, index, training, results)
    card = f"---\n{head.to_yaml()}\n---\n\n{body.strip()}\n\n<!-- location: {quoted(folder)} -->\n"
    return unpinned(card)


def _facts(family: Family, folder: Path, index: Index) -> dict[str, Any]:
    """What any part of a family's template may ask for."""
    return {
        "family": family,
        "class_name": index.pipeline[1],
        "components": index.components,
        "coded": bool(code_files(folder, index)),
        "settings": {name: value for name, value in index.raw.items() if name not in index.components},
        "modality": modality(family, index),
    }


def update_card(folder: Path) -> None:
    """Renew the measured parts of a folder's card from its `results.json`, and nothing else of it.

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
        eval_results=eval_results(results, _task_of_card(path, index) if is_image else "other"),
    )
    if path.is_file():
        card = path.read_text(encoding="utf-8")
    else:
        head = ModelCardData(library_name="diffusers", pipeline_tag=_task(index, None) if is_image else None)
        body = template("_plain.md").render(name=folder.resolve().name, location=str(folder))
        card = f"---\n{head.to_yaml()}\n---\n\n{body.strip()}\n"
    if (family := compared_family(card)) in FAMILIES:
        facts = _facts(get_family(family), folder, index)
        card = renew_comparison(card, comparison(family, facts, results))
    with replacing(path) as aside:
        aside.write_text(renew(card, _measured(results), metadata), encoding="utf-8")


def _task_of_card(path: Path, index: Index) -> str:
    """The task that a card names, if it does."""
    found = ModelCard(path.read_text(encoding="utf-8")).data.get("pipeline_tag") if path.is_file() else None
    return found or _task(index, None)


def _measured(results: Mapping[str, Any] | None) -> str:
    """The measured part of a card between its marks; without results the marks alone, for later."""
    if results is None:
        return f"{BEGIN}\n{END}"
    body = template("_measured.md").render(results=results, **tables(results))
    return f"{BEGIN}\n\n{body.strip()}\n\n{END}"


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
    card = unpinned(card).replace(found[1], quoted(repo_id))
    if (grid := _PICTURE.search(card)) is not None:
        parsed = ModelCard(card)
        parsed.data["thumbnail"] = f"{url}/{grid[1]}"
        card = str(parsed)
    return unpinned(card)  # with the new name a call may fit on one line, or no longer


def pin(card: str, revision: str) -> str:
    """The card with `revision="..."` in every call of its code blocks that loads this model.

    Idempotent; another revision replaces the one before. A card that was not rendered here is left as it is.

    Args:
        card: Text of a README, relocated or not.
        revision: Commit that readers should load.
    """
    return _with_revision(card, revision)


def unpinned(card: str) -> str:
    """The card without the revisions of `pin`: `unpinned(pin(card, sha)) == unpinned(card)`."""
    return _with_revision(card, None)


def _with_revision(card: str, revision: str | None) -> str:
    found = _LOCATION.search(card)
    return card if found is None else with_revision(card, json.loads(found[1]), revision)


def modality(family: Family, index: Index) -> str:
    """What this repository generates: "image" or "points2d", where the family does both by its network's kind."""
    kinds = family.modality.split(",")
    dense = any("MLP" in class_name for _, class_name in index.components.values())
    return "points2d" if "points2d" in kinds and (dense or len(kinds) == 1) else kinds[0]


def _task(index: Index, takes: str | None) -> str:
    """The Hub's name for what a pipeline of pictures does, which must be given `takes`."""
    if "text_encoder" in index.components:
        return TEXT_TASK
    return EDIT_TASK if takes == "image" else IMAGE_TASK


def _metadata(
    family: Family, index: Index, training: Mapping[str, Any] | None, results: Mapping[str, Any] | None
) -> ModelCardData:
    task = _task(index, family.takes) if modality(family, index) == "image" else None
    tags = ["diffusers", "hf_genzoo", family.name, "generative-model"]
    dataset = hub_dataset(training)
    grid = (training or {}).get("sample_grid")
    return ModelCardData(
        library_name="diffusers",
        license=LICENSE,
        pipeline_tag=task,
        tags=tags,
        datasets=[dataset] if dataset else None,
        widget=[{"text": f"Sample grid, seed {training['seed']}", "output": {"url": grid}}]
        if training and grid
        else None,
        model_name=f"{family.name} ({index.pipeline[1]})" if results else None,
        eval_results=eval_results(results, task or "other") if results else None,
    )


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
