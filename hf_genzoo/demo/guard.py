"""What a stranger may ask of a demo, and what they read when something goes wrong."""

import inspect
import logging
import re
import warnings
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any, TypeVar

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

MAX_IMAGES = 36
"""Pictures in one request."""
MAX_BATCH_PIXELS = 1_050_000
"""Pixels of all the pictures of one request: 4 of 512 x 512, or the full number of small ones."""
MAX_POINTS = 2000
"""Points in the plane in one request."""
MAX_STEPS = 250
"""Denoising steps in one request."""
MAX_PIXELS = 16_000_000
"""Pixels of an uploaded picture, which are counted before it is decoded."""
MAX_UPLOAD = "10mb"
"""Size of an uploaded file."""
MAX_PROMPT = 500
"""Characters of a prompt."""
MAX_QUEUE = 30
"""Requests that may wait; one more is told that the demo is busy."""
MAX_SEED = 2**32 - 1

APOLOGY = "Sorry, this did not work, and the fault is on our side. Other settings may work; please try again."

_PATH = re.compile(r"(?<![\w.:/-])(?:[A-Za-z]:)?[\\/](?:[^\s'\",:;]+[\\/])*([^\s'\",:;\\/]+)")
_log = logging.getLogger(__name__)
_F = TypeVar("_F", bound=Callable[..., Any])


def check_between(name: str, value: float | None, low: float, high: float) -> None:
    """Refuse a number outside of its limits.

    Raises:
        ValueError: names the value and the limits.
    """
    if value is None or not low <= value <= high:  # also what is not a number
        raise ValueError(f"{name} must lie between {low} and {high}; it is {'empty' if value is None else value}.")


def check_whole(name: str, value: float | None, low: int, high: int) -> int:
    """A whole number within its limits.

    Raises:
        ValueError: names the value and the limits.
    """
    check_between(name, value, low, high)
    if value is None or value != int(value):
        raise ValueError(f"{name} must be a whole number, not {value}.")
    return int(value)


def check_prompt(prompt: str | None) -> str:
    """A prompt that is there and not too long.

    Raises:
        ValueError: if it is not.
    """
    prompt = (prompt or "").strip()
    if not prompt:
        raise ValueError("Please write a prompt: what should the picture show?")
    if len(prompt) > MAX_PROMPT:
        raise ValueError(f"The prompt has {len(prompt)} characters; at most {MAX_PROMPT} are taken.")
    return prompt


def check_upload(image: Image.Image | str | Path | None) -> Image.Image:
    """An uploaded picture as 8-bit RGB, upright, on white where it is transparent.

    Its size is looked at before it is decoded.

    Args:
        image: A picture or the path of one.

    Raises:
        ValueError: if there is none, it is too large, or it cannot be read.
    """
    if image is None:
        raise ValueError("Please upload a picture first.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own limit is lower and comes next
            picture = image if isinstance(image, Image.Image) else Image.open(image)
        width, height = picture.size
        if width * height > MAX_PIXELS:
            limit = f"{MAX_PIXELS / 1e6:g} million"
            raise ValueError(f"The picture has {width} x {height} pixels; at most {limit} are taken.")
        return _on_white(ImageOps.exif_transpose(picture))
    except Image.DecompressionBombError as error:
        raise ValueError("The picture has too many pixels.") from error
    except (OSError, SyntaxError) as error:  # what PIL raises for other files and broken ones
        raise ValueError("This file cannot be read as a picture. PNG, JPEG and WebP work.") from error


def _on_white(picture: Image.Image) -> Image.Image:
    if picture.mode.startswith("I"):  # 16-bit grey, which PIL's own conversion would cut at 255
        grey = np.asarray(picture, dtype=np.float32) / 257.0
        picture = Image.fromarray(grey.round().clip(0, 255).astype(np.uint8))
    picture = picture.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture).convert("RGB")


def friendly(function: _F) -> _F:
    """Let a function or generator of an app speak to the person in front of it when it fails.

    A `ValueError` is about what they asked for: its message is shown, without paths. Anything else is our fault: they
    read an apology, and the stack trace goes to the server's log only.
    """
    if inspect.isgeneratorfunction(function):

        @wraps(function)
        def generator(*args: Any, **kwargs: Any) -> Any:
            try:
                yield from function(*args, **kwargs)
            except Exception as error:
                raise _shown(error) from None

        return generator  # type: ignore[return-value]

    @wraps(function)
    def plain(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            raise _shown(error) from None

    return plain  # type: ignore[return-value]


def _shown(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, ValueError):
        return gr.Error(without_paths(str(error)), title="Please check", duration=15, print_exception=False)
    _log.error("a request failed", exc_info=error)
    return gr.Error(APOLOGY, title="Sorry", duration=15, print_exception=False)


def without_paths(message: str) -> str:
    """A message with the names of files in place of their paths on the server."""
    return _PATH.sub(r"\1", message)
