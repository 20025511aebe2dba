"""The checks that the Hub makes of a card's front matter when it is pushed, as far as they are documented.

Source: "Model Cards" and "Dataset Cards" of the Hub's documentation, and the metadata specification linked there
(modelcard.md and datasetcard.md in hub-docs).
"""

from typing import Any

import yaml

LICENCES = frozenset(
    [
        "apache-2.0",
        "mit",
        "openrail",
        "bigscience-openrail-m",
        "creativeml-openrail-m",
        "bigscience-bloom-rail-1.0",
        "bigcode-openrail-m",
        "afl-3.0",
        "artistic-2.0",
        "bsl-1.0",
        "bsd",
        "bsd-2-clause",
        "bsd-3-clause",
        "bsd-3-clause-clear",
        "c-uda",
        "cc",
        "cc0-1.0",
        "cc-by-2.0",
        "cc-by-2.5",
        "cc-by-3.0",
        "cc-by-4.0",
        "cc-by-sa-3.0",
        "cc-by-sa-4.0",
        "cc-by-nc-2.0",
        "cc-by-nc-3.0",
        "cc-by-nc-4.0",
        "cc-by-nd-4.0",
        "cc-by-nc-nd-3.0",
        "cc-by-nc-nd-4.0",
        "cc-by-nc-sa-2.0",
        "cc-by-nc-sa-3.0",
        "cc-by-nc-sa-4.0",
        "cdla-sharing-1.0",
        "cdla-permissive-1.0",
        "cdla-permissive-2.0",
        "wtfpl",
        "ecl-2.0",
        "epl-1.0",
        "epl-2.0",
        "etalab-2.0",
        "eupl-1.1",
        "eupl-1.2",
        "agpl-3.0",
        "gfdl",
        "gpl",
        "gpl-2.0",
        "gpl-3.0",
        "lgpl",
        "lgpl-2.1",
        "lgpl-3.0",
        "isc",
        "lppl-1.3c",
        "ms-pl",
        "mpl-2.0",
        "odc-by",
        "odbl",
        "openmdw-1.0",
        "osl-3.0",
        "postgresql",
        "ofl-1.1",
        "ncsa",
        "unlicense",
        "zlib",
        "pddl",
        "unknown",
        "other",
    ]
)
TASKS = frozenset(
    [
        "unconditional-image-generation",
        "text-to-image",
        "image-to-image",
        "image-text-to-text",
        "image-to-text",
        "text-to-3d",
        "image-to-3d",
        "image-classification",
        "image-segmentation",
        "image-feature-extraction",
        "depth-estimation",
        "text-to-video",
        "image-to-video",
        "video-to-video",
        "text-generation",
        "text-to-audio",
        "text-to-speech",
        "tabular-classification",
        "tabular-regression",
        "mask-generation",
        "object-detection",
        "zero-shot-image-classification",
        "other",
    ]
)
SDKS = ("gradio", "docker", "static", "streamlit")
COLOURS = ("red", "yellow", "green", "blue", "indigo", "purple", "pink", "gray")


def problems(content: str, kind: str) -> list[str]:
    """What the Hub would refuse in a README.

    Args:
        content: The whole file, or its front matter only.
        kind: "model", "dataset" or "space".
    """
    parts = content.split("---\n")
    text = parts[1] if content.startswith("---\n") and len(parts) > 2 else content
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        return [f"the front matter is no YAML: {error}"]
    if not isinstance(data, dict):
        return ["the front matter is no mapping"]
    found = _plain_fields(data)
    if kind == "model":
        found += _model_index(data)
    if kind == "space":
        found += _space(data)
    return found


def _plain_fields(data: dict[str, Any]) -> list[str]:
    found = []
    licence = data.get("license")
    for value in licence if isinstance(licence, list) else [licence] if licence is not None else []:
        if value not in LICENCES:
            found.append(f'"license" must be one of the Hub\'s identifiers, not {value!r}')
    if "pipeline_tag" in data and data["pipeline_tag"] not in TASKS:
        found.append(f'"pipeline_tag" {data["pipeline_tag"]!r} is no task of the Hub')
    for name in ("tags", "datasets", "task_categories", "size_categories", "metrics"):
        value = data.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, str) for item in value)):
            found.append(f'"{name}" must be a list of strings')
    for name in ("library_name", "thumbnail", "title"):
        if name in data and not isinstance(data[name], str):
            found.append(f'"{name}" must be a string')
    for value in data.get("datasets") or []:
        if "/" in value and value.count("/") != 1:
            found.append(f'"datasets" holds {value!r}, which is no repository')
    for entry in data.get("widget") or []:
        if not isinstance(entry, dict):
            found.append('"widget" must be a list of mappings')
    return found


def _model_index(data: dict[str, Any]) -> list[str]:
    index = data.get("model-index")
    if index is None:
        return []
    if not isinstance(index, list) or not index:
        return ['"model-index" must be a list']
    found = []
    for model in index:
        if not isinstance(model, dict) or not isinstance(model.get("name"), str):
            found.append('"model-index[].name" is required')
            continue
        for result in model.get("results") or []:
            found += _result(result)
        if not isinstance(model.get("results"), list):
            found.append('"model-index[].results" must be a list')
    return found


def _result(result: Any) -> list[str]:
    found = []
    if not isinstance(result, dict) or not isinstance((result.get("task") or {}).get("type"), str):
        return ['"model-index[].results[].task.type" is required']
    dataset = result.get("dataset") or {}
    for name in ("type", "name"):
        if not isinstance(dataset.get(name), str):
            found.append(f'"model-index[].results[].dataset.{name}" is required')
    metrics = result.get("metrics")
    if not isinstance(metrics, list) or not metrics:
        return [*found, '"model-index[].results[].metrics" is required']
    for metric in metrics:
        if not isinstance(metric.get("type"), str):
            found.append('"model-index[].results[].metrics[].type" is required')
        if not isinstance(metric.get("value"), int | float | str):
            found.append(f'"model-index[].results[].metrics[].value" is {metric.get("value")!r}')
    return found


def _space(data: dict[str, Any]) -> list[str]:
    found = []
    if data.get("sdk") not in SDKS:
        found.append(f'"sdk" must be one of {", ".join(SDKS)}, not {data.get("sdk")!r}')
    for name in ("colorFrom", "colorTo"):
        if name in data and data[name] not in COLOURS:
            found.append(f'"{name}" must be one of {", ".join(COLOURS)}')
    if "emoji" in data and not isinstance(data["emoji"], str):
        found.append('"emoji" must be a string')
    if len(str(data.get("short_description", ""))) > 60:
        found.append('"short_description" must have at most 60 characters')
    return found
