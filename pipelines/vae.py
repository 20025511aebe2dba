"""Sampling, reconstruction, interpolation and likelihoods of a variational autoencoder with a vector latent.

Papers
- Kingma & Welling 2014, "Auto-Encoding Variational Bayes".
- Burda, Grosse & Salakhutdinov 2016, "Importance Weighted Autoencoders": the bound on the likelihood.

Conventions
- Tensors and arrays that go in or come out are images in [0, 1]: (B, C, H, W) or (B, H, W, C). The network works in
  [-1, 1]; its likelihoods are of pixels in [0, 1].
- What is shown is E[x | z], not a draw from p(x | z), whose independent pixel noise is no part of the picture.

This file is published beside the weights, with the parts it imports put into it.
"""

import math
from collections.abc import Callable

import torch
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._dequantization import LEVELS, dequantized
from hf_genzoo.pipelines._latents import OUTPUT_TYPES, EncodingPipeline
from hf_genzoo.pipelines._pictures import as_list, check_choice, check_counts, check_generators, to_pixels


class VAEPipeline(EncodingPipeline, DiffusionPipeline):
    """Everything one does with a trained variational autoencoder.

    Args:
        vae: Network with `encode`, `decode`, `log_likelihood` and `mean_image` (see `ConvVAE`).
    """

    model_cpu_offload_seq = "vae"

    def __init__(self, vae: ModelMixin):
        super().__init__()
        self.register_modules(vae=vae)

    @property
    def latent_dim(self) -> int:
        """Length of a latent."""
        return self.vae.config["latent_dim"]

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
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_counts(batch_size=batch_size)
        check_generators(generator, batch_size)
        if latents is None:
            shape = (batch_size, self.latent_dim)
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
        check_choice("output_type", output_type, OUTPUT_TYPES)
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must have shape (B, {self.latent_dim}), not {tuple(latents.shape)}")
        latents = latents.to(device=self._execution_device, dtype=self.vae.dtype)
        mean_image = self.vae.mean_image(self.vae.decode(latents))
        images = VaeImageProcessor().postprocess(mean_image, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

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
        check_counts(num_samples=num_samples, max_batch_size=max_batch_size)
        x = self._to_sample(images)
        cell = 0.0
        if dequantize and self.vae.config["likelihood"] != "bernoulli":
            cell = -math.log(LEVELS) * x[0].numel()
            x = 2.0 * dequantized(0.5 * x + 0.5, generator) - 1.0
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
        batches = [to_pixels(image, channels, size) for image in as_list(images)]
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
