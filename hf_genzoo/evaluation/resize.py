"""The one resizer of the measurement layer: Pillow's antialiased bicubic filter on 8-bit pictures.

Resizing without antialiasing, or by another library's idea of bicubic, moves a Frechet distance by more than models
differ (Parmar et al. 2022, "On Aliased Resizing and Surprising Subtleties in GAN Evaluation"), so real and generated
pictures of every source go through this one.
"""

import numpy as np
from numpy.typing import NDArray
from PIL import Image

RESIZER = "pillow-bicubic"
"""Name of the resizer, for records and keys of caches."""


def check_pictures(images: NDArray[np.uint8]) -> None:
    """Refuse what is not uint8 (N, C, H, W) with one or three channels.

    Raises:
        ValueError: names the type or shape found.
    """
    if images.dtype != np.uint8:
        raise ValueError(f"pictures must be 8-bit (uint8, 0 to 255), not {images.dtype}: round and clip them first")
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ValueError(f"pictures have shape {images.shape}: they must be (N, C, H, W) with 1 or 3 channels")


def check_square(images: NDArray[np.uint8]) -> None:
    """`check_pictures`, and refuse pictures that are not square or have no pixels.

    Raises:
        ValueError: names the size found.
    """
    check_pictures(images)
    height, width = images.shape[2:]
    if height != width or height == 0:
        raise ValueError(f"pictures are {height} high and {width} wide: they must be square, crop them first")


def resize(images: NDArray[np.uint8], size: int) -> NDArray[np.uint8]:
    """Square pictures (N, C, H, H) at another size, (N, C, size, size), each as `Image.resize` gives it.

    Raises:
        ValueError: if the pictures are no square 8-bit ones, or `size` is below 1.
    """
    check_square(images)
    if size < 1:
        raise ValueError(f"size is {size}: it must be at least 1")
    if images.shape[2] == size:
        return images
    resized = np.empty((*images.shape[:2], size, size), dtype=np.uint8)
    for picture, result in zip(images, resized, strict=True):
        pixels = picture[0] if len(picture) == 1 else np.ascontiguousarray(picture.transpose(1, 2, 0))
        small = np.asarray(Image.fromarray(pixels).resize((size, size), Image.Resampling.BICUBIC))
        result[:] = small if small.ndim == 2 else small.transpose(2, 0, 1)
    return resized


def with_channels(images: NDArray[np.uint8], channels: int) -> NDArray[np.uint8]:
    """Pictures (N, C, H, W) as grey (1) or RGB (3): grey is repeated, RGB weighed by ITU-R 601 as by `convert("L")`.

    Raises:
        ValueError: if the pictures are no 8-bit ones, or `channels` is neither 1 nor 3.
    """
    check_pictures(images)
    if channels not in (1, 3):
        raise ValueError(f"channels is {channels}: it must be 1 (grey) or 3 (RGB)")
    if images.shape[1] == channels:
        return images
    if channels == 3:
        return np.repeat(images, 3, axis=1)
    red, green, blue = (images[:, i].astype(np.uint32) for i in range(3))
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16  # Pillow's fixed-point weights
    return grey.astype(np.uint8)[:, None]
