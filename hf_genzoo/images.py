"""Pictures for people: grids of samples, and animations."""

import math
from collections.abc import Sequence
from pathlib import Path

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
    width, height = enlarged(images[0], min_tile).size
    gap = 2
    rows = math.ceil(len(images) / columns)
    grid = Image.new("RGB", (columns * (width + gap) + gap, rows * (height + gap) + gap), "white")
    for index, image in enumerate(images):
        row, column = divmod(index, columns)
        tile = image.convert("RGB").resize((width, height), Image.Resampling.NEAREST)
        grid.paste(tile, (gap + column * (width + gap), gap + row * (height + gap)))
    return grid


def enlarged(image: Image.Image, least: int) -> Image.Image:
    """A picture enlarged without smoothing, by the smallest whole factor that makes it `least` pixels long or wide."""
    factor = max(1, math.ceil(least / max(image.size)))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def save_animation(
    images: Sequence[Image.Image], path: Path | str, milliseconds: int = 120, min_size: int = 192
) -> Path:
    """Write a GIF that goes through the pictures and back again, for ever.

    Args:
        images: At least two pictures of one size.
        path: Where to write.
        milliseconds: Each picture's time; the two ends stay for four times as long.
        min_size: Smaller pictures are enlarged as in a grid.

    Raises:
        ValueError: if there are fewer than two pictures, or their sizes differ.
    """
    if len(images) < 2:
        raise ValueError(f"an animation needs at least two pictures, not {len(images)}")
    if len(sizes := {image.size for image in images}) > 1:
        raise ValueError(f"an animation needs pictures of one size, not {sorted(sizes)}")
    frames = [enlarged(image.convert("RGB"), min_size) for image in [*images, *images[-2:0:-1]]]
    times = [milliseconds] * len(frames)
    times[0] = times[len(images) - 1] = 4 * milliseconds
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return Path(path)
