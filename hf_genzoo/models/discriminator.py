"""Discriminators: image or point in, and a class where there are classes, one logit out.

Papers
- Radford, Metz & Chintala 2016, "Unsupervised Representation Learning with Deep Convolutional GANs" (the shape).
- Mirza & Osindero 2014, "Conditional Generative Adversarial Nets": the class joins the sample at the input.
- Miyato & Koyama 2018, "cGANs with Projection Discriminator": the class is an inner product with the features.

What differs from the papers and why
- No normalisation, as in the critics (`hf_genzoo.models.critic`, whose features these are): DCGAN's BatchNorm ties
  samples together, and the gradient penalties are about one sample's gradient.
- The features are those of every place of the last stage, not their sum: at this size the place matters, and it costs
  little.
- The class embeddings start at unit length rather than with unit entries: the inner product of wide features would
  otherwise drown the other term.
"""

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

from hf_genzoo.models.critic import conv_features, mlp_features

CONDITIONINGS = ("projection", "concat")


class _Discriminator(ModelMixin, ConfigMixin):
    """Logits psi(phi(x)), or psi(phi(x)) + <v_y, phi(x)> (Miyato & Koyama 2018, eq. 5), or psi(phi((x, y)))."""

    features: nn.Sequential
    head: nn.Linear
    embedding: nn.Embedding | None

    def _build(self, layers: list[nn.Module], width: int, num_classes: int | None, conditioning: str, bias: bool):
        self.features = nn.Sequential(*layers)
        self.head = nn.Linear(width, 1, bias=bias)
        self.embedding = None
        if num_classes is not None and conditioning == "projection":
            self.embedding = nn.Embedding(num_classes, width)
            nn.init.normal_(self.embedding.weight, std=width**-0.5)

    def forward(self, sample: Tensor, class_labels: Tensor | None = None) -> Tensor:
        """Logits (B,) of samples (B, C, ...) and, where there are classes, labels (B,).

        Raises:
            ValueError: If labels are missing, or there are no classes.
        """
        num_classes = self.config["num_classes"]
        if (class_labels is None) != (num_classes is None):
            raise ValueError(f"a discriminator of {num_classes or 'no'} classes was called with labels {class_labels}")
        if class_labels is not None and self.embedding is None:
            sample = with_class_maps(sample, class_labels, num_classes)
        phi = self.features(sample)
        logits = self.head(phi).squeeze(1)
        if class_labels is not None and self.embedding is not None:
            logits = logits + (self.embedding(class_labels) * phi).sum(1)
        return logits


class ConvDiscriminator(_Discriminator):
    """Logits of images.

    Args:
        in_channels: Channels of the images, or of a pack of them together.
        sample_size: Height and width of the images; at least 2 ** len(block_out_channels).
        block_out_channels: Width of each stage; each halves the resolution, rounding down.
        num_classes: Number of classes; None makes it unconditional.
        conditioning: "projection" or "concat", where there are classes.
        bias: Whether the last layer has one; a loss of differences of logits has no use for it.

    Raises:
        ValueError: If the stages would leave no pixel, or the conditioning is unknown.
    """

    @register_to_config
    def __init__(
        self,
        in_channels: int = 1,
        sample_size: int = 28,
        block_out_channels: tuple[int, ...] = (32, 64, 128),
        num_classes: int | None = None,
        conditioning: str = "projection",
        bias: bool = True,
    ):
        super().__init__()
        width_in = in_channels + _class_maps(num_classes, conditioning)
        self._build(*conv_features(width_in, sample_size, block_out_channels), num_classes, conditioning, bias)


class MLPDiscriminator(_Discriminator):
    """Logits of points.

    Args:
        in_features: Coordinates of a point, or of a pack of them together.
        hidden_dim: Width of the hidden layers.
        num_hidden_layers: Number of hidden layers.
        num_classes: Number of classes; None makes it unconditional.
        conditioning: "projection" or "concat", where there are classes.
        bias: Whether the last layer has one; a loss of differences of logits has no use for it.

    Raises:
        ValueError: If the conditioning is unknown.
    """

    @register_to_config
    def __init__(
        self,
        in_features: int = 2,
        hidden_dim: int = 128,
        num_hidden_layers: int = 3,
        num_classes: int | None = None,
        conditioning: str = "projection",
        bias: bool = True,
    ):
        super().__init__()
        width_in = in_features + _class_maps(num_classes, conditioning)
        self._build(*mlp_features(width_in, hidden_dim, num_hidden_layers), num_classes, conditioning, bias)


def with_class_maps(sample: Tensor, class_labels: Tensor, num_classes: int) -> Tensor:
    """Samples (B, C, ...) with the one-hot class as num_classes further channels, the same everywhere."""
    one_hot = F.one_hot(class_labels, num_classes).to(sample.dtype)
    maps = one_hot.reshape(*one_hot.shape, *(1,) * (sample.ndim - 2)).expand(-1, -1, *sample.shape[2:])
    return torch.cat([sample, maps], dim=1)


def _class_maps(num_classes: int | None, conditioning: str) -> int:
    if conditioning not in CONDITIONINGS:
        raise ValueError(f"unknown conditioning {conditioning!r}; choose one of {', '.join(CONDITIONINGS)}")
    return num_classes or 0 if conditioning == "concat" else 0
