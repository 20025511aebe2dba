"""Pictures for people: grids of samples."""

import math
from collections.abc import Sequence

from PIL import Image


def image_grid(images: Sequence[Image.Image], columns: int | None = None, min_tile: int = 56) -> Image.Image:
    """Lay pictures out in a grid, row by row, with a thin gap; small pictures are enlarged by a whole factor.

    Args:
        images: Pictures of any size and mode; each cell has the first one's size.
        columns: Cells in a row; a square grid by default.
        min_tile: Pictures smaller than this many pixels are enlarged without smoothing.

    Raises:
        ValueError: if there are no pictures.
    """
    if not images:
        raise ValueError("image_grid needs at least one picture")
    columns = columns or math.ceil(math.sqrt(len(images)))
    width, height = images[0].size
    factor = max(1, math.ceil(min_tile / max(width, height)))
    width, height, gap = width * factor, height * factor, 2
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        tile = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        grid.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return grid
