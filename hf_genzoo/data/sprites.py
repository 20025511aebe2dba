"""Sprites: white shapes on black whose every factor is known, after dSprites.

Matthey et al. 2017, dSprites (https://github.com/google-deepmind/dsprites-dataset): shape (square, ellipse, heart),
scale (6 values from 0.5 to 1), orientation (40 in [0, 2 pi)), x and y (32 each in [0, 1]): 737,280 pictures, binary,
64x64. Here they are rendered from their factors at any resolution; outlines are this module's own, so pixels differ
from the released file. The set holds a seeded choice of distinct combinations, since all of them at 64x64 take 3 GB;
`render` draws any other. The configuration `antialiased` has grey outlines instead of binary ones.
"""

from typing import NamedTuple

import numpy as np

from hf_genzoo.data.computed import EMBEDDED, Computed, Draw

VERSION = 1
CONFIGS = ("binary", "antialiased")
NUM_PICTURES = {"train": 20_000, "validation": 2_000, "test": 2_000}
SHAPE_NAMES = ("square", "ellipse", "heart")
SUPERSAMPLING = 4

HALF_SIZE = 0.15
"""Half the side of the largest square, as a part of the picture."""


class Factors(NamedTuple):
    """One value for each factor of a sprite: sizes, values or indices."""

    shape: int
    scale: int
    orientation: int
    x: int
    y: int


FACTOR_SIZES = Factors(shape=3, scale=6, orientation=40, x=32, y=32)
NUM_COMBINATIONS = int(np.prod(FACTOR_SIZES))


def factor_values(indices: np.ndarray) -> np.ndarray:
    """What factor indices (N, 5) stand for: float64 (N, 5) of shape 0..2, scale 0.5..1, radians, x and y in [0, 1]."""
    indices = np.asarray(indices)
    check_factors(indices)
    return np.stack(
        [
            indices[:, 0].astype(float),
            np.linspace(0.5, 1.0, FACTOR_SIZES.scale)[indices[:, 1]],
            (2 * np.pi * np.arange(FACTOR_SIZES.orientation) / FACTOR_SIZES.orientation)[indices[:, 2]],
            np.linspace(0.0, 1.0, FACTOR_SIZES.x)[indices[:, 3]],
            np.linspace(0.0, 1.0, FACTOR_SIZES.y)[indices[:, 4]],
        ],
        axis=1,
    )


def check_factors(indices: np.ndarray) -> None:
    """Refuse indices that are no factors.

    Raises:
        ValueError: a wrong shape, or the first row that is out of range.
    """
    if indices.ndim != 2 or indices.shape[1] != len(FACTOR_SIZES):
        raise ValueError(f"factors must have shape (N, {len(FACTOR_SIZES)}), got {indices.shape}")
    wrong = np.flatnonzero(((indices < 0) | (indices >= np.array(FACTOR_SIZES))).any(1))
    if len(wrong):
        raise ValueError(f"factors {indices[wrong[0]].tolist()} are out of range; the sizes are {FACTOR_SIZES}")


def combination_factors(numbers: np.ndarray) -> np.ndarray:
    """Factor indices, int64 (N, 5), of combinations numbered 0..737279; y changes fastest."""
    return np.stack(np.unravel_index(np.asarray(numbers), tuple(FACTOR_SIZES)), axis=1).astype(np.int64)


def factors(split: str, draw: Draw = EMBEDDED) -> np.ndarray:
    """Factor indices of every picture of a split, int64 (N, 5): row i belongs to picture i of the source split.

    The combinations of the three splits are distinct from each other.

    Raises:
        ValueError: more rows than there are combinations.
    """
    sizes = draw.sizes(NUM_PICTURES)
    if sum(sizes.values()) > NUM_COMBINATIONS:
        raise ValueError(
            f"sprites has {NUM_COMBINATIONS:,} combinations of factors, too few for --num_samples {draw.num_samples} "
            f"and its held-out splits: ask for at most {NUM_COMBINATIONS * 5 // 6:,}"
        )
    numbers = np.random.default_rng(draw.seeds(VERSION, 2017)).permutation(NUM_COMBINATIONS)
    names = list(NUM_PICTURES)
    start = sum(sizes[name] for name in names[: names.index(split)])
    return combination_factors(numbers[start : start + sizes[split]])


def _square(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return np.maximum(np.abs(u), np.abs(v)) <= 1.0


def _ellipse(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    return (u / 1.25) ** 2 + (v / 0.8) ** 2 <= 1.0


def _heart(u: np.ndarray, v: np.ndarray) -> np.ndarray:
    a, b = u * 1.05, v * 1.05 + 0.1  # the sextic heart (a^2 + b^2 - 1)^3 = a^2 b^3, centred
    outside = a * a + b * b - 1.0
    return outside * outside * outside <= a * a * b * b * b


OUTLINES = (_square, _ellipse, _heart)
"""For each shape: whether points lie inside. u, v in units of half the largest square's side, v upwards."""


def render(indices: np.ndarray, resolution: int = 64, antialiased: bool = False) -> np.ndarray:
    """Pictures from factor indices.

    Args:
        indices: (N, 5), in the order of `Factors`.
        resolution: Height and width in pixels.
        antialiased: Grey values at the outline (4 x 4 samples a pixel) instead of 0 or 255 only.

    Returns:
        uint8 (N, resolution, resolution), white on black.

    Raises:
        ValueError: factors out of range.
    """
    indices = np.asarray(indices)
    values = factor_values(indices)
    fine = resolution * (SUPERSAMPLING if antialiased else 1)
    axis = (np.arange(fine) + 0.5) / fine
    x, y = (grid.reshape(1, -1) for grid in np.meshgrid(axis, axis, indexing="xy"))
    margin = 1.5 * HALF_SIZE  # the farthest corner at the largest scale stays inside the picture
    dx = x - (margin + (1 - 2 * margin) * values[:, 3:4])
    dy = y - (margin + (1 - 2 * margin) * values[:, 4:5])
    cos, sin, unit = np.cos(values[:, 2:3]), np.sin(values[:, 2:3]), HALF_SIZE * values[:, 1:2]
    u, v = (cos * dx + sin * dy) / unit, (sin * dx - cos * dy) / unit
    inside = np.empty(u.shape, bool)
    for number, outline in enumerate(OUTLINES):
        rows = indices[:, 0] == number
        inside[rows] = outline(u[rows], v[rows])
    if not antialiased:
        return inside.reshape(-1, resolution, resolution).astype(np.uint8) * 255
    blocks = inside.reshape(-1, resolution, SUPERSAMPLING, resolution, SUPERSAMPLING)
    return np.rint(255 * blocks.mean((2, 4))).astype(np.uint8)


def computed(split: str, config: str | None, draw: Draw = EMBEDDED) -> Computed:
    """One split as a computed set; each factor is a class column.

    Raises:
        ValueError: an unknown configuration.
    """
    config = config or CONFIGS[0]
    if config not in CONFIGS:
        raise ValueError(f"sprites has no configuration {config!r}; it has: {', '.join(CONFIGS)}")
    table = factors(split, draw)

    def pictures(rows: np.ndarray, resolution: int, num_channels: int) -> np.ndarray:
        grey = render(table[rows], resolution, config == "antialiased")
        return np.repeat(grey[:, None], num_channels, axis=1)

    names = {name: [str(i) for i in range(size)] for name, size in FACTOR_SIZES._asdict().items()}
    names["shape"] = list(SHAPE_NAMES)
    return Computed(
        name="sprites",
        recipe=[VERSION, split, config, *draw.recipe()],
        num_rows=len(table),
        render=pictures,
        classes={name: (np.ascontiguousarray(table[:, i]), names[name]) for i, name in enumerate(Factors._fields)},
    )
