"""Pictures in a row, for the eye and for taking home: a strip, and an animation that goes there and back."""

from collections.abc import Sequence
from pathlib import Path

from diffusers.utils.pil_utils import make_image_grid
from PIL import Image

TILE = 96
"""Pixels a side up to which small pictures are enlarged, without smoothing, by a whole factor."""


def enlarged(image: Image.Image, tile: int = TILE) -> Image.Image:
    """A picture at a size that one can see."""
    factor = max(1, tile // max(image.size))
    return image.convert("RGB").resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)


def strip(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures of one size beside one another; in rows of `columns`, if given.

    Raises:
        ValueError: There are none, or they do not fill the rows.
    """
    columns = columns or len(images)
    if not images or len(images) % columns:
        raise ValueError(f"{len(images)} pictures do not fill rows of {columns}")
    return make_image_grid([enlarged(image) for image in images], len(images) // columns, columns)


def save_animation(images: Sequence[Image.Image], path: Path, milliseconds: int = 120) -> Path:
    """Write a GIF that goes through the pictures and back again, for ever.

    Args:
        images: At least two pictures of one size.
        path: Where to write.
        milliseconds: Each picture's time; the two ends stay for four times as long.

    Raises:
        ValueError: There are fewer than two pictures.
    """
    if len(images) < 2:
        raise ValueError(f"an animation needs at least two pictures, not {len(images)}")
    frames = [enlarged(image, 2 * TILE) for image in [*images, *images[-2:0:-1]]]
    times = [milliseconds] * len(frames)
    times[0] = times[len(images) - 1] = 4 * milliseconds
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return path
