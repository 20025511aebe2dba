"""A table's cells: trained, measured, kept as JSON, and written as Markdown."""

import argparse
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Row:
    """One method of a table.

    Attributes:
        key: Its name in file names and on the command line.
        title: Its name in the table.
        family: What is trained.
        settings: Of the training, beside those that all rows share.
    """

    key: str
    title: str
    family: str
    settings: dict[str, Any] = field(default_factory=dict)


def trained(family: str, folder: Path, **settings: Any) -> dict[str, Any]:
    """Train, or go on with what is in the folder; a finished training is left as it is.

    Returns:
        What the run recorded.
    """
    import hf_genzoo

    if not (folder / "model_index.json").is_file():
        hf_genzoo.train(family, output_dir=str(folder), resume_from_checkpoint="latest", **settings)
    return json.loads((folder / "training.json").read_text())


class Cells:
    """The measured cells of one table, kept in `benchmarks/tables/<table>/<row>-<column>-<seed>.json`."""

    def __init__(self, table: str, home: Path = HERE) -> None:
        self.table, self.home = table, home

    def path(self, row: str, column: str, seed: int) -> Path:
        return self.home / self.table / f"{row}-{column}-{seed}.json"

    def fill(
        self,
        rows: Sequence[Row],
        columns: Sequence[str],
        seeds: Sequence[int],
        measure: Callable[[Row, str, int], dict[str, Any]],
    ) -> None:
        """Measure what is missing, seed after seed, so that an unfinished table has whole rows of few seeds."""
        for seed in seeds:
            for column in columns:
                for row in rows:
                    path = self.path(row.key, column, seed)
                    if path.is_file():
                        continue
                    found = {"row": row.key, "column": column, "seed": seed, **measure(row, column, seed)}
                    path.parent.mkdir(exist_ok=True)
                    path.write_text(json.dumps(found, indent=1) + "\n")
                    print(found, flush=True)

    def read(self, row: str, column: str) -> list[dict[str, Any]]:
        """Every measured seed of a row."""
        found = sorted((self.home / self.table).glob(f"{row}-{column}-*.json"))
        return [json.loads(path.read_text()) for path in found]

    def write(self, text: str) -> None:
        """The table, beside its cells."""
        (self.home / f"{self.table}.md").write_text(text)
        print(text)


def spread(values: Sequence[float], digits: int) -> str:
    """The mean and its standard error, where there are several values."""
    mean = f"{np.mean(values):.{digits}f}"
    return mean if len(values) < 2 else f"{mean} ± {np.std(values, ddof=1) / np.sqrt(len(values)):.{digits}f}"


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose first column is text and whose others are numbers."""
    shown = [head, ["---", *["---:"] * (len(head) - 1)], *lines]
    return "".join("| " + " | ".join(cells) + " |\n" for cells in shown)


def arguments(description: str | None, rows: Sequence[Row]) -> argparse.ArgumentParser:
    """The flags that all tables have."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    keys = [row.key for row in rows]
    parser.add_argument("--rows", nargs="+", choices=keys, default=keys, help="Rows to fill; the others are kept.")
    parser.add_argument("--seeds", type=int, default=3, help="Trainings of each row, of seeds 0, 1, ...")
    parser.add_argument("--output_dir", type=Path, help="Folder of the trainings; outputs/tables/<table> by default.")
    parser.add_argument("--only_write", action="store_true", help="Write the table of what is measured already.")
    return parser
