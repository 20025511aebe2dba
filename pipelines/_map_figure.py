"""A latent map as a picture, and the way from its pixels to places on the map and back. A part of pipelines' files
(see `hf_genzoo.hub.inline`).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import PIL.ImageDraw
import PIL.ImageFont
from numpy.typing import NDArray

MAP_SIZE = 640
"""Pixels a side; a legend may follow below."""
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
        right, up = (column - MAP_SIZE / 2) / self._scale, (MAP_SIZE / 2 - row) / self._scale
        return self.centre[0] + right, self.centre[1] + up


def draw_map(
    points: NDArray[np.floating],
    labels: NDArray[np.integer] | None = None,
    names: Sequence[str] = (),
    picture: Callable[[int], PIL.Image.Image] | None = None,
    mark: tuple[float, float] | None = None,
) -> PIL.Image.Image:
    """A map as a picture, MAP_SIZE pixels wide and as many high; below them comes the legend of up to 12 classes.

    Args:
        points: (N, 2).
        labels: (N,) classes, which give the dots their colours and names.
        names: Name of each class; its number where there is none.
        picture: Gives the picture of a point; then as many pictures as do not cover one another are shown for dots.
        mark: A place to mark with a cross.
    """
    frame, image = Frame.of(points), PIL.Image.new("RGB", (MAP_SIZE, MAP_SIZE), "white")
    draw = PIL.ImageDraw.Draw(image)
    colours = {} if labels is None else _colours(labels)
    for index, point in enumerate(points):
        column, row = frame.pixel(*point)
        colour = _COLOURS[0] if labels is None else colours[labels[index]]
        draw.ellipse((column - 3, row - 3, column + 3, row + 3), fill=colour)
    if picture is not None:
        _paste_pictures(image, frame, points, picture)
    elif labels is not None:
        _name_classes(draw, frame, points, labels, names, colours)
    if mark is not None:
        column, row = frame.pixel(*mark)
        for width, colour in ((5, "white"), (2, "black")):
            draw.line((column - 9, row, column + 9, row), fill=colour, width=width)
            draw.line((column, row - 9, column, row + 9), fill=colour, width=width)
    return _with_legend(image, names, colours) if 0 < len(colours) <= len(_COLOURS) else image


def _colours(labels: NDArray[np.integer]) -> dict[int, str]:
    """A colour for each class that occurs; from the thirteenth on they come again."""
    return {int(label): _COLOURS[rank % len(_COLOURS)] for rank, label in enumerate(np.unique(labels))}


def _class_name(label: int, names: Sequence[str]) -> str:
    return (names[label] if 0 <= label < len(names) else str(label))[:16]


def _with_legend(image: PIL.Image.Image, names: Sequence[str], colours: Mapping[int, str]) -> PIL.Image.Image:
    """The picture with a dot and a name for each class below it."""
    font, line = PIL.ImageFont.load_default(size=18), 28
    places, column, row = [], _MARGIN, 0
    for label in colours:
        width = 18 + font.getlength(_class_name(label, names))
        if column + width > MAP_SIZE - _MARGIN:
            column, row = _MARGIN, row + 1
        places.append((column, MAP_SIZE + row * line + line // 2))
        column += width + 20
    whole = PIL.Image.new("RGB", (MAP_SIZE, MAP_SIZE + (row + 1) * line + 8), "white")
    whole.paste(image)
    draw = PIL.ImageDraw.Draw(whole)
    for (label, colour), (column, middle) in zip(colours.items(), places, strict=True):
        draw.ellipse((column, middle - 6, column + 12, middle + 6), fill=colour)
        draw.text((column + 18, middle), _class_name(label, names), fill="black", font=font, anchor="lm")
    return whole


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
    colours: Mapping[int, str],
) -> None:
    """The name of each class, where most of it lies."""
    font = PIL.ImageFont.load_default(size=20)
    for label, colour in colours.items():
        column, row = frame.pixel(*np.median(points[labels == label], axis=0))
        style = {"font": font, "anchor": "mm", "stroke_width": 3, "stroke_fill": "white"}
        draw.text((column, row), _class_name(label, names), fill=colour, **style)
