"""Sampling from a denoising diffusion model, with or without class labels.

Papers
- Ho, Jain & Abbeel 2020, "Denoising Diffusion Probabilistic Models".
- Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
- Nichol & Dhariwal 2021, "Improved Denoising Diffusion Probabilistic Models": the learned variance.

What differs from the papers and why
- The sampler is the scheduler's business: any of diffusers' schedulers fits (DDPM, DDIM, DPM-Solver++, Heun, ...).
- Guidance follows diffusers' convention, out = uncond + scale (cond - uncond): 1 is none, and the w of Ho & Salimans
  is scale - 1. It is applied to the network's output, whatever that predicts; at a given x_t noise, v and x_0 are
  affine in one another, so the result is the same. A learned variance is left as it is under the label.
- A network with a learned variance has twice as many channels out as in. DDPMScheduler with variance_type
  "learned_range" uses them, on the grid "linspace" as in the paper; every other scheduler is given the first half.
- A class-conditional UNet2DModel of K classes has K + 1 class embeddings; label K, "null", stands for no label.
- Where no labels are given, each image's class is drawn at random: that too samples the whole of the data, and better
  than the null label, which is seldom trained.

This file is published beside the weights: it imports torch and diffusers only.
"""

from collections.abc import Callable, Sequence
from numbers import Integral

import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._likelihood import BoundedLikelihood
from hf_genzoo.pipelines._pictures import check_choice, check_counts, check_generators
from hf_genzoo.pipelines._steps import step_options

OUTPUT_TYPES = ("pil", "np", "pt")


class DenoisingDiffusionPipeline(BoundedLikelihood, DiffusionPipeline):
    """Images from a UNet2DModel and a scheduler.

    Args:
        unet: Denoiser; class-conditional if its config has `num_class_embeds` (number of classes plus one), with a
            learned variance if it has twice as many channels out as in.
        scheduler: Any scheduler of diffusers.
        id2label: Names of the classes, {0: "cat", ...}. A dictionary and not a list: diffusers takes every list in
            model_index.json for a component.
    """

    model_cpu_offload_seq = "unet"

    def __init__(self, unet: UNet2DModel, scheduler: SchedulerMixin, id2label: dict | None = None):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler)
        # JSON turns the keys into strings; done at once, so that a saved and loaded pipeline has the same config.
        self.register_to_config(id2label=id2label and {str(label): str(name) for label, name in id2label.items()})

    @property
    def num_classes(self) -> int | None:
        """Number of classes, or None if the network is unconditional."""
        embeddings = self.unet.config["num_class_embeds"]
        return None if embeddings is None else embeddings - 1

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        class_labels: int | str | Sequence[int | str] | Tensor | None = None,
        guidance_scale: float = 1.0,
        num_inference_steps: int = 50,
        eta: float = 0.0,
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
            num_inference_steps: Number of denoising steps.
            eta: Noise of DDIM, 0 (deterministic) to 1 (as in DDPM); only for schedulers that take it.
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
        options = step_options(self.scheduler, generator, eta)
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        x_t = self._initial_noise(batch_size, generator, latents)
        x_0 = self._denoised(x_t, labels, guidance_scale, options, callback_on_step_end)
        return self._pictures(x_0, output_type, return_dict)

    def _conditions(
        self,
        batch_size: int,
        class_labels: int | str | Sequence[int | str] | Tensor | None,
        guidance_scale: float,
        num_inference_steps: int,
        generator: torch.Generator | list[torch.Generator] | None,
        output_type: str,
    ) -> tuple[Tensor | None, int]:
        """What is wrong with the arguments of a call, or else the labels (B,), drawn where none are given, and B."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_counts(num_inference_steps=num_inference_steps)
        labels, batch_size = self._labels(class_labels, batch_size)
        if guidance_scale != 1.0 and self.num_classes is None:
            raise ValueError(f"guidance_scale {guidance_scale} for an unconditional network; leave it at 1")
        check_generators(generator, batch_size)
        if labels is None and self.num_classes is not None:
            labels = self._random_labels(self.num_classes, batch_size, generator)
        self._check_variance()
        return labels, batch_size

    def _denoised(
        self,
        x_t: Tensor,
        labels: Tensor | None,
        guidance_scale: float,
        options: dict,
        callback_on_step_end: Callable[[DiffusionPipeline, int, Tensor, dict], dict] | None,
    ) -> Tensor:
        """x_0 from x_T, along the scheduler's timesteps."""
        timesteps: Tensor = self.scheduler.timesteps
        with self.progress_bar(total=len(timesteps)) as progress:  # type: ignore[call-arg]
            for index, t in enumerate(timesteps):
                output = self._predict(self.scheduler.scale_model_input(x_t, t), t, labels, guidance_scale)
                x_t = self.scheduler.step(output, t, x_t, **options).prev_sample
                if callback_on_step_end is not None:
                    x_t = callback_on_step_end(self, index, t, {"latents": x_t}).get("latents", x_t)
                progress.update()
        return x_t

    def _pictures(self, x_0: Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        """x_0 (B, C, H, W) in [-1, 1] as the caller wants it; what lies outside is clipped."""
        images = VaeImageProcessor().postprocess(x_0, output_type=output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

    def _predict(self, x_t: Tensor, t: Tensor, labels: Tensor | None, guidance_scale: float) -> Tensor:
        """The network's output, guided (Ho & Salimans 2022, eq. 6, with scale = 1 + w), as the scheduler takes it."""
        channels = self.unet.config["in_channels"]
        if labels is None:
            output = self.unet(x_t, t).sample
        elif guidance_scale == 1.0:
            output = self.unet(x_t, t, class_labels=labels).sample
        else:
            null = torch.full_like(labels, self.num_classes)  # type: ignore[arg-type]
            both = self.unet(torch.cat([x_t, x_t]), t, class_labels=torch.cat([null, labels])).sample
            uncond, cond = both.chunk(2)
            guided = uncond + guidance_scale * (cond - uncond)
            output = torch.cat([guided[:, :channels], cond[:, channels:]], dim=1)
        return output if self._uses_learned_variance else output[:, :channels]

    @property
    def _uses_learned_variance(self) -> bool:
        return isinstance(self.scheduler, DDPMScheduler) and self.scheduler.config["variance_type"] == "learned_range"

    def _check_variance(self) -> None:
        """Refuse a scheduler that wants a variance from a network that has none."""
        if not self._uses_learned_variance:
            return
        inside, outside = self.unet.config["in_channels"], self.unet.config["out_channels"]
        if outside != 2 * inside:
            raise ValueError(
                f"variance_type 'learned_range' needs a network of {2 * inside} output channels, not {outside}; "
                "set the scheduler's variance_type to 'fixed_small' or 'fixed_large'"
            )

    def _labels(
        self, class_labels: int | str | Sequence[int | str] | Tensor | None, batch_size: int
    ) -> tuple[Tensor | None, int]:
        """Labels as (B,) int64, None where none are given, and the batch size."""
        check_counts(batch_size=batch_size)
        if self.num_classes is None:
            if class_labels is not None:
                raise ValueError(f"class_labels {class_labels!r} for an unconditional network; leave them out")
            return None, batch_size
        if class_labels is None:
            return None, batch_size
        if isinstance(class_labels, (Integral, str)):
            given = [self._label_index(class_labels)]
        else:
            if not isinstance(class_labels, (Sequence, Tensor)):
                raise ValueError(f"class_labels {class_labels!r} is not a label, a sequence of labels or a tensor")
            values = class_labels.flatten().tolist() if isinstance(class_labels, Tensor) else class_labels
            given = [self._label_index(label) for label in values]
            batch_size = len(given) if batch_size == 1 else batch_size
            if len(given) not in (1, batch_size) or not given:
                raise ValueError(f"got {len(given)} class_labels for {batch_size} images; pass one for each, or one")
        given = given * batch_size if len(given) == 1 else given
        return torch.tensor(given, device=self._execution_device), batch_size

    def _random_labels(
        self, num_classes: int, batch_size: int, generator: torch.Generator | list[torch.Generator] | None
    ) -> Tensor:
        """(B,) int64; an image that has its own generator gets the same label in a batch and alone."""
        if isinstance(generator, list):
            drawn = [torch.randint(num_classes, (1,), generator=g, device=g.device) for g in generator]
            return torch.cat(drawn).to(self._execution_device)
        device = self._execution_device if generator is None else generator.device
        return torch.randint(num_classes, (batch_size,), generator=generator, device=device).to(self._execution_device)

    def _label_index(self, label: int | str) -> int:
        names = self.config["id2label"] or {}
        if isinstance(label, str):
            for index, name in names.items():
                if name == label:
                    return int(index)
            if label == "null":
                return self.num_classes or 0
            known = ", ".join(names.values()) or "none, use indices"
            raise ValueError(f"unknown class label {label!r}; known names: {known}")
        if not isinstance(label, Integral) or not 0 <= label < (self.num_classes or 0):
            raise ValueError(f"class label {label!r} is not one of 0 to {(self.num_classes or 0) - 1}")
        return int(label)

    @property
    def _noise_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one picture, and of the noise it begins as."""
        size = self.unet.config["sample_size"]
        height, width = (size, size) if isinstance(size, int) else size
        return self.unet.config["in_channels"], height, width

    def _initial_noise(
        self, batch_size: int, generator: torch.Generator | list[torch.Generator] | None, latents: Tensor | None
    ) -> Tensor:
        shape = (batch_size, *self._noise_shape)
        if latents is None:
            latents = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        elif tuple(latents.shape) != shape:
            raise ValueError(f"latents must have shape {shape}, not {tuple(latents.shape)}")
        latents = latents.to(device=self._execution_device, dtype=self.unet.dtype)
        return latents * self.scheduler.init_noise_sigma
