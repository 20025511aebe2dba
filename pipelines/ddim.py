"""Sampling in few steps from any denoising diffusion model, and the way back from a picture to its noise.

Paper: Song, Meng & Ermon 2021, "Denoising Diffusion Implicit Models" (https://arxiv.org/abs/2010.02502).

What it opens: every model of the family `ddpm`, and whatever else is a UNet2DModel with a scheduler that knows its
betas; no training of its own is needed. Its noise levels are kept and its sampler replaced by
`ImplicitDiffusionScheduler`, which clips nothing, as in the paper: what `encode` makes could else not be decoded.

What differs from the paper and why
- The grid of timesteps is "trailing" unless another one is named. Those of the authors' code, "uniform" and
  "quadratic", end with a call of the network at t = 0, which cannot remove the noise of the step before: with
  `sigma_hat` and few steps of "uniform" that is all one sees.
- Classes, as in `ddpm`. A latent is decoded without a label unless one is given, and must be with the one that it was
  encoded with.

This file is published beside the weights, with what it imports from this package put into it.
"""

import inspect
import math
from collections.abc import Callable, Sequence

import torch
from diffusers.image_processor import PipelineImageInput
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from torch import Tensor

from hf_genzoo.pipelines._latents import OUTPUT_TYPES, EncodingPipeline
from hf_genzoo.pipelines._pictures import as_list, check_choice, resized, to_pixels
from hf_genzoo.pipelines.ddpm import DenoisingDiffusionPipeline
from hf_genzoo.schedulers.implicit import ImplicitDiffusionScheduler

Labels = int | str | Sequence[int | str] | Tensor | None


class ImplicitDiffusionPipeline(EncodingPipeline, DenoisingDiffusionPipeline):
    """Images from noise and noise from images, by a UNet2DModel.

    A latent is the noise (C, H, W) that an image begins as.

    Args:
        unet: Denoiser; class-conditional if its config has `num_class_embeds` (number of classes plus one).
        scheduler: Any scheduler of diffusers; one that does not know these grids lends its noise levels only.
        id2label: Names of the classes, {0: "cat", ...}.
    """

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin, id2label: dict | None = None):
        super().__init__(unet, scheduler if _knows_grids(scheduler) else implicit_scheduler(scheduler), id2label)

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self._noise_shape

    @property
    def latent_dim(self) -> int:
        """How many numbers a latent has, C H W."""
        return math.prod(self.latent_shape)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: Labels = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 50,
        eta: float = 0.0,
        timestep_spacing: str | None = None,
        sigma_hat: bool = False,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, Tensor, dict], dict] | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Sample images.

        Args:
            batch_size: Number of images. Left at 1, a sequence of class labels decides.
            class_labels: One label for all images or one for each: an index or, where the pipeline knows names, a
                name; "null" is no label. None draws a class at random for each image.
            guidance_scale: Classifier-free guidance; 1 is none. Other values need a class-conditional network.
            num_inference_steps: Number S of denoising steps.
            eta: Noise of each step, 0 (DDIM, the image is a function of its latent) to 1 (as in DDPM).
            timestep_spacing: Grid: "trailing", "uniform" or "quadratic" (see `ImplicitDiffusionScheduler`); None is
                the scheduler's own.
            sigma_hat: Noise of DDPM's larger variance; needs eta 1. With few steps on a grid that ends at t = 0
                images are noisy.
            generator: Source of randomness, one for the batch or one for each image.
            latents: (B, C, H, W) standard normal noise to start from; drawn if not given.
            output_type: "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in [0, 1]).
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.
            callback_on_step_end: Called with (pipeline, step index, timestep, {"latents": x_t}) after each step; it
                returns a dictionary, whose "latents", if there, replace x_t.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        labels, batch_size = self._conditions(
            batch_size, class_labels, guidance_scale, num_inference_steps, generator, output_type
        )
        self._set_grid(num_inference_steps, timestep_spacing)
        x_t = self._initial_noise(batch_size, generator, latents)
        options = {"eta": eta, "sigma_hat": sigma_hat, "generator": generator}
        x_0 = self._denoised(x_t, labels, guidance_scale, options, callback_on_step_end)
        return self._pictures(x_0, output_type, return_dict)

    @torch.no_grad()
    def encode(
        self,
        images: PipelineImageInput,
        num_inference_steps: int = 50,
        class_labels: Labels = "null",
        timestep_spacing: str | None = None,
    ) -> Tensor:
        """The noise that images begin as: the path of eta 0, followed upwards (section 5.4 and eq. 14).

        Args:
            images: PIL images of any mode and size, arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1] or uint8;
                one or many. They are resized to the network's resolution.
            num_inference_steps: Number S of steps; what `decode` gives back in as many comes closer to the images
                as S grows, with an error of order 1 / S.
            class_labels: As in the call, but "null", no label, if left out.
            timestep_spacing: As in the call.

        Returns:
            (B, C, H, W), about standard normal.
        """
        channels, height, width = self._noise_shape
        pixels = [resized(to_pixels(image, channels, None), (height, width)) for image in as_list(images)]
        x_t = (2.0 * torch.cat(pixels) - 1.0).to(device=self._execution_device, dtype=self.unet.dtype)
        labels = self._labels_of(class_labels, len(x_t))
        self._set_grid(num_inference_steps, timestep_spacing)
        timesteps: Tensor = self.scheduler.ascending_timesteps
        with self.progress_bar(total=len(timesteps)) as progress:  # type: ignore[call-arg]
            for index, t in enumerate(timesteps):
                x_t = self.scheduler.ascend(self._predict(x_t, t, labels, 1.0), index, x_t)
                progress.update()
        self.maybe_free_model_hooks()
        return x_t

    @torch.no_grad()
    def decode(
        self,
        latents: Tensor,
        output_type: str = "pil",
        return_dict: bool = True,
        num_inference_steps: int = 50,
        class_labels: Labels = "null",
        timestep_spacing: str | None = None,
    ) -> ImagePipelineOutput | tuple:
        """The images that begin as the latents (B, C, H, W): the call with eta 0. Arguments as in `encode`."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        if latents.ndim != 4:
            shape = ", ".join(str(size) for size in self.latent_shape)
            raise ValueError(f"latents must have shape (B, {shape}), not {tuple(latents.shape)}")
        labels = self._labels_of(class_labels, len(latents))
        self._set_grid(num_inference_steps, timestep_spacing)
        x_t = self._initial_noise(len(latents), None, latents)
        return self._pictures(self._denoised(x_t, labels, 1.0, {}, None), output_type, return_dict)

    def reconstruct(
        self,
        images: PipelineImageInput,
        output_type: str = "pil",
        return_dict: bool = True,
        num_inference_steps: int = 50,
        class_labels: Labels = "null",
        timestep_spacing: str | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Images encoded and decoded in as many steps each (table 2 of the paper). Arguments as in `encode`."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        path = (num_inference_steps, class_labels, timestep_spacing)
        return self.decode(self.encode(images, *path), output_type, return_dict, *path)

    def interpolate(
        self,
        a: Tensor | PipelineImageInput,
        b: Tensor | PipelineImageInput,
        steps: int = 8,
        mode: str = "spherical",
        output_type: str = "pil",
        return_dict: bool = True,
        num_inference_steps: int = 50,
        class_labels: Labels = "null",
        timestep_spacing: str | None = None,
    ) -> ImagePipelineOutput | tuple:
        """What lies between two images or latents, both ends included (section 5.3; eq. 67: along the arc).

        Args:
            a: A latent (C, H, W) or (1, C, H, W), or one image as in `encode`. A tensor with all values in [0, 1] is
                an image: no noise is.
            b: The other end.
            steps: Number of results, at least 2.
            mode: "spherical", along the arc; or "linear", whose middle is too near to 0 to be noise: it is blurred.
            output_type: As in the call.
            return_dict: As in the call.
            num_inference_steps: Steps of encoding, where an end is an image, and of decoding.
            class_labels: As in `encode`, for both ends and what lies between. Without, images of a network that learnt
                with labels need more steps to come back.
            timestep_spacing: As in the call.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        path = (num_inference_steps, class_labels, timestep_spacing)
        ends = [end if self.is_latent(end) else self.encode(end, *path) for end in (a, b)]
        return self.decode(self.between(*ends, steps, mode), output_type, return_dict, *path)

    def is_latent(self, value: object) -> bool:
        """Whether a value is one latent, alone or as a batch of one, with values that no image has."""
        return super().is_latent(value) and _is_noise(value)

    def are_latents(self, values: object) -> bool:
        """Whether values are latents (N, C, H, W), and no images."""
        return super().are_latents(values) and _is_noise(values)

    def _labels_of(self, class_labels: Labels, count: int) -> Tensor | None:
        """Labels (count,) of a path that is to be followed twice: none is drawn."""
        if self.num_classes is None and class_labels == "null":
            return None
        if class_labels is None:
            raise ValueError('class_labels None would draw a class: pass a label for each image, or "null"')
        labels, found = self._labels(class_labels, count)
        if found != count:
            raise ValueError(f"got {found} class_labels for {count} images; pass one for each, or one")
        return labels

    def _set_grid(self, num_inference_steps: int, timestep_spacing: str | None) -> None:
        if not _knows_grids(self.scheduler):
            raise ValueError(
                f"{type(self.scheduler).__name__} does not know the grids of {type(self).__name__}: leave it its own"
                " scheduler, or sample with DenoisingDiffusionPipeline, which takes any"
            )
        self.scheduler.set_timesteps(
            num_inference_steps, device=self._execution_device, timestep_spacing=timestep_spacing
        )


def implicit_scheduler(scheduler: SchedulerMixin, timestep_spacing: str = "trailing") -> ImplicitDiffusionScheduler:
    """The noise levels of a scheduler of diffusers, sampled as in the paper: nothing is clipped.

    Raises:
        ValueError: If it does not say its betas.
    """
    config = dict(scheduler.config)  # type: ignore[attr-defined]
    settings = inspect.signature(ImplicitDiffusionScheduler.__init__).parameters.keys() & config.keys()
    if "beta_schedule" not in settings:
        raise ValueError(f"{type(scheduler).__name__} does not say its betas: pass a DDPMScheduler, or DDIM's")
    levels = {name: config[name] for name in settings - {"timestep_spacing", "clip_sample"}}
    return ImplicitDiffusionScheduler(**levels, timestep_spacing=timestep_spacing)


def _knows_grids(scheduler: SchedulerMixin) -> bool:
    return "timestep_spacing" in inspect.signature(scheduler.set_timesteps).parameters  # type: ignore[attr-defined]


def _is_noise(value: object) -> bool:
    return isinstance(value, Tensor) and value.is_floating_point() and bool(((value < 0) | (value > 1)).any())
