"""What one does with a latent, the same in every pipeline that has one: a vector (d,), or an array of another shape,
such as the noise (C, H, W) that a diffusion begins with. A part of pipelines' files (see `hf_genzoo.hub.inline`).

Papers
- White 2016, "Sampling Generative Networks": interpolation along the arc.
- Higgins et al. 2017, "beta-VAE": traversals.
- van der Maaten & Hinton 2008, "Visualizing Data using t-SNE": maps.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from diffusers.image_processor import PipelineImageInput
from diffusers.pipelines.pipeline_utils import ImagePipelineOutput
from torch import Tensor

from hf_genzoo.pipelines._latent_map import LatentMap, lay_out
from hf_genzoo.pipelines._pictures import check_choice

OUTPUT_TYPES = ("pil", "np", "pt")
MODES = ("linear", "spherical")


class LatentPipeline(ABC):
    """Decoding, and ways through the space of latents; for pipelines whose pictures are functions of a latent."""

    @property
    @abstractmethod
    def latent_dim(self) -> int:
        """How many numbers d a latent has."""

    @property
    def latent_shape(self) -> tuple[int, ...]:
        """Shape of a latent: (d,), unless the pipeline says otherwise."""
        return (self.latent_dim,)

    @abstractmethod
    def decode(
        self, latents: Tensor, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        """What the latents (B, *latent_shape) stand for, as in the call."""

    def interpolate(
        self,
        a: Tensor | PipelineImageInput,
        b: Tensor | PipelineImageInput,
        steps: int = 8,
        mode: str = "linear",
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """What lies between two latents, both ends included.

        Args:
            a: A latent, alone or as a batch of one, or, where the pipeline encodes, one image.
            b: The other end.
            steps: Number of results, at least 2.
            mode: "linear"; or "spherical", along the arc, for latents as far from 0 as a normal prior puts them.
            output_type: As in the call.
            return_dict: As in the call.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        between = self.between(a, b, steps, mode)
        return self.decode(between, output_type=output_type, return_dict=return_dict)

    def traverse(
        self,
        image_or_latent: Tensor | PipelineImageInput,
        dims: Sequence[int] | None = None,
        range: tuple[float, float] = (-3.0, 3.0),
        steps: int = 7,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple:
        """What becomes of a latent when one of its numbers is changed and the others stay.

        Args:
            image_or_latent: Where to start, as an end of `interpolate`.
            dims: Which of the d numbers to change; all by default.
            range: First and last value a number gets.
            steps: Values a number gets, evenly spaced, at least 2.
            output_type: As in the call.
            return_dict: As in the call.

        Returns:
            len(dims) * steps results, one dimension after another: a grid of `steps` columns.

        Raises:
            ValueError: If an argument does not fit; the message names it and the fix.
        """
        check_choice("output_type", output_type, OUTPUT_TYPES)
        latents = self.traversal(image_or_latent, dims, range, steps)
        return self.decode(latents, output_type=output_type, return_dict=return_dict)

    def between(self, a: Tensor | PipelineImageInput, b: Tensor | PipelineImageInput, steps: int, mode: str) -> Tensor:
        """The latents (steps, *latent_shape) that `interpolate` decodes."""
        check_choice("mode", mode, MODES)
        if steps < 2:
            raise ValueError(f"steps must be at least 2, the two ends, not {steps}")
        latents = interpolate_latents(self.one_latent(a).flatten(), self.one_latent(b).flatten(), steps, mode)
        return latents.unflatten(1, self.latent_shape)

    def traversal(
        self,
        image_or_latent: Tensor | PipelineImageInput,
        dims: Sequence[int] | None,
        range: tuple[float, float],
        steps: int,
    ) -> Tensor:
        """The latents (len(dims) * steps, *latent_shape) that `traverse` decodes."""
        chosen = np.arange(self.latent_dim) if dims is None else np.asarray(dims, dtype=np.int64)
        if chosen.ndim != 1 or not len(chosen) or chosen.min() < 0 or chosen.max() >= self.latent_dim:
            raise ValueError(f"dims must be some of 0 to {self.latent_dim - 1}, not {dims}")
        if steps < 2:
            raise ValueError(f"steps must be at least 2, the two ends of the range, not {steps}")
        if not range[0] < range[1]:
            raise ValueError(f"range must be a smaller and a larger number, not {range}")
        start = self.one_latent(image_or_latent).flatten()
        values = torch.linspace(*range, steps, device=start.device, dtype=start.dtype)
        latents = start.repeat(len(chosen), steps, 1)
        latents[torch.arange(len(chosen)), :, torch.from_numpy(chosen)] = values
        return latents.flatten(0, 1).unflatten(1, self.latent_shape)

    def is_latent(self, value: object) -> bool:
        """Whether a value is one latent, alone or as a batch of one, and no image."""
        return isinstance(value, Tensor) and value.shape in (self.latent_shape, (1, *self.latent_shape))

    def one_latent(self, value: Tensor | PipelineImageInput) -> Tensor:
        """A latent (*latent_shape) as it is given."""
        if not self.is_latent(value):
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise ValueError(
                f"a latent must be a tensor of shape {self.latent_shape} or {(1, *self.latent_shape)}, not {found}"
            )
        return value.reshape(self.latent_shape)  # type: ignore[union-attr]


class EncodingPipeline(LatentPipeline):
    """The same with an encoder: images may stand for their latents."""

    @abstractmethod
    def encode(self, images: PipelineImageInput) -> Tensor:
        """Latents (B, *latent_shape) of images.

        Args:
            images: PIL images of any mode and size, arrays (B, H, W, C) or tensors (B, C, H, W).
        """

    def reconstruct(
        self, images: PipelineImageInput, output_type: str = "pil", return_dict: bool = True
    ) -> ImagePipelineOutput | tuple:
        """Images decoded from the latents of `images` (as in `encode`), at the network's resolution."""
        check_choice("output_type", output_type, OUTPUT_TYPES)
        return self.decode(self.encode(images), output_type=output_type, return_dict=return_dict)

    def latent_map(
        self,
        images: PipelineImageInput,
        labels: Sequence[int] | np.ndarray | None = None,
        method: str = "pca",
        seed: int = 0,
    ) -> LatentMap:
        """Lay images out in the plane by their latents.

        Args:
            images: At least 8 images (as in `encode`), or latents (N, *latent_shape).
            labels: (N,) classes: colours of the figure, and the accuracy of the neighbours' vote.
            method: "pca", or "tsne" (after PCA to 50 dimensions; needs scikit-learn).
            seed: Of t-SNE.

        Returns:
            Points (N, 2), how far they can be trusted, and the figure.

        Raises:
            ValueError: If an argument does not fit.
            ImportError: t-SNE without scikit-learn; the message says how to get it.
        """
        latents = images if self.are_latents(images) else self.encode(images)
        return lay_out(latents.cpu().double().flatten(1).numpy(), labels, method, seed)  # type: ignore[union-attr]

    def are_latents(self, values: object) -> bool:
        """Whether values are latents (N, *latent_shape), and no images."""
        return isinstance(values, Tensor) and values.shape[1:] == self.latent_shape

    def one_latent(self, value: Tensor | PipelineImageInput) -> Tensor:
        """A latent (*latent_shape) as it is given, or the latent of one image."""
        if self.is_latent(value):
            return super().one_latent(value)
        latents = self.encode(value)
        if len(latents) != 1:
            raise ValueError(f"expected a latent or a single image, not {len(latents)} images")
        return latents[0]


def interpolate_latents(start: Tensor, end: Tensor, steps: int, mode: str) -> Tensor:
    """Latents (steps, d) from `start` to `end`, (d,) each, on the line or on the arc between them."""
    t = torch.linspace(0.0, 1.0, steps, device=start.device, dtype=start.dtype).unsqueeze(1)
    if mode == "linear":
        return torch.lerp(start, end, t)
    angle = torch.arccos(F.cosine_similarity(start, end, dim=0).clamp(-1.0, 1.0))
    if torch.sin(angle) < 1e-4:  # parallel or opposite: no arc is defined
        return torch.lerp(start, end, t)
    return (torch.sin((1.0 - t) * angle) * start + torch.sin(t * angle) * end) / torch.sin(angle)
