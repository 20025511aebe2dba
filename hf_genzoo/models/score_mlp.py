"""A score network for points: fully connected, told the time.

Paper
- Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations": its training.

This file is published beside the weights: it imports torch and diffusers only.
"""

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.unets.unet_2d import UNet2DOutput
from torch import Tensor, nn


class ScoreMLP(ModelMixin, ConfigMixin):
    """The noise in points, from the points and a time; called like a UNet2DModel.

    Args:
        dim: Numbers D of a point.
        hidden_dim: Width of the layers.
        num_layers: Residual layers.

    Raises:
        ValueError: If a size is below 1.
    """

    @register_to_config
    def __init__(self, dim: int = 2, hidden_dim: int = 128, num_layers: int = 3):
        super().__init__()
        if min(dim, hidden_dim, num_layers) < 1:
            raise ValueError(f"dim {dim}, hidden_dim {hidden_dim} and num_layers {num_layers} must be at least 1")
        self.stem = nn.Linear(dim, hidden_dim)
        self.time = nn.Sequential(nn.Linear(hidden_dim, hidden_dim), nn.SiLU())
        self.layers = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(hidden_dim), nn.Linear(hidden_dim, hidden_dim), nn.SiLU())
            for _ in range(num_layers)
        )
        self.out = nn.ModuleList(nn.Linear(hidden_dim, hidden_dim) for _ in range(num_layers))
        self.head = nn.Linear(hidden_dim, dim)

    def forward(self, sample: Tensor, timestep: Tensor) -> UNet2DOutput:
        """The noise (B, D), as `sample`, in points (B, D) at times (B,)."""
        told = self.time(get_timestep_embedding(timestep, self.config["hidden_dim"]).to(self.dtype))
        hidden = self.stem(sample)
        for layer, out in zip(self.layers, self.out, strict=True):
            hidden = hidden + out(layer(hidden + told))
        return UNet2DOutput(sample=self.head(hidden))
