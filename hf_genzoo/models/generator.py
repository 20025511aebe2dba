"""Generators of the adversarial families: latent vector in, image or point out.

Papers
- Radford, Metz & Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional GANs" (the shape).
- Gulrajani et al. 2017, "Improved Training of Wasserstein GANs" (the fully connected network for 2-D points).
- Mirza & Osindero 2014, "Conditional Generative Adversarial Nets" (the class joins z at the input).

What differs from the papers and why
- GroupNorm where DCGAN has BatchNorm: an image then depends on its own latent only, so a batch equals its singles in
  training too, averaged weights need no statistics of their own, and gradients do not depend on how a batch is cut
  into pieces. `norm_type="batch"` is DCGAN's; out of training it uses its running statistics, so that a batch equals
  its singles there.
- Widths that train on a CPU.

This file is published beside the weights: it imports torch and diffusers only.
"""

import itertools
import math

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

NORMS = ("group", "batch")


class ConvGenerator(ModelMixin, ConfigMixin):
    """Images from latent vectors, by transposed convolutions.

    Args:
        latent_dim: Length of z.
        out_channels: Channels of the images.
        sample_size: Height and width of the images; divisible by 2 ** (len(block_out_channels) - 1).
        block_out_channels: Width at each resolution, lowest first; each further entry doubles the resolution.
        num_classes: Number of classes it is asked for; None makes it unconditional.
        norm_type: "group" or "batch" normalisation.

    Raises:
        ValueError: If the resolution does not fit the stages, or the normalisation is unknown.
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int = 64,
        out_channels: int = 1,
        sample_size: int = 28,
        block_out_channels: tuple[int, ...] = (128, 64, 32),
        num_classes: int | None = None,
        norm_type: str = "group",
    ):
        super().__init__()
        if norm_type not in NORMS:
            raise ValueError(f"unknown norm_type {norm_type!r}; choose one of {', '.join(NORMS)}")
        factor = 2 ** (len(block_out_channels) - 1)
        if sample_size % factor:
            raise ValueError(
                f"sample_size {sample_size} is not divisible by {factor}, which {len(block_out_channels)} entries of "
                "block_out_channels need; resize the images or pass another number of them"
            )
        width, size = block_out_channels[0], sample_size // factor
        first = nn.Linear(latent_dim + (num_classes or 0), width * size * size)
        layers: list[nn.Module] = [first, nn.Unflatten(1, (width, size, size)), *_norm_act(width, norm_type)]
        for width_in, width_out in itertools.pairwise(block_out_channels):
            # Kernel 4 with stride 2: every output pixel gets the same number of taps, hence no checkerboard.
            up = nn.ConvTranspose2d(width_in, width_out, 4, stride=2, padding=1, bias=False)  # the norm has a bias
            layers += [up, *_norm_act(width_out, norm_type)]
        layers += [nn.Conv2d(block_out_channels[-1], out_channels, 3, padding=1), nn.Tanh()]
        self.layers = nn.Sequential(*layers)

    def forward(self, latents: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Images (B, out_channels, sample_size, sample_size) in [-1, 1] from latents (B, latent_dim), labels (B,)."""
        return self.layers(_with_classes(latents, class_labels, self.config["num_classes"]))


class MLPGenerator(ModelMixin, ConfigMixin):
    """Points from latent vectors, by a fully connected network.

    Args:
        latent_dim: Length of z.
        out_features: Coordinates of a point.
        hidden_dim: Width of the hidden layers.
        num_hidden_layers: Number of hidden layers.
        num_classes: Number of classes it is asked for; None makes it unconditional.
    """

    @register_to_config
    def __init__(
        self,
        latent_dim: int = 2,
        out_features: int = 2,
        hidden_dim: int = 128,
        num_hidden_layers: int = 3,
        num_classes: int | None = None,
    ):
        super().__init__()
        layers: list[nn.Module] = []
        width = latent_dim + (num_classes or 0)
        for _ in range(num_hidden_layers):
            layers += [nn.Linear(width, hidden_dim), nn.ReLU()]
            width = hidden_dim
        self.layers = nn.Sequential(*layers, nn.Linear(width, out_features))

    def forward(self, latents: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Points (B, out_features) from latents (B, latent_dim) and labels (B,)."""
        return self.layers(_with_classes(latents, class_labels, self.config["num_classes"]))


def _with_classes(latents: Tensor, class_labels: Tensor | None, num_classes: int | None) -> Tensor:
    """(z, y), the class as a one-hot vector (Mirza & Osindero 2014, section 3.2).

    Raises:
        ValueError: If labels are missing, or there are no classes.
    """
    if (class_labels is None) != (num_classes is None):
        raise ValueError(
            f"a generator of {num_classes or 'no'} classes was called {'without' if num_classes else 'with'} labels"
        )
    if class_labels is None or num_classes is None:
        return latents
    return torch.cat([latents, F.one_hot(class_labels, num_classes).to(latents.dtype)], dim=1)


def _norm_act(channels: int, norm_type: str) -> list[nn.Module]:
    if norm_type == "batch":
        return [nn.BatchNorm2d(channels), nn.ReLU()]
    return [nn.GroupNorm(math.gcd(8, channels), channels), nn.ReLU()]
