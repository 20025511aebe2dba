"""Scenes: captioned pictures of one or two coloured shapes, and a parser that reads the scene back from a picture.

"a small red circle left of a large blue square". The set serves to measure whether a text-to-image model puts the
right things in the right places, so the parser is the instrument. It works by synthesis: an object is a connected
region that differs from the background; its colour is the typical colour of its core, compared with the palette; the
opacity of each pixel gives its area and centre to a fraction of a pixel; its shape is the one whose rendering at that
centre and area fits best. All shapes of one size have the same area, so size is read from area alone. What fits
nothing is said to be "off-palette" or "unknown", never guessed.

The configuration "compositions" asks for more: its training split has no scene with a colour and shape of `HELD_OUT`,
though every colour and every shape is in it. Its other splits are those of the set itself.
"""

import itertools
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np

from hf_genzoo.data.computed import EMBEDDED, Computed, Draw

VERSION = 1
NUM_PICTURES = {"train": 20_000, "validation": 2_000, "test": 2_000}
MIN_RESOLUTION = 32

SHAPES = ("circle", "square", "triangle")
PALETTE = {
    "red": (220, 30, 30),
    "green": (30, 160, 50),
    "blue": (35, 70, 220),
    "yellow": (245, 205, 20),
    "purple": (145, 45, 180),
    "cyan": (30, 190, 215),
    "black": (20, 20, 20),
}
SIZES = {"small": (0.090, 0.100), "large": (0.145, 0.160)}
"""Range of the radius of the disc of equal area, as a part of the picture's side."""

RELATIONS = {"left of": "right of", "above": "below", "right of": "left of", "below": "above"}
"""Each relation and its converse."""

SIZE_NAMES, COLOUR_NAMES, RELATION_NAMES = tuple(SIZES), tuple(PALETTE), tuple(RELATIONS)

SLOT_KINDS = ("size", "colour", "shape", "relation")
"""What can be right or wrong: three words of each object, and how a pair of objects lies."""

OFF_PALETTE, UNKNOWN = "off-palette", "unknown"

BACKGROUND = np.array([255.0, 255.0, 255.0])
SIZE_BORDER = 0.1225
SIZE_LIMITS = (0.070, 0.195)
FOREGROUND_DISTANCE = 60.0
COLOUR_TOLERANCE = 45.0
FIT_TOLERANCE = 0.16
MIN_AREA = 0.004

EDGE, GAP = 0.02, 0.06
"""Least distance of an object from the edge and from the other object, as a part of the side."""

DIRECTION_MARGIN = 0.10
"""How much farther apart two objects are along the axis of their relation than across it."""

TWO_OBJECTS = 0.8
"""Part of the scenes that have two objects."""

COMPOSITIONS = "compositions"
"""Configuration whose training split lacks the combinations of `HELD_OUT`."""

HELD_OUT = (("red", "triangle"), ("green", "square"), ("purple", "circle"))
"""Colour and shape of objects that the training split of `COMPOSITIONS` does not show."""


@dataclass(frozen=True)
class Thing:
    """One object.

    Args:
        size: "small", "large", or, when read from a picture, "unknown".
        colour: A name of `PALETTE`, or, when read from a picture, "off-palette".
        shape: One of `SHAPES`, or, when read from a picture, "unknown".
        x: Centre from the left, in [0, 1] (not part of the description).
        y: Centre from the top, in [0, 1].
    """

    size: str
    colour: str
    shape: str
    x: float = 0.5
    y: float = 0.5

    @property
    def words(self) -> tuple[str, str, str]:
        """Size, colour, shape: the slots of one object."""
        return self.size, self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """A scene graph: no, one or two objects, and how the first lies to the second.

    Args:
        things: The objects.
        relation: A key of `RELATIONS` if there are two objects, else None.
    """

    things: tuple[Thing, ...]
    relation: str | None = None

    @property
    def caption(self) -> str:
        """The scene in words."""
        nouns = [f"a {' '.join(thing.words)}" for thing in self.things]
        return f" {self.relation} ".join(nouns) if nouns else "an empty picture"

    def converse(self) -> "Scene":
        """The same scene told from the other object."""
        if self.relation is None:
            return self
        return Scene(self.things[::-1], RELATIONS[self.relation])


def parse_caption(caption: str) -> Scene:
    """The scene graph of a caption as `Scene.caption` writes it.

    Raises:
        ValueError: names the part that cannot be read.
    """
    text = " ".join(caption.lower().rstrip(".").split())
    relation = next((r for r in RELATIONS if f" {r} " in text), None)
    nouns = text.split(f" {relation} ") if relation else [text]
    things = []
    for noun in nouns:
        words = noun.split()
        if len(words) != 4 or words[0] != "a" or words[1] not in SIZES or words[2] not in PALETTE:
            raise ValueError(f"cannot read {noun!r} in {caption!r}; expected e.g. 'a small red circle'")
        if words[3] not in SHAPES:
            raise ValueError(f"unknown shape {words[3]!r} in {caption!r}; shapes are: {', '.join(SHAPES)}")
        things.append(Thing(words[1], words[2], words[3]))
    if len(things) > 2:
        raise ValueError(f"a scene has at most two objects: {caption!r}")
    return Scene(tuple(things), relation)


def is_held_out(scene: Scene) -> bool:
    """Whether a scene shows a combination of `HELD_OUT`."""
    return any((thing.colour, thing.shape) in HELD_OUT for thing in scene.things)


def _distance(shape: str, dx: np.ndarray, dy: np.ndarray, radius: np.ndarray) -> np.ndarray:
    """Signed distance to the outline of a shape with the area of a disc of `radius`; negative inside."""
    if shape == "circle":
        return np.hypot(dx, dy) - radius
    if shape == "square":
        return np.maximum(np.abs(dx), np.abs(dy)) - radius * np.sqrt(np.pi) / 2
    inner = radius * np.sqrt(np.pi / (3 * np.sqrt(3)))  # of the inscribed disc of an equilateral triangle, tip up
    return np.maximum(dy, np.abs(dx) * (np.sqrt(3) / 2) - dy / 2) - inner


def coverage(shape: str, x: float, y: float, radius: float, resolution: int) -> np.ndarray:
    """Opacity of each pixel in [0, 1]: float64 (resolution, resolution). All lengths in pixels."""
    axis = np.arange(resolution) + 0.5
    return np.clip(0.5 - _distance(shape, axis[None, :] - x, axis[:, None] - y, np.asarray(radius)), 0.0, 1.0)


def render(scene: Scene, radii: tuple[float, ...], resolution: int = 64) -> np.ndarray:
    """The picture of a scene: uint8 (resolution, resolution, 3), antialiased, on white.

    Args:
        scene: Objects with known colours and shapes.
        radii: For each object the radius of the disc of equal area, as a part of the side; see `SIZES`.
        resolution: Height and width in pixels.
    """
    picture = np.broadcast_to(BACKGROUND, (resolution, resolution, 3))
    for thing, radius in zip(scene.things, radii, strict=True):
        alpha = coverage(thing.shape, thing.x * resolution, thing.y * resolution, radius * resolution, resolution)
        picture = picture + alpha[..., None] * (np.array(PALETTE[thing.colour], float) - picture)
    return np.rint(picture).astype(np.uint8)


def _extent(shape: str, radius: float) -> tuple[float, float, float]:
    """How far a shape reaches from its centre: sideways, up, and down."""
    if shape == "circle":
        return radius, radius, radius
    if shape == "square":
        half = radius * float(np.sqrt(np.pi)) / 2
        return half, half, half
    inner = radius * float(np.sqrt(np.pi / (3 * np.sqrt(3))))
    return inner * float(np.sqrt(3)), 2 * inner, inner


def _relation(first: Thing, second: Thing) -> str:
    """How the first object lies to the second, along the axis in which they are farther apart."""
    dx, dy = first.x - second.x, first.y - second.y
    if abs(dx) >= abs(dy):
        return "left of" if dx < 0 else "right of"
    return "above" if dy < 0 else "below"


def _apart(
    rng: np.random.Generator, need: float, first: tuple[float, float], second: tuple[float, float]
) -> tuple[float, float]:
    """Two places at least `need` apart, first before second, each within its range: distance uniform, then place."""
    distance = rng.uniform(need, second[1] - first[0])
    start = rng.uniform(max(first[0], second[0] - distance), min(first[1], second[1] - distance))
    return float(start), float(start + distance)


def _across(
    rng: np.random.Generator, most: float, first: tuple[float, float], second: tuple[float, float]
) -> tuple[float, float]:
    """Two places at most `most` apart, each within its range (the ranges overlap)."""
    start = rng.uniform(max(first[0], second[0] - most), min(first[1], second[1] + most))
    return float(start), float(rng.uniform(max(second[0], start - most), min(second[1], start + most)))


def _pick(rng: np.random.Generator, names: tuple[str, ...]) -> str:
    return names[int(rng.integers(len(names)))]


def sample(rng: np.random.Generator) -> tuple[Scene, tuple[float, ...]]:
    """A random scene and the radii of its objects. Words and relation are uniform and independent.

    Objects lie inside the picture with a gap between them, and the direction of the relation clearly dominates.
    """
    count = 2 if rng.random() < TWO_OBJECTS else 1
    words = [(_pick(rng, SIZE_NAMES), _pick(rng, COLOUR_NAMES), _pick(rng, SHAPES)) for _ in range(count)]
    radii = tuple(float(rng.uniform(*SIZES[size])) for size, _, _ in words)
    reach = [_extent(shape, radius) for (_, _, shape), radius in zip(words, radii, strict=True)]
    across = [(EDGE + side, 1 - EDGE - side) for side, _, _ in reach]
    down = [(EDGE + up, 1 - EDGE - low) for _, up, low in reach]
    if count == 1:
        return Scene((Thing(*words[0], float(rng.uniform(*across[0])), float(rng.uniform(*down[0]))),)), radii
    relation = _pick(rng, RELATION_NAMES)
    i, j = (0, 1) if relation in ("left of", "above") else (1, 0)  # i is the left or upper one
    x, y = [0.0, 0.0], [0.0, 0.0]
    if relation in ("left of", "right of"):
        x[i], x[j] = _apart(rng, reach[i][0] + reach[j][0] + GAP, across[i], across[j])
        y[i], y[j] = _across(rng, x[j] - x[i] - DIRECTION_MARGIN, down[i], down[j])
    else:
        y[i], y[j] = _apart(rng, reach[i][2] + reach[j][1] + GAP, down[i], down[j])
        x[i], x[j] = _across(rng, y[j] - y[i] - DIRECTION_MARGIN, across[i], across[j])
    return Scene((Thing(*words[0], x[0], y[0]), Thing(*words[1], x[1], y[1])), relation), radii


def _grow(values: np.ndarray) -> np.ndarray:
    """The largest of each pixel (H, W) and its eight neighbours."""
    padded = np.pad(values, 1)
    rows = np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:])
    return np.maximum(np.maximum(rows[:, :-2], rows[:, 1:-1]), rows[:, 2:])


def _regions(mask: np.ndarray) -> list[np.ndarray]:
    """Connected regions (with diagonals) of a mask (H, W): a list of masks, by growing labels to a fixed point."""
    labels = np.where(mask, np.arange(1, mask.size + 1).reshape(mask.shape), 0)
    while True:
        grown = np.where(mask, _grow(labels), 0)
        if np.array_equal(grown, labels):
            return [labels == label for label in np.unique(labels[mask])]
        labels = grown


def _colour(picture: np.ndarray, region: np.ndarray) -> tuple[str, np.ndarray]:
    """Name of the palette colour of a region, and the colour found: the median of the half farthest from white."""
    pixels = picture[region]
    far = np.linalg.norm(pixels - BACKGROUND, axis=1)
    found = np.median(pixels[far >= np.median(far)], axis=0)
    distances = {name: float(np.linalg.norm(found - value)) for name, value in PALETTE.items()}
    name = min(distances, key=distances.__getitem__)
    return (name if distances[name] <= COLOUR_TOLERANCE else OFF_PALETTE), found


def _thing(picture: np.ndarray, region: np.ndarray) -> Thing:
    """Read one object from its region of the picture (H, W, 3)."""
    resolution = len(picture)
    colour, found = _colour(picture, region)
    axis = found - BACKGROUND
    near = _grow(_grow(region))  # faint edges count for the area
    alpha = np.clip((picture - BACKGROUND) @ axis / (axis @ axis), 0.0, 1.0) * near
    alpha[alpha < 0.08] = 0.0  # noise of the background
    area = float(alpha.sum())
    centre = np.arange(resolution) + 0.5
    x, y = float((alpha.sum(0) * centre).sum() / area), float((alpha.sum(1) * centre).sum() / area)
    radius = float(np.sqrt(area / np.pi))
    misfit = {s: float(np.abs(coverage(s, x, y, radius, resolution) - alpha).sum()) / area for s in SHAPES}
    shape = min(misfit, key=misfit.__getitem__)
    part = radius / resolution
    size = UNKNOWN if not SIZE_LIMITS[0] <= part <= SIZE_LIMITS[1] else "small" if part < SIZE_BORDER else "large"
    return Thing(size, colour, shape if misfit[shape] <= FIT_TOLERANCE else UNKNOWN, x / resolution, y / resolution)


def as_levels(image: Any) -> np.ndarray:
    """A picture as float64 (H, W, 3) in 0..255.

    Args:
        image: A PIL image, uint8 (H, W, 3), or floats (H, W, 3) in [0, 1] as pipelines give with output_type="np".

    Raises:
        ValueError: another shape, or floats out of range.
    """
    array = np.asarray(image.convert("RGB") if hasattr(image, "convert") else image)
    if array.ndim != 3 or array.shape[2] != 3 or array.shape[0] != array.shape[1]:
        raise ValueError(f"expected a square picture (H, W, 3), got {array.shape}")
    if array.dtype == np.uint8:
        return array.astype(np.float64)
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ValueError(f"floats must be in [0, 1], got {array.min()} to {array.max()}")
    return array.astype(np.float64) * 255.0


def parse(image: Any) -> Scene:
    """Read the scene graph back out of a picture.

    Args:
        image: See `as_levels`; 32 pixels a side or more.

    Returns:
        The objects, the larger ones first if there are more than two, with the relation of the first two; a picture
        without objects gives a scene without things and with relation None. Slots that cannot be read are
        "off-palette" (colour) or "unknown" (size, shape).
    """
    picture = as_levels(image)
    if len(picture) < MIN_RESOLUTION:
        raise ValueError(f"scenes need {MIN_RESOLUTION} pixels a side or more, got {len(picture)}")
    mask = np.linalg.norm(picture - BACKGROUND, axis=2) > FOREGROUND_DISTANCE
    regions = [region for region in _regions(mask) if region.mean() >= MIN_AREA]
    regions.sort(key=lambda region: -int(region.sum()))
    things = tuple(_thing(picture, region) for region in regions)
    if len(things) < 2:
        return Scene(things)
    return Scene(things, _relation(things[0], things[1]))


def slot_matches(wanted: Scene, found: Scene) -> list[tuple[str, bool]]:
    """Each slot of `wanted`: its kind, one of `SLOT_KINDS`, and whether it is right in `found`.

    Each object has three (size, colour, shape), a pair of objects one more (relation). Objects are matched so that
    most slots agree, of equally good matches the one with the larger objects first; the relation is right if it holds
    between the matched ones. So two objects of one size and shape whose colours are exchanged count as one wrong
    relation, not as two wrong colours: the picture is that of the converse relation.
    """
    best: list[tuple[str, bool]] = []
    padded = [*range(len(found.things)), *[-1] * len(wanted.things)]
    for match in dict.fromkeys(itertools.permutations(padded, len(wanted.things))):
        partners = [found.things[i] if i >= 0 else None for i in match]
        candidate = [
            (kind, partner is not None and partner.words[place] == thing.words[place])
            for thing, partner in zip(wanted.things, partners, strict=True)
            for place, kind in enumerate(SLOT_KINDS[:3])
        ]
        if wanted.relation is not None:
            first, second = partners
            holds = first is not None and second is not None and _relation(first, second) == wanted.relation
            candidate.append(("relation", holds))
        if not best or sum(right for _, right in candidate) > sum(right for _, right in best):
            best = candidate
    return best


def slots(wanted: Scene, found: Scene) -> tuple[int, int]:
    """How many slots of `wanted` are right in `found`, and how many there are; see `slot_matches`.

    An object too many is one wrong slot.
    """
    matches = slot_matches(wanted, found)
    too_many = max(0, len(found.things) - len(wanted.things))
    return sum(right for _, right in matches), len(matches) + too_many


@lru_cache(maxsize=8)
def scenes(split: str, draw: Draw = EMBEDDED) -> list[tuple[Scene, tuple[float, ...]]]:
    """All scenes of a split with the radii of their objects: scene i belongs to picture i of the source split."""
    rng = np.random.default_rng(draw.seeds(VERSION, list(NUM_PICTURES).index(split)))
    return [sample(rng) for _ in range(draw.sizes(NUM_PICTURES)[split])]


def computed(split: str, config: str | None, draw: Draw = EMBEDDED) -> Computed:
    """One split as a computed set with the caption column "text".

    Raises:
        ValueError: an unknown configuration, grey pictures, or too small ones.
    """
    if config not in (None, COMPOSITIONS):
        raise ValueError(f"scenes has no configuration {config!r}; it has {COMPOSITIONS}, or none")
    table = scenes(split, draw)
    if config == COMPOSITIONS and split == "train":
        table = [(scene, radii) for scene, radii in table if not is_held_out(scene)]

    def pictures(rows: np.ndarray, resolution: int, num_channels: int) -> np.ndarray:
        if num_channels != 3:
            raise ValueError(f"scenes are about colour: --num_channels must be 3, not {num_channels}")
        if resolution < MIN_RESOLUTION:
            raise ValueError(f"scenes need --resolution {MIN_RESOLUTION} or more, not {resolution}")
        chosen = [table[i] for i in rows]
        return np.stack([render(scene, radii, resolution).transpose(2, 0, 1) for scene, radii in chosen])

    captions = [scene.caption for scene, _ in table]
    recipe = [VERSION, split, *draw.recipe(), *([] if config is None else [config, HELD_OUT])]
    return Computed("scenes", recipe, len(table), pictures, captions={"text": captions})
