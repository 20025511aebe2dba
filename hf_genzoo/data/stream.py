"""Streamed pictures: read while training, in constant memory, and resumed at exactly the same sample.

`datasets` reads the rows (an `IterableDataset`, with its `state_dict`), but its own shuffling buffer is lost when a
stream is resumed: it is filled anew, so samples are dropped or seen twice. The buffer therefore lives here. It holds
undecoded rows; each draw takes one at random and puts the next row of the stream in its place. What is saved is small:
the numbers of the rows in the buffer and the reader's state at a mark before the oldest of them.

**Cost of a resume.** The rows from that mark on are read again, undecoded: a row stays in a buffer of b rows for b
draws on average, the oldest of them for about b ln b, so about 8 b rows (8,000 for the default buffer), however far
the run has come. On top of that `datasets` passes over the tables of the one shard in which the mark lies.

**Ranks.** The promise of map-style sets (two ranks of B see what one process of 2 B sees) does not hold for streams:
each rank has its own buffer. Each epoch has a seeded order of shards (files); if their number is a multiple of the
number of ranks each rank reads its own shards, else every rank reads all rows and keeps every W-th. Either way each
row belongs to exactly one rank in an epoch. A rank that ends its epoch first starts the next one without waiting.
"""

import logging
import os
import weakref
from collections import deque
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import IterableDataset

from hf_genzoo.data.args import DataArgs
from hf_genzoo.data.cache import Skipped
from hf_genzoo.data.columns import Classes, check_caption, choose_caption, class_ids, stored_classes
from hf_genzoo.data.decode import CorruptImageError, Transform, decode, describe
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.data.images import draw_flips, normalise, too_many, transform_of
from hf_genzoo.data.interface import Batches, Data, check_batches
from hf_genzoo.data.order import CAPTION, SHUFFLE, check_state, random_bits
from hf_genzoo.data.sources import check_column, load_rows, source_name, stream_identity, undecoded

logger = logging.getLogger(__name__)

Row = dict[str, Any]

READ_AT_ONCE = 32
"""Rows that are fetched from `datasets` together."""

ROWS_AT_MOST = 1 << 40
"""More than an epoch ever has: draw d of epoch e has the random number e * 2^40 + d."""


@dataclass(frozen=True)
class Layout:
    """Whose rows, in which order: seed, rank and number of ranks."""

    seed: int
    rank: int
    world_size: int


class EpochReader:
    """One rank's rows of one epoch, in stored order within seeded shards, from any mark on.

    Args:
        shards: The stream, whose shards are put in an order of (seed, epoch), or kept if it is cut to a length.
        epoch: Number of the epoch.
        layout: Seed and rank.
        mark: Where to start: a value of `mark()`; None for the beginning.
    """

    def __init__(self, shards: "Shards", epoch: int, layout: Layout, mark: dict[str, Any] | None = None) -> None:
        self._shards = shards
        order = np.random.default_rng([layout.seed, epoch]).permutation(shards.count)
        whole = shards.count % layout.world_size == 0
        self._order = order[layout.rank :: layout.world_size] if whole else order
        self._keep, self._of = (0, 1) if whole else (layout.rank, layout.world_size)
        mark = mark or {"shard": 0, "state": None, "offset": 0, "passed": 0, "read": 0}
        self._shard, self.read = mark["shard"], mark["read"]
        self._open(mark["state"])
        for _ in range(mark["offset"]):
            self._row()
        self._passed = mark["passed"]

    def _open(self, state: dict[str, Any] | None) -> None:
        """Start the shard that is due, from a state of `datasets` if one is given."""
        self._before, self._after, self._chunk, self._offset = state, state, [], 0
        self._source, self._chunks = None, iter(())
        if self._shard < len(self._order):
            self._source = self._shards.shard(int(self._order[self._shard]))
            if state is not None:
                self._source.load_state_dict(state)
            self._chunks = self._source.iter(batch_size=READ_AT_ONCE)

    def _row(self) -> Row | None:
        """The next row of the shard; None at its end. Rows are read in chunks, ten times faster than one by one."""
        if self._offset == len(self._chunk):
            columns = next(self._chunks, None)
            if columns is None or self._source is None:
                return None
            self._chunk = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
            self._before, self._after, self._offset = self._after, self._source.state_dict(), 0
        self._offset += 1
        return self._chunk[self._offset - 1]

    def close(self) -> None:
        """Stop reading."""
        self._chunks = iter(())

    def mark(self) -> dict[str, Any]:
        """The place before the next row, JSON-serialisable."""
        return {
            "shard": self._shard,
            "state": self._before,
            "offset": self._offset,
            "passed": self._passed,
            "read": self.read,
        }

    def next(self) -> tuple[int, Row] | None:
        """The next row of this rank and its number; None at the end of the epoch."""
        while self._shard < len(self._order):
            while (row := self._row()) is not None:
                self._passed += 1
                if (self._passed - 1) % self._of == self._keep:
                    self.read += 1
                    return self.read - 1, row
            self._shard += 1
            self._open(None)
        return None


class Shards:
    """The parts (files) of a stream, each opened by its number.

    Args:
        rows: The undecoded stream.
        limit: Use the first rows only; the stream is then one shard, in stored order.
    """

    def __init__(self, rows: IterableDataset, limit: int | None) -> None:
        self._rows = rows if limit is None else rows.take(limit)
        self._whole = limit is not None
        self.count = 1 if self._whole else max(1, self._rows.num_shards)

    def shard(self, index: int) -> IterableDataset:
        """A fresh iterable over one shard."""
        return self._rows.shard(1 if self._whole else self.count, index)


class ShuffleBuffer:
    """Draws the rows of endless epochs in a random order, through a buffer of bounded size.

    Args:
        shards: The stream.
        size: Rows that the buffer holds.
        layout: Seed and rank.
    """

    def __init__(self, shards: Shards, size: int, layout: Layout) -> None:
        self._shards, self._size, self._layout = shards, size, layout
        self._block, self._block_of = np.zeros(1024, np.uint64), (-1, -1)
        self._start(0)

    def _start(self, epoch: int) -> None:
        self.epoch, self._drawn = epoch, 0
        self._buffer: list[tuple[int, Row]] = []
        self._marks: deque[dict[str, Any]] = deque()
        self._reader = EpochReader(self._shards, epoch, self._layout)

    def _read(self) -> tuple[int, Row] | None:
        """The next row of the stream; every `size` rows the place is noted."""
        if self._reader.read % self._size == 0 and (not self._marks or self._marks[-1]["read"] < self._reader.read):
            self._marks.append(self._reader.mark())
            oldest = min((number for number, _ in self._buffer), default=self._reader.read)
            while len(self._marks) > 1 and self._marks[1]["read"] <= oldest:
                self._marks.popleft()
        return self._reader.next()

    def draw(self) -> tuple[int, int, Row]:
        """One row: its epoch, its number in that epoch's reading order, and its content.

        Raises:
            ValueError: an epoch has no row for this rank.
        """
        while True:
            while len(self._buffer) < self._size and (entry := self._read()) is not None:
                self._buffer.append(entry)
            if self._buffer:
                break
            if self._drawn == 0:
                raise ValueError(
                    f"the stream has no row for rank {self._layout.rank} of {self._layout.world_size}: "
                    "use fewer processes, or drop --streaming"
                )
            self._start(self.epoch + 1)
        slot = self._bits() % len(self._buffer)
        number, row = self._buffer[slot]
        self._buffer[slot] = self._buffer[-1]
        self._buffer.pop()
        self._drawn += 1
        return self.epoch, number, row

    def _bits(self) -> int:
        """Random bits of this draw: addressed by its place, so that there is no generator state to save."""
        block, place = divmod(self._drawn, len(self._block))
        if self._block_of != (self.epoch, block):
            self._block_of = (self.epoch, block)
            first = self.epoch * ROWS_AT_MOST + block * len(self._block)
            self._block = random_bits(self._layout.seed, SHUFFLE, first + np.arange(len(self._block)))
        return int(self._block[place])

    def close(self) -> None:
        """Stop reading."""
        self._reader.close()

    def state_dict(self) -> dict[str, Any]:
        """Numbers of the rows in the buffer, and the mark to read them again from."""
        slots = [number for number, _ in self._buffer]
        oldest = min(slots, default=self._reader.read)
        marks = [mark for mark in self._marks if mark["read"] <= oldest]
        mark = marks[-1] if marks else None
        return {"epoch": self.epoch, "drawn": self._drawn, "read": self._reader.read, "slots": slots, "mark": mark}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Read the rows of a saved buffer again.

        Raises:
            ValueError: the stream is shorter than it was.
        """
        self._start(state["epoch"])
        if state["mark"] is not None:
            self._reader = EpochReader(self._shards, self.epoch, self._layout, state["mark"])
            self._marks.append(state["mark"])
        wanted, found = set(state["slots"]), {}
        while self._reader.read < state["read"]:
            entry = self._read()
            if entry is None:
                raise ValueError(f"the stream ends after {self._reader.read} rows; the saved run had read more")
            if entry[0] in wanted:
                found[entry[0]] = entry
        self._buffer = [found[number] for number in state["slots"]]
        self._drawn = state["drawn"]


class StreamImages(Data):
    """Pictures that are read while training. See `Data`; `num_samples` is None."""

    key = "pixel_values"
    num_samples = None

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        shards: Shards,
        args: DataArgs,
        classes: Classes | None,
    ) -> None:
        self.name, self.fingerprint, self.classes = name, fingerprint, classes
        self.class_names = None if classes is None else classes.names
        self.shards, self.args = shards, args
        self.transform: Transform = transform_of(args)

    def batches(
        self,
        *,
        batch_size: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> "StreamBatches":
        """See `Data.batches`; how ranks share a stream is told at the top of this module."""
        check_batches(batch_size, seed, rank, world_size)
        return StreamBatches(self, batch_size, Layout(seed, rank, world_size), device)


class StreamBatches(Batches):
    """Batches of a stream. Its state is of bounded size: a few numbers for each row of the buffer."""

    def __init__(self, data: StreamImages, batch_size: int, layout: Layout, device: torch.device | str) -> None:
        self.data, self.batch_size, self.layout, self.device = data, batch_size, layout, device
        self._buffer = ShuffleBuffer(data.shards, data.args.shuffle_buffer_size, layout)
        self._count = 0
        self._skipped: list[Skipped] = []
        self._skipped_epoch, self._in_a_row = 0, 0
        self._pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
        # Readers of `datasets` that are open when the interpreter has been half taken down print an error.
        weakref.finalize(self, self._buffer.close)

    def _decode(self, drawn: tuple[int, int, Row]) -> np.ndarray | Skipped:
        _, number, row = drawn
        value = row[self.data.args.image_column]
        try:
            return decode(value, self.data.transform)
        except CorruptImageError as error:
            return Skipped(number, describe(value, number), str(error))

    def _start_epoch(self, epoch: int) -> None:
        """Each epoch meets the same unusable pictures again, so each counts its own."""
        if epoch > self._skipped_epoch:
            self._skipped_epoch, self._skipped = epoch, []

    def _skip(self, epoch: int, skipped: Skipped) -> None:
        """Count an unusable picture of an epoch, and how many came in a row: then no later epoch will be better."""
        self._start_epoch(epoch)
        self._in_a_row += 1
        if epoch == 0:  # later epochs meet the same pictures again
            logger.warning("skipped an unusable picture of %s: %s: %s", self.data.name, skipped.name, skipped.reason)
        self._skipped.append(skipped)
        most = self.data.args.max_corrupt_images
        if len(self._skipped) > most or self._in_a_row > 2 * most:  # in a row: the end of one epoch, the start of one
            raise ValueError(too_many(self._skipped, self.data.name))

    def _usable(self) -> list[tuple[Row, int, np.ndarray]]:
        """The next `batch_size` rows whose picture can be used, decoded by a few threads, in the order of draws."""
        usable: list[tuple[Row, int, np.ndarray]] = []
        while len(usable) < self.batch_size:
            drawn = [self._buffer.draw() for _ in range(self.batch_size - len(usable))]
            for (epoch, number, row), result in zip(drawn, self._pool.map(self._decode, drawn), strict=True):
                if isinstance(result, Skipped):
                    self._skip(epoch, result)
                    continue
                self._start_epoch(epoch)
                self._in_a_row = 0
                usable.append((row, number, result))
        return usable

    def __next__(self) -> dict[str, Any]:
        args, seed = self.data.args, self.layout.seed
        usable = self._usable()
        positions = (self._count + np.arange(self.batch_size)) * self.layout.world_size + self.layout.rank
        self._count += self.batch_size
        flips = draw_flips(seed, positions) if args.random_flip else None
        pixels = torch.from_numpy(np.stack([picture for _, _, picture in usable]))
        batch: dict[str, Any] = {self.data.key: normalise(pixels, flips, self.device)}
        numbers = np.array([number for _, number, _ in usable])
        classes = self.data.classes
        if args.class_column is not None and classes is not None:
            values = [row[args.class_column] for row, _, _ in usable]
            labels = class_ids(values, classes, args.class_column, numbers)
            batch["class_labels"] = torch.from_numpy(labels).to(self.device)
        if args.caption_column is not None:
            values = [row[args.caption_column] for row, _, _ in usable]
            for value, number in zip(values, numbers, strict=True):
                check_caption(value, args.caption_column, f"row {number}")
            bits = random_bits(seed, CAPTION, positions)
            batch["captions"] = [choose_caption(v, int(b)) for v, b in zip(values, bits, strict=True)]
        return batch

    def _identity(self) -> dict[str, Any]:
        return {
            "fingerprint": self.data.fingerprint,
            "seed": self.layout.seed,
            "rank": self.layout.rank,
            "world_size": self.layout.world_size,
            "shuffle_buffer_size": self.data.args.shuffle_buffer_size,
        }

    def state_dict(self) -> dict[str, Any]:
        """See `Batches.state_dict`."""
        skipped = [(s.row, s.name, s.reason) for s in self._skipped]
        return self._identity() | {
            "buffer": self._buffer.state_dict(),
            "count": self._count,
            "skipped": skipped,
            "skipped_epoch": self._skipped_epoch,
            "in_a_row": self._in_a_row,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Batches.load_state_dict`. The batch size may have changed since, the number of ranks not."""
        check_state(state, self._identity())
        self._buffer.load_state_dict(state["buffer"])
        self._count = state["count"]
        self._skipped = [Skipped(*entry) for entry in state["skipped"]]
        self._skipped_epoch, self._in_a_row = state["skipped_epoch"], state["in_a_row"]


def stream_images(args: DataArgs, split: str, limit: int | None) -> StreamImages:
    """The pictures that the flags name, streamed. Called by `image_dataset`.

    Raises:
        FileNotFoundError: the dataset does not exist.
        ValueError: a wrong flag, split or column, an empty split, or classes that only a pass over the data tells.
    """
    name = source_name(args)
    rows = load_rows(args, split, streaming=True)
    if not isinstance(rows, IterableDataset):
        raise TypeError("a stream was expected")
    raw = undecoded(rows, args.image_column)
    first = next(iter(raw), None)
    if first is None:
        raise ValueError(f"split {split!r} of {name!r} is empty")
    used = [args.image_column]
    for flag in ("image_column", "caption_column", "class_column"):
        if getattr(args, flag) is not None:
            check_column(flag, getattr(args, flag), list(first))
            used.append(getattr(args, flag))
    classes = stored_classes(rows.features, str(args.class_column))
    if args.class_column is not None and classes is None:
        raise ValueError(
            f"--streaming needs a ClassLabel column, whose classes are known before all rows are read; "
            f"{args.class_column!r} is not one: drop --streaming or --class_column, or cast the column"
        )
    return StreamImages(
        name=name,
        fingerprint=digest("stream", stream_identity(args), split, limit, used),
        shards=Shards(raw.select_columns(sorted(set(used))), limit),
        args=args,
        classes=classes,
    )
