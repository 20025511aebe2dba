"""Embedded picture sets that are computed from a seed: what they share, and how a name finds its set."""

from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from typing import Any

import numpy as np

from hf_genzoo.data.args import DataArgs
from hf_genzoo.data.sources import unknown_split

COMPUTED = ("scenes", "sprites")
SPLITS = ("train", "validation", "test")


@dataclass(frozen=True)
class Computed:
    """One split of a computed set.

    Args:
        name: Its name.
        recipe: JSON-serialisable values that settle every pixel: the fingerprint is their hash.
        num_rows: Number of pictures.
        render: From row numbers (k,), resolution and channels (1 or 3) to uint8 (k, C, resolution, resolution).
        classes: For each column that can be a class column: ids, int64 (N,), and names.
        captions: For each column of captions: one text a picture.
    """

    name: str
    recipe: list[Any]
    num_rows: int
    render: Callable[[np.ndarray, int, int], np.ndarray]
    classes: dict[str, tuple[np.ndarray, list[str]]] = field(default_factory=dict)
    captions: dict[str, list[str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """All column names."""
        return ["image", *self.captions, *self.classes]


def check_split(name: str, split: str) -> None:
    """Refuse a split that computed sets do not have.

    Raises:
        ValueError: names the splits there are.
    """
    if split not in SPLITS:
        raise ValueError(unknown_split(name, split, SPLITS))


def computed_set(args: DataArgs, split: str) -> Computed:
    """The set `args.dataset_name`.

    Raises:
        ValueError: an unknown split or configuration.
    """
    check_split(str(args.dataset_name), split)
    module = import_module(f"hf_genzoo.data.{args.dataset_name}")
    return module.computed(split, args.dataset_config_name)
