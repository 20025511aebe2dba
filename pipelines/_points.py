"""Points in the plane as a picture. A part of pipelines' files (see `hf_genzoo.hub.inline`)."""

import math

import PIL.Image
import PIL.ImageDraw
import torch
from torch import Tensor


def scatter(points: Tensor, size: int = 256) -> PIL.Image.Image:
    """Points (B, 2) as a picture; the frame is the smallest square of whole numbers around 0 that holds them all."""
    points = points.detach().cpu().float()
    limit = max(1, math.ceil(points.abs().max().item()))
    picture = PIL.Image.new("RGB", (size, size), "white")
    draw = PIL.ImageDraw.Draw(picture)
    for x, y in ((points * torch.tensor([1.0, -1.0]) / limit + 1.0) * 0.5 * (size - 1)).tolist():
        draw.ellipse((x - 1.0, y - 1.0, x + 1.0, y + 1.0), fill=(31, 78, 140))
    return picture
