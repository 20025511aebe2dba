"""The templates of `model_cards/`, and how they write numbers, names and commands.

A filter that is given something else than a finite number raises instead of writing it.
"""

import json
import math
import re
import shlex
from collections.abc import Iterable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, FunctionLoader, StrictUndefined, Template, TemplateNotFound, Undefined

from hf_genzoo.hub.card_data import public_name
from hf_genzoo.hub.measured import is_number

COMMAND_WIDTH = 100


class CardError(ValueError):
    """The card cannot be rendered: a value it states is missing or not a number, or its template breaks a rule."""


def environment() -> Environment:
    """Jinja with this package's templates and filters; what a template asks for and does not get is an error."""

    def read(name: str) -> str | None:
        path = resources.files("hf_genzoo.model_cards") / name
        return path.read_text(encoding="utf-8") if path.is_file() else None

    found = Environment(
        loader=FunctionLoader(read), undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False
    )
    found.filters.update(
        number=number,
        integer=integer,
        measure=measure,
        count=count,
        duration=duration,
        quoted=quoted,
        losses=losses,
        total=total,
        command=command,
        public=public_name,
    )
    return found


def template(name: str) -> Template:
    """A template of `model_cards/`.

    Raises:
        CardError: There is none of that name.
    """
    try:
        return environment().get_template(name)
    except TemplateNotFound as error:
        raise CardError(f"there is no card model_cards/{error.name}") from error


def _finite(value: Any) -> float:
    if isinstance(value, Undefined):
        value = str(value)  # raises, with the name of what is missing
    if not is_number(value):
        raise CardError(f"the card states a number, but what was recorded is {value!r}")
    return value


def number(value: Any) -> str:
    """Four significant digits: 0.02413, 12.35, 1,234."""
    value = _finite(value)
    if value == 0 or 1e-4 <= abs(value) < 1000:
        return f"{value:.4g}"
    return f"{value:,.0f}" if abs(value) < 1e9 and abs(value) >= 1000 else f"{value:.3e}"


def measure(row: Mapping[str, Any] | None) -> str:
    """A measured number with its interval: 3.21 (2.9 to 3.5); a dash where there is none."""
    if row is None:
        return "-"
    interval = f" ({number(row['interval'][0])} to {number(row['interval'][1])})" if row["interval"] else ""
    return f"{number(row['value'])}{interval}"


def integer(value: Any) -> str:
    """1,234."""
    return f"{int(_finite(value)):,}"


def count(value: Any) -> str:
    """A parameter count: 812, 25.3 k, 3.94 M."""
    value = _finite(value)
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:.0f}"


def total(values: Iterable[Any]) -> float:
    """A sum of numbers."""
    return sum(_finite(value) for value in values)


def duration(seconds: Any) -> str:
    """12.3 seconds, 7.9 minutes, 2.2 hours."""
    value = _finite(seconds)
    if value < 90:
        return f"{value:.1f} seconds"
    return f"{value / 60:.1f} minutes" if value < 5400 else f"{value / 3600:.1f} hours"


def losses(loss: Any) -> str:
    """One loss or several. A loss that is not finite is a fact about a run, not a lack: it is stated as such."""
    if isinstance(loss, float) and not math.isfinite(loss):
        return "not finite"
    if isinstance(loss, Mapping):
        return ", ".join(f"{name} {losses(value)}" for name, value in loss.items())
    return number(loss)


def quoted(value: str | Path) -> str:
    """A Python string literal."""
    return json.dumps(str(value), ensure_ascii=False)


def command(words: Any) -> str:
    """A command line for readers: wrapped, without absolute paths and without the flags that push to a Hub account."""
    head, *groups = _grouped(shlex.split(str(words)))
    lines = [shlex.join(head)]
    for flag, *values in groups:
        if flag == "--push_to_hub" or flag.startswith("--hub_"):
            continue
        folder = "outputs/" if flag == "--output_dir" else ""
        values = [folder + public_name(value) if Path(value).is_absolute() else value for value in values]
        text = shlex.join([flag, *values])
        if len(lines[-1]) + len(text) + 3 <= COMMAND_WIDTH:  # a space before, " \" behind
            lines[-1] += f" {text}"
        else:
            lines.append(f"    {text}")
    return " \\\n".join(lines)


def _grouped(words: list[str]) -> list[list[str]]:
    """The words before the first flag, then each flag with its values."""
    groups: list[list[str]] = [[]]
    for word in words:
        if re.match(r"--[a-z]", word):
            groups.append([])
        groups[-1].append(word)
    return groups
