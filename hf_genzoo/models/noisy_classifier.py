"""A classifier of noisy pictures that is told how noisy they are: its gradient leads samples to a class.

Paper
- Song et al. 2021, "Score-Based Generative Modeling through Stochastic Differential Equations", section 5 and
  appendix I.1 (there a wide residual network told the noise by an embedding; here residual blocks of diffusers).

This file is published beside the weights: it imports torch and diffusers only.
"""

import itertools

from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.embeddings import TimestepEmbedding, get_timestep_embedding
from diffusers.models.modeling_utils import ModelMixin
from diffusers.models.resnet import ResnetBlock2D
from torch import Tensor, nn


class NoisyClassifier(ModelMixin, ConfigMixin):
    """Classes of noisy pictures of any size.

    Args:
        in_channels: Channels of the pictures.
        num_classes: Number of classes.
        block_out_channels: Width at each resolution, finest first; each further entry halves the picture.
        norm_num_groups: Groups of group normalisation; must divide every width.

    Raises:
        ValueError: If the groups do not divide a width.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        num_classes: int = 10,
        block_out_channels: tuple[int, ...] = (32, 64, 96),
        norm_num_groups: int = 8,
    ):
        super().__init__()
        if any(width % norm_num_groups for width in block_out_channels):
            raise ValueError(f"norm_num_groups {norm_num_groups} does not divide all of {block_out_channels}")
        first, last = block_out_channels[0], block_out_channels[-1]
        self.time = TimestepEmbedding(first, 4 * first)
        self.stem = nn.Conv2d(in_channels, first, 3, padding=1)
        self.blocks = nn.ModuleList(
            ResnetBlock2D(
                in_channels=width_in,
                out_channels=width,
                temb_channels=4 * first,
                groups=norm_num_groups,
                groups_out=norm_num_groups,
                down=level > 0,
            )
            for level, (width_in, width) in enumerate(itertools.pairwise((first, *block_out_channels)))
        )
        self.head = nn.Sequential(
            nn.GroupNorm(norm_num_groups, last),
            nn.SiLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(last, num_classes),
        )

    def forward(self, sample: Tensor, timestep: Tensor) -> Tensor:
        """Logits (B, num_classes) of pictures (B, C, H, W), scaled as for the score network, at time inputs (B,)."""
        embedded = get_timestep_embedding(timestep, self.config["block_out_channels"][0]).to(sample.dtype)
        told, hidden = self.time(embedded), self.stem(sample)
        for block in self.blocks:
            hidden = block(hidden, told)
        return self.head(hidden)
