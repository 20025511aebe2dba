"""Sampling, reconstruction, interpolation and likelihoods of a variational autoencoder with a vector latent.

Papers
- Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
- Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders": the bound on the likelihood.

Conventions
- Tensors and arrays that go in or come out are images in [0, 1]: (B, C, H, W) or (B, H, W, C). The network works in
  [-1, 1]; its likelihoods are of pixels in [0, 1].
- What is shown is E[x | z], not a draw from p(x | z), whose independent pixel noise is no part of the picture.

This file is published beside the weights: it imports numpy, PIL, torch and diffusers only.
"""

import math
from collections.abc import Callable

import numpy as np
import PIL.Image
import PIL.ImageOps
import torch
import torch.nn.functional as F
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

OUTPUT_TYPES = ("pil", "np", "pt")
MODES = ("linear", "spherical")


class VAEPipeline(DiffusionPipeline):
    """Everything one does with a trained variational autoencoder.

    Args:
        vae: Network with `encode`, `decode`, `log_likelihood` and `mean_image` (see `ConvVAE`).
    """

    model_cpu_offload_seq = "vae"

    def __init__(self, vae: ModelMixin):
        super().__init__()
        self.register_modules(vae=vae)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Sample images: z ~ N(0, I), decoded.

        Args:
            batch_size: Number of images.
            latents: (B, latent_dim) latents to decode in place of drawn ones.
            generator: Source of randomness, one for the batch or one for each image.
            output_type: "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in [0, 1]).
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        _check_choice("output_type", output_type, OUTPUT_TYPES)
        if batch_size < 1:
            raise ValueError(f"batch_size must be at least 1, not {batch_size}")
        if isinstance(generator, list) and len(generator) != batch_size:
            raise ValueError(f"got {len(generator)} generators for {batch_size} images; pass one for each, or one")
        if latents is None:
            shape = (batch_size, self.vae.config["latent_dim"])
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.vae.dtype)
        return self.decode(latents, output_type=output_type, return_dict=return_dict)

    @torch.no_grad()
    def encode(
        self, images: PipelineImageInput, sample: bool = False, generator: torch.Generator | None = None
    ) -> Tensor:
        """Latents of images.

        Args:
            images: PIL images of any mode and size, arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1] or uint8;
                one or many. They are resized to the network's resolution.
            sample: Draw from q(z | x) instead of taking its mean.
            generator: Source of randomness for the draw.

        Returns:
            (B, latent_dim).
        """
        mean, logvar = self.vae.encode(self._to_sample(images))
        if not sample:
            return mean
        noise = randn_tensor(mean.shape, generator=generator, device=mean.device, dtype=mean.dtype)
        return mean + torch.exp(0.5 * logvar) * noise

    @torch.no_grad()
    def decode(
        self, latents: Tensor, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        """Images E[x | z] of latents (B, latent_dim)."""
        _check_choice("output_type", output_type, OUTPUT_TYPES)
        latent_dim = self.vae.config["latent_dim"]
        if latents.ndim != 2 or latents.shape[1] != latent_dim:
            raise ValueError(f"latents must have shape (B, {latent_dim}), not {tuple(latents.shape)}")
        latents = latents.to(device=self._execution_device, dtype=self.vae.dtype)
        mean_image = self.vae.mean_image(self.vae.decode(latents))
        images = VaeImageProcessor().postprocess(mean_image, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

    def reconstruct(
        self, images: PipelineImageInput, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        """Images decoded from the posterior means of `images` (as in `encode`)."""
        _check_choice("output_type", output_type, OUTPUT_TYPES)
        return self.decode(self.encode(images), output_type=output_type, return_dict=return_dict)

    def interpolate(
        self,
        image_a: PipelineImageInput,
        image_b: PipelineImageInput,
        steps: int = 8,
        mode: str = "linear",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Images on the way between two images, in latent space; both ends (reconstructed) included.

        Args:
            image_a: One image (as in `encode`).
            image_b: One image.
            steps: Number of images, at least 2.
            mode: "linear", or "spherical": along the arc, for latents as far from 0 as the prior puts them.
            output_type: As in the call.
            return_dict: As in the call.
        """
        _check_choice("output_type", output_type, OUTPUT_TYPES)
        _check_choice("mode", mode, MODES)
        if steps < 2:
            raise ValueError(f"steps must be at least 2, the two ends, not {steps}")
        ends = [self.encode(image) for image in (image_a, image_b)]
        if any(len(end) != 1 for end in ends):
            raise ValueError(f"interpolate takes two single images, not {len(ends[0])} and {len(ends[1])}")
        latents = interpolate_latents(ends[0][0], ends[1][0], steps, mode)
        return self.decode(latents, output_type=output_type, return_dict=return_dict)

    @torch.no_grad()
    def log_likelihood(
        self,
        images: PipelineImageInput,
        num_samples: int = 500,
        dequantize: bool = True,
        generator: torch.Generator | None = None,
        max_batch_size: int = 512,
    ) -> Tensor:
        """Lower bound on log p(image), in nats per image, by importance weighting (Burda et al. 2016, eq. 8).

        Likelihood "bernoulli": log-probability of a binary picture. A grey image stands for the random binary picture
        of that mean, and the result is a lower bound on the expectation of its log-probability.

        Likelihoods "gaussian" and "continuous_bernoulli" are densities of pixels in [0, 1], which can be raised at
        will at the 256 values that 8-bit pictures have. So the image is dequantised, y = (255 y + u) / 256 with
        uniform u, and the volume of a cell (-ln 256 per pixel and channel) is added: the result is then a lower bound
        on the log-probability of the 8-bit picture, and comparable between models. Divide
        by -(C H W ln 2) for bits per dimension.

        Args:
            images: As in `encode`.
            num_samples: Importance samples per image; the bound tightens as they grow.
            dequantize: False gives the log-density at the pixels as they are. Without effect on "bernoulli".
            generator: Source of randomness.
            max_batch_size: Latents decoded at once; bounds the memory.

        Returns:
            (B,) float64.
        """
        for name, value in (("num_samples", num_samples), ("max_batch_size", max_batch_size)):
            if value < 1:
                raise ValueError(f"{name} must be at least 1, not {value}")
        x = self._to_sample(images)
        cell = 0.0
        if dequantize and self.vae.config["likelihood"] != "bernoulli":
            cell = -math.log(256.0) * x[0].numel()
            rand_device = x.device if generator is None else generator.device
            u = torch.rand(x.shape, generator=generator, device=rand_device).to(x)
            x = 2.0 * (255.0 * (0.5 * x + 0.5) + u) / 256.0 - 1.0
        bounds = [
            importance_weighted_bound(
                self.vae.encode,
                lambda sample, z: self.vae.log_likelihood(sample, self.vae.decode(z)),
                part,
                num_samples,
                max_batch_size,
                generator,
            )
            for part in x.split(max_batch_size)
        ]
        self.maybe_free_model_hooks()
        return torch.cat(bounds) + cell

    def _to_sample(self, images: PipelineImageInput) -> Tensor:
        """Images of any accepted kind as (B, C, H, W) in [-1, 1], at the network's resolution, on its device."""
        channels, size = self.vae.config["in_channels"], self.vae.config["sample_size"]
        many = images if isinstance(images, (list, tuple)) else [images]
        if len(many) == 0:
            raise ValueError("got no images; pass at least one")
        batches = [_to_pixels(image, channels, size) for image in many]
        sample = 2.0 * torch.cat(batches) - 1.0
        return sample.to(device=self._execution_device, dtype=self.vae.dtype)


@torch.no_grad()
def importance_weighted_bound(
    encode: Callable[[Tensor], tuple[Tensor, Tensor]],
    log_likelihood: Callable[[Tensor, Tensor], Tensor],
    sample: Tensor,
    num_samples: int,
    max_batch_size: int = 512,
    generator: torch.Generator | None = None,
) -> Tensor:
    """log (1/K) sum_k p(x | z_k) p(z_k) / q(z_k | x) with z_k ~ q(z | x) (Burda et al. 2016, eq. 8), (B,) float64.

    Its expectation never exceeds log p(x), grows with K and tends to log p(x).

    Args:
        encode: Maps samples to mean and log-variance of q(z | x), (B, d) each.
        log_likelihood: Maps samples (N, ...) and latents (N, d) to log p(x | z), (N,).
        sample: (B, ...) with B at most `max_batch_size`.
        num_samples: K.
        max_batch_size: Latents decoded at once.
        generator: Source of randomness.
    """
    mean, logvar = encode(sample)
    per_pass = max(1, max_batch_size // len(sample))
    log_weights = []
    for start in range(0, num_samples, per_pass):
        k = min(per_pass, num_samples - start)
        noise = randn_tensor((k, *mean.shape), generator=generator, device=mean.device, dtype=mean.dtype)
        z = mean + torch.exp(0.5 * logvar) * noise
        repeated = sample.expand(k, *sample.shape).flatten(0, 1)
        log_p_x = log_likelihood(repeated, z.flatten(0, 1)).double().view(k, -1)
        # The constants -d/2 ln(2 pi) of log p(z) and log q(z | x) cancel.
        log_p_z = -0.5 * z.double().square().sum(-1)
        log_q_z = -0.5 * (noise.double().square() + logvar.double()).sum(-1)
        log_weights.append(log_p_x + log_p_z - log_q_z)
    return torch.logsumexp(torch.cat(log_weights), dim=0) - math.log(num_samples)


def interpolate_latents(start: Tensor, end: Tensor, steps: int, mode: str) -> Tensor:
    """Latents (steps, d) from `start` to `end`, (d,) each, on the line or on the arc between them."""
    t = torch.linspace(0.0, 1.0, steps, device=start.device, dtype=start.dtype).unsqueeze(1)
    if mode == "linear":
        return torch.lerp(start, end, t)
    angle = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-1.0, 1.0))
    if torch.sin(angle) < 1e-4:  # parallel or opposite: no arc is defined
        return torch.lerp(start, end, t)
    return (torch.sin((1.0 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)


def _to_pixels(image: PIL.Image.Image | np.ndarray | Tensor, channels: int, size: int) -> Tensor:
    """One image, or one array or tensor of images, as (B, C, size, size) float32 in [0, 1]."""
    if isinstance(image, PIL.Image.Image):
        image = np.asarray(_flat_pil(image, channels).resize((size, size), PIL.Image.Resampling.LANCZOS))
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
    if pixels.shape[-2:] != (size, size):
        pixels = F.interpolate(pixels, size=(size, size), mode="bicubic", antialias=True).clamp(0.0, 1.0)
    return pixels


def _flat_pil(image: PIL.Image.Image, channels: int) -> PIL.Image.Image:
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


def _check_choice(name: str, value: str, choices: tuple[str, ...]) -> None:
    if value not in choices:
        raise ValueError(f"unknown {name} {value!r}; choose one of {', '.join(choices)}")
