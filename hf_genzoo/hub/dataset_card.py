"""Render a data set's card: every number and type in it is read off what was written."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import Array2D, Array3D, Array4D, Array5D, ClassLabel, DatasetInfo, Features, Image, List, Value
from datasets.info import DatasetInfosDict
from datasets.splits import SplitDict, SplitInfo
from huggingface_hub import DatasetCardData

from hf_genzoo.data.args import POINT_SETS
from hf_genzoo.data.computed import EMBEDDED
from hf_genzoo.hub.card_templates import template
from hf_genzoo.hub.dataset_about import About
from hf_genzoo.hub.dataset_parquet import Written, data_folder
from hf_genzoo.hub.dataset_pictures import picture_columns
from hf_genzoo.hub.dataset_source import Config, Request

CAPTION_NAMES = ("text", "caption", "captions", "prompt")
GREY_MODES = ("1", "L", "LA", "I", "I;16", "I;16B", "I;16L", "F")
COLOURS = {"1": "black and white", "L": "grey", "RGB": "colour", "P": "palette", "RGBA": "colour with transparency"}
NAMES_SHOWN, EXAMPLE_LENGTH = 20, 80
LARGEST_TRAINED, STAGES_FACTOR = 64, 4
"""Largest resolution that the card's training command takes, and what every family's default stages divide."""

_SIZES = ((10**3, "n<1K"), (10**4, "1K<n<10K"), (10**5, "10K<n<100K"), (10**6, "100K<n<1M"), (10**7, "1M<n<10M"))


def render_dataset_card(
    repo_id: str, request: Request, about: About, configs: Sequence[tuple[Config, list[Written]]], picture: str | None
) -> str:
    """The text of the data set's README.

    Args:
        repo_id: "user/name".
        request: What was asked for.
        about: What is said of the set.
        configs: Each configuration with its written splits.
        picture: Name of the picture of its rows, if there is one.
    """
    first = configs[0][1][0]
    pictures = picture_columns(first.features)
    body = template("_dataset.md").render(
        repo_id=repo_id,
        name=repo_id.split("/")[-1],
        about=about,
        picture=picture,
        pictures=pictures,
        shown=len(first.shown),
        gaps=any(row[name] is None for row in first.shown for name in pictures),
        split=first.name,
        configs=[(config.name, splits, _columns(splits, about)) for config, splits in configs],
        config=configs[0][0].name if len(configs) > 1 else None,
        training=_training_flags(first, pictures) if pictures else None,
        classes=[name for name, kind in first.features.items() if isinstance(kind, ClassLabel)] if pictures else [],
        captions=_captions(first.features) if pictures else [],
        same_as=_same_as(request),
    )
    return f"---\n{_metadata(repo_id, about, configs).to_yaml()}\n---\n\n{body.strip()}\n"


def _same_as(request: Request) -> str | None:
    """The flags that train on the very same points without a download, for sets of points."""
    if request.name not in POINT_SETS or request.draw != EMBEDDED or request.max_samples is not None:
        return None
    config = f" --dataset_config_name {request.config_names[0]}" if request.config_names else ""
    return f"--dataset_name {request.name}{config}"


def _captions(features: Features) -> list[str]:
    texts = ("string", "large_string")
    plain = [name for name, kind in features.items() if isinstance(kind, Value) and kind.dtype in texts]
    lists = [name for name, kind in features.items() if isinstance(kind, List) and isinstance(kind.feature, Value)]
    lists = [name for name in lists if features[name].feature.dtype in texts]
    return [name for name in CAPTION_NAMES if name in plain + lists]


def _training_flags(split: Written, pictures: Sequence[str]) -> str:
    """What `genzoo train` must be told about the pictures beyond the data set's name."""
    column = pictures[0]
    looks = split.looks[column]
    is_grey = all(mode in GREY_MODES for _, _, mode in looks)
    smallest = min((min(size) for _, size, _ in looks), default=LARGEST_TRAINED)
    resolution = max(STAGES_FACTOR, min(LARGEST_TRAINED, smallest) // STAGES_FACTOR * STAGES_FACTOR)
    flags = [f"--num_channels {1 if is_grey else 3}", f"--resolution {resolution}"]
    flags += [] if column == "image" else [f"--image_column {column}"]
    flags += [] if split.name == "train" else [f"--dataset_split {split.name}"]
    return " ".join(flags)


def _metadata(repo_id: str, about: About, configs: Sequence[tuple[Config, list[Written]]]) -> DatasetCardData:
    infos, entries = {}, []
    for number, (config, splits) in enumerate(configs):
        infos[config.name] = _info(splits)
        files = [{"split": s.name, "path": f"{data_folder(config.name)}/{s.name}-*"} for s in splits]
        is_default = {"default": True} if len(configs) > 1 and number == 0 else {}
        entries.append({"config_name": config.name, "data_files": files, **is_default})
    rows = sum(split.num_rows for _, splits in configs for split in splits)
    data = DatasetCardData(
        license=about.licence,
        pretty_name=repo_id.split("/")[-1],
        task_categories=_tasks(configs[0][1][0].features),
        size_categories=[next((name for limit, name in _SIZES if rows < limit), "n>10M")],
        tags=["hf_genzoo", "generative-model"],
        configs=entries,
    )
    DatasetInfosDict(infos).to_dataset_card_data(data)
    return data


def _info(splits: Sequence[Written]) -> DatasetInfo:
    sizes = SplitDict()
    for split in splits:
        sizes.add(SplitInfo(split.name, num_bytes=split.num_bytes, num_examples=split.num_rows))
    return DatasetInfo(
        features=splits[0].features,
        splits=sizes,
        download_size=sum(file.stat().st_size for split in splits for file in split.files),
        dataset_size=sum(split.num_bytes for split in splits),
    )


def _tasks(features: Features) -> list[str]:
    pictures = picture_columns(features)
    if not pictures:
        return ["other"]
    tasks = ["unconditional-image-generation"]
    tasks += ["text-to-image"] if _captions(features) else []
    tasks += ["image-to-image"] if len(pictures) > 1 else []
    tasks += ["image-classification"] if any(isinstance(kind, ClassLabel) for kind in features.values()) else []
    return tasks


def _columns(splits: Sequence[Written], about: About) -> list[tuple[str, str, str]]:
    """Name, type and meaning of each column."""
    first = splits[0]
    rows = []
    for name, feature in first.features.items():
        meaning = [about.columns[name]] if name in about.columns else []
        if not isinstance(feature, Image | ClassLabel) and (example := _example(first, name)) is not None:
            meaning.append(f"such as `{example}`")
        if missing := sum(split.nulls[name] for split in splits):
            meaning.append(f"missing in {missing:,} of {sum(split.num_rows for split in splits):,} rows")
        rows.append((name, _kind(feature, splits, name), "; ".join(meaning)))
    return rows


def _kind(feature: Any, splits: Sequence[Written], name: str) -> str:
    """A column's type in words."""
    if isinstance(feature, Image):
        return f"picture: {_look_of([split.looks[name] for split in splits])}"
    if isinstance(feature, ClassLabel):
        if feature.names == [str(number) for number in range(len(feature.names))]:
            return f"class, one of {len(feature.names)}: 0 to {len(feature.names) - 1}"
        names = [_cell(text) for text in feature.names]
        more = ", ..." if len(names) > NAMES_SHOWN else ""
        return f"class, one of {len(names)}: {', '.join(names[:NAMES_SHOWN])}{more}"
    if isinstance(feature, Value):
        return "text" if feature.dtype in ("string", "large_string") else feature.dtype
    if isinstance(feature, List) and isinstance(feature.feature, Value):
        length = f"{feature.length} " if feature.length > 0 else ""
        return f"list of {length}{'texts' if feature.feature.dtype == 'string' else feature.feature.dtype}"
    if isinstance(feature, Array2D | Array3D | Array4D | Array5D):
        return f"{' x '.join(map(str, feature.shape))} numbers, {feature.dtype}"
    return _cell(f"{feature}")


def _look_of(counts: Sequence[Mapping[tuple[str, tuple[int, int], str], int]]) -> str:
    """ "PNG, 28 x 28, grey"."""
    looks = sum((Counter(count) for count in counts), Counter())
    if not looks:
        return "all missing"
    formats = ", ".join(sorted({format for format, _, _ in looks}))
    widths, heights = (sorted({size[axis] for _, size, _ in looks}) for axis in (0, 1))
    smallest, largest = f"{widths[0]} x {heights[0]}", f"{widths[-1]} x {heights[-1]}"
    size = smallest if smallest == largest else f"{smallest} to {largest}"
    return f"{formats}, {size}, {', '.join(sorted({COLOURS.get(mode, mode) for _, _, mode in looks}))}"


def _example(split: Written, name: str) -> str | None:
    """The first value that is there, short enough for a table; None for arrays and where there is none."""
    value = next((row[name] for row in split.shown if row[name] not in (None, "", [])), None)
    if value is None or (isinstance(value, list) and value and isinstance(value[0], list)):
        return None
    if isinstance(value, list) and value and isinstance(value[0], float):
        value = [round(number, 3) for number in value]
    return _cell(f"{round(value, 4) if isinstance(value, float) else value}")


def _cell(text: str) -> str:
    """A text that breaks neither a table nor code marks, cut to a readable length."""
    text = re.sub(r"\s+", " ", text).replace("|", "\\|").replace("`", "'")
    return text if len(text) <= EXAMPLE_LENGTH else f"{text[: EXAMPLE_LENGTH - 3]}..."
