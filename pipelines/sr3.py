"""Super-resolution by iterative refinement (SR3): small pictures in, large ones out, each drawn from noise.

Paper: Saharia et al. 2021, "Image Super-Resolution via Iterative Refinement".

What differs from the paper and why
- The sampler is the scheduler's business. The network is told sqrt(gamma), the level of the signal at a step, and not
  the number of the step; so any scheduler of diffusers that is variance-preserving fits, with any number of steps or
  any schedule of its own (`DDPMScheduler(len(betas), trained_betas=betas)`), whatever the training's was.
- The variance of a step is that of DDPMScheduler, by default the posterior's of Ho et al. (2020), not 1 - alpha_t as
  in the paper: with few steps that would leave its noise in the finished picture.
- Most of the large picture is known from the small one. With `residual_std` the network answers for the rest alone:
  what a normal law of that spread about the enlarged picture would answer is worked out, and the network, which is
  given and gives numbers of unit variance at every noise level, adds to it (as Karras et al. 2022 precondition a
  denoiser of data about 0, "Elucidating the Design Space of Diffusion-Based Generative Models", section 5).
- Pictures larger than those of the training are worked tile by tile. At every step the tiles' predictions are blended
  and one step is taken for the whole picture (Bar-Tal et al. 2023, "MultiDiffusion"), so that there are no seams.
- A network of the same size that was trained to give the answer at once (the paper's baseline "regression") is told
  that there is no signal (gamma = 0) and given no noise; it predicts the picture.

Tensors and arrays that go in or come out are images in [0, 1]: (B, C, H, W) or (B, H, W, C). The network works in
[-1, 1]. This file is published beside the weights, with the parts it imports put into it.
"""

import math
from collections.abc import Callable

import torch
from diffusers.image_processor import PipelineImageInput
from diffusers.models.unets.unet_2d import UNet2DModel
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._pictures import (
    as_list,
    check_choice,
    check_counts,
    check_generators,
    in_their_sizes,
    resized,
    to_pixels,
)
from hf_genzoo.pipelines._steps import step_options
from hf_genzoo.pipelines._tiles import by_tiles, mirrored

OUTPUT_TYPES = ("pil", "np", "pt")
OBJECTIVES = ("diffusion", "regression")
LEVEL_SCALE = 1000.0  # the network's time embedding is made for numbers up to 1000; sqrt(gamma) is at most 1


def denoise(unet: Callable, low: Tensor, x_t: Tensor, level: Tensor, residual_std: float | None = None) -> Tensor:
    """What the network says of a noisy picture, given the enlarged small one: f(x, y_t, gamma) of the paper's eq. 6.

    Args:
        unet: A UNet2DModel of 2 C channels in and C out.
        low: (B, C, H, W) in [-1, 1], the small picture in the large one's size.
        x_t: (B, C, H, W).
        level: (B,) or a number as tensor: sqrt(gamma) in [0, 1].
        residual_std: Standard deviation of the large picture about the enlarged one, in [-1, 1], for a network that
            answers with the velocity and is helped by it; None leaves the network alone.
    """
    if residual_std is None:
        return unet(torch.cat([low, x_t], dim=1), LEVEL_SCALE * level).sample
    a = level.reshape(-1, 1, 1, 1)
    s, spread = (1.0 - a**2).sqrt(), residual_spread(a, residual_std)
    noisy_residual = x_t - a * low
    added = unet(torch.cat([low, noisy_residual / spread], dim=1), LEVEL_SCALE * level).sample
    normal = s * (a * (1.0 - residual_std**2) / spread**2 * noisy_residual - low)  # E[velocity | x_t] of that law
    return normal + residual_std / spread * added


def residual_spread(level: Tensor, residual_std: float) -> Tensor:
    """Standard deviation of what a noisy picture holds beside the enlarged one, at levels sqrt(gamma) of any shape."""
    return ((residual_std * level) ** 2 + 1.0 - level**2).sqrt()


def regress(unet: Callable, low: Tensor) -> Tensor:
    """The large picture at once, (B, C, H, W) about [-1, 1]: the paper's baseline, in the same network."""
    return denoise(unet, low, torch.zeros_like(low), low.new_zeros(len(low)))


def signal_level(alphas_cumprod: Tensor, t: Tensor | float) -> Tensor:
    """sqrt(gamma) at a scheduler's timestep; between whole ones the noise-to-signal ratio is interpolated."""
    first, share = divmod(float(t), 1.0)
    gamma = alphas_cumprod[int(first)]
    if share:
        ratios = ((1.0 - alphas_cumprod) / alphas_cumprod).sqrt()
        gamma = 1.0 / (1.0 + torch.lerp(ratios[int(first)], ratios[int(first) + 1], share) ** 2)
    return gamma.sqrt()


class SR3Pipeline(DiffusionPipeline):
    """Large pictures from small ones.

    Args:
        unet: Denoiser that is told the level of the signal (see `denoise`).
        scheduler: Any variance-preserving scheduler of diffusers.
        scale: How many times larger than the given pictures the answers are.
        objective: "diffusion", or "regression" for a network that answers at once.
        residual_std: See `denoise`; the network and the scheduler are then of the velocity.
    """

    model_cpu_offload_seq = "unet"

    def __init__(
        self,
        unet: UNet2DModel,
        scheduler: SchedulerMixin,
        scale: int = 4,
        objective: str = "diffusion",
        residual_std: float | None = None,
    ) -> None:
        super().__init__()
        check_choice("objective", objective, OBJECTIVES)
        self.register_modules(unet=unet, scheduler=scheduler)
        self.register_to_config(scale=scale, objective=objective, residual_std=residual_std)

    @torch.no_grad()
    def __call__(
        self,
        image: PipelineImageInput,
        num_inference_steps: int = 25,
        num_samples: int = 1,
        generator: torch.Generator | list[torch.Generator] | None = None,
        latents: Tensor | None = None,
        tile_size: int | None = None,
        tile_overlap: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callable[[DiffusionPipeline, int, Tensor, dict], dict] | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Enlarge pictures `scale` times.

        Args:
            image: One small picture or several: PIL images of any mode and size (transparency is laid on white),
                arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1] or uint8. Sizes may differ.
            num_inference_steps: Denoising steps.
            num_samples: Different answers for each picture; those of the first picture come first.
            generator: Source of randomness, one for all answers or one for each.
            latents: (B, C, H, W) noise to begin with in place of drawn noise, one for each answer, in its size.
            tile_size: Side of a tile, in pixels of the answer; by default that of the training's pictures.
            tile_overlap: How far neighbouring tiles overlap, in pixels of the answer; by default a quarter of a tile.
            output_type: "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in [0, 1]). The
                last two need pictures of one size.
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.
            callback_on_step_end: Called as f(pipeline, step, timestep, {"latents": x_t}) after each step; it
                returns a dictionary, whose "latents", if there, replace x_t. Pictures of one size are worked together.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        check_counts(num_inference_steps=num_inference_steps, num_samples=num_samples)
        tiles = self._tiles(tile_size, tile_overlap)
        channels = self.unet.config["out_channels"]
        given = [one for many in as_list(image) for one in to_pixels(many, channels, None).split(1)]
        enlarged = [low for picture in given for low in [self._enlarged(picture)] * num_samples]
        check_generators(generator, len(enlarged))
        self._check_latents(latents, [tuple(low.shape[1:]) for low in enlarged])

        answers: list[Tensor] = list(enlarged)
        for size in dict.fromkeys(low.shape for low in enlarged):
            places = [place for place, low in enumerate(enlarged) if low.shape == size]
            low = torch.cat([enlarged[place] for place in places])
            if self.config["objective"] == "regression":
                x_0 = self._on_tiles(lambda both: regress(self.unet, both), low, tiles)
            else:
                own = [generator[place] for place in places] if isinstance(generator, list) else generator
                x_T = latents if latents is not None else self._noise(low, own)
                x_0 = self._refine(low, x_T, num_inference_steps, own, tiles, callback_on_step_end)
            for place, answer in zip(places, x_0.float().cpu().split(1), strict=True):
                answers[place] = 0.5 * (answer.clamp(-1.0, 1.0) + 1.0)
        images = in_their_sizes(answers, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

    def _refine(
        self,
        low: Tensor,
        x_T: Tensor,
        num_inference_steps: int,
        generator: torch.Generator | list[torch.Generator] | None,
        tiles: tuple[int, int],
        callback: Callable | None,
    ) -> Tensor:
        """Algorithm 2: from noise to pictures (B, C, H, W), one step after the other."""
        self.scheduler.set_timesteps(num_inference_steps, device=self._execution_device)
        alphas_cumprod = getattr(self.scheduler, "alphas_cumprod", None)
        if alphas_cumprod is None:
            name = type(self.scheduler).__name__
            raise ValueError(f"{name} has no alphas_cumprod to tell the network the level by; take DDPMScheduler")
        alphas_cumprod = alphas_cumprod.to(self._execution_device)
        options, known = step_options(self.scheduler, generator), self.config["residual_std"]
        predicts = self.scheduler.config.get("prediction_type")
        if known is not None and predicts != "v_prediction":
            raise ValueError(f"residual_std needs a scheduler of prediction_type 'v_prediction', not {predicts!r}")
        x_t = x_T.to(low) * self.scheduler.init_noise_sigma
        with self.progress_bar(total=len(self.scheduler.timesteps)) as progress:  # type: ignore[call-arg]
            for index, t in enumerate(self.scheduler.timesteps):
                level = signal_level(alphas_cumprod, t)
                both = torch.cat([low, self.scheduler.scale_model_input(x_t, t)], dim=1)
                output = self._on_tiles(
                    lambda part, at=level: denoise(self.unet, *part.chunk(2, 1), level=at, residual_std=known),
                    both,
                    tiles,
                )
                x_t = self.scheduler.step(output, t, x_t, **options).prev_sample
                if callback is not None:
                    x_t = callback(self, index, t, {"latents": x_t}).get("latents", x_t)
                progress.update()
        return x_t

    def _on_tiles(self, network: Callable[[Tensor], Tensor], x: Tensor, tiles: tuple[int, int]) -> Tensor:
        """The network's answer for pictures of any size, which are mirrored at their edges until it can halve them."""
        height, width = x.shape[2:]
        return by_tiles(network, mirrored(x, self._multiple), *tiles)[..., :height, :width]

    @property
    def _multiple(self) -> int:
        """What sides the network can halve at each of its levels but the last."""
        return 2 ** (len(self.unet.config["block_out_channels"]) - 1)

    def _tiles(self, size: int | None, overlap: int | None) -> tuple[int, int]:
        """Side and overlap of the tiles: multiples of what the network needs and of the scale, as in the training."""
        step = math.lcm(self._multiple, self.config["scale"])
        size = int(self.unet.config["sample_size"]) if size is None else size
        if size < 1 or size % step:
            raise ValueError(f"tile_size must be a multiple of {step}, not {size}")
        overlap = size // 4 // step * step if overlap is None else overlap
        if not 0 <= overlap < size or overlap % step:
            raise ValueError(f"tile_overlap must be a multiple of {step}, from 0 and below {size}, not {overlap}")
        return size, overlap

    def _enlarged(self, pixels: Tensor) -> Tensor:
        """A small picture (1, C, h, w) in [0, 1], bicubic, in the large one's size and in [-1, 1]."""
        height, width = pixels.shape[2:]
        scale = self.config["scale"]
        large = 2.0 * resized(pixels, (scale * height, scale * width)) - 1.0
        return large.to(device=self._execution_device, dtype=self.unet.dtype)

    def _noise(self, low: Tensor, generator: torch.Generator | list[torch.Generator] | None) -> Tensor:
        return randn_tensor(low.shape, generator=generator, device=self._execution_device, dtype=low.dtype)

    @staticmethod
    def _check_latents(latents: Tensor | None, shapes: list[tuple[int, ...]]) -> None:
        if latents is None:
            return
        if len(set(shapes)) > 1:
            raise ValueError(f"latents for pictures of several sizes {sorted(set(shapes))}; call with one size a time")
        if tuple(latents.shape) != (len(shapes), *shapes[0]):
            raise ValueError(f"latents must have shape {(len(shapes), *shapes[0])}, not {tuple(latents.shape)}")
