"""Likelihoods of a denoising pipeline. A part of pipelines' files (see `hf_genzoo.hub.inline`)."""

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from diffusers.image_processor import PipelineImageInput
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from torch import Tensor

from hf_genzoo.pipelines._pictures import as_list, check_counts, to_pixels
from hf_genzoo.pipelines._variational import chain_of, predicted_x_0, variational_bound

VARIANCE_TYPES = {"fixed_small": "btilde", "fixed_large": "beta", "learned_range": "learned"}


class BoundedLikelihood:
    """How probable pictures are to a pipeline with a `unet` and a DDPMScheduler; mixed into it."""

    unet: Any
    scheduler: Any
    num_classes: Any
    progress_bar: Any
    maybe_free_model_hooks: Any
    _execution_device: Any
    _labels: Any
    _predict: Any
    _check_variance: Any

    @torch.no_grad()
    def log_likelihood(
        self,
        images: PipelineImageInput,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Lower bound on log2 p(image) per dimension: minus the bits per dimension that papers report, (B,) float64.

        It is the sum over all noise levels and the prior (`variational_bound`), for pictures as their 8-bit values,
        whose probabilities are bounded, not their density: nothing needs to be dequantised or added.

        Args:
            images: PIL images, arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1]; rounded to 8 bits.
            class_labels: As in sampling, but None is no label: p(image) and not p(image | label).
            generator: Source of the noise: the bound is estimated from one draw at each level.
        """
        return -self.variational_bound(images, class_labels, generator=generator).sum(1)

    @torch.no_grad()
    def variational_bound(
        self,
        images: PipelineImageInput,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        num_inference_steps: int | None = None,
        generator: torch.Generator | None = None,
        max_batch_size: int = 64,
    ) -> Tensor:
        """Upper bound on -log2 p(image) per dimension, in bits, term by term, of the chain that sampling would walk.

        The variance is the scheduler's: `DDPMScheduler.from_config(scheduler.config, variance_type="fixed_small")`
        takes btilde, "fixed_large" beta, and "learned_range" what the network has learnt.

        Args:
            images: As in `log_likelihood`.
            class_labels: As in `log_likelihood`.
            num_inference_steps: Steps of the chain, at least 2; all noise levels if None.
            generator: Source of the noise.
            max_batch_size: Images that the network is given at once; bounds the memory.

        Returns:
            (B, S + 1) float64: the decoder, the other steps from the weakest noise on, and the prior.

        Raises:
            ValueError: If the scheduler has no such chain, or an argument does not fit.
        """
        config = self.scheduler.config
        variance = VARIANCE_TYPES.get(config.get("variance_type", ""))
        if not isinstance(self.scheduler, DDPMScheduler) or variance is None or config["thresholding"]:
            raise ValueError(
                f"the bound is that of a DDPMScheduler with variance_type {', '.join(VARIANCE_TYPES)} and no "
                f"thresholding, not of {type(self.scheduler).__name__} with {config.get('variance_type')!r}"
            )
        check_counts(max_batch_size=max_batch_size)
        channels, size = self.unet.config["in_channels"], self.unet.config["sample_size"]
        pixels = torch.cat([to_pixels(image, channels, size) for image in as_list(images)])
        x_0 = ((255.0 * pixels).round().double() / 127.5 - 1.0).to(self._execution_device)
        labels, count = self._labels("null" if class_labels is None and self.num_classes else class_labels, len(x_0))
        if count != len(x_0):
            raise ValueError(f"got {count} class_labels for {len(x_0)} images; pass one for each, or one")
        self._check_variance()
        steps = config["num_train_timesteps"] if num_inference_steps is None else num_inference_steps
        if steps < 2:
            raise ValueError(f"num_inference_steps must be at least 2, not {steps}: one step has no variance to bound")
        self.scheduler.set_timesteps(steps)
        chain = chain_of(*(v.to(x_0.device) for v in (self.scheduler.betas, self.scheduler.timesteps.flip(0))))
        parts = x_0.split(max_batch_size)
        given = [None] * len(parts) if labels is None else labels.split(max_batch_size)
        clip, kind = config["clip_sample_range"] if config["clip_sample"] else None, config["prediction_type"]

        with self.progress_bar(total=len(parts) * len(chain)) as progress:  # type: ignore[call-arg]

            def seen(x_t: Tensor, index: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor | None]:
                output = self._predict(x_t.to(self.unet.dtype), chain.timesteps[index], y, 1.0).double()
                progress.update()
                v = output[:, channels:] if variance == "learned" else None
                return predicted_x_0(output[:, :channels], x_t, chain, index, kind), v

            bounds = [
                variational_bound(partial(seen, y=y), part, chain, variance, clip=clip, generator=generator)
                for part, y in zip(parts, given, strict=True)
            ]
        self.maybe_free_model_hooks()
        return torch.cat(bounds)
