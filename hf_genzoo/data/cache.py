"""The memory-mapped cache of prepared pictures: written once, by one process, and never seen half-written.

A cache is a folder `images-<key>` with `pixels.bin` (uint8, N x C x H x W) and `meta.json`. It is written aside under
a file lock, synced, and renamed into place, so it is either absent or whole; its size and a checksum are verified when
it is opened, and a torn one (a disk that lied, a copy that stopped) is written again. The pixels are written with
plain writes, not through a memory map: on a full disk a map kills the process without a word.
"""

import errno
import json
import logging
import os
import shutil
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout
from tqdm.auto import tqdm

logger = logging.getLogger(__name__)

VERSION = 1
"""Part of every key: raised when the same transform would give other pixels."""

_BLOCK, _NUM_BLOCKS = 1 << 16, 64
_DISK_ERRORS = (errno.ENOSPC, errno.EFBIG, errno.EDQUOT)


@dataclass(frozen=True)
class Skipped:
    """A row whose picture could not be used.

    Args:
        row: Its number in the source.
        name: How to call it in a message.
        reason: What is wrong with it.
    """

    row: int
    name: str
    reason: str


@dataclass(frozen=True)
class PixelCache:
    """An open cache.

    Args:
        pixels: Read-only memory map, uint8 (N, C, H, W).
        skipped: Rows of the source that are not in it.
    """

    pixels: np.ndarray
    skipped: list[Skipped]


def _checksum(path: Path, size: int) -> int:
    """CRC-32 of up to 64 blocks spread evenly over the file (of the whole file up to 4 MiB): milliseconds."""
    starts = sorted({int(s) for s in np.linspace(0, max(0, size - _BLOCK), _NUM_BLOCKS)})
    if size <= _BLOCK * _NUM_BLOCKS:
        starts = list(range(0, size, _BLOCK))
    value = 0
    with open(path, "rb") as file:
        for start in starts:
            file.seek(start)
            value = zlib.crc32(file.read(_BLOCK), value)
    return value


def _open(folder: Path) -> PixelCache | None:
    """The cache in `folder`; None if there is none, or a torn one."""
    if not folder.exists():
        return None
    path = folder / "pixels.bin"
    try:
        meta = json.loads((folder / "meta.json").read_text())
        shape = tuple(meta["shape"])
        size = int(np.prod(shape))
        if path.stat().st_size != size or _checksum(path, size) != meta["checksum"]:
            raise ValueError("size or checksum is wrong")
        skipped = [Skipped(*entry) for entry in meta["skipped"]]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if size == 0:
        return PixelCache(np.empty(shape, np.uint8), skipped)
    return PixelCache(np.memmap(path, np.uint8, "r", shape=shape), skipped)


def _sync(path: Path) -> None:
    """Force a file's content, or a folder's entries, to the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _write(
    folder: Path, shape: tuple[int, int, int], num_rows: int, rows: Iterator[np.ndarray | Skipped], name: str
) -> None:
    """Write all rows into a new folder: pixels first, then meta.json, each synced."""
    path, skipped, count, begin = folder / "pixels.bin", [], 0, time.perf_counter()
    with (
        open(path, "wb", buffering=1 << 20) as file,
        tqdm(total=num_rows, desc=f"preparing {name}", unit="img", disable=None, leave=False) as bar,
    ):
        for row in rows:
            if isinstance(row, Skipped):
                skipped.append(row)
            else:
                if row.shape != shape or row.dtype != np.uint8:
                    raise ValueError(f"expected uint8 {shape}, got {row.dtype} {row.shape}")
                file.write(np.ascontiguousarray(row).data)
                count += 1
            bar.update()
        file.flush()
        os.fsync(file.fileno())
    meta = {
        "shape": [count, *shape],
        "checksum": _checksum(path, path.stat().st_size),
        "skipped": [(s.row, s.name, s.reason) for s in skipped],
        "name": name,
    }
    (folder / "meta.json").write_text(json.dumps(meta))
    _sync(folder / "meta.json")
    _sync(folder)
    seconds = max(time.perf_counter() - begin, 1e-9)
    logger.info("prepared %d pictures of %s in %.1f s (%.0f a second)", count, name, seconds, count / seconds)


def _disk_message(root: Path, needed: int, reason: str) -> str:
    free = shutil.disk_usage(root).free
    return (
        f"{reason}: preparing it takes {needed / 1e6:,.0f} MB in {root}, {free / 1e6:,.0f} MB are free there; "
        "free some space, choose another --data_cache_dir, or lower --resolution or --max_train_samples"
    )


def _build(
    folder: Path, shape: tuple[int, int, int], num_rows: int, rows: Iterator[np.ndarray | Skipped], name: str
) -> None:
    """Write a cache aside and rename it into place; leave nothing behind if that fails."""
    needed = int(np.prod(shape)) * num_rows
    if shutil.disk_usage(folder.parent).free < needed:
        raise OSError(errno.ENOSPC, _disk_message(folder.parent, needed, "the disk is too full"))
    aside = folder.with_name(folder.name + ".partial")
    shutil.rmtree(aside, ignore_errors=True)  # left by a process that was killed: the lock is ours
    aside.mkdir()
    try:
        _write(aside, shape, num_rows, rows, name)
        shutil.rmtree(folder, ignore_errors=True)  # a torn one
        os.rename(aside, folder)
        _sync(folder.parent)
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            raise OSError(error.errno, _disk_message(folder.parent, needed, os.strerror(error.errno))) from error
        raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def cached_pixels(
    root: Path,
    key: str,
    *,
    shape: tuple[int, int, int],
    num_rows: int,
    rows: Callable[[], Iterator[np.ndarray | Skipped]],
    name: str,
) -> PixelCache:
    """Open the cache `key`, preparing it first if it is not there; other processes wait for the one that does.

    Args:
        root: Folder of all caches.
        key: Hash of the pictures and of their transform.
        shape: (C, H, W) of each picture.
        num_rows: Number of rows of the source.
        rows: Called to prepare: gives, for each row in order, its picture, uint8 (C, H, W), or why it is skipped.
        name: What to call the data on the progress bar.

    Raises:
        OSError: the disk is full; the message says what is needed, what is free, and what can be done.
    """
    folder = root / f"images-{key}"
    cache = _open(folder)  # whole or absent: no lock is needed to look, so a read-only cache works too
    if cache is not None:
        return cache
    lock = FileLock(f"{folder}.lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        logger.info("another process is preparing %s: waiting for it", name)
        lock.acquire()
    try:
        cache = _open(folder)
        if cache is None:
            if folder.exists():
                logger.warning("the cache %s is damaged (wrong size or checksum): preparing it again", folder)
            _build(folder, shape, num_rows, rows(), name)
            cache = _open(folder)
    finally:
        lock.release()
    if cache is None:
        raise OSError(errno.EIO, f"the cache {folder} cannot be read back right after it was written")
    return cache
