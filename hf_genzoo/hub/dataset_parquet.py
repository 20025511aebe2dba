"""Splits to Parquet shards and back: the Hub's file names, moderate row groups, the same bytes for the same rows.

A row group is what a reader fetches at a time, by one HTTP range: small enough for the Hub's viewer and for a stream
that starts at once, large enough that requests are few. Only one of them is held in memory.
"""

import hashlib
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from datasets import Features, IterableDataset, load_dataset
from datasets.table import embed_table_storage, table_cast
from tqdm.auto import tqdm

from hf_genzoo.data.cache import Skipped
from hf_genzoo.data.decode import CorruptImageError, describe, stored_look
from hf_genzoo.hub.client import HubError
from hf_genzoo.hub.dataset_pictures import picture_columns, reduced, rows_to_show
from hf_genzoo.hub.dataset_source import DEFAULT_CONFIG, Config, Split

ROW_GROUP_BYTES, ROW_GROUP_ROWS = 8_000_000, 1000
PICTURES_AT_ONCE = 16
"""Rows with pictures that are read and checked together."""

COMPARED = 32
"""Rows of each split, evenly spread, that are compared when the files are read back."""

NAMED_IN_MESSAGE = 5


@dataclass
class Written:
    """One split on disk, and what was seen of it on the way.

    Args:
        name: Name of the split.
        features: Types of its columns.
        num_rows: Rows written.
        num_bytes: Their size in memory.
        files: The shards, in order.
        samples: A few rows by their place among those written: digest of the content.
        shown: Rows for the card, with pictures made small.
        nulls: How many rows lack a value, by column.
        looks: How often a column's pictures look how: {column: {(format, size, mode): count}}.
        skipped: Rows left out, since a picture of theirs cannot be read.
    """

    name: str
    features: Features
    num_rows: int = 0
    num_bytes: int = 0
    files: list[Path] = field(default_factory=list)
    samples: dict[int, str] = field(default_factory=dict)
    shown: list[dict[str, Any]] = field(default_factory=list)
    nulls: Counter[str] = field(default_factory=Counter)
    looks: dict[str, Counter[tuple[str, tuple[int, int], str]]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)


def data_folder(config: str) -> str:
    """Where the shards of a configuration lie in the repository."""
    return "data" if config == DEFAULT_CONFIG else config


def write_split(split: Split, folder: Path, *, max_shard_bytes: int, max_corrupt: int, show: bool) -> Written:
    """Write a split as `<split>-00000-of-0000N.parquet`. Pictures keep their bytes.

    Args:
        split: What to write.
        folder: Where to.
        max_shard_bytes: Start a new file once one holds so much, measured in memory.
        max_corrupt: How many rows with an unreadable picture may be left out.
        show: Keep the sample rows for the card.

    Raises:
        ValueError: more pictures than that are unreadable (the first are named), or no row is left.
        OSError: the disk is full.
    """
    folder.mkdir(parents=True, exist_ok=True)
    written = Written(split.name, split.features, looks={name: Counter() for name in split.picture_columns})
    rows = _checked_rows(split, written, max_corrupt, show)
    writer, size = None, 0
    try:
        for group in _row_groups(rows, min(ROW_GROUP_BYTES, max_shard_bytes)):
            if writer is None or size + group.nbytes > max_shard_bytes:
                if writer is not None:
                    writer.close()
                written.files.append(folder / f"{split.name}-{len(written.files):05d}.parquet")
                writer, size = pq.ParquetWriter(written.files[-1], split.features.arrow_schema), 0
            writer.write_table(group, row_group_size=len(group))
            size += group.nbytes
            written.num_bytes += group.nbytes
    finally:
        if writer is not None:
            writer.close()
    if written.num_rows == 0:
        raise ValueError(f"split {split.name!r} has no row whose pictures can be read: {_named(written.skipped)}")
    count = len(written.files)
    written.files = [
        file.rename(folder / f"{split.name}-{number:05d}-of-{count:05d}.parquet")
        for number, file in enumerate(written.files)
    ]
    return written


def _rows_at_once(features: Features) -> int:
    """Few rows where there are pictures, which may be large."""
    return PICTURES_AT_ONCE if picture_columns(features) else ROW_GROUP_ROWS


def _row_groups(tables: Iterator[pa.Table], most_bytes: int) -> Iterator[pa.Table]:
    held: list[pa.Table] = []
    for table in tables:
        held.append(table)
        if sum(t.nbytes for t in held) >= most_bytes or sum(map(len, held)) >= ROW_GROUP_ROWS:
            yield pa.concat_tables(held).combine_chunks()
            held = []
    if held:
        yield pa.concat_tables(held).combine_chunks()


def _checked_rows(split: Split, written: Written, max_corrupt: int, show: bool) -> Iterator[pa.Table]:
    """The rows in small tables with their pictures' bytes, without those whose pictures cannot be read."""
    step = _rows_at_once(split.features)
    total = len(split.numbers)
    shown = _spread(total, rows_to_show(split.features)) if show else set()
    compared = _spread(total, COMPARED)
    with ThreadPoolExecutor(4) as pool, tqdm(total=total, desc=f"writing {split.name}", unit="row") as bar:
        for start in range(0, total, step):
            numbers = split.numbers[start : start + step]
            table = table_cast(split.take(numbers), split.features.arrow_schema)
            keep = _readable(table, numbers, written, pool)
            if len(written.skipped) > max_corrupt:
                raise ValueError(
                    f"{len(written.skipped)} rows of split {split.name!r} have pictures that cannot be read: "
                    f"{_named(written.skipped)}. Repair or remove them, or leave out up to N with "
                    "--max_corrupt_images N"
                )
            if len(keep) < len(table):
                table = table.take(pa.array(keep, pa.int64()))
            table = embed_table_storage(table)
            for place, row in enumerate(keep):
                if start + row in compared:
                    written.samples[written.num_rows + place] = row_digest(table.slice(place, 1))
                if start + row in shown:
                    row_shown = table.slice(place, 1).to_pylist()[0]
                    written.shown.append(reduced(row_shown, split.picture_columns))
            written.nulls.update({name: table[name].null_count for name in table.column_names})
            written.num_rows += len(table)
            bar.update(len(numbers))
            if len(table):
                yield table


def _spread(total: int, count: int) -> set[int]:
    """Evenly spread row numbers."""
    return set(np.linspace(0, total - 1, min(count, total)).round().astype(int).tolist())


def _readable(table: pa.Table, numbers: np.ndarray, written: Written, pool: ThreadPoolExecutor) -> list[int]:
    """Places of the rows whose pictures can all be read (or are null). Notes how the pictures look."""
    broken: dict[int, Skipped] = {}
    for column, looks in written.looks.items():
        values = table[column].to_pylist()
        for place, look in enumerate(pool.map(_look, values)):
            if isinstance(look, str):
                name = f"{column!r} of {describe(values[place], int(numbers[place]))}"
                broken[place] = Skipped(int(numbers[place]), name, look)
            elif look is not None:
                looks[look] += 1
    written.skipped += broken.values()
    return [place for place in range(len(table)) if place not in broken]


def _look(value: Any) -> tuple[str, tuple[int, int], str] | str | None:
    """How a picture looks, why it cannot be read, or None for a null."""
    if value is None:
        return None
    try:
        return stored_look(value)
    except CorruptImageError as error:
        return str(error)


def _named(skipped: list[Skipped]) -> str:
    more = f"; and {len(skipped) - NAMED_IN_MESSAGE} more" if len(skipped) > NAMED_IN_MESSAGE else ""
    return "; ".join(f"{s.name} ({s.reason})" for s in skipped[:NAMED_IN_MESSAGE]) + more


def row_digest(row: pa.Table) -> str:
    """Hash of one row's values, with NaN equal to itself."""
    return hashlib.sha256(repr(row.to_pylist()).encode()).hexdigest()


def read_back(folder: Path, config: Config, splits: list[Written]) -> None:
    """Open a repository's folder with `datasets`, as others will, and compare it with what was to be written.

    Args:
        folder: The whole repository, with its card.
        config: The configuration to open.
        splits: What was written of it.

    Raises:
        HubError: types, number of rows, or one of the sample rows differ; the message says which.
    """
    for split in splits:
        rows = load_dataset(str(folder), config.name, split=split.name, streaming=True)
        if not isinstance(rows, IterableDataset):
            raise TypeError("a stream was expected")
        where = f"split {split.name!r} of configuration {config.name!r}"
        if rows.features != split.features:
            raise HubError(f"{where} reads back with other types: {rows.features} instead of {split.features}")
        count, left = 0, dict(split.samples)
        with tqdm(total=split.num_rows, desc=f"checking {split.name}", unit="row") as bar:
            for table in rows.with_format("arrow").iter(batch_size=_rows_at_once(split.features)):
                for place in [place for place in left if count <= place < count + len(table)]:
                    if row_digest(table.slice(place - count, 1)) != left.pop(place):  # pyright: ignore
                        raise HubError(f"row {place} of {where} does not read back as it was written")
                count += len(table)
                bar.update(len(table))
        if count != split.num_rows or left:
            raise HubError(f"{where} reads back with {count} rows instead of {split.num_rows}")
