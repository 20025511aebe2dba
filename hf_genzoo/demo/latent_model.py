"""What the latent explorer needs of a pipeline, whatever it is called there: to decode latents, maybe to encode."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from diffusers.pipelines.pipeline_utils import DiffusionPipeline
from numpy.typing import NDArray
from PIL import Image

from .examples import Examples

BATCH = 256
LEAST_LIMIT = 3.0  # standard deviations of the prior that a slider spans at least


def latent_dim(pipeline: DiffusionPipeline) -> int | None:
    """Length of the vector that a pipeline paints from; None where it paints from anything else."""
    configs = [getattr(part, "config", None) for part in pipeline.components.values()]
    # A transformers component keeps its settings as attributes, and has no such latent.
    dims = [config.get("latent_dim") for config in configs if isinstance(config, Mapping)]
    return next((dim for dim in dims if isinstance(dim, int)), None)


class LatentModel:
    """A pipeline with a vector latent.

    Args:
        pipeline: Has `encode` and `decode`, or a call that takes `latents` (B, d).
        examples: Pictures whose latents tell which dimensions matter; without them or an encoder, all count alike.

    Raises:
        ValueError: The pipeline has no vector latent.
    """

    def __init__(self, pipeline: DiffusionPipeline, examples: Examples | None = None) -> None:
        self.pipeline, self.examples = pipeline, examples
        self.encodes = callable(getattr(pipeline, "encode", None))
        dim = latent_dim(pipeline)
        if dim is None:
            raise ValueError(f"{type(pipeline).__name__} has no vector latent")
        self.dim = dim
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
        pipeline: Any = self.pipeline
        return pipeline.encode(images).cpu().float().numpy()

    def decode(self, latents: NDArray[np.floating]) -> list[Image.Image]:
        """Pictures of latents (B, d)."""
        pipeline: Any = self.pipeline
        rows = torch.from_numpy(np.ascontiguousarray(latents, dtype=np.float32))
        if callable(getattr(pipeline, "decode", None)):
            return pipeline.decode(rows).images
        return pipeline(batch_size=len(rows), latents=rows).images

    def draw(self, seed: int) -> NDArray[np.float32]:
        """A latent (d,) of the prior."""
        return torch.randn(self.dim, generator=torch.Generator().manual_seed(seed)).numpy()
