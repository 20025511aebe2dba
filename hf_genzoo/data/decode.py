"""One stored picture to one uint8 array: orientation, transparency, bit depth, crop and resize, with Pillow only.

A picture is cropped and resized in one antialiased step from the exact (sub-pixel) square of the source, instead of
being resized first and cropped at whole pixels: no rounding of the long side, and a very long picture needs no more
memory than its own.
"""

import io
import re
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from datasets.utils.file_utils import xopen
from PIL import Image, ImageOps

JPEG_SHRINK_MARGIN = 4
"""A JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as this many times the resolution is left."""

_OBJECT = re.compile(r" <[\w.]+ object at 0x[0-9a-f]+>")  # Pillow names the stream, which tells nobody anything
_ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


class CorruptImageError(ValueError):
    """A picture that cannot be used; the text says why."""


@dataclass(frozen=True)
class Transform:
    """What happens to each picture; together with the data this is the key of the cache.

    Args:
        resolution: Height and width of the result in pixels.
        num_channels: 1 (grey by ITU-R 601) or 3 (RGB).
        center_crop: Crop the centre, else a place drawn once for each picture from a hash of its stored bytes.
        interpolation: Name of Pillow's filter, in small letters.
    """

    resolution: int
    num_channels: int
    center_crop: bool
    interpolation: str


def read_raw(value: Any) -> bytes | np.ndarray | None:
    """The stored form of a picture: encoded bytes, an array, or None for a null.

    Args:
        value: A cell of an image column read without decoding: {"bytes", "path"}, encoded bytes, a path, nested
            lists of numbers, an array, or a PIL image.

    Raises:
        OSError: a path cannot be read.
    """
    if isinstance(value, dict) and {"bytes", "path"} & value.keys():
        value = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if value is None or isinstance(value, bytes):
        return value
    if isinstance(value, str):
        if "://" not in value:
            return Path(value).read_bytes()
        with xopen(value, "rb") as file:  # hf://, https://, zip://
            return file.read()
    return np.asarray(value)


def _from_array(array: np.ndarray) -> Image.Image:
    """An array (H, W), (H, W, C) or (C, H, W), of 8-bit numbers, as a picture."""
    if array.ndim == 3 and array.shape[0] in (1, 3, 4) and array.shape[2] not in (1, 3, 4):
        array = array.transpose(1, 2, 0)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise CorruptImageError(f"an array of shape {array.shape} is not a picture")
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    if array.dtype.kind not in "iu" or array.min(initial=0) < 0 or array.max(initial=0) > 255:
        raise CorruptImageError(f"numbers must be integers in 0..255, not {array.dtype} up to {array.max()}")
    return Image.fromarray(np.ascontiguousarray(array.astype(np.uint8)))


def _to_eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey to 8 bits by rounding (65535 -> 255). Pillow's own conversion would clip at 255."""
    if image.mode == "F":
        raise CorruptImageError("floating-point pixels have no agreed range; save the picture with integers")
    if image.mode != "I" and not image.mode.startswith("I;"):
        return image
    array = np.asarray(image).astype(np.int64)
    if array.min() < 0 or array.max() > 65535:
        raise CorruptImageError(f"grey levels from {array.min()} to {array.max()} are outside 16 bits")
    return Image.fromarray(((array * 255 + 32767) // 65535).astype(np.uint8))


def _on_white(image: Image.Image) -> Image.Image:
    """A picture with transparency (an alpha channel, or a transparent colour) laid on a white sheet."""
    if image.mode not in _ALPHA_MODES and "transparency" not in image.info:
        return image
    image = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")


def _square(image: Image.Image, transform: Transform, raw: bytes | np.ndarray) -> Image.Image:
    """The largest square of the picture, at its place, resized with antialiasing."""
    width, height = image.size
    side, slack = min(width, height), abs(width - height)
    if transform.center_crop or slack == 0:
        offset = slack / 2
    else:
        offset = slack * zlib.crc32(raw if isinstance(raw, bytes) else raw.tobytes()) / 0xFFFFFFFF
    left, top = (offset, 0.0) if width > height else (0.0, offset)
    size = (transform.resolution, transform.resolution)
    if image.size == size:
        return image
    return image.resize(
        size,
        Image.Resampling[transform.interpolation.upper()],
        box=(left, top, min(left + side, width), min(top + side, height)),
    )


def decode(value: Any, transform: Transform) -> np.ndarray:
    """One stored picture as uint8 (C, resolution, resolution).

    EXIF orientation is applied, transparency is laid on white, 16-bit grey is scaled to 8 bits, palettes, CMYK and
    grey are converted to `transform.num_channels`; of an animation the first frame is used.

    Args:
        value: See `read_raw`.
        transform: Size, channels, crop and filter.

    Raises:
        CorruptImageError: a null, an unreadable or truncated picture, or one that has no agreed meaning.
    """
    with _naming_damage():
        raw = _stored(value)
        shrunk = transform.resolution * JPEG_SHRINK_MARGIN
        image = _open(raw, draft=(shrunk, shrunk)).convert("L" if transform.num_channels == 1 else "RGB")
        return _channels_first(_square(image, transform, raw))


def decode_whole(value: Any) -> np.ndarray:
    """One stored picture in its own size as uint8 (C, H, W): C is 1 for a grey picture and 3 for any other.

    Orientation, transparency and bit depth are handled as in `decode`.

    Raises:
        CorruptImageError: as `decode`.
    """
    with _naming_damage():
        image = _open(_stored(value))
        return _channels_first(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def stored_look(value: Any) -> tuple[str, tuple[int, int], str]:
    """Format (such as "PNG"), size (width, height) in pixels and Pillow's mode of a stored picture, read to its end.

    Raises:
        CorruptImageError: a null, or what Pillow cannot read.
    """
    with _naming_damage():
        raw = _stored(value)
        image = _from_array(raw) if isinstance(raw, np.ndarray) else Image.open(io.BytesIO(raw))
        image.load()
        return image.format or "array", image.size, image.mode


@contextmanager
def _naming_damage() -> Iterator[None]:
    try:
        yield
    except (CorruptImageError, MemoryError):
        raise
    except Exception as error:  # Pillow's plugins raise nearly anything on damaged files
        text = _OBJECT.sub("", str(error))
        raise CorruptImageError(f"{type(error).__name__}: {text}") from error


def _stored(value: Any) -> bytes | np.ndarray:
    raw = read_raw(value)
    if raw is None:
        raise CorruptImageError("null instead of a picture")
    return raw


def _open(raw: bytes | np.ndarray, draft: tuple[int, int] | None = None) -> Image.Image:
    """A stored picture upright, in 8 bits, without transparency.

    Args:
        raw: See `read_raw`.
        draft: A JPEG may be decoded at a whole fraction of its size that is no smaller than this: much faster.
    """
    if isinstance(raw, np.ndarray):
        image = _from_array(raw)
    else:
        image = Image.open(io.BytesIO(raw))
        if draft is not None:
            image.draft(None, draft)
        image = ImageOps.exif_transpose(image)
    return _on_white(_to_eight_bit(image))


def _channels_first(image: Image.Image) -> np.ndarray:
    pixels = np.asarray(image)
    return pixels[None] if pixels.ndim == 2 else np.ascontiguousarray(pixels.transpose(2, 0, 1))


def describe(value: Any, row: int) -> str:
    """How to call a picture in a message: its row and, if there is one, its file."""
    path = value.get("path") if isinstance(value, dict) else value if isinstance(value, str) else None
    return f"row {row} ({path})" if path else f"row {row}"
