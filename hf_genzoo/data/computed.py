"""Embedded picture sets that are computed from a seed: what they share, and how a name finds its set."""

from collections.abc import Callable, Mapping
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


@dataclass(frozen=True)
class Draw:
    """How much of a computed set is drawn, and from which seed. The default is the embedded set itself.

    Args:
        num_samples: Rows of the training split; the other splits have a tenth of it each (at least one row). None: the
            set's own sizes.
        seed: 0 for the embedded set; any other number for other rows of the same kind.

    Raises:
        ValueError: fewer than one row, or a negative seed.
    """

    num_samples: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        if self.num_samples is not None and self.num_samples < 1:
            raise ValueError(f"--num_samples must be at least 1, not {self.num_samples!r}")
        if self.seed < 0:
            raise ValueError(f"--seed must be at least 0, not {self.seed!r}")

    def sizes(self, own: Mapping[str, int]) -> dict[str, int]:
        """Rows of each split of a set whose own sizes are given."""
        if self.num_samples is None:
            return dict(own)
        return {split: self.num_samples if split == "train" else max(1, self.num_samples // 10) for split in own}

    def seeds(self, *parts: int) -> list[int]:
        """The parts of a seed of the embedded set, for this draw."""
        return [*parts, self.seed] if self.seed else [*parts]

    def recipe(self) -> list[int | None]:
        """What tells this draw from the embedded set: nothing for the set itself."""
        return [] if self == Draw() else [self.num_samples, self.seed]


EMBEDDED = Draw()


def computed_set(args: DataArgs, split: str, draw: Draw = EMBEDDED) -> Computed:
    """The set `args.dataset_name`.

    Raises:
        ValueError: an unknown split or configuration, or more rows than there are.
    """
    check_split(str(args.dataset_name), split)
    module = import_module(f"hf_genzoo.data.{args.dataset_name}")
    return module.computed(split, args.dataset_config_name, draw)
