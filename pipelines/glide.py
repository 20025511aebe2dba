"""Pictures from texts by diffusion, and parts of pictures.

Papers
- Nichol et al. 2021, "GLIDE: Towards Photorealistic Image Generation and Editing with Text-Guided Diffusion Models".
- Ho & Salimans 2022, "Classifier-Free Diffusion Guidance".
- Kynkäänniemi et al. 2024, "Applying Guidance in a Limited Interval Improves Sample and Distribution Quality in
  Diffusion Models".

What differs from the papers and why
- The sampler is the scheduler's business, and any text encoder of transformers that gives token states fits.
- Guidance follows diffusers' convention, out = uncond + scale (cond - uncond): 1 is none. That is the paper's own.
- The interval is one of timesteps, as shares of all, and not of noise levels.

This file is published beside the weights: it imports numpy, PIL, torch, diffusers and transformers only.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import PIL.Image
import torch
from diffusers.image_processor import VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.schedulers.scheduling_utils import SchedulerMixin
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from hf_genzoo.pipelines._guidance import from_sample, guided, signal_and_noise, takes_variance, to_sample
from hf_genzoo.pipelines._pictures import as_list, check_choice, check_counts, check_generators, to_pixels
from hf_genzoo.pipelines._steps import step_options

logger = logging.getLogger(__name__)

OUTPUT_TYPES = ("pil", "np", "pt")
Generators = torch.Generator | list[torch.Generator] | None
Callback = Callable[[DiffusionPipeline, int, Tensor, dict], dict]


@dataclass(frozen=True)
class Settings:
    """How to sample; see `GlidePipeline.__call__`.

    Raises:
        ValueError: If a number is out of range; the message names it.
    """

    guidance_scale: float
    guidance_interval: tuple[float, float]
    num_inference_steps: int
    eta: float
    generator: Generators
    latents: Tensor | None
    callback: Callback | None

    def __post_init__(self) -> None:
        check_counts(num_inference_steps=self.num_inference_steps)
        low, high = self.guidance_interval
        if not 0.0 <= low <= high <= 1.0:
            raise ValueError(f"guidance_interval {self.guidance_interval} must be two rising numbers from 0 to 1")

    def guides_at(self, share: float) -> bool:
        """Whether to guide at a timestep, given as a share of all."""
        return self.guidance_scale != 1.0 and self.guidance_interval[0] <= share <= self.guidance_interval[1]


def token_states(
    tokenizer: PreTrainedTokenizerBase, text_encoder: PreTrainedModel, captions: Sequence[str], length: int
) -> tuple[Tensor, Tensor]:
    """What a text encoder makes of captions.

    Args:
        tokenizer: Turns texts into tokens.
        text_encoder: Any with `last_hidden_state`: CLIPTextModel, T5EncoderModel, BertModel, ...
        captions: B texts.
        length: Tokens a caption, padding included; what is longer is cut (see `too_long`).

    Returns:
        States (B, length, dim), and which are of tokens, bool (B, length).
    """
    texts = list(captions)
    tokens = tokenizer(texts, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
    mask = tokens["attention_mask"].to(text_encoder.device)
    ids = tokens["input_ids"].to(text_encoder.device)
    return text_encoder(input_ids=ids, attention_mask=mask).last_hidden_state, mask.bool()


def too_long(tokenizer: PreTrainedTokenizerBase, captions: Sequence[str], length: int) -> list[str]:
    """The captions that have more tokens than `length`."""
    tokens = tokenizer(list(captions), verbose=False)["input_ids"]
    return [caption for caption, ids in zip(captions, tokens, strict=True) if len(ids) > length]


class GlidePipeline(DiffusionPipeline):
    """Pictures from texts.

    Args:
        unet: `TextUNet`; with twice as many output channels as a picture has, it says the variance too.
        text_encoder: Any text encoder of transformers with `last_hidden_state`.
        tokenizer: Its tokenizer.
        scheduler: Any scheduler of diffusers.
        example_prompts: Texts to try it with, {0: "a red circle", ...}. A dictionary and not a list: diffusers takes
            every list in model_index.json for a component.
    """

    model_cpu_offload_seq = "text_encoder->unet"

    def __init__(
        self,
        unet: ModelMixin,
        text_encoder: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        scheduler: SchedulerMixin,
        example_prompts: dict | None = None,
    ):
        super().__init__()
        self.register_modules(unet=unet, text_encoder=text_encoder, tokenizer=tokenizer, scheduler=scheduler)
        # JSON turns the keys into strings; done at once, so that a saved and loaded pipeline has the same config.
        texts = {str(i): str(text) for i, text in (example_prompts or {}).items()}
        self.register_to_config(example_prompts=texts or None)

    @property
    def takes_known_part(self) -> bool:
        """Whether the network is one for inpainting, with channels for the known part of the picture and the mask."""
        return self.unet.config["in_channels"] != self.unet.picture_channels

    @torch.no_grad()
    def encode_prompt(self, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
        """Token states (B, text_length, dim) and their mask, bool (B, text_length)."""
        length = self.unet.config["text_length"]
        for text in dict.fromkeys(too_long(self.tokenizer, prompts, length)):
            logger.warning("the end of this prompt is cut, it has more than %d tokens: %r", length, text)
        return token_states(self.tokenizer, self.text_encoder, prompts, length)

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        negative_prompt: str | Sequence[str] = "",
        batch_size: int = 1,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_inference_steps: int = 50,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Paint what a text says.

        Args:
            prompt: One text for all pictures or one for each. An empty one asks for nothing in particular.
            negative_prompt: What to be led away from, one for all or one for each. Empty, guidance leads away from
                pictures of anything, as in the paper.
            batch_size: Number of pictures. Left at 1, a sequence of texts decides.
            guidance_scale: Classifier-free guidance; 1 is none.
            guidance_interval: Where to guide, in timesteps as shares of all: 1 is pure noise, 0 the finished picture.
                Elsewhere the network is evaluated once, without guidance.
            num_inference_steps: Number of denoising steps.
            eta: Noise of DDIM, 0 (deterministic) to 1 (as in DDPM); only for schedulers that take it.
            generator: Source of randomness, one for the batch or one for each picture.
            latents: (B, C, H, W) standard normal noise to start from; drawn if not given.
            output_type: "pil" (list of images), "np" ((B, H, W, C) in [0, 1]) or "pt" ((B, C, H, W) in [0, 1]).
            return_dict: Return an `ImagePipelineOutput` rather than a tuple of one element.
            callback_on_step_end: Called with (pipeline, step index, timestep, {"latents": x_t}) after each step; it
                returns a dictionary, whose "latents", if there, replace x_t.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        settings = Settings(
            guidance_scale, guidance_interval, num_inference_steps, eta, generator, latents, callback_on_step_end
        )
        prompts, negatives = self._texts(prompt, negative_prompt, batch_size)
        return self._finished(self._denoise(prompts, negatives, settings), output_type, return_dict)

    def _denoise(
        self,
        prompts: list[str],
        negatives: list[str],
        settings: Settings,
        known: tuple[Tensor, Tensor] | None = None,
    ) -> Tensor:
        """Pixels (B, C, H, W) in [0, 1]. `known`: pictures in [-1, 1] and masks (B, 1, H, W), 1 where it is known."""
        generator, steps = settings.generator, settings.num_inference_steps
        check_generators(generator, len(prompts))
        options = step_options(self.scheduler, generator, settings.eta)
        cond = self.encode_prompt(prompts)
        uncond = None if settings.guidance_scale == 1.0 else self.encode_prompt(negatives)
        noise = self._noise(len(prompts), generator, settings.latents)
        self.scheduler.set_timesteps(steps, device=self._execution_device)
        timesteps: Tensor = self.scheduler.timesteps
        last = self.scheduler.config["num_train_timesteps"] - 1
        x_t = noise * self.scheduler.init_noise_sigma
        with self.progress_bar(total=len(timesteps)) as progress:  # type: ignore[call-arg]
            for index, t in enumerate(timesteps):
                if known is not None and not self.takes_known_part:
                    x_t = self._with_known_noised(x_t, known, noise, t)
                x_in = self.scheduler.scale_model_input(x_t, t)
                guide = uncond if settings.guides_at(float(t) / last) else None
                output = self._predict(x_in, t, cond, guide, settings.guidance_scale, known)
                x_t = self.scheduler.step(output, t, x_t, **options).prev_sample
                if settings.callback is not None:
                    x_t = settings.callback(self, index, t, {"latents": x_t}).get("latents", x_t)
                progress.update()
        return (0.5 * x_t.float() + 0.5).clamp(0.0, 1.0)

    def _predict(
        self,
        x_t: Tensor,
        t: Tensor,
        cond: tuple[Tensor, Tensor],
        uncond: tuple[Tensor, Tensor] | None,
        scale: float,
        known: tuple[Tensor, Tensor] | None,
    ) -> Tensor:
        """The output that the scheduler is given: guided, and with what is known put into its x_0."""
        channels, net_in = self.unet.picture_channels, x_t
        if self.takes_known_part:
            picture, mask = (torch.zeros_like(x_t), torch.zeros_like(x_t[:, :1])) if known is None else known
            net_in = torch.cat([x_t, picture * mask, mask], dim=1)
        if uncond is None:
            output = self.unet(net_in, t, *cond).sample
        else:
            states, masks = (torch.cat(pair) for pair in zip(uncond, cond, strict=True))
            both = self.unet(torch.cat([net_in, net_in]), t, states, masks).sample
            output = guided(*both.chunk(2), scale=scale, channels=channels)
        mean, variance = output[:, :channels], output[:, channels:]
        if known is not None:  # the x_0 of known pixels is no guess: Nichol et al. 2021, section 2.4
            a, s = signal_and_noise(self.scheduler, t)
            kind = self.scheduler.config["prediction_type"]
            x_0 = torch.where(known[1] > 0.5, known[0], to_sample(mean, x_t, a, s, kind))
            mean = from_sample(x_0, x_t, a, s, kind)
        return torch.cat([mean, variance], dim=1) if takes_variance(self.scheduler) else mean

    def _with_known_noised(self, x_t: Tensor, known: tuple[Tensor, Tensor], noise: Tensor, t: Tensor) -> Tensor:
        """x_t with q(x_t | x_0) at known pixels: all that a network can be told that has no channels for them."""
        return torch.where(known[1] > 0.5, self.scheduler.add_noise(known[0], noise, t.reshape(1)), x_t)

    def _finished(self, pixels: Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        """Pixels (B, C, H, W) in [0, 1] as they were asked for."""
        images = VaeImageProcessor(do_normalize=False).postprocess(pixels, output_type=output_type)
        return ImagePipelineOutput(images) if return_dict else (images,)  # pyright: ignore[reportArgumentType]

    def _texts(
        self, prompt: str | Sequence[str], negative_prompt: str | Sequence[str], batch_size: int
    ) -> tuple[list[str], list[str]]:
        """One prompt and one negative prompt for each picture."""
        check_counts(batch_size=batch_size)
        given = {}
        for name, texts in (("prompt", prompt), ("negative_prompt", negative_prompt)):
            given[name] = [texts] if isinstance(texts, str) else list(texts)
            if not given[name] or not all(isinstance(text, str) for text in given[name]):
                raise ValueError(f"{name} {texts!r} is not a text or a sequence of texts")
        count = len(given["prompt"]) if batch_size == 1 else batch_size
        for name, texts in given.items():
            if len(texts) not in (1, count):
                raise ValueError(f"got {len(texts)} texts as {name} for {count} images; pass one for each, or one")
        prompts, negatives = (texts * count if len(texts) == 1 else texts for texts in given.values())
        return prompts, negatives

    def _noise(self, batch_size: int, generator: Generators, latents: Tensor | None) -> Tensor:
        size = self.unet.config["sample_size"]
        shape = (batch_size, self.unet.picture_channels, size, size)
        if latents is None:
            return randn_tensor(shape, generator=generator, device=self._execution_device, dtype=self.unet.dtype)
        if tuple(latents.shape) != shape:
            raise ValueError(f"latents must have shape {shape}, not {tuple(latents.shape)}")
        return latents.to(device=self._execution_device, dtype=self.unet.dtype)


class GlideInpaintPipeline(GlidePipeline):
    """Parts of pictures from texts.

    With a network that was fine-tuned for it, which is given the known part and the mask. With one that was not, what
    is known is put into the noisy picture before each step, and the network has to make the rest fit: the control.
    """

    @torch.no_grad()
    def __call__(
        self,
        prompt: str | Sequence[str] = "",
        image: PIL.Image.Image | np.ndarray | Tensor | Sequence | None = None,
        mask_image: PIL.Image.Image | np.ndarray | Tensor | Sequence | None = None,
        negative_prompt: str | Sequence[str] = "",
        batch_size: int = 1,
        guidance_scale: float = 3.0,
        guidance_interval: tuple[float, float] = (0.0, 1.0),
        num_inference_steps: int = 50,
        eta: float = 0.0,
        generator: Generators = None,
        latents: Tensor | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
        callback_on_step_end: Callback | None = None,
    ) -> ImagePipelineOutput | tuple:
        """Paint what a text says where the mask is white; the rest of the picture comes back as it was given.

        Args:
            prompt: What the whole picture shows, one text for all or one for each.
            image: One picture for all, or one for each: PIL, array (B, H, W, C) or tensor (B, C, H, W) in [0, 1], of
                any size. Without it the whole picture is painted.
            mask_image: Where to paint, as diffusers has it: white (1) is painted, black (0) is kept. One channel.
            negative_prompt: See `GlidePipeline`, as the other arguments.
            batch_size: Number of pictures. Left at 1, sequences of texts or pictures decide.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        settings = Settings(
            guidance_scale, guidance_interval, num_inference_steps, eta, generator, latents, callback_on_step_end
        )
        if image is None or mask_image is None:
            if image is not mask_image:
                raise ValueError("image and mask_image go together: pass both, or neither to paint a whole picture")
            prompts, negatives = self._texts(prompt, negative_prompt, batch_size)
            return self._finished(self._denoise(prompts, negatives, settings), output_type, return_dict)
        pictures, masks = self._known(image, mask_image)
        batch_size = len(pictures) if batch_size == 1 else batch_size
        prompts, negatives = self._texts(prompt, negative_prompt, batch_size)
        if len(pictures) not in (1, len(prompts)):
            raise ValueError(f"got {len(pictures)} pictures for {len(prompts)} images; pass one for each, or one")
        pictures, masks = (part.expand(len(prompts), -1, -1, -1) for part in (pictures, masks))
        placed = [part.to(self._execution_device, self.unet.dtype) for part in (2.0 * pictures - 1.0, masks)]
        pixels = self._denoise(prompts, negatives, settings, (placed[0], placed[1])).cpu()
        # Bit for bit what was given, whatever the steps have rounded.
        return self._finished(torch.where(masks > 0.5, pictures, pixels), output_type, return_dict)

    def _known(self, image: object, mask_image: object) -> tuple[Tensor, Tensor]:
        """Pictures (B, C, H, W) in [0, 1], and masks (B, 1, H, W), 1 where the picture is known: the paper's way."""
        size = self.unet.config["sample_size"]
        pictures = torch.cat([to_pixels(one, self.unet.picture_channels, size) for one in as_list(image)])  # type: ignore[arg-type]
        painted = torch.cat([to_pixels(one, 1, size) for one in as_list(mask_image)])  # type: ignore[arg-type]
        if len(painted) not in (1, len(pictures)) and len(pictures) != 1:
            raise ValueError(f"got {len(painted)} masks for {len(pictures)} pictures; pass one for each, or one")
        count = max(len(pictures), len(painted))
        return pictures.expand(count, -1, -1, -1), (painted <= 0.5).float().expand(count, -1, -1, -1)
