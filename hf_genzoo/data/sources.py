"""From the flags to a `datasets` object with undecoded pictures: Hub ids, local folders and files, the digits."""

import json
import logging
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
from datasets import (
    Dataset,
    DatasetDict,
    Image,
    IterableDataset,
    Value,
    get_dataset_split_names,
    load_dataset,
    load_from_disk,
)
from datasets.exceptions import DataFilesNotFoundError, DatasetNotFoundError
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hf_genzoo.data.args import IMAGE_SETS, POINT_SETS, DataArgs

logger = logging.getLogger(__name__)

DIGITS = Path(__file__).parent / "embedded" / "digits"

_FILE_BUILDERS = {".parquet": "parquet", ".arrow": "arrow", ".jsonl": "json", ".json": "json", ".csv": "csv"}


def source_name(args: DataArgs) -> str:
    """What the user called the data."""
    return str(args.dataset_name or args.train_data_dir)


def _digits(split: str) -> Dataset:
    """One split of the embedded digits, in memory: nothing is copied to a cache."""
    if not (DIGITS / f"{split}.parquet").is_file():
        names = sorted(path.stem for path in DIGITS.glob("*.parquet"))
        raise ValueError(unknown_split("digits", split, names))
    return Dataset(pq.read_table(DIGITS / f"{split}.parquet"))  # pyright: ignore[reportArgumentType]


def unknown_split(name: str, split: str, names: Iterable[str]) -> str:
    """The message for a split that is not there."""
    return f"{name!r} has no split {split!r}; its splits are: {', '.join(map(str, names))} (see --dataset_split)"


def _saved(folder: Path, split: str) -> Dataset:
    """A folder written by `save_to_disk`."""
    if not any(folder.rglob("*.arrow")):  # load_from_disk cannot read what save_to_disk writes for no rows
        raise ValueError(f"split {split!r} of {str(folder)!r} is empty")
    saved = load_from_disk(str(folder))
    if isinstance(saved, DatasetDict):
        if split not in saved:
            raise ValueError(unknown_split(str(folder), split, [str(name) for name in saved]))
        return saved[split]
    if saved.split is not None and str(saved.split) != split:
        raise ValueError(unknown_split(str(folder), split, [str(saved.split)]))
    return saved  # saved without the name of a split: it is the only one


def _local_path(args: DataArgs) -> Path | None:
    """The folder or file that the flags name, or None for an id on the Hub.

    Raises:
        FileNotFoundError: a path that is not there.
    """
    text = source_name(args)
    path = Path(text).expanduser()
    if path.exists():
        return path
    looks_local = args.train_data_dir is not None or text.startswith((".", "/", "~")) or path.suffix in _FILE_BUILDERS
    if looks_local or text.count("/") > 1 or "\\" in text:
        flag = "--train_data_dir" if args.train_data_dir else "--dataset_name"
        raise FileNotFoundError(f"{flag} {text!r} does not exist (working directory: {Path.cwd()})")
    return None


def _load(args: DataArgs, path: Path | None, split: str, streaming: bool) -> Dataset | IterableDataset:
    """`load_dataset` on a local path or on a Hub id."""
    options: dict[str, Any] = {"split": split, "streaming": streaming}
    if args.data_cache_dir is not None:
        options["cache_dir"] = str(Path(args.data_cache_dir).expanduser() / "datasets")
    if path is None:
        loaded = load_dataset(source_name(args), args.dataset_config_name, revision=args.dataset_revision, **options)
    elif path.is_file():
        if path.suffix not in _FILE_BUILDERS:
            raise ValueError(f"{path} is not a dataset: give a folder, or a file {', '.join(sorted(_FILE_BUILDERS))}")
        loaded = load_dataset(_FILE_BUILDERS[path.suffix], data_files={split: str(path)}, **options)
    else:
        loaded = load_dataset(str(path), args.dataset_config_name, **options)
    if not isinstance(loaded, Dataset | IterableDataset):
        raise TypeError(f"expected one split of {source_name(args)!r}, got {type(loaded).__name__}")
    return loaded


def split_names(args: DataArgs) -> list[str]:
    """The splits of stored data; empty if that cannot be found out."""
    if args.dataset_name == "digits":
        return sorted(path.stem for path in DIGITS.glob("*.parquet"))
    path = _local_path(args)
    if path is not None and (path / "dataset_dict.json").exists():
        return list(json.loads((path / "dataset_dict.json").read_text())["splits"])
    try:
        return get_dataset_split_names(
            str(path or source_name(args)), args.dataset_config_name, revision=args.dataset_revision
        )
    except Exception:  # only the wording of another error depends on it
        return []


def load_rows(args: DataArgs, split: str, streaming: bool = False) -> Dataset | IterableDataset:
    """The rows of one split, as they are stored.

    Args:
        args: The flags.
        split: Name of the split (or, on the Hub and for folders, a slice such as "train[:10%]").
        streaming: Give an `IterableDataset` that reads while it is used.

    Raises:
        FileNotFoundError: a path or dataset that does not exist.
        ValueError: an unknown split or configuration.
    """
    name = source_name(args)
    if args.dataset_name in POINT_SETS:
        raise ValueError(f"{name!r} is a set of points, not of pictures: use points_dataset")
    if args.dataset_name == "digits":
        rows = _digits(split)
        return rows.to_iterable_dataset(num_shards=8) if streaming else rows
    path = _local_path(args)
    if path is not None and path.is_dir() and any((path / f).exists() for f in ("dataset_dict.json", "state.json")):
        rows = _saved(path, split)
        return rows.to_iterable_dataset(num_shards=min(64, max(1, len(rows)))) if streaming else rows
    try:
        return _load(args, path, split, streaming)
    except DataFilesNotFoundError as error:
        raise FileNotFoundError(f"{name!r} holds no data files that can be read: {error}") from error
    except DatasetNotFoundError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a folder here, nor an embedded set ({', '.join(IMAGE_SETS)}), nor a dataset on the "
            f"Hub that this machine can reach: {error} If it is private, run `hf auth login` with a token that may "
            "read it, or set HF_TOKEN."
        ) from error
    except ConnectionError as error:
        raise FileNotFoundError(
            f"{name!r} is neither a folder here nor an embedded set ({', '.join(IMAGE_SETS)}), and the Hub cannot be "
            f"reached: {error}"
        ) from error
    except ValueError as error:
        if "corresponds to no data" in str(error):  # how `datasets` calls a split without rows
            raise ValueError(f"split {split!r} of {name!r} is empty") from error
        names = split_names(args)
        if names and split.split("[")[0] not in names:
            raise ValueError(unknown_split(name, split, names)) from error
        raise


def stream_identity(args: DataArgs) -> list[Any]:
    """What tells one stream from another without reading it: JSON-serialisable, the same on every machine.

    For local data the names and sizes of the files, relative to the folder; for the Hub the id, the configuration and
    the commit (if the Hub cannot be asked: the revision that was asked for).
    """
    path = DIGITS if args.dataset_name == "digits" else _local_path(args)
    if path is not None:
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        return [args.dataset_config_name, [(f.relative_to(path).as_posix(), f.stat().st_size) for f in files]]
    revision = args.dataset_revision
    try:
        revision = HfApi().dataset_info(source_name(args), revision=revision, timeout=10).sha
    except (OSError, HfHubHTTPError) as error:
        logger.warning("the commit of %s could not be looked up (%s)", source_name(args), error)
    return [source_name(args), args.dataset_config_name, revision]


def check_column(flag: str, column: str, columns: Iterable[str] | None) -> None:
    """Refuse a column that is not there.

    Raises:
        ValueError: names the flag, the column and the columns there are.
    """
    columns = list(columns or [])
    if column not in columns:
        raise ValueError(f"--{flag} {column!r} is not there; the columns are: {', '.join(columns) or '(none)'}")


def undecoded(rows: Dataset | IterableDataset, column: str) -> Any:
    """The same rows, with the pictures of `column` as stored bytes or paths (see `decode.read_raw`).

    Raises:
        ValueError: the column holds something that cannot be a picture.
    """
    feature = (rows.features or {}).get(column)
    if isinstance(feature, Image):
        return rows.cast_column(column, Image(decode=False))
    if isinstance(feature, Value) and not _maybe_picture(feature.pa_type):
        raise ValueError(f"--image_column {column!r} holds {feature.dtype}, not pictures")
    return rows


def _maybe_picture(kind: pa.DataType) -> bool:
    """Whether single values of this type can be pictures: encoded bytes or paths (or nothing but nulls)."""
    tests = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_string, pa.types.is_large_string)
    return pa.types.is_null(kind) or any(test(kind) for test in tests)
