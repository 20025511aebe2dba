"""Pictures of any kind and size as tensors. A part of pipelines' files (see `hf_genzoo.hub.inline`)."""

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from torch import Tensor


def to_pixels(image: PIL.Image.Image | np.ndarray | Tensor, channels: int, size: int | None) -> Tensor:
    """One image, or one array or tensor of images, as (B, C, size, size) float32 in [0, 1].

    Args:
        image: A PIL image of any mode, array (B, H, W, C) or tensor (B, C, H, W) in [0, 1] or uint8.
        channels: C.
        size: Height and width to resize to; None keeps the image's own.

    Raises:
        ValueError: If it is none of these; the message names what is wrong and the fix.
    """
    if isinstance(image, PIL.Image.Image):
        flat = flat_pil(image, channels)
        image = np.asarray(flat if size is None else flat.resize((size, size), PIL.Image.Resampling.LANCZOS))
    if isinstance(image, np.ndarray):
        image = image[..., None] if image.ndim == 2 else image
        pixels = torch.from_numpy(np.array(np.moveaxis(image, -1, -3)))
    elif isinstance(image, Tensor):
        pixels = image if image.ndim > 2 else image.unsqueeze(0)
    else:
        raise ValueError(f"expected a PIL image, an array or a tensor, not {type(image).__name__}")
    pixels = pixels.float() / 255.0 if pixels.dtype == torch.uint8 else pixels.float()
    pixels = pixels if pixels.ndim == 4 else pixels.unsqueeze(0)
    if pixels.ndim != 4 or pixels.shape[1] != channels:
        raise ValueError(
            f"image of shape {tuple(image.shape)} does not have the network's {channels} channel(s); arrays are "
            "(B, H, W, C) and tensors (B, C, H, W)"
        )
    low, high = pixels.aminmax()
    if low < 0.0 or high > 1.0:
        raise ValueError(
            f"pixel values span {low:.3g} to {high:.3g}; floating-point images must lie in [0, 1] "
            "(x / 2 + 0.5 brings [-1, 1] there)"
        )
    return pixels if size is None else resized(pixels, (size, size))


def resized(pixels: Tensor, size: tuple[int, int]) -> Tensor:
    """Pixels (B, C, H, W) in [0, 1] at another height and width."""
    if pixels.shape[-2:] == size:
        return pixels
    return F.interpolate(pixels, size=size, mode="bicubic", antialias=True).clamp(0.0, 1.0)


def flat_pil(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
    """A PIL image of any mode as an upright 8-bit one without transparency, which is laid on white."""
    image = PIL.ImageOps.exif_transpose(image)
    if image.mode == "I" or image.mode.startswith("I;16"):  # 16-bit grey; PIL's own conversion would cut it at 255
        image = PIL.Image.fromarray(
            (np.asarray(image).astype(np.float32) / 257.0).round().clip(0, 255).astype("uint8")
        )
    if channels == 4:
        return image.convert("RGBA")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = PIL.Image.alpha_composite(PIL.Image.new("RGBA", image.size, "white"), image)
    return image.convert("L" if channels == 1 else "RGB")


def as_list(images: PIL.Image.Image | np.ndarray | Tensor | list | tuple) -> list:
    """Images as a list of what `to_pixels` takes.

    Raises:
        ValueError: If there are none.
    """
    many = list(images) if isinstance(images, (list, tuple)) else [images]
    if len(many) == 0:
        raise ValueError("got no images; pass at least one")
    return many


def in_their_sizes(images: list[Tensor], output_type: str) -> list[PIL.Image.Image] | np.ndarray | Tensor:
    """Images (1, C, H, W) in [0, 1], of one size or of several, as an `output_type` of diffusers.

    Raises:
        ValueError: If "np" or "pt" is asked for and sizes differ.
    """
    sizes = {tuple(image.shape[2:]) for image in images}
    if output_type != "pil" and len(sizes) > 1:
        raise ValueError(f"answers have the sizes {sorted(sizes)}: no one array holds them; take output_type 'pil'")
    processor = VaeImageProcessor(do_normalize=False)
    batches = [torch.cat(images)] if len(sizes) == 1 else images
    answers: list = [processor.postprocess(batch, output_type, [False] * len(batch)) for batch in batches]
    return answers[0] if len(sizes) == 1 else [answer[0] for answer in answers]


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    """Refuse a value that is not among the choices.

    Raises:
        ValueError: Naming all three.
    """
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")


def check_counts(**counts: int) -> None:
    """Refuse a number of things that is below 1.

    Raises:
        ValueError: Naming the argument and its value.
    """
    for name, count in counts.items():
        if count < 1:
            raise ValueError(f"{name} must be at least 1, not {count}")


def check_generators(
    generator: torch.Generator | list[torch.Generator] | None, count: int, of: str = "images"
) -> None:
    """Refuse a list of generators that is not as long as what is drawn.

    Raises:
        ValueError: Naming both numbers.
    """
    if isinstance(generator, list) and len(generator) != count:
        raise ValueError(f"got {len(generator)} generators for {count} {of}; pass one for each, or one")
