"""Points in the plane with known structure: the embedded set `gaussians2d`.

`ring` (8 Gaussians on the unit circle, standard deviation 0.01) and `grid` (25 Gaussians on {-4, -2, 0, 2, 4}^2, 0.05)
follow Lin et al. 2018 (PacGAN, https://arxiv.org/abs/1712.04086, section 4.1); their density has a closed form.
`swiss_roll` and `moons` are the usual test shapes, scaled to the square [-1, 1]^2 up to noise; they have none.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from hf_genzoo.data.args import POINT_SETS, DataArgs, check_args
from hf_genzoo.data.columns import class_ids, found_classes
from hf_genzoo.data.computed import EMBEDDED, Draw, check_split
from hf_genzoo.data.fingerprint import digest
from hf_genzoo.data.order import MapData
from hf_genzoo.data.sources import check_column

VERSION = 1
NUM_POINTS = {"train": 100_000, "validation": 10_000, "test": 10_000}
HIGH_QUALITY_STDS = 3.0
"""A sample is of high quality if it lies within this many standard deviations of a mode (Lin et al. 2018)."""


@dataclass(frozen=True)
class Mixture:
    """An equal-weight mixture of isotropic Gaussians.

    Args:
        modes: Means, float64 (K, 2).
        std: Standard deviation of each.
    """

    modes: np.ndarray
    std: float

    def sample(self, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Points (n, 2) and the mode of each (n,)."""
        which = rng.integers(len(self.modes), size=n)
        return self.modes[which] + self.std * rng.standard_normal((n, 2)), which

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """log p(x) in nats of points (N, 2): float64 (N,)."""
        square = ((np.asarray(points, np.float64)[:, None, :] - self.modes) ** 2).sum(-1)
        exponent = -square / (2 * self.std**2)
        top = exponent.max(1, keepdims=True)
        total = top[:, 0] + np.log(np.exp(exponent - top).sum(1))
        return total - np.log(len(self.modes) * 2 * np.pi * self.std**2)


def _ring() -> Mixture:
    angles = 2 * np.pi * np.arange(8) / 8
    return Mixture(np.stack([np.cos(angles), np.sin(angles)], 1), 0.01)


def _grid() -> Mixture:
    axis = np.array([-4.0, -2.0, 0.0, 2.0, 4.0])
    return Mixture(np.stack(np.meshgrid(axis, axis, indexing="ij"), -1).reshape(-1, 2), 0.05)


MIXTURES: dict[str, Callable[[], Mixture]] = {"ring": _ring, "grid": _grid}


def _swiss_roll(n: int, rng: np.random.Generator) -> tuple[np.ndarray, None]:
    """An Archimedean spiral of one and a half turns with noise of 0.02."""
    t = 1.5 * np.pi * (1 + 2 * rng.random(n))
    spiral = np.stack([t * np.cos(t), t * np.sin(t)], 1) / (4.5 * np.pi)
    return spiral + 0.02 * rng.standard_normal((n, 2)), None


def _moons(n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Two interleaved half circles with noise of 0.04, and which of the two each point is on."""
    which, t = rng.integers(2, size=n), np.pi * rng.random(n)
    upper = np.stack([np.cos(t), np.sin(t)], 1)
    lower = np.stack([1 - np.cos(t), 0.5 - np.sin(t)], 1)
    points = np.where(which[:, None] == 0, upper, lower) - np.array([0.5, 0.25])
    return points / 1.5 + 0.04 * rng.standard_normal((n, 2)), which


SHAPES: dict[str, Callable[[int, np.random.Generator], tuple[np.ndarray, np.ndarray | None]]] = {
    "swiss_roll": _swiss_roll,
    "moons": _moons,
}
CONFIGS = (*MIXTURES, *SHAPES)


class Gaussians2D:
    """One of the distributions: seeded points, and what is known of it.

    Args:
        config: ring, grid, swiss_roll or moons.

    Attributes:
        modes: Means of the Gaussians, float64 (K, 2); None for swiss_roll and moons.
        std: Their standard deviation; None likewise.
        has_density: Whether `log_density` has a closed form.

    Raises:
        ValueError: an unknown config.
    """

    def __init__(self, config: str = "ring") -> None:
        if config not in CONFIGS:
            raise ValueError(f"gaussians2d has no configuration {config!r}; it has: {', '.join(CONFIGS)}")
        self.config = config
        self._mixture = MIXTURES[config]() if config in MIXTURES else None
        self.modes = None if self._mixture is None else self._mixture.modes
        self.std = None if self._mixture is None else self._mixture.std
        self.has_density = self._mixture is not None

    def sample(self, n: int, seed: int | list[int]) -> tuple[np.ndarray, np.ndarray | None]:
        """Points, float32 (n, 2), and the mode (or moon) of each, int64 (n,), None for swiss_roll."""
        rng = np.random.default_rng(seed)
        points, which = self._mixture.sample(n, rng) if self._mixture else SHAPES[self.config](n, rng)
        return points.astype(np.float32), which

    def log_density(self, points: np.ndarray) -> np.ndarray:
        """log p(x) in nats of points (N, 2): float64 (N,).

        Raises:
            ValueError: swiss_roll and moons have no closed form.
        """
        if self._mixture is None:
            raise ValueError(f"the density of {self.config!r} has no closed form; ring and grid have one")
        return self._mixture.log_density(points)

    def nearest_mode(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """For points (N, 2): the nearest mode, int64 (N,), and whether it is within 3 standard deviations, (N,).

        Raises:
            ValueError: swiss_roll and moons have no modes.
        """
        if self._mixture is None:
            raise ValueError(f"{self.config!r} has no modes; ring and grid have")
        distance = np.linalg.norm(np.asarray(points, np.float64)[:, None, :] - self._mixture.modes, axis=-1)
        nearest = distance.argmin(1)
        return nearest, distance[np.arange(len(points)), nearest] <= HIGH_QUALITY_STDS * self._mixture.std


class MapPoints(MapData):
    """Points with random access.

    Attributes:
        points: float32 (N, 2).
        labels: Mode or moon of each point, int64 (N,), if asked for.
        distribution: What they were drawn from.
    """

    key = "points"

    def __init__(
        self,
        *,
        name: str,
        fingerprint: str,
        points: np.ndarray,
        distribution: Gaussians2D,
        labels: np.ndarray | None = None,
        class_names: list[str] | None = None,
    ) -> None:
        self.name, self.fingerprint = name, fingerprint
        self.points, self.distribution = points, distribution
        self.labels, self.class_names = labels, class_names
        self.num_samples = len(points)

    def gather(
        self, indices: np.ndarray, positions: np.ndarray, seed: int, device: torch.device | str
    ) -> dict[str, Any]:
        """See `MapData.gather`."""
        batch: dict[str, Any] = {self.key: torch.from_numpy(self.points[indices]).to(device)}
        if self.labels is not None:
            batch["class_labels"] = torch.from_numpy(self.labels[indices]).to(device)
        return batch

    def examples(self, n: int, device: torch.device | str = "cpu") -> dict[str, Any]:
        """The first n samples (or all, if there are fewer) as one batch."""
        indices = np.arange(min(n, self.num_samples))
        return self.gather(indices, indices, 0, device)


def drawn_points(
    config: str | None, split: str, draw: Draw = EMBEDDED
) -> tuple[Gaussians2D, np.ndarray, np.ndarray | None, list[int]]:
    """One split of gaussians2d: the distribution, points (N, 2), the mode or moon of each (N,), and the seed.

    Raises:
        ValueError: an unknown configuration or split.
    """
    check_split("gaussians2d", split)
    distribution = Gaussians2D(config or CONFIGS[0])
    seed = draw.seeds(VERSION, CONFIGS.index(distribution.config), list(NUM_POINTS).index(split))
    return distribution, *distribution.sample(draw.sizes(NUM_POINTS)[split], seed), seed


def points_dataset(args: DataArgs, *, split: str | None = None) -> MapPoints:
    """The points that the flags name: 100,000 for training, 10,000 for validation, 10,000 for testing.

    Args:
        args: Any object with the fields of `DataArgs`; `dataset_config_name` is ring (default), grid, swiss_roll or
            moons; `class_column` may be "label", the mode or moon of each point.
        split: Another split than `args.dataset_split`; `max_train_samples` does not apply to it.

    Raises:
        ValueError: another dataset, or an unknown configuration, split or column.
    """
    check_args(args)
    if args.dataset_name not in POINT_SETS:
        raise ValueError(
            f"{args.dataset_name or args.train_data_dir!r} is no set of points; there is: {', '.join(POINT_SETS)}"
        )
    if args.streaming:
        raise ValueError("--streaming: gaussians2d is computed at once, there is nothing to stream; drop it")
    split = split or args.dataset_split
    distribution, points, which, seed = drawn_points(args.dataset_config_name, split)
    if split == args.dataset_split and args.max_train_samples is not None:
        points = points[: args.max_train_samples]
        which = None if which is None else which[: args.max_train_samples]
    labels, class_names = None, None
    if args.class_column is not None:
        check_column("class_column", args.class_column, ["points"] if which is None else ["label"])
        values = [] if which is None else which.tolist()
        classes = found_classes(values, args.class_column)
        labels, class_names = class_ids(values, classes, args.class_column, np.arange(len(values))), classes.names
    return MapPoints(
        name="gaussians2d" if args.dataset_config_name is None else f"gaussians2d/{distribution.config}",
        fingerprint=digest("gaussians2d", seed, len(points), args.class_column),
        points=points,
        distribution=distribution,
        labels=labels,
        class_names=class_names,
    )
