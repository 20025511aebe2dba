"""The measured part of a card: tables and metadata out of `results.json`, between two marks that let it be renewed.

`results.json` is what `genzoo evaluate` writes (`hf_genzoo.evaluation.protocol.describe`).
"""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from hf_genzoo.evaluation.metrics import METRICS, QUALITY
from hf_genzoo.hub.card_data import public_name

RESULTS = "results.json"
FORMAT = 1
BEGIN = "<!-- measured: by `genzoo evaluate`, which renews this part -->"
END = "<!-- end of what was measured -->"

_CONDITIONS = ("interval", "num_samples", "seed", "extractor", "extractor_hash")
_SECTION = re.compile(rf"{re.escape(BEGIN)}.*?{re.escape(END)}", re.DOTALL)
_CALIBRATED = (
    "coverage",
    "frechet_ratio",
    "kernel_distance",
    "precision",
    "classifier_test_accuracy",
    "nearest_ratio",
    "super_resolution_psnr",
    "super_resolution_ssim",
    "low_resolution_consistency",
    "modes",
    "high_quality",
    "reverse_kl",
    "wasserstein_2",
)


class ResultsError(ValueError):
    """results.json does not hold measured numbers."""


def read_results(folder: Path) -> dict[str, Any] | None:
    """The results in a folder, or None where nothing was measured.

    Raises:
        ResultsError: if the file is damaged, of another format, or holds a number that is not finite.
    """
    path = folder / RESULTS
    if not path.is_file():
        return None
    try:
        results = json.loads(path.read_text(encoding="utf-8"))
        if results["format"] != FORMAT:
            raise ResultsError(
                f"{path} has format {results['format']!r}, not {FORMAT}: measure again (genzoo evaluate)"
            )
        for row in results["metrics"]:
            _check_row(row, str(path))
        for baseline in results["calibration"]:
            for row in baseline["metrics"]:
                _check_row(row, f"{path}, {baseline['name']}")
    except (KeyError, TypeError, json.JSONDecodeError) as error:
        raise ResultsError(f"{path} was not written by `genzoo evaluate`: {error!r}") from error
    return results


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; True and False are none."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _check_row(row: Mapping[str, Any], where: str) -> None:
    name, interval = row["name"], row["interval"]
    if name not in METRICS:
        raise ResultsError(f"{where}: unknown metric {name!r}")
    if not is_number(row["value"]):
        raise ResultsError(f"{where}: metric {name!r} was not measured, its value is {row['value']!r}")
    if interval is not None and not (len(interval) == 2 and all(map(is_number, interval))):
        raise ResultsError(f"{where}: metric {name!r} has the interval {interval!r}, not two numbers")


def eval_results(results: Mapping[str, Any], task_type: str) -> list[EvalResult]:
    """The numbers as the Hub's `model-index` takes them: one entry a metric and extractor."""
    return [
        EvalResult(
            task_type=task_type,
            dataset_type=public_name(row["dataset"]),
            dataset_name=public_name(row["dataset"]),
            dataset_split=row["split"],
            metric_type=row["name"],
            metric_name=full_title(row),
            metric_value=row["value"],
            metric_args={name: row[name] for name in _CONDITIONS if row[name] is not None},
        )
        for row in results["metrics"]
    ]


def full_title(row: Mapping[str, Any]) -> str:
    """Title of a metric with its extractor."""
    title = METRICS[row["name"]].title
    return f"{title} ({row['extractor']})" if row["extractor"] else title


def tables(results: Mapping[str, Any]) -> dict[str, Any]:
    """What the template of the measured part shows."""
    rows, headline = results["metrics"], results["protocol"]["headline"]
    extractors = [extractor["name"] for extractor in results["protocol"]["extractors"]]
    of_features = [row for row in rows if row["extractor"] in extractors and row["name"] != "nearest_ratio"]
    shown = list(dict.fromkeys(row["name"] for row in of_features))
    compared = [{"name": "**this model**", "metrics": rows}, *results["calibration"]]
    columns = [name for name in _CALIBRATED if _find(rows, name, _home(name, headline))]
    return {
        "extractors": extractors,
        "by_extractor": [(METRICS[name], [_find(of_features, name, e) for e in extractors]) for name in shown],
        "others": [(METRICS[row["name"]], row) for row in rows if row not in of_features],
        "columns": [METRICS[name] for name in columns],
        "compared": [
            (row["name"], [_find(row["metrics"], n, _home(n, headline)) for n in columns]) for row in compared
        ],
        "headline": _find(rows, headline["name"], headline["extractor"]),
        "real": _find(results["calibration"][0]["metrics"], headline["name"], headline["extractor"]),
        "quality": _find(rows, QUALITY, headline["extractor"]),
        "meanings": [METRICS[name] for name in dict.fromkeys(row["name"] for row in rows)],
    }


def _home(name: str, headline: Mapping[str, Any]) -> str | None:
    """The extractor whose number the table of calibration rows shows; copying has an extractor of its own."""
    return None if name == "nearest_ratio" else headline["extractor"]


def _find(rows: Sequence[Mapping[str, Any]], name: str, extractor: str | None) -> Mapping[str, Any] | None:
    return next((r for r in rows if r["name"] == name and extractor in (None, r["extractor"])), None)


def renew(card: str, section: str, metadata: ModelCardData) -> str:
    """A card with its measured part and its results replaced; the rest of text and metadata stays as it is.

    Args:
        card: Text of a README, ours or anyone's.
        section: The new part, between its marks.
        metadata: Holds the new results, and a model's name where the card has none.
    """
    renewed, times = _SECTION.subn(lambda _: section, card)
    parsed = ModelCard(renewed if times else f"{card.rstrip()}\n\n{section}\n")
    data: Any = parsed.data
    data.eval_results = metadata.eval_results
    data.model_name = data.get("model_name") or metadata.model_name
    return str(parsed)
