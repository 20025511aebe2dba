"""The picture of a data set's card: rows as a grid of their pictures, or their points as drawings."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from datasets import Array2D, Features, List, Value
from datasets import Image as ImageFeature
from PIL import Image, ImageDraw, ImageOps

from hf_genzoo.data.decode import CorruptImageError, decode_whole
from hf_genzoo.images import image_grid

TILE, PLOT = 128, 512
GRID_COLUMNS = 8
PICTURE_ROWS, CLOUD_ROWS, POINT_ROWS = 32, 16, 2500
"""Rows that are shown of sets of pictures, of clouds of points, and of single points."""

INK = (33, 74, 135)


def picture_columns(features: Features) -> list[str]:
    """Columns of pictures."""
    return [name for name, feature in features.items() if isinstance(feature, ImageFeature)]


def point_column(features: Features) -> str | None:
    """The column that is drawn where there are no pictures: points (2,) or clouds (N, 2) or (N, 3)."""
    if picture_columns(features):
        return None
    return next((name for name, feature in features.items() if _is_point(feature) or _is_cloud(feature)), None)


def _is_point(feature: Any) -> bool:
    return isinstance(feature, List) and feature.length == 2 and _is_number(feature.feature)


def _is_number(feature: Any) -> bool:
    return isinstance(feature, Value) and feature.dtype.startswith("float")


def _is_cloud(feature: Any) -> bool:
    return isinstance(feature, Array2D) and feature.shape[1] in (2, 3) and feature.dtype.startswith("float")


def rows_to_show(features: Features) -> int:
    """How many rows the picture needs."""
    column = point_column(features)
    if column is None:
        return max(1, PICTURE_ROWS // max(1, len(picture_columns(features))))
    return POINT_ROWS if _is_point(features[column]) else CLOUD_ROWS


def reduced(row: dict[str, Any], columns: Sequence[str]) -> dict[str, Any]:
    """The row with small pictures (PIL, at most 128 pixels a side) in place of the stored ones; None stays None."""
    return {name: _thumbnail(value) if name in columns else value for name, value in row.items()}


def _thumbnail(value: Any) -> Image.Image | None:
    try:
        pixels = decode_whole(value)
    except CorruptImageError:  # a null, or pixels without an agreed range: there is nothing to show
        return None
    picture = Image.fromarray(pixels[0] if len(pixels) == 1 else pixels.transpose(1, 2, 0)).convert("RGB")
    return ImageOps.fit(picture, (TILE, TILE)) if max(picture.size) > TILE else picture


def draw_rows(features: Features, rows: Sequence[dict[str, Any]]) -> Image.Image | None:
    """The card's picture, or None where there is nothing to draw.

    Args:
        features: Types of the columns.
        rows: Rows as `reduced` gives them.
    """
    columns, column = picture_columns(features), point_column(features)
    if columns:
        return _grid(columns, rows)
    values = [np.asarray(row[column], np.float64) for row in rows if row[column] is not None] if column else []
    if column is None or not values:
        return None
    if _is_point(features[column]):
        return _plot(np.stack(values), PLOT)
    return image_grid([_plot(_projected(cloud), TILE) for cloud in values], columns=min(len(values), GRID_COLUMNS))


def _grid(columns: list[str], rows: Sequence[dict[str, Any]]) -> Image.Image | None:
    """One tile a picture; several pictures of one row stand side by side."""
    pictures = [row[column] for row in rows for column in columns]
    sizes = {picture.size for picture in pictures if picture is not None}
    if not sizes:
        return None
    side = (max(w for w, _ in sizes), max(h for _, h in sizes))
    blank = Image.new("RGB", side, "lightgrey")
    tiles = [blank if picture is None else _centred(picture, side) for picture in pictures]
    return image_grid(tiles, columns=len(columns) * max(1, min(len(rows), GRID_COLUMNS // len(columns))))


def _centred(picture: Image.Image, side: tuple[int, int]) -> Image.Image:
    if picture.size == side:
        return picture
    tile = Image.new("RGB", side, "white")
    tile.paste(picture, ((side[0] - picture.width) // 2, (side[1] - picture.height) // 2))
    return tile


def _projected(cloud: np.ndarray) -> np.ndarray:
    """A cloud (N, 3), y up, seen from the front, a little from the right and from above: (N, 2). (N, 2) stays."""
    if cloud.shape[1] == 2:
        return cloud
    yaw, pitch = np.deg2rad(35.0), np.deg2rad(20.0)
    x = np.cos(yaw) * cloud[:, 0] - np.sin(yaw) * cloud[:, 2]
    depth = np.sin(yaw) * cloud[:, 0] + np.cos(yaw) * cloud[:, 2]
    return np.stack([x, np.cos(pitch) * cloud[:, 1] - np.sin(pitch) * depth], axis=1)


def _plot(points: np.ndarray, side: int) -> Image.Image:
    """Points (N, 2), y up, as dots in a square; both axes have the same scale."""
    picture = Image.new("RGB", (side, side), "white")
    points = points[np.isfinite(points).all(1)]
    if len(points) == 0:
        return picture
    low, high = points.min(0), points.max(0)
    scale = 0.9 * side / max(float((high - low).max()), 1e-12)
    places = (points - (low + high) / 2) * scale * (1, -1) + side / 2
    pen, radius = ImageDraw.Draw(picture), max(0.5, side / 400)
    for x, y in places:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=INK)
    return picture
