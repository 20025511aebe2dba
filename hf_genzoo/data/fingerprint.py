"""Hashes of content: equal data has an equal fingerprint in every process and on every machine.

The `_fingerprint` of a `datasets` object is not that: it depends on paths, times and library versions. It does change
whenever the data may have changed, so it serves to remember the hash of the content, which reads every byte once.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from datasets import Dataset
from filelock import FileLock

from hf_genzoo.atomic import replacing
from hf_genzoo.data.decode import read_raw

DIGEST_SIZE = 16
BATCH = 256


def cache_root(data_cache_dir: str | None) -> Path:
    """The folder for everything that is prepared once, created if need be.

    Raises:
        OSError: it cannot be written; the message says how to choose another.
    """
    root = Path(data_cache_dir or os.environ.get("HF_GENZOO_CACHE") or "~/.cache/hf_genzoo").expanduser()
    try:
        root.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(
            error.errno, f"cannot create the data cache {root} ({error.strerror}); choose another --data_cache_dir"
        ) from error
    return root


def digest(*parts: Any) -> str:
    """Short hash of JSON-serialisable values, None, numbers, strings and lists of them."""
    return hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=DIGEST_SIZE).hexdigest()


def cells(rows: Dataset, column: str) -> Iterator[list[Any]]:
    """The cells of one column, in lists of up to 256."""
    for batch in rows.select_columns([column]).iter(batch_size=BATCH):
        yield batch[column]  # pyright: ignore[reportArgumentType, reportCallIssue]


def _image_hash(rows: Dataset, column: str) -> str:
    """Hash of the stored pictures: of encoded bytes (wherever they lie), or of shape and numbers of arrays."""
    total = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for values in cells(rows, column):
        for value in values:
            try:
                raw = read_raw(value)
            except OSError as error:  # a file that cannot be read: it will be counted as corrupt
                raw = f"unreadable {type(error).__name__}".encode()
            if isinstance(raw, np.ndarray):
                header, raw = f"array {raw.dtype.str} {raw.shape}", np.ascontiguousarray(raw).tobytes()
            else:
                header = "null" if raw is None else f"bytes {len(raw)}"
            total.update(f"{header}\n".encode())
            total.update(raw or b"")
    return total.hexdigest()


def column_hash(values: list[Any]) -> str:
    """Hash of a column of labels or captions."""
    total = hashlib.blake2b(digest_size=DIGEST_SIZE)
    for value in values:
        total.update(json.dumps(value, default=str).encode() + b"\n")
    return total.hexdigest()


def image_hash(rows: Dataset, column: str, root: Path) -> str:
    """Hash of the pictures in `column` of undecoded rows, remembered in `root` while the files stay as they are."""
    files = [file["filename"] for file in rows.cache_files]
    if not files:  # in memory: small, and without a name to remember it by
        return _image_hash(rows, column)
    stats = [(file, os.stat(file).st_size, os.stat(file).st_mtime_ns) for file in files]
    folder = root / "fingerprints"
    folder.mkdir(exist_ok=True)
    note = folder / digest(rows._fingerprint, stats, column, len(rows))
    with FileLock(f"{note}.lock"):
        if note.exists() and len(text := note.read_text()) == 2 * DIGEST_SIZE:
            return text
        text = _image_hash(rows, column)
        with replacing(note) as aside:
            aside.write_text(text)
    return text
