"""Map-style pictures: decoded and resized once into a memory-mapped cache, then sliced and normalised on the device.

The key of the cache holds the content of the pictures and their transform, and nothing else: a flag that does not
change the pixels (batch size, seed, flips, classes, captions, the number of processes) never prepares them again.
"""

import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from datasets import Dataset, IterableDataset

from hf_genzoo.data.args import DataArgs, check_args
from hf_genzoo.data.cache import VERSION, Skipped, cached_pixels
from hf_genzoo.data.columns import Captions, Classes, class_ids, column_values, found_classes, stored_classes
from hf_genzoo.data.computed import COMPUTED, Computed, computed_set
from hf_genzoo.data.decode import CorruptImageError, Transform, decode, describe
from hf_genzoo.data.fingerprint import cache_root, cells, column_hash, digest, image_hash
from hf_genzoo.data.interface import Data
from hf_genzoo.data.order import FLIP, MapData, random_bits
from hf_genzoo.data.sources import check_column, load_rows, source_name, undecoded

logger = logging.getLogger(__name__)

NAMED_IN_MESSAGE = 5
SUBSET_SEED = 0
RENDERED_AT_ONCE = 256
ROWS_A_TASK = 16


def normalise(pixels: torch.Tensor, flips: np.ndarray | None, device: torch.device | str) -> torch.Tensor:
    """uint8 (B, C, H, W) on the CPU to float32 in [-1, 1] on the device; `flips` (B,), bool, says what to mirror."""
    pixels = pixels.to(device, non_blocking=True)
    if flips is not None:
        mirrored = torch.from_numpy(np.flatnonzero(flips)).to(device)
        pixels[mirrored] = pixels[mirrored].flip(-1)
    return pixels.float().div_(127.5).sub_(1.0)


def draw_flips(seed: int, positions: np.ndarray) -> np.ndarray:
    """Which of the samples at `positions` (B,) are mirrored: bool (B,), each with probability 1/2."""
    return (random_bits(seed, FLIP, positions) >> np.uint64(63)).astype(bool)


class MapImages(MapData):
    """Pictures with random access.

    Attributes:
        pixels: Memory map, uint8 (N, C, H, W), not mirrored.
        labels: Class of each picture, int64 (N,), or None.
        captions: Caption of each picture, or None.
        rows: Row of each picture in the source split, int64 (N,).
        skipped: Rows that are not there because their picture is unusable.
    """

    key = "pixel_values"

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        pixels: np.ndarray,
        rows: np.ndarray,
        labels: np.ndarray | None = None,
        class_names: list[str] | None = None,
        captions: Captions | None = None,
        skipped: list[Skipped] | None = None,
        random_flip: bool = False,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.pixels, self.rows, self.skipped = pixels, rows, skipped or []
        self.labels, self.class_names, self.captions = labels, class_names, captions
        self.random_flip = random_flip
        self.num_samples = len(pixels)

    def gather(
        self, indices: np.ndarray, positions: np.ndarray, seed: int, device: torch.device | str
    ) -> dict[str, Any]:
        """See `MapData.gather`."""
        flips = draw_flips(seed, positions) if self.random_flip else None
        return self._batch(indices, flips, seed, positions, device)

    def _batch(
        self,
        indices: np.ndarray,
        flips: np.ndarray | None,
        seed: int,
        positions: np.ndarray,
        device: torch.device | str,
    ) -> dict[str, Any]:
        pixels = torch.from_numpy(np.asarray(self.pixels)[indices])
        batch: dict[str, Any] = {self.key: normalise(pixels, flips, device)}
        if self.labels is not None:
            batch["class_labels"] = torch.from_numpy(self.labels[indices]).to(device)
        if self.captions is not None:
            batch["captions"] = self.captions.gather(indices, seed, positions)
        return batch

    def examples(self, n: int, device: torch.device | str = "cpu") -> dict[str, Any]:
        """The first n samples (or all, if there are fewer) as one batch, not mirrored."""
        indices = np.arange(min(n, self.num_samples))
        return self._batch(indices, None, 0, indices, device)


def image_dataset(args: DataArgs, *, split: str | None = None) -> Data:
    """The pictures that the flags name.

    Args:
        args: Any object with the fields of `DataArgs`.
        split: Another split than `args.dataset_split`. Its classes get the ids they have in `args.dataset_split`, and
            `max_train_samples` does not apply to it.

    Returns:
        `MapImages`, or `StreamImages` with `--streaming`.

    Raises:
        FileNotFoundError: the dataset does not exist.
        ValueError: a flag, split or column is wrong, the split is empty, or too many pictures are unusable.
        OSError: the disk is full.
    """
    check_args(args)
    split = split or args.dataset_split
    limit = args.max_train_samples if split == args.dataset_split else None
    if args.dataset_name in COMPUTED:
        return _computed_images(args, computed_set(args, split), limit)
    if args.streaming:
        from hf_genzoo.data.stream import stream_images

        return stream_images(args, split, limit)
    return _stored_images(args, split, limit)


def choose_rows(num_rows: int, limit: int | None) -> np.ndarray:
    """The rows to use: all, or a random choice (sets are often sorted by class) that only depends on the numbers."""
    if limit is None or limit >= num_rows:
        return np.arange(num_rows)
    return np.sort(np.random.default_rng(SUBSET_SEED).permutation(num_rows)[:limit])


def transform_of(args: DataArgs) -> Transform:
    """The part of the flags that changes pixels."""
    return Transform(args.resolution, args.num_channels, args.center_crop, args.image_interpolation_mode)


def too_many(skipped: list[Skipped], name: str) -> str:
    """The message for more unusable pictures than `--max_corrupt_images` allows."""
    named = "; ".join(f"{s.name}: {s.reason}" for s in skipped[:NAMED_IN_MESSAGE])
    return f"{len(skipped)} pictures of {name!r} are unusable, more than --max_corrupt_images: {named}"


def _decoded(
    rows: Dataset, numbers: np.ndarray, column: str, transform: Transform, limit: int, name: str
) -> Iterator[np.ndarray | Skipped]:
    """All pictures in order, decoded by a few threads (Pillow releases the interpreter while it works).

    Args:
        rows: The rows, undecoded.
        numbers: The number of each row in its split, for messages.
        column: Column of the pictures.
        transform: Size, channels, crop and filter.
        limit: How many unusable pictures to skip.
        name: Of the data, for messages.
    """

    def one(row: int, value: Any) -> np.ndarray | Skipped:
        try:
            return decode(value, transform)
        except CorruptImageError as error:
            return Skipped(row, describe(value, numbers[row]), str(error))

    def several(first: int, values: list[Any]) -> list[np.ndarray | Skipped]:
        return [one(first + i, value) for i, value in enumerate(values)]

    skipped: list[Skipped] = []
    start = 0
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for values in cells(rows, column):
            firsts = range(0, len(values), ROWS_A_TASK)
            tasks = [pool.submit(several, start + i, values[i : i + ROWS_A_TASK]) for i in firsts]
            for result in chain.from_iterable(task.result() for task in tasks):
                if isinstance(result, Skipped):
                    skipped.append(result)
                    if len(skipped) > limit:
                        raise ValueError(too_many(skipped, name))
                yield result
            start += len(values)


def report_skipped(skipped: list[Skipped], limit: int, name: str) -> None:
    """Name the pictures that were left out.

    Raises:
        ValueError: there are more than `limit`.
    """
    if len(skipped) > limit:
        raise ValueError(too_many(skipped, name))
    if skipped:
        named = "; ".join(f"{s.name}: {s.reason}" for s in skipped)
        logger.warning("skipped %d unusable pictures of %s: %s", len(skipped), name, named)


def _classes(args: DataArgs, split: str, rows: Dataset, values: list[Any]) -> Classes:
    """The classes of the training split, so that every split gives a class the same id."""
    column = str(args.class_column)
    classes = stored_classes(rows.features, column)
    if classes is not None:
        return classes
    if split != args.dataset_split:
        training = load_rows(args, args.dataset_split)
        if isinstance(training, IterableDataset):
            raise TypeError("a map-style dataset was expected")
        check_column("class_column", column, training.column_names)
        values = column_values(training, column)
    return found_classes(values, column)


def _stored_images(args: DataArgs, split: str, limit: int | None) -> MapImages:
    """Pictures that are stored somewhere: read, prepared once, and kept in the cache."""
    name, column = source_name(args), args.image_column
    rows = load_rows(args, split)
    if not isinstance(rows, Dataset):
        raise TypeError("a map-style dataset was expected")
    for flag in ("image_column", "caption_column", "class_column"):
        if getattr(args, flag) is not None:
            check_column(flag, getattr(args, flag), rows.column_names)
    if len(rows) == 0:
        raise ValueError(f"split {split!r} of {name!r} is empty")
    chosen = choose_rows(len(rows), limit)
    subset = rows if len(chosen) == len(rows) else rows.select(chosen)
    pictures, root, transform = undecoded(subset, column), cache_root(args.data_cache_dir), transform_of(args)
    content = image_hash(pictures, column, root)
    cache = cached_pixels(
        root,
        digest(VERSION, content, vars(transform)),
        shape=(args.num_channels, args.resolution, args.resolution),
        num_rows=len(pictures),
        rows=lambda: _decoded(pictures, chosen, column, transform, args.max_corrupt_images, name),
        name=name,
    )
    report_skipped(cache.skipped, args.max_corrupt_images, name)
    if len(cache.pixels) == 0:
        raise ValueError(f"split {split!r} of {name!r} has no usable picture: {cache.skipped[0].reason}")
    kept = np.delete(np.arange(len(chosen)), [s.row for s in cache.skipped])
    labels, class_names, captions, parts = None, None, None, [content]
    if args.class_column is not None:
        values = column_values(rows, args.class_column)
        classes = _classes(args, split, rows, values)
        used = chosen[kept]
        labels, class_names = class_ids([values[i] for i in used], classes, args.class_column, used), classes.names
        parts += [column_hash(class_names), column_hash(labels.tolist())]
    if args.caption_column is not None:
        captions = Captions.read(subset, args.caption_column, kept, chosen)
        parts.append(column_hash(captions.to_list()))
    return MapImages(
        name=name,
        fingerprint=digest(*parts),
        pixels=cache.pixels,
        rows=chosen[kept],
        labels=labels,
        class_names=class_names,
        captions=captions,
        skipped=cache.skipped,
        random_flip=args.random_flip,
    )


def _computed_images(args: DataArgs, source: Computed, limit: int | None) -> MapImages:
    """Pictures that are computed: rendered at the wanted resolution, once, into the same kind of cache."""
    if args.streaming:
        raise ValueError(f"--streaming: {source.name!r} is computed in seconds, there is nothing to stream; drop it")
    check_column("image_column", args.image_column, ["image"])
    rows = choose_rows(source.num_rows, limit)
    content = digest(source.name, source.recipe, len(rows))

    def pictures() -> Iterator[np.ndarray]:
        for start in range(0, len(rows), RENDERED_AT_ONCE):
            yield from source.render(rows[start : start + RENDERED_AT_ONCE], args.resolution, args.num_channels)

    cache = cached_pixels(
        cache_root(args.data_cache_dir),
        digest(VERSION, content, args.resolution, args.num_channels),
        shape=(args.num_channels, args.resolution, args.resolution),
        num_rows=len(rows),
        rows=pictures,
        name=source.name,
    )
    labels, class_names, captions = None, None, None
    if args.class_column is not None:
        check_column("class_column", args.class_column, source.classes)
        ids, class_names = source.classes[args.class_column]
        labels = ids[rows]
    if args.caption_column is not None:
        check_column("caption_column", args.caption_column, source.captions)
        captions = Captions(pa.array([source.captions[args.caption_column][i] for i in rows], pa.large_string()))
    return MapImages(
        name=source.name,
        fingerprint=digest(content, args.class_column, args.caption_column),
        pixels=cache.pixels,
        rows=rows,
        labels=labels,
        class_names=class_names,
        captions=captions,
        random_flip=args.random_flip,
    )
