"""An autoencoder at work: codes, reconstruction, and the repair of noisy, small, torn or grey pictures.

Papers
- Hinton & Salakhutdinov 2006, "Reducing the Dimensionality of Data with Neural Networks".
- Vincent et al. 2008, "Extracting and Composing Robust Features with Denoising Autoencoders".

Conventions
- Tensors and arrays that go in or come out are images in [0, 1]: (B, C, H, W) or (B, H, W, C). The network works in
  [-1, 1].
- A plain autoencoder has no prior: where its codes lie is whatever the training made of it, and codes drawn from
  N(0, I) are noise to it. What the call draws has the mean and spread of the training data's codes, number by number:
  a law that is fitted afterwards (Ghosh et al. 2020, "From Variational to Deterministic Autoencoders") and ignores how
  the numbers hang together. A variational autoencoder learns codes that N(0, I) fits.

This file is published beside the weights, with the parts it imports put into it.
"""

import torch
import torch.nn.functional as F
from diffusers.image_processor import PipelineImageInput, VaeImageProcessor
from diffusers.models.modeling_utils import ModelMixin
from diffusers.pipelines.pipeline_utils import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor
from torch import Tensor

from hf_genzoo.pipelines._latents import OUTPUT_TYPES, EncodingPipeline
from hf_genzoo.pipelines._pictures import (
    as_list,
    check_choice,
    check_counts,
    check_generators,
    in_their_sizes,
    resized,
    to_pixels,
)

TASKS = ("reconstruct", "denoise", "super_resolution", "completion", "colorization")

# The weights of red, green and blue in luma, and the scales of Cb and Cr (ITU-R BT.601, as in JPEG).
LUMA = (0.299, 0.587, 0.114)
CB_SCALE, CR_SCALE = 1.772, 1.402


class AutoencoderPipeline(EncodingPipeline, DiffusionPipeline):
    """Everything one does with a trained autoencoder.

    Args:
        autoencoder: Network with `encode`, `decode` and the mean and spread of its codes (see `ConvAutoencoder`).
        task: What it was trained to undo, one of TASKS.
        factor: How many times smaller than their answers the inputs of super-resolution are.
    """

    model_cpu_offload_seq = "autoencoder"

    def __init__(self, autoencoder: ModelMixin, task: str = "reconstruct", factor: int = 4):
        super().__init__()
        check_choice("task", task, TASKS)
        self.register_modules(autoencoder=autoencoder)
        self.register_to_config(task=task, factor=factor)

    @property
    def latent_dim(self) -> int:
        """Length of a latent."""
        return self.autoencoder.latent_mean.numel()

    @property
    def channels(self) -> int:
        """Channels of the pictures."""
        return 3 if self.config["task"] == "colorization" else self.autoencoder.config["out_channels"]

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        latents: Tensor | None = None,
        generator: torch.Generator | list[torch.Generator] | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Decode random codes, of a law that was fitted to the training data's after the training.

        Args:
            batch_size: Number of images.
            latents: (B, latent_dim) codes to decode in place of drawn ones.
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
            net, shape = self.autoencoder, (batch_size, self.latent_dim)
            noise = randn_tensor(shape, generator=generator, device=self._execution_device, dtype=net.dtype)
            return self.decode(net.latent_mean.flatten() + net.latent_std.flatten() * noise, output_type, return_dict)
        return self.decode(latents, output_type=output_type, return_dict=return_dict)

    @torch.no_grad()
    def encode(self, images: PipelineImageInput) -> Tensor:
        """Codes (B, latent_dim) of images of any accepted kind, which are resized to the network's resolution.

        The images are inputs of the task: noisy ones, small ones, grey ones. Completion takes all pixels for known.
        """
        size = self.autoencoder.config["sample_size"]
        pixels = torch.cat([to_pixels(image, self.channels, size) for image in as_list(images)])
        given = self._to_net(pixels)
        return self.autoencoder.encode(
            network_input(self.config["task"], given, torch.zeros_like(given[:, :1]))
        ).flatten(1)

    @torch.no_grad()
    def decode(
        self, latents: Tensor, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        """Images of codes (B, latent_dim). Colourisation knows no luma here: a middle grey stands for it."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        if latents.ndim != 2 or latents.shape[1] != self.latent_dim:
            raise ValueError(f"latents must have shape (B, {self.latent_dim}), not {tuple(latents.shape)}")
        net = self.autoencoder
        latents = latents.to(device=self._execution_device, dtype=net.dtype)
        out = net.decode(latents.unflatten(1, net.latent_mean.shape))
        nothing = out.new_zeros(len(out), self.channels, *out.shape[2:])
        image = picture(self.config["task"], out, nothing, torch.ones_like(nothing[:, :1]))
        return self._answer(0.5 * (image.clamp(-1.0, 1.0) + 1.0), output_type, return_dict)

    @torch.no_grad()
    def restore(
        self,
        images: PipelineImageInput,
        mask_image: PipelineImageInput | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """Undo what the network was trained to undo, on pictures of any size, in their size.

        denoise: noisy pictures, cleaned. super_resolution: small pictures, in `factor` times their size. completion:
        pictures with holes, filled; known pixels stay as they are. colorization: any pictures, grey ones too, in
        colour; their luma stays as it is. reconstruct: pictures, encoded and decoded.

        A network with a code of fixed length works at its own resolution, to and from which pictures are resized; one
        without works at theirs.

        Args:
            images: PIL images of any mode and size, arrays (B, H, W, C) or tensors (B, C, H, W) in [0, 1] or uint8.
            mask_image: For completion: where to fill, white (1) on black (0). One for all images or one for each, of
                their size: PIL images, arrays (H, W) or (B, H, W, 1), or tensors (B, 1, H, W).
            output_type: As in the call; "np" and "pt" need answers of one size.
            return_dict: As in the call.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        task = self.config["task"]
        if (mask_image is not None) != (task == "completion"):
            needs = "needs a mask_image, white where it should fill" if mask_image is None else "takes no mask_image"
            raise ValueError(f"task {task!r} {needs}")
        batches = [to_pixels(image, self.channels, None) for image in as_list(images)]
        given = [picture for batch in batches for picture in batch.split(1)]
        masks = [torch.zeros(1, 1, *pixels.shape[2:]) for pixels in given]
        if mask_image is not None:
            masks = self._masks(mask_image, [tuple(pixels.shape[2:]) for pixels in given])
        answers = [self._restore_one(pixels, mask) for pixels, mask in zip(given, masks, strict=True)]
        images = in_their_sizes(answers, output_type)
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]

    def _masks(self, mask_image: PipelineImageInput, sizes: list[tuple[int, ...]]) -> list[Tensor]:
        batches = [to_pixels(mask, 1, None).round() for mask in as_list(mask_image)]
        masks = [mask for batch in batches for mask in batch.split(1)]
        masks = masks * len(sizes) if len(masks) == 1 else masks
        found = [tuple(mask.shape[2:]) for mask in masks]
        if found != sizes:
            raise ValueError(f"mask_image has the sizes {found}, the images {sizes} (height, width): they must agree")
        return masks

    def _restore_one(self, pixels: Tensor, mask: Tensor) -> Tensor:
        """One picture (1, C, H, W) in [0, 1] and where to fill it (1, 1, H, W), answered in its size in [0, 1]."""
        task, net = self.config["task"], self.autoencoder
        if task == "super_resolution":
            height, width = pixels.shape[2:]
            pixels = resized(pixels, (height * self.config["factor"], width * self.config["factor"]))
            mask = torch.zeros(1, 1, *pixels.shape[2:])
        height, width = size = tuple(pixels.shape[2:])
        if len(net.latent_mean.shape) == 1:
            inner = (net.config["sample_size"],) * 2
            known, hole = resized(pixels, inner), F.interpolate(mask, size=inner, mode="area").ceil()
        else:  # the stages halve the picture; its edge is repeated until they can
            pad = (0, -width % net.factor, 0, -height % net.factor)
            known, hole = F.pad(pixels, pad, mode="replicate"), F.pad(mask, pad)
        known, hole = self._to_net(known), hole.to(self._execution_device, net.dtype)
        out = net(network_input(task, known, hole)).float().cpu()
        out = resized_signal(out, size) if len(net.latent_mean.shape) == 1 else out[..., :height, :width]
        return 0.5 * (picture(task, out, 2.0 * pixels - 1.0, mask).clamp(-1.0, 1.0) + 1.0)

    def _to_net(self, pixels: Tensor) -> Tensor:
        return (2.0 * pixels - 1.0).to(device=self._execution_device, dtype=self.autoencoder.dtype)

    def _answer(self, pixels: Tensor, output_type: str, return_dict: bool) -> ImagePipelineOutput | tuple:
        images = VaeImageProcessor(do_normalize=False).postprocess(pixels, output_type, [False] * len(pixels))
        self.maybe_free_model_hooks()
        return ImagePipelineOutput(images=images) if return_dict else (images,)  # type: ignore[arg-type]


def network_input(task: str, given: Tensor, mask: Tensor) -> Tensor:
    """What the network sees of a damaged picture (B, C, H, W) in [-1, 1] and of the holes (B, 1, H, W), 1 in a hole.

    Completion: the known pixels, 0 in the holes, and the mask as another channel. Colourisation: the luma.
    """
    if task == "completion":
        return torch.cat([given * (1.0 - mask), mask], dim=1)
    if task == "colorization":
        return luma(given)
    return given


def picture(task: str, out: Tensor, given: Tensor, mask: Tensor) -> Tensor:
    """The answer (B, C, H, W) in [-1, 1]: what the network gave, together with what is known of the picture.

    Completion: known pixels as they are, the network's in the holes. Colourisation: the network's chroma (B, 2, H, W)
    with the luma of `given`.
    """
    if task == "completion":
        return composite(given, out, mask)
    if task == "colorization":
        return with_chroma(luma(given), out)
    return out


def composite(known: Tensor, filled: Tensor, mask: Tensor) -> Tensor:
    """`filled` where the mask is 1, `known`, bit for bit, where it is 0."""
    return torch.where(mask > 0.5, filled, known)


def luma(image: Tensor) -> Tensor:
    """Luma (B, 1, H, W) of colour images (B, 3, H, W), in their range."""
    return (image * image.new_tensor(LUMA)[:, None, None]).sum(1, keepdim=True)


def chroma(image: Tensor) -> Tensor:
    """Cb and Cr (B, 2, H, W) of colour images (B, 3, H, W) in [-1, 1]; each in [-1, 1], 0 for greys."""
    grey = luma(image)
    return torch.cat([(image[:, 2:] - grey) / CB_SCALE, (image[:, :1] - grey) / CR_SCALE], dim=1)


def with_chroma(grey: Tensor, colour: Tensor) -> Tensor:
    """The colour image (B, 3, H, W) of a luma (B, 1, H, W) and a chroma (B, 2, H, W)."""
    red, blue = grey + CR_SCALE * colour[:, 1:], grey + CB_SCALE * colour[:, :1]
    green = (grey - LUMA[0] * red - LUMA[2] * blue) / LUMA[1]
    return torch.cat([red, green, blue], dim=1)


def resized_signal(values: Tensor, size: tuple[int, ...]) -> Tensor:
    """Values (B, C, H, W) of any range at another height and width."""
    if tuple(values.shape[-2:]) == size:
        return values
    return F.interpolate(values, size=size, mode="bicubic", antialias=True)
