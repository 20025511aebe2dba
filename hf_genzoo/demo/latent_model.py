"""A pipeline's latent API (`decode`, `interpolate`, `traverse`, maybe `encode`) as the latent explorer uses it."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from .examples import Examples

BATCH = 256
LEAST_LIMIT = 3.0  # standard deviations of the prior that a slider spans at least


def has_vector_latent(pipeline: DiffusionPipeline) -> bool:
    """Whether a pipeline paints from a vector and has the calls that our pipelines have for it."""
    return all(hasattr(pipeline, name) for name in ("latent_dim", "decode", "interpolate", "traverse"))


class LatentModel:
    """A pipeline with a vector latent.

    Args:
        pipeline: Has the latent API (`has_vector_latent`).
        examples: Pictures whose latents tell which dimensions matter; without them or an encoder, all count alike.
    """

    def __init__(self, pipeline: DiffusionPipeline, examples: Examples | None = None) -> None:
        self.pipeline: Any = pipeline
        self.examples = examples
        self.encodes = hasattr(pipeline, "encode")
        self.dim: int = self.pipeline.latent_dim
        self.latents = self._encode_examples()
        spread = np.ones(self.dim) if self.latents is None else self.latents.std(0)
        self.order = np.argsort(-spread, kind="stable")
        """Dimensions, the one that varies most over the data first."""
        self.limit = float(np.ceil(max(LEAST_LIMIT, 3.0 * spread.max())))

    def _encode_examples(self) -> NDArray[np.float32] | None:
        if not self.encodes or self.examples is None or not len(self.examples):
            return None
        pictures = [self.examples.picture(index) for index in range(len(self.examples))]
        return np.concatenate([self.encode(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)])

    def encode(self, images: list[Image.Image]) -> NDArray[np.float32]:
        """Latents (B, d) of pictures."""
        return self.pipeline.encode(images).cpu().float().numpy()

    def decode(self, latents: NDArray[np.floating]) -> list[Image.Image]:
        """Pictures of latents (B, d)."""
        return self.pipeline.decode(_tensor(latents)).images

    def between(
        self, start: NDArray[np.floating], end: NDArray[np.floating], steps: int, mode: str
    ) -> list[Image.Image]:
        """Pictures of the latents from `start` to `end`, (d,) each, both included.

        Raises:
            ValueError: There is no such mode.
        """
        return self.pipeline.interpolate(_tensor(start), _tensor(end), steps=steps, mode=mode).images

    def traversal(self, latent: Sequence[float], dimensions: Sequence[int], steps: int) -> list[Image.Image]:
        """One dimension of a latent (d,) after another moved from one end of its slider to the other in `steps`."""
        ends = (-self.limit, self.limit)
        return self.pipeline.traverse(_tensor(latent), dims=dimensions, range=ends, steps=steps).images

    def draw(self, seed: int) -> NDArray[np.float32]:
        """A latent (d,) of the prior."""
        return torch.randn(self.dim, generator=torch.Generator().manual_seed(seed)).numpy()


def _tensor(latents: Sequence[float] | NDArray[np.floating]) -> torch.Tensor:
    return torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32))
