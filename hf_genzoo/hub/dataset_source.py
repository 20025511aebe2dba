"""What `push_data` publishes, whatever it is read from: splits of rows that are read a few at a time."""

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from datasets import ClassLabel, Dataset, Features, Image, List, Value, get_dataset_config_names
from datasets.data_files import EmptyDatasetError
from datasets.exceptions import DataFilesNotFoundError, DatasetGenerationError
from PIL import Image as PILImage

from hf_genzoo.data.args import IMAGE_SETS, POINT_SETS, DataArgs
from hf_genzoo.data.computed import COMPUTED, SPLITS, Computed, Draw, computed_set
from hf_genzoo.data.images import choose_rows
from hf_genzoo.data.points import drawn_points
from hf_genzoo.data.sources import check_column, load_rows, split_names
from hf_genzoo.hub.dataset_pictures import picture_columns

DEFAULT_CONFIG = "default"
RESOLUTION = 64
"""Height and width of the pictures of computed sets, unless another is asked for."""

EMBEDDED_SETS = (*IMAGE_SETS, *POINT_SETS)
DRAWN_SETS = (*COMPUTED, *POINT_SETS)
"""Sets that are computed from a seed, so that any number of rows can be had."""

PICTURE_SUFFIXES = frozenset(PILImage.registered_extensions())


@dataclass(frozen=True)
class Split:
    """One split of a set.

    Args:
        name: Its name.
        features: Types of the columns.
        numbers: Numbers of its rows in the source, ascending, int64 (N,).
        take: From such numbers to the rows' table. Pictures are stored bytes or paths.
    """

    name: str
    features: Features
    numbers: np.ndarray
    take: Callable[[np.ndarray], pa.Table]

    @property
    def picture_columns(self) -> list[str]:
        """Columns of pictures."""
        return picture_columns(self.features)


@dataclass(frozen=True)
class Config:
    """One configuration of a set: a name ("default" if it is the only one) and its splits."""

    name: str
    splits: list[Split]


@dataclass(frozen=True)
class Request:
    """Which data are to be published; see `push_data` for the fields."""

    name: str
    config_names: Sequence[str] = ()
    max_samples: int | None = None
    draw: Draw = Draw()
    resolution: int | None = None
    image_columns: Sequence[str] = ()

    @property
    def is_embedded(self) -> bool:
        """Whether it names a set that comes with this package."""
        return self.name in EMBEDDED_SETS

    def flags(self, config: str | None) -> DataArgs:
        """The flags that the data layer reads the set by."""
        return DataArgs(dataset_name=self.name, dataset_config_name=config)


def read_configs(request: Request) -> list[Config]:
    """The configurations and splits that were asked for; of stored data nothing but their heads is read yet.

    Raises:
        FileNotFoundError: there is no such set, or the folder holds no data.
        ValueError: a flag that does not go with the set, an unknown configuration, or an empty split.
    """
    names: Sequence[str | None] = request.config_names or [None]
    if not request.is_embedded and not request.config_names:
        _check_one_config(request.name)
    return [Config(name or DEFAULT_CONFIG, _splits(request, name)) for name in names]


def check_request(request: Request) -> None:
    """Refuse what cannot be published, before anything is read.

    Raises:
        FileNotFoundError: there is no such set.
        ValueError: a flag that does not go with the set.
    """
    if request.max_samples is not None and request.max_samples < 1:
        raise ValueError(f"--max_samples must be at least 1, not {request.max_samples!r}")
    if request.resolution is not None and request.resolution < 1:
        raise ValueError(f"--resolution must be at least 1, not {request.resolution!r}")
    if len(set(request.config_names)) < len(request.config_names):
        raise ValueError(f"--dataset_config_name names one twice: {' '.join(request.config_names)}")
    if request.name not in DRAWN_SETS and request.draw != Draw():
        raise ValueError(
            f"--num_samples and --seed are for sets that are computed ({', '.join(DRAWN_SETS)}), not for "
            f"{request.name!r}: use --max_samples for a part of it"
        )
    if request.name not in COMPUTED and request.resolution is not None:
        raise ValueError(
            f"--resolution is for pictures that are computed ({', '.join(COMPUTED)}); those of {request.name!r} are "
            "published as they are: drop it"
        )
    if request.is_embedded and request.image_columns:
        raise ValueError(f"--image_column is for data of your own; {request.name!r} knows its columns: drop it")
    if not request.is_embedded and not Path(request.name).expanduser().exists():
        raise FileNotFoundError(
            f"{request.name!r} is neither an embedded set ({', '.join(EMBEDDED_SETS)}) nor a folder or file here "
            f"(working directory: {Path.cwd()})"
        )


def _check_one_config(name: str) -> None:
    """Insist on a choice where a folder has several configurations.

    Raises:
        FileNotFoundError: it holds no data.
        ValueError: it has.
    """
    path = Path(name).expanduser()
    if not path.is_dir() or any((path / file).exists() for file in ("dataset_dict.json", "state.json")):
        return
    try:
        names = get_dataset_config_names(str(path))
    except (EmptyDatasetError, DataFilesNotFoundError) as error:
        raise FileNotFoundError(
            f"{name!r} holds no data that can be read: it takes pictures (with metadata.jsonl, or one folder a "
            "class), or Parquet, arrow, JSON or CSV files"
        ) from error
    if len(names) > 1:
        raise ValueError(f"{name!r} has several configurations: name one or more with --dataset_config_name {names}")


def _splits(request: Request, config: str | None) -> list[Split]:
    if request.name in POINT_SETS:
        return [_limited(_points(request, config, split), request.max_samples) for split in SPLITS]
    if request.name in COMPUTED:
        resolution = request.resolution or RESOLUTION
        sets = {split: computed_set(request.flags(config), split, request.draw) for split in SPLITS}
        return [_limited(_computed(split, sets[split], resolution), request.max_samples) for split in SPLITS]
    args = request.flags(config)
    names = split_names(args) or ["train"]  # a single file, or one whose error reading it will tell
    order = {name: place for place, name in enumerate(SPLITS)}
    names = sorted(names, key=lambda name: (order.get(name, len(order)), names.index(name)))
    return [_limited(_stored(request, args, name), request.max_samples) for name in names]


def _limited(split: Split, limit: int | None) -> Split:
    """At most `limit` rows: the same random choice as `--max_train_samples` makes."""
    if len(split.numbers) == 0:
        raise ValueError(f"split {split.name!r} is empty: remove it, or put rows into it")
    return replace(split, numbers=split.numbers[choose_rows(len(split.numbers), limit)])


def _stored(request: Request, args: DataArgs, name: str) -> Split:
    try:
        rows = load_rows(args, name)
    except (DatasetGenerationError, pa.ArrowInvalid) as error:
        reason = error.__cause__ or error
        raise ValueError(f"split {name!r} of {request.name!r} cannot be read: {reason}") from error
    if not isinstance(rows, Dataset):
        raise TypeError("a map-style dataset was expected")
    for column in request.image_columns:
        check_column("image_column", column, rows.column_names)
        if not isinstance(rows.features[column], Image):
            rows = rows.cast_column(column, Image())
    _refuse_paths(rows)
    arrow = rows.with_format("arrow")

    def take(numbers: np.ndarray) -> pa.Table:
        first, last = int(numbers[0]), int(numbers[-1])
        return arrow[first : last + 1] if last - first + 1 == len(numbers) else arrow[numbers.tolist()]

    return Split(name, rows.features, np.arange(len(rows)), take)


def _refuse_paths(rows: Dataset) -> None:
    """Refuse texts that are paths of pictures here: published as they are, they would mean nothing to others.

    Raises:
        ValueError: names the column and the flag.
    """
    texts = [name for name, kind in rows.features.items() if isinstance(kind, Value) and "string" in kind.dtype]
    for column in texts if len(rows) else []:
        value = rows.select_columns([column])[0][column]
        if value and Path(value).suffix.lower() in PICTURE_SUFFIXES and len(value) < 4096 and Path(value).is_file():
            raise ValueError(
                f"column {column!r} holds paths of pictures (the first is {value!r}), which nobody else can open: "
                f"give --image_column {column} to publish the pictures themselves, or take the column out"
            )


def _computed(name: str, source: Computed, resolution: int) -> Split:
    """A computed set, drawn while it is read: grey where it can be, as PNG; its classes and captions as columns."""
    channels = 3 if source.name == "scenes" else 1
    source.render(np.arange(1), resolution, channels)  # refuses a resolution that is too small
    features = Features(
        {"image": Image()}
        | {column: Value("string") for column in source.captions}
        | {column: ClassLabel(names=names) for column, (_, names) in source.classes.items()}
    )

    def take(numbers: np.ndarray) -> pa.Table:
        pictures = source.render(numbers, resolution, channels)
        columns: dict[str, list[Any]] = {"image": [{"bytes": _png(picture), "path": None} for picture in pictures]}
        columns |= {column: [texts[i] for i in numbers] for column, texts in source.captions.items()}
        columns |= {column: ids[numbers].tolist() for column, (ids, _) in source.classes.items()}
        return pa.table(columns, schema=features.arrow_schema)

    return Split(name, features, np.arange(source.num_rows), take)


def _png(picture: np.ndarray) -> bytes:
    """uint8 (C, H, W) with C 1 or 3 as PNG."""
    buffer = io.BytesIO()
    PILImage.fromarray(picture[0] if len(picture) == 1 else picture.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def _points(request: Request, config: str | None, name: str) -> Split:
    distribution, points, labels, _ = drawn_points(config, name, request.draw)
    kinds: dict[str, Any] = {"points": List(Value("float32"), length=2)}
    if labels is not None:
        count = int(labels.max()) + 1 if distribution.modes is None else len(distribution.modes)
        kinds["label"] = ClassLabel(names=[str(number) for number in range(count)])
    features = Features(kinds)

    def take(numbers: np.ndarray) -> pa.Table:
        columns = {"points": points[numbers].tolist()}
        if labels is not None:
            columns["label"] = labels[numbers].tolist()
        return pa.table(columns, schema=features.arrow_schema)

    return Split(name, features, np.arange(len(points)), take)
