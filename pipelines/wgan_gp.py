"""Sampling from a generator trained as a Wasserstein GAN: images, or points in the plane.

Papers
- Arjovsky, Chintala & Bottou 2017, "Wasserstein GAN".
- Gulrajani et al. 2017, "Improved Training of Wasserstein GANs".

This file is published beside the weights: it imports PIL, torch and diffusers only.
"""

import math

import PIL.Image
import PIL.ImageDraw
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt")
MODES = ("linear", "spherical")


class WGANPipeline(DiffusionPipeline):
    """Images or points from a generator.

    Args:
        net_g: Network that maps latents (B, latent_dim) to images (B, C, H, W) in [-1, 1] or to points (B, 2).
    """

    model_cpu_offload_seq = "net_g"

    def __init__(self, net_g: ModelMixin):
        super().__init__()
        self.register_modules(net_g=net_g)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Sample: z ~ N(0, I), G(z).

        Args:
            batch_size: Number of samples.
            latents: (B, latent_dim) latents in place of drawn ones.
            generator: Source of randomness, one for the batch or one for each sample.
            output_type: For images "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in
                [0, 1]). For points "np" or "pt" are the coordinates, (B, 2), and "pil" is a list of one picture, the
                scatter plot of all points.
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        if output_type not in OUTPUT_TYPES:
            raise ValueError(f"unknown output_type {output_type!r}; choose one of {', '.join(OUTPUT_TYPES)}")
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"got {len(generator)} generators for {batch_size} samples; pass one for each, or one")
        latent_dim = self.net_g.config["latent_dim"]
        if latents is None:
            shape = (batch_size, latent_dim)
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.net_g.dtype)
        elif latents.ndim != 2 or latents.shape[1] != latent_dim:
            raise ValueError(f"latents must have shape (B, {latent_dim}), not {tuple(latents.shape)}")

        out = self.net_g(latents.to(device=self._execution_device, dtype=self.net_g.dtype))
        if out.ndim == 4:
            out = VaeImageProcessor().postprocess(out, output_type=output_type)
        elif output_type == "pil":
            out = [scatter(out)]
        elif output_type == "np":
            out = out.cpu().float().numpy()
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=out) if return_dict else (out,)  # type: ignore[arg-type]

    def interpolate(
        self,
        latents_a: Tensor,
        latents_b: Tensor,
        steps: int = 8,
        mode: str = "spherical",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Samples on the way between two latents, both ends included.

        Args:
            latents_a: (latent_dim,) or (1, latent_dim).
            latents_b: The other end.
            steps: Number of samples, at least 2.
            mode: "spherical", along the arc, where the prior has its mass; or "linear".
            output_type: As in the call.
            return_dict: As in the call.
        """
        if mode not in MODES:
            raise ValueError(f"unknown mode {mode!r}; choose one of {', '.join(MODES)}")
        if steps < 2:
            raise ValueError(f"steps must be at least 2, the two ends, not {steps}")
        latent_dim = self.net_g.config["latent_dim"]
        for latents in (latents_a, latents_b):
            if latents.shape not in ((latent_dim,), (1, latent_dim)):
                raise ValueError(
                    f"an end must have shape ({latent_dim},) or (1, {latent_dim}), not {tuple(latents.shape)}"
                )
        between = interpolate_latents(latents_a.flatten(), latents_b.flatten(), steps, mode)
        return self(batch_size=steps, latents=between, output_type=output_type, return_dict=return_dict)


def interpolate_latents(start: Tensor, end: Tensor, steps: int, mode: str) -> Tensor:
    """Latents (steps, d) from `start` to `end`, (d,) each, on the line or on the arc between them."""
    t = torch.linspace(0.0, 1.0, steps, device=start.device, dtype=start.dtype).unsqueeze(1)
    if mode == "linear":
        return torch.lerp(start, end, t)
    angle = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-1.0, 1.0))
    if torch.sin(angle) < 1e-4:  # parallel or opposite: no arc is defined
        return torch.lerp(start, end, t)
    return (torch.sin((1.0 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)


def scatter(points: Tensor, size: int = 256) -> PIL.Image.Image:
    """Points (B, 2) as a picture; the frame is the smallest square of whole numbers around 0 that holds them all."""
    points = points.detach().cpu().float()
    limit = max(1, math.ceil(points.abs().max().item()))
    picture = PIL.Image.new("RGB", (size, size), "white")
    draw = PIL.ImageDraw.Draw(picture)
    for x, y in ((points * torch.tensor([1.0, -1.0]) / limit + 1.0) * 0.5 * (size - 1)).tolist():
        draw.ellipse((x - 1.0, y - 1.0, x + 1.0, y + 1.0), fill=(31, 78, 140))
    return picture
