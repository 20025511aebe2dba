"""The generative trilemma: quality, coverage and speed of several models on one footing, and what may be said of it.

Papers
- Xiao, Kreis & Vahdat 2022, "Tackling the Generative Learning Trilemma with Denoising Diffusion GANs": the three axes.
- Schenker & Gentleman 2001, "On Judging the Significance of Differences by Examining the Overlap Between Confidence
  Intervals": the rule of the verdicts is a cautious one.

Nothing is measured here. Rows of numbers come in; verdicts, Markdown, CSV and JSON go out. The figure and the page are
in `trilemma_figure` and `trilemma_page`.
"""

import csv
import io
import json
import math
import re
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from itertools import combinations
from typing import Any, Literal

from hf_genzoo.evaluation.metrics import COVERAGE, METRICS, MIXTURE, QUALITY, Quantity

Axis = Literal["quality", "coverage", "speed"]


COSTS: dict[str, Quantity] = {
    "ms_per_image": Quantity(
        "Time per image", "ms", "lower", None, "Time to generate one picture on the device named here.", log=True
    ),
    "nfe": Quantity(
        "Evaluations per image",
        "",
        "lower",
        None,
        "How often a network is run for one picture, counted during sampling (NFE).",
        log=True,
    ),
    "parameters": Quantity("Parameters", "", "lower", None, "Numbers that training has set.", log=True),
    "training_seconds": Quantity("Training time", "s", "lower", None, "Wall-clock time of the training.", log=True),
    "training_images": Quantity(
        "Training images", "", "lower", None, "Pictures shown during training, repeats counted.", log=True
    ),
}


def quantity(key: str) -> Quantity:
    """What the number under this key is; "coverage@pixels" is the coverage by another extractor's features.

    Raises:
        KeyError: if there is no such quantity.
    """
    name, _, extractor = key.partition("@")
    known = {**METRICS, **COSTS}[name]
    return replace(known, title=f"{known.title} ({extractor})") if extractor else known


@dataclass(frozen=True)
class Measured:
    """A number and its 95 % interval, if it has one."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def interval(self) -> tuple[float, float] | None:
        return None if self.low is None or self.high is None else (self.low, self.high)

    def __str__(self) -> str:
        """As many digits as the interval supports: "3.1 [2.9, 3.4]"."""
        if self.interval is None:
            return _short(self.value)
        low, high = self.interval
        if max(abs(low), abs(high)) < 1e-3 or high == low:
            return f"{_short(self.value)} [{_short(low)}, {_short(high)}]"
        # The half-width is at least two units of the last digit.
        digits = min(6, max(0, math.ceil(math.log10(4 / (high - low)))))
        return f"{self.value:,.{digits}f} [{low:,.{digits}f}, {high:,.{digits}f}]"


def _short(value: float) -> str:
    """Three significant digits, and no exponent for large numbers: 0.0241, 12.3, 1,234."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.3g}"


@dataclass(frozen=True)
class Row:
    """What was measured of one model, or of one source of pictures that shows what the numbers mean.

    Attributes:
        name: What the user calls it; names are unique within a comparison.
        kind: A "model" is judged; a "calibration" row (real pictures, copies, simple generators) is a yardstick.
        family: Name in `hf_genzoo.families`, if it is one of them.
        metrics: By key of `METRICS`; another extractor than the headline one is appended: "coverage@pixels".
        ms_per_image: Time per generated picture; calibration rows have none.
        nfe: Network evaluations per generated picture, counted.
        parameters: Trained numbers.
        training_seconds: Wall-clock time of the training.
        training_images: Pictures shown during training, repeats counted.
        num_seeds: Independent draws behind the numbers.

    Raises:
        ValueError: if a number is not finite, or not possible; the message names the row and the quantity.
    """

    name: str
    kind: Literal["model", "calibration"] = "model"
    family: str | None = None
    metrics: dict[str, Measured] = field(default_factory=dict)
    ms_per_image: Measured | None = None
    nfe: float | None = None
    parameters: int | None = None
    training_seconds: float | None = None
    training_images: int | None = None
    num_seeds: int = 1

    def __post_init__(self) -> None:
        if self.kind not in ("model", "calibration"):
            raise ValueError(f"{self.name}: a row is a model or a calibration, not {self.kind!r}")
        for key in self.metrics:
            if key.partition("@")[0] not in METRICS:
                raise ValueError(f"{self.name}: {key!r} is not in hf_genzoo.evaluation.metrics.METRICS")
        for key in (*self.metrics, *COSTS):
            found = self.measured(key)
            if found is None:
                continue
            if (found.low is None) != (found.high is None):
                raise ValueError(f"{self.name}: the interval of {key} has one end only")
            numbers = (found.value, *(found.interval or ()))
            if not all(math.isfinite(number) for number in numbers):
                raise ValueError(f"{self.name}: {key} is {numbers}: a report holds finite numbers only")
            if found.interval and found.interval[0] > found.interval[1]:
                raise ValueError(f"{self.name}: the interval of {key} ends before it starts: {found.interval}")
            if key in COSTS and found.value < 0:
                raise ValueError(f"{self.name}: {key} is {found.value}: a cost is not negative")

    def measured(self, key: str) -> Measured | None:
        """The metric or cost of this key, None where it was not measured."""
        found = getattr(self, key) if key in COSTS else self.metrics.get(key)
        return found if found is None or isinstance(found, Measured) else Measured(float(found))

    def text(self, key: str) -> str:
        """The number with its interval for a table, "–" where there is none."""
        found = self.measured(key)
        if found is None:
            return "–"
        if key == "parameters" or key == "training_images":
            return _count(found.value)
        return _duration(found.value) if key == "training_seconds" else str(found)


def _count(number: float) -> str:
    """812, 25.3 k, 3.94 M."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.0f}"


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


@dataclass(frozen=True)
class Comparison:
    """Rows that were measured in the same way, and that way.

    Attributes:
        dataset: Name of the data set.
        split: Its split that the samples were compared with.
        fingerprint: Of the pictures themselves.
        resolution: Side of the pictures in pixels.
        num_samples: Pictures of each kind that every metric saw.
        seeds: Of the draws.
        extractors: What turned pictures into features; the first one is behind the headline metrics.
        device: What the models were timed on.
        versions: Of packages, by name.
        sampling: How each model was drawn from, by its row's name.
        rows: Models and calibration rows, in the order of the tables.
        headline: Key of the metric that stands for quality.
        headline_coverage: Key of the metric that stands for coverage.

    Raises:
        ValueError: if names repeat, an extractor is not listed, or a headline metric has no better and worse.
    """

    dataset: str
    split: str
    fingerprint: str
    resolution: int
    num_samples: int
    seeds: tuple[int, ...]
    extractors: tuple[str, ...]
    device: str
    versions: dict[str, str]
    rows: tuple[Row, ...]
    sampling: dict[str, str] = field(default_factory=dict)
    headline: str = QUALITY
    headline_coverage: str = COVERAGE

    def __post_init__(self) -> None:
        names = [row.name for row in self.rows]
        if repeated := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"rows need names of their own, but these repeat: {', '.join(sorted(repeated))}")
        for row in self.rows:
            for key in row.metrics:
                extractor = key.partition("@")[2]
                if extractor and extractor not in self.extractors:
                    raise ValueError(f"{row.name}: {key} is by an extractor that is not among {self.extractors}")
        for key in (self.headline, self.headline_coverage):
            if key.partition("@")[0] not in METRICS or quantity(key).better == "ideal":
                raise ValueError(f"{key!r} cannot be a headline metric: it says not which of two values is better")
        if not self.measured_keys():
            raise ValueError("a comparison needs at least one row with a number")

    @property
    def models(self) -> list[Row]:
        return [row for row in self.rows if row.kind == "model"]

    @property
    def headlines(self) -> list[str]:
        """Keys of the three axes: quality, coverage, speed."""
        return [self.headline, self.headline_coverage, "ms_per_image"]

    def measured_keys(self) -> list[str]:
        """Keys of everything that some row has: the three axes, the costs, then the other metrics."""
        extras = sorted({key for row in self.rows for key in row.metrics if "@" in key})
        keys = dict.fromkeys([*self.headlines, *COSTS, *METRICS, *extras])
        return [key for key in keys if any(row.measured(key) for row in self.rows)]

    def title(self) -> str:
        count = len(self.models)
        return f"Quality, coverage and speed of {count} model{'s' * (count != 1)} on {self.dataset}"

    def protocol(self) -> list[tuple[str, str]]:
        """How everything was measured, as pairs of a term and what it was."""
        others = ", ".join(self.extractors[1:])
        return [
            ("Data", f"{self.dataset}, split {self.split}, {self.resolution} × {self.resolution} pixels"),
            ("Fingerprint of the pictures", self.fingerprint),
            ("Samples", f"{self.num_samples:,} pictures of each kind for every number"),
            ("Seeds", ", ".join(map(str, self.seeds))),
            ("Features", self.extractors[0] + (f"; also {others}" if others else "") if self.extractors else "none"),
            *((f"Sampling of {name}", how) for name, how in self.sampling.items()),
            ("Timed on", self.device),
            (
                "Brackets",
                "95 % intervals. Two models are called different only where their intervals do not even touch, a"
                " cautious rule: intervals that overlap do not show that models are equal.",
            ),
            ("Versions", ", ".join(f"{name} {version}" for name, version in self.versions.items())),
        ]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> "Comparison":
        """What `to_json` wrote.

        Raises:
            ValueError: if the text is not a comparison.
        """
        try:
            found: dict[str, Any] = json.loads(text)
            rows = []
            for row in found.pop("rows"):
                speed = row.pop("ms_per_image")
                metrics = {key: Measured(**value) for key, value in row.pop("metrics").items()}
                rows.append(Row(**row, metrics=metrics, ms_per_image=Measured(**speed) if speed else None))
            seeds, extractors = tuple(found.pop("seeds")), tuple(found.pop("extractors"))
            return cls(**found, rows=tuple(rows), seeds=seeds, extractors=extractors)
        except (AttributeError, KeyError, TypeError) as error:
            raise ValueError(f"this is not the JSON of a comparison: {error!r}") from error

    def to_csv(self) -> str:
        """One line for each number: row, key, value, interval."""
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(["name", "kind", "family", "num_seeds", "metric", "unit", "better", "value", "low", "high"])
        for row in self.rows:
            for key in self.measured_keys():
                if found := row.measured(key):
                    about = quantity(key)
                    head = [row.name, row.kind, row.family, row.num_seeds, key, about.unit, about.better]
                    writer.writerow([*head, found.value, found.low, found.high])
        return stream.getvalue()

    def to_markdown(self) -> str:
        """The report as text; it shows `comparison.png` beside it."""
        axes = self.headlines
        main = [key for key in self.measured_keys() if key in axes or key in COSTS]
        others = [key for key in self.measured_keys() if key not in main and "@" not in key]
        parts = [f"# {markdown_text(self.title())}", "![Quality and coverage against time per image](comparison.png)"]
        parts += [self._table(main)]
        if len(self.models) < len(self.rows):
            parts += ["Rows in italics are no models: they show what the numbers mean."]
        if warnings := baseline_warnings(self, markdown_text):
            parts += ["## Warnings", _bullets(warnings)]
        found = verdicts(self, markdown_text)
        for axis in ("quality", "coverage", "speed"):
            if texts := [verdict.text for verdict in found if verdict.axis == axis]:
                parts += [f"## Verdicts on {axis}", _bullets(texts)]
        if others:
            parts += ["## Other measures", self._table(others)]
        if len(self.extractors) > 1:
            parts += [
                f"`comparison.csv` has the same by {', '.join(map(markdown_text, self.extractors[1:]))} features."
            ]
        parts += ["## What the columns mean"]
        abouts = [quantity(key) for key in self.measured_keys() if "@" not in key]
        parts += [_bullets(f"**{markdown_text(q.title)}** ({q.direction}): {q.explanation}" for q in abouts)]
        parts += ["## How it was measured"]
        parts += [_bullets(f"**{markdown_text(term)}**: {markdown_text(what)}" for term, what in self.protocol())]
        return "\n\n".join(parts) + "\n"

    def _table(self, keys: list[str]) -> str:
        titles = [quantity(key).title + (f" ({unit})" if (unit := shown_unit(key)) else "") for key in keys]
        lines = [["", *map(markdown_text, titles), "Seeds"], ["---", *["---:"] * (len(keys) + 1)]]
        for row in self.rows:
            name = markdown_text(row.name)
            cells = [row.text(key) for key in keys]
            lines.append([name if row.kind == "model" else f"*{name}*", *cells, str(row.num_seeds)])
        return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def shown_unit(key: str) -> str:
    """The unit a column's title has to name; durations carry their own."""
    return "" if key == "training_seconds" else quantity(key).unit


def _bullets(texts: Iterable[str]) -> str:
    return "\n".join(f"- {text}" for text in texts)


def markdown_text(text: str) -> str:
    """Text that Markdown shows as it is, also within a table: one line, nothing in it is markup."""
    text = re.sub(r"[\\`*\[\]|~$]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])", r"\\\g<0>", " ".join(text.split()))
    text = re.sub(r"^(\d*)([-+#=.)])", r"\1\\\2", text)  # would begin a heading or a list
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


@dataclass(frozen=True)
class Verdict:
    """What may be said of two models on one axis.

    Attributes:
        axis: "quality", "coverage" or "speed".
        models: Names of the two.
        better: The one that is better, None where no difference is shown.
        text: A sentence with the numbers.
    """

    axis: Axis
    models: tuple[str, str]
    better: str | None
    text: str


def _apart(a: Measured, b: Measured) -> bool:
    """Whether the intervals do not touch; a number without an interval is not apart from any."""
    if a.interval is None or b.interval is None:
        return False
    return a.interval[1] < b.interval[0] or b.interval[1] < a.interval[0]


def _beats(a: Measured, b: Measured, key: str) -> bool:
    return a.value < b.value if quantity(key).better == "lower" else a.value > b.value


def _numbers(key: str, first: Measured, second: Measured) -> str:
    about = quantity(key)
    return f"{about.title} {first} against {second}" + (f" {about.unit}" if about.unit else "")


def verdicts(comparison: Comparison, show: Callable[[str], str] = str) -> list[Verdict]:
    """Every pair of models on every axis: which is better, as far as the intervals show it.

    Args:
        comparison: The rows; calibration rows are not judged.
        show: Escapes a name for the text of the verdict.
    """
    axes: list[Axis] = ["quality", "coverage", "speed"]
    pairs = list(combinations(comparison.models, 2))
    return [
        _verdict(axis, key, *pair, show)
        for axis, key in zip(axes, comparison.headlines, strict=True)
        for pair in pairs
    ]


def _verdict(axis: Axis, key: str, first: Row, second: Row, show: Callable[[str], str]) -> Verdict:
    names = (first.name, second.name)
    a, b = first.measured(key), second.measured(key)
    if a is None or b is None:
        missing = " and ".join(show(row.name) for row in (first, second) if row.measured(key) is None)
        what = f"{axis} of {show(names[0])} and {show(names[1])} is not compared: {quantity(key).title}"
        return Verdict(axis, names, None, f"{what} was not measured for {missing}")
    if not _apart(a, b):
        text = f"no difference in {axis} shown between {show(names[0])} and {show(names[1])}: {_numbers(key, a, b)}"
        if bare := [show(name) for name, value in zip(names, (a, b), strict=True) if value.interval is None]:
            text += f" (no interval for {' and '.join(bare)})"
        return Verdict(axis, names, None, text)
    if not _beats(a, b, key):
        first, second, a, b = second, first, b, a
    says = "is faster than" if axis == "speed" else f"has better {axis} than"
    text = f"{show(first.name)} {says} {show(second.name)}: {_numbers(key, a, b)}"
    return Verdict(axis, names, first.name, text)


def baseline_warnings(comparison: Comparison, show: Callable[[str], str] = str) -> list[str]:
    """Models that are not better than the row named `MIXTURE` by the headline metric; none without such a row."""
    key = comparison.headline
    baseline = next((row for row in comparison.rows if row.name == MIXTURE), None)
    bar = baseline.measured(key) if baseline else None
    warnings = []
    for row in comparison.models:
        found = row.measured(key)
        if bar is None or found is None or (_apart(found, bar) and _beats(found, bar, key)):
            continue
        says = "is not shown to be better than" if _beats(found, bar, key) else "loses to"
        what = "a generator without any network"
        warnings.append(f"{show(row.name)} {says} {show(MIXTURE)}, {what}: {_numbers(key, found, bar)}")
    return warnings
