"""A latent map as a picture, and the way from its pixels to places on the map and back. A part of pipelines' files
(see `hf_genzoo.hub.inline`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

MAP_SIZE = 640
"""Pixels a side."""
_MARGIN = 26
_THUMBNAIL = 28
# Okabe & Ito's colours, then Tol's: told apart with any colour vision.
_COLOURS = (
    *("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#D55E00", "#56B4E9", "#8C6D31", "#332288", "#117733", "#AA4499"),
    *("#999933", "#661100"),
)


@dataclass(frozen=True)
class Frame:
    """Where a map lies in its picture.

    Args:
        centre: Place in the middle of the picture.
        half: Half the side of the square shown, in the map's units.
    """

    centre: tuple[float, float]
    half: float

    @classmethod
    def of(cls, points: NDArray[np.floating]) -> "Frame":
        """The square around all points (N, 2)."""
        low, high = points.min(0), points.max(0)
        return cls(
            (float((low[0] + high[0]) / 2), float((low[1] + high[1]) / 2)), float(max((high - low).max() / 2, 1e-6))
        )

    @property
    def _scale(self) -> float:
        return (MAP_SIZE / 2 - _MARGIN) / self.half

    def pixel(self, x: float, y: float) -> tuple[float, float]:
        """Pixel (column, row) of a place; y points upwards on the map."""
        return (x - self.centre[0]) * self._scale + MAP_SIZE / 2, MAP_SIZE / 2 - (y - self.centre[1]) * self._scale

    def place(self, column: float, row: float) -> tuple[float, float]:
        """Place (x, y) of a pixel."""
        return (column - MAP_SIZE / 2) / self._scale + self.centre[0], (
            MAP_SIZE / 2 - row
        ) / self._scale + self.centre[1]


def draw_map(
    points: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
    names: Sequence[str] = (),
    picture: Callable[[int], PIL.Image.Image] | None = None,
    mark: tuple[float, float] | None = None,
) -> PIL.Image.Image:
    """A map as a picture of MAP_SIZE x MAP_SIZE pixels.

    Args:
        points: (N, 2).
        labels: (N,) classes, which give the dots their colours and names.
        names: Name of each class; its number where there is none.
        picture: Gives the picture of a point; then as many pictures as do not cover one another are shown for dots.
        mark: A place to mark with a cross.
    """
    frame, image = Frame.of(points), PIL.Image.new("RGB", (MAP_SIZE, MAP_SIZE), "white")
    draw = PIL.ImageDraw.Draw(image)
    for index, point in enumerate(points):
        column, row = frame.pixel(*point)
        colour = _COLOURS[int(labels[index]) % len(_COLOURS)] if labels is not None else _COLOURS[0]
        draw.ellipse((column - 3, row - 3, column + 3, row + 3), fill=colour)
    if picture is not None:
        _paste_pictures(image, frame, points, picture)
    elif labels is not None:
        _name_classes(draw, frame, points, labels, names)
    if mark is not None:
        column, row = frame.pixel(*mark)
        for width, colour in ((5, "white"), (2, "black")):
            draw.line((column - 9, row, column + 9, row), fill=colour, width=width)
            draw.line((column, row - 9, column, row + 9), fill=colour, width=width)
    return image


def _paste_pictures(
    image: PIL.Image.Image,
    frame: Frame,
    points: NDArray[np.floating],
    picture: Callable[[int], PIL.Image.Image],
) -> None:
    taken: set[tuple[int, int]] = set()
    for index, point in enumerate(points):
        column, row = frame.pixel(*point)
        cell = (round(column / _THUMBNAIL), round(row / _THUMBNAIL))
        if cell in taken:
            continue
        taken.add(cell)
        small = picture(index).convert("RGB").resize((_THUMBNAIL - 2, _THUMBNAIL - 2), PIL.Image.Resampling.LANCZOS)
        image.paste(small, (cell[0] * _THUMBNAIL - _THUMBNAIL // 2, cell[1] * _THUMBNAIL - _THUMBNAIL // 2))


def _name_classes(
    draw: PIL.ImageDraw.ImageDraw,
    frame: Frame,
    points: NDArray[np.floating],
    labels: NDArray[np.integer],
    names: Sequence[str],
) -> None:
    """The name of each class, where most of it lies."""
    font = PIL.ImageFont.load_default(size=20)
    for label in np.unique(labels):
        column, row = frame.pixel(*np.median(points[labels == label], axis=0))
        name = names[label] if 0 <= label < len(names) else str(label)
        style = {"font": font, "anchor": "mm", "stroke_width": 3, "stroke_fill": "white"}
        draw.text((column, row), str(name)[:16], fill=_COLOURS[int(label) % len(_COLOURS)], **style)
