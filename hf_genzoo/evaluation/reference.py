"""The real samples that generated ones are compared with: a training split and a held-out split of one data set."""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import Any

import numpy as np
from datasets import ClassLabel
from numpy.typing import NDArray

from hf_genzoo.data import DataArgs, MapImages, MapPoints, image_dataset, points_dataset
from hf_genzoo.data.args import POINT_SETS
from hf_genzoo.data.computed import COMPUTED, SPLITS
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.data.points import Gaussians2D
from hf_genzoo.data.sources import load_rows, split_names

HELD_OUT_SPLITS = ("test", "validation", "valid", "val", "dev")
"""Names of held-out splits, the first one that exists is taken: choices are made on validation, reports on test."""


@dataclass(frozen=True)
class RealSplit:
    """Real samples of one split.

    Attributes:
        split: Its name.
        fingerprint: Hash of its content.
        key: Hash of the samples as they are here: content, size, crop, choice.
        values: Pictures, uint8 (N, C, H, W), or points, float32 (N, 2).
        labels: Class of each, int64 (N,), or None.
        captions: Caption of each, or None.
    """

    split: str
    fingerprint: str
    key: str
    values: NDArray[Any]
    labels: NDArray[np.int64] | None
    captions: Sequence[str] | None

    def shuffled_rows(self, part: str = "") -> NDArray[np.int64]:
        """All row numbers in a random order that depends on the split's size and the name of the part only."""
        seed = list(digest(part, len(self.values)).encode())
        return np.random.default_rng(seed).permutation(len(self.values))

    def take(self, rows: NDArray[np.int64]) -> "RealSplit":
        """The samples of these row numbers."""
        return RealSplit(
            self.split,
            self.fingerprint,
            digest(self.key, rows.tolist()),
            np.asarray(self.values[rows]),
            None if self.labels is None else self.labels[rows],
            None if self.captions is None else [str(self.captions[row]) for row in rows],
        )


@dataclass(frozen=True)
class Reference:
    """A data set to measure against.

    Attributes:
        name: What the user called it.
        train: What models learn from.
        held_out: What they never see.
        class_names: Names of the classes, or None.
        law: The density that points come from, or None for pictures.
    """

    name: str
    train: RealSplit
    held_out: RealSplit
    class_names: list[str] | None
    law: Gaussians2D | None

    @property
    def largest_count(self) -> int:
        """The most samples that both splits have."""
        return min(len(self.train.values), len(self.held_out.values))


def load_reference(args: DataArgs, split: str | None = None) -> Reference:
    """Both splits that the data flags name.

    Args:
        args: The data flags; `dataset_split` is the training split.
        split: The held-out split; by default the first of `HELD_OUT_SPLITS` that is there.

    Raises:
        ValueError: if the data cannot be indexed, or there is no held-out split.
        FileNotFoundError: if there is no such data.
    """
    if args.streaming:
        raise ValueError("--streaming: measuring needs random access to the data; drop it")
    args = copy(args)
    args.random_flip = False
    names = list(SPLITS) if args.dataset_name in (*COMPUTED, *POINT_SETS) else split_names(args)
    if split is None:
        split = next((name for name in HELD_OUT_SPLITS if name in names and name != args.dataset_split), None)
    if split is None:
        known = ", ".join(names) or args.dataset_split
        raise ValueError(
            f"{args.dataset_name or args.train_data_dir!r} has no held-out split (it has: {known}): name one with "
            f'--split, such as --dataset_split "train[:90%]" --split "train[90%:]"'
        )
    if split == args.dataset_split:
        raise ValueError(f"--split {split} is the training split: a model is measured on data it has not seen")
    load = points_dataset if args.dataset_name in POINT_SETS else image_dataset
    train, held_out = load(args), load(args, split=split)
    assert isinstance(train, MapImages | MapPoints)
    assert isinstance(held_out, MapImages | MapPoints)
    law = train.distribution if isinstance(train, MapPoints) else None
    transform = digest(args.resolution, args.num_channels, args.center_crop, args.image_interpolation_mode)
    return Reference(
        train.name,
        _real(args.dataset_split, train, transform),
        _real(split, held_out, transform),
        train.class_names,
        law,
    )


def _real(split: str, data: MapImages | MapPoints, transform: str) -> RealSplit:
    captions = data.captions.to_list() if isinstance(data, MapImages) and data.captions is not None else None
    values = data.pixels if isinstance(data, MapImages) else data.points
    # A list of captions for a picture: the first one stands for it.
    firsts = None if captions is None else [c if isinstance(c, str) else c[0] for c in captions]
    key = digest(data.fingerprint, transform)
    return RealSplit(split, data.fingerprint, key, values, data.labels, firsts)


def found_class_column(args: DataArgs) -> str | None:
    """The column that says its values are classes, where there is exactly one: extractors may learn from it."""
    if args.dataset_name in (*COMPUTED, *POINT_SETS) or args.streaming:
        return None
    features = load_rows(args, args.dataset_split).features or {}
    columns = [name for name, feature in features.items() if isinstance(feature, ClassLabel)]
    return columns[0] if len(columns) == 1 else None
