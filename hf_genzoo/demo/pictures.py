"""Pictures on their way to the page: how large they are shown, previews of unfinished ones, and files to take home."""

import json
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from PIL import Image
from torch import Tensor

from hf_genzoo.images import enlarged, image_grid, save_animation

SMALL = 128
"""Pictures with fewer pixels a side are enlarged without smoothing, so that one sees what the model makes."""
PREVIEW_SIDE = 512
TILE = 96
"""Pixels a side of small pictures in a strip."""
SHOWN = 192
"""Pixels a side of a small picture that stands alone."""


def shown(image: Image.Image) -> Image.Image:
    """A picture at a size that one can see."""
    return enlarged(image.convert("RGB"), SHOWN)


def strip(images: Sequence[Image.Image], columns: int | None = None) -> Image.Image:
    """Pictures beside one another; in rows of `columns`, if given."""
    return image_grid(images, columns or len(images), TILE)


def film(images: Sequence[Image.Image], path: Path) -> Path:
    """A GIF that goes through the pictures and back again."""
    return save_animation(images, path, min_size=SHOWN)


def preview(pipeline: DiffusionPipeline, latents: Any) -> Image.Image | None:
    """What unfinished samples look like, as one picture; None for what cannot be shown as a picture.

    Latents (B, C, H, W) of a latent model are decoded; those of a model of pixels are the noisy pictures themselves.
    """
    if not isinstance(latents, Tensor) or latents.ndim != 4:
        return None
    vae = pipeline.components.get("vae")
    if vae is not None:
        if latents.shape[1] != vae.config.get("latent_channels"):
            return None
        shift = vae.config.get("shift_factor") or 0.0
        latents = vae.decode(latents.to(vae.dtype) / vae.config.get("scaling_factor", 1.0) + shift).sample
    if latents.shape[1] not in (1, 3):
        return None
    sample = latents.detach().cpu().float()
    # Some samplers let the noise grow far beyond the pictures' range: shown as it is, it would be black and white.
    sample = sample / sample.std().clamp(min=1.0)
    images: Any = VaeImageProcessor().postprocess(sample, output_type="pil")
    columns = math.ceil(math.sqrt(len(images)))
    return image_grid(images, columns, PREVIEW_SIDE // columns)


@dataclass(frozen=True)
class Files:
    """Finished pictures on the disk.

    Args:
        pictures: A PNG for each.
        grid: All of them in one PNG.
        archive: A zip of the pictures and the settings that made them.
    """

    pictures: list[Path]
    grid: Path
    archive: Path

    @property
    def downloads(self) -> tuple[str, str]:
        """Paths of what people take home."""
        return str(self.grid), str(self.archive)


def write_files(images: Sequence[Image.Image], settings: Mapping[str, Any], folder: Path) -> Files:
    """Write pictures for the page and to take home.

    The page gets files rather than pictures, because gradio puts equal pictures of two people into one file, and while
    it copies files safely it writes pictures over what someone may be reading.

    Args:
        images: The pictures.
        settings: What was asked for, as JSON takes it.
        folder: Where the files are written.
    """
    files = Files(
        [folder / f"{index:03d}.png" for index in range(len(images))], folder / "samples.png", folder / "samples.zip"
    )
    for image, path in zip(images, files.pictures, strict=True):
        image.save(path)
    (images[0] if len(images) == 1 else image_grid(images, min_tile=SMALL)).save(files.grid)
    with zipfile.ZipFile(files.archive, "w") as archive:
        for path in files.pictures:
            archive.write(path, path.name)
        archive.writestr("settings.json", json.dumps(dict(settings), indent=1))
    return files
