"""A card's tables of what the paper says, what this model measured and cost, and why they differ.

The paper's side belongs to the family's template, each number with the table or section it stands in. This model's
side is looked up: a template names a metric, never a number, and writes no row of its own.
"""

import re
from collections.abc import Mapping
from typing import Any

from hf_genzoo.evaluation.metrics import METRICS
from hf_genzoo.hub.card_data import public_name
from hf_genzoo.hub.card_templates import CardError, count, duration, integer, measure, template

END = "<!-- end of the comparison with the paper -->"
NOT_MEASURED = "not measured"
NOT_RECORDED = "not recorded"

_SECTION = re.compile(rf"<!-- the paper of (?P<family>\w+) and this model:.*?{END}", re.DOTALL)


class Claims:
    """Collects the rows of one card's comparison; a template calls `claim(...)` for each.

    Args:
        family: Whose card it is, for errors.
        results: Content of results.json; None where nothing was measured.
    """

    def __init__(self, family: str, results: Mapping[str, Any] | None) -> None:
        self.family = family
        self.results = results
        self.rows: list[str] = []

    def claim(
        self,
        what: str,
        *,
        paper: str,
        source: str,
        why: str,
        measured: str | None = None,
        extractor: str | None = None,
    ) -> str:
        """Add a row.

        Args:
            what: The quantity.
            paper: What the paper reports, with its data set.
            source: Where it stands there: table, figure, section.
            why: Why the two differ, or cannot be compared.
            measured: Name of the metric of this package that comes nearest; None where there is none.
            extractor: Features the paper's number is taken in; another is named beside ours.

        Returns:
            Nothing to show: the rows are shown together.

        Raises:
            CardError: `measured` is no name of a metric: numbers are not typed here.
        """
        if measured is not None and measured not in METRICS:
            raise CardError(
                f"the card of {self.family} gives {measured!r} as measured; name a metric of "
                f"hf_genzoo.evaluation.metrics, the number comes from results.json"
            )
        ours = self._ours(measured, extractor)
        self.rows.append(table_row(what, f"{paper} ({source})", ours, why))
        return ""

    def _ours(self, name: str | None, extractor: str | None) -> str:
        found = [row for row in (self.results or {"metrics": []})["metrics"] if row["name"] == name]
        if self.results is None or not found:
            return NOT_MEASURED
        home = self.results["protocol"]["headline"]["extractor"]
        row = min(found, key=lambda row: (row["extractor"] != extractor, row["extractor"] != home))
        title = METRICS[row["name"]].title
        return f"{title} {measure(row)}" + (f" with `{row['extractor']}` features" if row["extractor"] else "")


def comparison(family: str, facts: Mapping[str, Any], results: Mapping[str, Any] | None) -> str:
    """The table "the paper says, we measured, why they differ" of a family's card, between its marks.

    Args:
        family: Name in `hf_genzoo.families`.
        facts: What the template may ask for in its block `claims`.
        results: Content of results.json; None where nothing was measured.

    Raises:
        CardError: The block is missing, empty, or holds anything but calls of `claim`.
    """
    page = template(f"{family}.md")
    block = page.blocks.get("claims")
    if block is None:
        raise CardError(f"the card of {family} has no block 'claims': what does the paper report, and where?")
    claims = Claims(family, results)
    loose = "".join(block(page.new_context({**facts, "claim": claims.claim}))).strip()
    if loose or not claims.rows:
        raise CardError(f"block 'claims' of the card of {family} must hold calls of claim(...) only, not {loose!r}")
    head = [table_row("", "The paper says", "We measured", "Why they differ"), "|---|---|---|---|"]
    where = "Nothing was measured yet; `genzoo evaluate` fills the column."
    if results is not None:
        number, name = integer(results["protocol"]["num_samples"]), public_name(results["data"]["name"])
        where = f"Ours: {number} samples, against split `{results['data']['split']}` of `{name}`."
    begin = f"<!-- the paper of {family} and this model: by `genzoo evaluate`, which renews this part -->"
    return "\n".join([begin, "", *head, *claims.rows, "", where, END])


def compared_family(card: str) -> str | None:
    """The family whose paper a card compares its model with; None if it does not."""
    found = _SECTION.search(card)
    return found["family"] if found else None


def renew_comparison(card: str, section: str) -> str:
    """A card with its comparison replaced."""
    return _SECTION.sub(lambda _: section, card)


def budget(
    training: Mapping[str, Any] | None, *, data: str, parameters: str, samples: str, time: str, source: str
) -> str:
    """A table of the paper's budget beside this model's.

    Args:
        training: The training record, None where there is none.
        data: The paper's training data.
        parameters: Its number of parameters.
        samples: Its samples seen.
        time: Its training time and machine.
        source: Where these stand in the paper.
    """
    ours = [NOT_RECORDED] * 4
    if training is not None:
        size = training["data"]["num_samples"]
        name = public_name(training["data"]["name"])
        ours = [
            f"`{name}`, {'streamed' if size is None else f'{integer(size)} samples'}",
            ", ".join(f"{count(number)} (`{name}`)" for name, number in training["parameters"].items()),
            integer(training["images_seen"]),
            f"{duration(training['seconds'])} on {training['device']}",
        ]
    titles = ("Training data", "Parameters", "Samples seen", "Training time")
    rows = zip(titles, (data, parameters, samples, time), ours, strict=True)
    head = [table_row("Budget", f"The paper ({source})", "This model"), "|---|---|---|"]
    return "\n".join([*head, *(table_row(*row) for row in rows)])


def table_row(*cells: str) -> str:
    """One row of a Markdown table, from texts of any number of lines."""
    clean = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(clean)} |"
