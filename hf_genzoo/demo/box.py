"""The part of a picture that is to be painted: a box, in per cent of the picture's sides.

Sliders and not a brush: they work from a keyboard, on a phone and from a program alike.
"""

from collections.abc import Mapping
from typing import Any

import gradio as gr
from PIL import Image, ImageDraw

from .guard import check_whole

LIMITS = {"left": (0, 99), "top": (0, 99), "width": (1, 100), "height": (1, 100)}
"""Smallest and largest per cent of each number; what reaches beyond the picture is cut."""
_FIRST = {"left": 25, "top": 25, "width": 50, "height": 50}
_GREY = 127


def box_fields() -> dict[str, Any]:
    """The controls of a box, by name."""
    fields = {}
    for pair in (("left", "top"), ("width", "height")):
        with gr.Row():
            for name in pair:
                limits, start = LIMITS[name], _FIRST[name]
                fields[name] = gr.Slider(*limits, value=start, step=1, label=f"Box {name}, %", min_width=120)
    return fields


def box_mask(size: tuple[int, int], values: Mapping[str, Any]) -> Image.Image:
    """A box as a mask, mode "L": white is painted, black is kept.

    Args:
        size: Width and height of the picture, in pixels.
        values: Left, top, width and height in per cent.

    Raises:
        ValueError: If a number is outside of its limits.
    """
    left, top, width, height = (check_whole(name.capitalize(), values[name], *LIMITS[name]) for name in LIMITS)
    spans = zip((left, top), (width, height), size, strict=True)
    (x0, x1), (y0, y1) = (_pixels(start, length, side) for start, length, side in spans)
    mask = Image.new("L", size, 0)
    ImageDraw.Draw(mask).rectangle((x0, y0, x1, y1), fill=255)
    return mask


def _pixels(start: int, length: int, side: int) -> tuple[int, int]:
    """First and last pixel of a span in per cent of a side: one at least, none beyond the side."""
    first = start * side // 100
    last = min(round((start + length) * side / 100), side) - 1
    return first, max(first, last)


def blanked(picture: Image.Image, mask: Image.Image) -> Image.Image:
    """A picture whose masked part is grey."""
    return Image.composite(Image.new(picture.mode, picture.size, (_GREY,) * len(picture.getbands())), picture, mask)
