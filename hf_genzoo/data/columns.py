"""Class and caption columns: contiguous ids with names, and captions kept compactly in memory."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, overload

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features

from hf_genzoo.data.order import CAPTION, random_bits


@dataclass(frozen=True)
class Classes:
    """The classes of a set.

    Args:
        names: Name of class 0, 1, ...
        values: What the column holds for class 0, 1, ...
    """

    names: list[str]
    values: list[Any]


def stored_classes(features: Features | None, column: str) -> Classes | None:
    """The classes a ClassLabel column names itself; None for other columns."""
    feature = (features or {}).get(column)
    if not isinstance(feature, ClassLabel):
        return None
    return Classes(list(feature.names), list(range(len(feature.names))))


def column_values(rows: Dataset, column: str) -> list[Any]:
    """All values of a column, read without touching the others."""
    return rows.select_columns([column]).with_format("arrow")[:][column].to_pylist()


def found_classes(values: Sequence[Any], column: str) -> Classes:
    """The classes of a column of integers, booleans or strings: its distinct values, sorted.

    Raises:
        ValueError: the column holds something else.
    """
    distinct = {value for value in values if value is not None and not isinstance(value, list | dict)}
    kinds = {type(value) for value in distinct}
    if len(kinds) != 1 or not kinds <= {int, str, bool} or any(isinstance(v, list | dict) for v in values):
        held = ", ".join(sorted({type(value).__name__ for value in values}))
        raise ValueError(f"--class_column {column!r} must hold integers or strings, it holds {held}")
    ordered = sorted(distinct)
    return Classes([str(value) for value in ordered], ordered)


def class_ids(values: Sequence[Any], classes: Classes, column: str, rows: np.ndarray) -> np.ndarray:
    """Ids 0..K-1 of a column's values.

    Args:
        values: The column, one value for each of `rows`.
        classes: The classes of the training split.
        column: Its name, for messages.
        rows: Number of each row in the source, for messages.

    Returns:
        int64 (N,).

    Raises:
        ValueError: a null, or a value that is none of the classes; the message names the first row.
    """
    index = {value: i for i, value in enumerate(classes.values)}
    ids = [-1 if value is None else index.get(value, -1) for value in values]
    wrong = [i for i, number in enumerate(ids) if number < 0]
    if wrong:
        first = wrong[0]
        raise ValueError(
            f"--class_column {column!r}: {len(wrong)} rows have no known class, first row {rows[first]} with "
            f"{values[first]!r}; the classes are: {', '.join(classes.names[:20])}"
            f"{', ...' if len(classes.names) > 20 else ''}"
        )
    return np.asarray(ids, dtype=np.int64)


def choose_caption(value: str | list[str], bits: int) -> str:
    """The caption itself, or one of several by random bits."""
    return value if isinstance(value, str) else value[bits % len(value)]


def check_caption(value: Any, column: str, row: str) -> None:
    """Refuse what is no caption.

    Raises:
        ValueError: names the column, the row and the value.
    """
    texts = value if isinstance(value, list) else [value]
    if not texts or not all(isinstance(text, str) for text in texts):
        raise ValueError(f"--caption_column {column!r} must hold texts, or lists of them; {row} holds {value!r}")


class Captions(Sequence[str]):
    """The captions of a set as one Arrow array: a million captions take little more than their bytes.

    Args:
        values: An Arrow array of strings, or of lists of strings.
    """

    def __init__(self, values: pa.Array) -> None:
        self._values = values

    @classmethod
    def read(cls, rows: Dataset, column: str, kept: np.ndarray, numbers: np.ndarray) -> "Captions":
        """The captions of the rows at the places `kept`; `numbers` are the rows' numbers, for messages.

        Raises:
            ValueError: a row without a caption.
        """
        values = rows.select_columns([column]).with_format("arrow")[:][column]
        if pa.types.is_string(values.type):
            values = values.cast(pa.large_string())  # 32-bit offsets end at 2 GB
        values = values.combine_chunks() if isinstance(values, pa.ChunkedArray) else values
        if len(kept) < len(values):
            values = values.take(pa.array(kept))
        if not pa.types.is_large_string(values.type) or values.null_count:
            for place, value in zip(kept, values.to_pylist(), strict=True):
                check_caption(value, column, f"row {numbers[place]}")
        return cls(values)

    def gather(self, indices: np.ndarray, seed: int, positions: np.ndarray) -> list[str]:
        """The captions `indices` (B,); of several captions one by (seed, position)."""
        values = self._values.take(pa.array(indices)).to_pylist()
        if all(isinstance(value, str) for value in values):
            return values
        return [choose_caption(v, int(b)) for v, b in zip(values, random_bits(seed, CAPTION, positions), strict=True)]

    def to_list(self) -> list[Any]:
        """As stored: one string, or one list of strings, for each sample."""
        return self._values.to_pylist()

    def __len__(self) -> int:
        return len(self._values)

    @overload
    def __getitem__(self, index: int) -> str: ...
    @overload
    def __getitem__(self, index: slice) -> "Captions": ...
    def __getitem__(self, index: int | slice) -> "str | Captions":
        if isinstance(index, slice):
            return Captions(self._values[index])
        return choose_caption(self._values[index].as_py(), 0)
